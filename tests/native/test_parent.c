/* SPDX-License-Identifier: Apache-2.0
 * The C part that runs in the caller (plan.c, spawn.c, enter.c), under ASan and
 * UBSan.  Built and run by tools/native_check.py: `test_parent SEED...`, each
 * seed a real plan's blob. */
#include "../../_native/plan.h"
#include "check.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a blob by hand
 * ------------------------------------------------------------------------ */

struct builder {
  _Alignas(8) uint8_t data[65536];
  uint32_t n_ops, end;
};

static void begin(struct builder *b, uint32_t n_ops, uint32_t n_slots,
                  uint32_t n_temps) {
  memset(b, 0, sizeof *b);
  struct iso_plan *plan = (struct iso_plan *)b->data;
  plan->magic = ISO_MAGIC;
  plan->version = ISO_VERSION;
  plan->n_ops = n_ops;
  plan->n_slots = n_slots;
  plan->n_temps = n_temps;
  b->end = (uint32_t)(sizeof *plan + n_ops * sizeof(struct iso_op));
}

static uint32_t item(struct builder *b, const void *bytes, uint32_t len) {
  uint32_t at = b->end;
  memcpy(b->data + at, &len, 4);
  memcpy(b->data + at + 4, bytes, len);
  b->end = (at + 4 + len + 1 + 3) & ~3u;
  return at;
}

static struct iso_op *op(struct builder *b, uint16_t code, uint16_t phase) {
  struct iso_op *found =
      (struct iso_op *)(b->data + sizeof(struct iso_plan)) + b->n_ops++;
  found->code = code;
  found->phase = phase;
  found->slot[0] = found->slot[1] = -1;
  return found;
}

/* A copy of the exact size, so that ASan sees the first byte too far. */
static void *finished(struct builder *b, size_t *size) {
  ((struct iso_plan *)b->data)->size = b->end;
  void *exact = malloc(b->end);
  CHECK(exact);
  memcpy(exact, b->data, b->end);
  *size = b->end;
  return exact;
}

/* READY on slot 0, then exec of a program. */
static void *program(const char *path, const char *argument, size_t *size) {
  static struct builder b;
  begin(&b, 2, 1, 0);
  op(&b, ISO_OP_READY, 11)->slot[0] = 0;
  uint32_t argv[] = {item(&b, path, (uint32_t)strlen(path)), 0, 0};
  argv[1] = item(&b, "-c", 2);
  argv[2] = item(&b, argument, (uint32_t)strlen(argument));
  struct iso_op *exec = op(&b, ISO_OP_EXEC, 11);
  exec->str[0] = argv[0];
  exec->str[1] = item(&b, argv, sizeof argv);
  exec->str[2] = item(&b, "", 0);
  return finished(&b, size);
}

/* ---- spawn
 * ---------------------------------------------------------------------------------
 */

struct ended {
  int status;
  struct iso_fail records[4];
  int n;
};

static void await(int read_fd, struct iso_spawned *spawned, struct ended *end) {
  ssize_t n, all = 0;
  while ((n = read(read_fd, (char *)end->records + all,
                   sizeof end->records - (size_t)all)) > 0)
    all += n;
  CHECK(n == 0);
  end->n = (int)(all / (ssize_t)sizeof *end->records);
  struct pollfd wait = {.fd = spawned->pidfd, .events = POLLIN};
  CHECK(poll(&wait, 1, 20000) == 1);
  CHECK(waitpid(spawned->pid, &end->status, 0) == spawned->pid);
  close(spawned->pidfd);
}

static int spawn(void *blob, size_t size, int shares, int mount_ns,
                 struct ended *end) {
  int fds[2];
  struct iso_spawned spawned = {0, -1, 0};
  CHECK(pipe2(fds, O_CLOEXEC) == 0);
  int r = iso_spawn(blob, size, &fds[1], 1, shares, mount_ns, &spawned);
  close(fds[1]);
  if (r == 0) {
    CHECK(spawned.pid > 0 && spawned.pidfd >= 0 && spawned.entered);
    await(fds[0], &spawned, end);
  }
  close(fds[0]);
  return r;
}

