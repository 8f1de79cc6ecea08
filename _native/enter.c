/* SPDX-License-Identifier: Apache-2.0
 * PARENT FILE.  Runs a plan's ops in the calling thread: the one verb that changes the caller. */
#include "child.h"

int iso_enter(void *blob, size_t size, const int32_t *slots, uint32_t n_slots, uint32_t *step)
{
	int32_t fds[2 * ISO_MAX_SLOTS];
	struct iso_ctx ctx;
	const struct iso_plan *plan = blob;

	*step = 0;
	if (iso_plan_check(blob, size, step) < 0 || plan->n_slots != n_slots)
		return -EINVAL;
	for (uint32_t i = 0; i < n_slots; i++)
		fds[i] = slots[i];
	iso_ctx_init(&ctx, blob, fds);
	long r = iso_run(&ctx, step);
	for (uint32_t i = 0; r < 0 && i < plan->n_temps; i++)
		if (fds[n_slots + i] >= 0) /* a ruleset that was not put in force */
			(void)sys(close, fds[n_slots + i]);
	return (int)r;
}
