/* SPDX-License-Identifier: Apache-2.0
 * PARENT FILE.  The loop that answers refused calls, without the interpreter's lock: it counts what it
 * has seen before and tells Python of the first of a kind.  seccomp_unotify(2). */
#include "notify.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
#define ISO_SYNC_WAKE_UP 1ul /* SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, Linux 6.6 */

/* The kernel's structure may be longer than ours: room for what it adds. */
union received {
	struct seccomp_notif notif;
	char room[512];
};

/* FNV-1a; only to find a kind quickly, the kinds themselves are compared. */
static uint64_t hash_of(const void *data, size_t size)
{
	const uint8_t *bytes = data;
	uint64_t h = 0xcbf29ce484222325u;
	for (size_t i = 0; i < size; i++)
		h = (h ^ bytes[i]) * 0x100000001b3u;
	return h;
}

static const struct iso_sight *sight_of(const struct iso_notify *n, const struct iso_notice *at)
{
	static const struct iso_sight foreign; /* ISO_WAY_REPORT, and no look */
	if (at->arch != n->arch || at->nr < 0 || at->nr >= ISO_SIGHTS)
		return &foreign;
	return &n->sights[at->nr];
}

/* The strictest answer of the policy's filters; of equal ones the last installed. */
static uint32_t decide(const struct iso_notify *n, const struct seccomp_data *data)
{
	uint32_t best = SECCOMP_RET_ALLOW;
	for (uint32_t i = n->n_programs; i-- > 0;) {
		uint32_t r = iso_filter_run(n->programs[i].code, n->programs[i].length, data);
		if ((int32_t)(r & SECCOMP_RET_ACTION_FULL) <
		    (int32_t)(best & SECCOMP_RET_ACTION_FULL))
			best = r;
	}
	return best;
}

/* Strings and addresses among the arguments.  Others may change them meanwhile: they are for reports
 * and kinds, never to decide by.  If the caller is gone they may be anybody's, and are dropped. */
static void look(const struct iso_sight *sight, int32_t fd, struct iso_notice *at)
{
	for (int i = 0; i < 2; i++) {
		uint64_t size = ISO_SEEN_BYTES;
		if (sight->look[i] == ISO_LOOK_NOTHING)
			continue;
		if (sight->look[i] == ISO_LOOK_BYTES &&
		    (uint32_t)at->args[sight->len_arg[i]] < size)
			size = (uint32_t)at->args[sight->len_arg[i]];
		int got = iso_read_memory(at->pid, at->args[sight->arg[i]], at->data[i],
					  (uint32_t)size);
		if (got > 0 && sight->look[i] == ISO_LOOK_STRING)
			got = (int)strnlen((const char *)at->data[i], (size_t)got);
		at->len[i] = got > 0 ? (uint32_t)got : 0;
		memset(at->data[i] + at->len[i], 0, ISO_SEEN_BYTES - at->len[i]);
	}
	if ((at->len[0] || at->len[1]) && iso_is_waiting(fd, at->id) < 0) {
		memset(at->data, 0, sizeof at->data);
		at->len[0] = at->len[1] = 0;
	}
}

/* Count a notice in its listener's table: 1 if it is the first of its kind, 0, or -ENOMEM. */
static int count(struct iso_listener *to, const struct iso_sight *sight, struct iso_notice *at)
{
	struct iso_notice like = *at;
	like.id = like.ip = 0;
	like.pid = like.kind = 0;
	for (int i = 0; i < 6; i++)
		if (!(sight->scalars >> i & 1))
			like.args[i] = 0;
	uint64_t hash = hash_of(&like, sizeof like);

	to->total++;
	at->kind = ISO_SEEN_KINDS;
	if (!to->kinds && !(to->kinds = calloc(ISO_SEEN_KINDS, sizeof *to->kinds)))
		return -ENOMEM;
	for (uint32_t i = 0; i < to->n_kinds; i++) {
		struct iso_kind *kind = &to->kinds[i];
		if (kind->hash != hash || memcmp(&kind->like, &like, sizeof like) != 0)
			continue;
		kind->count++;
		at->kind = i;
		return 0;
	}
	if (to->n_kinds == ISO_SEEN_KINDS) {
		to->others++;
		return 0;
	}
	at->kind = to->n_kinds++;
	to->kinds[at->kind] = (struct iso_kind){.hash = hash, .count = 1, .like = like};
	return 1;
}

