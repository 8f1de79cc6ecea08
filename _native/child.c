/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE.  Runs between clone and exec, perhaps in the parent's memory:
 * sys.h calls only, no libc, no errno, nothing written but the stack.
 * The op table, the one loop, the one failure exit. */
#include "child.h"

#include <asm/signal.h>
#include <linux/time.h>

#define ISO_ENTRY(code, name) [ISO_OP_##code] = op_##name,
static const iso_step iso_steps[ISO_OP_LAST + 1] = {ISO_STEPS(ISO_ENTRY)};

uint64_t iso_now(void)
{
	struct {
		int64_t sec, nsec;
	} t = {0, 0};
	if (sys(clock_gettime, CLOCK_MONOTONIC, &t) < 0)
		return 0;
	return (uint64_t)t.sec * 1000000000u + (uint64_t)t.nsec;
}

void iso_ctx_init(struct iso_ctx *ctx, const void *blob, int32_t *fds)
{
	ctx->plan = blob;
	ctx->fds = fds;
	ctx->root_fd = -1;
	ctx->null_fd = -1;
	ctx->record_fd = -1;
	ctx->phase_ns = NULL;
	ctx->proc_fd = -1;
	ctx->doors = 0;
	ctx->outside = 0;
	ctx->unbound = 0;
	for (uint32_t i = 0; i < ctx->plan->n_temps; i++)
		fds[ctx->plan->n_slots + i] = -1;
	for (uint32_t i = 0; i < ctx->plan->n_ops; i++)
		if (iso_ops(ctx)[i].code == ISO_OP_READY)
			ctx->record_fd = iso_fd(ctx, &iso_ops(ctx)[i], 0);
}

static void stamp(const struct iso_ctx *ctx, const struct iso_op *op)
{
	if (ctx->phase_ns && op->phase < ISO_PHASES)
		ctx->phase_ns[op->phase] = iso_now();
}

long iso_run(struct iso_ctx *ctx, uint32_t *step)
{
	const struct iso_op *ops = iso_ops(ctx);
	uint32_t n = ctx->plan->n_ops;

	for (uint32_t i = 0; i < n; i++) {
		long r = iso_steps[ops[i].code](ctx, &ops[i]);
		*step = i;
		if (r < 0)
			return r;
		if (i + 1 == n || ops[i + 1].phase != ops[i].phase)
			stamp(ctx, &ops[i]);
	}
	*step = ISO_STEP_READY;
	return 0;
}

static void tell(const struct iso_ctx *ctx, uint32_t step, long error)
{
	struct iso_fail record = {step, (int32_t)error, iso_now()};
	/* Nobody else could be told if this fails: the parent reads EOF without READY then,
	 * which it takes for a failure as well. */
	if (ctx->record_fd >= 0)
		(void)sys(write, (uint64_t)ctx->record_fd | iso_door(ctx, ISO_DOOR_WRITE), &record,
			  sizeof record);
}

_Noreturn void iso_child_main(struct iso_ctx *ctx)
{
	uint32_t step = 0;
	long r = iso_run(ctx, &step);

	if (r == 0) { /* the last op was no exec */
		step = ctx->plan->n_ops;
		r = -ENOEXEC;
	}
	tell(ctx, step, -r);
	for (;;)
		(void)sys(exit_group, 127);
}

/* Set-up is done: the last thing that can be told before seccomp may forbid it.  Signals were
 * blocked since the clone, so that none could end set-up half-way. */
long op_ready(struct iso_ctx *ctx, const struct iso_op *op)
{
	uint64_t none = 0;
	long r = sys(rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
	if (r < 0)
		return r;
	struct iso_fail record = {ISO_STEP_READY, 0, iso_now()};
	long n = sys(write, iso_fd(ctx, op, 0), &record, sizeof record);
	return n < 0 ? n : n == sizeof record ? 0 : -EIO;
}
