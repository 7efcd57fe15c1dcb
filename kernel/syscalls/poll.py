"""Waiting for descriptors: poll(2), ppoll(2), select(2), pselect6(2), epoll(7).

Models ``fs/select.c`` and ``fs/eventpoll.c``.  Like Linux, ppoll, select and pselect6 store the time that was left.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated

from kernel.abi.errno import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, Errno, KernelError
from kernel.abi.fcntl import O_CLOEXEC
from kernel.abi.poll import EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLWAKEUP, EpollCreateFlags, EpollOp
from kernel.abi.time import TIMESPEC
from kernel.fs.eventpoll import EventPoll
from kernel.fs.select import FdSets, Interrupted, do_poll, do_select
from kernel.fs.uio import fd_install, nofile_limit, user_mm
from kernel.mm.usercopy import copy_from_user, copy_to_user, get_user_u64
from kernel.syscalls.table import INT, Fd, Int, Size, StructIn, UInt, UserAddr, syscall
from kernel.task.signal import restore_saved_sigmask_unless, set_temporary_sigmask

if TYPE_CHECKING:
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking

_NS_PER_SEC = 1_000_000_000
_POLLFD = struct.Struct("<ihh")
_EPOLL_EVENT = struct.Struct("<IQ")
_MAX_EVENTS = 0x7FFF_FFFF // 12
_SIGSET_SIZE = 8


# ---- times and masks ------------------------------------------------------------------------------------------------


def _timeout(task: Task, address: int, unit_ns: int) -> int | None:
    """The timeval (``unit_ns`` 1000) or timespec (1) at ``address`` in nanoseconds; None: for ever."""
    if not address:
        return None
    seconds, fraction = TIMESPEC.unpack(copy_from_user(user_mm(task), address, 16))
    if unit_ns != 1:
        seconds += fraction // 1_000_000
        fraction %= 1_000_000
    if seconds < 0 or not 0 <= fraction * unit_ns < _NS_PER_SEC:
        raise KernelError(Errno.EINVAL, "time out of range")
    return int(seconds * _NS_PER_SEC + fraction * unit_ns)


def _deadline(task: Task, timeout_ns: int | None) -> int | None:
    return None if timeout_ns is None else task.kernel.clock.now_ns() + timeout_ns


def _store_rest(task: Task, address: int, deadline_ns: int | None, unit_ns: int) -> None:
    """poll_select_finish(): a read-only timeout is left alone without an error."""
    if not address or deadline_ns is None:
        return
    rest = max(0, deadline_ns - task.kernel.clock.now_ns())
    try:
        copy_to_user(user_mm(task), address, TIMESPEC.pack(rest // _NS_PER_SEC, rest % _NS_PER_SEC // unit_ns))
    except KernelError:
        return


def _set_sigmask(task: Task, address: int, size: int) -> bool:
    """set_user_sigmask(); False: no mask was given."""
    if not address:
        return False
    if size != _SIGSET_SIZE:
        raise KernelError(Errno.EINVAL, "size of the signal set")
    set_temporary_sigmask(task, get_user_u64(user_mm(task), address))
    return True


# ---- poll -----------------------------------------------------------------------------------------------------------


def _read_pollfds(task: Task, ufds: int, nfds: int) -> list[tuple[int, int]]:
    if nfds > nofile_limit(task):
        raise KernelError(Errno.EINVAL, "more descriptors than RLIMIT_NOFILE")
    raw = copy_from_user(user_mm(task), ufds, nfds * 8) if nfds else b""
    return [(fd, events & 0xFFFF) for fd, events, _revents in _POLLFD.iter_unpack(raw)]


def _store_pollfds(task: Task, ufds: int, entries: list[tuple[int, int]], revents: list[int]) -> int:
    if not entries:
        return 0
    image = b"".join(
        struct.pack("<iHH", fd, events, mask) for (fd, events), mask in zip(entries, revents, strict=True)
    )
    copy_to_user(user_mm(task), ufds, image)
    return sum(1 for mask in revents if mask)


def _poll_until(task: Task, ufds: int, nfds: int, deadline_ns: int | None, no_wait: bool) -> Blocking[int]:
    entries = _read_pollfds(task, ufds, nfds)
    try:
        revents = yield from do_poll(task, entries, deadline_ns, no_wait)
    except Interrupted:
        task.restart_block = lambda again: _poll_until(again, ufds, nfds, deadline_ns, no_wait)
        raise KernelError(ERESTART_RESTARTBLOCK, "signal while waiting for descriptors") from None
    return _store_pollfds(task, ufds, entries, revents)


@syscall("poll", x86_64=7, i386=168, group="desc")
def sys_poll(task: Task, ufds: UserAddr, nfds: UInt, timeout_msecs: Int) -> Blocking[int]:
    """Wait until one of some descriptors is ready."""
    timeout_ns = None if timeout_msecs < 0 else timeout_msecs * 1_000_000
    return (yield from _poll_until(task, ufds, nfds, _deadline(task, timeout_ns), timeout_msecs == 0))


@syscall("ppoll", x86_64=271, i386=None, group="desc")
def sys_ppoll(
    task: Task, ufds: UserAddr, nfds: UInt, tsp: UserAddr, sigmask: UserAddr, sigsetsize: Size
) -> Blocking[int]:
    """As poll, with nanoseconds and a temporary signal mask."""
    timeout_ns = _timeout(task, tsp, 1)
    deadline_ns = _deadline(task, timeout_ns)
    _set_sigmask(task, sigmask, sigsetsize)
    interrupted = False
    try:
        entries = _read_pollfds(task, ufds, nfds)
        revents = yield from do_poll(task, entries, deadline_ns, timeout_ns == 0)
        count = _store_pollfds(task, ufds, entries, revents)
    except Interrupted:
        interrupted = True
        raise KernelError(ERESTARTNOHAND, "signal while waiting for descriptors") from None
    finally:
        restore_saved_sigmask_unless(task, interrupted)
        _store_rest(task, tsp, deadline_ns, 1)
    return count


# ---- select ---------------------------------------------------------------------------------------------------------


def _read_sets(task: Task, nr: int, addresses: tuple[int, int, int]) -> FdSets:
    size = (nr + 63) // 64 * 8
    mm = user_mm(task)
    a, b, c = (
        int.from_bytes(copy_from_user(mm, address, size), "little") if address and size else 0
        for address in addresses
    )
    return a, b, c


def _store_sets(task: Task, nr: int, addresses: tuple[int, int, int], ready: FdSets) -> int:
    size = (nr + 63) // 64 * 8
    mm = user_mm(task)
    count = 0
    for address, bits in zip(addresses, ready, strict=True):
        if address and size:
            copy_to_user(mm, address, bits.to_bytes(size, "little"))
            count += bits.bit_count()
    return count


def _check_nr(task: Task, nr: int) -> int:
    """At most as many as the table has room for (max_select_fd)."""
    if nr < 0:
        raise KernelError(Errno.EINVAL, "negative number of descriptors")
    table_size = 64
    while table_size < len(task.files.fdt):
        table_size *= 2
    return min(nr, table_size)


def _select(
    task: Task, nr: int, addresses: tuple[int, int, int], tvp: int, timeout_ns: int | None, unit_ns: int
) -> Blocking[int]:
    deadline_ns = _deadline(task, timeout_ns)
    try:
        nr = _check_nr(task, nr)
        sets = _read_sets(task, nr, addresses)
        ready = yield from do_select(task, nr, sets, deadline_ns, timeout_ns == 0)
        return _store_sets(task, nr, addresses, ready)
    finally:
        _store_rest(task, tvp, deadline_ns, unit_ns)


@syscall("select", x86_64=23, i386=None, group="desc")
def sys_select(
    task: Task, n: Int, inp: UserAddr, outp: UserAddr, exp: UserAddr, tvp: UserAddr
) -> Blocking[int]:
    """Wait until one of the descriptors in three sets is ready."""
    timeout_ns = _timeout(task, tvp, 1000)
    try:
        return (yield from _select(task, n, (inp, outp, exp), tvp, timeout_ns, 1000))
    except Interrupted:
        raise KernelError(ERESTARTNOHAND, "signal while waiting for descriptors") from None


@syscall("pselect6", x86_64=270, i386=None, group="desc")
def sys_pselect6(
    task: Task, n: Int, inp: UserAddr, outp: UserAddr, exp: UserAddr, tsp: UserAddr, sig: UserAddr
) -> Blocking[int]:
    """As select, with nanoseconds and a temporary signal mask."""
    mask = size = 0
    if sig:
        mask, size = struct.unpack("<QQ", copy_from_user(user_mm(task), sig, 16))
    timeout_ns = _timeout(task, tsp, 1)
    _set_sigmask(task, mask, size)
    interrupted = False
    try:
        return (yield from _select(task, n, (inp, outp, exp), tsp, timeout_ns, 1))
    except Interrupted:
        interrupted = True
        raise KernelError(ERESTARTNOHAND, "signal while waiting for descriptors") from None
    finally:
        restore_saved_sigmask_unless(task, interrupted)


# ---- epoll ----------------------------------------------------------------------------------------------------------


@syscall("epoll_create", x86_64=213, i386=254, group="desc", returns="fd")
def sys_epoll_create(task: Task, size: Int) -> int:
    """A descriptor that watches others."""
    if size <= 0:
        raise KernelError(Errno.EINVAL, "size is not positive")
    return fd_install(task, EventPoll(task), False)


@syscall("epoll_create1", x86_64=291, i386=329, group="desc", returns="fd")
def sys_epoll_create1(task: Task, flags: Annotated[EpollCreateFlags, INT]) -> int:
    """A descriptor that watches others."""
    if flags & ~O_CLOEXEC:
        raise KernelError(Errno.EINVAL, "unknown flags")
    return fd_install(task, EventPoll(task), flags & O_CLOEXEC != 0)


def _epoll(task: Task, epfd: int) -> EventPoll:
    file = task.files.get(epfd)
    if not isinstance(file, EventPoll):
        raise KernelError(Errno.EINVAL, "not an epoll descriptor")
    return file


@syscall("epoll_ctl", x86_64=233, i386=255, group="desc")
def sys_epoll_ctl(task: Task, epfd: Fd, op: EpollOp, fd: Fd, event: StructIn("epoll_event")) -> None:  # type: ignore[valid-type]
    """Add, change or remove what is watched."""
    events = data = 0
    if op != EPOLL_CTL_DEL:
        events, data = _EPOLL_EVENT.unpack(copy_from_user(user_mm(task), event, 12))
    ep_file = task.files.get(epfd)
    file = task.files.get(fd)
    if not file.can_poll:
        raise KernelError(Errno.EPERM, "regular files and directories are always ready")
    if file is ep_file or not isinstance(ep_file, EventPoll):
        raise KernelError(Errno.EINVAL, "not an epoll descriptor, or itself")
    events &= ~EPOLLWAKEUP
    if op == EPOLL_CTL_ADD:
        ep_file.insert(task, file, fd, events, data)
    elif op == EPOLL_CTL_MOD:
        ep_file.modify(task, ep_file.find(file, fd), events, data)
    elif op == EPOLL_CTL_DEL:
        ep_file.remove(ep_file.find(file, fd))
    else:
        raise KernelError(Errno.EINVAL, "unknown operation")


def _epoll_wait(task: Task, epfd: int, events: int, maxevents: int, timeout_ns: int | None) -> Blocking[int]:
    if not 0 < maxevents <= _MAX_EVENTS:
        raise KernelError(Errno.EINVAL, "maxevents")
    ep = _epoll(task, epfd)
    found = yield from ep.wait(task, maxevents, _deadline(task, timeout_ns), timeout_ns == 0)
    if found:
        copy_to_user(user_mm(task), events, b"".join(_EPOLL_EVENT.pack(mask, data) for mask, data in found))
    return len(found)


def _epoll_pwait(
    task: Task, epfd: int, events: int, maxevents: int, timeout_ns: int | None, sigmask: int, size: int
) -> Blocking[int]:
    _set_sigmask(task, sigmask, size)
    interrupted = False
    try:
        return (yield from _epoll_wait(task, epfd, events, maxevents, timeout_ns))
    except KernelError as error:
        interrupted = error.errno == Errno.EINTR
        raise
    finally:
        restore_saved_sigmask_unless(task, interrupted)


@syscall("epoll_wait", x86_64=232, i386=256, group="desc")
def sys_epoll_wait(task: Task, epfd: Fd, events: UserAddr, maxevents: Int, timeout: Int) -> Blocking[int]:
    """Wait for events."""
    timeout_ns = None if timeout < 0 else timeout * 1_000_000
    return (yield from _epoll_wait(task, epfd, events, maxevents, timeout_ns))


@syscall("epoll_pwait", x86_64=281, i386=319, group="desc")
def sys_epoll_pwait(
    task: Task, epfd: Fd, events: UserAddr, maxevents: Int, timeout: Int, sigmask: UserAddr, sigsetsize: Size
) -> Blocking[int]:
    """Wait for events with a temporary signal mask."""
    timeout_ns = None if timeout < 0 else timeout * 1_000_000
    return (yield from _epoll_pwait(task, epfd, events, maxevents, timeout_ns, sigmask, sigsetsize))


@syscall("epoll_pwait2", x86_64=441, i386=441, group="desc")
def sys_epoll_pwait2(
    task: Task, epfd: Fd, events: UserAddr, maxevents: Int, timeout: UserAddr, sigmask: UserAddr, sigsetsize: Size
) -> Blocking[int]:
    """As epoll_pwait, with nanoseconds."""
    timeout_ns = _timeout(task, timeout, 1)
    return (yield from _epoll_pwait(task, epfd, events, maxevents, timeout_ns, sigmask, sigsetsize))
