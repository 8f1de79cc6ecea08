/* SPDX-License-Identifier: Apache-2.0
 * isolate-init: who was started, who ended, and the end of everybody. */
#include "init.h"

#include <linux/resource.h>
#include <linux/wait.h>
#include <asm/signal.h>

#define GONE (-1) /* reaped, but what descends from it has still to end */

static struct child {
	int32_t pid; /* 0: free, or GONE */
	int32_t status_fd;
	int32_t reply_fd; /* who asked for the end of its tree, -1: nobody */
	int32_t program;  /* of a keeper whose tree is to end, as far as it is known */
	uint32_t serial;  /* of a keeper, else 0 */
	int last;
	struct iso_record record; /* a tree that is to end: how its program ended */
} children[ISO_MAX_CHILDREN];

static int ending;                  /* entries whose tree is to end */
static int32_t freezer_fd = -1;     /* v1's freezer.state of the box, once it was frozen */
static int32_t last_status_fd = -1; /* of a child marked LAST that has ended */

static int steward; /* of pid 1 */

int iso_owns_all(void)
{
	return steward || sys(getpid) == 1;
}

void iso_be_steward(void)
{
	steward = 1;
}

int iso_child_room(void)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++)
		if (children[i].pid == 0)
			return 1;
	return 0;
}

long iso_child_add(int32_t pid, int32_t status_fd, int last, uint32_t serial)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++) {
		if (children[i].pid)
			continue;
		children[i] = (struct child){.pid = pid,
					     .status_fd = status_fd,
					     .reply_fd = -1,
					     .serial = serial,
					     .last = last};
		return 0;
	}
	return -EAGAIN;
}

int iso_child_known(int32_t pid)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++)
		if (children[i].pid == pid)
			return 1;
	return 0;
}

static uint64_t micros(const struct __kernel_old_timeval *t)
{
	return (uint64_t)t->tv_sec * 1000000u + (uint64_t)t->tv_usec;
}

void iso_fill_usage(struct iso_record *record, const struct rusage *usage)
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
	iso_fill_usage(record, &usage);
}

/* A tree that is to end: its program's record, until we know better. */
static void doom(struct child *child)
{
	if (child->record.type)
		return;
	child->record = (struct iso_record){
		.type = ISO_REC_EXITED, .pid = child->program, .status = SIGKILL};
	ending++;
}

static void release(struct child *child)
{
	child->pid = 0;
	if (child->last)
		last_status_fd = child->status_fd; /* stays open for ENDED */
	else
		(void)sys(close, child->status_fd);
}

static void report_end(struct child *child, int status, const struct rusage *usage)
{
	struct iso_record record = {.type = ISO_REC_EXITED, .pid = child->pid, .status = status};
	iso_fill_usage(&record, usage);
	iso_report(child->status_fd, &record, -1);
}

/* One dead child: what it was to us.  A keeper that was killed, by us or from inside, leaves its
 * tree to us; one that ended has told of its program, and has no tree. */
static void reaped(int32_t pid, int status, const struct rusage *usage)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++) {
		struct child *child = &children[i];
		if (child->pid && child->program == pid) { /* its keeper was killed first */
			child->record.status = status;
			iso_fill_usage(&child->record, usage);
			return;
		}
		if (child->pid != pid)
			continue;
		if (child->serial && (status || child->record.type)) {
			doom(child);
			child->pid = GONE;
			return;
		}
		if (!child->serial)
			report_end(child, status, usage);
		release(child);
		return;
	} /* none of these: an orphan */
}

void iso_reap(void)
{
	for (;;) {
		struct rusage usage = {0};
		int status = 0;
		long pid = sys(wait4, -1, &status, WNOHANG | __WALL, &usage);
		if (pid < 0 && pid != -ECHILD)
			iso_die(); /* nobody's end could be told any more */
		if (pid <= 0)
			return;
		reaped((int32_t)pid, status, &usage);
	}
}

int32_t iso_last(void)
{
	return last_status_fd;
}

/* The kernel doesn't let us reap: end, and with us the pid namespace and all that is in it. */
static _Noreturn void give_up(void)
{
	for (;;)
		(void)sys(exit_group, 1);
}

/* How many there were. */
static int kill_known(void)
{
	int found = 0;
	for (int i = 0; i < ISO_MAX_CHILDREN; i++) {
		if (children[i].pid <= 0)
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
	int alone = iso_owns_all();
	for (;;) {
		struct rusage usage = {0};
		int status = 0, named = 1;
		if (!alone && iso_kill_children() < 0)
			named = kill_known();
		/* ESRCH: nobody left.  EACCES: an AppArmor profile takes no signal from us, but our own
		 * end, and the namespace's with it, goes by nobody's leave. */
		if (alone && sys(kill, -1, SIGKILL) == -EACCES)
			give_up();
		if (freezer_fd >= 0) /* fails only where the directory is gone, and so is the ice */
			(void)sys(write, freezer_fd, "THAWED", 6);
		/* Orphans that no /proc here names can't be killed: don't wait for them. */
		long pid = sys(wait4, -1, &status, named ? __WALL : __WALL | WNOHANG, &usage);
		if (pid == -ECHILD || pid == 0)
			return;
		if (pid < 0)
			give_up();
		if (pid > 0)
			reaped((int32_t)pid, status, &usage);
	}
}

void iso_forward(int signo)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++)
		if (children[i].pid > 0)
			(void)sys(kill, children[i].pid,
				  signo); /* ended meanwhile: nothing to do */
}

static void answer(int32_t fd)
{
	struct iso_record record = {.type = ISO_REC_ENDED, .at_ns = iso_now()};
	if (fd < 0)
		return;
	iso_report(fd, &record, -1);
	(void)sys(close, fd);
}

void iso_guard(int32_t fd, int32_t reply_fd)
{
	if (freezer_fd >= 0)
		(void)sys(close, freezer_fd);
	freezer_fd = fd;
	answer(reply_fd);
}

void iso_end_tree(uint32_t serial, int32_t program, int32_t reply_fd)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++) {
		struct child *child = &children[i];
		if (!child->pid || !serial || child->serial != serial)
			continue;
		if (child->reply_fd >= 0)
			(void)sys(close, child->reply_fd); /* asked again: the last one is told */
		child->reply_fd = reply_fd;
		if (child->pid == GONE)
			return;
		child->program = program;
		doom(child);
		(void)sys(kill, child->pid, SIGKILL); /* dead already: then it is reaped */
		return;
	}
	answer(reply_fd); /* nothing of it is left */
}

int iso_ending(void)
{
	return ending > 0;
}

/* Whether every keeper that was killed is dead: only then is its tree among our children. */
static int all_gone(void)
{
	for (int i = 0; i < ISO_MAX_CHILDREN; i++)
		if (children[i].pid > 0 && children[i].record.type)
			return 0;
	return 1;
}

void iso_tend(void)
{
	iso_reap();
	if (!all_gone())
		return;
	iso_tree_open();
	long r = iso_sweep();
	if (r == 1)
		return; /* go on after a look at requests */
	if (r < 0)
		iso_kill_all(); /* no /proc to tell them apart, or no leave to kill: then all */
	for (int i = 0; i < ISO_MAX_CHILDREN; i++) {
		struct child *child = &children[i];
		if (child->pid != GONE)
			continue;
		iso_report(child->status_fd, &child->record, -1);
		answer(child->reply_fd);
		release(child);
		ending--;
	}
}
