/* SPDX-License-Identifier: Apache-2.0
 * The floor's runner: what the caller's side of a launch does, and how the job gets into the arena. */
#ifndef FLOOR_RUNNER_H
#define FLOOR_RUNNER_H

#include "floor.h"

#define FLOOR_MAX_GROUPS 8

struct floor_options {
	int init_fd, direct, ready, live, spawn;
	int host_mnt, template_mnt; /* mount namespaces, where a template is used */
	int host_net, host_ipc;     /* where we go back to */
	int net[FLOOR_MAX_RUNS], ipc[FLOOR_MAX_RUNS]; /* the stock */
	uint32_t stocked;
	char group[FLOOR_MAX_GROUPS][256]; /* the leaf in each controller */
	int groups;
};

_Noreturn void floor_fail(const char *what);

/* Map the arena, and fill it from the file that bench/job.py wrote. */
struct floor_arena *floor_load(const char *path);

void floor_option(struct floor_arena *a, struct floor_options *o, const char *text,
		  const char *const phases[]);

/* Make the template's mount namespace; make a stock of net and ipc namespaces. */
void floor_template(struct floor_arena *a, struct floor_options *o);
void floor_stock(struct floor_options *o, uint32_t count);

/* Before and after the clone: into the template and the next namespaces of the stock, and back. */
void floor_enter(struct floor_options *o);
void floor_leave(struct floor_options *o);

void floor_maps(const struct floor_arena *a, int pid);
void floor_cgroup_make(struct floor_arena *a, struct floor_options *o);
void floor_cgroup_remove(struct floor_arena *a, struct floor_options *o);

#endif
