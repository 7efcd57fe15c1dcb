"""How a long run is getting on: one line on the terminal, such as

    3 tasks, 1,204,551 faults, 88.1M blocks, rss 12.0M, swap 3.5M, 2.31 s

It is on standard error, from the second second on (the first is nobody's business), twice a second at the most, and
only where it can disturb nothing: never when standard error is no terminal or another job's, not while the guest has
left something on the line, not after the guest has begun to read from the terminal.  What the guest writes wipes it
off first.  The numbers are the machine's own; the host's clock only decides when they are shown.

The habits are those of ninja and pv; ``-q`` switches it off.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emu.board import Board

FIRST_AFTER_S = 1.0
EVERY_S = 0.5
_WIPE = b"\r\x1b[K"
_UNITS = (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10))


def status_text(board: Board) -> str:
    """What the line says."""
    kernel = board.kernel
    mms = kernel.all_mms()
    nr_tasks = len(board.tasks)
    fields = [
        f"{nr_tasks} task" if nr_tasks == 1 else f"{nr_tasks} tasks",
        f"{kernel.vmstat.pgfault:,} faults",
        f"{_millions(board.cpu.blocks)} blocks",
        f"rss {_size(sum(mm.rss for mm in mms) << 12)}",
    ]
    if kernel.swap.total_swap_pages:
        fields.append(f"swap {_size(kernel.swap.used_pages << 12)}")
    fields.append(f"{kernel.clock.now_ns() / 1e9:.2f} s")
    return ", ".join(fields)


def _millions(number: int) -> str:
    return f"{number / 1e6:,.1f}M" if number >= 1_000_000 else f"{number:,}"


def _size(nr_bytes: int) -> str:
    for suffix, unit in _UNITS:
        if nr_bytes >= unit:
            return f"{nr_bytes / unit:.1f}{suffix}"
    return str(nr_bytes)


class StatusLine:
    """The last line of a terminal, which is ours while nobody else writes there.

    Invariant: ``_shown`` says whether the cursor stands behind a text of ours.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._shown = False
        self._line_is_free = True
        """The cursor is at the beginning of a line, as far as we know."""

    def show(self, text: str) -> None:
        """Show ``text`` instead of what was there, if the line is free and the terminal is ours."""
        if self._line_is_free and _is_foreground(self._fd):
            width = _width(self._fd)
            self._put(_WIPE + text[: width - 1].encode("ascii", "replace"))
            self._shown = True

    def wipe(self) -> None:
        if self._shown:
            self._shown = False
            self._put(_WIPE)

    def others_write(self, data: bytes) -> None:
        """Somebody is about to write ``data`` on the terminal."""
        self.wipe()
        if data:
            self._line_is_free = data.endswith(b"\n")

    def _put(self, data: bytes) -> None:
        try:
            os.write(self._fd, data)
        except OSError:  # the terminal has gone: there is nobody to tell
            self._line_is_free = False


class RunProgress:
    """Shows how ``board`` is getting on, between its quanta."""

    def __init__(self, line: StatusLine, now_s: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._now_s = now_s
        self._due_s = now_s() + FIRST_AFTER_S

    def on_quantum(self, board: Board) -> None:
        now_s = self._now_s()
        if now_s < self._due_s:
            return
        if board.console.owns_terminal:
            self._line.wipe()
            self._due_s = float("inf")
            return
        self._due_s = now_s + EVERY_S
        self._line.show(status_text(board))


@contextmanager
def shown(board: Board, is_wanted: bool) -> Iterator[None]:
    """Show progress while ``board`` runs in here, if that is wanted and possible."""
    if not is_wanted or not is_possible():
        yield
        return
    line = StatusLine(2)
    board.on_quantum = RunProgress(line).on_quantum
    board.console.on_terminal_output = line.others_write
    try:
        yield
    finally:
        board.on_quantum = None
        board.console.on_terminal_output = None
        line.wipe()


def is_possible() -> bool:
    """Is standard error a terminal that can wipe a line?"""
    return os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"


def _is_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not our controlling terminal: nobody else's job either
        return True


def _width(fd: int) -> int:
    try:
        return os.get_terminal_size(fd).columns or 80
    except OSError:
        return 80
