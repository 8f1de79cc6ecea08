/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  A box's first process goes into the box's AppArmor profile, and another
 * one takes its work over (docs/adr/0018). */
#include "child.h"

#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/wait.h>
#include <asm/signal.h>

/* Of this thread; the second path is older than Linux 5.8. */
static long open_current(void)
{
	const int flags = O_RDWR | O_CLOEXEC;
	long fd = sys(openat, AT_FDCWD, "/proc/thread-self/attr/apparmor/current", flags);
	if (fd == -ENOENT)
		fd = sys(openat, AT_FDCWD, "/proc/thread-self/attr/current", flags);
	return fd;
}

/* Into the profile, and a look at the label that this has made.  It is opened before: what the new
 * profile says about /proc is of no account then. */
static long enter_profile(const struct iso_ctx *ctx, const struct iso_op *op)
{
	uint32_t len = iso_len(ctx, op->str[0]);
	if (!op->str[0])
		return 0;
	long fd = open_current();
	if (fd < 0)
		return fd;
	long r = sys(write, fd, iso_str(ctx, op, 0), len);
	if (r >= 0)
		r = r != (long)len ? -EIO : 0;
	if (r == 0 && op->str[1])
		r = iso_same_label(fd, iso_str(ctx, op, 1), iso_len(ctx, op->str[1]));
	(void)sys(close, fd);
	return r;
}

/* What is left of it needs nothing: waiting and ending ask no security module. */
static long give_up_powers(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[2] = {{0, 0, 0}, {0, 0, 0}};
	return sys(capset, &header, none);
}

/* The first process from now on: it reaps, and ends when the steward has, which takes a pid namespace
 * along.  Signals stay blocked. */
static _Noreturn void be_first(long steward)
{
	long pid;
	do
		pid = sys(wait4, -1, NULL, __WALL, NULL);
	while (pid != steward && pid != -ECHILD);
	for (;;)
		(void)sys(exit_group, 0);
}

static _Noreturn void lead(const struct iso_ctx *ctx, const struct iso_op *op, long steward,
			   int tell)
{
	int32_t error = (int32_t)give_up_powers();
	if (error == 0)
		error = (int32_t)enter_profile(ctx, op);
	long n = sys(write, tell, &error, sizeof error);
	/* Nothing is open any more, so that the steward's end is the end of the box's sockets. */
	long r = sys(close_range, 0, ~0u, 0);
	if (n != sizeof error || r < 0) /* nobody was told */
		for (;;)
			(void)sys(exit_group, 1);
	be_first(steward); /* after an error too: the steward has to tell it */
}

/* The steward: goes on as isolate-init, orphans come to it.  If the first one dies where no pid
 * namespace ends with it, neither lives on. */
static long take_over(int hear)
{
	int32_t error = 0;
	long r = sys(prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (r == 0)
		r = sys(prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	if (r < 0)
		return r;
	long n = sys(read, hear, &error, sizeof error);
	return n < 0 ? n : n == sizeof error ? error : -EIO;
}

long op_steward(struct iso_ctx *ctx, const struct iso_op *op)
{
	int32_t ends[2];
	long r = sys(pipe2, ends, O_CLOEXEC);
	if (r < 0)
		return r;
	long pid = sys(clone, SIGCHLD, 0, 0, 0, 0);
	if (pid > 0) {
		(void)sys(close, ends[0]);
		lead(ctx, op, pid, ends[1]);
	}
	(void)sys(close, ends[1]);
	r = pid < 0 ? pid : take_over(ends[0]);
	(void)sys(close, ends[0]);
	return r;
}
