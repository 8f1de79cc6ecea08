/* SPDX-License-Identifier: Apache-2.0
 * The floor's names, ids, limits and privileges.  Raw calls only: runs after clone. */
#include "floor.h"

#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/fcntl.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>

long do_hostname(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	return sys(sethostname, s->s[0], s->len[0]);
}

long do_unshare(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	return sys(unshare, s->n[0]);
}

long do_keyring(struct floor_arena *a, const struct floor_step *s)
{
	(void)a, (void)s;
	long r = sys(keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	return r == -ENOSYS ? 0 : r;
}

long do_loopback(struct floor_arena *a, const struct floor_step *s)
{
	(void)a, (void)s;
	struct {
		char name[16];
		int16_t flags;
		char rest[22];
	} request = {.name = {'l', 'o'}, .flags = 1 /* IFF_UP */};
	long fd = sys(socket, 2 /* AF_INET */, 2 | 02000000, 0);
	if (fd < 0)
		return fd;
	long r = sys(ioctl, fd, SIOCSIFFLAGS, &request);
	(void)sys(close, fd);
	return r;
}

long do_gids(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	long r = sys(setgroups, 0, NULL);
	return r < 0 ? r : sys(setresgid, s->n[0], s->n[0], s->n[0]);
}

long do_uids(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	return sys(setresuid, s->n[0], s->n[0], s->n[0]);
}

long do_dumpable(struct floor_arena *a, const struct floor_step *s)
{
	(void)a, (void)s;
	return sys(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
}

long do_join(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	long n = sys(write, s->fd, "0", 1);
	return n < 0 ? n : 0;
}

long do_setsid(struct floor_arena *a, const struct floor_step *s)
{
	(void)a, (void)s;
	return sys(setsid);
}

long do_cloexec(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	return sys(close_range, s->n[0], ~0u, CLOSE_RANGE_CLOEXEC);
}

long do_stdio(struct floor_arena *a, const struct floor_step *s)
{
	(void)s;
	const int32_t from[3] = {a->null_fd, a->out_fd, a->err_fd};
	for (int i = 0; i < 3; i++) {
		long r = sys(dup3, from[i], i, 0);
		if (r < 0)
			return r;
	}
	return 0;
}

long do_rlimit(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	struct rlimit64 limit = {s->n[1], s->n[2]};
	return sys(prlimit64, 0, s->n[0], &limit, NULL);
}

long do_umask(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	return sys(umask, s->n[0]) < 0 ? -EINVAL : 0;
}

long do_chdir(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	return sys(chdir, s->s[0]);
}

long do_securebits(struct floor_arena *a, const struct floor_step *s)
{
	(void)a;
	return sys(prctl, PR_SET_SECUREBITS, s->n[0], 0, 0, 0);
}

long do_bounding(struct floor_arena *a, const struct floor_step *s)
{
	(void)a, (void)s;
	long r = 0;
	for (unsigned cap = 0; r == 0 && cap < 64; cap++)
		r = sys(prctl, PR_CAPBSET_DROP, cap, 0, 0, 0);
	return r == -EINVAL ? 0 : r; /* past the last one */
}

long do_capset(struct floor_arena *a, const struct floor_step *s)
{
	(void)a, (void)s;
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
	return sys(capset, &header, data); /* takes the ambient ones along */
}

long do_no_new_privs(struct floor_arena *a, const struct floor_step *s)
{
	(void)a, (void)s;
	return sys(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* To whoever supervises; the descriptor ends with our exec. */
static long send_listener(const struct floor_arena *a, int32_t listener)
{
	struct {
		size_t len;
		int level, type;
		int32_t fd, pad;
	} control = {20, 1 /* SOL_SOCKET */, 1 /* SCM_RIGHTS */, listener, 0};
	struct {
		const char *base;
		size_t len;
	} part = {"", 1};
	struct {
		void *name;
		int namelen;
		void *iov;
		size_t iovlen;
		void *control;
		size_t controllen;
		unsigned flags;
	} message = {NULL, 0, &part, 1, &control, sizeof control, 0};
	long n = sys(sendmsg, a->told_fd, &message, 0);
	return n < 0 ? n : 0;
}

long do_seccomp(struct floor_arena *a, const struct floor_step *s)
{
	struct sock_fprog program = {(unsigned short)(s->len[1] / 8),
				     (struct sock_filter *)(uintptr_t)s->s[1]};
	long fd = sys(seccomp, SECCOMP_SET_MODE_FILTER, s->n[0], &program);
	return fd > 0 ? send_listener(a, (int32_t)fd) : fd;
}

long do_ruleset(struct floor_arena *a, const struct floor_step *s)
{
	long fd = sys(landlock_create_ruleset, s->n, sizeof s->n, 0);
	a->ruleset_fd = (int32_t)fd;
	return fd < 0 ? fd : 0;
}

long do_allow_path(struct floor_arena *a, const struct floor_step *s)
{
	struct landlock_path_beneath_attr attr = {.allowed_access = s->n[0]};
	long fd = sys(openat, AT_FDCWD, s->s[0], O_PATH | O_CLOEXEC);
	if (fd < 0)
		return fd;
	attr.parent_fd = (int32_t)fd;
	long r = sys(landlock_add_rule, a->ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, &attr, 0);
	(void)sys(close, fd);
	return r;
}

long do_allow_port(struct floor_arena *a, const struct floor_step *s)
{
	return sys(landlock_add_rule, a->ruleset_fd, 2 /* LANDLOCK_RULE_NET_PORT */, s->n, 0);
}

long do_restrict(struct floor_arena *a, const struct floor_step *s)
{
	long r = sys(landlock_restrict_self, a->ruleset_fd, s->n[0]);
	(void)sys(close, a->ruleset_fd);
	return r;
}
