"""Pseudo-terminals: /dev/ptmx, /dev/pts, and /dev/tty.

Models ``drivers/tty/pty.c`` and ``fs/devpts/inode.c``: pty(7).  Number 0 is the host's terminal when there is one.

Deliberate differences: one devpts instance; no TIOCPKT control bytes but TIOCPKT_DATA.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi import termios as t
from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import O_CLOEXEC, O_NONBLOCK
from kernel.abi.ioctl import FIONREAD
from kernel.abi.poll import POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from kernel.abi.stat import DEVPTS_SUPER_MAGIC, S_IFCHR, makedev
from kernel.fs.dcache import Path
from kernel.fs.file import File
from kernel.fs.memfs import MemDir, MemSuper
from kernel.fs.permission import Owner
from kernel.fs.special import register_chrdev, register_major
from kernel.fs.store import Space
from kernel.fs.tty import StdioKind
from kernel.fs.tty.tty import Tty
from kernel.fs.tty.ttyfile import open_tty, tty_ioctl
from kernel.fs.uio import fd_install, user_mm
from kernel.mm.usercopy import get_user_u32, put_user_u32
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.fs.inode import Inode
    from kernel.fs.tty import Console
    from kernel.fs.vfs import Vfs
    from kernel.kernel import Kernel
    from kernel.task.task import Task

UNIX98_PTY_SLAVE_MAJOR = 136
PTY_ROOM = 65_536
TTY_GROUP = 5
MAX_PTYS = 4096


class PtySlave(Tty):
    """The terminal side; ``to_master`` is what the master has not read yet."""

    is_seen_from_outside = True

    def __init__(self, kernel: Kernel, index: int) -> None:
        super().__init__(kernel, makedev(UNIX98_PTY_SLAVE_MAJOR, index), b"pts/%d" % index)
        self.index = index
        self.locked = True
        self.to_master = bytearray()
        self.master_read_wait = WaitQueue()
        self.master_write_wait = WaitQueue()
        self.other_closed = False
        """The slave has been open and is not any more: the master reads EIO."""

    def put_output(self, data: bytes) -> None:
        self.to_master += data
        self.master_read_wait.wake_up()

    def output_room(self) -> int:
        return PTY_ROOM - len(self.to_master)

    def input_taken(self) -> None:
        self.master_write_wait.wake_up()

    def closed(self) -> None:
        self.other_closed = True
        self.master_read_wait.wake_up()
        self.master_write_wait.wake_up()


class PtyMaster(File):
    """What opening /dev/ptmx gives."""

    __slots__ = ("packet", "slave", "super")

    def __init__(self, path: Path, inode: Inode, flags: int, slave: PtySlave, sb: DevptsSuper) -> None:
        super().__init__(path, inode, flags)
        self.slave = slave
        self.super = sb
        self.packet = False

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        slave = self.slave
        if slave.to_master:
            return self._take(count)
        if slave.other_closed:
            raise KernelError(Errno.EIO, "nobody has the terminal open")
        if self.f_flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "no output from the terminal")
        return self._read_blocking(count)

    def _read_blocking(self, count: int) -> Blocking[bytes]:
        slave = self.slave
        while not slave.to_master:
            if slave.other_closed:
                raise KernelError(Errno.EIO, "nobody has the terminal open")
            if (yield Sleep(slave.master_read_wait)) is WakeReason.SIGNAL and not slave.to_master:
                raise KernelError(ERESTARTSYS, "signal while waiting for the terminal")
        return self._take(count)

    def _take(self, count: int) -> bytes:
        slave = self.slave
        if self.packet:
            count -= 1
        data = bytes(slave.to_master[:count])
        del slave.to_master[:count]
        slave.write_wait.wake_up()
        return bytes((t.TIOCPKT_DATA,)) + data if self.packet else data

    def unread(self, data: bytes) -> None:
        self.slave.to_master[:0] = data

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        done = self._type(data)
        if done == len(data):
            return done
        if self.f_flags & O_NONBLOCK:
            if not done:
                raise KernelError(Errno.EAGAIN, "the terminal's input is full")
            return done
        return self._write_blocking(data, done)

    def _type(self, data: bytes) -> int:
        """Type what the terminal takes: a full line buffer swallows, unread lines hold the writer up."""
        slave = self.slave
        done = 0
        while done < len(data):
            room = slave.ldisc.room()
            if room <= 0 and (slave.ldisc.lines or not slave.ldisc.canonical):
                break
            part = data[done : done + max(room, 1)]
            slave.receive(part)
            done += len(part)
        return done

    def _write_blocking(self, data: bytes, done: int) -> Blocking[int]:
        while done < len(data):
            reason = yield Sleep(self.slave.master_write_wait)
            typed = self._type(data[done:])
            done += typed
            if reason is WakeReason.SIGNAL and not typed:
                if done:
                    return done
                raise KernelError(ERESTARTSYS, "signal while waiting to type")
        return done

    def poll(self, task: Task | None) -> int:
        slave = self.slave
        mask = POLLIN | POLLRDNORM if slave.to_master else 0
        if slave.other_closed:
            mask |= POLLHUP
        if slave.ldisc.room() > 0:
            mask |= POLLOUT | POLLWRNORM
        return mask

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (self.slave.master_read_wait, self.slave.master_write_wait)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int | Blocking[int]:
        slave, mm = self.slave, user_mm(task)
        if cmd == t.TIOCGPTN:
            put_user_u32(mm, arg, slave.index)
        elif cmd == t.TIOCSPTLCK:
            slave.locked = get_user_u32(mm, arg) != 0
        elif cmd == t.TIOCGPTLCK:
            put_user_u32(mm, arg, int(slave.locked))
        elif cmd == t.TIOCPKT:
            self.packet = get_user_u32(mm, arg) != 0
        elif cmd == FIONREAD:
            put_user_u32(mm, arg, len(slave.to_master))
        elif cmd == t.TIOCGPTPEER:
            return self._open_peer(task, arg)
        else:
            return tty_ioctl(task, self, slave, cmd, arg)
        return 0

    def _open_peer(self, task: Task, flags: int) -> int:
        path = self.super.node(self.slave.index)
        slave = _open_slave(task, path, path.dentry.d_inode, flags, self.slave)
        return fd_install(task, slave, flags & O_CLOEXEC != 0)

    def release(self) -> None:
        self.slave.hangup()
        self.super.remove(self.slave)


class DevptsSuper(MemSuper):
    """/dev/pts: one node for each terminal."""

    s_type = "devpts"
    s_magic = DEVPTS_SUPER_MAGIC
    dirent_size = 0

    def __init__(self, vfs: Vfs) -> None:
        super().__init__(vfs.kernel, vfs.new_anon_dev(), Space(0), 0o755)
        self.vfs = vfs
        self.s_options = ",gid=5,mode=620,ptmxmode=000"

    @property
    def directory(self) -> MemDir:
        assert self.s_root is not None
        root = self.s_root.d_inode
        assert isinstance(root, MemDir)
        return root

    def add(self, tty: Tty, index: int, owner: Owner) -> None:
        self.directory.mknod(b"%d" % index, S_IFCHR | 0o620, tty.rdev, owner)
        self.vfs.ttys[tty.rdev] = tty

    def remove(self, slave: PtySlave) -> None:
        name = b"%d" % slave.index
        assert self.s_root is not None
        inode = self.directory.lookup(name)
        if inode is not None:
            self.directory.unlink(name, inode)
            dentry = self.s_root.d_children.get(name)
            if dentry is not None:
                from kernel.fs.dcache import d_drop

                d_drop(dentry)
        self.vfs.ttys.pop(slave.rdev, None)

    def free_index(self) -> int:
        index = 0
        while makedev(UNIX98_PTY_SLAVE_MAJOR, index) in self.vfs.ttys:
            index += 1
        if index >= MAX_PTYS:
            raise KernelError(Errno.ENOSPC, "too many pseudo-terminals")
        return index

    def node(self, index: int) -> Path:
        """The place of terminal ``index`` where devpts is mounted."""
        for mnt in self.vfs.mounts:
            if mnt.mnt_sb is self:
                assert self.s_root is not None
                dentry = self.vfs.lookup_one(self.s_root, b"%d" % index)
                if dentry is not None:
                    return Path(mnt, dentry)
        raise KernelError(Errno.ENOENT, "no such terminal")


def make_devpts(vfs: Vfs, console: Console) -> DevptsSuper:
    """The devpts of this machine (the same one for every mount), with the host's terminal as number 0."""
    from kernel.fs.tty.console import make_console_tty

    for sb in vfs.superblocks:
        if isinstance(sb, DevptsSuper):
            return sb
    sb = DevptsSuper(vfs)
    tty = make_console_tty(vfs.kernel, console)
    if tty is not None:
        fd = next(fd for fd in range(3) if console.kind(fd) is StdioKind.TTY)
        sb.add(tty, 0, Owner(console.stat(fd).uid, TTY_GROUP))
    return sb


