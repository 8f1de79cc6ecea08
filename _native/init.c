/* SPDX-License-Identifier: Apache-2.0
 * isolate-init: the first process of a box.  Static, without libc.  Runs the set-up plan in itself,
 * starts programs on request, reaps, reports, and dies with its host process. */
#include "init.h"

#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/signalfd.h>
#include <linux/time_types.h>
#include <asm/signal.h>

#define ISO_N_SIGNALS 64

static int32_t slots[2 * ISO_MAX_SLOTS];
static int is_set_up;
static uint64_t unbound; /* see iso_ctx */
static uint32_t serials; /* of keepers; 0 is none */

/* Everybody goes; without a pid namespace we have to see to it ourselves. */
_Noreturn void iso_die(void)
{
	iso_kill_all();
	for (;;)
		(void)sys(exit_group, 0);
}

static _Noreturn void end(int32_t status_fd)
{
	struct iso_record record = {.type = ISO_REC_ENDED};
	iso_kill_all();
	iso_total(&record);
	iso_report(status_fd, &record, -1);
	(void)sys(close, status_fd);
	for (;;)
		(void)sys(exit_group, 0);
}

static void refuse(int32_t status_fd, long error)
{
	struct iso_record record = {
		.type = ISO_REC_REFUSED, .error = (int32_t)-error, .at_ns = iso_now()};
	iso_report(status_fd, &record, -1);
}

/* The plan of a message, ready to run; 0 or -errno. */
static long prepare(struct iso_message *m, struct iso_ctx *ctx, size_t *size)
{
	if (m->n_fds < 2)
		return -EPROTO;
	long map = iso_map_blob(m->fds[1], size);
	if (map < 0 && map > -4096)
		return map;
	const struct iso_plan *plan = (const struct iso_plan *)map;
	if (plan->n_slots != m->n_fds - 2) {
		(void)sys(munmap, map, *size);
		return -EPROTO;
	}
	for (uint32_t i = 0; i < plan->n_slots; i++)
		slots[i] = m->fds[i + 2];
	iso_ctx_init(ctx, plan, slots);
	ctx->unbound = unbound;
	return 0;
}

static void set_up(struct iso_message *m)
{
	struct iso_record record = {.type = ISO_REC_SETUP};
	struct iso_ctx ctx;
	size_t size = 0;
	long r = prepare(m, &ctx, &size);

	if (r == 0) {
		ctx.phase_ns = record.phase_ns;
		ctx.proc_fd = iso_tree_fd();
		long mask = sys(umask, 0);
		uint32_t n = ctx.plan->n_ops;
		int was_first = sys(getpid) == 1;
		r = iso_run(&ctx, &record.step);
		uint16_t last = n > 0 ? iso_ops(&ctx)[n - 1].code : 0;
		if (last == ISO_OP_STEWARD && was_first) /* we are its copy */
			iso_be_steward();
		if (last == ISO_OP_REBORN || last == ISO_OP_STEWARD)
			iso_tree_reopen();
		unbound = r == 0 ? ctx.unbound : 0;
		(void)sys(umask, mask);
		(void)sys(munmap, ctx.plan, size);
		/* Out of reach of ptrace and /proc/PID/mem, whatever the plan says. */
		if (r == 0)
			r = sys(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
	}
	is_set_up = r == 0;
	record.error = (int32_t)-r;
	record.at_ns = iso_now();
	iso_report(m->fds[0], &record, -1);
	iso_close_fds(m, 0);
}

long iso_start(const struct iso_message *m, struct iso_ctx *ctx, int32_t *pidfd)
{
	struct clone_args args = {
		.flags = CLONE_PIDFD,
		.pidfd = (uint64_t)(uintptr_t)pidfd,
		.exit_signal = SIGCHLD,
	};
	if (m->request.flags & ISO_SPAWN_CGROUP) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)m->fds[2];
		long r = sys(clone3, &args, sizeof args);
		if (r != -ENOSYS)
			return r;
		ctx->outside = 1; /* it joins by its LEAF op */
	}
	/* The older call, which containers' filters let through. */
	return sys(clone, CLONE_PIDFD | SIGCHLD, 0, pidfd, 0, 0);
}

