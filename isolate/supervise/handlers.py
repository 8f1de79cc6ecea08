# SPDX-License-Identifier: Apache-2.0
"""Handlers at work: each call in a thread of its own, with a deadline; whatever fails refuses."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from attrs import define, field, frozen

from isolate.native import Notice, Notifier
from isolate.plan.model import Watch
from isolate.policy.handlers import Answer, Handler
from isolate.policy.rules import Action, Errno
from isolate.supervise.violations import described, name_on

__all__ = ["Desk", "Notified"]

LOG = logging.getLogger("isolate")
MAX_THREADS = 16
MAX_WAITING = 512
JOIN_SECONDS = 2.0
PAGE = 4096
REFUSAL = Errno("EPERM")
REFUSED = Answer("errno", REFUSAL.data)


@frozen
class Notified:
    """One call that waits for a handler's answer.

    Attributes:
        syscall: its name.
        args: six numbers, from registers: they can't change any more.
        decoded: as text, "name=value"; strings and addresses as they were when it came.
        pid: of its thread, as the caller sees it.
    """

    syscall: str
    args: tuple[int, ...]
    decoded: tuple[str, ...]
    pid: int
    notice: Notice = field(repr=False, eq=False)
    notifier: Notifier = field(repr=False, eq=False)

    def read(self, address: int, size: int) -> bytes:
        """A copy of its memory, as much as is there; other threads of it may change that memory
        at any time, so use the copy. Raises: OSError; ProcessLookupError, if it is gone."""
        if size > 1 << 20:
            raise ValueError("at most 1 MiB may be read at once")
        return self.notifier.peek(self.notice, address, size)

    def string(self, index: int) -> bytes:
        """What argument `index` points to, up to its NUL; at most a path's length."""
        found = b""
        while b"\0" not in found and len(found) < PAGE:
            at = self.args[index] + len(found)
            part = self.read(at, min(PAGE - at % PAGE, PAGE - len(found)))
            if not part:
                break
            found += part
        return found.partition(b"\0")[0]


def shortly(answer: object) -> str:
    """What a handler gave, for the log; its own __repr__ may fail."""
    try:
        return repr(answer)[:200]
    except Exception:
        return f"a {type(answer).__name__}"


@define
class Task:
    """A call on its way through a handler; whoever takes it answers it, once."""

    notice: Notice
    handler: Handler
    until: float
    lock: threading.Lock = field(factory=threading.Lock)
    taken: bool = False

    def take(self) -> bool:
        """Whether the answer is ours to give."""
        with self.lock:
            if self.taken:
                return False
            self.taken = True
            return True


class Desk:
    """Hands calls to handlers, and refuses what is not decided in time."""

    def __init__(
        self, watch: Watch, notifier: Notifier, refused: Callable[[Notice, Action], None]
    ) -> None:
        self.handlers = {each.syscall: each for each in watch.handlers}
        self.notifier, self.refused = notifier, refused
        self.lock = threading.Lock()
        self.waiting: list[Task] = []
        self.work: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.idle = 0  # threads without a task, less tasks without a thread

    def patience(self) -> float | None:
        """Seconds until the next deadline; None if there is none."""
        with self.lock:
            if not self.waiting:
                return None
            return max(0.0, min(task.until for task in self.waiting) - time.monotonic())

    def take(self, notice: Notice) -> None:
        """A call for a handler."""
        handler = self.handlers[name_on(notice.arch, notice.nr)]
        task = Task(notice, handler, time.monotonic() + handler.timeout)
        with self.lock:
            full = len(self.waiting) >= MAX_WAITING
            if not full:
                self.waiting.append(task)
                if self.idle <= 0 and len(self.threads) < MAX_THREADS:
                    self.hire()
                else:
                    self.idle -= 1
        if full:
            self.refuse(task, REFUSAL)
        else:
            self.work.put(task)

    def hire(self) -> None:
        """One more thread."""
        thread = threading.Thread(target=self.serve, name="isolate-handler", daemon=True)
        self.threads.append(thread)
        thread.start()

    def serve(self) -> None:
        """A thread's life: one task after the other."""
        while (task := self.work.get()) is not None:
            try:
                self.decide(task)
            except Exception:  # its call is refused in its time, and the next is served
                LOG.exception("a call for the handler of %s was lost", task.handler.syscall)
            with self.lock:
                self.idle += 1

    def decide(self, task: Task) -> None:
        """One call; an exception, and anything that is no answer, refuses."""
        if task.taken:
            return  # too late before it began
        answer = self.asked(task)
        try:
            if answer.kind == "errno":
                self.refuse(task, Action("errno", answer.number))
            elif self.claim(task):
                self.give(task, answer)
        finally:
            if answer.kind == "fd" and answer.ours:
                with suppress(OSError):  # a number that was none is the handler's own mistake
                    os.close(answer.number)

    def asked(self, task: Task) -> Answer:
        """What the handler says; a refusal, if that is nothing that may be done."""
        notice, name = task.notice, task.handler.syscall
        try:
            answer = task.handler.function(
                Notified(
                    name, notice.args, described(name, notice.args, notice.data), notice.pid,
                    notice, self.notifier,
                )
            )  # fmt: skip
        except BaseException:  # also SystemExit: a handler ends nothing but its own decision
            LOG.exception("the handler of %s failed; the call is refused", name)
            return REFUSED
        if isinstance(answer, Action) and answer.name == "errno" and answer.data:
            return Answer("errno", answer.data)
        if isinstance(answer, Answer) and task.handler.may(answer):
            return answer
        LOG.error("the handler of %s gave %s; the call is refused", name, shortly(answer))
        return REFUSED

    def claim(self, task: Task) -> bool:
        """Take a task off the list; False if its time was over."""
        if not task.take():
            return False
        with self.lock:
            self.waiting.remove(task)
        return True

    def refuse(self, task: Task, action: Action) -> None:
        """The record first, so that it is there when the program goes on."""
        if not task.take():
            return
        with self.lock:
            if task in self.waiting:
                self.waiting.remove(task)
        try:
            self.refused(task.notice, action)
        finally:
            self.notifier.answer(task.notice, error=action.data)

    def give(self, task: Task, answer: Answer) -> None:
        """A value, an fd, or leave to go on. What can't be given is refused."""
        notice, name = task.notice, task.handler.syscall
        try:
            if answer.kind == "fd":
                flags = os.O_CLOEXEC if answer.cloexec else 0
                self.notifier.give_fd(notice, answer.number, answer.at, flags)
            else:
                goes_on = answer.kind == "proceed"
                self.notifier.answer(notice, value=answer.number, goes_on=goes_on)
        except Exception as error:  # OSError of a bad descriptor; nobody else will answer the call
            LOG.error("%s could not be answered with %s: %s", name, answer.kind, error)
            try:
                self.refused(notice, REFUSAL)
            finally:
                self.notifier.answer(notice, error=REFUSAL.data)

    def expire(self) -> None:
        """Refuse what has waited too long; its handler may go on, and nobody listens to it."""
        now = time.monotonic()
        with self.lock:
            late = [task for task in self.waiting if task.until <= now]
        for task in late:
            LOG.error("the handler of %s was too slow; the call is refused", task.handler.syscall)
            self.refuse(task, REFUSAL)

    def close(self) -> None:
        """Let the threads end; one that is stuck in a handler is left to it: nobody listens."""
        for _ in self.threads:
            self.work.put(None)
        until = time.monotonic() + JOIN_SECONDS
        for thread in self.threads:
            thread.join(max(0.0, until - time.monotonic()))
