"""Sleeping and waking: what a system call yields when it cannot go on.

Models ``include/linux/wait.h``.  A handler that may sleep is a generator.  It yields a :class:`Sleep`
naming the queues that may wake it and a deadline; the scheduler parks the task and later sends the
:class:`WakeReason` back in.  The handler then tests its condition again: a wake-up is a hint, never a promise.

Deliberate difference: no exclusive/non-exclusive flag; ``wake_up(nr=1)`` wakes the longest waiter.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from kernel.task.task import Task


class WakeReason(Enum):
    EVENT = "event"
    TIMEOUT = "timeout"
    SIGNAL = "signal"


class WaitQueue:
    """Tasks that wait for one thing, in the order in which they came."""

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: dict[Task, None] = {}

    def add(self, task: Task) -> None:
        self.waiters[task] = None

    def remove(self, task: Task) -> None:
        self.waiters.pop(task, None)

    def wake_up(self, nr: int | None = None) -> int:
        """Wake up to ``nr`` waiters (None: all), the longest waiting first; returns how many were woken."""
        if not self.waiters:
            return 0
        woken = list(self.waiters) if nr is None else list(self.waiters)[:nr]
        for task in woken:
            task.wake(WakeReason.EVENT)  # takes the task off all its queues
        return len(woken)

    def __bool__(self) -> bool:
        return bool(self.waiters)


class Sleep:
    """A request to the scheduler: sleep until a queue wakes me, ``deadline_ns`` passes, or a signal comes.

    ``deadline_ns`` is absolute on the kernel's monotonic clock; None waits for ever.
    ``killable_only`` leaves only fatal signals able to end the sleep (vfork, page I/O).
    """

    __slots__ = ("deadline_ns", "killable_only", "queues")

    def __init__(
        self,
        *queues: WaitQueue,
        deadline_ns: int | None = None,
        killable_only: bool = False,
    ) -> None:
        self.queues = queues
        self.deadline_ns = deadline_ns
        self.killable_only = killable_only


T = TypeVar("T")
Blocking = Generator[Sleep, WakeReason, T]
"""The return type of a handler that may sleep and ends with a ``T``."""


def wait_event(queue: WaitQueue, condition: Callable[[], Any], deadline_ns: int | None = None) -> Blocking[WakeReason]:
    """Sleep on ``queue`` until ``condition()`` is true (EVENT), the deadline passes, or a signal comes.

    Use as ``reason = yield from wait_event(...)``.
    """
    while not condition():
        reason = yield Sleep(queue, deadline_ns=deadline_ns)
        if reason is not WakeReason.EVENT:
            return WakeReason.EVENT if condition() else reason
    return WakeReason.EVENT
