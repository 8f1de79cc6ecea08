/* SPDX-License-Identifier: Apache-2.0
 * PARENT FILE.  Starts a process by clone3 and has it run a plan.
 * Where memory is shared the child runs on a stack of its own inside this frame, and this thread
 * sleeps until its exec (CLONE_VFORK): the cost does not grow with the caller's memory. */
#include "child.h"
#include "spawn.h"

#include <linux/close_range.h>
#include <linux/sched.h>
#include <linux/wait.h>
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
	uint32_t keep; /* of our table of descriptors; 0: a copy of all */
	long unshared; /* what came of that */
	long result;   /* of start_entered's clone */
};

static void child_entry(void *arg)
{
	struct start *start = arg;
	if (start->keep)
		start->unshared = sys(close_range, start->keep, ~0u, (uint32_t)CLOSE_RANGE_UNSHARE);
	while (start->unshared < 0) /* the table is still our parent's: touch nothing */
		(void)sys(exit_group, 126);
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

/* Start it in one of the three ways: its pid, or -errno. */
static long start_once(struct start *start, int shares_memory)
{
	start->entered = !enters_any(start->spaces);
	if (!shares_memory)
		return start_copied(start);
	return start->entered ? start_shared(start) : start_entered(start);
}

/* A caller with ten thousand descriptors would have them all copied, and closed again at exec.  So
 * the child begins in our table, and takes a copy of its lower end; where that is refused (a
 * container's filter), of all. */
static long start_process(struct start *start, int shares_memory)
{
	if (start->keep)
		start->args.flags |= CLONE_FILES;
	long r = start_once(start, shares_memory);
	if (r < 0 || start->unshared >= 0)
		return r;
	int32_t *pidfd = (int32_t *)(uintptr_t)start->args.pidfd;
	long reaped = sys(waitid, P_PIDFD, *pidfd, NULL, WEXITED, NULL);
	(void)sys(close, *pidfd);
	*pidfd = -1;
	if (reaped < 0 && reaped != -ECHILD) /* SIGCHLD is ignored: it reaps itself */
		return reaped;
	start->args.flags &= ~CLONE_FILES;
	start->keep = 0;
	start->unshared = 0;
	return start_once(start, shares_memory);
}

int iso_spawn(void *blob, size_t size, const int32_t *slots, uint32_t n_slots,
	      int32_t shares_memory, int32_t mount_ns, struct iso_spawned *out)
{
	const int32_t spaces[ISO_PLACES] = {-1, -1, mount_ns, -1, 0};
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
	int32_t keep = spaces[ISO_PLACE_KEEP];
	if ((enters_any(spaces) || keep) && !shares_memory)
		return -EINVAL;
	for (uint32_t i = 0; i < n_slots; i++) {
		if (keep && slots[i] >= keep)
			return -EINVAL;
		start.fds[i] = slots[i];
	}
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
	start.keep = (uint32_t)keep;
	start.unshared = 0;
	/* No handler of the caller may run in the child, on the caller's memory. */
	long r = sys(rt_sigprocmask, SIG_BLOCK, &all, &old, sizeof old);
	if (r < 0)
		return (int)r;
	r = start_process(&start, shares_memory);
	long mask = sys(rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof old);
	out->entered = start.entered;
	if (r < 0)
		return (int)r;
	out->pid = (int32_t)r;
	out->pidfd = pidfd;
	return (int)mask;
}
