"""process_mrelease(2): take the memory of a process that is dying.

Models the system call of ``mm/oom_kill.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.syscalls.table import Fd, UInt, syscall
from kernel.task.pidfd import pidfd_task

if TYPE_CHECKING:
    from kernel.task.task import Task


@syscall("process_mrelease", x86_64=448, i386=448, group="process")
def sys_process_mrelease(task: Task, pidfd: Fd, flags: UInt) -> None:
    """Give the memory of a process that is being killed back at once."""
    if flags:
        raise KernelError(Errno.EINVAL, "flags")
    target, _file = pidfd_task(task, pidfd)
    task.kernel.oom.mrelease(target)
