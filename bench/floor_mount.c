/* SPDX-License-Identifier: Apache-2.0
 * The floor's mounts, as few system calls as each takes.  Raw calls only: runs after clone. */
#include "floor.h"

#include <linux/fcntl.h>
#include <linux/mount.h>

#define AT_RECURSIVE_ 0x8000

static long set_attr(long fd, uint64_t attr, int recursive)
{
	struct mount_attr set = {.attr_set = attr};
	if (!attr)
		return 0;
	return sys(mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE_ : 0), &set,
		   sizeof set);
}

/* Options are "k=v" or "k", NUL-separated. */
static long configure(long fs, const char *text, uint32_t len)
{
	char key[64];
	for (uint32_t i = 0; i < len; i++) {
		uint32_t n = 0;
		while (text[i + n] && text[i + n] != '=' && n + 1 < sizeof key) {
			key[n] = text[i + n];
			n++;
		}
		key[n] = 0;
		const char *value = text[i + n] == '=' ? text + i + n + 1 : NULL;
		long r = sys(fsconfig, fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key,
			     value, 0);
		if (r < 0)
			return r;
		while (i < len && text[i])
			i++;
	}
	return 0;
}

static long new_fs(const char *type, const char *options, uint32_t len, uint64_t attr)
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

/* Attach a detached mount to a path below the new root, and let go of it. */
static long attach(const struct floor_arena *a, long tree, const char *path)
{
	long r = sys(move_mount, tree, "", a->root_fd, path, MOVE_MOUNT_F_EMPTY_PATH);
	(void)sys(close, tree);
	return r;
}

static long open_tree(long dir, const char *from, uint64_t attr, uint64_t recursive)
{
	long tree = sys(open_tree, dir, from, OPEN_TREE_CLONE | (recursive ? AT_RECURSIVE_ : 0));
	if (tree < 0)
		return tree;
	long r = set_attr(tree, attr, recursive != 0);
	if (r == 0)
		return tree;
	(void)sys(close, tree);
	return r;
}

static long bind_tree(const struct floor_arena *a, long dir, const char *from, const char *to,
		      uint64_t attr, uint64_t recursive)
{
	long tree = open_tree(dir, from, attr, recursive);
	return tree < 0 ? tree : attach(a, tree, to);
}

long floor_trees(struct floor_arena *a)
{
	for (uint32_t i = 0; i < a->n_steps; i++) {
		struct floor_step *s = &a->steps[i];
		if (s->code != FL_bind || s->off || s->fresh == 2)
			continue;
		long r = open_tree(AT_FDCWD, s->s[0], s->n[0], s->n[1]);
		if (r < 0) {
			a->error_step = (int32_t)i;
			a->error = (int32_t)-r;
			return r;
		}
		s->fd = (int32_t)r;
	}
	a->stamp[PH_trees] = floor_now();
	return 0;
}

long do_propagation(struct floor_arena *a, const struct floor_step *s)
{
	(void)a, (void)s;
	return sys(mount, "none", "/", NULL, (1 << 18) | 16384 /* MS_PRIVATE | MS_REC */, NULL);
}

long do_root(struct floor_arena *a, const struct floor_step *s)
{
	long fd = new_fs("tmpfs", s->s[0], s->len[0], s->n[0]);
	if (fd < 0)
		return fd;
	a->root_fd = (int32_t)fd;
	return sys(move_mount, fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH);
}

long do_dir(struct floor_arena *a, const struct floor_step *s)
{
	return sys(mkdirat, a->root_fd, s->s[0], s->n[0]);
}

long do_file(struct floor_arena *a, const struct floor_step *s)
{
	long fd = sys(openat, a->root_fd, s->s[0], O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC,
		      s->n[0]);
	if (fd < 0)
		return fd;
	long n = s->len[1] ? sys(write, fd, s->s[1], s->len[1]) : 0;
	(void)sys(close, fd);
	return n < 0 ? n : n == (long)s->len[1] ? 0 : -EIO;
}

long do_link(struct floor_arena *a, const struct floor_step *s)
{
	return sys(symlinkat, s->s[0], a->root_fd, s->s[1]);
}

long do_bind(struct floor_arena *a, const struct floor_step *s)
{
	if (s->fd > 0)
		return attach(a, s->fd, s->s[1]);
	return bind_tree(a, AT_FDCWD, s->s[0], s->s[1], s->n[0], s->n[1]);
}

long do_fs(struct floor_arena *a, const struct floor_step *s)
{
	long fd = new_fs(s->s[0], s->s[2], s->len[2], s->n[0]);
	return fd < 0 ? fd : attach(a, fd, s->s[1]);
}

long do_rebind(struct floor_arena *a, const struct floor_step *s)
{
	long r = bind_tree(a, a->root_fd, s->s[0], s->s[0], s->n[0], 1);
	return r == -ENOENT ? 0 : r;
}

long do_mask(struct floor_arena *a, const struct floor_step *s)
{
	static const char options[] = "size=4k\0nr_inodes=2\0mode=555";
	long r;
	if (s->n[0]) {
		long fd = new_fs("tmpfs", options, sizeof options - 1, MOUNT_ATTR_RDONLY | 0xe);
		r = fd < 0 ? fd : attach(a, fd, s->s[0]);
	} else {
		r = bind_tree(a, a->root_fd, "dev/null", s->s[0], 0, 0);
	}
	return r == -ENOENT ? 0 : r;
}

long do_attr(struct floor_arena *a, const struct floor_step *s)
{
	struct mount_attr set = {.attr_set = s->n[0]};
	if (s->len[0])
		return sys(mount_setattr, a->root_fd, s->s[0], 0, &set, sizeof set);
	return sys(mount_setattr, a->root_fd, "", AT_EMPTY_PATH, &set, sizeof set);
}

long do_pivot(struct floor_arena *a, const struct floor_step *s)
{
	(void)s;
	long r = sys(fchdir, a->root_fd);
	if (r == 0)
		r = sys(pivot_root, ".", ".");
	if (r == 0)
		r = sys(umount2, ".", 2 /* MNT_DETACH */);
	return r;
}
