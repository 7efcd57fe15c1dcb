"""Resource limits and usage: getrlimit(2), prlimit(2), getrusage(2).  Models those calls of ``kernel/sys.c``."""

from __future__ import annotations

from kernel.abi.capability import Cap
from kernel.abi.errno import Errno, KernelError
from kernel.abi.resource import RLIM64, RLIM_NLIMITS, RLIMIT_CPU, RLIMIT_NOFILE, Rlimit, RusageWho
from kernel.fs.uio import user_mm
from kernel.mm.usercopy import copy_from_user, copy_to_user
from kernel.syscalls.table import Pid, StructIn, StructOut, syscall
from kernel.task.cpu_timers import update_rlimit_cpu
from kernel.task.cred import capable, require
from kernel.task.task import Task
from kernel.task.usage import pack_rusage, usage_of


def _check_resource(resource: int) -> None:
    if not 0 <= resource < RLIM_NLIMITS:
        raise KernelError(Errno.EINVAL, f"no resource {resource}")


def _set_rlimit(task: Task, target: Task, resource: int, soft: int, hard: int) -> None:
    """do_prlimit(): EINVAL when soft exceeds hard, EPERM for raising the hard limit."""
    if soft > hard:
        raise KernelError(Errno.EINVAL, "soft limit above the hard limit")
    if resource == RLIMIT_NOFILE and hard > task.kernel.sysctl.nr_open:
        raise KernelError(Errno.EPERM, "above fs.nr_open")
    limits = target.signal.rlimits
    if hard > limits[resource][1]:
        require(task, Cap.CAP_SYS_RESOURCE)
    limits[resource] = (soft, hard)
    if resource == RLIMIT_CPU:
        update_rlimit_cpu(target.signal)


@syscall("getrlimit", x86_64=97, i386=191, group="process")
def sys_getrlimit(task: Task, resource: Rlimit, rlim: StructOut("rlimit")) -> None:  # type: ignore[valid-type]
    """A resource's soft and hard limit."""
    _check_resource(resource)
    copy_to_user(user_mm(task), rlim, RLIM64.pack(*task.signal.rlimits[resource]))


@syscall("setrlimit", x86_64=160, i386=75, group="process")
def sys_setrlimit(task: Task, resource: Rlimit, rlim: StructIn("rlimit")) -> None:  # type: ignore[valid-type]
    """Set a resource's soft and hard limit."""
    soft, hard = RLIM64.unpack(copy_from_user(user_mm(task), rlim, RLIM64.size))
    _check_resource(resource)
    _set_rlimit(task, task, resource, soft, hard)


def _check_prlimit_permission(task: Task, target: Task) -> None:
    if target.signal is task.signal:
        return
    mine, theirs = task.creds, target.creds
    same = {theirs.uid, theirs.euid, theirs.suid} == {mine.uid} and {theirs.gid, theirs.egid, theirs.sgid} == {mine.gid}
    if not same and not capable(task, Cap.CAP_SYS_RESOURCE):
        raise KernelError(Errno.EPERM, "another user's process")


@syscall("prlimit64", x86_64=302, i386=340, group="process")
def sys_prlimit64(
    task: Task,
    pid: Pid,
    resource: Rlimit,
    new_rlim: StructIn("rlimit64"),  # type: ignore[valid-type]
    old_rlim: StructOut("rlimit64"),  # type: ignore[valid-type]
) -> None:
    """Read and set a limit of any process."""
    mm = user_mm(task)
    new = RLIM64.unpack(copy_from_user(mm, new_rlim, RLIM64.size)) if new_rlim else None
    target = task if pid == 0 else task.kernel.tasks.get(pid)
    if target is None:
        raise KernelError(Errno.ESRCH, f"no process {pid}")
    _check_prlimit_permission(task, target)
    _check_resource(resource)
    old = target.signal.rlimits[resource]
    if new is not None:
        _set_rlimit(task, target, resource, *new)
    if old_rlim:
        copy_to_user(mm, old_rlim, RLIM64.pack(*old))


@syscall("getrusage", x86_64=98, i386=77, group="process")
def sys_getrusage(task: Task, who: RusageWho, ru: StructOut("rusage")) -> None:  # type: ignore[valid-type]
    """What the process, its children, or the thread has used."""
    if who not in (RusageWho.RUSAGE_SELF, RusageWho.RUSAGE_CHILDREN, RusageWho.RUSAGE_THREAD):
        raise KernelError(Errno.EINVAL, f"unknown kind {int(who)}")
    copy_to_user(user_mm(task), ru, pack_rusage(usage_of(task, who)))
