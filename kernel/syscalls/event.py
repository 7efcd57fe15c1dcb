"""Events as files: eventfd(2), timerfd_create(2), signalfd(2), inotify(7).

Models ``fs/eventfd.c``, ``fs/timerfd.c``, ``fs/signalfd.c`` and ``fs/notify/inotify/inotify_user.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD, MAY_READ, O_CLOEXEC, O_NONBLOCK
from kernel.abi.inotify import (
    IN_ALL_EVENTS,
    IN_DONT_FOLLOW,
    IN_EXCL_UNLINK,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_ONLYDIR,
    InotifyInitFlags,
    InotifyMask,
)
from kernel.abi.poll import EventfdFlags, SignalfdFlags, TimerfdFlags, TimerfdTimerFlags
from kernel.abi.signal import SIGKILL, SIGSTOP
from kernel.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
    ITIMERSPEC,
    ClockId,
)
from kernel.fs.eventfd import EventFile
from kernel.fs.inotify import InotifyFile
from kernel.fs.namei import LOOKUP_DIRECTORY, LOOKUP_FOLLOW, path_lookup
from kernel.fs.permission import inode_permission
from kernel.fs.signalfd import SignalFile
from kernel.fs.timerfd import TimerFile
from kernel.fs.uio import fd_install, getname, user_mm
from kernel.mm.usercopy import copy_from_user, copy_to_user, get_user_u64
from kernel.syscalls.table import INT, Fd, Int, Path, Size, StructIn, StructOut, UInt, UserAddr, syscall

if TYPE_CHECKING:
    from kernel.task.task import Task

_NS_PER_SEC = 1_000_000_000
_NEVER_BLOCKED = 1 << (SIGKILL - 1) | 1 << (SIGSTOP - 1)
_CLOCKS = (CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
_ALARM_CLOCKS = (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
_CAP_WAKE_ALARM = 35


# ---- eventfd --------------------------------------------------------------------------------------------------------


@syscall("eventfd", x86_64=284, i386=323, group="desc", returns="fd")
def sys_eventfd(task: Task, count: UInt) -> int:
    """A counter as a file."""
    return fd_install(task, EventFile(task, count, 0), False)


@syscall("eventfd2", x86_64=290, i386=328, group="desc", returns="fd")
def sys_eventfd2(task: Task, count: UInt, flags: Annotated[EventfdFlags, INT]) -> int:
    """A counter as a file, with flags."""
    if flags & ~(1 | O_NONBLOCK | O_CLOEXEC):
        raise KernelError(Errno.EINVAL, "unknown flags")
    return fd_install(task, EventFile(task, count, flags), flags & O_CLOEXEC != 0)


# ---- timerfd --------------------------------------------------------------------------------------------------------


@syscall("timerfd_create", x86_64=283, i386=322, group="desc", returns="fd")
def sys_timerfd_create(task: Task, clockid: ClockId, flags: Annotated[TimerfdFlags, INT]) -> int:
    """A timer as a file."""
    if flags & ~(O_NONBLOCK | O_CLOEXEC) or clockid not in _CLOCKS:
        raise KernelError(Errno.EINVAL, "unknown flags or clock")
    if clockid in _ALARM_CLOCKS and not task.creds.cap_effective >> _CAP_WAKE_ALARM & 1:
        raise KernelError(Errno.EPERM, "alarm clocks need CAP_WAKE_ALARM")
    return fd_install(task, TimerFile(task, clockid, flags), flags & O_CLOEXEC != 0)


def _timer(task: Task, fd: int) -> TimerFile:
    file = task.files.get(fd)
    if not isinstance(file, TimerFile):
        raise KernelError(Errno.EINVAL, "not a timer descriptor")
    return file


def _pack_setting(remaining_ns: int, interval_ns: int) -> bytes:
    return ITIMERSPEC.pack(
        interval_ns // _NS_PER_SEC, interval_ns % _NS_PER_SEC, remaining_ns // _NS_PER_SEC, remaining_ns % _NS_PER_SEC
    )


@syscall("timerfd_settime", x86_64=286, i386=None, group="desc")
def sys_timerfd_settime(
    task: Task,
    ufd: Fd,
    flags: Annotated[TimerfdTimerFlags, INT],
    utmr: StructIn("itimerspec"),  # type: ignore[valid-type]
    otmr: StructOut("itimerspec"),  # type: ignore[valid-type]
) -> None:
    """Arm or disarm a timer."""
    interval_s, interval_rest, value_s, value_rest = ITIMERSPEC.unpack(copy_from_user(user_mm(task), utmr, 32))
    bad_rest = not (0 <= interval_rest < _NS_PER_SEC and 0 <= value_rest < _NS_PER_SEC)
    if flags & ~3 or interval_s < 0 or value_s < 0 or bad_rest:
        raise KernelError(Errno.EINVAL, "unknown flags or time out of range")
    file = _timer(task, ufd)
    old = _pack_setting(file.remaining_ns(), file.interval_ns)
    file.set_time(value_s * _NS_PER_SEC + value_rest, interval_s * _NS_PER_SEC + interval_rest, flags)
    if otmr:
        copy_to_user(user_mm(task), otmr, old)


@syscall("timerfd_gettime", x86_64=287, i386=None, group="desc")
def sys_timerfd_gettime(task: Task, ufd: Fd, otmr: StructOut("itimerspec")) -> None:  # type: ignore[valid-type]
    """Time until a timer expires, and its interval."""
    file = _timer(task, ufd)
    copy_to_user(user_mm(task), otmr, _pack_setting(file.remaining_ns(), file.interval_ns))


# ---- signalfd -------------------------------------------------------------------------------------------------------


def _signalfd(task: Task, ufd: int, user_mask: int, sizemask: int, flags: int) -> int:
    if sizemask != 8 or flags & ~(O_NONBLOCK | O_CLOEXEC):
        raise KernelError(Errno.EINVAL, "size of the signal set, or unknown flags")
    mask = get_user_u64(user_mm(task), user_mask) & ~_NEVER_BLOCKED
    if ufd == -1:
        return fd_install(task, SignalFile(task, mask, flags), flags & O_CLOEXEC != 0)
    file = task.files.get(ufd)
    if not isinstance(file, SignalFile):
        raise KernelError(Errno.EINVAL, "not a signal descriptor")
    file.mask = mask
    task.sighand.signalfd_wqh.wake_up()
    return ufd


@syscall("signalfd", x86_64=282, i386=321, group="desc", returns="fd")
def sys_signalfd(task: Task, ufd: Fd, user_mask: UserAddr, sizemask: Size) -> int:
    """Signals as a file."""
    return _signalfd(task, ufd, user_mask, sizemask, 0)


@syscall("signalfd4", x86_64=289, i386=327, group="desc", returns="fd")
def sys_signalfd4(
    task: Task, ufd: Fd, user_mask: UserAddr, sizemask: Size, flags: Annotated[SignalfdFlags, INT]
) -> int:
    """Signals as a file, with flags."""
    return _signalfd(task, ufd, user_mask, sizemask, flags)


# ---- inotify --------------------------------------------------------------------------------------------------------


@syscall("inotify_init", x86_64=253, i386=291, group="desc", returns="fd")
def sys_inotify_init(task: Task) -> int:
    """A descriptor that tells what happens to files."""
    return fd_install(task, InotifyFile(task, 0), False)


@syscall("inotify_init1", x86_64=294, i386=332, group="desc", returns="fd")
def sys_inotify_init1(task: Task, flags: Annotated[InotifyInitFlags, INT]) -> int:
    """A descriptor that tells what happens to files, with flags."""
    if flags & ~(O_NONBLOCK | O_CLOEXEC):
        raise KernelError(Errno.EINVAL, "unknown flags")
    return fd_install(task, InotifyFile(task, flags), flags & O_CLOEXEC != 0)


def _inotify(task: Task, fd: int) -> InotifyFile:
    file = task.files.get(fd)
    if not isinstance(file, InotifyFile):
        raise KernelError(Errno.EINVAL, "not an inotify descriptor")
    return file


@syscall("inotify_add_watch", x86_64=254, i386=292, group="desc")
def sys_inotify_add_watch(task: Task, fd: Fd, pathname: Path, mask: InotifyMask) -> int:
    """Watch a file or a directory."""
    known = IN_ALL_EVENTS | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_ADD | IN_MASK_CREATE | IN_ONESHOT
    if not mask & (known | 0x6000) or (mask & IN_MASK_ADD and mask & IN_MASK_CREATE):
        raise KernelError(Errno.EINVAL, "no event in the mask, or flags that exclude each other")
    file = _inotify(task, fd)
    flags = (0 if mask & IN_DONT_FOLLOW else LOOKUP_FOLLOW) | (LOOKUP_DIRECTORY if mask & IN_ONLYDIR else 0)
    path = path_lookup(task.kernel.vfs, task, AT_FDCWD, getname(task, pathname), flags)
    inode = path.dentry.d_inode
    inode_permission(task, inode, MAY_READ)
    return file.add_watch(inode, mask)


@syscall("inotify_rm_watch", x86_64=255, i386=293, group="desc")
def sys_inotify_rm_watch(task: Task, fd: Fd, wd: Int) -> None:
    """End a watch."""
    file = _inotify(task, fd)
    watch = file.watches.get(wd)
    if watch is None:
        raise KernelError(Errno.EINVAL, "no such watch")
    file.remove(watch)
