/* SPDX-License-Identifier: Apache-2.0
 * Checks a plan's blob before anything uses it: bounds, phases, slots, items.  Pure; fuzzed. */
#include "child.h" /* for the list of steps alone */

enum { OK = 0, BAD = -22 /* -EINVAL */ };

/* An item's length and NUL lie inside the blob, and it starts aligned behind the ops. */
static int item_ok(const uint8_t *blob, uint32_t size, uint32_t first, uint32_t offset)
{
	if (offset % 4 || offset < first || offset > size - 8)
		return 0;
	uint32_t len = *(const uint32_t *)(blob + offset);
	return len <= size - offset - 5 && blob[offset + 4 + len] == 0;
}

static int vector_ok(const uint8_t *blob, uint32_t size, uint32_t first, uint32_t offset)
{
	uint32_t len = *(const uint32_t *)(blob + offset);
	const uint32_t *items = (const uint32_t *)(blob + offset + 4);
	if (len % 4)
		return 0;
	for (uint32_t i = 0; i < len / 4; i++)
		if (!item_ok(blob, size, first, items[i]))
			return 0;
	return 1;
}

/* What an op can't do without: required strings and slots, by code. */
struct need {
	uint8_t strs; /* bit i: str[i] must be there */
	uint8_t vectors;
	uint8_t slots;
};

static const struct need needs[ISO_OP_LAST + 1] = {
	[ISO_OP_JOIN_CGROUP] = {0, 0, 1},
	[ISO_OP_LEAF] = {0, 0, 1},
	[ISO_OP_SETNS] = {0, 0, 1},
	[ISO_OP_WRITE] = {3, 0, 0},
	[ISO_OP_SETGROUPS] = {1, 0, 0},
	[ISO_OP_SETHOSTNAME] = {1, 0, 0},
	[ISO_OP_SETDOMAINNAME] = {1, 0, 0},
	[ISO_OP_PROPAGATION] = {1, 0, 0},
	[ISO_OP_MKDIR] = {1, 0, 0},
	[ISO_OP_FILE] = {3, 0, 0},
	[ISO_OP_SYMLINK] = {3, 0, 0},
	[ISO_OP_BIND] = {2, 0, 0},
	[ISO_OP_MOUNT_NEW] = {5, 0, 0},
	[ISO_OP_MOUNT_ATTR] = {1, 0, 0},
	[ISO_OP_MASK] = {1, 0, 0},
	[ISO_OP_DUP2] = {0, 0, 1},
	[ISO_OP_CHDIR] = {1, 0, 0},
	[ISO_OP_APPARMOR] = {3, 0, 0},
	[ISO_OP_LANDLOCK_CREATE] = {0, 0, 2},
	[ISO_OP_LANDLOCK_PATH] = {1, 0, 1},
	[ISO_OP_LANDLOCK_PORT] = {0, 0, 1},
	[ISO_OP_LANDLOCK_RESTRICT] = {0, 0, 1},
	[ISO_OP_READY] = {0, 0, 1},
	[ISO_OP_SECCOMP] = {1, 0, 0},
	[ISO_OP_EXEC] = {0, 6, 0},
	[ISO_OP_TIMENS] = {1, 0, 0},
	[ISO_OP_IDMAP] = {3, 0, 0},
	[ISO_OP_OVERLAY] = {1, 0, 0},
	[ISO_OP_PTY] = {1, 0, 3},
	[ISO_OP_UNPACK] = {0, 0, 1},
	[ISO_OP_REBORN] = {0, 0, 1},
	[ISO_OP_PLACE] = {3, 0, 0},
	[ISO_OP_SECCOMP_NOTIFY] = {1, 0, 1},
};

/* Codes without a step are refused: nothing would run for them. */
#define ISO_KNOWN(code, name) [ISO_OP_##code] = 1,
static const uint8_t known[ISO_OP_LAST + 1] = {ISO_STEPS(ISO_KNOWN)};

static int strs_ok(const uint8_t *blob, uint32_t size, uint32_t first, const struct iso_op *op)
{
	const struct need *need = &needs[op->code];
	uint8_t vectors = need->vectors | (op->code == ISO_OP_EXEC ? 8 : 0);

	for (int i = 0; i < 4; i++) {
		if (op->str[i] == 0) {
			if ((need->strs | need->vectors) >> i & 1)
				return 0;
			continue;
		}
		if (!item_ok(blob, size, first, op->str[i]))
			return 0;
		if (vectors >> i & 1 && !vector_ok(blob, size, first, op->str[i]))
			return 0;
	}
	return 1;
}

/* EXEC, BIND and ROOT_BIND take a slot or a string: one of them must say what. */
static int source_ok(const struct iso_op *op)
{
	switch (op->code) {
	case ISO_OP_EXEC:
		return op->slot[0] >= 0 || op->str[0] || op->str[3];
	case ISO_OP_BIND:
	case ISO_OP_ROOT_BIND:
		return op->slot[0] >= 0 || op->str[0];
	default:
		return 1;
	}
}

static int op_ok(const uint8_t *blob, const struct iso_plan *plan, uint32_t first,
		 const struct iso_op *op)
{
	int64_t n = (int64_t)plan->n_slots + plan->n_temps;

	if (op->code > ISO_OP_LAST || !known[op->code] || op->phase >= ISO_PHASES)
		return 0;
	for (int i = 0; i < 2; i++)
		if (op->slot[i] < -1 || op->slot[i] >= n ||
		    (op->slot[i] < 0 && needs[op->code].slots >> i & 1))
			return 0;
	return strs_ok(blob, plan->size, first, op) && source_ok(op);
}

int iso_plan_check(const void *data, size_t size, uint32_t *where)
{
	const uint8_t *blob = data;
	const struct iso_plan *plan = data;

	*where = 0;
	if (size < sizeof *plan + 8 || size > ISO_MAX_SIZE || (uintptr_t)data % 8)
		return BAD;
	if (plan->magic != ISO_MAGIC || plan->version != ISO_VERSION || plan->size != size)
		return BAD;
	if (plan->n_ops > ISO_MAX_OPS || plan->n_slots > ISO_MAX_SLOTS ||
	    plan->n_temps > ISO_MAX_SLOTS)
		return BAD;
	uint64_t first = sizeof *plan + (uint64_t)plan->n_ops * sizeof(struct iso_op);
	if (first > size)
		return BAD;

	const struct iso_op *ops = (const struct iso_op *)(plan + 1);
	uint16_t phase = 0;
	for (uint32_t i = 0; i < plan->n_ops; i++) {
		*where = (uint32_t)(sizeof *plan + i * sizeof *ops);
		if (ops[i].phase < phase || !op_ok(blob, plan, (uint32_t)first, &ops[i]))
			return BAD;
		phase = ops[i].phase;
	}
	*where = 0;
	return OK;
}
