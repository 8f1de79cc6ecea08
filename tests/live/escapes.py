# SPDX-License-Identifier: Apache-2.0
"""What a payload tries, run inside a box; never outside one. Prints one JSON object: what each
attempt got. An attempt gives a word for how it was refused, or "HOLE" and what it reached."""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import stat
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
HOST = json.loads(sys.argv[1])  # what the caller has put in place for us to look for
NR = {
    "ptrace": 101, "keyctl": 250, "add_key": 248, "request_key": 249, "bpf": 321,
    "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "unshare": 272,
    "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "mount_setattr": 442,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "pidfd_open": 434,
    "pidfd_getfd": 438, "name_to_handle_at": 303, "open_by_handle_at": 304, "kexec_load": 246,
    "init_module": 175, "finit_module": 313, "delete_module": 176, "reboot": 169, "swapon": 167,
    "acct": 163, "quotactl": 179, "syslog": 103, "settimeofday": 164, "clock_settime": 227,
    "adjtimex": 159, "sethostname": 170, "setdomainname": 171, "personality": 135,
    "modify_ldt": 154, "mbind": 237, "set_mempolicy": 238, "migrate_pages": 256,
    "move_pages": 279, "vmsplice": 278, "fanotify_init": 300, "vhangup": 153,
    "lookup_dcookie": 212, "clone3": 435, "clone": 56, "ioperm": 173, "iopl": 172,
    "process_madvise": 440, "memfd_secret": 447, "quotactl_fd": 443, "listmount": 458,
    "statmount": 457, "landlock_create_ruleset": 444,
}  # fmt: skip


def call(name, *args):
    ctypes.set_errno(0)
    wide = [a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in args]
    result = libc.syscall(ctypes.c_long(NR[name] if isinstance(name, str) else name), *wide)
    return result, errno.errorcode.get(ctypes.get_errno(), "") if result < 0 else ""


def refused(name, *args):
    result, why = call(name, *args)
    return why or f"HOLE: {name} gave {result}"


def opened(path, flags=os.O_RDONLY):
    """How an open was refused, or what was read there."""
    try:
        fd = os.open(path, flags)
    except OSError as error:
        return errno.errorcode[error.errno]
    try:
        there = f" holds {os.read(fd, 40)!r}" if flags == os.O_RDONLY else ""
        return f"HOLE: {path}{there}"
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        os.close(fd)


def worst(answers):
    """A hole, if one is among them; else all words."""
    answers = list(answers)
    holes = [each for each in answers if each.startswith("HOLE")]
    return holes[0] if holes else " ".join(sorted(set(answers)))


# ---- system calls -------------------------------------------------------------------------

NOT_ASKED = {"clone", "clone3", "personality", "pidfd_open", "landlock_create_ruleset"}


def each_forbidden_call():
    return worst(refused(name, 0, 0, 0, 0, 0, 0) for name in NR if name not in NOT_ASKED)


def clone_into_namespaces():
    flags = [0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000]
    return worst(refused("clone", flag | signal.SIGCHLD, 0, 0, 0, 0) for flag in flags)


def clone3_is_not_there():
    return refused("clone3", (ctypes.c_char * 88)(), 88)


def upper_half_of_arguments():
    """Filters compare words; the kernel takes ints: bits above 32 must not hide a flag."""
    high = 1 << 32
    return worst(
        [
            refused("clone", high | 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
            refused(41, high | socket.AF_NETLINK, socket.SOCK_RAW, 9),
            refused(41, high | 40, socket.SOCK_STREAM, 0),  # AF_VSOCK
            refused(16, 0, high | 0x5412, b"x"),  # TIOCSTI
            refused("personality", high | 0x0040000),
        ]
    )


def sockets_of_families():
    families = [a for a in range(46) if a not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)]
    return worst(
        refused(41, family, kind, 0)
        for family in families
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW)
        if family != socket.AF_NETLINK
    )


def netlink_but_route():
    return worst(refused(41, socket.AF_NETLINK, socket.SOCK_RAW, proto) for proto in range(1, 22))


def raw_sockets():
    kinds = [(socket.AF_INET, 1), (socket.AF_INET, 255), (socket.AF_INET6, 58)]
    return worst(refused(41, family, socket.SOCK_RAW, proto) for family, proto in kinds)


