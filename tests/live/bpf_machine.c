// SPDX-License-Identifier: Apache-2.0
/* A second classic BPF machine, for the tests alone: what two programs answer for millions of calls,
 * which are made from a seed and their index, so that any of them can be made again. */

#include <stdint.h>
#include <string.h>

struct instruction {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};

struct call { /* struct seccomp_data */
	uint32_t nr, arch;
	uint64_t ip, args[6];
};

struct pool {
	const uint32_t *numbers; /* calls to take, by number */
	uint32_t n_numbers, arch;
	const uint64_t *values; /* what arguments are made of */
	uint32_t n_values, words32; /* words32: arguments are 32 bits, as by int 0x80 */
	uint64_t seed;
};

enum { LD = 0x20, JA = 0x05, JEQ = 0x15, JGT = 0x25, JGE = 0x35, JSET = 0x45, AND = 0x54, RET = 0x06 };

/* The answer; *steps instructions were taken, 0 of them if the program is none. */
uint32_t machine_run(const struct instruction *code, uint32_t n, const struct call *call,
		     uint32_t *steps)
{
	uint32_t a = 0, at = 0, taken = 0;

	for (; at < n; at++) {
		const struct instruction *in = &code[at];

		taken++;
		switch (in->code) {
		case LD:
			if (in->k > sizeof(*call) - 4 || in->k % 4)
				goto wrong;
			memcpy(&a, (const char *)call + in->k, 4);
			break;
		case AND:
			a &= in->k;
			break;
		case JA:
			if (in->k >= n - at)
				goto wrong;
			at += in->k;
			break;
		case JEQ:
			at += a == in->k ? in->jt : in->jf;
			break;
		case JGT:
			at += a > in->k ? in->jt : in->jf;
			break;
		case JGE:
			at += a >= in->k ? in->jt : in->jf;
			break;
		case JSET:
			at += a & in->k ? in->jt : in->jf;
			break;
		case RET:
			*steps = taken;
			return in->k;
		default:
			goto wrong;
		}
	}
wrong:
	*steps = 0;
	return 0;
}

static uint64_t dice(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return z ^ z >> 31;
}

/* Mostly a value of the pool, or one beside it, or with another's upper half; else any. */
static uint64_t argument(const struct pool *pool, uint64_t *state)
{
	uint64_t way = dice(state), value = pool->values[dice(state) % pool->n_values];

	switch (way % 16) {
	case 0:
		return value - 1;
	case 1:
		return value + 1;
	case 2:
		return (value & 0xFFFFFFFF) | dice(state) << 32;
	case 3:
		return (value & ~0xFFFFFFFFull) | (dice(state) & 0xFFFFFFFF);
	case 4:
		return value ^ 1ull << (dice(state) % 64);
	case 5:
		return dice(state);
	case 6:
		return dice(state) % 64;
	default:
		return value;
	}
}

/* The call of an index. One in sixteen has a number that is in no list. */
void machine_call(const struct pool *pool, uint64_t index, struct call *call)
{
	uint64_t state = pool->seed ^ index * 0xD1342543DE82EF95u;

	memset(call, 0, sizeof(*call));
	call->arch = pool->arch;
	call->ip = dice(&state);
	if (pool->n_numbers && dice(&state) % 16)
		call->nr = pool->numbers[dice(&state) % pool->n_numbers];
	else
		call->nr = dice(&state) % 2 ? dice(&state) % 0x40000000 : dice(&state) % 1024;
	for (int i = 0; i < 6; i++) {
		call->args[i] = argument(pool, &state);
		if (pool->words32)
			call->args[i] &= 0xFFFFFFFF;
	}
}

/* The first index from `first` on at which two programs differ; `last` if there is none. What each
 * took in instructions is added up in steps[0] and steps[1]. */
uint64_t machine_differ(const struct instruction *one, uint32_t n_one, const struct instruction *two,
			uint32_t n_two, const struct pool *pool, uint64_t first, uint64_t last,
			uint64_t *steps)
{
	struct call call;
	uint32_t a_steps, b_steps;

	for (; first < last; first++) {
		machine_call(pool, first, &call);
		uint32_t a = machine_run(one, n_one, &call, &a_steps);
		uint32_t b = machine_run(two, n_two, &call, &b_steps);
		steps[0] += a_steps;
		steps[1] += b_steps;
		if (a != b || !a_steps || !b_steps)
			break;
	}
	return first;
}