def _open_slave(task: Task | None, path: Path, inode: Inode, flags: int, tty: Tty) -> File:
    if isinstance(tty, PtySlave):
        if tty.locked:
            raise KernelError(Errno.EIO, "pseudo-terminal is locked")
        tty.other_closed = False
    return open_tty(task, path, inode, flags, tty)


def _open_pts(task: Task | None, path: Path, inode: Inode, flags: int) -> File:
    tty = inode.i_sb.kernel.vfs.ttys.get(inode.i_rdev)
    if tty is None:
        raise KernelError(Errno.ENXIO, "no such terminal")
    return _open_slave(task, path, inode, flags, tty)


def _open_ptmx(task: Task | None, path: Path, inode: Inode, flags: int) -> File:
    vfs = inode.i_sb.kernel.vfs
    sb = make_devpts(vfs, vfs.kernel.console)
    index = sb.free_index()
    slave = PtySlave(vfs.kernel, index)
    owner = Owner(task.creds.fsuid, TTY_GROUP) if task is not None else Owner(0, TTY_GROUP)
    sb.add(slave, index, owner)
    return PtyMaster(path, inode, flags, slave, sb)


def _open_current_tty(task: Task | None, path: Path, inode: Inode, flags: int) -> File:
    """/dev/tty."""
    tty = task.signal.tty if task is not None else None
    if tty is None:
        raise KernelError(Errno.ENXIO, "no controlling terminal")
    return open_tty(task, path, inode, flags, tty)


def _open_console(task: Task | None, path: Path, inode: Inode, flags: int) -> File:
    tty = inode.i_sb.kernel.vfs.ttys.get(makedev(UNIX98_PTY_SLAVE_MAJOR, 0))
    if tty is None or isinstance(tty, PtySlave):
        raise KernelError(Errno.ENXIO, "the machine has no console terminal")
    return open_tty(task, path, inode, flags, tty)


register_major(UNIX98_PTY_SLAVE_MAJOR, _open_pts)
register_chrdev(makedev(5, 0), _open_current_tty)
register_chrdev(makedev(5, 1), _open_console)
register_chrdev(makedev(5, 2), _open_ptmx)
