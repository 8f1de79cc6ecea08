/* SPDX-License-Identifier: Apache-2.0
 * Raw system calls: no libc, no errno.  A result in -4095..-1 is a negated errno.
 * Numbers and structures come from the kernel's own headers, so the compiler checks them. */
#ifndef ISO_SYS_H
#define ISO_SYS_H

#include <stddef.h>
#include <stdint.h>

#include <asm/unistd.h>
#include <linux/errno.h>

#if defined(__x86_64__)
static inline long iso_sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static inline long iso_sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}
#else
#error "isolate knows the system call convention of x86_64 and aarch64 only"
#endif

/* sys(mount, src, dst): the call by its name, up to six arguments of any scalar type. */
#define ISO_7TH(z, a, b, c, d, e, f, n, ...) n
#define ISO_COUNT(...)                       ISO_7TH(0, ##__VA_ARGS__, 6, 5, 4, 3, 2, 1, 0)
#define ISO_S0(n)                            iso_sys6(n, 0, 0, 0, 0, 0, 0)
#define ISO_S1(n, a)                         iso_sys6(n, (long)(a), 0, 0, 0, 0, 0)
#define ISO_S2(n, a, b)                      iso_sys6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define ISO_S3(n, a, b, c)                   iso_sys6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define ISO_S4(n, a, b, c, d)                iso_sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define ISO_S5(n, a, b, c, d, e)                                                                   \
	iso_sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define ISO_S6(n, a, b, c, d, e, f)                                                                \
	iso_sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define ISO_CAT_(a, b) a##b
#define ISO_CAT(a, b)  ISO_CAT_(a, b)
#define sys(name, ...) ISO_CAT(ISO_S, ISO_COUNT(__VA_ARGS__))(__NR_##name, ##__VA_ARGS__)

#endif
