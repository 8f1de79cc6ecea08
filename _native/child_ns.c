/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  From namespaces that were joined to the box's own: init once more. */
#include "child.h"

#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <asm/signal.h>

#define ISO_SOL_SOCKET   1
#define ISO_SCM_RIGHTS   1
#define ISO_MSG_NOSIGNAL 0x4000

struct iov {
	void *base;
	size_t len;
};

struct message {
	void *name;
	int namelen;
	struct iov *iov;
	size_t iovlen;
	void *control;
	size_t controllen;
	unsigned int flags;
};

/* One byte and one descriptor. */
static long send_fd(long sock, int32_t fd)
{
	struct {
		size_t len;
		int level, type;
		int32_t fd;
		int32_t pad;
	} rights = {sizeof(size_t) + 3 * sizeof(int), ISO_SOL_SOCKET, ISO_SCM_RIGHTS, fd, 0};
	char byte = 'r';
	struct iov iov = {&byte, 1};
	struct message m = {
		.iov = &iov, .iovlen = 1, .control = &rights, .controllen = sizeof rights};
	long n = sys(sendmsg, sock, &m, ISO_MSG_NOSIGNAL);
	return n < 0 ? n : n == 1 ? 0 : -EIO;
}

/* setns(2) into a pid namespace, and unshare(2) of one, hold for children only, and a new user
 * namespace would take the right to join others.  So a process that has joined them clones itself
 * with the flags of the box, as a child of its own parent, and goes.  It shares no memory with
 * the caller: isolate-init was exec'd before. */
long op_reborn(struct iso_ctx *ctx, const struct iso_op *op)
{
	int32_t pidfd = -1;
	long sock = iso_fd(ctx, op, 0);
	long pid = sys(clone, op->num[0] | CLONE_PARENT | CLONE_PIDFD | SIGCHLD, 0, &pidfd, 0, 0);

	if (pid < 0)
		return pid;
	if (pid == 0) /* the second life; orphans come to us again, which clone doesn't pass on */
		return sys(prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	long r = send_fd(sock, pidfd);
	if (r < 0) { /* untold, the new one is nobody's */
		(void)sys(pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
		return r;
	}
	for (;;)
		(void)sys(exit_group, 0);
}
