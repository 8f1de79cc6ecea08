/* SPDX-License-Identifier: Apache-2.0
 * libFuzzer target: whatever comes over the socket, iso_receive answers within its rules, no
 * descriptor is lost or kept, and a blob that is mapped was checked.  Built and run by tools/fuzz.
 *
 * An input: one byte how many descriptors, one byte which of them are blobs, one byte the length
 * of the message, the message, and the blob. */
#include "init.h"

#include <stdlib.h>
#include <string.h>

#define SOCK_SEQPACKET 5
#define AF_UNIX        1
#define MAX_MESSAGE    64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static int32_t ends[2], spare_fd, blob_fd;
static volatile uint64_t seen;

static void must(int holds)
{
	if (!holds)
		abort();
}

/* iso_die is init's; here nothing may ask for it. */
_Noreturn void iso_die(void)
{
	abort();
}

static int32_t lowest_fd(void)
{
	long fd = sys(dup, spare_fd);
	must(fd >= 0);
	(void)sys(close, fd);
	return (int32_t)fd;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	must(sys(socketpair, AF_UNIX, SOCK_SEQPACKET | 02000000, 0, ends) == 0);
	spare_fd = (int32_t)sys(openat, -100, "/dev/null", 02, 0);
	blob_fd = (int32_t)sys(memfd_create, "blob", 1);
	must(spare_fd >= 0 && blob_fd >= 0);
	return argc && argv ? 0 : 1;
}

/* Nearly every input would be refused for its length: mend it most of the time, and the blob's
 * header too. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	size_t head = 3 + sizeof(struct iso_request);
	size = LLVMFuzzerMutate(data, size, max_size);
	if (seed % 8 && size > head) {
		data[2] = sizeof(struct iso_request);
		data[0] %= 8;
	}
	if (seed % 4 && size >= head + sizeof(struct iso_plan)) {
		struct iso_plan plan;
		memcpy(&plan, data + head, sizeof plan);
		plan.magic = ISO_MAGIC;
		plan.version = ISO_VERSION;
		plan.size = (uint32_t)(size - head);
		plan.n_ops %= 1 + (uint32_t)((size - head) / sizeof(struct iso_op));
		plan.n_slots %= 8;
		plan.n_temps %= 8;
		memcpy(data + head, &plan, sizeof plan);
	}
	return size;
}

/* One message as the kernel gives it: with `count` descriptors, some of them the blob. */
static long send_message(const uint8_t *bytes, size_t len, uint32_t count, uint8_t blobs)
{
	struct {
		size_t len;
		int level, type;
		int32_t fds[ISO_MAX_FDS];
	} control = {16 + count * 4u, 1, 1, {0}};
	struct {
		const void *base;
		size_t len;
	} iov = {bytes, len};
	struct {
		void *name;
		int namelen;
		void *iov;
		size_t iovlen;
		void *control;
		size_t controllen;
		unsigned int flags;
	} hdr = {.iov = &iov, .iovlen = 1};
	for (uint32_t i = 0; i < count; i++)
		control.fds[i] = i < 8 && blobs >> i & 1 ? blob_fd : spare_fd;
	if (count) {
		hdr.control = &control;
		hdr.controllen = 16 + count * 4u;
	}
	return sys(sendmsg, ends[0], &hdr, 0x4000);
}

static void map_and_walk(int32_t fd)
{
	size_t size = 0;
	uint32_t where;
	long map = iso_map_blob(fd, &size);
	if (map < 0 && map > -4096)
		return;
	must(size > 0 && iso_plan_check((const void *)map, size, &where) == 0);
	for (size_t i = 0; i < size; i += 64)
		seen += ((const uint8_t *)map)[i];
	must(sys(munmap, map, size) == 0);
}

static void answer(struct iso_message *m)
{
	struct iso_record record = {.type = ISO_REC_REFUSED, .error = 5}, got;
	iso_report(ends[1], &record, m->n_fds ? m->fds[0] : -1);
	must(sys(read, ends[0], &got, sizeof got) == sizeof got);
	must(memcmp(&record, &got, sizeof got) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct iso_message m;
	if (size < 3)
		return 0;
	uint32_t count = data[0] > ISO_MAX_FDS ? ISO_MAX_FDS : data[0];
	size_t len = data[2] % (MAX_MESSAGE + 1), rest = size - 3;
	int32_t before = lowest_fd();

	len = len > rest ? rest : len;
	must(sys(ftruncate, blob_fd, 0) == 0);
	if (rest > len)
		must(sys(pwrite64, blob_fd, data + 3 + len, rest - len, 0) == (long)(rest - len));
	must(send_message(data + 3, len, count, data[1]) == (long)len);
	long r = iso_receive(ends[1], &m);
	if (r == 1) {
		must(len >= sizeof m.request && count > 0 && m.n_fds == count);
		must(memcmp(&m.request, data + 3, sizeof m.request) == 0);
		for (uint32_t i = 0; i < m.n_fds && i < 8; i++)
			map_and_walk(m.fds[i]);
		answer(&m);
		iso_close_fds(&m, 1);
		must(m.n_fds == 1);
		iso_close_fds(&m, 0);
	} else {
		must(r == -71 || r == 0); /* EPROTO; an empty message looks like the end */
	}
	must(m.n_fds == 0 && lowest_fd() == before);
	return 0;
}
