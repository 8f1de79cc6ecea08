/* SPDX-License-Identifier: Apache-2.0 */
#include "callers.h"
#include "../../_native/plan.h"
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void caller_sockets(int *ends)
{
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
}

/* mkdirat, getppid and bind go to the listener; everything else is allowed. */
static int listener(void)
{
	struct sock_filter code[] = {
		{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
		{BPF_JMP | BPF_JEQ | BPF_K, 3, 0, SYS_mkdirat},
		{BPF_JMP | BPF_JEQ | BPF_K, 2, 0, SYS_getppid},
		{BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SYS_bind},
		{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
		{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF},
	};
	struct sock_fprog program = {sizeof code / sizeof *code, code};
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
			    &program);
}

static void send_fd(int sock, int fd)
{
	char byte = 'n', control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {&byte, 1};
	struct msghdr hdr = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&hdr);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	CHECK(sendmsg(sock, &hdr, MSG_NOSIGNAL) == 1);
}

pid_t caller_starts(struct iso_notify *n, unsigned int tag, int (*what)(void))
{
	int ends[2];
	caller_sockets(ends);
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		/* The supervisor's copies of earlier listeners would keep those alive. */
		for (int fd = 3; fd < 64; fd++)
			if (fd != ends[1])
				close(fd);
		int fd = listener();
		CHECK(fd >= 0);
		send_fd(ends[1], fd);
		close(fd);
		close(ends[1]);
		_exit(what());
	}
	close(ends[1]);
	CHECK(iso_notify_add(n, ends[0], tag) == 0);
	return pid;
}

int caller_ends(pid_t pid)
{
	int status;
	CHECK(waitpid(pid, &status, 0) == pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int caller_lives(pid_t pid)
{
	siginfo_t info = {0};
	CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0);
	return info.si_pid == 0;
}

int caller_makes_directories(void)
{
	int refused = 0;
	for (int i = 0; i < CALLER_TIMES; i++)
		refused += mkdirat(-1, "/one", 0) < 0 && (errno == EACCES || errno == EPERM);
	refused += mkdirat(-1, "/two", 0) < 0 && (errno == EACCES || errno == EPERM);
	return refused == CALLER_TIMES + 1 ? CALLER_ALL_REFUSED : CALLER_TIMES + 1 - refused;
}

int caller_makes_many_kinds(void)
{
	char name[32];
	for (int i = 0; i < CALLER_KINDS; i++) {
		snprintf(name, sizeof name, "/kind-%d", i);
		if (mkdirat(-1, name, 0) == 0 || errno != EPERM)
			return 1;
	}
	return 0;
}

int caller_asks_a_handler(void)
{
	if (syscall(SYS_getppid) != 4242)
		return 1;
	if (mkdirat(-1, "/handler", 0) != CALLER_FD || fcntl(CALLER_FD, F_GETFD) != FD_CLOEXEC)
		return 2;
	int fd = mkdirat(-1, "/handler", 0);
	if (fd < 3 || fcntl(fd, F_GETFD) != 0)
		return 3;
	return mkdirat(-1, "/no/such/directory", 0) < 0 && errno == ENOENT ? 0 : 4;
}

int caller_lies_about_memory(void)
{
	char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			   0);
	char *end = pages + 4096 - 16;
	if (pages == MAP_FAILED || munmap(pages + 4096, 4096) < 0)
		return 1;
	memset(end, 'x', 15);
	end[15] = 'y';
	int refused = 0;
	refused += syscall(SYS_bind, 1, 16, 64) < 0;
	refused += syscall(SYS_bind, 2, end, 16) < 0;
	refused += syscall(SYS_bind, 3, end, 0xffffffff) < 0;
	refused += syscall(SYS_bind, 4, pages, 0x80000000) < 0;
	return refused == 4 ? 0 : 2;
}

int caller_asks_its_parent(void)
{
	for (int i = 0; i < CALLER_TIMES; i++)
		if (syscall(SYS_getppid) <= 0)
			return 1;
	return 0;
}

int caller_hears_enosys(void)
{
	return mkdirat(-1, "/one", 0) < 0 && errno == ENOSYS ? 0 : 1;
}
