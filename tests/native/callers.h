/* SPDX-License-Identifier: Apache-2.0
 * Processes that a filter sends to a supervisor: each makes its calls, and checks what it is told. */
#ifndef ISO_TEST_CALLERS_H
#define ISO_TEST_CALLERS_H

#include <linux/audit.h>
#include <pthread.h>
#include <sys/types.h>

#if defined(__x86_64__)
#define CALLERS_ARCH AUDIT_ARCH_X86_64
#else
#define CALLERS_ARCH AUDIT_ARCH_AARCH64
#endif

#define CALLER_TIMES       50
#define CALLER_KINDS       300
#define CALLER_FD          77
#define CALLER_ALL_REFUSED 60

struct iso_notify;

/* A process under a listener that the supervisor gets as `tag`; it runs `what` and ends with its value. */
pid_t caller_starts(struct iso_notify *n, unsigned int tag, int (*what)(void));

/* Its exit status, or minus the signal that ended it. */
int caller_ends(pid_t pid);

/* Whether it has still to end; it is not reaped. */
int caller_lives(pid_t pid);

/* A pair as the supervisor takes one end of it. */
void caller_sockets(int *ends);

/* mkdir of /one CALLER_TIMES times, and of /two: CALLER_ALL_REFUSED, or how many were not. */
int caller_makes_directories(void);
/* mkdir of CALLER_KINDS names. */
int caller_makes_many_kinds(void);
/* getppid is answered 4242; mkdir gives CALLER_FD, close-on-exec; another a descriptor; the third goes on. */
int caller_asks_a_handler(void);
/* bind with pointers to nothing, to the end of a page, past it, and with a size that lies. */
int caller_lies_about_memory(void);
/* getppid CALLER_TIMES times, with the right answer. */
int caller_asks_its_parent(void);
/* mkdir, which gets ENOSYS. */
int caller_hears_enosys(void);

#endif
