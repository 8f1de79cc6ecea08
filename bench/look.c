/* SPDX-License-Identifier: Apache-2.0
 * What a box looks like from inside: static, without libc.  "kind name value" lines on stdout; the
 * harness compares them, so that nobody is faster by doing less. */
#include "sys.h"

#include <linux/fcntl.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/sockios.h>
#include <asm/ioctls.h>

static char out[65536];
static uint32_t used;

static void put(const char *s)
{
	while (*s && used < sizeof out)
		out[used++] = *s++;
}

static void put_number(long n)
{
	char digits[24];
	int i = 0;
	if (n < 0)
		put("-");
	for (n = n < 0 ? -n : n; i == 0 || n; n /= 10)
		digits[i++] = (char)('0' + n % 10);
	while (i-- > 0 && used < sizeof out)
		out[used++] = digits[i];
}

static void number(const char *kind, const char *name, long value)
{
	put(kind), put(" "), put(name), put(" ");
	put_number(value);
	put("\n");
}

static void namespaces(void)
{
	static const char *const kinds[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		char path[32] = "/proc/self/ns/", text[64];
		for (int k = 0; kinds[i][k]; k++)
			path[14 + k] = kinds[i][k];
		long n = sys(readlinkat, AT_FDCWD, path, text, sizeof text - 1);
		text[n < 0 ? 0 : n] = 0;
		put("ns "), put(kinds[i]), put(" "), put(n < 0 ? "unknown" : text), put("\n");
	}
}

static void file(const char *kind, const char *path)
{
	long fd = sys(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	int start = 1;
	char data[4096];
	for (long n; fd >= 0 && (n = sys(read, fd, data, sizeof data)) > 0;) {
		for (long i = 0; i < n && used < sizeof out - 64; i++) {
			if (start)
				put(kind), put(" ");
			start = data[i] == '\n';
			out[used++] = data[i];
		}
	}
	if (!start)
		put("\n");
}

/* What must not open, and what should. A file that it made is removed: it also runs on the host. */
static void opens(void)
{
	static const struct {
		const char *path;
		long flags;
	} tries[] = {
		{"/etc/shadow", O_RDONLY},
		{"/root", O_RDONLY | O_DIRECTORY},
		{"/sys/kernel", O_RDONLY | O_DIRECTORY},
		{"/proc/sys/kernel/core_pattern", O_WRONLY},
		{"/proc/sysrq-trigger", O_WRONLY},
		{"/usr/isolate-look", O_CREAT | O_WRONLY},
		{"/isolate-look", O_CREAT | O_WRONLY},
		{"/tmp/isolate-look", O_CREAT | O_WRONLY},
		{"/dev/shm/isolate-look", O_CREAT | O_WRONLY},
		{"/dev/null", O_RDWR},
		{"/dev/urandom", O_RDONLY},
	};
	for (unsigned i = 0; i < sizeof tries / sizeof *tries; i++) {
		long fd = sys(openat, AT_FDCWD, tries[i].path, tries[i].flags, 0600);
		number("open", tries[i].path, fd < 0 ? fd : 0);
		if (fd < 0)
			continue;
		(void)sys(close, fd);
		if (tries[i].flags & O_CREAT)
			(void)sys(unlinkat, AT_FDCWD, tries[i].path, 0);
	}
}

/* Bytes that can be read of a file that tells of the machine: 0 if it is masked. */
static void masked(void)
{
	static const char *const paths[] = {"/proc/kallsyms", "/proc/timer_list", "/proc/keys",
					    "/proc/iomem", "/proc/vmallocinfo"};
	char data[64];
	for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
		long fd = sys(openat, AT_FDCWD, paths[i], O_RDONLY | O_CLOEXEC);
		number("read", paths[i], fd < 0 ? fd : sys(read, fd, data, sizeof data));
		if (fd >= 0)
			(void)sys(close, fd);
	}
}

/* Calls that a filter should refuse; the arguments are nonsense, so that none does anything. */
static void calls(void)
{
	number("call", "unshare", sys(unshare, 1));
	number("call", "setns", sys(setns, -1, 0));
	number("call", "mount", sys(mount, 0, 0, 0, 0, 0));
	number("call", "open_tree", sys(open_tree, -1, "", 0));
	number("call", "bpf", sys(bpf, 99, 0, 0));
	number("call", "keyctl", sys(keyctl, 9999, 0, 0, 0, 0));
	number("call", "io_uring_setup", sys(io_uring_setup, 0, 0));
	number("call", "ptrace", sys(ptrace, 9999, 0, 0, 0));
	number("call", "userfaultfd", sys(userfaultfd, 0xffff));
	number("call", "perf_event_open", sys(perf_event_open, 0, 0, 0, -1, 0));
	number("call", "clone3", sys(clone3, 0, 0));
	number("call", "vsock", sys(socket, 40, 1, 0));
	number("call", "packet", sys(socket, 17, 3, 0));
	number("call", "TIOCSTI", sys(ioctl, -1, TIOCSTI, 0));
}

static void own(void)
{
	struct rlimit64 core = {1, 1}, files = {0, 0};
	char cwd[256] = "";
	(void)sys(prlimit64, 0, RLIMIT_CORE, 0, &core);
	(void)sys(prlimit64, 0, RLIMIT_NOFILE, 0, &files);
	number("own", "core", (long)core.rlim_max);
	number("own", "nofile", (long)files.rlim_max);
	number("own", "pid", sys(getpid));
	number("own", "sid", sys(getsid, 0)); /* 0: of somebody outside */
	number("own", "cwd", sys(getcwd, cwd, sizeof cwd));
	struct {
		char name[16];
		int16_t flags;
		char rest[22];
	} request = {.name = {'l', 'o'}};
	long fd = sys(socket, 2, 2, 0);
	long r = fd < 0 ? fd : sys(ioctl, fd, SIOCGIFFLAGS, &request);
	number("own", "lo", r < 0 ? r : request.flags & 1);
	if (fd >= 0)
		(void)sys(close, fd);
	for (int i = 3; i < 64; i++)
		if (sys(fcntl, i, F_GETFD, 0) >= 0)
			number("own", "fd", i);
}

__attribute__((used)) _Noreturn void look_main(void);
_Noreturn void look_main(void)
{
	own();
	namespaces();
	file("status", "/proc/self/status");
	file("uid_map", "/proc/self/uid_map");
	file("mount", "/proc/self/mountinfo");
	file("link", "/proc/self/net/dev");
	opens();
	masked();
	calls();
	for (uint32_t i = 0; i < used;) {
		long n = sys(write, 1, out + i, used - i);
		if (n <= 0)
			for (;;)
				(void)sys(exit_group, 1);
		i += (uint32_t)n;
	}
	for (;;)
		(void)sys(exit_group, 0);
}

void *memset(void *to, int c, size_t n);
void *memset(void *to, int c, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((volatile char *)to)[i] = (char)c;
	return to;
}

__asm__(".globl _start\n_start:\n\t"
#if defined(__x86_64__)
	"andq $-16, %rsp\n\tcall look_main\n"
#else
	"bl look_main\n"
#endif
);
