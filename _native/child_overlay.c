/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  Roots that are put together: layers, and files from an archive.
 * Layers are found by relative names in a scratch file system that is the working directory then:
 * no path with a ':' has to be told to the kernel, and none is resolved twice. */
#include "child.h"

#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <linux/stat.h>

#define ISO_MNT_DETACH  2
#define ISO_OVERFLOW_ID 65534 /* an owner that this user namespace has not */

/* "u", which takes the changes, looks like the topmost layer; "w" is the kernel's own. */
static long make_upper(void)
{
	struct statx st;
	long r = sys(statx, AT_FDCWD, "l0", AT_SYMLINK_NOFOLLOW, STATX_MODE | STATX_UID | STATX_GID,
		     &st);
	if (r == 0)
		r = sys(mkdirat, AT_FDCWD, "u", st.stx_mode & 0777);
	if (r == 0)
		r = sys(mkdirat, AT_FDCWD, "w", 0700);
	if (r < 0 || st.stx_uid == ISO_OVERFLOW_ID || st.stx_gid == ISO_OVERFLOW_ID)
		return r;
	return sys(fchownat, AT_FDCWD, "u", st.stx_uid, st.stx_gid, AT_SYMLINK_NOFOLLOW);
}

/* A host directory that takes the changes knows the caller's ids alone, which are the program's in
 * here: so the kernel has to act as the program there, and we too when we make a mount point.  Our
 * capabilities stay: the kernel's working directory has mode 0. */
static long act_as(uint64_t uid, uint64_t gid)
{
	long bits = sys(prctl, PR_GET_SECUREBITS, 0, 0, 0, 0);
	if (bits < 0)
		return bits;
	long r = sys(prctl, PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0);
	if (r < 0)
		return r;
	(void)sys(setfsgid, gid); /* both give the old id; what holds now is asked for */
	(void)sys(setfsuid, uid);
	r = sys(prctl, PR_SET_SECUREBITS, bits, 0, 0, 0);
	if (r < 0)
		return r;
	return sys(setfsgid, -1) == (long)gid && sys(setfsuid, -1) == (long)uid ? 0 : -EPERM;
}

/* The overlay of the layers in a scratch file system, not yet attached. */
static long overlay_of(const struct iso_ctx *ctx, const struct iso_op *op, long scratch)
{
	long r = sys(fchdir, scratch);
	if (r == 0 && op->num[1])
		r = make_upper();
	if (r == 0 && op->num[2])
		r = act_as(op->num[2] - 1, op->num[3] - 1);
	if (r == 0)
		r = iso_new_fs("overlay", iso_str(ctx, op, 0), iso_len(ctx, op->str[0]),
			       op->num[0]);
	/* The kernel has copies of those mounts now.  Ours must not stay below the overlay: as root
	 * it would keep the old root from being let go of. */
	long gone = r < 0 ? 0 : sys(umount2, ".", ISO_MNT_DETACH);
	if (gone == 0)
		gone = sys(chdir, "/");
	if (r >= 0 && gone < 0) {
		(void)sys(close, r);
		return gone;
	}
	return r;
}

/* Found again for the attachment: the scratch that was there is gone. */
static long attach_at(const struct iso_ctx *ctx, const char *path, long fd)
{
	long target = iso_in_root(ctx, path, O_PATH | O_DIRECTORY);
	if (target < 0)
		return target;
	long r = iso_attach(fd, target);
	(void)sys(close, target);
	return r;
}

/* The root so far is the scratch; init keeps the ids for the mount points that it makes. */
static long root_overlay(struct iso_ctx *ctx, const struct iso_op *op)
{
	if (ctx->root_fd < 0)
		return -EBADF;
	long fd = overlay_of(ctx, op, ctx->root_fd);
	if (fd < 0)
		return fd;
	int32_t scratch = ctx->root_fd;
	long r = iso_become_root(ctx, fd);
	if (r == 0)
		(void)sys(close, scratch);
	return r;
}

