/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  Its descriptors, and the exec that ends set-up. */
#include "child.h"

#include <linux/close_range.h>
#include <linux/fcntl.h>

#define ISO_HIGH_FD  512    /* where a slot goes that stands in a target's way */
#define ISO_MAX_PTRS 131072 /* of argv and envp together: 1 MiB of stack */

/* Another slot may have the target's number: move it out of the way first. */
static long make_way(struct iso_ctx *ctx, int32_t target, int32_t keep)
{
	uint32_t n = ctx->plan->n_slots + ctx->plan->n_temps;
	for (uint32_t i = 0; i < n; i++) {
		if (ctx->fds[i] != target || (int32_t)i == keep)
			continue;
		long fd = sys(fcntl, target, F_DUPFD_CLOEXEC, ISO_HIGH_FD);
		if (fd == -EINVAL) /* RLIMIT_NOFILE is below that */
			fd = sys(fcntl, target, F_DUPFD_CLOEXEC, 3);
		if (fd < 0)
			return fd;
		if (ctx->record_fd == target)
			ctx->record_fd = (int32_t)fd;
		for (uint32_t j = i; j < n; j++)
			if (ctx->fds[j] == target && (int32_t)j != keep)
				ctx->fds[j] = (int32_t)fd;
	}
	return 0;
}

long op_dup2(struct iso_ctx *ctx, const struct iso_op *op)
{
	int32_t target = (int32_t)op->num[0];
	int32_t source = iso_fd(ctx, op, 0);

	if (source == target) { /* dup3 refuses; only CLOEXEC has to go */
		long flags = sys(fcntl, source, F_GETFD, 0);
		return flags < 0 ? flags : sys(fcntl, source, F_SETFD, flags & ~1L);
	}
	long r = make_way(ctx, target, op->slot[0]);
	if (r < 0)
		return r;
	r = sys(dup3, source, target, 0);
	return r < 0 ? r : 0;
}

/* By CLOEXEC, so that the record pipe lives until exec, and no longer. */
long op_close_from(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	return sys(close_range, op->num[0], ~0u, CLOSE_RANGE_CLOEXEC);
}

/* Pointers to a vector's items, with a NULL at the end. */
static void point(const struct iso_ctx *ctx, uint32_t vector, const char **to)
{
	const uint32_t *offsets = (const uint32_t *)iso_item(ctx, vector);
	uint32_t n = iso_len(ctx, vector) / 4;
	for (uint32_t i = 0; i < n; i++)
		to[i] = iso_item(ctx, offsets[i]);
	to[n] = NULL;
}

/* execvp's rules: go on after "not here", remember that something was there but not ours to run. */
static long exec_first(const struct iso_ctx *ctx, uint32_t vector, const char **argv,
		       const char **envp)
{
	const uint32_t *offsets = (const uint32_t *)iso_item(ctx, vector);
	uint32_t n = iso_len(ctx, vector) / 4;
	long result = -ENOENT;

	for (uint32_t i = 0; i < n; i++) {
		long r = sys(execve, iso_item(ctx, offsets[i]), argv, envp);
		if (r == -EACCES)
			result = r;
		else if (!iso_absent(r) && r != -ENAMETOOLONG && r != -ELOOP)
			return r;
	}
	return result;
}

static long exec_one(const struct iso_ctx *ctx, const struct iso_op *op, const char **argv,
		     const char **envp)
{
	if (op->slot[0] >= 0)
		return sys(execveat, iso_fd(ctx, op, 0), "", argv, envp, AT_EMPTY_PATH);
	if (op->str[0])
		return sys(execve, iso_str(ctx, op, 0), argv, envp);
	return exec_first(ctx, op->str[3], argv, envp);
}

/* Nothing but execve may be called here: the seccomp filter is in force.  So the pointers are on
 * the stack; their number is bounded, and init's stack is its own. */
long op_exec(struct iso_ctx *ctx, const struct iso_op *op)
{
	uint32_t n_argv = iso_len(ctx, op->str[1]) / 4 + 1;
	uint32_t n_envp = iso_len(ctx, op->str[2]) / 4 + 1;

	if (n_argv + n_envp > ISO_MAX_PTRS)
		return -E2BIG;
	const char *pointers[n_argv + n_envp];
	point(ctx, op->str[1], pointers);
	point(ctx, op->str[2], pointers + n_argv);
	return exec_one(ctx, op, pointers, pointers + n_argv);
}