static void a_program_is_started_and_ends(void) {
  for (int shares = 0; shares <= 1; shares++) {
    size_t size;
    struct ended end;
    void *blob = program("/bin/sh", "exit 7", &size);
    CHECK(spawn(blob, size, shares, -1, &end) == 0);
    CHECK(WIFEXITED(end.status) && WEXITSTATUS(end.status) == 7);
    CHECK(end.n == 1 && end.records[0].step == ISO_STEP_READY);
    CHECK(end.records[0].error == 0 && end.records[0].at_ns > 0);
    free(blob);
  }
}

static void a_failing_op_is_told(void) {
  for (int shares = 0; shares <= 1; shares++) {
    size_t size;
    struct ended end;
    void *blob = program("/no/such/program", "", &size);
    CHECK(spawn(blob, size, shares, -1, &end) == 0);
    CHECK(WIFEXITED(end.status) && WEXITSTATUS(end.status) == 127);
    CHECK(end.n == 2 && end.records[1].step == 1);
    CHECK(end.records[1].error == ENOENT);
    free(blob);
  }
}

static void a_plan_without_exec_is_told(void) {
  static struct builder b;
  size_t size;
  struct ended end;
  begin(&b, 2, 1, 0);
  op(&b, ISO_OP_UMASK, 8)->num[0] = 022;
  op(&b, ISO_OP_READY, 11)->slot[0] = 0;
  void *blob = finished(&b, &size);
  CHECK(spawn(blob, size, 1, -1, &end) == 0);
  CHECK(end.n == 2 && end.records[1].step == 2 &&
        end.records[1].error == ENOEXEC);
  free(blob);
}

static void what_does_not_fit_is_refused(void) {
  size_t size;
  struct ended end;
  struct iso_spawned out;
  int32_t slots[2] = {0, 1};
  void *blob = program("/bin/true", "", &size);
  CHECK(iso_spawn(blob, size, slots, 2, 1, -1, &out) ==
        -EINVAL); /* a slot too many */
  CHECK(iso_spawn(blob, size, slots, 0, 1, -1, &out) == -EINVAL);
  CHECK(iso_spawn(blob, size, slots, 1, 0, 0, &out) ==
        -EINVAL); /* entry needs shared memory */
  CHECK(iso_spawn(blob, size - 4, slots, 1, 1, -1, &out) == -EINVAL);
  ((struct iso_plan *)blob)->clone_flags =
      ~0ull; /* the kernel refuses: told as clone's error */
  CHECK(spawn(blob, size, 1, -1, &end) < 0);
  CHECK(spawn(blob, size, 0, -1, &end) < 0);
  free(blob);
}

/* As root, a copy of our own mount namespace stands for a template's. */
static void a_namespace_can_be_entered_first(void) {
  size_t size;
  struct ended end;
  struct iso_spawned out;
  int32_t slot = 2;
  void *blob = program("/bin/sh", "exit 3", &size);
  int ns = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC),
      null = open("/dev/null", O_RDONLY);
  CHECK(ns >= 0 && null >= 0);
  CHECK(iso_spawn(blob, size, &slot, 1, 1, null, &out) < 0 && !out.entered);
  if (geteuid() == 0) {
    CHECK(spawn(blob, size, 1, ns, &end) == 0);
    CHECK(WIFEXITED(end.status) && WEXITSTATUS(end.status) == 3);
  }
  close(ns);
  close(null);
  free(blob);
}

