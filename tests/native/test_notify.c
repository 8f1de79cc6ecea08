/* SPDX-License-Identifier: Apache-2.0
 * The supervisor of refused calls (notify.c, notify_ask.c, notify_bpf.c) and the stock's namespaces
 * (stock.c) under ASan and UBSan: with real listeners of real processes.  Built and run by
 * tools/native_check.py. */
#include "../../_native/plan.h"
#include "callers.h"
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sanitizer/allocator_interface.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS 20000 /* a bound, in ms: a loaded machine may take its time */

static struct iso_sight sights[ISO_SIGHTS];
static struct iso_notice told;

/* A supervisor whose policy says `action` of everything, and looks at mkdir's name. */
static struct iso_notify *supervisor(uint32_t action, uint8_t way, int lethal)
{
	struct sock_filter code[] = {{BPF_RET | BPF_K, 0, 0, action}};
	const void *programs[] = {code};
	uint32_t lengths[] = {sizeof code};

	memset(sights, 0, sizeof sights);
	sights[SYS_mkdirat] = (struct iso_sight){
		.way = way, .scalars = 0x4, .look = {ISO_LOOK_STRING}, .arg = {1}};
	sights[SYS_getppid] = (struct iso_sight){.way = way};
	sights[SYS_bind] = (struct iso_sight){.way = way,
					      .scalars = 0x1,
					      .look = {ISO_LOOK_BYTES, ISO_LOOK_STRING},
					      .arg = {1, 1},
					      .len_arg = {2, 0}};
	struct iso_notify *n = iso_notify_open(programs, lengths, 1, sights, CALLERS_ARCH, lethal);
	CHECK(n);
	return n;
}

static int next(struct iso_notify *n)
{
	return iso_notify_next(n, SECONDS, &told);
}

static uint64_t counts[ISO_SEEN_KINDS + 2];

static void the_first_of_a_kind_is_told_and_the_rest_counted(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ERRNO | EACCES, ISO_WAY_REPORT, 0);
	pid_t pid = caller_starts(n, 7, caller_makes_directories);

	CHECK(next(n) == ISO_TOLD_NEW);
	CHECK(told.tag == 7 && told.nr == SYS_mkdirat && told.kind == 0);
	CHECK(told.pid == (uint32_t)pid);
	CHECK(told.action == (SECCOMP_RET_ERRNO | EACCES));
	CHECK(told.len[0] == 4 && memcmp(told.data[0], "/one", 4) == 0);
	CHECK(iso_notify_valid(n, 7, told.id) == 0);
	CHECK(iso_notify_valid(n, 8, told.id) == -ENOENT);
	CHECK(iso_notify_answer(n, 7, told.id, 0, EACCES, 0) == 0);
	CHECK(iso_notify_answer(n, 7, told.id, 0, EACCES, 0) < 0); /* once only */
	CHECK(next(n) == ISO_TOLD_NEW && told.kind == 1);
	CHECK(memcmp(told.data[0], "/two", 5) == 0);
	CHECK(iso_notify_answer(n, 7, told.id, 0, EACCES, 0) == 0);
	CHECK(next(n) == ISO_TOLD_GONE && told.tag == 7);
	CHECK(iso_notify_counts(n, 7, counts) == 2);
	CHECK(counts[0] == CALLER_TIMES && counts[1] == 1 && counts[2] == 0);
	CHECK(counts[3] == CALLER_TIMES + 1);
	CHECK(caller_ends(pid) == CALLER_ALL_REFUSED);
	iso_notify_forget(n, 7);
	CHECK(iso_notify_counts(n, 7, counts) == -ENOENT);
	iso_notify_close(n);
}

static void more_kinds_than_the_table_has_are_counted_together(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ERRNO | EPERM, ISO_WAY_REPORT, 0);
	pid_t pid = caller_starts(n, 1, caller_makes_many_kinds);
	int told_new = 0, r;

	while ((r = next(n)) == ISO_TOLD_NEW) {
		told_new++;
		CHECK(iso_notify_answer(n, 1, told.id, 0, EPERM, 0) == 0);
	}
	CHECK(r == ISO_TOLD_GONE && told_new == ISO_SEEN_KINDS);
	CHECK(iso_notify_counts(n, 1, counts) == ISO_SEEN_KINDS);
	CHECK(counts[ISO_SEEN_KINDS] == CALLER_KINDS - ISO_SEEN_KINDS);
	CHECK(counts[ISO_SEEN_KINDS + 1] == CALLER_KINDS);
	CHECK(caller_ends(pid) == 0);
	iso_notify_close(n);
}

