/* SPDX-License-Identifier: Apache-2.0
 * isolate-init: a program of a live box with all that descends from it (docs/adr/0010).
 *
 * Such a program has a keeper between itself and init: a fork of init that is a subreaper, so that
 * whatever loses its parent comes to the keeper.  To end the tree init kills the keeper; the tree
 * comes to init then, where every child that is no keeper belongs to a tree that has to end. */
#include "init.h"

#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/wait.h>
#include <asm/signal.h>
#include <asm/statfs.h>

#define ISO_QUEUE  4096 /* processes of one pass; more are for the next */
#define ISO_PASSES 64   /* without a look at requests */

/* ---- the keeper ------------------------------------------------------------------------- */

/* Nothing but the right to pass signals on to a program of another uid. */
static long drop_privileges(void)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
	struct __user_cap_data_struct had[2];
	long r = sys(capget, &header, had);
	if (r < 0)
		return r;
	data[0].permitted = had[0].permitted & (1u << CAP_KILL);
	data[0].effective = data[0].permitted;
	return sys(capset, &header, data);
}

static void keep_only(int32_t fd)
{
	if (fd > 0)
		(void)sys(close_range, 0, fd - 1, 0); /* can't fail: a valid range */
	(void)sys(close_range, fd + 1, ~0u, 0);
}

/* Reap; report the program's own end.  Ends when there is nobody left. */
static void reap_kept(int32_t *program, int32_t status_fd)
{
	for (;;) {
		struct rusage usage = {0};
		int status = 0;
		long pid = sys(wait4, -1, &status, WNOHANG | __WALL, &usage);
		if (pid == -ECHILD || pid < 0)
			for (;;)
				(void)sys(exit_group, pid == -ECHILD ? 0 : 1);
		if (pid == 0)
			return;
		if (pid != *program)
			continue;
		struct iso_record record = {
			.type = ISO_REC_EXITED, .pid = *program, .status = status};
		iso_fill_usage(&record, &usage);
		iso_report(status_fd, &record, -1);
		*program = 0;
	}
}