static void the_signal_mask_is_as_before(void) {
  sigset_t before, after;
  size_t size;
  struct ended end;
  void *blob = program("/bin/true", "", &size);
  sigemptyset(&before);
  sigaddset(&before, SIGUSR1);
  CHECK(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
  CHECK(spawn(blob, size, 1, -1, &end) == 0);
  CHECK(sigprocmask(SIG_SETMASK, NULL, &after) == 0);
  for (int i = 1; i < NSIG; i++)
    CHECK(sigismember(&before, i) == sigismember(&after, i));
  sigemptyset(&before);
  CHECK(sigprocmask(SIG_SETMASK, &before, NULL) == 0);
  free(blob);
}

static void *many(void *arg) {
  for (int i = 0; i < 25; i++) {
    size_t size;
    struct ended end;
    void *blob;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    CHECK(pthread_mutex_lock(&lock) == 0); /* the builder is static */
    blob = program("/bin/sh", "exit 5", &size);
    CHECK(pthread_mutex_unlock(&lock) == 0);
    CHECK(spawn(blob, size, i % 2, -1, &end) == 0);
    CHECK(WIFEXITED(end.status) && WEXITSTATUS(end.status) == 5);
    free(blob);
  }
  return arg;
}

static void threads_do_not_meet(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    CHECK(pthread_create(&threads[i], NULL, many, NULL) == 0);
  for (int i = 0; i < 4; i++)
    CHECK(pthread_join(threads[i], NULL) == 0);
}

/* ---- enter
 * ---------------------------------------------------------------------------------
 */

static void ops_run_in_the_calling_thread(void) {
  static struct builder b;
  size_t size;
  uint32_t step = 9;
  mode_t old = umask(022);
  begin(&b, 1, 0, 0);
  op(&b, ISO_OP_UMASK, 8)->num[0] = 077;
  void *blob = finished(&b, &size);
  CHECK(iso_enter(blob, size, NULL, 0, &step) == 0 && step == ISO_STEP_READY);
  CHECK(umask(old) == 077);
  CHECK(iso_enter(blob, size, NULL, 1, &step) == -EINVAL);
  CHECK(iso_enter(blob, size - 4, NULL, 0, &step) == -EINVAL);
  free(blob);

  begin(&b, 2, 0, 0);
  op(&b, ISO_OP_UMASK, 8)->num[0] = old;
  op(&b, ISO_OP_CHDIR, 9)->str[0] = item(&b, "/no/such", 8);
  blob = finished(&b, &size);
  CHECK(iso_enter(blob, size, NULL, 0, &step) == -ENOENT && step == 1);
  free(blob);
}

/* ---- the check
 * -----------------------------------------------------------------------------
 */

/* Every byte of a real plan changed in several ways, and every length: the
 * check reads nothing outside, and says where. */
static void a_changed_plan_is_read_within_its_bounds(const char *path) {
  static const uint8_t flips[] = {0x01, 0x80, 0xff};
  struct stat st;
  uint32_t where;
  int fd = open(path, O_RDONLY);
  CHECK(fd >= 0 && fstat(fd, &st) == 0);
  size_t size = (size_t)st.st_size;
  uint8_t *good = malloc(size), *bad = malloc(size);
  CHECK(good && bad && read(fd, good, size) == (ssize_t)size);
  close(fd);
  CHECK(iso_plan_check(good, size, &where) == 0);
  for (size_t i = 0; i < size; i++)
    for (size_t f = 0; f < sizeof flips; f++) {
      memcpy(bad, good, size);
      bad[i] ^= flips[f];
      if (iso_plan_check(bad, size, &where) < 0)
        CHECK(where <= size);
    }
  for (size_t n = 0; n < size; n += 1 + n / 64) {
    uint8_t *cut = malloc(n + 1);
    CHECK(cut);
    memcpy(cut, good, n);
    CHECK(iso_plan_check(cut, n, &where) < 0);
    if (n >= sizeof(struct iso_plan)) {
      ((struct iso_plan *)cut)->size = (uint32_t)n; /* a liar about it, too */
      (void)iso_plan_check(cut, n, &where);
    }
    free(cut);
  }
  free(good);
  free(bad);
}

static void a_code_that_nobody_has_is_refused(void) {
  static struct builder b;
  size_t size;
  uint32_t where;
  for (uint16_t code = 0; code < 100; code++) {
    begin(&b, 1, 2, 1);
    struct iso_op *one = op(&b, code, 4);
    uint32_t word = item(&b, "/x", 2), vector = item(&b, &word, 4);
    for (int i = 0; i < 4; i++)
      one->str[i] = code == ISO_OP_EXEC && i ? vector : word;
    one->slot[0] = 0;
    one->slot[1] = 2;
    void *blob = finished(&b, &size);
    int r = iso_plan_check(blob, size, &where);
    CHECK(code != 0 || r < 0);
    CHECK(code <= ISO_OP_LAST || r < 0);
    CHECK(code == 0 || code > 48 || r == 0);
    free(blob);
  }
}

int main(int argc, char **argv) {
  CHECK(argc > 1);
  for (int i = 1; i < argc; i++)
    a_changed_plan_is_read_within_its_bounds(argv[i]);
  a_code_that_nobody_has_is_refused();
  a_program_is_started_and_ends();
  a_failing_op_is_told();
  a_plan_without_exec_is_told();
  what_does_not_fit_is_refused();
  a_namespace_can_be_entered_first();
  the_signal_mask_is_as_before();
  threads_do_not_meet();
  ops_run_in_the_calling_thread();
  puts("parent code: every check holds under ASan and UBSan");
  return 0;
}
