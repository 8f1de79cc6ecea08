/* SPDX-License-Identifier: Apache-2.0
 * The whole contract between Python and C: cffi and the compiler read this file.
 * Only what cffi's parser takes: no #if, no includes, no expressions.
 * isolate/abi/ops.py holds the same codes; tests/pure/test_native_contract.py compares them.
 */

/* ---- the plan: one position-independent blob -------------------------------------------
 * struct iso_plan, then n_ops struct iso_op, then data.  Every str[] is an offset from the
 * start of the blob to an item: uint32_t len, len bytes, one NUL, padded to 4.  A vector is an
 * item whose bytes are n uint32_t offsets of items.  0 means "none".  */
#define ISO_MAGIC     0x314f5349
#define ISO_VERSION   1
#define ISO_MAX_OPS   4096
#define ISO_MAX_SLOTS 253
#define ISO_MAX_SIZE  67108864

struct iso_plan {
	uint32_t magic;
	uint32_t version;
	uint32_t size; /* of the whole blob, bytes */
	uint32_t n_ops;
	uint32_t n_slots; /* fds that come with the plan, slots 0..n_slots-1 */
	uint32_t n_temps; /* further slots, that ops fill */
	uint64_t clone_flags;
};

struct iso_op {
	uint16_t code;   /* ISO_OP_* */
	uint16_t phase;  /* never goes down within a plan */
	uint32_t flags;  /* ISO_F_*, by op */
	int32_t slot[2]; /* -1: none */
	uint32_t str[4]; /* offsets of items, 0: none */
	uint64_t num[4];
};

#define ISO_F_OPTIONAL  1  /* ENOENT and ENOTDIR on the object are no failure */
#define ISO_F_RECURSIVE 2  /* bind the submounts as well */
#define ISO_F_FROM_ROOT 4  /* the source is inside the new root, not on the host */
#define ISO_F_MAKE_DIR  8  /* make the target, a directory */
#define ISO_F_MAKE_FILE 16 /* make the target, an empty file */
#define ISO_F_MAKE_ANY  32 /* make the target, of the kind of the source */

/* slot a, b = slot[0], slot[1]; s0.. = str; n0.. = num.  "root" is the new root, see ROOT_*;
 * paths "in root" are resolved by openat2(RESOLVE_IN_ROOT) before PIVOT_ROOT. */
#define ISO_OP_JOIN_CGROUP       1 /* a: open `tasks` (v1) or `cgroup.procs` (v2); write "0" */
#define ISO_OP_UNSHARE           2 /* n0: CLONE_NEW* */
#define ISO_OP_SETNS             3 /* a: namespace fd or pidfd; n0: CLONE_NEW* */
#define ISO_OP_WRITE             4 /* s0: path; s1: data; one write(2) */
#define ISO_OP_SETGROUPS         5 /* s0: item of uint32_t gids, may be empty */
#define ISO_OP_SETRESGID         6 /* n0: gid, real effective saved */
#define ISO_OP_SETRESUID         7 /* n0: uid; keeps capabilities (SECBIT_KEEP_CAPS) if n1 */
#define ISO_OP_SETHOSTNAME       8 /* s0; OPTIONAL: a container's filter may refuse it */
#define ISO_OP_SETDOMAINNAME     9 /* s0 */
#define ISO_OP_LOOPBACK_UP       10
#define ISO_OP_PROPAGATION       11 /* s0: path; n0: MS_PRIVATE or MS_SLAVE; recursive */
#define ISO_OP_ROOT_TMPFS        12 /* s0: options (see MOUNT_NEW); n0: MOUNT_ATTR_* ; becomes root */
#define ISO_OP_ROOT_BIND         13 /* a: detached tree, or s0: host path; n0: attr_set; becomes root */
#define ISO_OP_MKDIR             14 /* s0: path in root, with parents; n0: mode of the last */
#define ISO_OP_FILE              15 /* s0: path in root; s1: data; n0: mode; parents are made; O_EXCL */
#define ISO_OP_SYMLINK           16 /* s0: target; s1: path in root; parents are made */
/* a: detached tree or -1; s0: host path (a<0) or path in root (FROM_ROOT); s1: target in root;
 * n0: attr_set; n1: attr_clr */
