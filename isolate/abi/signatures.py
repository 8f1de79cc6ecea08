# SPDX-License-Identifier: Apache-2.0
"""What the arguments of system calls are: for reports, for handlers, for learning.

A call that is not listed has arguments that nobody knows: they are shown as numbers, and count as
pointers wherever that is the safe side. Source: section 2 of the manual pages, linux/syscalls.h.
"""

from __future__ import annotations

from functools import cache

from attrs import frozen

__all__ = ["ENUMS", "Param", "params", "pointer_free"]

# name:kind. "str" is a path or a name in memory, "addr" a socket address whose length is the next
# argument, "ptr" other memory; "int" and "hex" are numbers, "fd" a descriptor, "pid", "oct" a mode;
# the other kinds are tables of isolate/abi/words.py.
TABLE = """
accept fd:fd addr:ptr len:ptr
accept4 fd:fd addr:ptr len:ptr flags:socktype
access path:str mode:int
acct path:str
add_key type:str description:str payload:ptr size:int keyring:int
adjtimex buf:ptr
arch_prctl code:hex addr:ptr
bind fd:fd addr:addr len:int
bpf cmd:bpf attr:ptr size:int
chdir path:str
chmod path:str mode:oct
chown path:str uid:int gid:int
chroot path:str
clock_adjtime clock:int buf:ptr
clock_settime clock:int time:ptr
clone flags:clone stack:ptr parent_tid:ptr child_tid:ptr tls:ptr
clone3 args:ptr size:int
close fd:fd
connect fd:fd addr:addr len:int
creat path:str mode:oct
delete_module name:str flags:hex
dup fd:fd
dup2 fd:fd to:fd
dup3 fd:fd to:fd flags:open
execve path:str argv:ptr envp:ptr
execveat dirfd:fd path:str argv:ptr envp:ptr flags:hex
exit code:int
exit_group code:int
faccessat dirfd:fd path:str mode:int
faccessat2 dirfd:fd path:str mode:int flags:hex
fanotify_init flags:hex event_flags:hex
fchmod fd:fd mode:oct
fchmodat dirfd:fd path:str mode:oct
fchmodat2 dirfd:fd path:str mode:oct flags:hex
fchown fd:fd uid:int gid:int
fchownat dirfd:fd path:str uid:int gid:int flags:hex
fcntl fd:fd cmd:fcntl arg:ptr
finit_module fd:fd params:str flags:hex
flock fd:fd op:int
fork
fsconfig fd:fd cmd:int key:str value:ptr aux:int
fsmount fd:fd flags:hex attr:hex
fsopen fs:str flags:hex
fspick dirfd:fd path:str flags:hex
fsync fd:fd
ftruncate fd:fd length:int
getpid
getppid
gettid
getuid
geteuid
getgid
getegid
getsockopt fd:fd level:int option:int value:ptr size:ptr
getxattr path:str name:str value:ptr size:int
inotify_add_watch fd:fd path:str mask:hex
init_module image:ptr size:int params:str
io_uring_enter fd:fd submit:int complete:int flags:hex sig:ptr size:int
io_uring_register fd:fd opcode:int arg:ptr n:int
io_uring_setup entries:int params:ptr
ioctl fd:fd request:ioctl arg:ptr
ioperm from:hex num:int on:int
iopl level:int
kcmp pid1:pid pid2:pid type:int idx1:hex idx2:hex
kexec_file_load kernel:fd initrd:fd size:int cmdline:str flags:hex
kexec_load entry:ptr n:int segments:ptr flags:hex
keyctl cmd:keyctl arg2:ptr arg3:ptr arg4:ptr arg5:ptr
kill pid:pid sig:signal
lchown path:str uid:int gid:int
link old:str new:str
linkat olddirfd:fd old:str newdirfd:fd new:str flags:hex
listen fd:fd backlog:int
listmount req:ptr ids:ptr n:int flags:hex
lseek fd:fd offset:int whence:int
lstat path:str buf:ptr
madvise addr:ptr length:int advice:int
mbind addr:ptr length:int mode:int mask:ptr maxnode:int flags:hex
memfd_create name:str flags:hex
memfd_secret flags:hex
migrate_pages pid:pid maxnode:int old:ptr new:ptr
mkdir path:str mode:oct
mkdirat dirfd:fd path:str mode:oct
mknod path:str mode:oct dev:hex
mknodat dirfd:fd path:str mode:oct dev:hex
mmap addr:ptr length:int prot:prot flags:map fd:fd offset:int
modify_ldt func:int ptr:ptr size:int
mount source:str target:str fs:ptr flags:mount data:ptr
mount_setattr dirfd:fd path:str flags:hex attr:ptr size:int
move_mount from:fd path:str to:fd target:str flags:hex
move_pages pid:pid n:int pages:ptr nodes:ptr status:ptr flags:hex
mprotect addr:ptr length:int prot:prot
name_to_handle_at dirfd:fd path:str handle:ptr mount_id:ptr flags:hex
newfstatat dirfd:fd path:str buf:ptr flags:hex
open path:str flags:open mode:oct
open_by_handle_at mountfd:fd handle:ptr flags:open
open_tree dirfd:fd path:str flags:hex
openat dirfd:fd path:str flags:open mode:oct
openat2 dirfd:fd path:str how:ptr size:int
perf_event_open attr:ptr pid:pid cpu:int group:fd flags:hex
personality persona:hex
pidfd_getfd pidfd:fd fd:fd flags:hex
pidfd_open pid:pid flags:hex
pidfd_send_signal pidfd:fd sig:signal info:ptr flags:hex
pipe2 fds:ptr flags:open
pivot_root new:str old:str
pkey_alloc flags:hex rights:hex
prctl option:prctl arg2:ptr arg3:ptr arg4:ptr arg5:ptr
prlimit64 pid:pid resource:rlimit new:ptr old:ptr
process_madvise pidfd:fd iov:ptr n:int advice:int flags:hex
process_mrelease pidfd:fd flags:hex
process_vm_readv pid:pid local:ptr nlocal:int remote:ptr nremote:int flags:hex
process_vm_writev pid:pid local:ptr nlocal:int remote:ptr nremote:int flags:hex
ptrace request:ptrace pid:pid addr:ptr data:ptr
quotactl cmd:hex special:str id:int addr:ptr
read fd:fd buf:ptr count:int
readlink path:str buf:ptr size:int
readlinkat dirfd:fd path:str buf:ptr size:int
reboot magic:hex magic2:hex cmd:hex arg:ptr
remap_file_pages addr:ptr size:int prot:prot pgoff:int flags:map
rename old:str new:str
renameat olddirfd:fd old:str newdirfd:fd new:str
renameat2 olddirfd:fd old:str newdirfd:fd new:str flags:hex
request_key type:str description:str callout:ptr keyring:int
rmdir path:str
sched_setaffinity pid:pid size:int mask:ptr
sched_setscheduler pid:pid policy:int param:ptr
sched_yield
seccomp op:int flags:hex args:ptr
sendmsg fd:fd msg:ptr flags:hex
sendto fd:fd buf:ptr length:int flags:hex addr:ptr addrlen:int
set_mempolicy mode:int mask:ptr maxnode:int
setdomainname name:str length:int
setfsgid gid:int
setfsuid uid:int
setgid gid:int
setgroups n:int list:ptr
sethostname name:str length:int
setns fd:fd nstype:namespace
setpgid pid:pid pgid:pid
setpriority which:int who:int priority:int
setregid rgid:int egid:int
setresgid rgid:int egid:int sgid:int
setresuid ruid:int euid:int suid:int
setreuid ruid:int euid:int
setrlimit resource:rlimit limit:ptr
setsid
setsockopt fd:fd level:int option:int value:ptr size:int
settimeofday tv:ptr tz:ptr
setuid uid:int
setxattr path:str name:str value:ptr size:int flags:hex
shutdown fd:fd how:int
socket family:family type:socktype protocol:int
socketpair family:family type:socktype protocol:int fds:ptr
stat path:str buf:ptr
statfs path:str buf:ptr
statmount req:ptr buf:ptr size:int flags:hex
statx dirfd:fd path:str flags:hex mask:hex buf:ptr
swapoff path:str
swapon path:str flags:hex
symlink target:str path:str
symlinkat target:str dirfd:fd path:str
sync
syncfs fd:fd
syslog type:int buf:ptr length:int
tgkill tgid:pid tid:pid sig:signal
tkill tid:pid sig:signal
truncate path:str length:int
umask mode:oct
umount path:str
umount2 path:str flags:umount
uname buf:ptr
unlink path:str
unlinkat dirfd:fd path:str flags:hex
unshare flags:namespace
userfaultfd flags:open
utimensat dirfd:fd path:str times:ptr flags:hex
vfork
vhangup
vmsplice fd:fd iov:ptr n:int flags:hex
wait4 pid:pid status:ptr options:hex rusage:ptr
write fd:fd buf:ptr count:int
"""
# Kinds whose values are few in any program: what learning takes as conditions.
ENUMS = frozenset("bpf clone family fcntl ioctl keyctl prctl prot ptrace socktype".split())
POINTERS = frozenset(("addr", "ptr", "str"))


@frozen
class Param:
    """One argument: its name in the manual page, and its kind."""

    name: str
    kind: str

    @property
    def is_pointer(self) -> bool:
        """Whether it points to memory, or may."""
        return self.kind in POINTERS


@cache
def table() -> dict[str, tuple[Param, ...]]:
    """Every call that is listed."""
    found = {}
    for line in TABLE.strip().splitlines():
        name, *rest = line.split()
        pairs = [each.partition(":") for each in rest]
        found[name] = tuple(Param(left, right) for left, _, right in pairs)
    return found


def params(syscall: str | None) -> tuple[Param, ...] | None:
    """The arguments of a call; None where they are not known."""
    return table().get(syscall or "")


def pointer_free(syscall: str) -> bool:
    """Whether no argument is, or may be, a pointer: nothing that can change after a look at it."""
    known = params(syscall)
    return known is not None and not any(each.is_pointer for each in known)
