"""inotify(7): who reads the events of kernel/fs/notify.py.

Models ``fs/notify/inotify``.

Invariants: ``watches`` and each watched inode's ``i_marks`` agree; ``SuperBlock.watched`` counts all of its watches.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import O_NONBLOCK
from kernel.abi.inotify import (
    IN_ALL_EVENTS,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    pack_event,
)
from kernel.abi.ioctl import FIONREAD
from kernel.abi.poll import POLLIN, POLLRDNORM
from kernel.fs.file import File
from kernel.mm.usercopy import put_user_u32
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.fs.inode import Inode
    from kernel.task.task import Task

MAX_QUEUED_EVENTS = 16_384
Event = tuple[int, int, int, bytes]
"""Watch descriptor, mask, cookie, name."""


class Watch:
    """``struct inotify_inode_mark``: a :class:`~kernel.fs.notify.Mark`."""

    __slots__ = ("group", "inode", "mask", "wd")

    def __init__(self, group: InotifyFile, inode: Inode, wd: int, mask: int) -> None:
        self.group = group
        self.inode = inode
        self.wd = wd
        self.mask = mask

    def event(self, mask: int, name: bytes, cookie: int) -> None:
        if not self.mask & mask & (IN_ALL_EVENTS | IN_UNMOUNT):
            return
        self.group.queue((self.wd, mask & (IN_ALL_EVENTS | IN_UNMOUNT | IN_ISDIR), cookie, name))
        if self.mask & IN_ONESHOT:
            self.group.remove(self)

    def inode_gone(self) -> None:
        self.group.remove(self)

    def file_closed(self, file: File) -> None:
        """A watch belongs to the inode, not to an open file."""


class InotifyFile(File):
    """``struct fsnotify_group`` of one inotify descriptor."""

    __slots__ = ("events", "last_wd", "watches", "wq")

    def __init__(self, task: Task, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_anon("inotify")
        super().__init__(path, path.dentry.d_inode, flags & O_NONBLOCK)
        self.events: deque[Event] = deque()
        self.watches: dict[int, Watch] = {}
        self.last_wd = 0
        self.wq = WaitQueue()

    def add_watch(self, inode: Inode, mask: int) -> int:
        kept = mask & (IN_ALL_EVENTS | IN_UNMOUNT | IN_EXCL_UNLINK | IN_ONESHOT)
        for watch in self.watches.values():
            if watch.inode is inode:
                if mask & IN_MASK_CREATE:
                    raise KernelError(Errno.EEXIST, "IN_MASK_CREATE and the file is watched")
                watch.mask = watch.mask | kept if mask & IN_MASK_ADD else kept
                return watch.wd
        self.last_wd += 1
        watch = Watch(self, inode, self.last_wd, kept)
        self.watches[watch.wd] = watch
        if inode.i_marks is None:
            inode.i_marks = []
        inode.i_marks.append(watch)
        inode.i_sb.watched += 1
        return watch.wd

    def remove(self, watch: Watch) -> None:
        """The watch ends; the reader is told so."""
        if self.watches.pop(watch.wd, None) is None:
            return
        inode = watch.inode
        assert inode.i_marks is not None
        inode.i_marks.remove(watch)
        inode.i_sb.watched -= 1
        self.queue((watch.wd, IN_IGNORED, 0, b""))

    def queue(self, event: Event) -> None:
        events = self.events
        if events and events[-1] == event:
            return  # the same again at once is told once
        if len(events) >= MAX_QUEUED_EVENTS:
            overflow = (-1, IN_Q_OVERFLOW, 0, b"")
            if events[-1] != overflow:
                events.append(overflow)
            return
        events.append(event)
        self.wq.wake_up()

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        if self.events:
            return self._take(count)
        if self.f_flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "no event waits")
        return self._read_blocking(count)

    def _read_blocking(self, count: int) -> Blocking[bytes]:
        while not self.events:
            if (yield Sleep(self.wq)) is WakeReason.SIGNAL and not self.events:
                raise KernelError(ERESTARTSYS, "signal while waiting for an event")
        return self._take(count)

    def _take(self, count: int) -> bytes:
        parts: list[bytes] = []
        while self.events:
            record = pack_event(*self.events[0])
            if len(record) > count:
                if not parts:
                    raise KernelError(Errno.EINVAL, "buffer too small for the next event")
                break
            self.events.popleft()
            parts.append(record)
            count -= len(record)
        return b"".join(parts)

    def unread(self, data: bytes) -> None:
        """Events taken cannot be put back; they are lost, as on Linux when the buffer is bad."""

    def poll(self, task: Task | None) -> int:
        return POLLIN | POLLRDNORM if self.events else 0

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (self.wq,)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int | Blocking[int]:
        if cmd == FIONREAD:
            assert task.mm is not None
            put_user_u32(task.mm, arg, sum(len(pack_event(*event)) for event in self.events))
            return 0
        raise KernelError(Errno.ENOTTY, "no such ioctl for inotify")

    def release(self) -> None:
        for watch in list(self.watches.values()):
            self.remove(watch)
        self.events.clear()

    def fdinfo(self) -> str:
        return "".join(
            f"inotify wd:{watch.wd:x} ino:{watch.inode.i_ino:x} sdev:{watch.inode.i_sb.s_dev:x} mask:{watch.mask:x} "
            "ignored_mask:0 \n"
            for watch in self.watches.values()
        )
