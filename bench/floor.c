/* SPDX-License-Identifier: Apache-2.0
 * floor JOB INIT [direct] [template] [ready] [live] [spawn] [without=PHASE]...
 * Reads a count a line from stdin; does that many launches, and answers with one line of JSON: the
 * nanoseconds of each, whole and by phase.  Needs root. */
#define _GNU_SOURCE
#include "floor_runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char stack[FLOOR_STACK] __attribute__((aligned(16)));

static const char *const phases[] = {
#define NAME(name) #name,
	FLOOR_PHASES(NAME)
#undef NAME
};

_Noreturn void floor_fail(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The clone child: shares our memory until its exec. */
static int child(void *arg)
{
	struct floor_arena *a = floor_arena();
	const struct floor_options *o = arg;
	static const char *const argv[] = {"floor-init", NULL}, *const envp[] = {NULL};

	while (!__atomic_load_n(&a->futex, __ATOMIC_ACQUIRE))
		(void)sys(futex, &a->futex, 0 /* FUTEX_WAIT */, 0, NULL, NULL, 0);
	if (!a->template && floor_trees(a) < 0)
		sys(exit_group, 126);
	if (floor_run(a, FLOOR_EARLY, -1) < 0)
		sys(exit_group, 126);
	if (!o->direct) {
		long r = sys(execveat, o->init_fd, "", argv, envp, AT_EMPTY_PATH);
		a->error = (int32_t)-r;
		sys(exit_group, 126);
	}
	if (a->template)
		a->root_fd = (int32_t)sys(openat, AT_FDCWD, "/", O_PATH | O_CLOEXEC);
	if (floor_run(a, FLOOR_BOX, a->template ? 1 : -1) == 0)
		floor_program(a);
	sys(exit_group, 126);
	return 126;
}

/* Until both pipes have ended: the program's streams. */
static void drain(int out, int err)
{
	struct pollfd fds[2] = {{.fd = out, .events = POLLIN}, {.fd = err, .events = POLLIN}};
	char data[4096];
	while (fds[0].fd >= 0 || fds[1].fd >= 0) {
		if (poll(fds, 2, -1) < 0)
			floor_fail("poll");
		for (int i = 0; i < 2; i++)
			if (fds[i].revents && read(fds[i].fd, data, sizeof data) <= 0)
				fds[i].fd = -1;
	}
}

static int listens(const struct floor_arena *a)
{
	for (uint32_t i = 0; i < a->n_steps; i++)
		if (a->steps[i].code == FL_seccomp && a->steps[i].n[0] & 8 /* NEW_LISTENER */)
			return !a->steps[i].off;
	return 0;
}

/* Take the listener of each program, and let go of it: nobody answers here, so what the filter would
 * report gets ENOSYS.  A program that failed before sends none. */
static void take_listeners(const struct floor_arena *a, int told)
{
	for (uint32_t i = 0; i < (a->live ? a->live : 1); i++) {
		char byte, control[CMSG_SPACE(sizeof(int))];
		struct iovec part = {&byte, 1};
		struct msghdr message = {.msg_iov = &part,
					 .msg_iovlen = 1,
					 .msg_control = control,
					 .msg_controllen = sizeof control};
		if (recvmsg(told, &message, MSG_CMSG_CLOEXEC) <= 0 || !message.msg_controllen)
			break;
		close(*(int *)CMSG_DATA(CMSG_FIRSTHDR(&message)));
	}
	close(told);
}

static void check(const struct floor_arena *a, int status)
{
	if (!a->error && status == 0)
		return;
	fprintf(stderr, "floor: step %d of %u (code %u): %s; status %x\n", a->error_step,
		a->n_steps, a->error_step < (int)a->n_steps ? a->steps[a->error_step].code : 999,
		strerror(a->error), status);
	exit(1);
}

static int cloned(struct floor_arena *a, struct floor_options *o, int *pidfd)
{
	floor_enter(o);
	int flags = (int)a->clone_flags | CLONE_VM | CLONE_PIDFD | SIGCHLD;
	int pid = clone(child, stack + sizeof stack, flags, o, pidfd);
	if (pid < 0)
		floor_fail("clone");
	floor_leave(o);
	a->stamp[PH_clone] = floor_now();
	floor_maps(a, pid);
	a->stamp[PH_maps] = floor_now();
	__atomic_store_n(&a->futex, 1, __ATOMIC_RELEASE);
	(void)sys(futex, &a->futex, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0);
	return pid;
}

static uint64_t launch(struct floor_arena *a, struct floor_options *o)
{
	int out[2], err[2], told[2] = {-1, -1}, pidfd = -1;
	siginfo_t info;

	memset(a->stamp, 0, sizeof a->stamp);
	a->error = a->error_step = a->futex = 0;
	uint64_t began = floor_now();
	a->null_fd = open("/dev/null", O_RDONLY);
	if (a->null_fd < 0 || pipe2(out, 0) < 0 || pipe2(err, 0) < 0)
		floor_fail("pipe");
	if (listens(a) && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, told) < 0)
		floor_fail("socketpair");
	a->out_fd = out[1], a->err_fd = err[1], a->told_fd = told[1];
	floor_cgroup_make(a, o);
	a->stamp[PH_cgroup] = floor_now();
	cloned(a, o, &pidfd);
	close(a->null_fd), close(out[1]), close(err[1]), close(told[1]);
	if (told[0] >= 0)
		take_listeners(a, told[0]);
	drain(out[0], err[0]);
	if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0)
		floor_fail("waitid");
	a->stamp[PH_end] = floor_now();
	close(pidfd), close(out[0]), close(err[0]);
	check(a, info.si_code == CLD_EXITED ? info.si_status : -1);
	floor_cgroup_remove(a, o);
	a->stamp[PH_remove] = floor_now();
	return a->stamp[PH_remove] - began;
}