# ---- files ----------------------------------------------------------------------------------


def secrets_by_path():
    return worst(opened(path) for path in HOST["secrets"])


def secrets_behind_proc():
    ways = ("/proc/1/root", "/proc/self/root", "/proc/1/cwd", "/proc/self/cwd", "/proc/2/root")
    return worst(opened(way + path) for way in ways for path in HOST["secrets"])


def secrets_above_the_root():
    found = []
    os.chdir("/")
    for path in HOST["secrets"]:
        found.append(opened("../" * 30 + path.lstrip("/")))
        found.append(opened("/.." * 30 + path))
    return worst(found)


def writing_anywhere():
    spots = ["/", "/etc", "/usr", "/usr/lib", "/bin", "/dev", "/proc", "/proc/self", "/sys"]
    flags = os.O_WRONLY | os.O_CREAT
    return worst(opened(f"{spot}/isolate-escape", flags) for spot in spots)


def kernel_files():
    paths = """
        /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe
        /proc/sys/vm/overcommit_memory /proc/sys/kernel/hostname /proc/sys/fs/file-max
        /proc/sys/net/ipv4/ip_forward /proc/irq/0/smp_affinity /proc/kcore /proc/mtrr
        /proc/1/oom_score_adj /proc/1/clear_refs /proc/bus/pci /proc/acpi /proc/scsi
        /sys/kernel/uevent_helper /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/memory/tasks
    """.split()
    return worst(opened(path, os.O_WRONLY) for path in paths)


def maps_of_ids():
    """They can be opened, by who they are of; a second write of them is refused."""
    found = []
    for name in ("uid_map", "gid_map", "setgroups"):
        try:
            with open(f"/proc/self/{name}", "wb", 0) as file:
                file.write(b"allow" if name == "setgroups" else b"0 0 1\n")
            found.append(f"HOLE: {name}")
        except OSError as error:
            found.append(errno.errorcode[error.errno])
    return worst(found)


def timers_of_init():
    try:
        with open("/proc/1/timerslack_ns", "wb", 0) as file:
            file.write(b"4000000000")
        return "HOLE: slack"
    except OSError as error:
        return errno.errorcode[error.errno]


def kernel_secrets():
    paths = """
        /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/kmsg /proc/kpagecount
        /proc/kpageflags /proc/1/environ /proc/1/maps /proc/1/mem /proc/1/stack /proc/1/syscall
        /proc/1/auxv /proc/1/io /proc/1/smaps /proc/1/pagemap /proc/1/timerslack_ns
        /proc/1/map_files /sys/firmware /sys/kernel/debug /sys/class/net /etc/machine-id /etc/shadow
        /dev/mem /dev/kmsg /dev/sda /dev/vda /dev/loop-control /dev/fuse /dev/kvm /dev/net/tun
    """.split()
    found = []
    for path in paths:
        word = opened(path)
        found.append("empty" if word.endswith("holds b''") else word)
    return worst(found)


def names_of_the_host():
    words = {os.uname().nodename, socket.gethostname()}
    for path in ("/proc/sys/kernel/hostname", "/etc/hostname", "/proc/self/mountinfo"):
        try:
            words.add(open(path).read())
        except OSError:
            continue
    told = [name for name in HOST["names"] if any(name in word.split() for word in words)]
    return f"HOLE: {told}" if told else "unknown"


def devices_can_be_made():
    os.chdir("/tmp")
    found = []
    for kind, number in ((stat.S_IFCHR, (1, 1)), (stat.S_IFBLK, (8, 0)), (stat.S_IFCHR, (1, 3))):
        try:
            os.mknod("isolate-node", kind | 0o666, os.makedev(*number))
            found.append(opened("isolate-node"))
            os.unlink("isolate-node")
        except OSError as error:
            found.append(errno.errorcode[error.errno])
    return worst(found)


def set_ids_in(folder):
    """A set-user-ID copy of a program gives nobody anything: every mount is nosuid."""
    path = os.path.join(folder, "isolate-suid")
    with open("/usr/bin/id", "rb") as source, open(path, "wb") as copy:
        copy.write(source.read())
    try:
        os.chmod(path, 0o6755)
        child = os.popen(f"{path} -u")
        word = child.read().strip()
        child.close()
        return "own" if word in ("", str(os.getuid())) else f"HOLE: uid {word}"
    finally:
        os.unlink(path)


