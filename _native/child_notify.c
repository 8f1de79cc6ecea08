/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  A filter whose refusals the parent sees: seccomp_unotify(2). */
#include "child.h"
#include "msg.h"

#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

/* Send one descriptor.  From here on the filter holds, so the call passes by its door. */
static long send_fd(const struct iso_ctx *ctx, int32_t sock, int32_t fd)
{
	struct {
		struct cmsghdr_k head;
		int32_t fd;
		int32_t pad;
	} control = {{sizeof control.head + 4, ISO_SOL_SOCKET, ISO_SCM_RIGHTS}, fd, 0};
	char byte = 'n';
	struct iovec_k iov = {&byte, 1};
	struct msghdr_k hdr = {
		.iov = &iov, .iovlen = 1, .control = &control, .controllen = sizeof control};
	uint64_t flags = ISO_MSG_NOSIGNAL | iso_door(ctx, ISO_DOOR_SENDMSG);
	long n = sys(sendmsg, sock, &hdr, flags);
	return n < 0 ? n : n == 1 ? 0 : -EIO;
}

/* Whether exec or what comes before it still needs a descriptor. */
static int needed(const struct iso_ctx *ctx, const struct iso_op *op, int32_t fd)
{
	const struct iso_op *last = &iso_ops(ctx)[ctx->plan->n_ops - 1];
	return fd == ctx->record_fd || fd == iso_fd(ctx, op, 0) || fd == iso_fd(ctx, last, 0);
}

/* Under a small RLIMIT_NOFILE no number may be free: let go of what exec would close anyway. */
static long make_room(const struct iso_ctx *ctx, const struct iso_op *op)
{
	for (int32_t fd = 3; fd < ISO_MAX_SLOTS; fd++) {
		long flags = sys(fcntl, fd, F_GETFD, 0);
		if (flags > 0 && flags & 1 /* FD_CLOEXEC */ && !needed(ctx, op, fd))
			return sys(close, fd);
	}
	return -EMFILE;
}

/* The listener is CLOEXEC by the kernel's doing, and is not closed before: `close` may be refused. */
long op_seccomp_notify(struct iso_ctx *ctx, const struct iso_op *op)
{
	struct sock_fprog program = {
		.len = (unsigned short)(iso_len(ctx, op->str[0]) / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)(uintptr_t)iso_str(ctx, op, 0),
	};
	long fd = sys(seccomp, SECCOMP_SET_MODE_FILTER, op->num[0], &program);
	if (fd == -EMFILE) {
		long r = make_room(ctx, op);
		if (r < 0)
			return r;
		fd = sys(seccomp, SECCOMP_SET_MODE_FILTER, op->num[0], &program);
	}
	if (fd < 0)
		return fd;
	ctx->doors = op->num[1];
	return send_fd(ctx, iso_fd(ctx, op, 0), (int32_t)fd);
}
