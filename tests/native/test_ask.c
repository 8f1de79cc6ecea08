/* SPDX-License-Identifier: Apache-2.0
 * Requests and answers (ask.c) under ASan and UBSan.  Built and run by
 * tools/native_check.py. */
#include "../../_native/plan.h"
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_fds(void) {
  int n = 0;
  for (int fd = 0; fd < 256; fd++)
    n += fcntl(fd, F_GETFD) >= 0;
  return n;
}

static void pair(int *ends) {
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
}

/* What init would get: its descriptors. */
static int received(int control, struct iso_request *head, int *fds) {
  char space[CMSG_SPACE(sizeof(int) * ISO_MAX_SLOTS)];
  struct iovec iov = {head, sizeof *head};
  struct msghdr hdr = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = space,
                       .msg_controllen = sizeof space};
  CHECK(recvmsg(control, &hdr, MSG_CMSG_CLOEXEC) == sizeof *head);
  struct cmsghdr *c = CMSG_FIRSTHDR(&hdr);
  CHECK(c && c->cmsg_type == SCM_RIGHTS);
  int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
  memcpy(fds, CMSG_DATA(c), sizeof(int) * (size_t)n);
  return n;
}

static void a_request_brings_its_plan_and_descriptors(void) {
  int before = open_fds(), control[2], fds[ISO_MAX_SLOTS], extra[2];
  char blob[10000], back[sizeof blob];
  struct iso_request ask = {.type = ISO_REQ_SPAWN, .flags = 5, .serial = 9}, got;

  memset(blob, 'x', sizeof blob);
  pair(control);
  CHECK(pipe(extra) == 0);
  int status = iso_ask(control[0], &ask, blob, sizeof blob, extra, 2);
  CHECK(status >= 0 && fcntl(status, F_GETFD) == FD_CLOEXEC);
  int n = received(control[1], &got, fds);
  CHECK(n == 4 && got.n_fds == 4 && got.type == 2 && got.flags == 5 &&
        got.serial == 9);
  CHECK(pread(fds[1], back, sizeof back, 0) == sizeof back);
  CHECK(memcmp(blob, back, sizeof blob) == 0);
  CHECK(write(fds[3], "!", 1) == 1 && read(extra[0], back, 9) == 1);
  for (int i = 0; i < n; i++)
    close(fds[i]);
  struct iso_record record;
  int32_t passed;
  CHECK(iso_answer(status, 1000, &record, &passed) == 0); /* nobody is there */
  close(status), close(control[0]), close(control[1]);
  close(extra[0]), close(extra[1]);
  CHECK(open_fds() == before);
}

static void a_request_without_a_plan(void) {
  int before = open_fds(), control[2], fds[ISO_MAX_SLOTS];
  struct iso_request ask = {.type = ISO_REQ_END}, got;
  pair(control);
  int status = iso_ask(control[0], &ask, NULL, 0, NULL, 0);
  CHECK(status >= 0 && received(control[1], &got, fds) == 1);
  close(status), close(fds[0]), close(control[0]), close(control[1]);
  CHECK(open_fds() == before);
}

static void what_fails_leaves_no_descriptor(void) {
  int before = open_fds(), control[2], many[ISO_MAX_SLOTS + 1], closed = 250;
  struct iso_request ask = {.type = ISO_REQ_SPAWN};
  struct rlimit old, few;

  pair(control);
  memset(many, 0, sizeof many);
  CHECK(iso_ask(control[0], &ask, "x", 1, many, ISO_MAX_SLOTS - 1) == -E2BIG);
  CHECK(iso_ask(control[0], &ask, "x", 1, &closed, 1) == -EBADF);
  CHECK(iso_ask(closed, &ask, "x", 1, NULL, 0) == -EBADF);
  CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
  for (int room = 0; room < 3; room++) { /* for the pair, and for the memfd */
    few = (struct rlimit){(rlim_t)(control[1] + 1 + room), old.rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    CHECK(iso_ask(control[0], &ask, "x", 1, NULL, 0) == -EMFILE);
  }
  CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
  close(control[1]);
  CHECK(iso_ask(control[0], &ask, "x", 1, NULL, 0) == -EPIPE); /* no SIGPIPE */
  close(control[0]);
  CHECK(open_fds() == before);
}

/* A message of `size` bytes with `n` copies of a descriptor. */
static void send_message(int to, const void *data, size_t size, int fd, int n) {
  char space[CMSG_SPACE(sizeof(int) * 8)] = {0};
  struct iovec iov = {(void *)(uintptr_t)data, size};
  struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
  if (n) {
    hdr.msg_control = space;
    hdr.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n);
    struct cmsghdr *c = CMSG_FIRSTHDR(&hdr);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
    for (int i = 0; i < n; i++)
      memcpy(CMSG_DATA(c) + sizeof fd * (size_t)i, &fd, sizeof fd);
  }
  CHECK(sendmsg(to, &hdr, 0) == (ssize_t)size);
}

