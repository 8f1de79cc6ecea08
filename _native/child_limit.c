/* SPDX-License-Identifier: Apache-2.0
 * CHILD FILE (see child.c).  How much it may use: rlimits, priority, mask; and the network's one link. */
#include "child.h"

#include <linux/resource.h>
#include <linux/sockios.h>

#define ISO_AF_INET                                                                                \
	2 /* socket(2): the kernel exports no header with AF_*, and linux/if.h needs libc's */
#define ISO_IFNAMSIZ     16 /* netdevice(7) */
#define ISO_SOCK_DGRAM   2
#define ISO_SOCK_CLOEXEC 02000000

/* A hard limit that is lower already stays: asking for more than that is no wish to widen. */
long op_rlimit(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	struct rlimit64 now, limit = {op->num[1], op->num[2]};
	long r = sys(prlimit64, 0, op->num[0], NULL, &now);
	if (r < 0)
		return r;
	if (limit.rlim_max > now.rlim_max)
		limit.rlim_max = now.rlim_max;
	if (limit.rlim_cur > limit.rlim_max)
		limit.rlim_cur = limit.rlim_max;
	return sys(prlimit64, 0, op->num[0], &limit, NULL);
}

long op_umask(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	long old = sys(umask, op->num[0]); /* fails only under a filter */
	return old < 0 ? old : 0;
}

long op_nice(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	return sys(setpriority, PRIO_PROCESS, 0, (int)op->num[0]);
}

long op_setsched(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	int32_t priority = (int32_t)op->num[1];
	return sys(sched_setscheduler, 0, op->num[0], &priority);
}

long op_chdir(struct iso_ctx *ctx, const struct iso_op *op)
{
	return sys(chdir, iso_str(ctx, op, 0));
}

/* A fresh network namespace has `lo`, down. */
long op_loopback_up(struct iso_ctx *ctx, const struct iso_op *op)
{
	(void)ctx;
	(void)op;
	struct {
		char name[ISO_IFNAMSIZ];
		int16_t flags;
		char rest[22];
	} request = {.name = {'l', 'o'}};
	_Static_assert(sizeof request == 40, "struct ifreq, netdevice(7)");
	long fd = sys(socket, ISO_AF_INET, ISO_SOCK_DGRAM | ISO_SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	long r = sys(ioctl, fd, SIOCGIFFLAGS, &request);
	if (r >= 0) {
		request.flags |= 1; /* IFF_UP */
		r = sys(ioctl, fd, SIOCSIFFLAGS, &request);
	}
	(void)sys(close, fd);
	return r;
}