static uint64_t spawn_plain(const struct floor_arena *a)
{
	char *argv[] = {(char *)(uintptr_t)a->program, NULL}, *envp[] = {NULL};
	uint64_t began = floor_now();
	pid_t pid;
	int status;
	if (posix_spawn(&pid, a->program, NULL, NULL, argv, envp) || waitpid(pid, &status, 0) < 0)
		floor_fail("posix_spawn");
	check(a, status);
	return floor_now() - began;
}

/* Processor time of this process and of all that it has reaped, nanoseconds. */
static uint64_t processor(void)
{
	static const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
	struct rusage used;
	uint64_t sum = 0;
	for (int i = 0; i < 2; i++) {
		if (getrusage(whose[i], &used) < 0)
			floor_fail("getrusage");
		sum += (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000u;
		sum += (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000u;
	}
	return sum;
}

/* One run: its stamps relative to the one before, "name":ns. */
static void print_run(const struct floor_arena *a, uint64_t total, uint64_t cpu, int first)
{
	uint64_t last = a->stamp[PH_remove] - total;
	printf("%s{\"total\":%lu,\"cpu\":%lu", first ? "" : ",", (unsigned long)total,
	       (unsigned long)cpu);
	for (int i = 0; i < PH_COUNT; i++) {
		if (a->stamp[i] < last)
			continue;
		printf(",\"%s\":%lu", phases[i], (unsigned long)(a->stamp[i] - last));
		last = a->stamp[i];
	}
	putchar('}');
}

static void serve(struct floor_arena *a, struct floor_options *o, uint32_t count)
{
	putchar('[');
	if (o->live && !o->spawn) {
		a->live = count;
		launch(a, o);
	} else if (o->ready) {
		floor_stock(o, count);
	}
	for (uint32_t i = 0; i < count; i++) {
		if (o->spawn || o->live)
			printf("%s{\"total\":%lu}", i ? "," : "",
			       (unsigned long)(o->spawn ? spawn_plain(a) : a->took[i]));
		else {
			uint64_t before = processor(), total = launch(a, o);
			print_run(a, total, processor() - before, i == 0);
		}
	}
	puts("]");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct floor_options o = {.host_mnt = -1, .template_mnt = -1};
	char line[64];

	if (argc < 3) {
		fputs("usage: floor JOB INIT [direct|template|ready|live|spawn|without=PHASE]...\n",
		      stderr);
		return 2;
	}
	struct floor_arena *a = floor_load(argv[1]);
	o.init_fd = open(argv[2], O_PATH | O_CLOEXEC);
	if (o.init_fd < 0)
		floor_fail(argv[2]);
	for (int i = 3; i < argc; i++)
		floor_option(a, &o, argv[i], phases);
	if (a->template)
		floor_template(a, &o);
	while (fgets(line, sizeof line, stdin)) {
		unsigned long count = strtoul(line, NULL, 10);
		if (count < 1 || count > FLOOR_MAX_RUNS)
			return 2;
		serve(a, &o, (uint32_t)count);
	}
	return 0;
}