static void a_record_comes_with_at_most_one_descriptor(void) {
  int before = open_fds(), ends[2];
  struct iso_record record = {.type = ISO_REC_SPAWNED, .pid = 7}, got;
  int32_t passed;

  pair(ends);
  for (int n = 0; n < 5; n++) {
    send_message(ends[1], &record, sizeof record, 1, n);
    CHECK(iso_answer(ends[0], -1, &got, &passed) == 1);
    CHECK(got.type == ISO_REC_SPAWNED && got.pid == 7);
    CHECK((passed >= 0) == (n > 0));
    if (passed >= 0)
      close(passed);
    CHECK(open_fds() == before + 2);
  }
  close(ends[0]), close(ends[1]);
}

static void what_is_no_record_is_the_end(void) {
  int before = open_fds(), ends[2];
  struct iso_record record = {.type = ISO_REC_EXITED}, got;
  char longer[sizeof record + 1] = {0};
  int32_t passed;

  pair(ends);
  for (size_t size = 0; size <= sizeof longer; size++) {
    if (size == sizeof record)
      continue;
    send_message(ends[1], longer, size, 1, 1);
    CHECK(iso_answer(ends[0], 1000, &got, &passed) == 0 && passed == -1);
    CHECK(open_fds() == before + 2);
  }
  close(ends[1]);
  CHECK(iso_answer(ends[0], 1000, &got, &passed) == 0);
  close(ends[0]);
  CHECK(iso_answer(ends[0], 0, &got, &passed) < 0);
  CHECK(open_fds() == before);
}

static void nobody_waits_for_ever(void) {
  int ends[2];
  struct iso_record got;
  struct iso_fail fails[2];
  int32_t passed;
  pair(ends);
  CHECK(iso_answer(ends[0], 0, &got, &passed) == -ETIMEDOUT);
  CHECK(iso_answer(ends[0], 5, &got, &passed) == -ETIMEDOUT);
  CHECK(iso_told(ends[0], 5, fails, 2) == -ETIMEDOUT);
  close(ends[0]), close(ends[1]);
}

static void on_signal(int number) { (void)number; }

static void *kicks(void *arg) {
  usleep(50000);
  pthread_kill(*(pthread_t *)arg, SIGUSR1);
  return NULL;
}

static void a_signal_comes_back_to_the_caller(void) {
  struct sigaction action = {.sa_handler = on_signal};
  struct iso_record got;
  struct iso_fail fails[2];
  int32_t passed;
  pthread_t self = pthread_self(), other;
  int ends[2];

  CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
  pair(ends);
  CHECK(pthread_create(&other, NULL, kicks, &self) == 0);
  CHECK(iso_answer(ends[0], 20000, &got, &passed) == -EINTR);
  pthread_join(other, NULL);
  CHECK(pthread_create(&other, NULL, kicks, &self) == 0);
  CHECK(iso_told(ends[0], 20000, fails, 2) == -EINTR);
  pthread_join(other, NULL);
  close(ends[0]), close(ends[1]);
}

static void a_record_pipe_is_told_at_its_end(void) {
  struct iso_fail fails[3], all[5] = {{.step = 1}, {.step = 2}, {.step = 3},
                                      {.step = 4}, {.step = 5}};
  int ends[2];

  for (int n = 0; n <= 5; n++) {
    CHECK(pipe(ends) == 0);
    CHECK(n == 0 || write(ends[1], all, sizeof *all * (size_t)n) > 0);
    CHECK(iso_told(ends[0], 10, fails, 3) == -ETIMEDOUT); /* a writer is left */
    close(ends[1]);
    int count = iso_told(ends[0], 1000, fails, 3);
    CHECK(count == (n < 3 ? n : 3));
    for (int i = 0; i < count; i++)
      CHECK(fails[i].step == (uint32_t)i + 1);
    close(ends[0]);
  }
  CHECK(pipe(ends) == 0 && write(ends[1], all, 20) == 20); /* one and a bit */
  close(ends[1]);
  CHECK(iso_told(ends[0], 1000, fails, 3) == 1);
  close(ends[0]);
}

int main(void) {
  a_request_brings_its_plan_and_descriptors();
  a_request_without_a_plan();
  what_fails_leaves_no_descriptor();
  a_record_comes_with_at_most_one_descriptor();
  what_is_no_record_is_the_end();
  nobody_waits_for_ever();
  a_signal_comes_back_to_the_caller();
  a_record_pipe_is_told_at_its_end();
  puts("requests: every check holds under ASan and UBSan");
  return 0;
}
