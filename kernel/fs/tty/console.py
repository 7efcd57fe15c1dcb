"""The host's terminal as the guest's /dev/pts/0.

The guest's line discipline does line editing, echo and signal keys; the host's terminal does output processing, with
the guest's ``c_oflag``.  The host's settings are changed only when the guest first reads from the terminal or changes
its settings (:meth:`Console.take_over`), and put back at the end by the emulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.signal import SIGINT
from kernel.abi.stat import makedev
from kernel.fs.tty import StdioKind
from kernel.fs.tty.tty import Tty
from kernel.task.signal import kill_pgrp
from kernel.task.waitqueue import WaitQueue

if TYPE_CHECKING:
    from kernel.fs.tty import Console
    from kernel.kernel import Kernel

PTS_0 = makedev(136, 0)


class ConsoleTty(Tty):
    """The terminal that the emulator runs on."""

    def __init__(self, kernel: Kernel, console: Console) -> None:
        super().__init__(kernel, PTS_0, b"pts/0")
        self.console = console
        self.termios = console.tty_settings()
        self.winsize = console.winsize()

    def process_output(self, data: bytes) -> bytes:
        """The host's terminal does it."""
        return data

    def put_output(self, data: bytes) -> None:
        self.console.write_tty(data)

    def want_input(self) -> None:
        self.console.take_over(self.termios.oflag)

    def settings_changed(self) -> None:
        self.console.take_over(self.termios.oflag)


class ConsoleDriver:
    """The kernel's side of the console: what the emulator calls."""

    def __init__(self, kernel: Kernel, tty: ConsoleTty | None) -> None:
        self.kernel = kernel
        self.tty = tty
        self.input_waitqueue = WaitQueue()
        """Readers of standard descriptors that are pipes or sockets."""
        self.first_pgrp = 0
        """The process group that was started from the command line."""

    @property
    def has_runnable(self) -> bool:
        """Has what came made a task runnable?"""
        return bool(self.kernel.sched.runnable)

    def receive(self, data: bytes) -> None:
        """Bytes were typed at the terminal."""
        if self.tty is not None:
            self.tty.receive(data)

    def input_ready(self) -> None:
        """A standard descriptor can be read."""
        self.input_waitqueue.wake_up()

    def resized(self, size: tuple[int, int, int, int]) -> None:
        if self.tty is not None:
            self.tty.set_winsize(size)

    def hangup(self) -> None:
        """The terminal is gone."""
        if self.tty is not None:
            self.tty.hangup()

    def interrupt(self) -> None:
        """Ctrl-C reached the emulator itself: SIGINT for the foreground group, as the terminal would have sent it."""
        pgrp = self.tty.pgrp if self.tty is not None and self.tty.pgrp else self.first_pgrp
        if pgrp:
            kill_pgrp(self.kernel, pgrp, SIGINT)


def make_console_tty(kernel: Kernel, console: Console) -> ConsoleTty | None:
    """The console's terminal if one of the standard descriptors is one; attaches the kernel to the console."""
    has_tty = any(console.kind(fd) is StdioKind.TTY for fd in range(3))
    tty = ConsoleTty(kernel, console) if has_tty else None
    console.attach(ConsoleDriver(kernel, tty))
    return tty