#define ISO_OP_BIND              17
/* s0: fs type; s1: options "k=v" or "flag", NUL-separated; s2: target in root; n0:
 * MOUNT_ATTR_* */
#define ISO_OP_MOUNT_NEW         18
#define ISO_OP_MOUNT_ATTR        19 /* s0: path in root; n0: attr_set; n1: attr_clr; RECURSIVE */
/* s0: path in root; a file gets /dev/null of root, a directory an empty read-only tmpfs;
 * checked by descriptor; OPTIONAL */
#define ISO_OP_MASK              20
#define ISO_OP_PIVOT_ROOT        21 /* enters root, detaches the old one, checks getcwd */
#define ISO_OP_KEYRING           22 /* a new anonymous session keyring */
#define ISO_OP_SETSID            23
#define ISO_OP_CTTY              24 /* n0: fd number; TIOCSCTTY */
#define ISO_OP_DUP2              25 /* a -> fd number n0, without CLOEXEC */
#define ISO_OP_CLOSE_FROM        26 /* n0: lowest fd number to mark CLOEXEC, all above */
#define ISO_OP_RLIMIT            27 /* n0: RLIMIT_*; n1: soft; n2: hard */
#define ISO_OP_UMASK             28 /* n0 */
#define ISO_OP_NICE              29 /* n0: -20..19 as two's complement */
#define ISO_OP_CHDIR             30 /* s0 */
#define ISO_OP_SECUREBITS        31 /* n0 */
#define ISO_OP_BOUNDING          32 /* n0: mask that stays; what init has dropped is passed over */
#define ISO_OP_CAPSET            33 /* n0: effective; n1: permitted; n2: inheritable */
#define ISO_OP_AMBIENT           34 /* n0: mask, after a clear */
#define ISO_OP_NO_NEW_PRIVS      35
#define ISO_OP_DUMPABLE          36 /* n0: 0 or 1 */
/* s0: "exec NAME" or "stack NAME", to attr/apparmor/exec; s1: "NAME (MODE)", read back from it */
#define ISO_OP_APPARMOR          37
#define ISO_OP_LANDLOCK_CREATE   38 /* b: temp slot; n0: fs; n1: net; n2: scoped rights handled */
/* a: ruleset slot; s0: path; n0: rights, less what only directories have on a file; OPTIONAL */
#define ISO_OP_LANDLOCK_PATH     39
#define ISO_OP_LANDLOCK_PORT     40 /* a: ruleset slot; n0: rights; n1: port */
#define ISO_OP_LANDLOCK_RESTRICT 41 /* a: ruleset slot, closed if temp; n0: flags */
#define ISO_OP_READY             42 /* a: record pipe; writes {ISO_STEP_READY, 0} */
#define ISO_OP_SECCOMP           43 /* s0: struct sock_filter[]; n0: SECCOMP_FILTER_FLAG_* */
/* a: fd of the program (empty s0), or s0: path; s1: argv vector; s2: envp vector; s3: vector
 * of candidate paths, tried in turn */
#define ISO_OP_EXEC              44
#define ISO_OP_PDEATHSIG         45 /* n0: signal */
#define ISO_OP_TIMENS            46 /* s0: text for /proc/self/timens_offsets */
#define ISO_OP_IDMAP             47 /* s0: uid_map; s1: gid_map; of this process; setgroups denied */
#define ISO_OP_SETSCHED          48 /* n0: policy; n1: priority */
/* a: socket that takes the listener by SCM_RIGHTS; s0: struct sock_filter[]; n0:
 * SECCOMP_FILTER_FLAG_* with NEW_LISTENER; n1: ISO_DOOR_* that later calls of set-up pass by */
