/* SPDX-License-Identifier: Apache-2.0
 * The floor: the kernel work of one box, and nothing else.  bench/job.py writes the job from the same
 * plan that the library would run; these files do it with as few system calls as we know how.
 * The job lies in one shared mapping at a fixed address, so that it is still there after exec. */
#ifndef FLOOR_H
#define FLOOR_H

#include "sys.h"

#define FLOOR_AT        0x200000000000ul /* where the arena is mapped, in every process */
#define FLOOR_SIZE      (4u << 20)
#define FLOOR_ARENA_FD  3
#define FLOOR_MAX_STEPS 512
#define FLOOR_STACK     65536
#define FLOOR_MAX_RUNS  4096

/* Who runs a step: the clone child before the exec of init, init, or the program's process. */
#define FLOOR_EARLY   0
#define FLOOR_BOX     1
#define FLOOR_PROGRAM 2

/* What a step does: bench/job.py has the same names.  "path" is below the new root, without its first
 * slash.  propagation: "/" private.  root: s0 options, n0 attributes.  dir: s0 path, n0 mode.  file: s0
 * path, s1 data, n0 mode.  link: s0 text, s1 path.  bind: s0 host path, s1 path, n0 attributes, n1
 * recursive.  fs: s0 type, s1 path, s2 options, n0 attributes.  rebind: s0 path, n0 attributes, may be
 * absent.  mask: s0 path, n0 1 directory or 0 file.  attr: s0 path, n0 attributes.  hostname: s0.
 * gids, uids, unshare: n0.  join: s0 a `tasks` file, opened by the parent.  cloexec: n0 lowest.  rlimit: n0
 * which, n1 soft, n2 hard.  umask, securebits: n0.  chdir: s0.  seccomp: s1 filter, n0 flags.  ruleset: n0 files,
 * n1 network, n2 scopes.  allow_path: s0 path, n0 rights.  allow_port: n0 rights, n1 port. */
/* clang-format off */
#define FLOOR_STEPS(X) \
	X(propagation) X(root) X(dir) X(file) X(link) X(bind) X(fs) X(rebind) X(mask) X(attr) \
	X(pivot) X(hostname) X(keyring) X(loopback) X(gids) X(uids) X(dumpable) X(join) \
	X(unshare) X(setsid) \
	X(cloexec) X(stdio) X(rlimit) X(umask) X(chdir) X(securebits) X(bounding) X(capset) \
	X(no_new_privs) X(seccomp) X(ruleset) X(allow_path) X(allow_port) X(restrict)
/* clang-format on */
#define FLOOR_CODE(name) FL_##name,
enum floor_code { FLOOR_STEPS(FLOOR_CODE) FL_CODES };

/* Stretches of one launch, in order; each stamp is the end of its stretch. */
/* clang-format off */
#define FLOOR_PHASES(X) \
	X(cgroup) X(clone) X(maps) X(trees) X(ids) X(init) X(names) X(network) X(mount) X(root) \
	X(landlock) X(session) X(limits) X(caps) X(filter) X(start) X(run) X(end) X(remove)
/* clang-format on */
#define FLOOR_ENUM(name) PH_##name,
enum floor_phase { FLOOR_PHASES(FLOOR_ENUM) PH_COUNT };

struct floor_step {
	uint32_t code, phase;
	uint32_t part;  /* FLOOR_EARLY, FLOOR_BOX or FLOOR_PROGRAM */
	uint32_t fresh; /* 0: may be in a template; 1: not; 2: only there; 3: only without one */
	uint64_t n[3];
	const char *s[3];
	uint32_t len[3];
	int32_t fd;
	uint32_t off; /* left out */
};

struct floor_arena {
	uint32_t n_steps, futex;
	uint64_t clone_flags;
	const char *uid_map, *gid_map, *program;
	int32_t error, error_step;
	int32_t root_fd, null_fd, out_fd, err_fd, ruleset_fd;
	int32_t told_fd;   /* where a filter's listener is sent; -1: it has none */
	uint32_t template; /* the root was made before: only fresh steps are left */
	uint32_t live;     /* how many programs init starts, each waited for; else one */
	int32_t status;
	uint64_t stamp[PH_COUNT];
	uint64_t took[FLOOR_MAX_RUNS]; /* live: of each program, from clone to reaped */
	struct floor_step steps[FLOOR_MAX_STEPS];
};

static inline struct floor_arena *floor_arena(void)
{
	return (struct floor_arena *)FLOOR_AT;
}

typedef long (*floor_fn)(struct floor_arena *a, const struct floor_step *s);
#define FLOOR_DECLARE(name) long do_##name(struct floor_arena *a, const struct floor_step *s);
FLOOR_STEPS(FLOOR_DECLARE)

uint64_t floor_now(void);

/* Run one part's steps in this process.  `fresh`: 1 only those that no template can hold, 0 what makes
 * the template, -1 all of a run without one.  0, or -errno with error_step set. */
long floor_run(struct floor_arena *a, uint32_t part, int fresh);

/* Open the host trees of a run without a template, before the ids change: box ids may not get there. */
long floor_trees(struct floor_arena *a);

/* The program's steps and its exec, in a child that shares memory: never returns. */
_Noreturn void floor_program(struct floor_arena *a);

/* Start the program, or `live` of them one after the other, and reap: what pid 1 has to do. */
void floor_start(struct floor_arena *a);

#endif