def set_ids_in_tmp():
    return set_ids_in("/tmp")


def set_ids_in_what_is_written():
    return worst(set_ids_in(folder) for folder in HOST["write"]) if HOST["write"] else "none"


def links_out_of_what_is_written():
    """Links of both kinds that lead out: what they name is the box's, if anything."""
    found = []
    for folder in HOST["write"]:
        for target in HOST["secrets"]:
            path = os.path.join(folder, "isolate-link")
            os.symlink(target, path)
            found.append(opened(path))
            found.append(opened(path, os.O_WRONLY))
            os.unlink(path)
            try:
                os.link(target, path)
                found.append(opened(path))
                os.unlink(path)
            except OSError as error:
                found.append(errno.errorcode[error.errno])
    return worst(found) if found else "none"


def owners_in_what_is_written():
    found = []
    for folder in HOST["write"]:
        path = os.path.join(folder, "isolate-owned")
        with open(path, "w"):
            pass
        for owner in (0, 1, 65534, HOST["uid"] + 1):
            try:
                os.chown(path, owner, -1)
                found.append("own" if os.stat(path).st_uid == os.getuid() else f"HOLE: {owner}")
            except OSError as error:
                found.append(errno.errorcode[error.errno])
        os.unlink(path)
    return worst(found) if found else "none"


def handles_and_magic_links():
    fd = os.open("/usr/bin/env", os.O_PATH)
    found = [opened(f"/proc/self/fd/{fd}", os.O_WRONLY)]
    found.append(opened("/proc/self/exe", os.O_WRONLY))
    found.append(opened("/proc/1/exe", os.O_WRONLY))
    found.append(opened("/proc/1/exe"))
    os.close(fd)
    return worst(found)


def remounting():
    found = [refused("mount", b"none", b"/", b"", 0x1020, b"")]
    found.append(refused("umount2", b"/proc/sys", 2))
    found.append(refused("umount2", b"/tmp", 2))
    return worst(found)


# ---- processes ------------------------------------------------------------------------------


def descriptors_that_came_along():
    kinds = []
    for fd in range(3, 256):
        try:
            kinds.append(f"{fd}:{os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:
            continue
    known = (f"{os.getpid()}/fd", "/proc/")
    left = [kind for kind in kinds if not any(word in kind for word in known)]
    left = [kind for kind in left if int(kind.split(":")[0]) not in HOST["fds"]]
    return f"HOLE: {left}" if left else "closed"


def standard_streams_are_nobody_s():
    """Flags set on them show in the caller only if they are its own open files."""
    for fd in (0, 1, 2):
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_APPEND)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    files = [[os.fstat(fd).st_dev, os.fstat(fd).st_ino] for fd in (0, 1, 2)]
    same = [each for each in files if each in HOST["inodes"]]
    return f"HOLE: {same}" if same else "own"


def processes_that_are_seen():
    """Only the box's own: our parents are init and perhaps a keeper."""
    seen = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return f"HOLE: {seen}" if len(seen) > HOST["processes"] else "own"


def signals_to_init():
    found = []
    for number in (*range(1, 32), *range(34, 65)):
        try:
            os.kill(1, number)
            found.append("ignored")
        except OSError as error:
            found.append(errno.errorcode[error.errno])
    return worst(found)


def limits_of_init():
    found = []
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_NPROC):
        try:
            resource.prlimit(1, limit, (1, 1))
            found.append("taken")  # by a box whose init has our uid; it only hurts itself
        except OSError as error:
            found.append(errno.errorcode[error.errno])
    return worst(found)


def raising_limits():
    found = []
    for name in ("CORE", "NOFILE", "NPROC", "MEMLOCK", "RTPRIO", "NICE", "MSGQUEUE", "SIGPENDING"):
        limit = getattr(resource, f"RLIMIT_{name}")
        soft, hard = resource.getrlimit(limit)
        try:
            resource.setrlimit(limit, (soft, hard + 1 if hard >= 0 else hard))
            found.append("none" if hard < 0 else f"HOLE: {name} over {hard}")
        except (OSError, ValueError):
            found.append("EPERM")
    return worst(found)