static void what_is_silent_is_answered_without_a_word(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ERRNO | EACCES, ISO_WAY_SILENT, 0);
	pid_t pid = caller_starts(n, 3, caller_makes_directories);

	while (caller_lives(pid))
		CHECK(iso_notify_next(n, 20, &told) == ISO_TOLD_WOKEN);
	CHECK(caller_ends(pid) == CALLER_ALL_REFUSED);
	CHECK(iso_notify_counts(n, 3, counts) <= 0); /* dropped by now, or without a kind */
	iso_notify_close(n);
}

static void a_handler_is_told_every_time_and_answers(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_USER_NOTIF, ISO_WAY_HANDLER, 0);
	pid_t pid = caller_starts(n, 4, caller_asks_a_handler);
	char seen[16];
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	CHECK(next(n) == ISO_TOLD_HANDLER && told.nr == SYS_getppid);
	CHECK(iso_notify_answer(n, 4, told.id, 4242, 0, 0) == 0);
	CHECK(next(n) == ISO_TOLD_HANDLER && told.nr == SYS_mkdirat);
	CHECK(iso_notify_peek(n, 4, told.id, told.pid, told.args[1], seen, 8) == 8);
	CHECK(memcmp(seen, "/handler", 8) == 0);
	CHECK(iso_notify_peek(n, 4, told.id + 1, told.pid, told.args[1], seen, 8) == -ENOENT);
	CHECK(iso_notify_peek(n, 4, told.id, told.pid, 1, seen, 8) == -EFAULT);
	CHECK(iso_notify_give_fd(n, 5, told.id, fd, -1, 0) == -ENOENT);
	CHECK(iso_notify_give_fd(n, 4, told.id, -1, -1, 0) == -EBADF);
	CHECK(iso_notify_give_fd(n, 4, told.id, fd, CALLER_FD, O_CLOEXEC) == CALLER_FD);
	CHECK(next(n) == ISO_TOLD_HANDLER);
	CHECK(iso_notify_give_fd(n, 4, told.id, fd, -1, 0) >= 3);
	CHECK(next(n) == ISO_TOLD_HANDLER);
	CHECK(iso_notify_answer(n, 4, told.id, 0, 0, 1) == 0); /* goes on */
	close(fd);
	CHECK(caller_ends(pid) == 0);
	iso_notify_close(n);
}

/* Pointers to nothing, across the end of a page, and sizes that lie. */
static void hostile_pointers_are_read_as_far_as_they_go(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ERRNO | EPERM, ISO_WAY_REPORT, 0);
	pid_t pid = caller_starts(n, 5, caller_lies_about_memory);
	int seen = 0, r;

	while ((r = next(n)) == ISO_TOLD_NEW) {
		CHECK(told.nr == SYS_bind && told.len[0] <= ISO_SEEN_BYTES);
		CHECK(told.len[1] <= ISO_SEEN_BYTES);
		if (seen == 0)
			CHECK(told.len[0] == 0 && told.len[1] == 0);
		if (seen == 1)
			CHECK(told.len[0] == 16 && told.data[0][15] == 'y');
		if (seen == 2)
			CHECK(told.len[0] == 16); /* as far as the page goes */
		if (seen == 3)
			CHECK(told.len[0] == ISO_SEEN_BYTES);
		for (uint32_t i = told.len[0]; i < ISO_SEEN_BYTES; i++)
			CHECK(told.data[0][i] == 0);
		seen++;
		CHECK(iso_notify_answer(n, 5, told.id, 0, EPERM, 0) == 0);
	}
	CHECK(r == ISO_TOLD_GONE && seen == 4);
	CHECK(caller_ends(pid) == 0);
	iso_notify_close(n);
}