#define ISO_OP_SECCOMP_NOTIFY    49
/* s0: options; s1: scratch in root, which holds the layers by the options' relative names and is
 * let go of; n0: MOUNT_ATTR_*; n1: 1 makes "u" and "w" in it, "u" like "l0"; n2, n3:
 * 1 + the ids that the kernel acts as, 0: init's own; no s1: the root so far is the scratch, the
 * overlay becomes root, and init keeps those ids */
#define ISO_OP_OVERLAY           53
/* a: socket, which gets the master by SCM_RIGHTS; b: temp slot, the terminal; s0: path of ptmx;
 * n0: rows << 16 | columns; n1, n2: 1 + owner and group, 0: init's own */
#define ISO_OP_PTY               54
/* a: file of entries (child_overlay.c), into root; n0, n1: 1 + owner and group, 0: init's own */
#define ISO_OP_UNPACK            55
/* s0: host path; s1: path in root: an empty directory or file of the same kind; OPTIONAL */
#define ISO_OP_PLACE             56
#define ISO_OP_ROOT_HERE         57 /* "/" is the new root: a copy of a template's */
#define ISO_OP_ROOT_LEAVE        58 /* after ROOT_HERE's work: lets go of root, checks getcwd */
#define ISO_OP_LEAF              59 /* a: the v2 directory that it was born in (ISO_SPAWN_CGROUP) */
/* a: socket that gets the new pidfd; n0: CLONE_NEW*: init clones itself, and the first one ends */
#define ISO_OP_REBORN            60
/* s0: "changeprofile NAME" or "stack NAME", to the first process's attr/apparmor/current, none: no
 * profile; s1: "NAME (MODE)", read back from it: init clones itself, the copy goes on as init, and the
 * first one only waits for its end; the last op of a set-up */
#define ISO_OP_STEWARD           64
#define ISO_OP_LAST              64 /* codes below it without a step are refused */

/* A filter may refuse what set-up itself still calls.  Then those calls carry this in the upper half
 * of an argument that the kernel takes as an int; the last filter closes that door again. */
#define ISO_DOOR         0x69736f64
#define ISO_DOOR_SENDMSG 1 /* argument 2 */
#define ISO_DOOR_SECCOMP 2 /* argument 0 */
#define ISO_DOOR_WRITE   4 /* argument 0 */

/* ---- records ------------------------------------------------------------------------- */
#define ISO_STEP_READY 0xffffffff /* set-up done, before the last irreversible op */

struct iso_fail {       /* 16 bytes, on the record pipe */
	uint32_t step;  /* index of the op, or ISO_STEP_READY */
	int32_t error;  /* positive errno */
	uint64_t at_ns; /* CLOCK_MONOTONIC */
};

/* ---- requests to isolate-init: one SEQPACKET message each, fds by SCM_RIGHTS ------------ */
#define ISO_REQ_SETUP    1 /* fds: status, blob, slots...: run the plan in init itself */
#define ISO_REQ_SPAWN    2 /* fds: status, blob, slots...: clone a child and run the plan */
#define ISO_REQ_END      3 /* fds: status: kill and reap everything, report, exit */
/* fds: status: kill the program `serial`, whose pid is `flags`, with all that descends from it;
 * ENDED when nothing of it is left, and EXITED on its own status socket */
#define ISO_REQ_KILL     4
/* fds: status, freezer.state: on v1 the frozen don't die, so thaw them there whenever all are
 * killed; ENDED when it is kept */
#define ISO_REQ_GUARD    5
#define ISO_SPAWN_LAST   1 /* flag of SPAWN: when this program ends, do END */
#define ISO_SPAWN_CGROUP 2 /* flag of SPAWN: slot 0 is a cgroup directory (v2) to be born in */
#define ISO_SPAWN_KEPT   4 /* flag of SPAWN: with a keeper, so that KILL can end it by itself */

struct iso_request {
	uint32_t type;
	uint32_t flags;
	uint32_t n_fds;
	uint32_t serial; /* of KILL */
};

