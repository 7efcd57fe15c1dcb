"""The host's standard descriptors and terminal: :class:`kernel.fs.tty.Console` over ``os``, ``termios`` and ``select``.

The terminal's settings are changed only by :meth:`HostConsole.take_over` (when the guest first reads from it) and put
back by :meth:`HostConsole.stop`, which also runs at interpreter exit.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import select
import signal
import stat
import struct
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from kernel.abi.errno import KernelError
from kernel.abi.termios import IUTF8, Termios
from kernel.fs.hostfs import HostStat
from kernel.fs.stdio import install_stdio
from kernel.fs.tty import StdioKind

if TYPE_CHECKING:
    from kernel.fs.tty.console import ConsoleDriver
    from kernel.task.task import Task

T = TypeVar("T")
_NULL_DEVICE = os.makedev(1, 3)
_TIOCGWINSZ = 0x5413
_CHUNK = 65_536
_NOBODY_CARES_S = 0.05
# Indices of the lists that termios.tcgetattr gives.
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED, _CC = range(7)
_SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}


def _call(function: Callable[..., T], *args: Any) -> T:
    """OSError of the host becomes the same error for the guest."""
    try:
        return function(*args)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"host: {error.strerror}") from None


class HostConsole:
    """Descriptors 0, 1 and 2 of this process.

    Invariant: ``_saved`` is not None exactly while the terminal's settings are ours.
    """

    def __init__(self) -> None:
        self._kinds = [_kind(fd) for fd in range(3)]
        self._tty_fd = next((fd for fd in range(3) if self._kinds[fd] is StdioKind.TTY), -1)
        self._saved: list[Any] | None = None
        self._reads_tty = self._kinds[0] is StdioKind.TTY
        self._driver: ConsoleDriver | None = None
        self._wakeup: tuple[int, int] | None = None
        self._old_wakeup_fd = -1
        self._old_winch: Any = None
        self._resized = False
        self._announced = False
        """The kernel has been told that standard input can be read, and has not read it since."""
        self.on_terminal_output: Callable[[bytes], None] | None = None
        """Told what the guest is about to write to the terminal (progress displays)."""

    # ---- life ---------------------------------------------------------------------------------------------------

    def attach(self, driver: ConsoleDriver) -> None:
        self._driver = driver

    def start(self) -> None:
        """The machine begins to run: signals end a wait for input."""
        atexit.register(self.stop)
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._old_wakeup_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
            self._wakeup = read_end, write_end
            if self._tty_fd >= 0:
                self._old_winch = signal.signal(signal.SIGWINCH, self._on_winch)
        except ValueError:  # not the main thread: no signals to see
            self._wakeup = None

    def stop(self) -> None:
        """Put the terminal back as it was.  Harmless when repeated."""
        atexit.unregister(self.stop)
        if self._saved is not None:
            saved, self._saved = self._saved, None
            with suppress(termios.error):
                termios.tcsetattr(self._tty_fd, termios.TCSADRAIN, saved)
        if self._wakeup is not None:
            wakeup, self._wakeup = self._wakeup, None
            with suppress(ValueError):
                signal.set_wakeup_fd(self._old_wakeup_fd)
                if self._old_winch is not None:
                    signal.signal(signal.SIGWINCH, self._old_winch)
            for fd in wakeup:
                os.close(fd)

    @property
    def owns_terminal(self) -> bool:
        """Has the guest begun to read from the terminal?"""
        return self._saved is not None

    def interrupt(self) -> None:
        """Ctrl-C reached this process."""
        if self._driver is not None:
            self._driver.interrupt()

    def _on_winch(self, _number: int, _frame: Any) -> None:
        self._resized = True

    # ---- input --------------------------------------------------------------------------------------------------

    @property
    def is_waited_for(self) -> bool:
        driver = self._driver
        if self._saved is not None:
            return True
        return driver is not None and bool(driver.input_waitqueue) and not self._announced

    def poll_host(self, timeout_ns: int | None) -> bool:
        """Give the kernel what has come; ``timeout_ns`` None waits until something comes or a signal arrives.

        True: a task can run now.
        """
        driver = self._driver
        if driver is None:
            return False
        if self._resized:
            self._resized = False
            driver.resized(self.winsize())
        watched = self._watched(driver)
        if not watched:
            if timeout_ns:
                time.sleep(timeout_ns / 1e9)
            return False
        if self._wakeup is not None:
            watched.append(self._wakeup[0])
        timeout_s = None if timeout_ns is None else timeout_ns / 1e9
        ready, _, _ = select.select(watched, (), (), timeout_s)
        for fd in ready:
            if self._wakeup is not None and fd == self._wakeup[0]:
                with suppress(BlockingIOError):
                    os.read(fd, 4096)
            elif self._saved is not None and fd == self._tty_fd:
                self._take_typed(driver)
            else:
                self._announced = True
                driver.input_ready()
        if not ready or driver.has_runnable or self._resized:
            return bool(ready)
        if timeout_ns is None:
            time.sleep(_NOBODY_CARES_S)  # there is input, but whoever sleeps waits for something else
        return False

    def _watched(self, driver: ConsoleDriver) -> list[int]:
        watched = []
        if self._saved is not None:
            watched.append(self._tty_fd)
        if driver.input_waitqueue and self._kinds[0] is StdioKind.STREAM and not self._announced:
            watched.append(0)
        return watched

    def _take_typed(self, driver: ConsoleDriver) -> None:
        try:
            data = os.read(self._tty_fd, 4096)
        except OSError:
            data = b""
        if data:
            driver.receive(data)
        else:
            self._saved = None
            driver.hangup()

    # ---- descriptors --------------------------------------------------------------------------------------------

    def open_standard_files(self, task: Task) -> None:
        """Give ``task`` what this process has as standard input, output and error."""
        assert self._driver is not None, "mount_root comes first"
        install_stdio(task, self, self._driver)

    def kind(self, fd: int) -> StdioKind:
        return self._kinds[fd]

    def stat(self, fd: int) -> HostStat:
        st = _call(os.fstat, fd)
        return HostStat(
            st.st_dev, st.st_ino, st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_rdev, st.st_size,
            st.st_blocks, st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns,
        )  # fmt: skip

    def name(self, fd: int) -> bytes:
        try:
            return os.readlink(b"/proc/self/fd/%d" % fd)
        except OSError:
            return b"/dev/fd/%d" % fd

    def open_flags(self, fd: int) -> int:
        return int(_call(fcntl.fcntl, fd, fcntl.F_GETFL))

    def poll_mask(self, fd: int) -> int:
        poller = select.poll()
        poller.register(fd, select.POLLIN | select.POLLOUT | select.POLLPRI)
        found = poller.poll(0)
        return found[0][1] if found else 0

    def read(self, fd: int, count: int) -> bytes:
        if fd == 0:
            self._announced = False
        return _call(os.read, fd, count)

    def write(self, fd: int, data: bytes) -> int:
        done = 0
        view = memoryview(data)
        while done < len(data):
            try:
                done += os.write(fd, view[done : done + _CHUNK])
            except BlockingIOError:
                select.select((), (fd,), ())
            except OSError as error:
                if done:
                    return done
                raise KernelError(error.errno or errno.EIO, f"host: {error.strerror}") from None
        return done

    def pread(self, fd: int, offset: int, count: int) -> bytes:
        return _call(os.pread, fd, count, offset)

    def pwrite(self, fd: int, offset: int, data: bytes) -> int:
        return _call(os.pwrite, fd, data, offset)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        return _call(os.lseek, fd, offset, whence)

    def ftruncate(self, fd: int, size: int) -> None:
        _call(os.ftruncate, fd, size)

    def fsync(self, fd: int) -> None:
        _call(os.fsync, fd)

    def open_again(self, fd: int, flags: int) -> int:
        return _call(os.open, f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC | os.O_NOCTTY)

    def close_again(self, fd: int) -> None:
        os.close(fd)

    # ---- the terminal -------------------------------------------------------------------------------------------

    def write_tty(self, data: bytes) -> int:
        fd = next((fd for fd in (1, 2, 0) if self._kinds[fd] is StdioKind.TTY), self._tty_fd)
        if self.on_terminal_output is not None:
            self.on_terminal_output(data)
        return self.write(fd, data)

    def tty_settings(self) -> Termios:
        settings = Termios()
        try:
            attributes = termios.tcgetattr(self._tty_fd)
        except termios.error:
            return settings
        settings.iflag, settings.oflag = attributes[_IFLAG], attributes[_OFLAG]
        settings.cflag, settings.lflag = attributes[_CFLAG], attributes[_LFLAG]
        characters = [c if isinstance(c, int) else c[0] for c in attributes[_CC]]
        settings.cc = bytes(characters[:19])
        settings.ispeed = _SPEEDS.get(attributes[_ISPEED], 38400)
        settings.ospeed = _SPEEDS.get(attributes[_OSPEED], 38400)
        return settings

    def winsize(self) -> tuple[int, int, int, int]:
        try:
            raw = fcntl.ioctl(self._tty_fd, _TIOCGWINSZ, bytes(8))
        except OSError:
            return 0, 0, 0, 0
        rows, columns, width, height = struct.unpack("HHHH", raw)
        return rows, columns, width, height

    def take_over(self, oflag: int) -> None:
        if not self._reads_tty:
            return  # the guest cannot read from the terminal: its settings are none of our business
        try:
            attributes = termios.tcgetattr(self._tty_fd)
            if self._saved is None:
                self._saved = [list(field) if isinstance(field, list) else field for field in attributes]
            elif attributes[_OFLAG] == oflag:
                return
            attributes[_IFLAG] &= IUTF8
            attributes[_LFLAG] &= ~(
                termios.ICANON | termios.ECHO | termios.ECHONL | termios.ISIG | termios.IEXTEN | termios.TOSTOP
            )
            attributes[_OFLAG] = oflag
            attributes[_CC][termios.VMIN], attributes[_CC][termios.VTIME] = 1, 0
            termios.tcsetattr(self._tty_fd, termios.TCSADRAIN, attributes)
        except termios.error:
            return


def _kind(fd: int) -> StdioKind:
    try:
        st = os.fstat(fd)
    except OSError:
        return StdioKind.CLOSED
    if stat.S_ISREG(st.st_mode):
        return StdioKind.REGULAR
    if stat.S_ISCHR(st.st_mode):
        if st.st_rdev == _NULL_DEVICE:
            return StdioKind.NULL
        if os.isatty(fd):
            return StdioKind.TTY
    return StdioKind.STREAM
