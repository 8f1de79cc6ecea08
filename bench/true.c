/* SPDX-License-Identifier: Apache-2.0
 * The smallest program: static, without libc; ends with 0. */
#include "sys.h"

__attribute__((used)) _Noreturn void true_main(void);
_Noreturn void true_main(void)
{
	for (;;)
		(void)sys(exit_group, 0);
}

__asm__(".globl _start\n_start:\n\t"
#if defined(__x86_64__)
	"call true_main\n"
#else
	"bl true_main\n"
#endif
);
