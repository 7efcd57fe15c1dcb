"""Signals about files: O_ASYNC (SIGIO) and directory notification (F_NOTIFY).

Models ``fs/fcntl.c`` (``send_sigio``, ``kill_fasync``) and ``fs/notify/dnotify/dnotify.c``.

Deliberate difference: a signal comes whenever the file's readiness may have changed and something is ready, so with
F_SETSIG ``si_band`` tells what is ready now, not what happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kernel.abi.errno import Errno, KernelError
from kernel.abi.inotify import (
    IN_ACCESS,
    IN_ATTRIB,
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from kernel.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI
from kernel.abi.signal import SI_KERNEL, SIGIO, SigInfo
from kernel.abi.stat import S_IFDIR, S_IFMT
from kernel.task.signal import send_signal

if TYPE_CHECKING:
    from kernel.fs.file import File
    from kernel.fs.inode import Inode
    from kernel.task.task import Task
    from kernel.task.waitqueue import WaitQueue, WakeReason

POLL_IN, POLL_OUT, POLL_MSG, POLL_ERR, POLL_PRI, POLL_HUP = range(1, 7)
DN_ACCESS, DN_MODIFY, DN_CREATE, DN_DELETE, DN_RENAME, DN_ATTRIB = (1 << bit for bit in range(6))
DN_MULTISHOT = 0x8000_0000
_DNOTIFY_EVENTS = (
    (DN_ACCESS, IN_ACCESS),
    (DN_MODIFY, IN_MODIFY),
    (DN_CREATE, IN_CREATE | IN_MOVED_TO),
    (DN_DELETE, IN_DELETE | IN_MOVED_FROM),
    (DN_RENAME, IN_MOVED_FROM | IN_MOVED_TO),
    (DN_ATTRIB, IN_ATTRIB),
)


def send_sigio(file: File, fd: int, code: int, band: int) -> None:
    """Tell the owner (F_SETOWN) of ``file``: SIGIO, or the signal chosen with F_SETSIG and details."""
    owner, pids = file.f_owner, file.kernel.pids
    if owner < 0:
        targets = pids.pgrp_members(-owner)
    else:
        task = pids.tasks.get(owner)
        targets = [task] if task is not None else []
    for task in targets:
        if file.f_sig:
            info = SigInfo(file.f_sig, code)
            info.fd, info.band = fd, band
        else:
            info = SigInfo(SIGIO, SI_KERNEL)
        try:
            send_signal(task, info)
        except KernelError:
            send_signal(task, SigInfo(SIGIO, SI_KERNEL))  # its queue is full: the plain signal always fits


class Fasync:
    """``struct fasync_struct``: sits on the wait queues of a file with O_ASYNC.  Waits like a task, with ``wake``."""

    __slots__ = ("fd", "file", "queues")

    def __init__(self, task: Task, file: File, fd: int) -> None:
        self.file = file
        self.fd = fd
        self.queues: tuple[WaitQueue, ...] = file.poll_queues(task)
        for queue in self.queues:
            queue.add(cast("Task", self))

    def wake(self, reason: WakeReason) -> bool:
        mask = self.file.poll(None)
        if mask & POLLIN:
            send_sigio(self.file, self.fd, POLL_IN, mask)
        elif mask & POLLPRI:
            send_sigio(self.file, self.fd, POLL_PRI, mask)
        elif mask & (POLLERR | POLLHUP):
            send_sigio(self.file, self.fd, POLL_HUP if mask & POLLHUP else POLL_ERR, mask)
        elif mask & POLLOUT:
            send_sigio(self.file, self.fd, POLL_OUT, mask)
        return True

    def end(self) -> None:
        for queue in self.queues:
            queue.remove(cast("Task", self))
        self.queues = ()


def set_fasync(task: Task, file: File, fd: int, on: bool) -> None:
    """O_ASYNC was switched on or off."""
    if on and file.f_fasync is None:
        file.f_fasync = Fasync(task, file, fd)
    elif not on and file.f_fasync is not None:
        file.f_fasync.end()
        file.f_fasync = None


class DnotifyMark:
    """A :class:`~kernel.fs.notify.Mark` that signals the owner of an open directory."""

    __slots__ = ("fd", "file", "inode", "mask", "once")

    def __init__(self, file: File, fd: int, mask: int, once: bool) -> None:
        self.file = file
        self.fd = fd
        self.inode: Inode = file.f_inode
        self.mask = mask
        self.once = once
        if self.inode.i_marks is None:
            self.inode.i_marks = []
        self.inode.i_marks.append(self)
        self.inode.i_sb.watched += 1

    def event(self, mask: int, name: bytes, cookie: int) -> None:
        if not name or not mask & self.mask:
            return
        send_sigio(self.file, self.fd, POLL_MSG, 0)
        if self.once:
            self.inode_gone()

    def file_closed(self, file: File) -> None:
        if file is self.file:
            self.inode_gone()

    def inode_gone(self) -> None:
        marks = self.inode.i_marks
        if marks is not None and self in marks:
            marks.remove(self)
            self.inode.i_sb.watched -= 1


def dnotify(task: Task, file: File, fd: int, arg: int) -> int:
    """fcntl(F_NOTIFY): no events ends it, new ones join old ones."""
    inode = file.f_inode
    if inode.i_mode & S_IFMT != S_IFDIR:
        raise KernelError(Errno.ENOTDIR, "not a directory")
    mine = [mark for mark in inode.i_marks or () if isinstance(mark, DnotifyMark) and mark.file is file]
    for mark in mine:
        mark.inode_gone()
    if not arg & ~DN_MULTISHOT & 0xFFFF_FFFF:
        return 0
    mask = sum(mark.mask for mark in mine[:1])
    for bit, events in _DNOTIFY_EVENTS:
        if arg & bit:
            mask |= events
    if not file.f_owner:
        file.f_owner = task.tgid
    DnotifyMark(file, fd, mask, not arg & DN_MULTISHOT)
    return 0
