/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  What it may ask of the kernel: AppArmor, Landlock, seccomp. */
#include "child.h"

#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>

/* Change profile at the next exec; the second path is older than Linux 5.8. */
long op_apparmor(struct iso_ctx *ctx, const struct iso_op *op)
{
	long fd = sys(openat, AT_FDCWD, "/proc/thread-self/attr/apparmor/exec",
		      O_WRONLY | O_CLOEXEC);
	if (fd == -ENOENT)
		fd = sys(openat, AT_FDCWD, "/proc/thread-self/attr/exec", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return fd;
	uint32_t len = iso_len(ctx, op->str[0]);
	long n = sys(write, fd, iso_str(ctx, op, 0), len);
	(void)sys(close, fd); /* the write has reported */
	return n < 0 ? n : n == (long)len ? 0 : -EIO;
}

long op_landlock_create(struct iso_ctx *ctx, const struct iso_op *op)
{
	uint64_t attr[3] = {op->num[0], op->num[1], op->num[2]};
	/* An older kernel takes a longer struct only if the rest is zero: landlock(7). */
	long fd = sys(landlock_create_ruleset, attr, sizeof attr, 0);
	if (fd < 0)
		return fd;
	ctx->fds[op->slot[1]] = (int32_t)fd;
	return 0;
}

long op_landlock_path(struct iso_ctx *ctx, const struct iso_op *op)
{
	struct landlock_path_beneath_attr attr = {.allowed_access = op->num[0]};
	long fd = sys(openat, AT_FDCWD, iso_str(ctx, op, 0), O_PATH | O_CLOEXEC);
	if (fd < 0)
		return op->flags & ISO_F_OPTIONAL && iso_absent(fd) ? 0 : fd;
	attr.parent_fd = (int32_t)fd;
	long r = sys(landlock_add_rule, iso_fd(ctx, op, 0), LANDLOCK_RULE_PATH_BENEATH, &attr, 0);
	(void)sys(close, fd);
	return r;
}

long op_landlock_port(struct iso_ctx *ctx, const struct iso_op *op)
{
	uint64_t attr[2] = {op->num[0], op->num[1]}; /* struct landlock_net_port_attr */
	return sys(landlock_add_rule, iso_fd(ctx, op, 0), 2 /* LANDLOCK_RULE_NET_PORT */, attr, 0);
}

long op_landlock_restrict(struct iso_ctx *ctx, const struct iso_op *op)
{
	return sys(landlock_restrict_self, iso_fd(ctx, op, 0), op->num[0]);
}

long op_seccomp(struct iso_ctx *ctx, const struct iso_op *op)
{
	struct sock_fprog program = {
		.len = (unsigned short)(iso_len(ctx, op->str[0]) / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)(uintptr_t)iso_str(ctx, op, 0),
	};
	uint64_t mode = SECCOMP_SET_MODE_FILTER | iso_door(ctx, ISO_DOOR_SECCOMP);
	return sys(seccomp, mode, op->num[0], &program);
}