#define ISO_REC_SETUP   1 /* set-up ended; step/error as in iso_fail, READY if well */
/* with the pidfd by SCM_RIGHTS; pid is init's view; status: the serial, for KILL */
#define ISO_REC_SPAWNED 2
#define ISO_REC_EXITED  3 /* status as wait4(2) gives it */
#define ISO_REC_ENDED   4 /* all children are dead and reaped */
#define ISO_REC_REFUSED 5 /* the request could not be served: error */
#define ISO_PHASES      12

struct iso_record {
	uint32_t type;
	int32_t pid;
	uint32_t step;
	int32_t error;
	int32_t status;
	uint32_t max_rss_kib;
	uint64_t user_us; /* EXITED: of that child; ENDED: of all children */
	uint64_t system_us;
	uint64_t at_ns;                /* CLOCK_MONOTONIC */
	uint64_t phase_ns[ISO_PHASES]; /* SETUP: when each phase ended, 0 if it had no op */
};

/* ---- what the extension offers --------------------------------------------------------- */
struct iso_spawned {
	int32_t pid;
	int32_t pidfd;
	int32_t entered; /* of a failure: 0 if it was the entry into a namespace */
};

/* Check a blob. 0, or -EINVAL with *where = offset of what is wrong. */
int iso_plan_check(const void *blob, size_t size, uint32_t *where);

/* Start a process by clone3 and run the plan in it.  `slots` are the caller's fd numbers.
 * `mount_ns`: -1, or the fd of a mount namespace that it starts with a copy of.
 * 0 or -errno of clone; failures of ops come as iso_fail records on the plan's pipe. */
int iso_spawn(void *blob, size_t size, const int32_t *slots, uint32_t n_slots,
	      int32_t shares_memory, int32_t mount_ns, struct iso_spawned *out);
/* The same, entering several namespaces first: ISO_PLACES fds by place, -1 for none. */
#define ISO_SPACE_NET    0
#define ISO_SPACE_IPC    1
#define ISO_SPACE_MOUNT  2
#define ISO_SPACES       3
#define ISO_SPACE_CGROUP 3 /* the directory of a v2 cgroup, that the process is born in */
#define ISO_PLACE_KEEP   4 /* 0, or: leave all descriptors from here up out of its table */
#define ISO_PLACES       5
int iso_spawn_in(void *blob, size_t size, const int32_t *slots, uint32_t n_slots,
		 int32_t shares_memory, const int32_t *spaces, struct iso_spawned *out);

/* Descriptors of a new network namespace, whose loopback is up, and of a new IPC namespace; both
 * owned by this process's user namespace.  0 or -errno. */
int iso_make_spaces(int32_t *net_fd, int32_t *ipc_fd);

/* Run the plan's ops in the calling thread, without exec: confine(), and a zygote's child.
 * 0, or -errno with *step = the op that failed. */
int iso_enter(void *blob, size_t size, const int32_t *slots, uint32_t n_slots, uint32_t *step);

/* Send a request to isolate-init, with its plan if it has one.  Our end of the status socket. */
int iso_ask(int32_t control, const struct iso_request *request, const void *blob, size_t size,
	    const int32_t *fds, uint32_t n_fds);
/* Wait for a record and its descriptor, or -1.  1; 0: init is gone; -ETIMEDOUT, -EINTR, -errno. */
int iso_answer(int32_t status_fd, int32_t timeout_ms, struct iso_record *out, int32_t *passed_fd);
/* Wait until a record pipe's last writer is gone: how many records there are, or as above. */
int iso_told(int32_t record_fd, int32_t timeout_ms, struct iso_fail *out, uint32_t most);

/* ---- refused calls, seen by user notification (notify.c) ----------------------------------
 * One supervisor a session.  A listener has a tag, a table of ISO_SEEN_KINDS kinds of refused calls,
 * and a count for each; what is more than that is counted together. */