static void a_lethal_policy_asks_for_the_end(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ERRNO | EPERM, ISO_WAY_REPORT, 1);
	pid_t pid = caller_starts(n, 6, caller_makes_directories);
	uint64_t id;

	CHECK(next(n) == ISO_TOLD_KILL);
	id = told.id;
	CHECK(kill(pid, SIGKILL) == 0);
	CHECK(caller_ends(pid) == -SIGKILL);
	CHECK(iso_notify_answer(n, 6, id, 0, EPERM, 0) == -ENOENT);
	CHECK(iso_notify_give_fd(n, 6, id, 0, -1, 0) == -ENOENT);
	CHECK(next(n) == ISO_TOLD_GONE);
	iso_notify_close(n);
}

static void what_is_observed_goes_on(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ALLOW, ISO_WAY_OBSERVE, 0);
	pid_t pid = caller_starts(n, 9, caller_asks_its_parent);

	CHECK(next(n) == ISO_TOLD_NEW && told.nr == SYS_getppid);
	CHECK(iso_notify_answer(n, 9, told.id, 0, 0, 1) == 0);
	CHECK(next(n) == ISO_TOLD_GONE);
	CHECK(iso_notify_counts(n, 9, counts) == 1 && counts[0] == CALLER_TIMES);
	CHECK(caller_ends(pid) == 0);
	iso_notify_close(n);
}

static void a_socket_without_a_listener_is_dropped(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ERRNO | EPERM, ISO_WAY_REPORT, 0);

	for (uint32_t tag = 1; tag <= 40; tag++) { /* the list grows, and shrinks again */
		int ends[2];
		caller_sockets(ends);
		CHECK(iso_notify_add(n, ends[0], tag) == 0);
		if (tag % 3 == 0)
			CHECK(write(ends[1], "x", 1) == 1); /* a byte, and no descriptor */
		if (tag % 2)
			iso_notify_forget(n, tag);
		close(ends[1]);
	}
	CHECK(iso_notify_next(n, 50, &told) == ISO_TOLD_WOKEN);
	for (uint32_t tag = 1; tag <= 40; tag++)
		CHECK(iso_notify_counts(n, tag, counts) == -ENOENT);
	iso_notify_close(n);
}

static void a_wake_and_a_timeout_are_told(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ERRNO | EPERM, ISO_WAY_REPORT, 0);

	CHECK(iso_notify_next(n, 0, &told) == ISO_TOLD_WOKEN);
	CHECK(iso_notify_wake(n) == 0);
	CHECK(iso_notify_next(n, -1, &told) == ISO_TOLD_WOKEN);
	CHECK(iso_notify_next(n, 1, &told) == ISO_TOLD_WOKEN);
	iso_notify_close(n);
}

static void after_the_shutdown_nothing_is_found(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ERRNO | EPERM, ISO_WAY_REPORT, 0);
	pid_t pid = caller_starts(n, 2, caller_hears_enosys);
	int ends[2];

	CHECK(next(n) == ISO_TOLD_NEW);
	iso_notify_shut(n);
	CHECK(caller_ends(pid) == 0); /* it got ENOSYS */
	CHECK(iso_notify_answer(n, 2, told.id, 0, EPERM, 0) == -ENOENT);
	CHECK(iso_notify_counts(n, 2, counts) == -ENOENT);
	caller_sockets(ends);
	CHECK(iso_notify_add(n, ends[0], 3) == -ESHUTDOWN);
	CHECK(iso_notify_wake(n) == -EBADF);
	iso_notify_shut(n); /* twice is once */
	iso_notify_close(n);
	close(ends[0]);
	close(ends[1]);
}

/* ---- threads: one serves, others add, ask and forget ---------------------------------------- */

static volatile int done;

static void *serving(void *arg)
{
	struct iso_notice mine;
	int r;

	while ((r = iso_notify_next(arg, 100, &mine)) > 0 && !done)
		if (r == ISO_TOLD_NEW)
			CHECK(iso_notify_answer(arg, mine.tag, mine.id, 0, EPERM, 0) == 0);
	CHECK(r > 0);
	return NULL;
}

