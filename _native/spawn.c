/* SPDX-License-Identifier: Apache-2.0
 * PARENT FILE.  Starts a process by clone3 and has it run a plan.
 * Where memory is shared the child runs on a stack of its own inside this frame, and this thread
 * sleeps until its exec (CLONE_VFORK): the cost does not grow with the caller's memory. */
#include "child.h"
#include "spawn.h"

#include <linux/sched.h>
#include <asm/signal.h>

#define ISO_CHILD_STACK 24576

#define ISO_ENTRY_STACK 4096

struct start {
	struct iso_ctx ctx;
	int32_t fds[2 * ISO_MAX_SLOTS];
	struct clone_args args;
	char *stack;
	const int32_t *spaces; /* ISO_SPACE_*: what to enter first, -1: nothing */
	int32_t entered;
	long result; /* of start_entered's clone */
};

static void child_entry(void *arg)
{
	struct start *start = arg;
	iso_child_main(&start->ctx);
}

/* A system call after which the child calls fn(arg) on its new stack and never comes back. */
#if defined(__x86_64__)
static long call_in_child(long nr, long a, long b, long c, long d, void (*fn)(void *), void *arg)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = 0;
	register void (*r12)(void *) __asm__("r12") = fn;
	register void *r13 __asm__("r13") = arg;
	long ret;
	__asm__ volatile("syscall\n\t"
			 "testq %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xorl %%ebp, %%ebp\n\t"
			 "movq %%r13, %%rdi\n\t"
			 "callq *%%r12\n\t"
			 "ud2\n"
			 "1:"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r12), "r"(r13)
			 : "rcx", "r11", "r9", "memory", "cc");
	return ret;
}
#else
static long call_in_child(long nr, long a, long b, long c, long d, void (*fn)(void *), void *arg)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = 0;
	register void (*x19)(void *) __asm__("x19") = fn;
	register void *x20 __asm__("x20") = arg;
	__asm__ volatile("svc #0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x29, xzr\n\t"
			 "mov x0, x20\n\t"
			 "blr x19\n\t"
			 "brk #0\n"
			 "1:"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x19), "r"(x20)
			 : "memory", "cc", "x30");
	return x0;
}
#endif

/* clone3, or clone where a container's filter answers ENOSYS and no cgroup was asked for:
 * fn(arg) on a stack of its own. */
static long clone_shared(struct clone_args *args, char *stack, size_t size, void (*fn)(void *),
			 void *arg)
{
	args->flags |= CLONE_VM | CLONE_VFORK;
	args->stack = (uint64_t)(uintptr_t)stack;
	args->stack_size = size;
	long r = call_in_child(__NR_clone3, (long)args, sizeof *args, 0, 0, fn, arg);
	if (r != -ENOSYS || args->flags & CLONE_INTO_CGROUP)
		return r;
	long flags = (long)((args->flags & ~CLONE_CLEAR_SIGHAND) | args->exit_signal);
	return call_in_child(__NR_clone, flags, (long)(stack + size), (long)args->pidfd, 0, fn,
			     arg);
}

static long start_shared(struct start *start)
{
	return clone_shared(&start->args, start->stack, ISO_CHILD_STACK, child_entry, start);
}

/* The mount namespace last: it needs rights that the others don't take away, and sets the root. */
static long enter_spaces(const int32_t *spaces)
{
	static const uint64_t kinds[ISO_SPACES] = {CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWNS};
	for (int i = 0; i < ISO_SPACES; i++) {
		long r = spaces[i] < 0 ? 0 : sys(setns, spaces[i], kinds[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* In a thread whose namespaces and root nobody else has: the caller's stay. */
static void entry_thread(void *arg)
{
	struct start *start = arg;
	start->result = enter_spaces(start->spaces);
	if (start->result == 0) {
		start->entered = 1;
		start->result = start_shared(start);
	}
	for (;;)
		(void)sys(exit, 0);
}

long iso_in_thread(void (*fn)(void *), void *arg)
{
	char stack[ISO_ENTRY_STACK] __attribute__((aligned(16)));
	struct clone_args args = {.flags = CLONE_THREAD | CLONE_SIGHAND | CLONE_FILES |
					   CLONE_SYSVSEM};
	return clone_shared(&args, stack, sizeof stack, fn, arg);
}

/* The child starts in other namespaces than ours, or with a copy of one.  Its parent is this
 * process: a thread's children are its process's. */
static long start_entered(struct start *start)
{
	long r = iso_in_thread(entry_thread, start);
	return r < 0 ? r : start->result;
}

static long start_copied(struct start *start)
{
	struct clone_args *args = &start->args;
	long r = sys(clone3, args, sizeof *args);
	if (r == -ENOSYS && !(args->flags & CLONE_INTO_CGROUP)) {
		long flags = (long)((args->flags & ~CLONE_CLEAR_SIGHAND) | SIGCHLD);
		r = sys(clone, flags, 0, args->pidfd, 0, 0);
	}
	if (r == 0)
		child_entry(start);
	return r;
}

static int enters_any(const int32_t *spaces)
{
	for (int i = 0; i < ISO_SPACES; i++)
		if (spaces[i] >= 0)
			return 1;
	return 0;
}

int iso_spawn(void *blob, size_t size, const int32_t *slots, uint32_t n_slots,
	      int32_t shares_memory, int32_t mount_ns, struct iso_spawned *out)
{
	const int32_t spaces[ISO_PLACES] = {-1, -1, mount_ns, -1};
	return iso_spawn_in(blob, size, slots, n_slots, shares_memory, spaces, out);
}

int iso_spawn_in(void *blob, size_t size, const int32_t *slots, uint32_t n_slots,
		 int32_t shares_memory, const int32_t *spaces, struct iso_spawned *out)
{
	char stack[ISO_CHILD_STACK] __attribute__((aligned(16)));
	struct start start;
	uint64_t all = ~0ull, old = 0;
	uint32_t where;
	int32_t pidfd = -1;
	struct iso_plan *plan = blob;

	if (iso_plan_check(blob, size, &where) < 0 || plan->n_slots != n_slots)
		return -EINVAL;
	int enters = enters_any(spaces);
	if (enters && !shares_memory)
		return -EINVAL;
	for (uint32_t i = 0; i < n_slots; i++)
		start.fds[i] = slots[i];
	iso_ctx_init(&start.ctx, blob, start.fds);
	start.args = (struct clone_args){
		.flags = plan->clone_flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};
	if (spaces[ISO_SPACE_CGROUP] >= 0) {
		start.args.flags |= CLONE_INTO_CGROUP;
		start.args.cgroup = (uint64_t)spaces[ISO_SPACE_CGROUP];
	}
	start.stack = stack;
	start.spaces = spaces;
	start.entered = !enters;
	/* No handler of the caller may run in the child, on the caller's memory. */
	long r = sys(rt_sigprocmask, SIG_BLOCK, &all, &old, sizeof old);
	if (r < 0)
		return (int)r;
	r = !shares_memory ? start_copied(&start)
	    : enters       ? start_entered(&start)
			   : start_shared(&start);
	long mask = sys(rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof old);
	out->entered = start.entered;
	if (r < 0)
		return (int)r;
	out->pid = (int32_t)r;
	out->pidfd = pidfd;
	return (int)mask;
}
