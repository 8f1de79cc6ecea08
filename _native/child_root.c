/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  The new root itself: made on "/", or found there as a template's copy;
 * and the entry into it. */
#include "child.h"

#include <linux/fcntl.h>
#include <linux/mount.h>

#define ISO_MNT_DETACH 2

long op_propagation(struct iso_ctx *ctx, const struct iso_op *op)
{
	return sys(mount, "none", iso_str(ctx, op, 0), NULL, op->num[0] | 16384 /* MS_REC */, NULL);
}

/* The new root is stacked on "/" until PIVOT_ROOT: that directory is always there. */
long iso_become_root(struct iso_ctx *ctx, long fd)
{
	long r = sys(move_mount, fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH);
	if (r < 0) {
		(void)sys(close, fd);
		return r;
	}
	ctx->root_fd = (int32_t)fd;
	return 0;
}

long op_root_tmpfs(struct iso_ctx *ctx, const struct iso_op *op)
{
	long fd = iso_new_fs("tmpfs", iso_str(ctx, op, 0), iso_len(ctx, op->str[0]), op->num[0]);
	return fd < 0 ? fd : iso_become_root(ctx, fd);
}

long op_root_bind(struct iso_ctx *ctx, const struct iso_op *op)
{
	long fd = iso_tree_of(ctx, op);
	if (fd < 0)
		return fd;
	long r = iso_set_attr(fd, op->num[0], op->num[1], 1);
	if (r == 0)
		return iso_become_root(ctx, fd);
	(void)sys(close, fd);
	return r;
}

static long check_cwd(void)
{
	char cwd[8] = "";
	long r = sys(chdir, "/");
	if (r == 0)
		r = sys(getcwd, cwd, sizeof cwd); /* "(unreachable)" if we are not inside */
	return r < 0 ? r : cwd[0] == '/' && cwd[1] == 0 ? 0 : -EXDEV;
}

static void leave_root(struct iso_ctx *ctx)
{
	(void)sys(close, ctx->root_fd); /* O_PATH: nothing to report */
	if (ctx->null_fd >= 0)
		(void)sys(close, ctx->null_fd);
	ctx->root_fd = ctx->null_fd = -1;
}

long op_pivot_root(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)op;
	long r = sys(fchdir, ctx->root_fd);
	if (r == 0)
		r = sys(pivot_root, ".", ".");
	if (r == 0)
		r = sys(umount2, ".", ISO_MNT_DETACH);
	if (r < 0)
		return r;
	leave_root(ctx);
	return check_cwd();
}

/* The clone has given us a copy of a template, whose root is ours. */
long op_root_here(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)op;
	long fd = sys(openat, AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fd;
	ctx->root_fd = (int32_t)fd;
	return 0;
}

long op_root_leave(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)op;
	leave_root(ctx);
	return check_cwd();
}