static void *asking(void *arg)
{
	uint64_t mine[ISO_SEEN_KINDS + 2];

	while (!done) {
		for (uint32_t tag = 1; tag < 50; tag++) {
			(void)iso_notify_counts(arg, tag, mine);
			CHECK(iso_notify_valid(arg, tag, 1) < 0);
		}
		CHECK(iso_notify_wake(arg) == 0);
	}
	return NULL;
}

static void threads_do_not_meet(void)
{
	struct iso_notify *n = supervisor(SECCOMP_RET_ERRNO | EPERM, ISO_WAY_REPORT, 0);
	pthread_t serves, asks;

	done = 0;
	CHECK(pthread_create(&serves, NULL, serving, n) == 0);
	CHECK(pthread_create(&asks, NULL, asking, n) == 0);
	for (uint32_t tag = 1; tag < 50; tag++) {
		pid_t pid = caller_starts(n, tag, caller_makes_directories);
		CHECK(caller_ends(pid) == CALLER_ALL_REFUSED);
		if (tag % 2)
			iso_notify_forget(n, tag);
	}
	done = 1;
	CHECK(pthread_join(serves, NULL) == 0);
	CHECK(pthread_join(asks, NULL) == 0);
	iso_notify_close(n);
}

/* ---- programs ------------------------------------------------------------------------------- */

static uint32_t run(const struct sock_filter *code, size_t n, const struct seccomp_data *data)
{
	/* Copies of the exact size, so that ASan sees the first byte too far. */
	void *program = malloc(n * sizeof *code + 1), *about = malloc(sizeof *data);
	CHECK(program && about);
	memcpy(program, code, n * sizeof *code);
	memcpy(about, data, sizeof *data);
	uint32_t r = iso_filter_run(program, (uint32_t)(n * sizeof *code), about);
	free(program);
	free(about);
	return r;
}

static void a_program_is_run_as_the_kernel_would(void)
{
	struct seccomp_data data = {.nr = 5, .arch = 9, .args = {0x1122334455667788u}};
	struct sock_filter code[] = {
		{BPF_LD | BPF_W | BPF_ABS, 0, 0, 16},
		{BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xff00},
		{BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0x7700},
		{BPF_JMP | BPF_JA, 0, 0, 1},
		{BPF_RET | BPF_K, 0, 0, 1},
		{BPF_JMP | BPF_JGT | BPF_K, 1, 0, 0x7700},
		{BPF_JMP | BPF_JGE | BPF_K, 1, 0, 0x7700},
		{BPF_RET | BPF_K, 0, 0, 2},
		{BPF_JMP | BPF_JSET | BPF_K, 0, 1, 0x100},
		{BPF_RET | BPF_K, 0, 0, 3},
		{BPF_RET | BPF_K, 0, 0, 4},
	};
	CHECK(run(code, 11, &data) == 3);
	code[3].k = 0;
	CHECK(run(code, 11, &data) == 1);
}