#define ISO_SEEN_KINDS   256
#define ISO_SEEN_BYTES   256
#define ISO_SIGHTS       512
#define ISO_WAY_REPORT   0 /* count it; the first of a kind is told before it is answered */
#define ISO_WAY_SILENT   1 /* answer, no more */
#define ISO_WAY_HANDLER  2 /* told every time */
#define ISO_WAY_OBSERVE  3 /* count it; what the filters allow goes on: for learning */
#define ISO_LOOK_NOTHING 0
#define ISO_LOOK_STRING  1
#define ISO_LOOK_BYTES   2 /* as many as argument len_arg says */

struct iso_sight { /* how to look at one system call of this machine */
	uint8_t way;
	uint8_t scalars; /* bit i: argument i is no pointer, and tells kinds apart */
	uint8_t look[2];
	uint8_t arg[2];
	uint8_t len_arg[2];
};

#define ISO_TOLD_WOKEN   1 /* wake was called, or the time is over */
#define ISO_TOLD_GONE    2 /* the last process under a listener that has counted has ended */
#define ISO_TOLD_NEW     3 /* the first of its kind; waits for an answer */
#define ISO_TOLD_HANDLER 4 /* waits for an answer */
#define ISO_TOLD_KILL    5 /* the policy says that its process ends; waits for an answer */

struct iso_notice {
	uint64_t id;
	uint64_t ip;
	uint64_t args[6];
	uint32_t tag;
	uint32_t pid; /* the thread, as this process sees it */
	int32_t nr;
	uint32_t arch;
	uint32_t action; /* SECCOMP_RET_* of the policy, with its data */
	uint32_t kind;   /* index in the listener's table; ISO_SEEN_KINDS: none */
	uint32_t len[2];
	uint8_t data[2][256];
};

struct iso_notify;

/* `programs` are the policy's own filters, which decide; NULL and errno without memory or fds. */
struct iso_notify *iso_notify_open(const void *const *programs, const uint32_t *lengths, uint32_t n,
				   const struct iso_sight *sights, uint32_t arch, int32_t lethal);
/* Close every listener: who still waits gets ENOSYS.  All that follows then finds nothing. */
void iso_notify_shut(struct iso_notify *n);
/* Shut, and free; nobody may use it any more. */
void iso_notify_close(struct iso_notify *n);
/* Take over a socket on which a listener will come.  0 or -errno. */
int iso_notify_add(struct iso_notify *n, int32_t sock, uint32_t tag);
int iso_notify_wake(struct iso_notify *n);
/* Serve until there is something to tell: ISO_TOLD_*, or -errno. */
int iso_notify_next(struct iso_notify *n, int32_t timeout_ms, struct iso_notice *out);
/* Counts of a listener's kinds, then of all others, then the sum: kinds + 2 numbers; how many kinds. */
int iso_notify_counts(struct iso_notify *n, uint32_t tag, uint64_t *counts);
void iso_notify_forget(struct iso_notify *n, uint32_t tag);
/* Answer; -ENOENT if the call is gone. */
int iso_notify_answer(struct iso_notify *n, uint32_t tag, uint64_t id, int64_t value, int32_t error,
		      int32_t goes_on);
int iso_notify_valid(struct iso_notify *n, uint32_t tag, uint64_t id);
/* Give the caller a copy of an fd (at `at`, if that is not -1), as the call's result.  The number. */
int iso_notify_give_fd(struct iso_notify *n, uint32_t tag, uint64_t id, int32_t fd, int32_t at,
		       uint32_t fd_flags);
/* Memory of the caller, as much as is there; checked to be its own still.  Bytes, or -errno. */
int iso_notify_peek(struct iso_notify *n, uint32_t tag, uint64_t id, uint32_t pid, uint64_t at,
		    void *to, uint32_t size);

/* What a filter answers: SECCOMP_RET_*; a program that is none kills.  `data` is seccomp_data. */
uint32_t iso_filter_run(const void *program, uint32_t length, const void *data);