/* The errno of an action; what isn't one is EPERM. */
static int32_t errno_of(uint32_t action)
{
	return (action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO
		       ? (int32_t)(action & SECCOMP_RET_DATA)
		       : EPERM;
}

/* What to do with one call: ISO_TOLD_*, or 0 if it is answered.  With the lock held. */
static int judge(struct iso_notify *n, struct iso_listener *from, struct iso_notice *at)
{
	const struct iso_sight *sight = sight_of(n, at);
	uint32_t action = at->action & SECCOMP_RET_ACTION_FULL;
	int allowed = action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG ||
		      action == SECCOMP_RET_USER_NOTIF;
	int goes_on = allowed && sight->way == ISO_WAY_OBSERVE;
	/* ENOSYS says "this kernel is older": programs fall back, and nobody is refused. */
	int quiet = sight->way == ISO_WAY_SILENT || at->action == (SECCOMP_RET_ERRNO | ENOSYS);
	int first = 0;

	at->kind = ISO_SEEN_KINDS;
	if (!quiet)
		look(sight, from->fd, at);
	if (action == SECCOMP_RET_USER_NOTIF && sight->way == ISO_WAY_HANDLER)
		return ISO_TOLD_HANDLER;
	if (!quiet)
		first = count(from, sight, at);
	if (action == SECCOMP_RET_KILL_PROCESS || (n->lethal && !goes_on && !quiet))
		return ISO_TOLD_KILL;
	if (first == 1)
		return ISO_TOLD_NEW;
	(void)iso_send_answer(from->fd, at->id, 0, goes_on ? 0 : errno_of(at->action), goes_on);
	return 0; /* -ENOENT: the caller has died, there is nobody to answer */
}

static int serve(struct iso_notify *n, struct iso_listener *from, struct iso_notice *out)
{
	union received got;

	memset(&got, 0, sizeof got);
	if (ioctl(from->fd, SECCOMP_IOCTL_NOTIF_RECV, &got) < 0)
		return errno == ENOENT || errno == EINTR ? 0 : -errno;
	memset(out, 0, sizeof *out);
	out->id = got.notif.id;
	out->ip = got.notif.data.instruction_pointer;
	memcpy(out->args, got.notif.data.args, sizeof out->args);
	out->tag = from->tag;
	out->pid = got.notif.pid;
	out->nr = got.notif.data.nr;
	out->arch = got.notif.data.arch;
	out->action = decide(n, &got.notif.data);
	return judge(n, from, out);
}

/* The listener comes on its socket, once.  0, or -errno if none will come. */
static int take(struct iso_listener *from)
{
	char byte, control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {&byte, 1};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof control};
	ssize_t n = recvmsg(from->fd, &hdr, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&hdr) : NULL;
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return -EPIPE;
	(void)close(from->fd);
	memcpy(&from->fd, CMSG_DATA(c), sizeof from->fd);
	from->is_socket = 0;
	/* Only faster: both sides take turns on one processor. */
	(void)ioctl(from->fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, ISO_SYNC_WAKE_UP);
	return 0;
}

/* Most programs are refused nothing: those go without a word. */
static int gone(struct iso_notify *n, struct iso_listener *from, struct iso_notice *out)
{
	if (from->total == 0) {
		iso_drop(n, from);
		return 0;
	}
	(void)close(from->fd);
	from->fd = -1;
	memset(out, 0, sizeof *out);
	out->tag = from->tag;
	return ISO_TOLD_GONE;
}

/* One listener with news.  With the lock held. */
static int attend(struct iso_notify *n, struct iso_listener *from, short events,
		  struct iso_notice *out)
{
	if (from->is_socket)
		return take(from) < 0 ? gone(n, from, out) : 0;
	if (events & POLLIN) {
		int r = serve(n, from, out);
		return r < 0 ? gone(n, from, out) : r;
	}
	return gone(n, from, out); /* POLLHUP: nobody is left under this filter */
}

/* The listeners as poll(2) takes them, the wake fd first.  NULL without memory. */
static struct pollfd *watched(struct iso_notify *n, uint32_t *count_out)
{
	struct pollfd *fds = malloc((n->n_listeners + 1) * sizeof *fds);
	if (!fds)
		return NULL;
	fds[0] = (struct pollfd){.fd = n->wake_fd, .events = POLLIN};
	for (uint32_t i = 0; i < n->n_listeners; i++)
		fds[i + 1] = (struct pollfd){.fd = n->listeners[i].fd, .events = POLLIN};
	*count_out = n->n_listeners;
	return fds;
}

/* Serve those that are ready, in turn, until one has something to tell. */
static int attend_all(struct iso_notify *n, const struct pollfd *fds, uint32_t n_fds,
		      struct iso_notice *out)
{
	int told = 0;
	for (uint32_t k = 0; k < n_fds && told == 0; k++) {
		uint32_t i = (n->turn + k) % n_fds;
		/* forget() may have moved another into this place: then its fd differs. */
		if (!fds[i + 1].revents || i >= n->n_listeners || fds[i + 1].fd < 0 ||
		    n->listeners[i].fd != fds[i + 1].fd)
			continue;
		told = attend(n, &n->listeners[i], fds[i + 1].revents, out);
		if (told != 0)
			n->turn = i + 1;
	}
	return told;
}

static int64_t now_ms(void)
{
	struct timespec t;
	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* can't fail for this clock */
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int iso_notify_next(struct iso_notify *n, int32_t timeout_ms, struct iso_notice *out)
{
	int64_t until = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;

	for (;;) {
		uint32_t n_fds = 0;
		uint64_t wakes;
		pthread_mutex_lock(&n->lock);
		struct pollfd *fds = watched(n, &n_fds);
		pthread_mutex_unlock(&n->lock);
		if (!fds)
			return -ENOMEM;
		int64_t left = timeout_ms < 0 ? -1 : until - now_ms();
		left = timeout_ms >= 0 && left < 0 ? 0 : left;
		int ready = poll(fds, n_fds + 1, (int)left);
		int told = ready < 0 && errno != EINTR ? -errno : ready == 0 ? ISO_TOLD_WOKEN : 0;
		if (ready > 0 && fds[0].revents) {
			ssize_t got = read(n->wake_fd, &wakes, sizeof wakes);
			told = got == sizeof wakes || errno == EAGAIN ? 0 : -errno;
		}
		if (ready > 0 && told == 0) {
			pthread_mutex_lock(&n->lock);
			told = n->woken ? ISO_TOLD_WOKEN : attend_all(n, fds, n_fds, out);
			n->woken = 0;
			pthread_mutex_unlock(&n->lock);
		}
		free(fds);
		if (told == 0 && timeout_ms >= 0 && now_ms() >= until)
			told = ISO_TOLD_WOKEN; /* also while others keep us busy */
		if (told != 0)
			return told;
	}
}