static void a_program_that_is_none_kills(void)
{
	static const uint32_t offsets[] = {1,  2,  61,         62,         63,
					   64, 68, 0x7ffffffc, 0xfffffffc, 0xffffffff};
	struct seccomp_data data = {.nr = 1};
	struct sock_filter load = {BPF_LD | BPF_W | BPF_ABS, 0, 0, 0};
	struct sock_filter jump = {BPF_JMP | BPF_JA, 0, 0, 0xffffffff};
	struct sock_filter odd = {0xffff, 0, 0, 0};

	CHECK(run(&load, 0, &data) == SECCOMP_RET_KILL_PROCESS);
	CHECK(run(&load, 1, &data) == SECCOMP_RET_KILL_PROCESS); /* no end */
	CHECK(run(&jump, 1, &data) == SECCOMP_RET_KILL_PROCESS);
	CHECK(run(&odd, 1, &data) == SECCOMP_RET_KILL_PROCESS);
	for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
		struct sock_filter code[] = {{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsets[i]},
					     {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
		CHECK(run(code, 2, &data) == SECCOMP_RET_KILL_PROCESS);
	}
}

static void any_program_stays_within_its_bounds(void)
{
	static const uint16_t codes[] = {
		BPF_LD | BPF_W | BPF_ABS,   BPF_ALU | BPF_AND | BPF_K, BPF_JMP | BPF_JA,
		BPF_JMP | BPF_JEQ | BPF_K,  BPF_JMP | BPF_JGT | BPF_K, BPF_JMP | BPF_JGE | BPF_K,
		BPF_JMP | BPF_JSET | BPF_K, BPF_RET | BPF_K,           0x16,
	};
	struct sock_filter code[12];
	struct seccomp_data data = {.nr = 3, .args = {1, 2, 3, 4, 5, 6}};
	unsigned seed = 17;

	for (int i = 0; i < 200000; i++) {
		size_t n = (size_t)(rand_r(&seed) % 13);
		for (size_t k = 0; k < n; k++)
			code[k] = (struct sock_filter){
				codes[rand_r(&seed) % 9], (uint8_t)(rand_r(&seed) % 16),
				(uint8_t)(rand_r(&seed) % 16),
				(uint32_t)rand_r(&seed) % (rand_r(&seed) % 2 ? 72 : 0x7fffffff)};
		(void)run(code, n, &data);
	}
}

/* ---- the stock ------------------------------------------------------------------------------ */

static ino_t inode_of(const char *path)
{
	struct stat st;
	CHECK(stat(path, &st) == 0);
	return st.st_ino;
}

static void spaces_are_new_and_ours_stay(void)
{
	ino_t net = inode_of("/proc/self/ns/net"), ipc = inode_of("/proc/self/ns/ipc");
	int32_t net_fd = -1, ipc_fd = -1;
	struct stat st;
	sigset_t mask, after;

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR2);
	CHECK(sigprocmask(SIG_SETMASK, &mask, NULL) == 0);
	int r = iso_make_spaces(&net_fd, &ipc_fd);
	CHECK(sigprocmask(SIG_SETMASK, NULL, &after) == 0);
	CHECK(sigismember(&after, SIGUSR2) == 1 && sigismember(&after, SIGUSR1) == 0);
	sigemptyset(&mask);
	CHECK(sigprocmask(SIG_SETMASK, &mask, NULL) == 0);
	CHECK(inode_of("/proc/self/ns/net") == net && inode_of("/proc/self/ns/ipc") == ipc);
	if (r < 0) { /* an ordinary user, or a container */
		CHECK(r == -EPERM && net_fd == -1 && ipc_fd == -1);
		return;
	}
	CHECK(fstat(net_fd, &st) == 0 && st.st_ino != net);
	CHECK(fstat(ipc_fd, &st) == 0 && st.st_ino != ipc);
	CHECK(fcntl(net_fd, F_GETFD) == FD_CLOEXEC && fcntl(ipc_fd, F_GETFD) == FD_CLOEXEC);
	close(net_fd);
	close(ipc_fd);
}

static int lowest_fd(void)
{
	int fd = dup(0);
	CHECK(fd >= 0);
	close(fd);
	return fd;
}

int main(void)
{
	static void (*const tests[])(void) = {
		the_first_of_a_kind_is_told_and_the_rest_counted,
		more_kinds_than_the_table_has_are_counted_together,
		what_is_silent_is_answered_without_a_word,
		a_handler_is_told_every_time_and_answers,
		hostile_pointers_are_read_as_far_as_they_go,
		a_lethal_policy_asks_for_the_end,
		what_is_observed_goes_on,
		a_socket_without_a_listener_is_dropped,
		a_wake_and_a_timeout_are_told,
		after_the_shutdown_nothing_is_found,
		a_program_is_run_as_the_kernel_would,
		a_program_that_is_none_kills,
		any_program_stays_within_its_bounds,
		spaces_are_new_and_ours_stay,
		threads_do_not_meet,
	};
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
		size_t held = __sanitizer_get_current_allocated_bytes();
		int fd = lowest_fd();
		int threads = tests[i] == threads_do_not_meet;
		tests[i]();
		CHECK(lowest_fd() == fd);
		CHECK(threads || __sanitizer_get_current_allocated_bytes() <= held);
	}
	puts("supervisor of refused calls: every check holds under ASan and UBSan");
	return 0;
}
