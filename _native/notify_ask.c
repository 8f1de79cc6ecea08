/* SPDX-License-Identifier: Apache-2.0
 * PARENT FILE.  The supervisor's life, and what Python asks of it: see isolate.cdef.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

struct iso_listener *iso_listener_of(struct iso_notify *n, uint32_t tag)
{
	for (uint32_t i = 0; i < n->n_listeners; i++)
		if (n->listeners[i].tag == tag)
			return &n->listeners[i];
	return NULL;
}

struct iso_notify *iso_notify_open(const void *const *programs, const uint32_t *lengths, uint32_t n,
				   const struct iso_sight *sights, uint32_t arch, int32_t lethal)
{
	struct iso_notify *made = calloc(1, sizeof *made);
	if (!made)
		return NULL;
	pthread_mutex_init(&made->lock, NULL);
	made->arch = arch;
	made->lethal = lethal;
	memcpy(made->sights, sights, sizeof made->sights);
	made->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	made->programs = calloc(n ? n : 1, sizeof *made->programs);
	if (made->wake_fd < 0 || !made->programs)
		goto failed;
	for (; made->n_programs < n; made->n_programs++) {
		struct iso_program *to = &made->programs[made->n_programs];
		to->length = lengths[made->n_programs];
		to->code = malloc(to->length ? to->length : 1);
		if (!to->code)
			goto failed;
		memcpy(to->code, programs[made->n_programs], to->length);
	}
	return made;
failed:;
	int error = errno;
	iso_notify_close(made);
	errno = error;
	return NULL;
}

static void shut(struct iso_notify *n)
{
	for (uint32_t i = 0; i < n->n_listeners; i++) {
		if (n->listeners[i].fd >= 0)
			(void)close(n->listeners[i].fd);
		free(n->listeners[i].kinds);
	}
	n->n_listeners = 0;
	if (n->wake_fd >= 0)
		(void)close(n->wake_fd);
	n->wake_fd = -1;
}

void iso_notify_shut(struct iso_notify *n)
{
	pthread_mutex_lock(&n->lock);
	shut(n);
	pthread_mutex_unlock(&n->lock);
}

/* Nobody else is left; and in a fork of the caller the lock may be held by a thread that isn't there. */
void iso_notify_close(struct iso_notify *n)
{
	shut(n);
	for (uint32_t i = 0; i < n->n_programs; i++)
		free(n->programs[i].code);
	free(n->listeners);
	free(n->programs);
	free(n);
}

/* Have the loop look at its list again. */
static int nudge(struct iso_notify *n)
{
	uint64_t one = 1;
	return write(n->wake_fd, &one, sizeof one) == sizeof one ? 0 : -errno;
}

int iso_notify_wake(struct iso_notify *n)
{
	pthread_mutex_lock(&n->lock);
	n->woken = 1;
	pthread_mutex_unlock(&n->lock);
	return nudge(n);
}

int iso_notify_add(struct iso_notify *n, int32_t sock, uint32_t tag)
{
	pthread_mutex_lock(&n->lock);
	if (n->wake_fd < 0) {
		pthread_mutex_unlock(&n->lock);
		return -ESHUTDOWN;
	}
	if (n->n_listeners == n->room) {
		uint32_t room = n->room ? 2 * n->room : 4;
		void *more = realloc(n->listeners, room * sizeof *n->listeners);
		if (!more) {
			pthread_mutex_unlock(&n->lock);
			return -ENOMEM;
		}
		n->listeners = more;
		n->room = room;
	}
	n->listeners[n->n_listeners] = (struct iso_listener){
		.fd = sock, .is_socket = 1, .tag = tag};
	int r = nudge(n);
	if (r == 0) /* else nobody would look at it: it stays the caller's */
		n->n_listeners++;
	pthread_mutex_unlock(&n->lock);
	return r;
}

int iso_notify_counts(struct iso_notify *n, uint32_t tag, uint64_t *counts)
{
	int kinds = -ENOENT;
	pthread_mutex_lock(&n->lock);
	struct iso_listener *of = iso_listener_of(n, tag);
	if (of) {
		kinds = (int)of->n_kinds;
		for (int i = 0; i < kinds; i++)
			counts[i] = of->kinds[i].count;
		counts[kinds] = of->others;
		counts[kinds + 1] = of->total;
	}
	pthread_mutex_unlock(&n->lock);
	return kinds;
}

void iso_drop(struct iso_notify *n, struct iso_listener *of)
{
	if (of->fd >= 0)
		(void)close(of->fd);
	free(of->kinds);
	*of = n->listeners[--n->n_listeners];
}

void iso_notify_forget(struct iso_notify *n, uint32_t tag)
{
	pthread_mutex_lock(&n->lock);
	struct iso_listener *of = iso_listener_of(n, tag);
	if (of)
		iso_drop(n, of);
	pthread_mutex_unlock(&n->lock);
}

