"""Terminals: the line discipline, pseudo-terminals, and the host's terminal as the console.

    ldisc.py    the line discipline (n_tty): what becomes of typed bytes
    tty.py      one terminal: settings, job control, readers and writers
    ttyfile.py  a terminal as an open file; its ioctls
    devpts.py   pseudo-terminals and /dev/pts; /dev/tty
    console.py  the host's terminal

Models ``drivers/tty``.  The emulator gives an object of type :class:`Console`.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kernel.abi.termios import Termios
    from kernel.fs.hostfs import HostStat
    from kernel.fs.tty.console import ConsoleDriver
    from kernel.task.task import Task


class StdioKind(Enum):
    """What a standard descriptor of the host process is."""

    CLOSED = "closed"
    TTY = "terminal"
    REGULAR = "regular file"
    NULL = "/dev/null"
    STREAM = "pipe, socket or other device"


class Console(Protocol):
    """The host's standard descriptors and terminal.  Implemented by ``emu/console.py``.

    Methods on descriptors raise :class:`~kernel.abi.errno.KernelError`, never OSError.
    """

    @property
    def is_waited_for(self) -> bool:
        """Can input from the host wake somebody?"""
        ...

    def attach(self, driver: ConsoleDriver) -> None:
        """``driver`` is told of input, resizes and Ctrl-C from now on."""
        ...

    def poll_host(self, timeout_ns: int | None) -> bool:
        """Take what has come from the host, waiting up to ``timeout_ns`` (None: until something comes).

        True: a task can run now.
        """
        ...

    def open_standard_files(self, task: Task) -> None: ...

    # -- descriptors 0, 1, 2 -------------------------------------------------------------------------------
    def kind(self, fd: int) -> StdioKind: ...
    def stat(self, fd: int) -> HostStat: ...
    def name(self, fd: int) -> bytes:
        """What /proc/self/fd/N of the host says."""
        ...

    def open_flags(self, fd: int) -> int:
        """F_GETFL."""
        ...

    def poll_mask(self, fd: int) -> int:
        """POLL* bits, at once."""
        ...

    def read(self, fd: int, count: int) -> bytes:
        """Called only when there is something to read, or the end."""
        ...

    def write(self, fd: int, data: bytes) -> int:
        """Writes everything unless the host refuses; waits while a pipe is full."""
        ...

    def pread(self, fd: int, offset: int, count: int) -> bytes: ...
    def pwrite(self, fd: int, offset: int, data: bytes) -> int: ...
    def lseek(self, fd: int, offset: int, whence: int) -> int: ...
    def ftruncate(self, fd: int, size: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def open_again(self, fd: int, flags: int) -> int:
        """Another descriptor for the regular file ``fd``, with its own position (the access mode was checked)."""
        ...

    def close_again(self, fd: int) -> None: ...

    # -- the terminal --------------------------------------------------------------------------------------
    def write_tty(self, data: bytes) -> int: ...
    def tty_settings(self) -> Termios:
        """The terminal's settings as they were at the start."""
        ...

    def winsize(self) -> tuple[int, int, int, int]:
        """Rows, columns, and the size in pixels."""
        ...

    def take_over(self, oflag: int) -> None:
        """The guest reads from the terminal: stop the host's line editing, echo and signal keys; output processing is
        as ``oflag`` says."""
        ...