long op_overlay(struct iso_ctx *ctx, const struct iso_op *op)
{
	if (!op->str[1])
		return root_overlay(ctx, op);
	long scratch = iso_in_root(ctx, iso_str(ctx, op, 1), O_PATH | O_DIRECTORY);
	if (scratch < 0)
		return scratch;
	long uid = sys(setfsuid, -1), gid = sys(setfsgid, -1), r = 0;
	long fd = overlay_of(ctx, op, scratch);
	if (op->num[2])
		r = act_as((uint64_t)uid, (uint64_t)gid);
	if (fd < 0 || r == 0)
		r = fd < 0 ? fd : attach_at(ctx, iso_str(ctx, op, 1), fd);
	if (fd >= 0)
		(void)sys(close, fd);
	(void)sys(close, scratch);
	return r;
}

/* ---- an archive: isolate/supervise/archive.py writes it ------------------------------------ */

enum { ENTRY_DIR = 1, ENTRY_FILE = 2, ENTRY_SYMLINK = 3, ENTRY_LINK = 4 };

struct entry {
	uint32_t kind, mode;
	uint32_t path_len, target_len; /* both end in a NUL that isn't counted */
	uint64_t size;
};

struct cursor {
	const char *at;
	uint64_t left;
};

static const char *take(struct cursor *c, uint64_t n)
{
	const char *found = c->at;
	n = (n + 7) & ~7ull;
	if (n > c->left)
		return NULL;
	c->at += n;
	c->left -= n;
	return found;
}

static long make_link(const struct iso_ctx *ctx, const char *target, long dir, const char *name)
{
	const char *old = NULL;
	long from = iso_parent_in_root(ctx, target, &old);
	if (from < 0)
		return from;
	long r = sys(linkat, from, old, dir, name, 0);
	(void)sys(close, from);
	return r;
}

static long make_entry(const struct iso_ctx *ctx, const struct entry *e, const char *path,
		       const char *target, const char *data)
{
	const char *name = NULL;
	if (e->kind == ENTRY_DIR)
		return iso_make_dirs(ctx, path, e->mode);
	long dir = iso_parent_in_root(ctx, path, &name);
	if (dir < 0)
		return dir;
	long r = e->kind == ENTRY_FILE      ? iso_new_file(dir, name, data, e->size, e->mode)
		 : e->kind == ENTRY_SYMLINK ? sys(symlinkat, target, dir, name)
		 : e->kind == ENTRY_LINK    ? make_link(ctx, target, dir, name)
					    : -EINVAL;
	(void)sys(close, dir);
	return r;
}

/* Where programs may write, what was unpacked is theirs. */
static long give(const struct iso_ctx *ctx, const struct iso_op *op, const char *path)
{
	const char *name = NULL;
	if (!op->num[0])
		return 0;
	long dir = iso_parent_in_root(ctx, path, &name);
	if (dir < 0)
		return dir;
	long r = sys(fchownat, dir, name, op->num[0] - 1, op->num[1] - 1, AT_SYMLINK_NOFOLLOW);
	(void)sys(close, dir);
	return r;
}

static long unpack(const struct iso_ctx *ctx, const struct iso_op *op, struct cursor *c)
{
	while (c->left) {
		const struct entry *e = (const struct entry *)take(c, sizeof *e);
		if (!e)
			return -EPROTO;
		const char *path = take(c, (uint64_t)e->path_len + 1);
		const char *target = path ? take(c, (uint64_t)e->target_len + 1) : NULL;
		if (!target || e->size > c->left || path[e->path_len] || target[e->target_len])
			return -EPROTO;
		const char *data = take(c, e->size);
		if (!data)
			return -EPROTO;
		long r = make_entry(ctx, e, path, target, data);
		if (r == 0)
			r = give(ctx, op, path);
		if (r < 0)
			return r;
	}
	return 0;
}

long op_unpack(struct iso_ctx *ctx, const struct iso_op *op)
{
	struct statx st;
	long fd = iso_fd(ctx, op, 0);
	long r = sys(statx, fd, "", AT_EMPTY_PATH, STATX_SIZE, &st);
	if (r < 0 || st.stx_size == 0)
		return r;
	long map = sys(mmap, NULL, st.stx_size, 1 /* PROT_READ */, 2 /* MAP_PRIVATE */, fd, 0);
	if (map < 0 && map > -4096)
		return map;
	struct cursor c = {(const char *)map, st.stx_size};
	r = unpack(ctx, op, &c);
	(void)sys(munmap, map, st.stx_size);
	return r;
}
