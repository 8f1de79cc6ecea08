/* SPDX-License-Identifier: Apache-2.0
 * The floor's pid 1: a static program without libc that sets its box up, starts the program, reaps it,
 * and ends.  The job is in the arena, at the same address as in the runner. */
#include "floor.h"

#include <linux/fcntl.h>
#include <linux/mman.h>

static _Noreturn void leave(int status)
{
	for (;;)
		(void)sys(exit_group, status);
}

static long enter(struct floor_arena *a)
{
	if (a->template) {
		long fd = sys(openat, AT_FDCWD, "/", O_PATH | O_CLOEXEC);
		if (fd < 0)
			return fd;
		a->root_fd = (int32_t)fd;
	}
	return floor_run(a, FLOOR_BOX, a->template ? 1 : -1);
}

__attribute__((used)) _Noreturn void floor_init_main(void);
_Noreturn void floor_init_main(void)
{
	long at = sys(mmap, FLOOR_AT, FLOOR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		      FLOOR_ARENA_FD, 0);
	if (at != (long)FLOOR_AT)
		leave(125);
	struct floor_arena *a = floor_arena();
	a->stamp[PH_init] = floor_now();
	if (enter(a) == 0)
		floor_start(a);
	leave(a->error ? 126 : 0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txorl %ebp, %ebp\n\tandq $-16, %rsp\n\tcall "
	"floor_init_main\n\tud2\n");
#else
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tbl floor_init_main\n\tbrk #0\n");
#endif
