"""Deadlines on the kernel's monotonic clock.

Models ``kernel/time/hrtimer.c`` as one heap.  Timers that expire at the same instant run in the order in which they
were armed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

from kernel.task.waitqueue import WaitQueue


class Timer:
    """One armed deadline.  ``cancel`` is idempotent; a cancelled or expired timer never runs."""

    __slots__ = ("_seq", "active", "deadline_ns", "function")

    def __init__(self, deadline_ns: int, seq: int, function: Callable[[], None]) -> None:
        self.deadline_ns = deadline_ns
        self._seq = seq
        self.function = function
        self.active = True

    def cancel(self) -> bool:
        """True if the timer was still armed."""
        was_active = self.active
        self.active = False
        return was_active

    def __lt__(self, other: Timer) -> bool:
        return (self.deadline_ns, self._seq) < (other.deadline_ns, other._seq)


class RealtimeTimer(Protocol):
    """What has to be armed anew when CLOCK_REALTIME jumps."""

    def clock_was_set(self) -> None: ...


class Timers:
    """All armed timers.

    Invariant: the heap holds every active timer once, and cancelled ones until they come to the top or until they
    are more than half of it.
    """

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._seq = 0
        self._sweep_at = 64
        self.realtime: dict[RealtimeTimer, None] = {}
        """Timers armed for a moment on CLOCK_REALTIME; told when that clock is set."""
        self.clock_was_set = WaitQueue()
        """Woken when CLOCK_REALTIME is set, for those who wait for a moment on it."""

    def add(self, deadline_ns: int, function: Callable[[], None]) -> Timer:
        """Call ``function`` once when the monotonic clock reaches ``deadline_ns``."""
        self._seq += 1
        timer = Timer(deadline_ns, self._seq, function)
        if len(self._heap) >= self._sweep_at:
            self._heap = [entry for entry in self._heap if entry.active]
            heapq.heapify(self._heap)
            self._sweep_at = max(64, 2 * len(self._heap))
        heapq.heappush(self._heap, timer)
        return timer

    def next_deadline_ns(self) -> int | None:
        """When the earliest timer expires; None when none is armed."""
        heap = self._heap
        while heap and not heap[0].active:
            heapq.heappop(heap)
        return heap[0].deadline_ns if heap else None

    def run(self, now_ns: int) -> int:
        """Run every timer with ``deadline_ns <= now_ns``, the earliest first; returns how many ran.

        A timer armed by another's function runs too if it is due.
        """
        nr_run = 0
        heap = self._heap
        while heap and heap[0].deadline_ns <= now_ns:
            timer = heapq.heappop(heap)
            if timer.active:
                timer.active = False
                timer.function()
                nr_run += 1
                heap = self._heap
        return nr_run