static long spawn(struct iso_message *m)
{
	struct iso_record record = {.type = ISO_REC_SPAWNED};
	struct iso_ctx ctx;
	size_t size = 0;
	int32_t pidfd = -1;
	int kept = m->request.flags & ISO_SPAWN_KEPT;
	uint32_t serial = 0;

	if (!is_set_up)
		return -ENOTCONN;
	if (!iso_child_room())
		return -EAGAIN;
	long r = prepare(m, &ctx, &size);
	if (r < 0)
		return r;
	if (kept)
		while ((serial = ++serials) == 0)
			;
	long pid = kept ? sys(clone, SIGCHLD, 0, 0, 0, 0) : iso_start(m, &ctx, &pidfd);
	if (pid == 0 && kept)
		iso_keeper(&ctx, m, serial);
	if (pid == 0)
		iso_child_main(&ctx);
	(void)sys(munmap, ctx.plan, size);
	if (pid < 0)
		return pid;
	(void)iso_child_add((int32_t)pid, m->fds[0], m->request.flags & ISO_SPAWN_LAST,
			    serial); /* has room */
	if (kept)
		return 0; /* the keeper tells of its program */
	record.pid = (int32_t)pid;
	record.at_ns = iso_now();
	iso_report(m->fds[0], &record, pidfd);
	(void)sys(close, pidfd);
	return 0;
}

static void serve(struct iso_message *m)
{
	long r = -EPROTO;

	switch (m->request.type) {
	case ISO_REQ_SETUP:
		set_up(m);
		return;
	case ISO_REQ_SPAWN:
		r = spawn(m);
		iso_close_fds(m, 1);
		if (r == 0)
			return; /* the status socket stays with the child's entry */
		break;
	case ISO_REQ_END:
		iso_close_fds(m, 1);
		end(m->fds[0]);
	case ISO_REQ_KILL:
		iso_close_fds(m, 1);
		iso_end_tree(m->request.serial, (int32_t)m->request.flags, m->fds[0]);
		return;
	case ISO_REQ_GUARD:
		if (m->n_fds != 2)
			break;
		iso_guard(m->fds[1], m->fds[0]);
		return;
	default:
		break;
	}
	refuse(m->fds[0], r);
	iso_close_fds(m, 0);
}

/* A signal for us: SIGCHLD is ours, others go to the programs, if they come from outside: inside a
 * pid namespace a sender that we can't name has no pid. */
static void on_signal(int32_t signal_fd)
{
	struct signalfd_siginfo info;
	while (sys(read, signal_fd, &info, sizeof info) == sizeof info)
		if (info.ssi_signo != SIGCHLD && (info.ssi_pid == 0 || !iso_owns_all()))
			iso_forward((int)info.ssi_signo);
	iso_reap();
	if (iso_last() >= 0)
		end(iso_last());
}

static void default_signals(void)
{
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} action = {0};
	for (int i = 1; i <= ISO_N_SIGNALS; i++)
		(void)sys(rt_sigaction, i, &action, NULL, 8); /* EINVAL: KILL and STOP */
}

static long open_signals(void)
{
	uint64_t all = ~0ull;
	long r = sys(rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
	if (r < 0)
		return r;
	return sys(signalfd4, -1, &all, sizeof all, O_CLOEXEC | O_NONBLOCK);
}

static long prepare_self(void)
{
	for (int fd = ISO_CONTROL_FD; fd <= ISO_HOST_FD; fd++) {
		long r = sys(fcntl, fd, F_SETFD, 1 /* FD_CLOEXEC */);
		if (r < 0)
			return r;
	}
	default_signals();
	long r = sys(prctl, PR_SET_NAME, "isolate-init", 0, 0, 0);
	if (r == 0 && sys(getpid) != 1) {
		r = sys(prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
		iso_tree_open();
	}
	return r < 0 ? r : open_signals();
}

static _Noreturn void loop(int32_t signal_fd)
{
	static struct iso_message message;
	struct pollfd fds[3] = {
		{.fd = signal_fd, .events = POLLIN},
		{.fd = ISO_CONTROL_FD, .events = POLLIN},
		{.fd = ISO_HOST_FD, .events = POLLIN},
	};
	for (;;) {
		struct __kernel_timespec soon = {0, 1000000};
		long n = sys(ppoll, fds, 3, iso_ending() ? &soon : NULL, NULL, 8);
		if (n == -EINTR)
			continue;
		if (n < 0 || fds[2].revents)
			iso_die(); /* the host process ended */
		if (fds[0].revents)
			on_signal(signal_fd);
		if (iso_ending())
			iso_tend();
		if (!fds[1].revents)
			continue;
		long r = iso_receive(ISO_CONTROL_FD, &message);
		if (r == 1)
			serve(&message);
		else if (r != -EPROTO && r != -EINTR)
			iso_die(); /* nobody can ask for anything any more */
	}
}

__attribute__((used)) _Noreturn void iso_init_main(void);
_Noreturn void iso_init_main(void)
{
	long signal_fd = prepare_self();
	if (signal_fd < 0)
		for (;;)
			(void)sys(exit_group, 125);
	loop((int32_t)signal_fd);
}
