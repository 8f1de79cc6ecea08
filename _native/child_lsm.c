/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  What it may ask of the kernel: AppArmor, Landlock, seccomp. */
#include "child.h"

#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>

#define ISO_LABEL_MAX 1024
/* What a rule on something that is no directory may name: landlock(7). */
#define ISO_FILE_RIGHTS                                                                            \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |                              \
	 LANDLOCK_ACCESS_FS_READ_FILE | 1u << 14 /* TRUNCATE */ | 1u << 15 /* IOCTL_DEV */)

/* This thread's attr/exec; the second path is older than Linux 5.8. */
static long open_exec_attr(int flags)
{
	long fd = sys(openat, AT_FDCWD, "/proc/thread-self/attr/apparmor/exec", flags | O_CLOEXEC);
	if (fd == -ENOENT)
		fd = sys(openat, AT_FDCWD, "/proc/thread-self/attr/exec", flags | O_CLOEXEC);
	return fd;
}

/* The label is the one that was asked for, mode and all. */
long iso_same_label(long fd, const char *want, uint32_t len)
{
	char label[ISO_LABEL_MAX];
	long n = sys(pread64, fd, label, sizeof label, 0);
	if (n < 0)
		return n;
	while (n > 0 && (label[n - 1] == '\n' || label[n - 1] == 0))
		n--;
	if (n != (long)len)
		return -EKEYREJECTED;
	for (uint32_t i = 0; i < len; i++)
		if (label[i] != want[i])
			return -EKEYREJECTED;
	return 0;
}

/* Change profile at the next exec.  The kernel then enters it or refuses the exec; so what is read
 * back here is the label under which the program's first instruction runs. */
long op_apparmor(struct iso_ctx *ctx, const struct iso_op *op)
{
	long fd = open_exec_attr(O_WRONLY);
	if (fd < 0)
		return fd;
	uint32_t len = iso_len(ctx, op->str[0]);
	long n = sys(write, fd, iso_str(ctx, op, 0), len);
	(void)sys(close, fd); /* the write has reported */
	if (n != (long)len)
		return n < 0 ? n : -EIO;
	fd = open_exec_attr(O_RDONLY);
	if (fd < 0)
		return fd;
	long r = iso_same_label(fd, iso_str(ctx, op, 1), iso_len(ctx, op->str[1]));
	(void)sys(close, fd);
	return r;
}

/* Init has to find the descendants of its programs also where the box has no /proc.  Nobody inside
 * has a path or a descriptor that leads there. */
static long let_init_look(long ruleset, uint64_t handled, int32_t proc_fd)
{
	struct landlock_path_beneath_attr attr = {
		.allowed_access = handled &
				  (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR),
		.parent_fd = proc_fd,
	};
	if (!attr.allowed_access) /* EINVAL, and nothing to allow */
		return 0;
	return sys(landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0);
}

long op_landlock_create(struct iso_ctx *ctx, const struct iso_op *op)
{
	uint64_t attr[3] = {op->num[0], op->num[1], op->num[2]};
	/* An older kernel takes a longer struct only if the rest is zero: landlock(7). */
	long fd = sys(landlock_create_ruleset, attr, sizeof attr, 0);
	if (fd < 0)
		return fd;
	ctx->fds[op->slot[1]] = (int32_t)fd;
	return ctx->proc_fd >= 0 ? let_init_look(fd, attr[0], ctx->proc_fd) : 0;
}

/* A rule on a file may not name what only directories have: EINVAL.  It gets the rest. */
static long landlock_rights(long fd, uint64_t wanted)
{
	long dir = iso_is_dir(fd);
	return dir < 0 ? dir : (long)(dir ? wanted : wanted & ISO_FILE_RIGHTS);
}

long op_landlock_path(struct iso_ctx *ctx, const struct iso_op *op)
{
	struct landlock_path_beneath_attr attr = {0};
	long fd = sys(openat, AT_FDCWD, iso_str(ctx, op, 0), O_PATH | O_CLOEXEC);
	if (fd < 0)
		return op->flags & ISO_F_OPTIONAL && iso_absent(fd) ? 0 : fd;
	long r = landlock_rights(fd, op->num[0]);
	if (r > 0) { /* 0: nothing that a file could be granted */
		attr.allowed_access = (uint64_t)r;
		attr.parent_fd = (int32_t)fd;
		r = sys(landlock_add_rule, iso_fd(ctx, op, 0), LANDLOCK_RULE_PATH_BENEATH, &attr,
			0);
	}
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
	long r = sys(landlock_restrict_self, iso_fd(ctx, op, 0), op->num[0]);
	if (op->slot[0] < (int32_t)ctx->plan->n_slots)
		return r;
	/* Our own, made by CREATE: init and confine() go on, without it. */
	(void)sys(close, iso_fd(ctx, op, 0));
	ctx->fds[op->slot[0]] = -1;
	return r;
}

long op_seccomp(struct iso_ctx *ctx, const struct iso_op *op)
{
	struct sock_fprog program = {
		.len = (unsigned short)(iso_len(ctx, op->str[0]) / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)(uintptr_t)iso_str(ctx, op, 0),
	};
	uint64_t mode = SECCOMP_SET_MODE_FILTER | iso_door(ctx, ISO_DOOR_SECCOMP);
	long r = sys(seccomp, mode, op->num[0], &program);
	/* seccomp(2): with TSYNC a positive result is a thread that could not be confined. */
	return r > 0 && op->num[0] & SECCOMP_FILTER_FLAG_TSYNC ? -ESRCH : r;
}
