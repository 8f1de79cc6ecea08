/* SPDX-License-Identifier: Apache-2.0
 * libFuzzer target: whatever iso_plan_check accepts can be walked as the child walks it, without
 * a read outside of the blob.  Built and run by tools/fuzz. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t seen; /* keeps the reads */

/* Mutate, then mend the header, else nearly every input would end at its first lines. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	size = LLVMFuzzerMutate(data, size, max_size);
	if (seed % 8 && size >= sizeof(struct iso_plan)) {
		struct iso_plan plan;
		memcpy(&plan, data, sizeof plan);
		plan.magic = ISO_MAGIC;
		plan.version = ISO_VERSION;
		plan.size = (uint32_t)size;
		plan.n_ops %= 1 + (uint32_t)(size / sizeof(struct iso_op));
		plan.n_slots %= ISO_MAX_SLOTS + 1;
		plan.n_temps %= 8;
		memcpy(data, &plan, sizeof plan);
	}
	return size;
}

static void walk_item(const uint8_t *blob, uint32_t offset)
{
	uint32_t len;
	memcpy(&len, blob + offset, sizeof len);
	for (uint32_t i = 0; i <= len; i++) /* the NUL too */
		seen += blob[offset + 4 + i];
	if (blob[offset + 4 + len])
		abort(); /* a string without its end */
}

static void walk_vector(const uint8_t *blob, uint32_t offset)
{
	uint32_t len, item;
	memcpy(&len, blob + offset, sizeof len);
	for (uint32_t i = 0; i + 4 <= len; i += 4) {
		memcpy(&item, blob + offset + 4 + i, sizeof item);
		walk_item(blob, item);
	}
}

static void walk(const uint8_t *blob)
{
	const struct iso_plan *plan = (const struct iso_plan *)blob;
	const struct iso_op *ops = (const struct iso_op *)(plan + 1);
	int64_t slots = (int64_t)plan->n_slots + plan->n_temps;
	uint16_t phase = 0;

	for (uint32_t i = 0; i < plan->n_ops; i++) {
		const struct iso_op *op = &ops[i];
		if (op->code == 0 || op->code > ISO_OP_LAST || op->phase < phase ||
		    op->phase >= ISO_PHASES)
			abort();
		phase = op->phase;
		for (int s = 0; s < 2; s++)
			if (op->slot[s] < -1 || op->slot[s] >= slots)
				abort();
		for (int s = 0; s < 4; s++)
			if (op->str[s])
				walk_item(blob, op->str[s]);
		for (int s = 1; op->code == ISO_OP_EXEC && s < 4; s++)
			if (op->str[s])
				walk_vector(blob, op->str[s]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1); /* so that ASan sees the first byte too far */
	uint32_t where = 0;

	if (!exact)
		return 0;
	if (size)
		memcpy(exact, data, size);
	if (iso_plan_check(exact, size, &where) == 0)
		walk(exact);
	else if (where > size)
		abort();
	free(exact);
	return 0;
}
