"""The machine's clocks.

Models ``kernel/time/timekeeping.c``.  CLOCK_MONOTONIC starts at zero (a machine charges ``BOOT_NS`` first) and advances
with the work done: ``NS_PER_BLOCK`` for every basic block executed, ``NS_PER_SYSCALL`` for every system call,
``NS_PER_FAULT`` for every page fault, and by jumps when every task sleeps.  So time is the same in every run.

Deliberate differences: with ``--clock host`` (:class:`HostClock`) time is the host's; CLOCK_REALTIME of the virtual
clock starts at 2030-01-01 00:00:00 UTC: later than the files of any host, so that no program warns of times in the
future.
"""

from __future__ import annotations

from collections.abc import Callable

NS_PER_SEC = 1_000_000_000
NS_PER_BLOCK = 10
"""About what a basic block takes under the emulator, so that a program's timeouts fit its speed."""
NS_PER_SYSCALL = 500
NS_PER_FAULT = 1_000

BOOT_NS = NS_PER_SEC
"""What a machine charges for booting, so that no clock of its programs reads 0."""
BOOT_REALTIME_NS = 1_893_456_000 * NS_PER_SEC
"""2030-01-01T00:00:00Z."""


class Clock:
    """The virtual clock.  ``blocks`` gives the number of basic blocks executed so far."""

    __slots__ = ("blocks", "charged_ns", "realtime_offset_ns")

    is_host = False

    def __init__(self, blocks: Callable[[], int] = lambda: 0) -> None:
        self.blocks = blocks
        self.charged_ns = 0
        """Time from anything but executed blocks: system calls, faults, idle jumps."""
        self.realtime_offset_ns = BOOT_REALTIME_NS

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC in nanoseconds."""
        return self.charged_ns + self.blocks() * NS_PER_BLOCK

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME in nanoseconds since 1970."""
        return self.now_ns() + self.realtime_offset_ns

    def advance_to(self, deadline_ns: int) -> None:
        """Every task sleeps: jump to ``deadline_ns`` (no-op when it has passed)."""
        behind = deadline_ns - self.now_ns()
        if behind > 0:
            self.charged_ns += behind

    def blocks_until(self, deadline_ns: int) -> int:
        """How many basic blocks may run before ``deadline_ns`` is reached (at least 1)."""
        return max(1, -((self.now_ns() - deadline_ns) // NS_PER_BLOCK))


class HostClock(Clock):
    """The host's clocks, given as two functions that return nanoseconds.  Runs are then not repeatable."""

    __slots__ = ("_monotonic", "_realtime", "_start")

    is_host = True

    def __init__(self, monotonic_ns: Callable[[], int], realtime_ns: Callable[[], int]) -> None:
        super().__init__()
        self._monotonic = monotonic_ns
        self._realtime = realtime_ns
        self._start = monotonic_ns()

    def now_ns(self) -> int:
        return self._monotonic() - self._start

    def realtime_ns(self) -> int:
        return self._realtime()

    def advance_to(self, deadline_ns: int) -> None:
        """The host's time cannot be moved; the idle loop waits for it."""

    def blocks_until(self, deadline_ns: int) -> int:
        return max(1, (deadline_ns - self.now_ns()) // NS_PER_BLOCK)
