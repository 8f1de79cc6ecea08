/* SPDX-License-Identifier: Apache-2.0
 * The floor's loop over the steps, and the start of the program.  Raw calls only. */
#include "floor.h"

#include <linux/sched.h>
#include <asm/signal.h>

#define FLOOR_ENTRY(name) [FL_##name] = do_##name,
static const floor_fn steps[FL_CODES] = {FLOOR_STEPS(FLOOR_ENTRY)};

uint64_t floor_now(void)
{
	struct {
		int64_t sec, nsec;
	} t = {0, 0};
	return sys(clock_gettime, 1 /* CLOCK_MONOTONIC */, &t) < 0
		       ? 0
		       : (uint64_t)t.sec * 1000000000u + (uint64_t)t.nsec;
}

/* Whether a run of this kind has the step; see struct floor_step. */
static int wanted(const struct floor_step *s, uint32_t part, int fresh)
{
	if (s->off || s->part != part)
		return 0;
	return fresh < 0 ? s->fresh != 2 : fresh ? s->fresh == 1 : s->fresh == 0 || s->fresh == 2;
}

long floor_run(struct floor_arena *a, uint32_t part, int fresh)
{
	int last = -1;
	for (uint32_t i = 0; i < a->n_steps; i++) {
		const struct floor_step *s = &a->steps[i];
		if (!wanted(s, part, fresh))
			continue;
		if (last >= 0 && (uint32_t)last != s->phase)
			a->stamp[last] = floor_now();
		last = (int)s->phase;
		long r = steps[s->code](a, s);
		if (r < 0) {
			a->error_step = (int32_t)i;
			a->error = (int32_t)-r;
			return r;
		}
	}
	if (last >= 0)
		a->stamp[last] = floor_now();
	return 0;
}

_Noreturn void floor_program(struct floor_arena *a)
{
	const char *argv[2] = {a->program, NULL}, *envp[1] = {NULL};
	if (floor_run(a, FLOOR_PROGRAM, -1) == 0) {
		long r = sys(execve, a->program, argv, envp);
		a->error_step = (int32_t)a->n_steps;
		a->error = (int32_t)-r;
	}
	for (;;)
		(void)sys(exit_group, 127);
}

/* As vfork: the child has our memory, and we sleep until its exec. */
static long share(void)
{
#if defined(__x86_64__)
	return sys(clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
#else
	return sys(clone, SIGCHLD, 0, 0, 0, 0); /* its own copy: of a page or two */
#endif
}

void floor_start(struct floor_arena *a)
{
	uint32_t n = a->live ? a->live : 1;
	for (uint32_t i = 0; i < n && !a->error; i++) {
		uint64_t began = floor_now();
		long pid = share();
		if (pid == 0)
			floor_program(a);
		a->stamp[PH_start] = floor_now();
		if (!a->live) {
			(void)sys(close, a->out_fd);
			(void)sys(close, a->err_fd);
			(void)sys(close, a->told_fd); /* -1 where there is none */
		}
		long r = pid < 0 ? pid : sys(wait4, pid, &a->status, 0, NULL);
		if (r < 0)
			a->error = (int32_t)-r;
		if (i < FLOOR_MAX_RUNS)
			a->took[i] = floor_now() - began;
	}
	a->stamp[PH_run] = floor_now();
}
