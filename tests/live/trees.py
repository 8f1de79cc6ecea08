"""Hostile programs for `test_trees.py`: `python trees.py KIND MARK`, each tries to outlive its end.

Bounded by themselves: nothing here lives longer than LIFE seconds.
"""

import ctypes
import os
import signal
import sys
import threading
import time

LIFE = 25.0
END = time.monotonic() + LIFE
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_PARENT = 0x8000
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def sleep():
    time.sleep(max(0.0, END - time.monotonic()))
    os._exit(0)


def fork():
    """0 in the child; 0 is also given where no more processes can be had, in the caller."""
    try:
        return os.fork()
    except OSError:
        time.sleep(0.001)
        return -1


def daemons():
    """Double forks with sessions of their own."""
    for _ in range(5):
        if fork() == 0:
            os.setsid()
            if fork() != 0:
                os._exit(0)
            sleep()
    sleep()


def chain():
    """Each link forks the next and ends: a pid that is listed is dead already."""
    for _ in range(3):
        if fork() == 0:
            os.setsid()
            while time.monotonic() < END:
                if fork() > 0:
                    os._exit(0)
            os._exit(0)
    sleep()


def caterpillar():
    """A path whose tail grows as fast as its head is killed."""
    while time.monotonic() < END:
        if fork() > 0:
            sleep()
    os._exit(0)


def bomb():
    """Everybody forks, all the time."""
    while time.monotonic() < END:
        fork()
    os._exit(0)


def siblings():
    """CLONE_PARENT: children of our parent, not of us."""
    for _ in range(5):
        number = 56 if os.uname().machine == "x86_64" else 220
        if LIBC.syscall(number, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0) == 0:
            os.setsid()
            sleep()
    sleep()


def threads():
    """Children of threads, of which the first thread's list says nothing."""

    def start():
        if fork() == 0:
            os.setsid()
            sleep()
        sleep()

    for _ in range(4):
        threading.Thread(target=start, daemon=True).start()
    sleep()


def reapers():
    """Subreapers below us, that keep their orphans and ignore what can be ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    for _ in range(3):
        if fork() == 0:
            LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            for _ in range(3):
                if fork() == 0:
                    if fork() == 0:
                        sleep()
                    os._exit(0)
            sleep()
    sleep()


def stopped():
    """A tree that is stopped."""
    for _ in range(3):
        if fork() == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            sleep()
    sleep()


def attack_keeper(number):
    """What stands between us and isolate-init gets a signal, as often as it can be had."""
    keeper = os.getppid()
    if fork() == 0:
        os.setsid()
        if fork() != 0:
            os._exit(0)
        sleep()
    for _ in range(20):
        try:
            os.kill(keeper, number)
        except (PermissionError, ProcessLookupError):
            break
        time.sleep(0.01)
    sleep()


def stop_keeper():
    attack_keeper(signal.SIGSTOP)


def kill_keeper():
    attack_keeper(signal.SIGKILL)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
