/* SPDX-License-Identifier: Apache-2.0
 * What notify.c and notify_ask.c share: the supervisor's state. */
#ifndef ISO_NOTIFY_H
#define ISO_NOTIFY_H

#include <pthread.h>

#include "plan.h"

struct iso_kind {
	uint64_t hash;
	uint64_t count;
	struct iso_notice like; /* with what tells no kinds apart set to 0 */
};

struct iso_listener {
	int32_t fd; /* the socket, then the listener, -1 once it is gone */
	int32_t is_socket;
	uint32_t tag;
	uint32_t n_kinds;
	uint64_t others;
	uint64_t total;
	struct iso_kind *kinds; /* ISO_SEEN_KINDS, made when the first is seen */
};

struct iso_program {
	void *code;
	uint32_t length;
};

struct iso_notify {
	pthread_mutex_t lock; /* of all that follows it */
	int32_t wake_fd;
	int32_t woken; /* by wake; add only has the loop look again */
	uint32_t arch;
	int32_t lethal;
	uint32_t n_programs;
	struct iso_program *programs;
	struct iso_sight sights[ISO_SIGHTS];
	struct iso_listener *listeners;
	uint32_t n_listeners;
	uint32_t room;
	uint32_t turn; /* who is served first next time */
};

/* The listener of a tag, or NULL; with the lock held. */
struct iso_listener *iso_listener_of(struct iso_notify *n, uint32_t tag);

/* Forget one, and close it; with the lock held. */
void iso_drop(struct iso_notify *n, struct iso_listener *of);

/* 0 or -errno; -ENOENT if the caller is gone. */
int iso_send_answer(int32_t fd, uint64_t id, int64_t value, int32_t error, int32_t goes_on);

/* Memory of a process up to the first page that isn't there.  Bytes, or -errno. */
int iso_read_memory(uint32_t pid, uint64_t at, void *to, uint32_t size);
int iso_is_waiting(int32_t fd, uint64_t id);

#endif
