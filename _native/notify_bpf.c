/* SPDX-License-Identifier: Apache-2.0
 * PARENT FILE.  What a seccomp filter says of one call: the instructions that assemble.py writes. */
#include "plan.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>

static int holds(const struct sock_filter *at, uint32_t a)
{
	switch (at->code) {
	case BPF_JMP | BPF_JEQ | BPF_K:
		return a == at->k;
	case BPF_JMP | BPF_JGT | BPF_K:
		return a > at->k;
	case BPF_JMP | BPF_JGE | BPF_K:
		return a >= at->k;
	default: /* BPF_JSET */
		return (a & at->k) != 0;
	}
}

uint32_t iso_filter_run(const void *program, uint32_t length, const void *data)
{
	const struct sock_filter *code = program;
	uint32_t n = length / (uint32_t)sizeof *code, a = 0;

	for (uint64_t i = 0; i < n; i++) {
		const struct sock_filter *at = &code[i];
		switch (at->code) {
		case BPF_LD | BPF_W | BPF_ABS:
			if (at->k > sizeof(struct seccomp_data) - sizeof a || at->k % 4)
				return SECCOMP_RET_KILL_PROCESS;
			memcpy(&a, (const char *)data + at->k, sizeof a);
			break;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= at->k;
			break;
		case BPF_JMP | BPF_JA:
			i += at->k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_K:
		case BPF_JMP | BPF_JGT | BPF_K:
		case BPF_JMP | BPF_JGE | BPF_K:
		case BPF_JMP | BPF_JSET | BPF_K:
			i += holds(at, a) ? at->jt : at->jf;
			break;
		case BPF_RET | BPF_K:
			return at->k;
		default:
			return SECCOMP_RET_KILL_PROCESS;
		}
	}
	return SECCOMP_RET_KILL_PROCESS;
}
