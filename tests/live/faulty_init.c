/* SPDX-License-Identifier: Apache-2.0
 * For the fault tests: stands in for isolate-init, installs a filter, and becomes isolate-init.
 * faults.py writes the filter and the real init into the two places below; no file is read, since
 * the mount namespace may have none. */
#include "../../_native/sys.h"

#include <linux/filter.h>
#include <linux/memfd.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>

#define AT_EMPTY 0x1000

struct place {
	char magic[16];
	volatile uint32_t len;
	uint32_t pad;
	char data[131072];
};

static struct place filter = {"iso-filter-here", 0, 0, {1}};
static struct place init = {"iso-init---here", 0, 0, {1}};

static _Noreturn void leave(int code)
{
	for (;;)
		(void)sys(exit_group, code);
}

__attribute__((used)) _Noreturn void shim_main(void);
_Noreturn void shim_main(void)
{
	static const char *argv[] = {"isolate-init", NULL};
	static const char *envp[] = {NULL};
	struct sock_fprog program = {(unsigned short)(filter.len / 8), (void *)filter.data};
	long fd = sys(memfd_create, "isolate-init", MFD_CLOEXEC);
	if (fd < 0 || sys(write, fd, init.data, init.len) != (long)init.len)
		leave(121);
	if (sys(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		leave(122);
	if (sys(prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0)
		leave(123);
	(void)sys(execveat, fd, "", argv, envp, AT_EMPTY);
	leave(124);
}

__asm__(".globl _start\n_start:\n\txorl %ebp, %ebp\n\tandq $-16, %rsp\n\tcall shim_main\n\tud2\n");
