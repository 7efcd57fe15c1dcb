"""Advisory locks: flock(2), and fcntl(2)'s record locks of processes and of open files.

Models ``fs/locks.c``.  A record lock belongs to a descriptor table (POSIX) or to an open file (OFD); locks of one owner
never overlap, and adjacent ones of the same type are one.

Invariants: the locks of one owner in ``posix`` are sorted and disjoint; ``flocks`` has one entry per file.

Deliberate difference: no leases, no mandatory locks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import F_UNLCK, F_WRLCK, LOCK_EX, LOCK_SH
from kernel.fs.file import File
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.fs.files import FilesStruct
    from kernel.fs.inode import Inode

OFFSET_MAX = (1 << 63) - 1


class PosixLock(NamedTuple):
    """Bytes ``start`` to ``end`` (inclusive)."""

    owner: FilesStruct | File
    pid: int
    """-1 for open-file-description locks."""
    type: int
    start: int
    end: int


class FileLockContext:
    """``struct file_lock_context``: all locks on one inode."""

    __slots__ = ("flocks", "posix", "wait")

    def __init__(self) -> None:
        self.posix: list[PosixLock] = []
        self.flocks: dict[File, int] = {}
        """LOCK_SH or LOCK_EX by open file."""
        self.wait = WaitQueue()

    # -- record locks --------------------------------------------------------------------------------------
    def conflict(self, request: PosixLock) -> PosixLock | None:
        """The first lock of somebody else that stands in the way."""
        for lock in self.posix:
            if (
                lock.owner is not request.owner
                and lock.start <= request.end
                and lock.end >= request.start
                and F_WRLCK in (lock.type, request.type)
            ):
                return lock
        return None

    def apply(self, request: PosixLock) -> None:
        """Put ``request`` in place of what its owner has there (posix_lock_inode without conflict)."""
        mine: list[PosixLock] = []
        others: list[PosixLock] = []
        for lock in self.posix:
            (mine if lock.owner is request.owner else others).append(lock)
        start, end, kind = request.start, request.end, request.type
        kept: list[PosixLock] = []
        for lock in mine:
            if lock.type == kind and lock.start <= end + 1 and lock.end + 1 >= start:
                start, end = min(start, lock.start), max(end, lock.end)
                continue
            if lock.end < start or lock.start > end:
                kept.append(lock)
                continue
            if lock.start < start:
                kept.append(lock._replace(end=start - 1))
            if lock.end > end:
                kept.append(lock._replace(start=end + 1))
        if kind != F_UNLCK:
            kept.append(request._replace(start=start, end=end))
        kept.sort(key=lambda lock: lock.start)
        self.posix = others + kept
        self.wait.wake_up()

    def remove_posix(self, owner: FilesStruct | File) -> None:
        """locks_remove_posix(): a descriptor of the file was closed, so all of the table's locks on it go."""
        if any(lock.owner is owner for lock in self.posix):
            self.posix = [lock for lock in self.posix if lock.owner is not owner]
            self.wait.wake_up()

    # -- whole-file locks ----------------------------------------------------------------------------------
    def flock_conflicts(self, file: File, kind: int) -> bool:
        return any(other is not file and LOCK_EX in (kind, other_kind) for other, other_kind in self.flocks.items())

    def remove_flock(self, file: File) -> None:
        if self.flocks.pop(file, None) is not None:
            self.wait.wake_up()

    def remove_file(self, file: File) -> None:
        """The open file is gone: its flock and its open-file-description locks too."""
        self.remove_flock(file)
        self.remove_posix(file)


def lock_context(inode: Inode) -> FileLockContext:
    if inode.i_flctx is None:
        inode.i_flctx = FileLockContext()
    return inode.i_flctx


def flock_lock(file: File, kind: int, nonblock: bool) -> Blocking[None] | None:
    """flock(2): LOCK_SH, LOCK_EX, or 0 to unlock.  Changing the type gives the old lock up first."""
    context = lock_context(file.f_inode)
    if kind not in (LOCK_SH, LOCK_EX):
        context.remove_flock(file)
        return None
    if context.flocks.get(file) == kind:
        return None
    context.remove_flock(file)
    if not context.flock_conflicts(file, kind):
        context.flocks[file] = kind
        return None
    if nonblock:
        raise KernelError(Errno.EWOULDBLOCK, "locked by another open file")
    return _flock_wait(context, file, kind)


def _flock_wait(context: FileLockContext, file: File, kind: int) -> Blocking[None]:
    while context.flock_conflicts(file, kind):
        if (yield Sleep(context.wait)) is WakeReason.SIGNAL and context.flock_conflicts(file, kind):
            raise KernelError(ERESTARTSYS, "signal while waiting for a lock")
    context.flocks[file] = kind


_waiting: dict[FilesStruct | File, FilesStruct | File] = {}
"""Owner that sleeps for a record lock -> owner that it waits for (``blocked_hash``)."""


def _would_deadlock(owner: FilesStruct | File, blocker: FilesStruct | File) -> bool:
    """Does ``blocker`` wait, directly or not, for ``owner``?"""
    for _ in range(10):
        if blocker is owner:
            return True
        following = _waiting.get(blocker)
        if following is None:
            return False
        blocker = following
    return False


def posix_lock(file: File, request: PosixLock, wait: bool) -> Blocking[None] | None:
    """F_SETLK, F_SETLKW and their OFD forms."""
    context = lock_context(file.f_inode)
    if request.type == F_UNLCK or context.conflict(request) is None:
        context.apply(request)
        return None
    if not wait:
        raise KernelError(Errno.EAGAIN, "locked by another process")
    return _posix_wait(context, request)


def _posix_wait(context: FileLockContext, request: PosixLock) -> Blocking[None]:
    owner = request.owner
    try:
        while (blocker := context.conflict(request)) is not None:
            if request.pid >= 0 and _would_deadlock(owner, blocker.owner):
                raise KernelError(Errno.EDEADLK, "waiting would be a deadlock")
            _waiting[owner] = blocker.owner
            if (yield Sleep(context.wait)) is WakeReason.SIGNAL and context.conflict(request) is not None:
                raise KernelError(ERESTARTSYS, "signal while waiting for a lock")
    finally:
        _waiting.pop(owner, None)
    context.apply(request)
