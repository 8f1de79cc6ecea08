/* SPDX-License-Identifier: Apache-2.0
 * The floor's caller: id maps, cgroup leaves, the template and the stock. */
#define _GNU_SOURCE
#include "floor_runner.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	size_t n = strlen(text);
	if (fd < 0 || write(fd, text, n) != (ssize_t)n)
		floor_fail(path);
	close(fd);
}

void floor_maps(const struct floor_arena *a, int pid)
{
	char path[64];
	if (!(a->clone_flags & CLONE_NEWUSER))
		return;
	snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
	put(path, a->uid_map);
	snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
	put(path, a->gid_map);
}

/* Directories of the join steps: a leaf each, with the one limit that the job gives. */
void floor_cgroup_make(struct floor_arena *a, struct floor_options *o)
{
	char path[512];
	o->groups = 0;
	for (uint32_t i = 0; i < a->n_steps; i++) {
		struct floor_step *s = &a->steps[i];
		if (s->code != FL_join || s->off || o->groups == FLOOR_MAX_GROUPS)
			continue;
		char *leaf = o->group[o->groups++];
		snprintf(leaf, sizeof o->group[0], "%s", s->s[0]);
		if (mkdir(leaf, 0755) < 0)
			floor_fail(leaf);
		if (s->len[1]) {
			snprintf(path, sizeof path, "%s/%s", leaf, s->s[1]);
			put(path, s->s[2]);
		}
		snprintf(path, sizeof path, "%s/tasks", leaf);
		s->fd = open(path, O_WRONLY);
		if (s->fd < 0)
			floor_fail(path);
	}
}

void floor_cgroup_remove(struct floor_arena *a, struct floor_options *o)
{
	static const char *const told[] = {"pids.peak", "pids.events", "cpuacct.usage",
					   "memory.max_usage_in_bytes", "memory.oom_control"};
	char path[512], data[256];
	for (uint32_t i = 0; i < a->n_steps; i++)
		if (a->steps[i].code == FL_join && !a->steps[i].off)
			close(a->steps[i].fd);
	for (int i = 0; i < o->groups; i++) {
		const char *kind = strstr(o->group[i], "/pids/")      ? "pids"
				   : strstr(o->group[i], "/cpuacct/") ? "cpua"
				   : strstr(o->group[i], "/memory/")  ? "memo"
								      : "none";
		for (unsigned k = 0; k < sizeof told / sizeof *told; k++) {
			if (strncmp(told[k], kind, 4))
				continue;
			snprintf(path, sizeof path, "%s/%s", o->group[i], told[k]);
			int fd = open(path, O_RDONLY | O_CLOEXEC);
			if (fd < 0 || read(fd, data, sizeof data) <= 0)
				floor_fail(path);
			close(fd);
		}
		if (rmdir(o->group[i]) < 0)
			floor_fail(o->group[i]);
	}
}

static int open_ns(const char *kind)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/ns/%s", kind);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		floor_fail(path);
	return fd;
}

/* What no launch changes is mounted once, in a namespace that is held by its descriptor.  It keeps the
 * host's /proc below its own, since only who sees a whole /proc may mount a new one. */
void floor_template(struct floor_arena *a, struct floor_options *o)
{
	o->host_mnt = open_ns("mnt");
	if (unshare(CLONE_NEWNS) < 0)
		floor_fail("unshare");
	o->template_mnt = open_ns("mnt");
	long r = floor_run(a, FLOOR_BOX, 0);
	if (r < 0) {
		errno = (int)-r;
		fprintf(stderr, "floor: template: step %d\n", a->error_step);
		floor_fail("template");
	}
	if (setns(o->host_mnt, CLONE_NEWNS) < 0)
		floor_fail("setns");
}

void floor_stock(struct floor_options *o, uint32_t count)
{
	o->host_net = open_ns("net"), o->host_ipc = open_ns("ipc");
	o->stocked = 0;
	for (uint32_t i = 0; i < count; i++) {
		if (unshare(CLONE_NEWNET | CLONE_NEWIPC) < 0 || do_loopback(NULL, NULL) < 0)
			floor_fail("stock");
		o->net[i] = open_ns("net"), o->ipc[i] = open_ns("ipc");
	}
	if (setns(o->host_net, CLONE_NEWNET) < 0 || setns(o->host_ipc, CLONE_NEWIPC) < 0)
		floor_fail("setns");
}

void floor_enter(struct floor_options *o)
{
	if (o->template_mnt >= 0 && setns(o->template_mnt, CLONE_NEWNS) < 0)
		floor_fail("setns template");
	if (!o->ready)
		return;
	uint32_t i = o->stocked++;
	if (setns(o->net[i], CLONE_NEWNET) < 0 || setns(o->ipc[i], CLONE_NEWIPC) < 0)
		floor_fail("setns stock");
	close(o->net[i]), close(o->ipc[i]);
}

void floor_leave(struct floor_options *o)
{
	if (o->template_mnt >= 0 && setns(o->host_mnt, CLONE_NEWNS) < 0)
		floor_fail("setns back");
	if (o->ready &&
	    (setns(o->host_net, CLONE_NEWNET) < 0 || setns(o->host_ipc, CLONE_NEWIPC) < 0))
		floor_fail("setns back");
}
