/* SPDX-License-Identifier: Apache-2.0
 * PARENT FILE.  Requests to isolate-init, and its answers: one call of Python's for what would be
 * a dozen.  Whatever fails closes what it has opened. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* A memfd that holds a plan, or -errno. */
static int blob_fd(const void *blob, size_t size)
{
	const char *from = blob;
	int fd = memfd_create("isolate-plan", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (size > 0) {
		ssize_t n = write(fd, from, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int error = n < 0 ? errno : ENOSPC;
			(void)close(fd);
			return -error;
		}
		from += n;
		size -= (size_t)n;
	}
	return fd;
}

/* One message with its descriptors; 0 or -errno. */
static int send_request(int control, struct iso_request *head, const int32_t *fds)
{
	char control_data[CMSG_SPACE(sizeof(int32_t) * ISO_MAX_SLOTS)]
		__attribute__((aligned(8))) = {0};
	struct iovec iov = {head, sizeof *head};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control_data,
			     .msg_controllen = CMSG_SPACE(sizeof *fds * head->n_fds)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&hdr);
	ssize_t n;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof *fds * head->n_fds);
	memcpy(CMSG_DATA(c), fds, sizeof *fds * head->n_fds);
	do
		n = sendmsg(control, &hdr, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n == sizeof *head ? 0 : -EIO;
}

int iso_ask(int32_t control, const struct iso_request *request, const void *blob, size_t size,
	    const int32_t *fds, uint32_t n_fds)
{
	struct iso_request head = *request;
	int32_t all[ISO_MAX_SLOTS];
	int pair[2], plan = -1, r = 0;

	if (n_fds + 2 > ISO_MAX_SLOTS)
		return -E2BIG;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	if (blob)
		r = plan = blob_fd(blob, size);
	if (r >= 0) {
		head.n_fds = 0;
		all[head.n_fds++] = pair[1];
		if (blob)
			all[head.n_fds++] = plan;
		for (uint32_t i = 0; i < n_fds; i++)
			all[head.n_fds++] = fds[i];
		r = send_request(control, &head, all);
	}
	if (plan >= 0)
		(void)close(plan);
	(void)close(pair[1]);
	if (r == 0)
		return pair[0];
	(void)close(pair[0]);
	return r;
}

/* The one descriptor of a message; more than one is nothing that init sends: they are closed. */
static int taken_fd(struct msghdr *hdr)
{
	int found = -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(hdr); c; c = CMSG_NXTHDR(hdr, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (found < 0)
				found = fd;
			else
				(void)close(fd);
		}
	}
	return found;
}

/* Wait for events of one descriptor: 0, -ETIMEDOUT, or -errno (EINTR: the caller looks at its
 * signals, and comes again). */
static int wait_for(int fd, short events, int timeout_ms)
{
	struct pollfd watched = {.fd = fd, .events = events};
	int n = poll(&watched, 1, timeout_ms);
	return n > 0 ? 0 : n == 0 ? -ETIMEDOUT : -errno;
}

int iso_answer(int32_t status_fd, int32_t timeout_ms, struct iso_record *out, int32_t *passed_fd)
{
	char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {out, sizeof *out};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof control};

	*passed_fd = -1;
	int r = wait_for(status_fd, POLLIN, timeout_ms);
	if (r < 0)
		return r;
	ssize_t n = recvmsg(status_fd, &hdr, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	int fd = taken_fd(&hdr);
	if (n == sizeof *out && !(hdr.msg_flags & MSG_TRUNC)) {
		*passed_fd = fd;
		return 1;
	}
	if (fd >= 0)
		(void)close(fd);
	return 0; /* the end, or no record: init is not there any more */
}

int iso_told(int32_t record_fd, int32_t timeout_ms, struct iso_fail *out, uint32_t most)
{
	uint32_t room = most * (uint32_t)sizeof *out, got = 0;
	int r = wait_for(record_fd, 0, timeout_ms); /* the end is always told */
	if (r < 0)
		return r;
	while (got < room) {
		ssize_t n = read(record_fd, (char *)out + got, room - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (uint32_t)n;
	}
	return (int)(got / sizeof *out);
}
