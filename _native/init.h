/* SPDX-License-Identifier: Apache-2.0
 * isolate-init's own parts: messages (init_msg.c), children (init_reap.c), the loop (init.c). */
#ifndef ISO_INIT_H
#define ISO_INIT_H

#include "child.h"

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

/* 0, or -EAGAIN if there are too many. */
long iso_child_add(int32_t pid, int32_t status_fd, int last);
int iso_child_room(void);

/* Reap all that is dead, report each; 1 if a child marked LAST was among them. */
/* End init, and with it its pid namespace. */
_Noreturn void iso_die(void);
int iso_reap(void);

/* Kill and reap every process but this one. */
void iso_kill_all(void);

/* Pass a signal on to every program that was started by request. */
void iso_forward(int signo);

void iso_children_open(void);
void iso_total(struct iso_record *record);

#endif
