/* SPDX-License-Identifier: Apache-2.0
 * PARENT FILE.  Makes a network namespace with its loopback up, and an IPC namespace, for a box to
 * come: by a thread of its own, so that the caller's namespaces stay as they are. */
#include "child.h"
#include "spawn.h"

#include <linux/fcntl.h>
#include <linux/sched.h>
#include <asm/signal.h>

struct making {
	int32_t fds[2]; /* net, ipc */
	long result;
};

static long open_space(const char *path)
{
	return sys(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
}

static long make(struct making *making)
{
	long r = sys(unshare, CLONE_NEWNET | CLONE_NEWIPC);
	if (r == 0)
		r = op_loopback_up(NULL, NULL);
	if (r < 0)
		return r;
	long net = open_space("/proc/thread-self/ns/net");
	if (net < 0)
		return net;
	long ipc = open_space("/proc/thread-self/ns/ipc");
	if (ipc < 0) {
		(void)sys(close, net);
		return ipc;
	}
	making->fds[0] = (int32_t)net;
	making->fds[1] = (int32_t)ipc;
	return 0;
}

static void making_thread(void *arg)
{
	struct making *making = arg;
	making->result = make(making);
	for (;;)
		(void)sys(exit, 0);
}

int iso_make_spaces(int32_t *net_fd, int32_t *ipc_fd)
{
	struct making making = {{-1, -1}, -EIO};
	uint64_t all = ~0ull, old = 0;
	long r = sys(rt_sigprocmask, SIG_BLOCK, &all, &old, sizeof old);
	if (r < 0)
		return (int)r;
	r = iso_in_thread(making_thread, &making);
	long mask = sys(rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof old);
	if (r < 0)
		return (int)r;
	*net_fd = making.fds[0];
	*ipc_fd = making.fds[1];
	return (int)(making.result < 0 ? making.result : mask);
}
