"""Waiting for descriptors: the work of poll(2), ppoll(2), select(2), pselect6(2).

Models ``fs/select.c``.  A sleeper is put on the queues of all its files and tests all of them again when woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FMODE_PATH
from kernel.abi.poll import POLLERR, POLLEX_SET, POLLHUP, POLLIN_SET, POLLNVAL, POLLOUT_SET
from kernel.task.waitqueue import Blocking, Sleep, WakeReason

if TYPE_CHECKING:
    from kernel.fs.file import File
    from kernel.task.task import Task
    from kernel.task.waitqueue import WaitQueue


class Interrupted(Exception):
    """A signal ended the wait before anything was ready."""


def poll_file(task: Task, fd: int) -> File | None:
    """The file of ``fd`` if it can be polled: open, and not with O_PATH."""
    file = task.files.lookup(fd)
    return file if file is not None and not file.f_mode & FMODE_PATH else None


def do_poll(task: Task, entries: list[tuple[int, int]], deadline_ns: int | None, no_wait: bool) -> Blocking[list[int]]:
    """``revents`` for (fd, events) pairs; sleeps until one is not 0, or ``deadline_ns``.  Raises Interrupted."""
    while True:
        revents, queues = _scan(task, entries)
        if any(revents) or no_wait:
            return revents
        reason = yield Sleep(*queues, deadline_ns=deadline_ns)
        if reason is WakeReason.EVENT:
            continue
        revents, _queues = _scan(task, entries)
        if reason is WakeReason.SIGNAL and not any(revents):
            raise Interrupted
        return revents


def _scan(task: Task, entries: list[tuple[int, int]]) -> tuple[list[int], list[WaitQueue]]:
    revents: list[int] = []
    queues: dict[WaitQueue, None] = {}
    for fd, events in entries:
        if fd < 0:
            revents.append(0)
            continue
        file = poll_file(task, fd)
        if file is None:
            revents.append(POLLNVAL)
            continue
        revents.append(file.poll(task) & (events | POLLERR | POLLHUP))
        for queue in file.poll_queues(task):
            queues[queue] = None
    return revents, list(queues)


FdSets = tuple[int, int, int]
"""Bit sets of descriptors: to read, to write, exceptional."""


def do_select(task: Task, nr: int, sets: FdSets, deadline_ns: int | None, no_wait: bool) -> Blocking[FdSets]:
    """The ready descriptors below ``nr``.  EBADF for one that is not open; raises Interrupted."""
    mask = (1 << nr) - 1
    wanted = sets[0] & mask, sets[1] & mask, sets[2] & mask
    while True:
        ready, queues = _scan_sets(task, wanted)
        if any(ready) or no_wait:
            return ready
        reason = yield Sleep(*queues, deadline_ns=deadline_ns)
        if reason is WakeReason.EVENT:
            continue
        ready, _queues = _scan_sets(task, wanted)
        if reason is WakeReason.SIGNAL and not any(ready):
            raise Interrupted
        return ready


def _scan_sets(task: Task, wanted: FdSets) -> tuple[FdSets, list[WaitQueue]]:
    ready = [0, 0, 0]
    queues: dict[WaitQueue, None] = {}
    every = wanted[0] | wanted[1] | wanted[2]
    while every:
        bit = every & -every
        every ^= bit
        file = poll_file(task, bit.bit_length() - 1)
        if file is None:
            raise KernelError(Errno.EBADF, "descriptor of a set is not open")
        mask = file.poll(task)
        for which, interesting in enumerate((POLLIN_SET, POLLOUT_SET, POLLEX_SET)):
            if wanted[which] & bit and mask & interesting:
                ready[which] |= bit
        for queue in file.poll_queues(task):
            queues[queue] = None
    return (ready[0], ready[1], ready[2]), list(queues)
