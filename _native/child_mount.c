/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  Mounts by descriptor: fsopen, open_tree, mount_setattr, move_mount,
 * so that no path is resolved twice; and the entry into the new root. */
#include "child.h"

#include <linux/fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/stat.h>

#define ISO_AT_RECURSIVE 0x8000
#define ISO_NULL_MAJOR   1
#define ISO_NULL_MINOR   3

long iso_set_attr(long fd, uint64_t set, uint64_t clr, int recursive)
{
	struct mount_attr attr = {.attr_set = set, .attr_clr = clr};
	if (!set && !clr)
		return 0;
	return sys(mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? ISO_AT_RECURSIVE : 0), &attr,
		   sizeof attr);
}

/* "k=v" or "flag", one string each, NUL-separated. */
static long configure(long fs, const char *options, uint32_t len)
{
	char key[64];
	uint32_t i = 0;

	while (i < len) {
		uint32_t n = 0;
		while (options[i + n] && options[i + n] != '=' && n + 1 < sizeof key) {
			key[n] = options[i + n];
			n++;
		}
		key[n] = 0;
		int has_value = options[i + n] == '=';
		if (!has_value && options[i + n])
			return -EINVAL;
		const char *value = has_value ? options + i + n + 1 : NULL;
		long r = sys(fsconfig, fs, has_value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key,
			     value, 0);
		if (r < 0)
			return r;
		while (i < len && options[i])
			i++;
		i++;
	}
	return 0;
}

