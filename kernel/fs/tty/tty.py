"""One terminal: settings, size, session and foreground group, reading and writing, job control.

Models ``drivers/tty/tty_io.c``, ``drivers/tty/tty_jobctrl.c`` and the reading and writing of ``drivers/tty/n_tty.c``.

Invariants: ``session`` is 0 or the session whose controlling terminal this is; ``pgrp`` is then its foreground process
group; ``signal.tty`` of the session's processes points back here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import O_NONBLOCK
from kernel.abi.poll import POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from kernel.abi.signal import SIG_IGN, SIGCONT, SIGHUP, SIGTTIN, SIGTTOU, SIGWINCH
from kernel.abi.termios import ICANON, OCRNL, ONLCR, ONLRET, ONOCR, OPOST, TABDLY, TOSTOP, VMIN, VTIME, Termios
from kernel.fs.tty.ldisc import NTty
from kernel.task.pgrp import is_current_pgrp_orphaned
from kernel.task.signal import kill_pgrp
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.task.task import Task

_TENTH_NS = 100_000_000


class Tty:
    """``struct tty_struct``.  Drivers (pty, console) override the methods at the end."""

    is_seen_from_outside = False
    """The master of a pty may ask for session and foreground group."""

    def __init__(self, kernel: Kernel, rdev: int, name: bytes) -> None:
        self.kernel = kernel
        self.rdev = rdev
        self.name = name
        """As in /proc/PID/stat and ttyname(3): ``pts/0``."""
        self.termios = Termios()
        self.winsize = (0, 0, 0, 0)
        """Rows, columns, and the size in pixels."""
        self.session = 0
        self.pgrp = 0
        self.stopped = False
        """Output is held (Ctrl-S, TCOOFF)."""
        self.hung_up = False
        self.exclusive = False
        self.nr_open = 0
        self.column = 0
        self.ldisc = NTty(self)
        self.read_wait = WaitQueue()
        self.write_wait = WaitQueue()

    # -- what the line discipline calls --------------------------------------------------------------------
    def echo(self, data: bytes) -> None:
        self.put_output(self.process_output(data))

    def signal(self, sig: int) -> None:
        if self.pgrp:
            kill_pgrp(self.kernel, self.pgrp, sig)

    def readable(self) -> None:
        self.read_wait.wake_up()

    def set_stopped(self, stopped: bool) -> None:
        self.stopped = stopped
        if not stopped:
            self.write_wait.wake_up()

    # -- input ---------------------------------------------------------------------------------------------
    def receive(self, data: bytes) -> None:
        """Bytes have been typed."""
        self.ldisc.receive(data)

    def read(self, task: Task | None, count: int, flags: int) -> bytes | Blocking[bytes]:
        """n_tty_read()."""
        if self.hung_up:
            return b""
        if task is not None:
            self.check_change(task, SIGTTIN)
        self.want_input()
        ldisc = self.ldisc
        if count == 0:
            return b""
        if ldisc.lines or not self._must_wait(count):
            return self._take(count)
        if flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "no input")
        return self._read_blocking(task, count)

    def _must_wait(self, count: int) -> bool:
        """Raw mode: are there fewer bytes than VMIN, and is not everything there that may be waited for?"""
        ldisc = self.ldisc
        if ldisc.canonical:
            return True
        minimum, tenths = self.termios.cc[VMIN], self.termios.cc[VTIME]
        if minimum == 0:
            return tenths > 0 and not ldisc.pending
        return len(ldisc.pending) < min(minimum, count)

    def _read_blocking(self, task: Task | None, count: int) -> Blocking[bytes]:
        ldisc = self.ldisc
        tenths, minimum = self.termios.cc[VTIME], self.termios.cc[VMIN]
        raw_timer = not ldisc.canonical and tenths > 0
        deadline = self._deadline(tenths) if raw_timer and not minimum else None
        seen = len(ldisc.pending)
        if raw_timer and minimum and seen:
            deadline = self._deadline(tenths)
        while not ldisc.lines and self._must_wait(count):
            reason = yield Sleep(self.read_wait, deadline_ns=deadline)
            if self.hung_up:
                return b""
            if ldisc.lines or not self._must_wait(count):
                break
            if reason is WakeReason.TIMEOUT:
                break
            if reason is WakeReason.SIGNAL:
                raise KernelError(ERESTARTSYS, "signal while waiting for input")
            if task is not None:
                self.check_change(task, SIGTTIN)
            if raw_timer and minimum and len(ldisc.pending) != seen:
                seen = len(ldisc.pending)
                deadline = self._deadline(tenths)
        return self._take(count)

    def _take(self, count: int) -> bytes:
        data = self.ldisc.take(count)
        self.input_taken()
        return data

    def _deadline(self, tenths: int) -> int:
        return self.kernel.clock.now_ns() + tenths * _TENTH_NS

    # -- output --------------------------------------------------------------------------------------------
    def write(self, task: Task | None, data: bytes, flags: int) -> int | Blocking[int]:
        """n_tty_write()."""
        if self.hung_up:
            raise KernelError(Errno.EIO, "terminal hung up")
        if task is not None and self.termios.lflag & TOSTOP:
            self.check_change(task, SIGTTOU)
        if not self.stopped and self.output_room() >= 2 * len(data):
            self.put_output(self.process_output(data))
            return len(data)
        if flags & O_NONBLOCK:
            written = self._put_some(data)
            if not written:
                raise KernelError(Errno.EAGAIN, "terminal takes no output now")
            return written
        return self._write_blocking(data)

    def _put_some(self, data: bytes) -> int:
        """As much as there is surely room for; a byte may become two, or eight (tabs)."""
        if self.stopped:
            return 0
        room = self.output_room()
        count = min(len(data), room if not self.termios.oflag & OPOST else room // 8)
        if count > 0:
            self.put_output(self.process_output(data[:count]))
        return max(0, count)

    def _write_blocking(self, data: bytes) -> Blocking[int]:
        done = 0
        while True:
            done += self._put_some(data[done:])
            if done == len(data):
                return done
            reason = yield Sleep(self.write_wait)
            if self.hung_up:
                raise KernelError(Errno.EIO, "terminal hung up")
            if reason is WakeReason.SIGNAL and (self.stopped or not self.output_room()):
                if done:
                    return done
                raise KernelError(ERESTARTSYS, "signal while waiting to write")

    def process_output(self, data: bytes) -> bytes:
        """do_output_char() on all of ``data``."""
        oflag = self.termios.oflag
        if not oflag & OPOST:
            return data
        if oflag & ~(ONLCR | OPOST) & 0x3F == 0 and oflag & TABDLY == 0:
            self._count_columns(data)
            return data.replace(b"\n", b"\r\n") if oflag & ONLCR else data
        out = bytearray()
        for char in data:
            if char == 10:
                if oflag & ONLCR:
                    out.append(13)
                    self.column = 0
                elif oflag & ONLRET:
                    self.column = 0
            elif char == 13:
                if oflag & ONOCR and self.column == 0:
                    continue
                if oflag & OCRNL:
                    char = 10
                self.column = 0
            elif char == 9:
                spaces = 8 - (self.column & 7)
                self.column += spaces
                if oflag & TABDLY == TABDLY:
                    out += b" " * spaces
                    continue
            elif char >= 32:
                self.column += 1
            out.append(char)
        return bytes(out)

    def _count_columns(self, data: bytes) -> None:
        cut = max(data.rfind(b"\n"), data.rfind(b"\r"))
        self.column = len(data) - cut - 1 if cut >= 0 else self.column + len(data)

    # -- poll ----------------------------------------------------------------------------------------------
    def poll(self) -> int:
        self.want_input()
        if self.hung_up:
            return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLHUP
        mask = 0
        if self.ldisc.input_available(poll=True):
            mask |= POLLIN | POLLRDNORM
        if not self.stopped and self.output_room() > 0:
            mask |= POLLOUT | POLLWRNORM
        return mask

    # -- job control ---------------------------------------------------------------------------------------
    def check_change(self, task: Task, sig: int) -> None:
        """__tty_check_change(): a background process that touches its terminal is stopped by ``sig``."""
        if task.signal.tty is not self or not self.pgrp or task.signal.pgrp == self.pgrp:
            return
        if task.blocked >> (sig - 1) & 1 or task.sighand.action[sig - 1].handler == SIG_IGN:
            if sig == SIGTTIN:
                raise KernelError(Errno.EIO, "read from the background, SIGTTIN ignored")
            return
        if is_current_pgrp_orphaned(task):
            raise KernelError(Errno.EIO, "background process in an orphaned group")
        kill_pgrp(self.kernel, task.signal.pgrp, sig)
        raise KernelError(ERESTARTSYS, "background process touches its terminal")

    def set_controlling(self, task: Task) -> None:
        """proc_set_tty(): this becomes the controlling terminal of the session that ``task`` leads."""
        self.session = task.signal.session
        self.pgrp = task.signal.pgrp
        task.signal.tty = self

    def disassociate(self, task: Task) -> None:
        """disassociate_ctty(): the session leader ``task`` exits or gives its terminal up (TIOCNOTTY)."""
        signal = task.signal
        if signal.session != task.tgid:
            signal.tty = None
            return
        pgrp = self.pgrp
        session = self.session
        self.session = self.pgrp = 0
        for member in self.kernel.pids.session_members(session):
            member.signal.tty = None
        signal.tty = None
        if pgrp:
            kill_pgrp(self.kernel, pgrp, SIGHUP)
            kill_pgrp(self.kernel, pgrp, SIGCONT)

    def hangup(self) -> None:
        """__tty_hangup(): the other side is gone; the session's processes hear of it."""
        if self.hung_up:
            return
        self.hung_up = True
        session, pgrp = self.session, self.pgrp
        self.session = self.pgrp = 0
        if session:
            for member in self.kernel.pids.session_members(session):
                member.signal.tty = None
            leader = self.kernel.tasks.get(session)
            if leader is not None:
                kill_pgrp(self.kernel, leader.signal.pgrp, SIGHUP)
                kill_pgrp(self.kernel, leader.signal.pgrp, SIGCONT)
            if pgrp and (leader is None or leader.signal.pgrp != pgrp):
                kill_pgrp(self.kernel, pgrp, SIGHUP)
                kill_pgrp(self.kernel, pgrp, SIGCONT)
        self.ldisc.flush()
        self.read_wait.wake_up()
        self.write_wait.wake_up()

    # -- settings ------------------------------------------------------------------------------------------
    def set_termios(self, new: Termios) -> None:
        old, self.termios = self.termios, new
        if (old.lflag ^ new.lflag) & ICANON or old.iflag != new.iflag or old.cc != new.cc:
            self.ldisc.settings_changed(old)
        self.settings_changed()

    def set_winsize(self, size: tuple[int, int, int, int]) -> None:
        """tty_do_resize(): the foreground group hears of a change."""
        if size != self.winsize:
            self.winsize = size
            if self.pgrp:
                kill_pgrp(self.kernel, self.pgrp, SIGWINCH)

    # -- the driver ----------------------------------------------------------------------------------------
    def put_output(self, data: bytes) -> None:
        """Show ``data``."""

    def output_room(self) -> int:
        """How many bytes ``put_output`` takes now."""
        return 1 << 30

    def input_taken(self) -> None:
        """A reader has made room for input."""

    def want_input(self) -> None:
        """Somebody reads or waits for input."""

    def settings_changed(self) -> None:
        """``termios`` is new."""

    def closed(self) -> None:
        """The last descriptor for this terminal is gone."""
