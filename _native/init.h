/* SPDX-License-Identifier: Apache-2.0
 * isolate-init's own parts: messages (init_msg.c), children (init_reap.c), the loop (init.c). */
#ifndef ISO_INIT_H
#define ISO_INIT_H

#include "child.h"

struct rusage;

/* Where the parent's start plan puts things; isolate/supervise/start.py has the same numbers. */
#define ISO_CONTROL_FD 3
#define ISO_HOST_FD    4

#define ISO_MAX_FDS      253 /* SCM_MAX_FD of one message */
#define ISO_MAX_CHILDREN 1024

/* One request with its descriptors: status, blob, slots... */
struct iso_message {
	struct iso_request request;
	int32_t fds[ISO_MAX_FDS];
	uint32_t n_fds;
};

/* 1: a message; 0: the parent is gone; or -errno.  Descriptors are CLOEXEC. */
long iso_receive(int32_t fd, struct iso_message *message);

/* Send a record, with one descriptor if pass_fd >= 0.  A parent that is gone is no error here:
 * the loop sees it. */
void iso_report(int32_t fd, const struct iso_record *record, int32_t pass_fd);

void iso_close_fds(struct iso_message *message, uint32_t first);

/* Map a blob privately, and check it.  The address, or -errno. */
long iso_map_blob(int32_t fd, size_t *size);

/* Clone a process that is to run a message's plan: 0 in it, its pid, or -errno. */
long iso_start(const struct iso_message *message, struct iso_ctx *ctx, int32_t *pidfd);

/* 0, or -EAGAIN if there are too many.  serial: of a keeper; 0: the program itself. */
long iso_child_add(int32_t pid, int32_t status_fd, int last, uint32_t serial);
int iso_child_room(void);
int iso_child_known(int32_t pid);

/* End init, and with it its pid namespace. */
_Noreturn void iso_die(void);

/* Whether everybody else in the pid namespace is ours: as pid 1, or as its steward. */
int iso_owns_all(void);
/* Of pid 1, after STEWARD. */
void iso_be_steward(void);

/* Reap all that is dead, report each. */
void iso_reap(void);
/* The status socket of a child marked LAST that has ended, else -1. */
int32_t iso_last(void);

/* Kill and reap every process but this one; the frozen are thawed, to die. */
void iso_kill_all(void);

/* Keep an open freezer.state for that, and answer. */
void iso_guard(int32_t freezer_fd, int32_t reply_fd);

/* Kill the program of that serial with all that descends from it; told on reply_fd in the end. */
void iso_end_tree(uint32_t serial, int32_t program, int32_t reply_fd);
/* Whether trees are ending; then iso_tend has to be called, again and again. */
int iso_ending(void);
void iso_tend(void);

/* init_tree.c: stands between init and a program of a live box, which it clones. */
_Noreturn void iso_keeper(struct iso_ctx *ctx, const struct iso_message *m, uint32_t serial);

/* Find a /proc whose numbers are ours; without one nobody's descendants can be told apart. */
void iso_tree_open(void);
int32_t iso_tree_fd(void); /* -1: none yet */
void iso_tree_reopen(void);

/* Kill our children and their descendants, the keepers too. 0, or -errno. */
long iso_kill_children(void);

/* Kill and reap children that are nobody's, and what descends from them: 0 if there are none left,
 * 1 if there may be, or -errno. */
long iso_sweep(void);

/* Pass a signal on to every program that was started by request. */
void iso_forward(int signo);

void iso_fill_usage(struct iso_record *record, const struct rusage *usage);
void iso_total(struct iso_record *record);

#endif