long iso_new_fs(const char *type, const char *options, uint32_t len, uint64_t attr)
{
	long fs = sys(fsopen, type, FSOPEN_CLOEXEC);
	if (fs < 0)
		return fs;
	long r = configure(fs, options, len);
	if (r == 0)
		r = sys(fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
	if (r == 0)
		r = sys(fsmount, fs, FSMOUNT_CLOEXEC, attr);
	(void)sys(close, fs);
	return r;
}

long iso_clone_tree(long fd, int recursive)
{
	return sys(open_tree, fd, "",
		   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH |
			   (recursive ? ISO_AT_RECURSIVE : 0));
}

long iso_attach(long mount_fd, long target_fd)
{
	return sys(move_mount, mount_fd, "", target_fd, "",
		   MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static long open_host(const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
	return sys(openat2, AT_FDCWD, path, &how, sizeof how);
}

/* A detached tree: the parent's, or a copy of a path's. */
long iso_tree_of(const struct iso_ctx *ctx, const struct iso_op *op)
{
	if (op->slot[0] >= 0) {
		int32_t given = iso_fd(ctx, op, 0);
		return given < 0 ? -ENOENT : sys(fcntl, given, F_DUPFD_CLOEXEC, 3);
	}
	const char *path = iso_str(ctx, op, 0);
	long fd = op->flags & ISO_F_FROM_ROOT ? iso_in_root(ctx, path, O_PATH) : open_host(path);
	if (fd < 0)
		return fd;
	long tree = iso_clone_tree(fd, op->flags & ISO_F_RECURSIVE);
	(void)sys(close, fd);
	return tree;
}

static long make_target(const struct iso_ctx *ctx, const struct iso_op *op, const char *path,
			long tree)
{
	long dir = op->flags & ISO_F_MAKE_DIR ? 1 : op->flags & ISO_F_MAKE_FILE ? 0 : -1;
	if (op->flags & ISO_F_MAKE_ANY) {
		dir = iso_is_dir(tree);
		if (dir < 0)
			return dir;
	}
	if (dir < 0)
		return 0;
	return dir ? iso_make_dirs(ctx, path, 0755) : iso_make_file(ctx, path, 0644);
}

/* Put a detached mount on a path of the new root. */
static long attach_in_root(const struct iso_ctx *ctx, const char *path, long tree)
{
	long target = iso_in_root(ctx, path, O_PATH);
	if (target < 0)
		return target;
	long r = iso_attach(tree, target);
	(void)sys(close, target);
	return r;
}

long op_bind(struct iso_ctx *ctx, const struct iso_op *op)
{
	long tree = iso_tree_of(ctx, op);
	if (tree < 0)
		return op->flags & ISO_F_OPTIONAL && iso_absent(tree) ? 0 : tree;
	const char *target = iso_str(ctx, op, 1);
	long r = iso_set_attr(tree, op->num[0], op->num[1], op->flags & ISO_F_RECURSIVE);
	if (r == 0)
		r = make_target(ctx, op, target, tree);
	if (r == 0)
		r = attach_in_root(ctx, target, tree);
	(void)sys(close, tree);
	return r;
}

long op_mount_new(struct iso_ctx *ctx, const struct iso_op *op)
{
	const char *target = iso_str(ctx, op, 2);
	long fs = iso_new_fs(iso_str(ctx, op, 0), iso_str(ctx, op, 1), iso_len(ctx, op->str[1]),
			     op->num[0]);
	if (fs < 0)
		return fs;
	long r = make_target(ctx, op, target, fs);
	if (r == 0)
		r = attach_in_root(ctx, target, fs);
	(void)sys(close, fs);
	return r;
}

long op_mount_attr(struct iso_ctx *ctx, const struct iso_op *op)
{
	long fd = iso_in_root(ctx, iso_str(ctx, op, 0), O_PATH);
	if (fd < 0)
		return op->flags & ISO_F_OPTIONAL && iso_absent(fd) ? 0 : fd;
	long r = iso_set_attr(fd, op->num[0], op->num[1], op->flags & ISO_F_RECURSIVE);
	(void)sys(close, fd);
	return r;
}

/* The kernel's null device, checked by its numbers: something else may be mounted there
 * (CVE-2025-31133).  Kept open for the next mask: 0 or -errno. */
static long open_null(struct iso_ctx *ctx)
{
	struct statx st;
	if (ctx->null_fd >= 0)
		return 0;
	long fd = open_host("/dev/null");
	if (fd < 0)
		return fd;
	long r = sys(statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
	if (r == 0 && ((st.stx_mode & 0170000) != 0020000 || st.stx_rdev_major != ISO_NULL_MAJOR ||
		       st.stx_rdev_minor != ISO_NULL_MINOR))
		r = -ENODEV;
	if (r == 0)
		ctx->null_fd = (int32_t)fd;
	else
		(void)sys(close, fd);
	return r;
}

static long null_tree(struct iso_ctx *ctx)
{
	long r = open_null(ctx);
	return r < 0 ? r : iso_clone_tree(ctx->null_fd, 0);
}

long op_mask(struct iso_ctx *ctx, const struct iso_op *op)
{
	static const char options[] = "size=4k\0nr_inodes=2\0mode=555";
	long target = iso_in_root(ctx, iso_str(ctx, op, 0), O_PATH);
	if (target < 0)
		return op->flags & ISO_F_OPTIONAL && iso_absent(target) ? 0 : target;
	long dir = iso_is_dir(target);
	long cover = dir < 0 ? dir
		     : dir   ? iso_new_fs("tmpfs", options, sizeof options,
					  MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
						  MOUNT_ATTR_NOEXEC)
			     : null_tree(ctx);
	long r = cover < 0 ? cover : iso_attach(cover, target);
	if (cover >= 0)
		(void)sys(close, cover);
	(void)sys(close, target);
	return r;
}

/* An empty file or directory, of the kind that the host path has, for a later bind. */
long op_place(struct iso_ctx *ctx, const struct iso_op *op)
{
	long source = open_host(iso_str(ctx, op, 0));
	if (source < 0)
		return op->flags & ISO_F_OPTIONAL && iso_absent(source) ? 0 : source;
	const char *target = iso_str(ctx, op, 1);
	long r = iso_is_dir(source);
	if (r >= 0)
		r = r ? iso_make_dirs(ctx, target, 0755) : iso_make_file(ctx, target, 0644);
	(void)sys(close, source);
	return r;
}
