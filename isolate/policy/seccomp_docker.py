# SPDX-License-Identifier: Apache-2.0
"""Docker's default profile as data, resolved for capabilities, architecture and kernel.

Source: the seccomp profile of github.com/moby/profiles at commit cd3bed8061c7, and the page
"Seccomp security profiles for Docker", which gives the reasons.
"""

from __future__ import annotations

from attrs import frozen

from isolate.errors import PolicyError
from isolate.policy.rules import ALLOW, Arg, Condition, Errno, Layer, Rule

__all__ = ["SOURCE", "layer"]

SOURCE = "moby/profiles seccomp, commit cd3bed8061c7b7378b61fc6827c7885779417a75"
ARCHES = ("x86_64", "aarch64", "riscv64", "i386")
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
NAMESPACES = 0x7E020000

ALWAYS = """
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset
    chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
    clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range
    connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
    epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve
    execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
    futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid
    getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid
    getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
    ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open
    openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd
    signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64
    statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat
    uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
    writev
""".split()

# What each capability adds.
BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
        lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
        umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
BY_ARCH = {
    "x86_64": "arch_prctl modify_ldt",
    "aarch64": """
        arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls
    """,
    "riscv64": "riscv_flush_icache",
}
FURTHER = {"x86_64": ("i386",)}


@frozen
class Tested:
    """A call that is let through for some arguments."""

    syscall: str
    test: Condition
    reason: str


SOCKETS = "not AF_ALG, nor AF_VSOCK"
PERSONALITIES = "Linux, 32-bit, UNAME26, both, and asking"
TESTED = (
    Tested("socket", Arg(0) < 38, SOCKETS),
    Tested("socket", Arg(0) == 39, SOCKETS),
    Tested("socket", Arg(0) > 40, SOCKETS),
    *(
        Tested("personality", Arg(0) == value, PERSONALITIES)
        for value in (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
    ),
)


def layer(*, arch: str, caps: frozenset[str], kernel: tuple[int, int]) -> Layer:
    """Docker's default for a box.

    Arguments are compared in 64 bits, as Docker's runtime does it. Calls that no table knows get
    ENOSYS, as runc has it. x32, which the profile lets in, is killed, as in every filter here.

    Raises: PolicyError, if there is no table of the architecture.
    """
    if arch not in ARCHES:
        raise PolicyError(f"{arch!r} is no architecture; there are: {', '.join(ARCHES)}")
    admin = "CAP_SYS_ADMIN" in caps
    rules = [Rule(name) for name in (*ALWAYS, *BY_ARCH.get(arch, "").split())]
    for cap, names in BY_CAPABILITY.items():
        if cap in caps:
            rules += [Rule(name, reason=cap) for name in names.split()]
    if kernel >= (4, 8):
        safe = "process_vm_readv process_vm_writev ptrace".split()
        rules += [Rule(name, reason="a filter is checked after ptrace") for name in safe]
    rules += [Rule(each.syscall, ALLOW, (each.test,), each.reason) for each in TESTED]
    if not admin:
        rules.append(Rule("clone", ALLOW, (Arg(0) & NAMESPACES == 0,), "no new namespace"))
        rules.append(Rule("clone3", Errno("ENOSYS"), reason="its flags can't be read: use clone"))
    unique = tuple(dict.fromkeys(rules))
    further = FURTHER.get(arch, ())
    return Layer(unique, Errno("EPERM"), Errno("ENOSYS"), further, name="docker")
