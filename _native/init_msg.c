/* SPDX-License-Identifier: Apache-2.0
 * isolate-init: requests in, records out, over SEQPACKET sockets; blobs by memfd. */
#include "init.h"
#include "msg.h"

#include <linux/mman.h>
#include <linux/stat.h>
#include <linux/fcntl.h>

static void take_fds(struct iso_message *m, const struct msghdr_k *hdr, const char *control)
{
	const struct cmsghdr_k *c = (const struct cmsghdr_k *)control;
	if (hdr->controllen < sizeof *c || c->level != ISO_SOL_SOCKET || c->type != ISO_SCM_RIGHTS)
		return;
	const int32_t *fds = (const int32_t *)(c + 1);
	uint32_t n = (uint32_t)((c->len - sizeof *c) / sizeof *fds);
	for (uint32_t i = 0; i < n && i < ISO_MAX_FDS; i++)
		m->fds[m->n_fds++] = fds[i];
}

long iso_receive(int32_t fd, struct iso_message *m)
{
	char control[sizeof(struct cmsghdr_k) + sizeof m->fds] __attribute__((aligned(8)));
	struct iovec_k iov = {&m->request, sizeof m->request};
	struct msghdr_k hdr = {
		.iov = &iov, .iovlen = 1, .control = control, .controllen = sizeof control};
	long n = sys(recvmsg, fd, &hdr, ISO_MSG_CMSG_CLOEXEC);
	m->n_fds = 0;
	if (n < 0)
		return n;
	take_fds(m, &hdr, control); /* an empty message may bring some, too */
	if (n == sizeof m->request && !(hdr.flags & ISO_MSG_CTRUNC) && m->n_fds > 0)
		return 1;
	iso_close_fds(m, 0);
	return n ? -EPROTO : 0;
}

void iso_report(int32_t fd, const struct iso_record *record, int32_t pass_fd)
{
	struct {
		struct cmsghdr_k head;
		int32_t fd;
		int32_t pad;
	} control = {{sizeof control.head + 4, ISO_SOL_SOCKET, ISO_SCM_RIGHTS}, pass_fd, 0};
	struct iovec_k iov = {(void *)(uintptr_t)record, sizeof *record};
	struct msghdr_k hdr = {.iov = &iov, .iovlen = 1};
	if (pass_fd >= 0) {
		hdr.control = &control;
		hdr.controllen = sizeof control;
	}
	(void)sys(sendmsg, fd, &hdr, ISO_MSG_NOSIGNAL);
}

void iso_close_fds(struct iso_message *m, uint32_t first)
{
	for (uint32_t i = first; i < m->n_fds; i++)
		(void)sys(close, m->fds[i]);
	m->n_fds = first;
}

long iso_map_blob(int32_t fd, size_t *size)
{
	struct statx st;
	uint32_t where;
	long r = sys(statx, fd, "", AT_EMPTY_PATH, STATX_SIZE, &st);
	if (r < 0)
		return r;
	if (st.stx_size == 0 || st.stx_size > ISO_MAX_SIZE)
		return -EINVAL;
	*size = st.stx_size;
	long map = sys(mmap, NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (map < 0 && map > -4096)
		return map;
	if (iso_plan_check((const void *)map, *size, &where) == 0)
		return map;
	(void)sys(munmap, map, *size);
	return -EINVAL;
}
