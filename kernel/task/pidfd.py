"""pidfds: a process as an open file.

Models ``kernel/pid.c`` (``pidfd_create``, ``pidfd_get_task``) and ``fs/pidfs.c``.  Manual: pidfd_open(2).

Deliberate difference: shown as ``anon_inode:[pidfd]`` (as before 6.9); no PIDFD_GET_INFO or name-space ioctls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import O_NONBLOCK, O_RDWR
from kernel.abi.poll import POLLHUP, POLLIN, POLLRDNORM
from kernel.fs.file import File
from kernel.task.task import Task, TaskState

if TYPE_CHECKING:
    from kernel.task.waitqueue import WaitQueue

PIDFD_NONBLOCK = O_NONBLOCK
PIDFD_THREAD = 0o200
"""O_EXCL: the one thread, not its process."""


class PidFile(File):
    """What pidfd_open(2) and CLONE_PIDFD give."""

    __slots__ = ("for_thread", "task")

    def __init__(self, task: Task, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_anon("[pidfd]")
        super().__init__(path, path.dentry.d_inode, O_RDWR | flags)
        self.task = task
        self.for_thread = flags & PIDFD_THREAD != 0

    @property
    def target(self) -> Task:
        """The thread, or the leader that the process has now (execve may have changed it)."""
        return self.task if self.for_thread else self.task.signal.group_leader

    @property
    def has_exited(self) -> bool:
        target = self.target
        if target.state is TaskState.DEAD:
            return True
        return target.state is TaskState.ZOMBIE and (self.for_thread or target.signal.nr_threads <= 1)

    def poll(self, task: Task | None) -> int:
        target = self.target
        if target.state is TaskState.DEAD:
            return POLLIN | POLLRDNORM | POLLHUP
        return POLLIN | POLLRDNORM if self.has_exited else 0

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (self.task.signal.wait_pidfd,)

    def fdinfo(self) -> str:
        pid = -1 if self.target.state is TaskState.DEAD else self.target.pid
        return f"Pid:\t{pid}\nNSpid:\t{pid}\n"


def pidfd_task(task: Task, fd: int) -> tuple[Task, PidFile]:
    """The living or zombie task behind descriptor ``fd``; EBADF: no pidfd; ESRCH: it was waited for."""
    file = task.files.get(fd)
    if not isinstance(file, PidFile):
        raise KernelError(Errno.EBADF, "descriptor is no pidfd")
    target = file.target
    if target.state is TaskState.DEAD:
        raise KernelError(Errno.ESRCH, "the process is gone")
    return target, file
