/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  Files and directories in the new root, before it is entered.
 * Every path is resolved by openat2(RESOLVE_IN_ROOT): what lies there may be hostile. */
#include "child.h"

#include <linux/fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>

#define ISO_S_IFMT  0170000
#define ISO_S_IFDIR 0040000

static long open_how(long dir, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .mode = 0, .resolve = resolve};
	return sys(openat2, dir, path, &how, sizeof how);
}

/* Open a path inside the new root; never outside, whatever links lie there. */
long iso_in_root(const struct iso_ctx *ctx, const char *path, uint64_t flags)
{
	if (ctx->root_fd < 0)
		return -EBADF;
	return open_how(ctx->root_fd, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

/* 1, 0, or -errno. */
long iso_is_dir(long fd)
{
	struct statx st;
	long r = sys(statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
	return r < 0 ? r : (st.stx_mode & ISO_S_IFMT) == ISO_S_IFDIR;
}

/* Copy the first n bytes of a path, and a NUL. */
static void copy_path(char *to, const char *from, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		to[i] = from[i];
	to[n] = 0;
}

static uint32_t length(const char *s)
{
	uint32_t n = 0;
	while (s[n])
		n++;
	return n;
}

/* The directory that holds a path's last name, made where it is missing; *name is that name. */
long iso_parent_in_root(const struct iso_ctx *ctx, const char *path, const char **name)
{
	char parent[ISO_PATH_MAX];
	uint32_t end = length(path);

	while (end > 0 && path[end - 1] != '/')
		end--;
	if (end == 0 || end >= sizeof parent || path[end] == 0)
		return -EINVAL;
	*name = path + end;
	while (end > 1 && path[end - 1] == '/')
		end--;
	copy_path(parent, path, end);
	long fd = iso_in_root(ctx, parent, O_PATH | O_DIRECTORY);
	if (fd != -ENOENT)
		return fd;
	long r = iso_make_dirs(ctx, parent, 0755);
	return r < 0 ? r : iso_in_root(ctx, parent, O_PATH | O_DIRECTORY);
}

/* Make one directory whose parent is there.  0, also if it exists. */
static long make_one(const struct iso_ctx *ctx, const char *prefix, uint32_t mode)
{
	const char *name = NULL;
	char parent[ISO_PATH_MAX];
	uint32_t end = length(prefix);

	while (end > 0 && prefix[end - 1] != '/')
		end--;
	name = prefix + end;
	copy_path(parent, prefix, end ? end : 1);
	if (end == 0)
		return -EINVAL;
	long dir = iso_in_root(ctx, parent, O_PATH | O_DIRECTORY);
	if (dir < 0)
		return dir;
	long r = sys(mkdirat, dir, name, mode);
	(void)sys(close, dir); /* O_PATH: nothing to report */
	return r == -EEXIST ? 0 : r;
}

/* mkdir -p in the new root; the mode is the last one's, parents get 0755.  init's umask is 0. */
long iso_make_dirs(const struct iso_ctx *ctx, const char *path, uint32_t mode)
{
	char prefix[ISO_PATH_MAX];
	uint32_t n = length(path);

	if (n >= sizeof prefix || path[0] != '/')
		return -EINVAL;
	for (uint32_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i] != 0)
			continue;
		if (path[i - 1] == '/') /* "//", or the end of "a/" */
			continue;
		copy_path(prefix, path, i);
		long r = make_one(ctx, prefix, path[i] == 0 ? mode : 0755);
		if (r < 0)
			return r;
	}
	return 0;
}

/* An empty file, unless something is there already. */
long iso_make_file(const struct iso_ctx *ctx, const char *path, uint32_t mode)
{
	const char *name = NULL;
	long dir = iso_parent_in_root(ctx, path, &name);
	if (dir < 0)
		return dir;
	long fd = sys(openat, dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC,
		      mode);
	(void)sys(close, dir);
	if (fd >= 0)
		(void)sys(close, fd); /* nothing was written */
	return fd == -EEXIST ? 0 : fd < 0 ? fd : 0;
}

long op_mkdir(struct iso_ctx *ctx, const struct iso_op *op)
{
	return iso_make_dirs(ctx, iso_str(ctx, op, 0), (uint32_t)op->num[0]);
}

static long write_all(long fd, const char *data, uint64_t len)
{
	while (len > 0) {
		long n = sys(write, fd, data, len);
		if (n < 0)
			return n;
		if (n == 0)
			return -EIO;
		data += n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* A file that was not there, with its content. */
long iso_new_file(long dir, const char *name, const char *data, uint64_t len, uint32_t mode)
{
	long fd = sys(openat, dir, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC,
		      0600);
	if (fd < 0)
		return fd;
	long r = write_all(fd, data, len);
	if (r == 0)
		r = sys(fchmod, fd, mode);
	long closed = sys(close, fd);
	return r < 0 ? r : closed;
}

long op_file(struct iso_ctx *ctx, const struct iso_op *op)
{
	const char *name = NULL;
	long dir = iso_parent_in_root(ctx, iso_str(ctx, op, 0), &name);
	if (dir < 0)
		return dir;
	long r = iso_new_file(dir, name, iso_str(ctx, op, 1), iso_len(ctx, op->str[1]),
			      (uint32_t)op->num[0]);
	(void)sys(close, dir);
	return r;
}

long op_symlink(struct iso_ctx *ctx, const struct iso_op *op)
{
	const char *name = NULL;
	long dir = iso_parent_in_root(ctx, iso_str(ctx, op, 1), &name);
	if (dir < 0)
		return dir;
	long r = sys(symlinkat, iso_str(ctx, op, 0), dir, name);
	(void)sys(close, dir);
	return r;
}
