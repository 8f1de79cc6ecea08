/* SPDX-License-Identifier: Apache-2.0
 * libFuzzer target: whatever program is run on whatever call, iso_filter_run reads neither outside of the
 * one nor of the other, and ends.  Built and run by tools/fuzz.
 *
 * An input: a struct seccomp_data, then the program. */
#include "plan.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint16_t known[] = {
	BPF_LD | BPF_W | BPF_ABS,   BPF_ALU | BPF_AND | BPF_K, BPF_JMP | BPF_JA,
	BPF_JMP | BPF_JEQ | BPF_K,  BPF_JMP | BPF_JGT | BPF_K, BPF_JMP | BPF_JGE | BPF_K,
	BPF_JMP | BPF_JSET | BPF_K, BPF_RET | BPF_K,
};

/* Mutate, then make most instructions known ones, else nearly every program would end at its first. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	size = LLVMFuzzerMutate(data, size, max_size);
	for (size_t at = sizeof(struct seccomp_data); at + sizeof(struct sock_filter) <= size;
	     at += sizeof(struct sock_filter)) {
		struct sock_filter one;
		memcpy(&one, data + at, sizeof one);
		if ((seed >> at / 8 % 24) % 8)
			one.code = known[one.code % (sizeof known / sizeof *known)];
		if (one.code == (BPF_LD | BPF_W | BPF_ABS) && seed % 4)
			one.k = one.k % 17 * 4; /* 64 is the first that is too far */
		memcpy(data + at, &one, sizeof one);
	}
	return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < sizeof(struct seccomp_data))
		return 0;
	size_t rest = size - sizeof(struct seccomp_data);
	/* Copies of the exact size, so that ASan sees the first byte too far. */
	struct seccomp_data *call = malloc(sizeof *call);
	uint8_t *program = malloc(rest ? rest : 1);
	if (call && program) {
		memcpy(call, data, sizeof *call);
		memcpy(program, data + sizeof *call, rest);
		uint32_t first = iso_filter_run(program, (uint32_t)rest, call);
		if (iso_filter_run(program, (uint32_t)rest, call) != first)
			abort(); /* nothing but its arguments may count */
	}
	free(call);
	free(program);
	return 0;
}
