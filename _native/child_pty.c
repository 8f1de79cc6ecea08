/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  A terminal of the box's own devpts, never of the host's: its master
 * goes to the caller, the other end becomes the program's. */
#include "child.h"
#include "msg.h"

#include <asm/ioctls.h>
#include <asm/statfs.h>
#include <asm/termios.h>
#include <linux/fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>

static long open_master(const char *path)
{
	struct open_how how = {.flags = O_RDWR | O_NOCTTY | O_CLOEXEC,
			       .resolve = RESOLVE_NO_SYMLINKS};
	struct statfs fs;
	long fd = sys(openat2, AT_FDCWD, path, &how, sizeof how);
	if (fd < 0)
		return fd;
	long r = sys(fstatfs, fd, &fs);
	if (r == 0 && fs.f_type != DEVPTS_SUPER_MAGIC)
		r = -ENOTTY;
	if (r == 0)
		return fd;
	(void)sys(close, fd);
	return r;
}

static long send_fd(int32_t socket, int32_t fd)
{
	struct {
		struct cmsghdr_k head;
		int32_t fd, pad;
	} control = {{sizeof control.head + 4, ISO_SOL_SOCKET, ISO_SCM_RIGHTS}, fd, 0};
	char word = 'm';
	struct iovec_k iov = {&word, 1};
	struct msghdr_k hdr = {
		.iov = &iov, .iovlen = 1, .control = &control, .controllen = sizeof control};
	long n = sys(sendmsg, socket, &hdr, ISO_MSG_NOSIGNAL);
	return n < 0 ? n : n == 1 ? 0 : -EIO;
}

/* The other end by the master's descriptor, not by its path. */
static long open_peer(long master, const struct iso_op *op)
{
	struct winsize size = {.ws_row = (unsigned short)(op->num[0] >> 16),
			       .ws_col = (unsigned short)op->num[0]};
	int locked = 0;
	long r = sys(ioctl, master, TIOCSPTLCK, &locked);
	if (r == 0)
		r = sys(ioctl, master, TIOCSWINSZ, &size);
	if (r < 0)
		return r;
	long peer = sys(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (peer < 0 || !op->num[1])
		return peer;
	r = sys(fchown, peer, op->num[1] - 1, op->num[2] - 1);
	if (r == 0)
		return peer;
	(void)sys(close, peer);
	return r;
}

long op_pty(struct iso_ctx *ctx, const struct iso_op *op)
{
	long master = open_master(iso_str(ctx, op, 0));
	if (master < 0)
		return master;
	long peer = open_peer(master, op);
	long r = peer < 0 ? peer : send_fd(iso_fd(ctx, op, 0), (int32_t)master);
	(void)sys(close, master);
	if (r < 0) {
		if (peer >= 0)
			(void)sys(close, peer);
		return r;
	}
	ctx->fds[op->slot[1]] = (int32_t)peer;
	return 0;
}
