"""Futexes: sleeping on a word of user memory.

Models ``kernel/futex/`` (core.c, waitwake.c, requeue.c).  Manual: futex(2), set_robust_list(2).

A waiter is queued under a key: private futexes under (mm, address); shared ones under (page cache, byte offset) if
the area is shared, else under (mm, address) in a name space of their own, so a private wake never meets a shared
wait.

Deliberate differences: priority-inheritance operations are refused (ENOSYS); a shared futex in a private mapping of a
file is always keyed by the mm.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import ERESTART_RESTARTBLOCK, ERESTARTSYS, Errno, KernelError
from kernel.abi.futex import (
    FUTEX_BITSET_MATCH_ANY,
    FUTEX_OWNER_DIED,
    FUTEX_TID_MASK,
    FUTEX_WAITERS,
    ROBUST_LIST_HEAD,
    ROBUST_LIST_LIMIT,
)
from kernel.mm.types import VM_MAYSHARE
from kernel.mm.usercopy import (
    access_ok,
    copy_from_user,
    get_user_u32,
    get_user_u64,
    put_user_u32,
    user_page_for_read,
    user_page_for_write,
)
from kernel.task.waitqueue import Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.task.task import Task

FutexKey = tuple[Any, int, str]
"""What two users of one futex have in common.  Compared and hashed by the identity of mm or page cache."""


class FutexWaiter:
    """``struct futex_q``: one wait on one futex."""

    __slots__ = ("bitset", "key", "queue", "woken")

    def __init__(self, key: FutexKey, bitset: int, queue: WaitQueue) -> None:
        self.key = key
        self.bitset = bitset
        self.queue = queue
        self.woken = False


class FutexTable:
    """All waiters by key, the longest waiting first.  Invariants: no list is empty; woken waiters are not listed."""

    def __init__(self) -> None:
        self.waiters: dict[FutexKey, list[FutexWaiter]] = {}

    def add(self, waiter: FutexWaiter) -> None:
        self.waiters.setdefault(waiter.key, []).append(waiter)

    def remove(self, waiter: FutexWaiter) -> None:
        """Idempotent."""
        queued = self.waiters.get(waiter.key)
        if queued is not None and waiter in queued:
            queued.remove(waiter)
            if not queued:
                del self.waiters[waiter.key]

    def wake(self, key: FutexKey, nr_wake: int, bitset: int) -> int:
        """Wake waiters whose bitset meets ``bitset``: ``nr_wake`` of them, but at least one (as Linux does for 0)."""
        nr_woken = 0
        for waiter in list(self.waiters.get(key, ())):
            if waiter.bitset & bitset:
                self.remove(waiter)
                waiter.woken = True
                waiter.queue.wake_up()
                nr_woken += 1
                if nr_woken >= nr_wake:
                    break
        return nr_woken

    def requeue(self, waiter: FutexWaiter, key: FutexKey) -> None:
        self.remove(waiter)
        waiter.key = key
        self.add(waiter)


def get_futex_key(task: Task, uaddr: int, shared: bool) -> FutexKey:
    """EINVAL: not aligned; EFAULT: no user memory (a private futex need not be mapped)."""
    if uaddr & 3:
        raise KernelError(Errno.EINVAL, "futex not aligned to 4")
    if not access_ok(uaddr, 4):
        raise KernelError(Errno.EFAULT, f"bad address {uaddr:#x}")
    mm = task.mm
    assert mm is not None
    if not shared:
        return (mm, uaddr, "private")
    if user_page_for_read(mm, uaddr) < 0:
        raise KernelError(Errno.EFAULT, f"bad address {uaddr:#x}")
    vma = mm.areas.find_exact(uaddr)
    if vma is not None and vma.vm_flags & VM_MAYSHARE and vma.vm_file is not None:
        return (vma.vm_file.f_mapping, (vma.vm_pgoff << 12) + uaddr - vma.vm_start, "shared")
    return (mm, uaddr, "mmshared")


# ---- waiting -------------------------------------------------------------------------------------


def futex_wait(
    task: Task, uaddr: int, val: int, deadline_ns: int | None, bitset: int, shared: bool
) -> Generator[Sleep, WakeReason, int]:
    """Sleep while ``*uaddr == val`` until woken; ``deadline_ns`` is absolute on the monotonic clock."""
    if not bitset:
        raise KernelError(Errno.EINVAL, "bitset is 0")
    table = task.kernel.futexes
    key = get_futex_key(task, uaddr, shared)
    assert task.mm is not None
    if get_user_u32(task.mm, uaddr) != val:
        raise KernelError(Errno.EAGAIN, "the futex has another value")
    waiter = FutexWaiter(key, bitset, WaitQueue())
    table.add(waiter)
    try:
        while not waiter.woken:
            reason = yield Sleep(waiter.queue, deadline_ns=deadline_ns)
            if waiter.woken:
                break
            if reason is WakeReason.TIMEOUT:
                raise KernelError(Errno.ETIMEDOUT, "nobody woke the futex in time")
            if reason is WakeReason.SIGNAL:
                if deadline_ns is None:
                    raise KernelError(ERESTARTSYS, "signal")
                task.restart_block = lambda again: futex_wait(again, uaddr, val, deadline_ns, bitset, shared)
                raise KernelError(ERESTART_RESTARTBLOCK, "signal")
    finally:
        table.remove(waiter)
    return 0


def futex_wait_multiple(
    task: Task, futexes: list[tuple[int, int, bool]], deadline_ns: int | None
) -> Generator[Sleep, WakeReason, int]:
    """futex_waitv(2): sleep until one of ``(uaddr, val, shared)`` is woken; returns its index."""
    table = task.kernel.futexes
    queue = WaitQueue()
    assert task.mm is not None
    keys = [get_futex_key(task, uaddr, shared) for uaddr, _, shared in futexes]
    waiters: list[FutexWaiter] = []
    try:
        for key, (uaddr, val, _) in zip(keys, futexes, strict=True):
            if get_user_u32(task.mm, uaddr) != val:
                raise KernelError(Errno.EAGAIN, "a futex has another value")
            waiter = FutexWaiter(key, FUTEX_BITSET_MATCH_ANY, queue)
            table.add(waiter)
            waiters.append(waiter)
        while True:
            reason = yield Sleep(queue, deadline_ns=deadline_ns)
            for index, waiter in enumerate(waiters):
                if waiter.woken:
                    return index
            if reason is WakeReason.TIMEOUT:
                raise KernelError(Errno.ETIMEDOUT, "nobody woke a futex in time")
            if reason is WakeReason.SIGNAL:
                raise KernelError(ERESTARTSYS, "signal")
    finally:
        for waiter in waiters:
            table.remove(waiter)


# ---- waking --------------------------------------------------------------------------------------


def futex_wake(task: Task, uaddr: int, nr_wake: int, bitset: int, shared: bool) -> int:
    """Wake waiters; returns how many."""
    if not bitset:
        raise KernelError(Errno.EINVAL, "bitset is 0")
    key = get_futex_key(task, uaddr, shared)
    return int(task.kernel.futexes.wake(key, nr_wake, bitset))


def futex_requeue(
    task: Task, uaddr: int, uaddr2: int, nr_wake: int, nr_requeue: int, cmpval: int | None, shared: bool, shared2: bool
) -> int:
    """Wake ``nr_wake`` waiters of ``uaddr`` and let ``nr_requeue`` others wait on ``uaddr2``; returns the sum."""
    if nr_wake < 0 or nr_requeue < 0:
        raise KernelError(Errno.EINVAL, "negative count")
    key, key2 = get_futex_key(task, uaddr, shared), get_futex_key(task, uaddr2, shared2)
    if cmpval is not None:
        assert task.mm is not None
        if get_user_u32(task.mm, uaddr) != cmpval:
            raise KernelError(Errno.EAGAIN, "the futex has another value")
    table: FutexTable = task.kernel.futexes
    nr_done = 0
    for waiter in list(table.waiters.get(key, ())):
        if nr_done - nr_wake >= nr_requeue:
            break
        nr_done += 1
        if nr_done <= nr_wake:
            table.remove(waiter)
            waiter.woken = True
            waiter.queue.wake_up()
        elif key2 != key:
            table.requeue(waiter, key2)
    return nr_done


def futex_wake_op(
    task: Task, uaddr: int, uaddr2: int, nr_wake: int, nr_wake2: int, encoded_op: int, shared: bool
) -> int:
    """Change ``*uaddr2``, wake on ``uaddr``, and on ``uaddr2`` too if its old value compares as asked."""
    key, key2 = get_futex_key(task, uaddr, shared), get_futex_key(task, uaddr2, shared)
    wake_second = _atomic_op_inuser(task, encoded_op, uaddr2)
    table: FutexTable = task.kernel.futexes
    nr_woken = table.wake(key, nr_wake, FUTEX_BITSET_MATCH_ANY)
    if wake_second:
        nr_woken += table.wake(key2, nr_wake2, FUTEX_BITSET_MATCH_ANY)
    return nr_woken


def _sign12(value: int) -> int:
    return (value & 0xFFF ^ 0x800) - 0x800


def _signed(value: int) -> int:
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000


def _atomic_op_inuser(task: Task, encoded_op: int, uaddr: int) -> bool:
    """futex_atomic_op_inuser(): bits 28-30 ``op`` (31: 1 << oparg), 24-27 ``cmp``, then ``oparg`` and ``cmparg``."""
    op, cmp = encoded_op >> 28 & 7, encoded_op >> 24 & 15
    oparg, cmparg = _sign12(encoded_op >> 12), _sign12(encoded_op)
    if encoded_op >> 31 & 1:
        oparg = 1 << (oparg & 31)
    mm = task.mm
    assert mm is not None
    if user_page_for_write(mm, uaddr) < 0:
        raise KernelError(Errno.EFAULT, f"bad address {uaddr:#x}")
    old = get_user_u32(mm, uaddr)
    operand = oparg & 0xFFFF_FFFF
    if op > 4:
        raise KernelError(Errno.ENOSYS, f"unknown FUTEX_OP {op}")
    new = (operand, old + operand, old | operand, old & ~operand, old ^ operand)[op]
    put_user_u32(mm, uaddr, new & 0xFFFF_FFFF)
    before = _signed(old)
    if cmp > 5:
        raise KernelError(Errno.ENOSYS, f"unknown FUTEX_OP_CMP {cmp}")
    return (
        before == cmparg, before != cmparg, before < cmparg, before <= cmparg, before > cmparg, before >= cmparg,
    )[cmp]  # fmt: skip


# ---- robust futexes ------------------------------------------------------------------------------


def exit_robust_list(task: Task) -> None:
    """A dying thread's locks: mark each FUTEX_OWNER_DIED and wake one waiter.  Bad memory ends the walk."""
    mm = task.mm
    assert mm is not None
    try:
        entry, offset, pending = ROBUST_LIST_HEAD.unpack(copy_from_user(mm, task.robust_list, ROBUST_LIST_HEAD.size))
        pending_pi = pending & 1
        pending &= ~1
        for _ in range(ROBUST_LIST_LIMIT):
            is_pi = entry & 1
            entry &= ~1
            if entry == task.robust_list:
                break
            try:
                next_entry = get_user_u64(mm, entry)
            except KernelError:
                next_entry = None
            if entry != pending:
                _handle_futex_death(task, entry + offset & 0xFFFF_FFFF_FFFF_FFFF, is_pi, is_pending=False)
            if next_entry is None:
                return
            entry = next_entry
        if pending:
            _handle_futex_death(task, pending + offset & 0xFFFF_FFFF_FFFF_FFFF, pending_pi, is_pending=True)
    except KernelError:
        return


def _handle_futex_death(task: Task, uaddr: int, is_pi: int, is_pending: bool) -> None:
    """KernelError: the walk ends here."""
    mm = task.mm
    assert mm is not None
    if uaddr & 3:
        raise KernelError(Errno.EINVAL, "robust futex not aligned")
    value = get_user_u32(mm, uaddr)
    owner = value & FUTEX_TID_MASK
    if is_pending and not is_pi and not owner:
        futex_wake(task, uaddr, 1, FUTEX_BITSET_MATCH_ANY, shared=True)
        return
    if owner != task.pid:
        return
    put_user_u32(mm, uaddr, value & FUTEX_WAITERS | FUTEX_OWNER_DIED)
    if not is_pi and value & FUTEX_WAITERS:
        futex_wake(task, uaddr, 1, FUTEX_BITSET_MATCH_ANY, shared=True)
