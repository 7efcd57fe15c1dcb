"""A terminal as an open file, and ioctl_tty(2).

Models ``drivers/tty/tty_io.c`` (``tty_open``, ``tty_ioctl``), ``drivers/tty/tty_ioctl.c`` and ``tty_jobctrl.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi import termios as t
from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FMODE_READ, O_NOCTTY
from kernel.abi.ioctl import FIONREAD
from kernel.abi.signal import SIGTTOU
from kernel.fs.file import File
from kernel.fs.permission import CAP_SYS_ADMIN, capable
from kernel.fs.uio import user_mm
from kernel.mm.usercopy import copy_from_user, copy_to_user, get_user_u32, put_user_u32

if TYPE_CHECKING:
    from kernel.abi.termios import Termios
    from kernel.fs.dcache import Path
    from kernel.fs.inode import Inode
    from kernel.fs.tty.tty import Tty
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking, WaitQueue

_GET = {
    t.TCGETS: t.Termios.pack,
    t.TCGETS2: t.Termios.pack2,
    t.TCGETA: t.Termios.pack_old,
}
_SET = {
    t.TCSETS: (t.Termios.set, t.TERMIOS_SIZE),
    t.TCSETSW: (t.Termios.set, t.TERMIOS_SIZE),
    t.TCSETSF: (t.Termios.set, t.TERMIOS_SIZE),
    t.TCSETS2: (t.Termios.set2, t.TERMIOS2_SIZE),
    t.TCSETSW2: (t.Termios.set2, t.TERMIOS2_SIZE),
    t.TCSETSF2: (t.Termios.set2, t.TERMIOS2_SIZE),
    t.TCSETA: (t.Termios.set_old, t.TERMIO_SIZE),
    t.TCSETAW: (t.Termios.set_old, t.TERMIO_SIZE),
    t.TCSETAF: (t.Termios.set_old, t.TERMIO_SIZE),
}
_SET_AND_FLUSH = (t.TCSETSF, t.TCSETSF2, t.TCSETAF)


class TtyFile(File):
    """An open terminal (not the master of a pty)."""

    __slots__ = ("tty",)

    def __init__(self, path: Path, inode: Inode, flags: int, tty: Tty) -> None:
        super().__init__(path, inode, flags)
        self.tty = tty
        tty.nr_open += 1

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        return self.tty.read(task, count, self.f_flags)

    def unread(self, data: bytes) -> None:
        self.tty.ldisc.put_back(data)

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        return self.tty.write(task, data, self.f_flags)

    def poll(self, task: Task | None) -> int:
        return self.tty.poll()

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (self.tty.read_wait, self.tty.write_wait)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int | Blocking[int]:
        if self.tty.hung_up:
            raise KernelError(Errno.EIO, "terminal hung up")
        if cmd == FIONREAD:
            put_user_u32(user_mm(task), arg, self.tty.ldisc.nr_bytes())
            return 0
        return tty_ioctl(task, self, self.tty, cmd, arg)

    def release(self) -> None:
        self.tty.nr_open -= 1
        if self.tty.nr_open == 0:
            self.tty.closed()


def open_tty(task: Task | None, path: Path, inode: Inode, flags: int, tty: Tty) -> TtyFile:
    """tty_open() once the terminal is known: it may become the controlling terminal."""
    if tty.hung_up:
        raise KernelError(Errno.EIO, "terminal hung up")
    if tty.exclusive and tty.nr_open and not capable(task, CAP_SYS_ADMIN):
        raise KernelError(Errno.EBUSY, "terminal in exclusive use")
    file = TtyFile(path, inode, flags, tty)
    if (
        task is not None
        and not flags & O_NOCTTY
        and task.signal.session == task.tgid
        and task.signal.tty is None
        and not tty.session
        and file.f_mode & FMODE_READ
    ):
        tty.set_controlling(task)
    return file


def tty_ioctl(task: Task, file: File, tty: Tty, cmd: int, arg: int) -> int:
    mm = user_mm(task)
    getter = _GET.get(cmd)
    if getter is not None:
        copy_to_user(mm, arg, getter(tty.termios))
        return 0
    setter = _SET.get(cmd)
    if setter is not None:
        tty.check_change(task, SIGTTOU)
        change, size = setter
        new: Termios = tty.termios.copy()
        change(new, copy_from_user(mm, arg, size))
        if cmd in _SET_AND_FLUSH:
            tty.ldisc.flush()
        tty.set_termios(new)
        return 0
    if cmd == t.TIOCGWINSZ:
        copy_to_user(mm, arg, t.WINSIZE.pack(*tty.winsize))
        return 0
    if cmd == t.TIOCSWINSZ:
        tty.set_winsize(t.WINSIZE.unpack(copy_from_user(mm, arg, t.WINSIZE.size)))
        return 0
    if cmd in _JOB_CONTROL:
        return _job_control(task, tty, cmd, arg)
    return _line_control(task, file, tty, cmd, arg)


def _line_control(task: Task, file: File, tty: Tty, cmd: int, arg: int) -> int:
    mm = user_mm(task)
    if cmd == t.TCFLSH:
        tty.check_change(task, SIGTTOU)
        if arg not in (t.TCIFLUSH, t.TCOFLUSH, t.TCIOFLUSH):
            raise KernelError(Errno.EINVAL, "unknown queue")
        if arg != t.TCOFLUSH:
            tty.ldisc.flush()
        return 0
    if cmd == t.TCXONC:
        tty.check_change(task, SIGTTOU)
        if arg in (t.TCOOFF, t.TCOON):
            tty.set_stopped(arg == t.TCOOFF)
        elif arg not in (t.TCIOFF, t.TCION):
            raise KernelError(Errno.EINVAL, "unknown action")
        return 0
    if cmd in (t.TCSBRK, t.TCSBRKP):
        tty.check_change(task, SIGTTOU)
        return 0  # output is shown at once: nothing to drain, and no line to break
    if cmd == t.TIOCOUTQ:
        put_user_u32(mm, arg, 0)
        return 0
    if cmd == t.TIOCSTI:
        if not capable(task, CAP_SYS_ADMIN):
            raise KernelError(Errno.EPERM, "TIOCSTI needs CAP_SYS_ADMIN")
        tty.receive(copy_from_user(mm, arg, 1))
        return 0
    if cmd in (t.TIOCEXCL, t.TIOCNXCL):
        tty.exclusive = cmd == t.TIOCEXCL
        return 0
    if cmd == t.TIOCGEXCL:
        put_user_u32(mm, arg, int(tty.exclusive))
        return 0
    if cmd == t.TIOCGETD:
        put_user_u32(mm, arg, 0)
        return 0
    if cmd == t.TIOCSETD:
        if get_user_u32(mm, arg) != 0:
            raise KernelError(Errno.EINVAL, "N_TTY is the only line discipline")
        return 0
    raise KernelError(Errno.ENOTTY, f"terminal ioctl {cmd:#x}")


_JOB_CONTROL = (t.TIOCGPGRP, t.TIOCSPGRP, t.TIOCGSID, t.TIOCSCTTY, t.TIOCNOTTY)


def _job_control(task: Task, tty: Tty, cmd: int, arg: int) -> int:
    mm = user_mm(task)
    signal = task.signal
    if cmd in (t.TIOCGPGRP, t.TIOCGSID):
        if signal.tty is not tty and not tty.is_seen_from_outside:
            raise KernelError(Errno.ENOTTY, "not the controlling terminal")
        put_user_u32(mm, arg, tty.pgrp if cmd == t.TIOCGPGRP else tty.session)
        return 0
    if cmd == t.TIOCSPGRP:
        tty.check_change(task, SIGTTOU)
        if signal.tty is not tty or tty.session != signal.session:
            raise KernelError(Errno.ENOTTY, "not the caller's controlling terminal")
        pgrp = (get_user_u32(mm, arg) ^ 0x8000_0000) - 0x8000_0000
        if pgrp < 0:
            raise KernelError(Errno.EINVAL, "negative process group")
        members = task.kernel.pids.pgrp_members(pgrp)
        if not members:
            raise KernelError(Errno.ESRCH, "no such process group")
        if members[0].signal.session != signal.session:
            raise KernelError(Errno.EPERM, "process group of another session")
        tty.pgrp = pgrp
        return 0
    if cmd == t.TIOCSCTTY:
        if signal.session == task.tgid and tty.session == signal.session:
            return 0
        if signal.session != task.tgid or signal.tty is not None:
            raise KernelError(Errno.EPERM, "not a session leader without a terminal")
        if tty.session and not (arg == 1 and capable(task, CAP_SYS_ADMIN)):
            raise KernelError(Errno.EPERM, "terminal of another session")
        if tty.session:
            for member in task.kernel.pids.session_members(tty.session):
                member.signal.tty = None
        tty.set_controlling(task)
        return 0
    if signal.tty is not tty:
        raise KernelError(Errno.ENOTTY, "not the controlling terminal")
    tty.disassociate(task)
    return 0
