# SPDX-License-Identifier: Apache-2.0
"""Our default filter: what compute and Python programs need; each refusal with its reason.

Every call that the tables know and that is not refused here is allowed; a number that no table
knows gets ENOSYS, so that programs fall back from calls that are newer than this list. uprobe and
uretprobe can't be refused: the kernel lets them pass by every filter, and answers them itself.
"""

from __future__ import annotations

from isolate.abi.syscalls import ARCHES, numbers
from isolate.policy.rules import ALLOW, Arg, Condition, Errno, Layer, Rule

__all__ = ["GROUPS", "REFUSED", "default_layer"]

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (linux/sched.h); NEWTIME shares
# its bit with the exit signal of clone and is clone3's and unshare's only.
CLONE_NEW = 0x7E020000
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM, SOCK_TYPE_MASK = 1, 2, 0xF
PROTOCOLS = (0, 1, 6, 17, 58)  # any, ICMP, TCP, UDP, ICMPv6
NETLINK_ROUTE = 0
TERMINAL = {
    0x5412: "TIOCSTI types into a terminal that others read",
    0x541C: "TIOCLINUX pastes into a console",
    0x5423: "TIOCSETD loads line disciplines, a frequent place of kernel bugs",
}

# Not let in, and not listed as refused: the two of i386 hide other calls' arguments, and the
# kernel answers uprobe whatever a filter says.
NOT_LISTED = {"socketcall", "ipc", "uprobe"}

# name of the group -> (its calls, why)
REFUSED: dict[str, tuple[str, str]] = {
    "@mount": (
        "mount umount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen "
        "fsconfig fsmount fspick mount_setattr statmount listmount",
        "the file system is the box's, and is made before",
    ),
    "@namespace": (
        "unshare setns",
        "a namespace of its own gives capabilities in it, and with them much of the kernel",
    ),
    "@debug": (
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp "
        "pidfd_getfd perf_event_open",
        "it reaches into other processes",
    ),
    "@kernel": (
        "bpf userfaultfd io_uring_setup io_uring_enter io_uring_register",
        "it has been the way into the kernel too often; io_uring passes by this filter",
    ),
    "@keyring": ("keyctl add_key request_key", "keys are not in any namespace"),
    "@handle": (
        "name_to_handle_at open_by_handle_at",
        "a handle opens files by number, past every mount",
    ),
    "@module": (
        "init_module finit_module delete_module create_module get_kernel_syms query_module "
        "kexec_load kexec_file_load reboot",
        "it is about the machine",
    ),
    "@clock": (
        "settimeofday clock_settime clock_settime64 clock_adjtime clock_adjtime64 adjtimex stime",
        "there is one clock for all",
    ),
    "@admin": (
        "swapon swapoff acct quotactl quotactl_fd syslog sethostname setdomainname vhangup "
        "lookup_dcookie fanotify_init fanotify_mark nfsservctl",
        "it is about the machine",
    ),
    "@numa": (
        "mbind get_mempolicy set_mempolicy set_mempolicy_home_node migrate_pages move_pages",
        "where memory lies is the machine's business; move_pages tells of other processes",
    ),
    "@raw-io": (
        "iopl ioperm modify_ldt vm86 vm86old pciconfig_iobase pciconfig_read pciconfig_write",
        "old ways to the processor, with old bugs",
    ),
    "@memory": (
        "vmsplice memfd_secret remap_file_pages",
        "pages shared with a pipe change after they were checked; secret ones are not seen",
    ),
    "@obsolete": (
        "_sysctl sysfs uselib ustat bdflush getpmsg putpmsg afs_syscall tuxcall security vserver "
        "break oldstat oldfstat oldlstat oldolduname olduname stty gtty nice ftime prof profil "
        "signal sigaction sigsuspend sigpending sgetmask ssetmask lock mpx ulimit readdir idle",
        "nobody needs it, and nobody tests it any more",
    ),
    "@lsm": (
        "lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
        "security modules are what holds it; it doesn't change them, nor look at them",
    ),
    "@attributes": (
        "file_getattr file_setattr",
        "inode flags and project ids: newer than what programs use, which is an ioctl",
    ),
}

GROUPS: dict[str, tuple[str, ...]] = {
    **{name: tuple(calls.split()) for name, (calls, _) in REFUSED.items()},
    "@network": tuple(
        "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg "
        "recvmsg sendmmsg sendmsg sendto setsockopt shutdown socket socketcall socketpair".split()
    ),
    "@process": tuple(
        "clone clone3 execve execveat exit exit_group fork kill pidfd_open pidfd_send_signal "
        "tgkill tkill vfork wait4 waitid waitpid".split()
    ),
    "@file": tuple(
        "access chmod chown close creat faccessat faccessat2 fchmod fchmodat fchmodat2 fchown "
        "fchownat fstat ftruncate getdents getdents64 lchown link linkat lseek lstat mkdir "
        "mkdirat mknod mknodat newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 "
        "pwritev pwritev2 read readlink readlinkat readv rename renameat renameat2 rmdir stat "
        "statx symlink symlinkat truncate unlink unlinkat utimensat write writev".split()
    ),
    "@io-uring": ("io_uring_setup", "io_uring_enter", "io_uring_register"),
}


def conditional() -> list[Rule]:
    """Calls whose arguments decide."""
    wrong_family = "only UNIX, INET, INET6: other families are little used and often broken"
    rules = [
        Rule("clone", ALLOW, (Arg(0) & CLONE_NEW == 0,), "no new namespaces"),
        Rule("clone3", Errno("ENOSYS"), (), "its flags are in memory, where no filter can look"),
        Rule("ioctl", ALLOW),
        Rule("personality", ALLOW, (Arg(0) == 0,), "the usual one: others turn protections off"),
        Rule("personality", ALLOW, (Arg(0) == 0xFFFFFFFF,), "only asks"),
        Rule("prlimit64", ALLOW, (Arg(0, width=32) == 0,), "its own limits"),
        Rule("prlimit64", ALLOW, (Arg(2) == 0,), "only asks"),
    ]
    for number, reason in TERMINAL.items():
        rules.append(Rule("ioctl", Errno("EPERM"), (Arg(1, width=32) == number,), reason))
    for name in ("socket", "socketpair"):
        rules.append(Rule(name, ALLOW, (Arg(0, width=32) == AF_UNIX,), wrong_family))
    for family in (AF_INET, AF_INET6):
        for kind in (SOCK_STREAM, SOCK_DGRAM):
            for protocol in PROTOCOLS:
                tests = (
                    Arg(0, width=32) == family,
                    Arg(1, width=32, mask=SOCK_TYPE_MASK) == kind,
                    Arg(2, width=32) == protocol,
                )
                rules.append(Rule("socket", ALLOW, tests, wrong_family))
    netlink: tuple[Condition, ...] = (
        Arg(0, width=32) == AF_NETLINK,
        Arg(2, width=32) == NETLINK_ROUTE,
    )
    rules.append(Rule("socket", ALLOW, netlink, "if_nameindex and getaddrinfo ask by it"))
    return rules


def default_layer() -> Layer:
    """The filter of a `Sandbox`."""
    rules = conditional()
    told = {rule.syscall for rule in rules}
    for calls, reason in REFUSED.values():
        for name in calls.split():
            rules.append(Rule(name, Errno("EPERM"), (), reason))
            told.add(name)
    known = {name for arch in ARCHES for name in numbers(arch)}
    rules += [Rule(name) for name in sorted(known - told - NOT_LISTED)]
    return Layer(tuple(rules), Errno("EPERM"), unknown=Errno("ENOSYS"), name="default")
