// SPDX-License-Identifier: Apache-2.0
/* Install a filter and make calls under it, for the tests: what the kernel does with each.
 *
 * caller FILE: a header, the program, the calls; the file is mapped and each call's answer is written
 * into it. Filters that are tried here refuse everything but one exit_group, so that nothing is done;
 * between the calls no other is made. A call that kills is the last. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

struct header {
	uint32_t n_instructions, n_calls;
};

struct one {
	uint32_t nr, by_int80;
	uint64_t args[6];
	int64_t result; /* as the kernel gives it: -errno */
	uint32_t trapped, trap_arch, trap_nr, done;
};

static struct one *now; /* the call that is being made */

static void on_sigsys(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	now->trapped = 1;
	now->trap_arch = info->si_arch;
	now->trap_nr = info->si_syscall;
}

#ifdef __x86_64__
static int64_t native(const struct one *c)
{
	register uint64_t r10 __asm__("r10") = c->args[3];
	register uint64_t r8 __asm__("r8") = c->args[4];
	register uint64_t r9 __asm__("r9") = c->args[5];
	int64_t result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"((uint64_t)c->nr), "D"(c->args[0]), "S"(c->args[1]), "d"(c->args[2]),
			   "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static int64_t int80(const struct one *c)
{
	int64_t result;

	/* rbx and rbp have uses of their own; the sixth argument goes by the stack. */
	__asm__ volatile("push %%rbx\n\tpush %%rbp\n\t"
			 "mov (%[a]), %%rbx\n\tmov 8(%[a]), %%rcx\n\tmov 16(%[a]), %%rdx\n\t"
			 "mov 24(%[a]), %%rsi\n\tmov 40(%[a]), %%rbp\n\tmov 32(%[a]), %%rdi\n\t"
			 "int $0x80\n\tpop %%rbp\n\tpop %%rbx"
			 : "=a"(result)
			 : "a"((uint64_t)c->nr), [a] "D"(c->args)
			 : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory");
	return (int32_t)result;
}
#else
static int64_t native(const struct one *c)
{
	register uint64_t x8 __asm__("x8") = c->nr;
	register uint64_t x0 __asm__("x0") = c->args[0];
	register uint64_t x1 __asm__("x1") = c->args[1];
	register uint64_t x2 __asm__("x2") = c->args[2];
	register uint64_t x3 __asm__("x3") = c->args[3];
	register uint64_t x4 __asm__("x4") = c->args[4];
	register uint64_t x5 __asm__("x5") = c->args[5];

	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}

static int64_t int80(const struct one *c)
{
	(void)c;
	return -38;
}
#endif

int main(int argc, char **argv)
{
	int fd = argc == 2 ? open(argv[1], O_RDWR) : -1;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return 2;
	char *map = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return 3;
	const struct header *head = (void *)map;
	struct sock_fprog program = {
		.len = head->n_instructions,
		.filter = (void *)(map + sizeof(*head)),
	};
	struct one *calls = (void *)(map + sizeof(*head) + head->n_instructions * 8ul);
	struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_NODEFER};

	if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		return 4;
	for (uint32_t i = 0; i < head->n_calls; i++) {
		now = &calls[i];
		now->result = now->by_int80 ? int80(now) : native(now);
		now->done = 1;
	}
	struct one end = {.nr = SYS_exit_group, .args = {0, 0, 0, 0, 0, 0x15017A7E}};
	native(&end);
	return 5;
}