_Noreturn void iso_keeper(struct iso_ctx *ctx, const struct iso_message *m, uint32_t serial)
{
	struct iso_record record = {.type = ISO_REC_SPAWNED, .status = (int32_t)serial};
	uint64_t all = ~0ull;
	int32_t status_fd = m->fds[0], pidfd = -1, program = 0;

	long r = sys(prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	if (r == 0)
		r = iso_start(m, ctx, &pidfd);
	if (r == 0)
		iso_child_main(ctx);
	if (r < 0) {
		record.type = ISO_REC_REFUSED;
		record.error = (int32_t)-r;
	} else {
		program = (int32_t)r;
		record.pid = program;
	}
	record.at_ns = iso_now();
	iso_report(status_fd, &record, pidfd);
	keep_only(status_fd);
	if (drop_privileges() < 0) /* then rather no keeper: init ends the tree */
		for (;;)
			(void)sys(exit_group, 1);
	for (;;) {
		reap_kept(&program, status_fd);
		long signo = sys(rt_sigtimedwait, &all, NULL, NULL, sizeof all);
		if (signo > 0 && signo != SIGCHLD && program)
			(void)sys(kill, program, signo); /* ended meanwhile: nothing to do */
	}
}

/* ---- who descends from whom ---------------------------------------------------------------- */

static int32_t proc_fd = -1; /* a /proc whose numbers are ours */

static char *number(char *to, uint32_t value)
{
	char digits[12];
	int n = 0;
	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		*to++ = digits[--n];
	*to = 0;
	return to;
}

static char *text(char *to, const char *from)
{
	while (*from)
		*to++ = *from++;
	*to = 0;
	return to;
}

/* Whether a directory is a /proc that has our own number as its "self". */
static int is_ours(long fd)
{
	char self[16] = "", mine[16];
	number(mine, (uint32_t)sys(getpid));
	long n = sys(readlinkat, fd, "self", self, sizeof self - 1);
	if (n < 0)
		return 0;
	for (int i = 0; i <= n; i++)
		if (self[i] != mine[i])
			return 0;
	return 1;
}

static long open_proc(void)
{
	struct statfs fs;
	long fd = sys(openat, AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fd;
	if (sys(fstatfs, fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC && is_ours(fd))
		return fd;
	(void)sys(close, fd);
	return -ENOTDIR;
}

/* As pid 1 the number is right only in a /proc that was mounted for this box. */
void iso_tree_open(void)
{
	if (proc_fd >= 0)
		return;
	long fd = open_proc();
	if (fd < 0 && iso_owns_all())
		fd = iso_new_fs("proc", NULL, 0,
				MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	proc_fd = fd < 0 ? -1 : (int32_t)fd;
}

/* After REBORN: our number may be another one, in another pid namespace. */
void iso_tree_reopen(void)
{
	if (proc_fd >= 0)
		(void)sys(close, proc_fd);
	proc_fd = -1;
	iso_tree_open();
}

int32_t iso_tree_fd(void)
{
	return proc_fd;
}

static int32_t queue[ISO_QUEUE];
static uint32_t queued;

/* The numbers of a "children" file, at the queue's end. */
static void add_listed(long fd)
{
	char chunk[1024];
	int32_t pid = 0;
	for (;;) {
		long n = sys(read, fd, chunk, sizeof chunk);
		if (n <= 0)
			return;
		for (long i = 0; i < n; i++) {
			if (chunk[i] >= '0' && chunk[i] <= '9') {
				pid = pid * 10 + (chunk[i] - '0');
				continue;
			}
			if (pid > 1 && queued < ISO_QUEUE)
				queue[queued++] = pid;
			pid = 0;
		}
	}
}

static long add_children_of_thread(int32_t pid, const char *thread)
{
	char path[64];
	char *end = number(path, (uint32_t)pid);
	end = text(end, "/task/");
	end = text(end, thread);
	(void)text(end, "/children");
	long fd = sys(openat, proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fd;
	add_listed(fd);
	return sys(close, fd);
}

struct dirent64_k {
	uint64_t ino, off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* The children of every thread of a process that was killed: it can't get more of them. */
static void add_children(int32_t pid)
{
	char entries[1024] __attribute__((aligned(8))), path[32];
	(void)text(number(path, (uint32_t)pid), "/task");
	long fd = sys(openat, proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return; /* dead: its children come to us */
	for (;;) {
		long n = sys(getdents64, fd, entries, sizeof entries);
		if (n <= 0)
			break;
		for (long at = 0; at < n;) {
			const struct dirent64_k *entry = (const void *)(entries + at);
			if (entry->name[0] >= '0' && entry->name[0] <= '9')
				(void)add_children_of_thread(pid, entry->name);
			at += entry->reclen;
		}
	}
	(void)sys(close, fd);
}

/* Our own list only grows while we don't reap, so it has everybody who was there when the reading
 * began. */
static long list_own(void)
{
	char mine[16];
	queued = 0;
	if (proc_fd < 0)
		return -ENOSYS;
	number(mine, (uint32_t)sys(getpid));
	return add_children_of_thread((int32_t)sys(getpid), mine);
}

/* Children that are nobody's: what killed keepers have left. */
static long list_strays(void)
{
	uint32_t kept = 0;
	long r = list_own();
	for (uint32_t i = 0; i < queued; i++)
		if (!iso_child_known(queue[i]))
			queue[kept++] = queue[i];
	queued = kept;
	return r;
}

/* Kill first, look for children then: who has a SIGKILL pending can fork no more. */
static long kill_queued(void)
{
	long r = 0;
	for (uint32_t i = 0; i < queued; i++) {
		if (sys(kill, queue[i], SIGKILL) == -EACCES) /* ESRCH: then it is reaped */
			r = -EACCES;
		add_children(queue[i]);
	}
	return r;
}

long iso_kill_children(void)
{
	long r = list_own();
	(void)kill_queued(); /* the caller asks again */
	return r;
}

long iso_sweep(void)
{
	for (int pass = 0; pass < ISO_PASSES; pass++) {
		long r = list_strays();
		if (r < 0)
			return r;
		if (queued == 0)
			return 0;
		r = kill_queued();
		if (r < 0)
			return r;
		iso_reap();
	}
	return 1;
}
