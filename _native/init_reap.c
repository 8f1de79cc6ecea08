/* SPDX-License-Identifier: Apache-2.0
 * isolate-init: who was started, who ended, and the end of everybody. */
#include "init.h"

#include <linux/fcntl.h>
#include <linux/resource.h>
#include <linux/wait.h>
#include <asm/signal.h>

static struct {
	int32_t pid; /* 0: free */
	int32_t status_fd;
	int last;
} children[ISO_MAX_CHILDREN];

static int32_t children_fd =
	-1; /* /proc/self/task/TID/children, for a box without a pid namespace */

int iso_child_room(void)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++)
		if (children[i].pid == 0)
			return 1;
	return 0;
}

long iso_child_add(int32_t pid, int32_t status_fd, int last)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++) {
		if (children[i].pid)
			continue;
		children[i].pid = pid;
		children[i].status_fd = status_fd;
		children[i].last = last;
		return 0;
	}
	return -EAGAIN;
}

static uint64_t micros(const struct __kernel_old_timeval *t)
{
	return (uint64_t)t->tv_sec * 1000000u + (uint64_t)t->tv_usec;
}

static void fill_usage(struct iso_record *record, const struct rusage *usage)
{
	record->user_us = micros(&usage->ru_utime);
	record->system_us = micros(&usage->ru_stime);
	record->max_rss_kib = (uint32_t)usage->ru_maxrss;
	record->at_ns = iso_now();
}

void iso_total(struct iso_record *record)
{
	struct rusage usage = {0};
	(void)sys(getrusage, RUSAGE_CHILDREN, &usage); /* can't fail: valid arguments */
	fill_usage(record, &usage);
}

/* Report one dead child.  1 if it was marked LAST: then its report waits for the end of all. */
static int reaped(int32_t pid, int status, const struct rusage *usage)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++) {
		if (children[i].pid != pid)
			continue;
		struct iso_record record = {.type = ISO_REC_EXITED, .pid = pid, .status = status};
		fill_usage(&record, usage);
		iso_report(children[i].status_fd, &record, -1);
		children[i].pid = 0;
		if (children[i].last)
			return children[i].status_fd + 1; /* stays open for ENDED */
		(void)sys(close, children[i].status_fd);
		return 0;
	}
	return 0; /* an orphan */
}

int iso_reap(void)
{
	int last = 0;
	for (;;) {
		struct rusage usage = {0};
		int status = 0;
		long pid = sys(wait4, -1, &status, WNOHANG | __WALL, &usage);
		if (pid < 0 && pid != -ECHILD)
			iso_die(); /* nobody's end could be told any more */
		if (pid <= 0)
			return last;
		int r = reaped((int32_t)pid, status, &usage);
		if (r)
			last = r;
	}
}

void iso_children_open(void)
{
	long fd = sys(openat, AT_FDCWD, "/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
	children_fd = fd < 0 ? -1 : (int32_t)fd;
}

/* The kernel doesn't let us reap: end, and with us the pid namespace and all that is in it. */
static _Noreturn void give_up(void)
{
	for (;;)
		(void)sys(exit_group, 1);
}

/* A number of another pid namespace's /proc may be anybody: only our own children are meant. */
static int is_child(int32_t pid)
{
	return sys(waitid, P_PID, pid, NULL, WEXITED | WNOHANG | WNOWAIT | __WALL, NULL) == 0;
}

/* How many there were to kill. */
static int kill_listed(void)
{
	int found = 0;
	char text[4096];
	long n = sys(pread64, children_fd, text, sizeof text, 0);
	int32_t pid = 0;
	for (long i = 0; i < n; i++) {
		if (text[i] >= '0' && text[i] <= '9') {
			pid = pid * 10 + (text[i] - '0');
			continue;
		}
		if (pid > 1 && is_child(pid)) {
			(void)sys(kill, pid, SIGKILL); /* dead already: then it is reaped below */
			found++;
		}
		pid = 0;
	}
	return found;
}

static int kill_known(void)
{
	int found = 0;
	for (int i = 0; i < ISO_MAX_CHILDREN; i++) {
		if (!children[i].pid)
			continue;
		(void)sys(kill, children[i].pid, SIGKILL);
		found++;
	}
	return found;
}

/* Not pid 1: everything that descends from us comes to us when its parent dies, so killing our
 * children until there are none ends them all. */
void iso_kill_all(void)
{
	int alone = sys(getpid) == 1;
	for (;;) {
		struct rusage usage = {0};
		int status = 0;
		int found = 1;
		if (alone)
			(void)sys(kill, -1, SIGKILL); /* ESRCH: nobody left */
		else
			found = kill_listed() + kill_known();
		/* Orphans that no /proc here names can't be killed one by one: don't wait for them. */
		long pid = sys(wait4, -1, &status, found ? __WALL : __WALL | WNOHANG, &usage);
		if (pid == -ECHILD || pid == 0)
			return;
		if (pid < 0)
			give_up();
		if (pid > 0)
			(void)reaped((int32_t)pid, status, &usage);
	}
}

void iso_forward(int signo)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++)
		if (children[i].pid)
			(void)sys(kill, children[i].pid,
				  signo); /* ended meanwhile: nothing to do */
}