def better_scheduling():
    found = []
    for policy in (os.SCHED_FIFO, os.SCHED_RR):
        try:
            os.sched_setscheduler(0, policy, os.sched_param(1))
            found.append(f"HOLE: policy {policy}")
        except OSError as error:
            found.append(errno.errorcode[error.errno])
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -1)
        found.append("HOLE: nice")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
    deadline = struct.pack("=IIQiIQQQ", 48, 6, 0, 0, 0, 1000000, 2000000, 2000000)
    found.append(refused(314, 0, deadline, 0))
    found.append(refused(251, 1, 0, 1 << 13))  # ioprio_set, real time
    return worst(found)


def cores():
    return "none" if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) else "HOLE: a core"


def privileges():
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines())
    sets = [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
    if any(sets):
        return f"HOLE: {sets}"
    if status["NoNewPrivs"] != "1" or status["Seccomp"] != "2":
        return "HOLE: no lock"
    ids = set(map(int, status["Uid"].split() + status["Gid"].split()))
    return "HOLE: 0" if 0 in ids or status["Groups"].strip() not in ("", "65534") else "none"


def other_ids():
    found = []
    for change in (os.setuid, os.setgid, os.seteuid, os.setegid):
        for number in (0, 1, HOST["uid"] + 7):
            try:
                change(number)
                found.append(f"HOLE: {change.__name__} {number}")
            except OSError as error:
                found.append(errno.errorcode[error.errno])
    try:
        os.setgroups([0])
        found.append("HOLE: setgroups")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
    return worst(found)


def session():
    return "own" if os.getsid(0) == os.getpid() and os.getpgrp() == os.getpid() else "HOLE: shared"


def terminal():
    return opened("/dev/tty") if not HOST["pty"] else "own"


def typing_for_the_caller():
    found = []
    for fd in (0, 1, 2):
        for request in (0x5412, 0x541C):  # TIOCSTI, TIOCLINUX
            try:
                fcntl.ioctl(fd, request, b"x")
                found.append(f"HOLE: {request:#x} on {fd}")
            except OSError as error:
                found.append(errno.errorcode[error.errno])
    return worst(found)


# ---- what lies between processes ---------------------------------------------------------------


def system_five():
    get = (("shmget", 29), ("semget", 64), ("msgget", 68))
    words = [refused(nr, HOST["ipc"], 1, 0) for _, nr in get]
    return worst(words)


def abstract_sockets():
    found = []
    for name in HOST["abstract"]:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(f"\0{name}")
                found.append(f"HOLE: @{name}")
            except OSError as error:
                found.append(errno.errorcode[error.errno])
    return worst(found)


def loopback_of_the_host():
    found = []
    for port in HOST["ports"]:
        for address in ("127.0.0.1", *HOST["addresses"]):
            with socket.socket() as sock:
                sock.settimeout(2)
                try:
                    sock.connect((address, port))
                    found.append(f"HOLE: {address}:{port}")
                except OSError as error:
                    found.append(errno.errorcode.get(error.errno, "time"))
    return worst(found)


def keyrings():
    return worst(
        [
            refused("keyctl", 0, -3, 0),
            refused("keyctl", 11, HOST["key"], 0, 0),
            refused("request_key", b"user", b"isolate-test", 0, 0),
        ]
    )


def shared_memory():
    try:
        names = os.listdir("/dev/shm")
    except OSError as error:
        return errno.errorcode[error.errno]
    return f"HOLE: {names}" if set(names) & set(HOST["shm"]) else "own"


def writable_and_executable_kernel_pages():
    """An ordinary right of programs (just-in-time compilers); only that it gives no more."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.close()
    return refused(10, 0xFFFFFFFF81000000 - (1 << 64), 4096, 7)  # mprotect of the kernel's


def main():
    found = {}
    for name, attempt in list(globals().items()):
        code = getattr(attempt, "__code__", None)
        if code is None or code.co_argcount or name == "main" or code.co_filename != __file__:
            continue
        try:
            found[name] = attempt()
        except Exception as error:
            found[name] = f"raised {type(error).__name__}: {error}"
    print("ATTEMPTS " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
