"""Failures on request: ``--fail alloc:100`` makes the hundredth page allocation fail.

Models ``lib/fault-inject.c`` and ``Documentation/fault-injection``: a *failure point* is a named place in the kernel
that asks :meth:`FailPoints.should_fail` before it does its work.  Grammar of one ``--fail`` option::

    POINT:WHEN              alloc:100       swap-io:3..        swap-io:every10
    POINT:ERROR@WHEN        mremap:EFAULT@3        mmap:ENOMEM@10..20
    WHEN = N                the N-th time only (counted from 1)
         | N.. | N..M       from the N-th time on | up to and including the M-th
         | every | everyK   each time | each K-th time

Points known today: ``alloc`` (page frames), ``swap-io`` (``swap-read`` and ``swap-write``: one direction) and the
name of any system call, which then returns ERROR without being run.  Each point counts by itself, over all tasks; a
call that is to fail is counted like any other.

Deliberate differences: counted, never random, so that a failing run can be repeated; what a program asks the vDSO for
(clock_gettime and its like) is no system call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kernel.abi.errno import Errno
from kernel.syscalls.names import is_syscall_name, syscall_names

_ERRORS = {
    "alloc": Errno.ENOMEM,
    "swap-io": Errno.EIO,
    "swap-read": Errno.EIO,
    "swap-write": Errno.EIO,
}
"""The points that are no system calls, and the one error of each."""
_PASSAGES = {
    "alloc": ("a page", "allocated"),
    "swap-io": ("a page", "read from swap or written to it"),
    "swap-read": ("a page", "read from swap"),
    "swap-write": ("a page", "written to swap"),
}
_SPEC = re.compile(
    r"(?P<point>[a-z_][a-z0-9_-]*):(?:(?P<error>E[A-Z0-9]+)@)?"
    r"(?:(?P<first>\d+)(?:(?P<open>\.\.)(?P<last>\d+)?)?|every(?P<step>\d*))"
)


@dataclass(frozen=True)
class FailRule:
    """When a point fails: the ``first``, ``first + step``, ... time, not after the ``last`` (None: for ever)."""

    spec: str
    """As it was asked for."""
    point: str
    errno: int
    first: int
    last: int | None
    step: int

    def hits(self, count: int) -> bool:
        if count < self.first or (self.last is not None and count > self.last):
            return False
        return (count - self.first) % self.step == 0


def parse_fail(spec: str) -> FailRule:
    """One ``--fail`` option.  Raises ValueError with a text for the user."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(f"--fail {spec}: expected POINT:N, POINT:N.., POINT:N..M, POINT:every[K] or POINT:ERROR@...")
    point = match["point"]
    if point not in _ERRORS and not is_syscall_name(point):
        raise ValueError(f"--fail {spec}: {_no_such_point(point)}")
    error = match["error"]
    if error:
        if error not in Errno.__members__:
            raise ValueError(f"--fail {spec}: unknown error {error}{_did_you_mean(error, Errno.__members__)}")
        errno = Errno[error]
        if errno is not _ERRORS.get(point, errno):
            raise ValueError(f"--fail {spec}: {point} can fail with {_ERRORS[point].name} only")
    elif point in _ERRORS:
        errno = _ERRORS[point]
    else:
        raise ValueError(f"--fail {spec}: which error? write {point}:ERROR@N")
    if match["first"] is None:
        step = int(match["step"] or 1)
        if step == 0:
            raise ValueError(f"--fail {spec}: every0 never comes")
        return FailRule(spec, point, errno, step, None, step)
    first = int(match["first"])
    last: int | None = first
    if match["open"]:
        last = int(match["last"]) if match["last"] else None
    if first == 0 or (last is not None and last < first):
        raise ValueError(f"--fail {spec}: counting starts at 1 and goes up")
    return FailRule(spec, point, errno, first, last, 1)


def _no_such_point(point: str) -> str:
    points = [*_ERRORS, *syscall_names()]
    return f"nothing called {point!r}{_did_you_mean(point, points)}; there are {', '.join(_ERRORS)} and system calls"


def _did_you_mean(word: str, words: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, words, 1)
    return f" (did you mean {near[0]}?)" if near else ""


class FailPoints:
    """The failures asked for, and how often each point was passed."""

    def __init__(self, specs: Iterable[str] = ()) -> None:
        self._rules: dict[str, list[FailRule]] = {}
        self.counts: dict[str, int] = {}
        """How often each point that has a rule was passed."""
        self.injected: list[tuple[str, int, int]] = []
        """(point, which time, errno) of every failure made, for the report at the end."""
        self.nr_made: dict[str, int] = {}
        """How many failures each ``--fail`` option has made, in their order."""
        for spec in specs:
            self.add(spec)

    def add(self, spec: str) -> None:
        """One ``--fail`` option.  Raises ValueError with a text for the user."""
        rule = parse_fail(spec)
        self._rules.setdefault(rule.point, []).append(rule)
        self.counts.setdefault(rule.point, 0)
        self.nr_made.setdefault(spec, 0)

    def clear(self) -> None:
        """Let nothing fail any more; what was done stays in the report."""
        self._rules.clear()

    def watches(self, point: str) -> bool:
        """Is there any rule for ``point``?  Who is on a hot path asks once, when the machine is built."""
        return point in self._rules

    def error_at(self, point: str) -> int:
        """Count one passage of ``point``: the errno to fail with, or 0."""
        rules = self._rules.get(point)
        if rules is None:
            return 0
        count = self.counts[point] = self.counts[point] + 1
        for rule in rules:
            if rule.hits(count):
                self.injected.append((point, count, rule.errno))
                self.nr_made[rule.spec] += 1
                return rule.errno
        return 0

    def should_fail(self, point: str) -> bool:
        return self.error_at(point) != 0

    def unmade(self) -> list[str]:
        """One line for every ``--fail`` option that has made no failure, with the reason."""
        return [f"--fail {spec} never happened: {self._why(spec)}" for spec, nr in self.nr_made.items() if not nr]

    def _why(self, spec: str) -> str:
        rule = parse_fail(spec)
        count = self.counts[rule.point]
        if any(rule.hits(nr) for nr in range(rule.first, count + 1)):
            return f"another --fail {rule.point}: came first"
        what, done = _PASSAGES.get(rule.point, (rule.point, "called"))
        if count == 0:
            return f"{what} was never {done}"
        return f"{what} was {done} {'once' if count == 1 else f'{count} times'}"