int iso_send_answer(int32_t fd, uint64_t id, int64_t value, int32_t error, int32_t goes_on)
{
	union { /* the kernel's structure may be longer than ours */
		struct seccomp_notif_resp resp;
		char room[256];
	} answer = {.resp = {.id = id,
			     .val = goes_on ? 0 : value,
			     .error = goes_on ? 0 : -error,
			     .flags = goes_on ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0}};
	return ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &answer) < 0 ? -errno : 0;
}

int iso_is_waiting(int32_t fd, uint64_t id)
{
	return ioctl(fd, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) < 0 ? -errno : 0;
}

/* Two pieces, since a piece that crosses into a missing page is not read at all. */
int iso_read_memory(uint32_t pid, uint64_t at, void *to, uint32_t size)
{
	uint32_t head = 4096 - (uint32_t)(at % 4096);
	if (head > size)
		head = size;
	struct iovec ours = {to, size};
	struct iovec theirs[2] = {{(void *)(uintptr_t)at, head},
				  {(void *)(uintptr_t)(at + head), size - head}};
	ssize_t n = process_vm_readv((pid_t)pid, &ours, 1, theirs, size > head ? 2 : 1, 0);
	return n < 0 ? -errno : (int)n;
}

/* The listener's fd for a call from another thread than the loop's.  The lock is held on return. */
static int32_t locked(struct iso_notify *n, uint32_t tag)
{
	pthread_mutex_lock(&n->lock);
	struct iso_listener *of = iso_listener_of(n, tag);
	return of && !of->is_socket ? of->fd : -1;
}

int iso_notify_answer(struct iso_notify *n, uint32_t tag, uint64_t id, int64_t value, int32_t error,
		      int32_t goes_on)
{
	int32_t fd = locked(n, tag);
	int r = fd < 0 ? -ENOENT : iso_send_answer(fd, id, value, error, goes_on);
	pthread_mutex_unlock(&n->lock);
	return r;
}

int iso_notify_valid(struct iso_notify *n, uint32_t tag, uint64_t id)
{
	int32_t fd = locked(n, tag);
	int r = fd < 0 ? -ENOENT : iso_is_waiting(fd, id);
	pthread_mutex_unlock(&n->lock);
	return r;
}

/* A listener in a program's hands would let it answer its own calls.  Nobody means that; but a handler
 * may give a number that it has closed, and that has become one of ours.  0 or -errno. */
static int is_harmless(int32_t fd)
{
	char path[32], name[64] = "";
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* 32 is enough for any int */
	ssize_t n = readlink(path, name, sizeof name - 1);
	if (n < 0)
		return -errno;
	return strstr(name, "seccomp") && name[0] != '/' ? -EPERM : 0;
}

/* Give a copy of fd by a listener: the number inside, or -errno. */
static int hand_over(int32_t listener, uint64_t id, int32_t fd, int32_t at, uint32_t fd_flags)
{
	struct seccomp_notif_addfd give = {
		.id = id,
		.flags = SECCOMP_ADDFD_FLAG_SEND | (at >= 0 ? SECCOMP_ADDFD_FLAG_SETFD : 0),
		.srcfd = (uint32_t)fd,
		.newfd = at >= 0 ? (uint32_t)at : 0,
		.newfd_flags = fd_flags,
	};
	int r = ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &give);
	r = r < 0 ? -errno : r;
	if (r == -EINVAL) { /* before Linux 5.14: in two steps */
		give.flags &= ~(uint32_t)SECCOMP_ADDFD_FLAG_SEND;
		r = ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &give);
		r = r < 0 ? -errno : r;
		int sent = r < 0 ? r : iso_send_answer(listener, id, r, 0, 0);
		r = sent < 0 ? sent : r;
	}
	return r;
}

int iso_notify_give_fd(struct iso_notify *n, uint32_t tag, uint64_t id, int32_t fd, int32_t at,
		       uint32_t fd_flags)
{
	/* First a copy of what is given, so that no copy of ours takes the number of a closed one. */
	int32_t given = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (given < 0)
		return -errno;
	/* A copy: the call waits for the other side, and the loop must not wait for us. */
	int32_t fd_of = locked(n, tag);
	int32_t listener = fd_of < 0 ? -1 : fcntl(fd_of, F_DUPFD_CLOEXEC, 3);
	int r = fd_of < 0 ? -ENOENT : listener < 0 ? -errno : is_harmless(given);
	pthread_mutex_unlock(&n->lock);
	if (r == 0)
		r = hand_over(listener, id, given, at, fd_flags);
	if (listener >= 0)
		(void)close(listener);
	(void)close(given);
	return r;
}

int iso_notify_peek(struct iso_notify *n, uint32_t tag, uint64_t id, uint32_t pid, uint64_t at,
		    void *to, uint32_t size)
{
	int got = iso_read_memory(pid, at, to, size);
	int waiting = iso_notify_valid(n, tag, id);
	return waiting < 0 ? waiting : got;
}
