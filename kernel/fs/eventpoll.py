"""epoll(7).

Models ``fs/eventpoll.c``.  An item sits on the wait queues of its file for as long as it is registered; a wake-up puts
it on the ready list, and epoll_wait asks the file itself what is ready.

Invariants: ``items`` is keyed by (file, descriptor); an item is in ``ready`` at most once; ``file.f_ep`` lists the
items that watch a file.

Deliberate difference: EPOLLEXCLUSIVE wakes all; EPOLLWAKEUP changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import O_RDWR
from kernel.abi.poll import EP_PRIVATE_BITS, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, POLLERR, POLLHUP, POLLIN, POLLRDNORM
from kernel.fs.file import File
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.task.task import Task
    from kernel.task.waitqueue import WakeReason as Reason

MAX_NESTS = 4


class EpItem:
    """``struct epitem``.  Waits on queues like a task, with ``wake``."""

    __slots__ = ("data", "ep", "events", "fd", "file", "queues")

    def __init__(self, ep: EventPoll, file: File, fd: int, events: int, data: int) -> None:
        self.ep = ep
        self.file = file
        self.fd = fd
        self.events = events
        self.data = data
        self.queues: tuple[WaitQueue, ...] = ()

    def wake(self, reason: Reason) -> bool:
        """ep_poll_callback()."""
        if self.events & ~EP_PRIVATE_BITS:
            self.ep.set_ready(self)
        return True

    def watch(self, task: Task) -> None:
        self.queues = self.file.poll_queues(task)
        for queue in self.queues:
            queue.add(cast("Task", self))

    def unwatch(self) -> None:
        for queue in self.queues:
            queue.remove(cast("Task", self))
        self.queues = ()

    def ready_events(self, task: Task | None) -> int:
        return self.file.poll(task) & self.events & ~EP_PRIVATE_BITS

    def file_released(self) -> None:
        """eventpoll_release(): the last descriptor of the file is closed."""
        self.ep.remove(self)


class EventPoll(File):
    """``struct eventpoll``."""

    __slots__ = ("items", "ready", "wq")

    def __init__(self, task: Task) -> None:
        path = task.kernel.vfs.pseudo.new_anon("[eventpoll]")
        super().__init__(path, path.dentry.d_inode, O_RDWR)
        self.items: dict[tuple[File, int], EpItem] = {}
        self.ready: dict[EpItem, None] = {}
        self.wq = WaitQueue()
        """Those who wait in epoll_wait, and those who poll this file."""

    def set_ready(self, item: EpItem) -> None:
        self.ready[item] = None
        self.wq.wake_up()

    # -- epoll_ctl -----------------------------------------------------------------------------------------
    def insert(self, task: Task, file: File, fd: int, events: int, data: int) -> None:
        if (file, fd) in self.items:
            raise KernelError(Errno.EEXIST, "the descriptor is watched already")
        if events & EPOLLEXCLUSIVE and isinstance(file, EventPoll):
            raise KernelError(Errno.EINVAL, "EPOLLEXCLUSIVE for an epoll descriptor")
        if isinstance(file, EventPoll) and (file.reaches(self, 0) or file.depth() >= MAX_NESTS):
            raise KernelError(Errno.ELOOP, "epoll descriptors watch each other, or too deep")
        item = EpItem(self, file, fd, events | POLLERR | POLLHUP, data)
        self.items[(file, fd)] = item
        if file.f_ep is None:
            file.f_ep = []
        file.f_ep.append(item)
        item.watch(task)
        if item.ready_events(task):
            self.set_ready(item)

    def find(self, file: File, fd: int) -> EpItem:
        item = self.items.get((file, fd))
        if item is None:
            raise KernelError(Errno.ENOENT, "the descriptor is not watched")
        return item

    def modify(self, task: Task, item: EpItem, events: int, data: int) -> None:
        if item.events & EPOLLEXCLUSIVE or events & EPOLLEXCLUSIVE:
            raise KernelError(Errno.EINVAL, "EPOLLEXCLUSIVE cannot be modified")
        item.events = events | POLLERR | POLLHUP
        item.data = data
        if item.ready_events(task):
            self.set_ready(item)

    def remove(self, item: EpItem) -> None:
        item.unwatch()
        self.items.pop((item.file, item.fd), None)
        self.ready.pop(item, None)
        if item.file.f_ep is not None and item in item.file.f_ep:
            item.file.f_ep.remove(item)

    def reaches(self, other: EventPoll, depth: int) -> bool:
        """Does this one watch ``other``, directly or not?"""
        if self is other or depth > MAX_NESTS:
            return True
        nested = [item.file for item in self.items.values() if isinstance(item.file, EventPoll)]
        return any(ep.reaches(other, depth + 1) for ep in nested)

    def depth(self) -> int:
        nested = [item.file.depth() for item in self.items.values() if isinstance(item.file, EventPoll)]
        return 1 + max(nested, default=0)

    # -- epoll_wait ----------------------------------------------------------------------------------------
    def collect(self, task: Task, max_events: int) -> list[tuple[int, int]]:
        """ep_send_events(): (events, data) of what is ready now."""
        found: list[tuple[int, int]] = []
        for item in list(self.ready):
            if len(found) == max_events:
                break
            del self.ready[item]
            events = item.ready_events(task)
            if not events:
                continue
            found.append((events, item.data))
            if item.events & EPOLLONESHOT:
                item.events &= EP_PRIVATE_BITS
            elif not item.events & EPOLLET:
                self.ready[item] = None  # level-triggered: looked at again next time
        return found

    def wait(
        self, task: Task, max_events: int, deadline_ns: int | None, no_wait: bool
    ) -> Blocking[list[tuple[int, int]]]:
        while True:
            found = self.collect(task, max_events)
            if found or no_wait:
                return found
            reason = yield Sleep(self.wq, deadline_ns=deadline_ns)
            if reason is WakeReason.EVENT:
                continue
            found = self.collect(task, max_events)
            if reason is WakeReason.SIGNAL and not found:
                raise KernelError(Errno.EINTR, "signal while waiting for events")
            return found

    # -- as a file -----------------------------------------------------------------------------------------
    def poll(self, task: Task | None) -> int:
        """ep_eventpoll_poll(): readable when any watched file is ready."""
        for item in list(self.ready):
            if item.ready_events(task):
                return POLLIN | POLLRDNORM
            del self.ready[item]
        return 0

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (self.wq,)

    def release(self) -> None:
        for item in list(self.items.values()):
            self.remove(item)

    def fdinfo(self) -> str:
        lines = []
        for item in self.items.values():
            inode = item.file.f_inode
            lines.append(
                f"tfd: {item.fd:8} events: {item.events:8x} data: {item.data:16x}  pos:{item.file.f_pos}"
                f" ino:{inode.i_ino:x} sdev:{inode.i_sb.s_dev:x}\n"
            )
        return "".join(lines)
