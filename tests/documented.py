"""What Docker's documentation says of its profile."""

# Docker's documentation, "Significant syscalls blocked by the default profile", with what the
# profile says of io_uring and of vhangup's like.
DOCUMENTED = """
    acct add_key bpf clock_settime create_module delete_module finit_module get_kernel_syms
    get_mempolicy init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie
    mbind mount move_pages nfsservctl open_by_handle_at perf_event_open pivot_root query_module
    quotactl reboot request_key set_mempolicy setns settimeofday stime swapon swapoff sysfs
    _sysctl umount umount2 unshare uselib userfaultfd ustat vm86 vm86old chroot syslog vhangup
    io_uring_setup io_uring_enter io_uring_register
""".split()
# On the list, and let in by the profile itself: the first three since Linux 4.8, clone and
# personality by their arguments, the others always (name_to_handle_at, and what only asks).
LET_IN = (
    "ptrace process_vm_readv process_vm_writev clone personality adjtimex clock_adjtime "
    "name_to_handle_at"
).split()
