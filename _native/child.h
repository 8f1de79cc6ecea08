/* SPDX-License-Identifier: Apache-2.0
 * What the child files share: the context of one run of a plan, and access to its items. */
#ifndef ISO_CHILD_H
#define ISO_CHILD_H

#include "sys.h"

#include "plan.h"

#define ISO_PATH_MAX 4096

/* One run of one plan.  Lives on the stack of whoever runs it. */
struct iso_ctx {
	const struct iso_plan *plan; /* the blob's start */
	int32_t *fds;                /* n_slots + n_temps */
	int32_t root_fd;             /* the new root, -1 before it is made */
	int32_t null_fd;             /* /dev/null for masks, -1 before the first */
	int32_t record_fd;           /* where a failure is told, -1: nowhere */
	int32_t proc_fd;             /* init's /proc, that its Landlock domain may read; -1 */
	uint64_t *phase_ns;          /* ISO_PHASES stamps, or NULL */
	uint64_t doors;              /* ISO_DOOR_*, once a filter refuses what we call */
	int32_t outside;             /* not born in the cgroup that LEAF names */
	uint64_t unbound;            /* what this process's bounding set is known to lack */
};

typedef long (*iso_step)(struct iso_ctx *ctx, const struct iso_op *op);

static inline const struct iso_op *iso_ops(const struct iso_ctx *ctx)
{
	return (const struct iso_op *)(ctx->plan + 1);
}

/* An item's bytes; it ends in a NUL that iso_len doesn't count.  NULL for "none". */
static inline const char *iso_item(const struct iso_ctx *ctx, uint32_t offset)
{
	return offset ? (const char *)ctx->plan + offset + 4 : NULL;
}

static inline uint32_t iso_len(const struct iso_ctx *ctx, uint32_t offset)
{
	return offset ? *(const uint32_t *)((const char *)ctx->plan + offset) : 0;
}

static inline const char *iso_str(const struct iso_ctx *ctx, const struct iso_op *op, int i)
{
	return iso_item(ctx, op->str[i]);
}

/* The fd of an op's slot, or -1. */
static inline int32_t iso_fd(const struct iso_ctx *ctx, const struct iso_op *op, int i)
{
	return op->slot[i] < 0 ? -1 : ctx->fds[op->slot[i]];
}

static inline int iso_absent(long r)
{
	return r == -ENOENT || r == -ENOTDIR;
}

/* The upper half of the argument by which a call of ours passes the filters, or 0. */
static inline uint64_t iso_door(const struct iso_ctx *ctx, uint64_t which)
{
	return ctx->doors & which ? (uint64_t)ISO_DOOR << 32 : 0;
}

uint64_t iso_now(void);

/* Run every op in order: 0, or -errno with *step = the op that failed. */
long iso_run(struct iso_ctx *ctx, uint32_t *step);

/* Run, and if that returns tell the record pipe and exit: a plan of a child must end in exec. */
_Noreturn void iso_child_main(struct iso_ctx *ctx);

/* Fill in a context; record_fd is taken from the plan's READY op. */
void iso_ctx_init(struct iso_ctx *ctx, const void *blob, int32_t *fds);

/* clang-format off */
#define ISO_STEPS(X) \
	X(JOIN_CGROUP, join_cgroup) X(LEAF, leaf) X(UNSHARE, unshare) X(SETNS, setns) X(WRITE, write) \
	X(SETGROUPS, setgroups) X(SETRESGID, setresgid) X(SETRESUID, setresuid) \
	X(SETHOSTNAME, sethostname) X(SETDOMAINNAME, setdomainname) X(LOOPBACK_UP, loopback_up) \
	X(PROPAGATION, propagation) X(ROOT_TMPFS, root_tmpfs) X(ROOT_BIND, root_bind) \
	X(MKDIR, mkdir) X(FILE, file) X(SYMLINK, symlink) X(BIND, bind) X(MOUNT_NEW, mount_new) \
	X(MOUNT_ATTR, mount_attr) X(MASK, mask) X(PIVOT_ROOT, pivot_root) X(KEYRING, keyring) \
	X(SETSID, setsid) X(CTTY, ctty) X(DUP2, dup2) X(CLOSE_FROM, close_from) \
	X(RLIMIT, rlimit) X(UMASK, umask) X(NICE, nice) X(CHDIR, chdir) \
	X(SECUREBITS, securebits) X(BOUNDING, bounding) X(CAPSET, capset) X(AMBIENT, ambient) \
	X(NO_NEW_PRIVS, no_new_privs) X(DUMPABLE, dumpable) X(APPARMOR, apparmor) \
	X(LANDLOCK_CREATE, landlock_create) X(LANDLOCK_PATH, landlock_path) \
	X(LANDLOCK_PORT, landlock_port) X(LANDLOCK_RESTRICT, landlock_restrict) X(READY, ready) \
	X(SECCOMP, seccomp) X(EXEC, exec) X(PDEATHSIG, pdeathsig) X(TIMENS, timens) \
	X(IDMAP, idmap) X(SETSCHED, setsched) X(PLACE, place) X(ROOT_HERE, root_here) \
	X(ROOT_LEAVE, root_leave) X(REBORN, reborn) X(STEWARD, steward) X(SECCOMP_NOTIFY, seccomp_notify) \
	X(OVERLAY, overlay) X(PTY, pty) X(UNPACK, unpack)
/* clang-format on */

#define ISO_DECLARE(code, name) long op_##name(struct iso_ctx *ctx, const struct iso_op *op);
ISO_STEPS(ISO_DECLARE)

/* From child_fs.c, for child_root.c: paths inside the new root. */
long iso_in_root(const struct iso_ctx *ctx, const char *path, uint64_t flags);
long iso_parent_in_root(const struct iso_ctx *ctx, const char *path, const char **name);
long iso_make_dirs(const struct iso_ctx *ctx, const char *path, uint32_t mode);
long iso_make_file(const struct iso_ctx *ctx, const char *path, uint32_t mode);
long iso_new_file(long dir, const char *name, const char *data, uint64_t len, uint32_t mode);
long iso_is_dir(long fd);

/* From child_lsm.c: 0 if an attr file of /proc shows that label, or -errno. */
long iso_same_label(long fd, const char *want, uint32_t len);

/* From child_root.c. */
long iso_become_root(struct iso_ctx *ctx, long fd);

/* From child_mount.c: attributes of a mount; the tree that an op names; a new file system, not yet attached; a copy of a tree, likewise. */
long iso_set_attr(long fd, uint64_t set, uint64_t clr, int recursive);
long iso_tree_of(const struct iso_ctx *ctx, const struct iso_op *op);
long iso_new_fs(const char *type, const char *options, uint32_t len, uint64_t attr);
long iso_clone_tree(long fd, int recursive);
long iso_attach(long mount_fd, long target_fd);

#endif
