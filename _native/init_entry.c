/* SPDX-License-Identifier: Apache-2.0
 * isolate-init: where the kernel enters it, and what the compiler expects of a libc. */
#include "init.h"

/* The compiler may call these for copies and clears; there is no libc to bring them. */
void *memset(void *to, int c, size_t n);
void *memset(void *to, int c, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((volatile char *)to)[i] = (char)c;
	return to;
}

void *memcpy(void *to, const void *from, size_t n);
void *memcpy(void *to, const void *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((volatile char *)to)[i] = ((const char *)from)[i];
	return to;
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txorl %ebp, %ebp\n\tandq $-16, %rsp\n\tcall "
	"iso_init_main\n\tud2\n");
#else
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tbl iso_init_main\n\tbrk #0\n");
#endif
