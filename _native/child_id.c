/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  Who the process is: ids, capabilities, namespaces, session. */
#include "child.h"

#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/ioctl.h>
#include <asm/ioctls.h>
#include <linux/keyctl.h>
#include <linux/prctl.h>
#include <linux/sched.h>

#define ISO_LAST_CAP 63

static long write_file(const char *path, const char *data, uint32_t len)
{
	long fd = sys(openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return fd;
	long n = sys(write, fd, data, len);
	(void)sys(close, fd); /* procfs reports at write */
	return n < 0 ? n : n == (long)len ? 0 : -EIO;
}

/* "0" is the writing thread itself: v1's `tasks` then needs no wait for all CPUs. */
long op_join_cgroup(struct iso_ctx *ctx, const struct iso_op *op)
{
	long n = sys(write, iso_fd(ctx, op, 0), "0", 1);
	return n < 0 ? n : n == 1 ? 0 : -EIO;
}

/* Where clone3 could not be used, the process is not in the leaf yet.  The rights are those that
 * CLONE_INTO_CGROUP asks for. */
long op_leaf(struct iso_ctx *ctx, const struct iso_op *op)
{
	if (!ctx->outside)
		return 0;
	long fd = sys(openat, iso_fd(ctx, op, 0), "cgroup.procs", O_WRONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	long n = sys(write, fd, "0", 1);
	(void)sys(close, fd);
	return n < 0 ? n : n == 1 ? 0 : -EIO;
}

long op_unshare(struct iso_ctx *ctx, const struct iso_op *op)
{
	if (op->num[0] & CLONE_NEWUSER)
		ctx->unbound = 0; /* a new user namespace comes with a full bounding set */
	return sys(unshare, op->num[0]);
}

long op_setns(struct iso_ctx *ctx, const struct iso_op *op)
{
	if (op->num[0] == 0 || op->num[0] & CLONE_NEWUSER) /* 0: of any kind */
		ctx->unbound = 0;
	return sys(setns, iso_fd(ctx, op, 0), op->num[0]);
}

long op_write(struct iso_ctx *ctx, const struct iso_op *op)
{
	return write_file(iso_str(ctx, op, 0), iso_str(ctx, op, 1), iso_len(ctx, op->str[1]));
}

long op_timens(struct iso_ctx *ctx, const struct iso_op *op)
{
	return write_file("/proc/self/timens_offsets", iso_str(ctx, op, 0),
			  iso_len(ctx, op->str[0]));
}

/* One own id, as user_namespaces(7) allows to an unprivileged process. */
long op_idmap(struct iso_ctx *ctx, const struct iso_op *op)
{
	long r = write_file("/proc/self/setgroups", "deny", 4);
	if (r == 0)
		r = write_file("/proc/self/uid_map", iso_str(ctx, op, 0), iso_len(ctx, op->str[0]));
	if (r == 0)
		r = write_file("/proc/self/gid_map", iso_str(ctx, op, 1), iso_len(ctx, op->str[1]));
	return r;
}

long op_setgroups(struct iso_ctx *ctx, const struct iso_op *op)
{
	return sys(setgroups, iso_len(ctx, op->str[0]) / 4, iso_str(ctx, op, 0));
}

long op_setresgid(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	return sys(setresgid, op->num[0], op->num[0], op->num[0]);
}

long op_setresuid(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	if (op->num[1]) {
		long r = sys(prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
		if (r < 0)
			return r;
	}
	return sys(setresuid, op->num[0], op->num[0], op->num[0]);
}

long op_sethostname(struct iso_ctx *ctx, const struct iso_op *op)
{
	long r = sys(sethostname, iso_str(ctx, op, 0), iso_len(ctx, op->str[0]));
	return op->flags & ISO_F_OPTIONAL && (r == -EPERM || r == -ENOSYS) ? 0 : r;
}

long op_setdomainname(struct iso_ctx *ctx, const struct iso_op *op)
{
	return sys(setdomainname, iso_str(ctx, op, 0), iso_len(ctx, op->str[0]));
}

/* Kernels without keys have nothing to inherit: ENOSYS is success. */
long op_keyring(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	(void)op;
	long r = sys(keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	return r == -ENOSYS ? 0 : r;
}

long op_setsid(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	(void)op;
	return sys(setsid);
}

long op_ctty(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	return sys(ioctl, op->num[0], TIOCSCTTY, 0);
}

long op_securebits(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	return sys(prctl, PR_SET_SECUREBITS, op->num[0], 0, 0, 0);
}

/* Drop from the bounding set what the mask has not; the kernel ends the list by EINVAL.  Where we
 * have not the right to drop, what is gone already is no failure.  What init has dropped from its own
 * its children don't have: forty calls less a program. */
long op_bounding(struct iso_ctx *ctx, const struct iso_op *op)
{
	uint64_t drop = ~op->num[0] & ~ctx->unbound;
	for (unsigned cap = 0; cap <= ISO_LAST_CAP; cap++) {
		if (!(drop >> cap & 1))
			continue;
		long r = sys(prctl, PR_CAPBSET_DROP, cap, 0, 0, 0);
		if (r == -EINVAL && cap > 0)
			break;
		if (r == -EPERM && sys(prctl, PR_CAPBSET_READ, cap, 0, 0, 0) == 0)
			continue;
		if (r < 0)
			return r;
	}
	ctx->unbound |= ~op->num[0];
	return 0;
}

long op_capset(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	for (int i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)(op->num[0] >> 32 * i);
		data[i].permitted = (uint32_t)(op->num[1] >> 32 * i);
		data[i].inheritable = (uint32_t)(op->num[2] >> 32 * i);
	}
	return sys(capset, &header, data);
}

long op_ambient(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	long r = sys(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (unsigned cap = 0; r == 0 && cap <= ISO_LAST_CAP; cap++) {
		if (!(op->num[0] >> cap & 1))
			continue;
		r = sys(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
		if (r == -EINVAL && cap > CAP_AUDIT_READ) /* newer than this kernel */
			return 0;
	}
	return r;
}

long op_no_new_privs(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	(void)op;
	return sys(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

long op_dumpable(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	return sys(prctl, PR_SET_DUMPABLE, op->num[0], 0, 0, 0);
}

long op_pdeathsig(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	return sys(prctl, PR_SET_PDEATHSIG, op->num[0], 0, 0, 0);
}
