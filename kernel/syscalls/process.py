"""Processes: fork(2), execve(2), _exit(2), wait(2), and who belongs to whom.

Models ``kernel/fork.c``, ``fs/exec.c``, ``kernel/exit.c``, ``kernel/pid.c``, and process groups in ``kernel/sys.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kernel.abi.clone import (
    CLONE_ARGS,
    CLONE_ARGS_SIZE_VER0,
    CLONE_ARGS_SIZE_VER2,
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_INTO_CGROUP,
    CLONE_LEGACY_FLAGS,
    CLONE_NAMESPACES,
    CLONE_NEWTIME,
    CLONE_PARENT,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    CSIGNAL,
    MAX_PID_NS_LEVEL,
    CloneFlags,
)
from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, AtFlags
from kernel.abi.signal import SIGCHLD
from kernel.abi.wait import (
    WALL,
    WCLONE,
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOTHREAD,
    WNOWAIT,
    WUNTRACED,
    IdType,
    WaitOptions,
    exited,
)
from kernel.fs.uio import fd_install, getname, user_mm
from kernel.mm.types import PAGE_SIZE
from kernel.mm.usercopy import (
    access_ok,
    copy_from_user,
    copy_to_user,
    get_user_pointers,
    put_user_u32,
    strncpy_from_user,
)
from kernel.syscalls.table import (
    INT,
    ULONG,
    Fd,
    Int,
    Path,
    Pid,
    Size,
    StructIn,
    StructOut,
    Support,
    UInt,
    UserAddr,
    syscall,
)
from kernel.task.binfmt_elf import ExecFatal
from kernel.task.bprm import MAX_ARG_STRLEN, STK_LIM
from kernel.task.cred import ptrace_may_access
from kernel.task.exec import do_execveat
from kernel.task.exit import do_exit, do_group_exit
from kernel.task.fork import CloneArgs, do_clone
from kernel.task.pidfd import PIDFD_NONBLOCK, PIDFD_THREAD, PidFile, pidfd_task
from kernel.task.task import Task, TaskState
from kernel.task.usage import pack_rusage
from kernel.task.wait import WaitOpts, WaitResult, do_wait

if TYPE_CHECKING:
    from kernel.task.waitqueue import Blocking

# ---- making processes ----------------------------------------------------------------------------


@syscall("fork", x86_64=57, i386=2, group="process", stopped=True)
def sys_fork(task: Task) -> Any:
    """Make a child that is a copy of the caller."""
    return do_clone(task, CloneArgs(0, exit_signal=SIGCHLD))


@syscall("vfork", x86_64=58, i386=190, group="process", stopped=True)
def sys_vfork(task: Task) -> Any:
    """Make a child that runs in the caller's memory until it calls exec or exits."""
    return do_clone(task, CloneArgs(CLONE_VFORK | CLONE_VM, exit_signal=SIGCHLD))


@syscall("clone", x86_64=56, i386=120, group="process", stopped=True)
def sys_clone(
    task: Task,
    flags: Annotated[CloneFlags, ULONG],
    newsp: UserAddr,
    parent_tidptr: UserAddr,
    child_tidptr: UserAddr,
    tls: UserAddr,
) -> Any:
    """Make a child or a thread, sharing what the flags say."""
    flags = int(flags) & 0xFFFF_FFFF  # type: ignore[assignment]
    return do_clone(
        task,
        CloneArgs(
            flags & ~CSIGNAL,
            exit_signal=flags & CSIGNAL,
            stack=newsp,
            tls=tls,
            parent_tid=parent_tidptr,
            child_tid=child_tidptr,
            pidfd=parent_tidptr,
        ),
    )


@syscall("clone3", x86_64=435, i386=435, group="process", stopped=True)
def sys_clone3(task: Task, uargs: StructIn("clone_args"), size: Size) -> Any:  # type: ignore[valid-type]
    """clone with its arguments in a structure that can grow."""
    return do_clone(task, _clone_args_from_user(task, uargs, size))


def _clone_args_from_user(task: Task, uargs: int, size: int) -> CloneArgs:
    if size > PAGE_SIZE:
        raise KernelError(Errno.E2BIG, "structure larger than a page")
    if size < CLONE_ARGS_SIZE_VER0:
        raise KernelError(Errno.EINVAL, "structure smaller than version 0")
    mm = user_mm(task)
    data = copy_from_user(mm, uargs, size)
    if any(data[CLONE_ARGS.size :]):
        raise KernelError(Errno.E2BIG, "fields that this kernel does not know")
    values = CLONE_ARGS.unpack(data[: CLONE_ARGS.size].ljust(CLONE_ARGS.size, b"\0"))
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup = values
    if set_tid_size > MAX_PID_NS_LEVEL or bool(set_tid) != bool(set_tid_size):
        raise KernelError(Errno.EINVAL, "set_tid and set_tid_size do not fit")
    if exit_signal & ~CSIGNAL or exit_signal > 64:
        raise KernelError(Errno.EINVAL, "exit_signal is no signal")
    if flags & CLONE_INTO_CGROUP and (cgroup > 0x7FFF_FFFF or size < CLONE_ARGS_SIZE_VER2):
        raise KernelError(Errno.EINVAL, "CLONE_INTO_CGROUP without a cgroup")
    tids: list[int] = []
    if set_tid_size:
        raw = copy_from_user(mm, set_tid, set_tid_size * 4)
        tids = [int.from_bytes(raw[i : i + 4], "little", signed=True) for i in range(0, len(raw), 4)]
    if flags & ~(CLONE_LEGACY_FLAGS | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP):
        raise KernelError(Errno.EINVAL, "unknown flag")
    if flags & (CLONE_DETACHED | (CSIGNAL & ~CLONE_NEWTIME)):
        raise KernelError(Errno.EINVAL, "CLONE_DETACHED or an exit signal in flags")
    if flags & CLONE_SIGHAND and flags & CLONE_CLEAR_SIGHAND:
        raise KernelError(Errno.EINVAL, "CLONE_SIGHAND with CLONE_CLEAR_SIGHAND")
    if flags & (CLONE_THREAD | CLONE_PARENT) and exit_signal:
        raise KernelError(Errno.EINVAL, "a thread or sibling has no exit signal of its own")
    if bool(stack) != bool(stack_size) or (stack and not access_ok(stack, stack_size)):
        raise KernelError(Errno.EINVAL, "stack and stack_size do not fit")
    if len(tids) > 1:
        raise KernelError(Errno.EINVAL, "set_tid for more name spaces than there are")
    return CloneArgs(
        flags, exit_signal, stack + stack_size, tls, parent_tid, child_tid, pidfd, tids[0] if tids else None
    )


_UNSHARE_KNOWN = CLONE_THREAD | CLONE_FS | CLONE_SIGHAND | CLONE_VM | CLONE_FILES | CLONE_SYSVSEM | CLONE_NAMESPACES


@syscall("unshare", x86_64=272, i386=310, group="process", support=Support.PARTIAL, note="name spaces: EINVAL")
def sys_unshare(task: Task, flags: Annotated[CloneFlags, ULONG]) -> None:
    """Stop sharing what the flags say."""
    bits = int(flags)
    if bits & ~_UNSHARE_KNOWN:
        raise KernelError(Errno.EINVAL, "unknown flag")
    if bits & CLONE_NAMESPACES:
        raise KernelError(Errno.EINVAL, "kernel without name spaces")
    if bits & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM) and task.signal.nr_threads > 1:
        raise KernelError(Errno.EINVAL, "the process has other threads")
    if bits & (CLONE_SIGHAND | CLONE_VM) and task.sighand.refs > 1:
        raise KernelError(Errno.EINVAL, "signal actions are shared with another process")
    if bits & CLONE_VM and user_mm(task).mm_users > 1:
        raise KernelError(Errno.EINVAL, "memory is shared with another process")
    if bits & CLONE_FS and task.fs.refs > 1:
        old_fs = task.fs
        task.fs = old_fs.copy()
        old_fs.put()
    if bits & CLONE_FILES and task.files.refs > 1:
        old_files = task.files
        task.files = old_files.copy()
        old_files.put()


@syscall("setns", x86_64=308, i386=346, group="process", support=Support.PARTIAL, note="no name spaces: EINVAL")
def sys_setns(task: Task, fd: Fd, flags: Int) -> None:
    """Join the name space of a descriptor."""
    task.files.get(fd)
    raise KernelError(Errno.EINVAL, "kernel without name spaces")


# ---- execve --------------------------------------------------------------------------------------


def _strings(task: Task, address: int) -> list[bytes]:
    """A NULL-terminated vector of strings; a NULL vector is empty.  E2BIG as soon as exec could not take them."""
    if not address:
        return []
    mm = user_mm(task)
    left = STK_LIM
    strings: list[bytes] = []
    for pointer in get_user_pointers(mm, address, STK_LIM // 8):
        string = strncpy_from_user(mm, pointer, MAX_ARG_STRLEN)
        left -= len(string) + 9
        if left < 0:
            raise KernelError(Errno.E2BIG, "more arguments than any stack limit allows")
        strings.append(string)
    return strings


def _execve(task: Task, dirfd: int, filename: bytes, argv: int, envp: int, flags: int) -> None:
    try:
        do_execveat(task, dirfd, filename, lambda: (_strings(task, argv), _strings(task, envp)), flags)
    except ExecFatal:
        task.syscall_nr = -1  # SIGSEGV is on its way; there is nothing to return to


@syscall("execve", x86_64=59, i386=11, group="process", stopped=True)
def sys_execve(task: Task, filename: Path, argv: UserAddr, envp: UserAddr) -> None:
    """Run another program in this process."""
    _execve(task, AT_FDCWD, getname(task, filename), argv, envp, 0)


@syscall("execveat", x86_64=322, i386=358, group="process", stopped=True)
def sys_execveat(
    task: Task, fd: Fd, filename: Path, argv: UserAddr, envp: UserAddr, flags: Annotated[AtFlags, INT]
) -> None:
    """execve of a file named relative to a directory, or open already."""
    bits = int(flags)
    if bits & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
        raise KernelError(Errno.EINVAL, "unknown flag")
    _execve(task, fd, getname(task, filename), argv, envp, bits)


# ---- the end -------------------------------------------------------------------------------------


@syscall("exit", x86_64=60, i386=1, group="process", stopped=True)
def sys_exit(task: Task, error_code: Int) -> None:
    """End the calling thread."""
    do_exit(task, exited(error_code))


@syscall("exit_group", x86_64=231, i386=252, group="process", stopped=True)
def sys_exit_group(task: Task, error_code: Int) -> None:
    """End the process."""
    do_group_exit(task, exited(error_code))


_WAIT4_OPTIONS = WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WCLONE | WALL


@syscall("wait4", x86_64=61, i386=114, group="process", returns="int")
def sys_wait4(
    task: Task,
    pid: Pid,
    stat_addr: UserAddr,
    options: Annotated[WaitOptions, INT],
    rusage: StructOut("rusage"),  # type: ignore[valid-type]
) -> Blocking[int]:
    """Wait for a child to end (or stop, or continue)."""
    bits = int(options) & 0xFFFF_FFFF
    if bits & ~_WAIT4_OPTIONS:
        raise KernelError(Errno.EINVAL, "unknown option")
    if pid == -0x8000_0000:
        raise KernelError(Errno.ESRCH, "-pid would overflow")
    if pid == -1:
        opts = WaitOpts(IdType.P_ALL, 0, bits | WEXITED)
    elif pid > 0:
        opts = WaitOpts(IdType.P_PID, pid, bits | WEXITED)
    else:
        opts = WaitOpts(IdType.P_PGID, -pid or task.signal.pgrp, bits | WEXITED)
    result: WaitResult = yield from do_wait(task, opts)
    mm = user_mm(task)
    if result.pid and stat_addr:
        put_user_u32(mm, stat_addr, result.status)
    if result.pid and rusage and result.usage is not None:
        copy_to_user(mm, rusage, pack_rusage(result.usage))
    return result.pid


@syscall("waitid", x86_64=247, i386=284, group="process")
def sys_waitid(
    task: Task,
    which: IdType,
    upid: Pid,
    infop: StructOut("siginfo"),  # type: ignore[valid-type]
    options: Annotated[WaitOptions, INT],
    rusage: StructOut("rusage"),  # type: ignore[valid-type]
) -> Blocking[int]:
    """Wait for a child; the news comes as a siginfo."""
    bits = int(options) & 0xFFFF_FFFF
    opts = _waitid_opts(task, int(which), upid, bits)
    result: WaitResult = yield from do_wait(task, opts)
    if not result.pid and opts.options & WNOHANG and not bits & WNOHANG:
        raise KernelError(Errno.EAGAIN, "the pidfd is non-blocking")
    mm = user_mm(task)
    if result.pid and rusage and result.usage is not None:
        copy_to_user(mm, rusage, pack_rusage(result.usage))
    if infop:
        sig = SIGCHLD if result.pid else 0
        head = b"".join(v.to_bytes(4, "little", signed=True) for v in (sig, 0, result.code))
        tail = b"".join((v & 0xFFFF_FFFF).to_bytes(4, "little") for v in (result.pid, result.uid, result.si_status))
        copy_to_user(mm, infop, head)
        copy_to_user(mm, infop + 16, tail)
    return 0


def _waitid_opts(task: Task, which: int, upid: int, bits: int) -> WaitOpts:
    if bits & ~(_WAIT4_OPTIONS | WEXITED | WNOWAIT) or not bits & (WEXITED | WUNTRACED | WCONTINUED):
        raise KernelError(Errno.EINVAL, "unknown option, or nothing to wait for")
    if which == IdType.P_ALL:
        return WaitOpts(IdType.P_ALL, 0, bits)
    if which == IdType.P_PID:
        if upid <= 0:
            raise KernelError(Errno.EINVAL, "pid is not positive")
        return WaitOpts(IdType.P_PID, upid, bits)
    if which == IdType.P_PGID:
        if upid < 0:
            raise KernelError(Errno.EINVAL, "process group is negative")
        return WaitOpts(IdType.P_PGID, upid or task.signal.pgrp, bits)
    if which != IdType.P_PIDFD:
        raise KernelError(Errno.EINVAL, "unknown id type")
    if upid < 0:
        raise KernelError(Errno.EINVAL, "descriptor is negative")
    file = task.files.get(upid)
    if not isinstance(file, PidFile):
        raise KernelError(Errno.EBADF, "descriptor is no pidfd")
    if file.nonblock:
        return WaitOpts(IdType.P_PIDFD, 0, bits | WNOHANG, file.target)
    return WaitOpts(IdType.P_PIDFD, 0, bits, file.target)


# ---- who am I ------------------------------------------------------------------------------------


@syscall("getpid", x86_64=39, i386=20, group="process")
def sys_getpid(task: Task) -> int:
    """The caller's process number."""
    return task.tgid


@syscall("gettid", x86_64=186, i386=224, group="process")
def sys_gettid(task: Task) -> int:
    """The calling thread's number."""
    return task.pid


@syscall("getppid", x86_64=110, i386=64, group="process")
def sys_getppid(task: Task) -> int:
    """The parent's process number."""
    return task.parent.tgid


@syscall("set_tid_address", x86_64=218, i386=258, group="process")
def sys_set_tid_address(task: Task, tidptr: UserAddr) -> int:
    """Where to write 0 and wake when the thread exits; returns its number."""
    task.clear_child_tid = tidptr
    return task.pid


def _find_task(task: Task, pid: int) -> Task:
    """The task called ``pid``; 0 is the caller; ESRCH."""
    found = task if pid == 0 else task.kernel.tasks.get(pid)
    if found is None:
        raise KernelError(Errno.ESRCH, f"no process {pid}")
    return found


@syscall("getpgid", x86_64=121, i386=132, group="process")
def sys_getpgid(task: Task, pid: Pid) -> int:
    """The process group of a process."""
    return _find_task(task, pid).signal.pgrp


@syscall("getpgrp", x86_64=111, i386=65, group="process")
def sys_getpgrp(task: Task) -> int:
    """The caller's process group."""
    return task.signal.pgrp


@syscall("getsid", x86_64=124, i386=147, group="process")
def sys_getsid(task: Task, pid: Pid) -> int:
    """The session of a process."""
    return _find_task(task, pid).signal.session


@syscall("setpgid", x86_64=109, i386=57, group="process")
def sys_setpgid(task: Task, pid: Pid, pgid: Pid) -> None:
    """Move a process (the caller, or a child before its exec) into a process group."""
    leader = task.group_leader
    kernel = task.kernel
    pid = pid or leader.pid
    pgid = pgid or pid
    if pgid < 0:
        raise KernelError(Errno.EINVAL, "negative process group")
    target = kernel.tasks.get(pid)
    if target is None:
        raise KernelError(Errno.ESRCH, f"no process {pid}")
    if target is not target.group_leader:
        raise KernelError(Errno.EINVAL, "a thread, not a process")
    if target.parent.signal is task.signal:
        if target.signal.session != leader.signal.session:
            raise KernelError(Errno.EPERM, "the child is in another session")
        if target.did_exec:
            raise KernelError(Errno.EACCES, "the child has called exec")
    elif target is not leader:
        raise KernelError(Errno.ESRCH, "neither the caller nor one of its children")
    if target.signal.is_session_leader:
        raise KernelError(Errno.EPERM, "a session leader")
    if pgid != pid:
        members = kernel.pids.pgrp_members(pgid)
        if not members or members[0].signal.session != leader.signal.session:
            raise KernelError(Errno.EPERM, "no such process group in the caller's session")
    if target.signal.pgrp != pgid:
        kernel.pids.join_pgrp(target, pgid)


@syscall("setsid", x86_64=112, i386=66, group="process")
def sys_setsid(task: Task) -> int:
    """Begin a session, with the caller as its leader and without a terminal."""
    leader = task.group_leader
    pids = task.kernel.pids
    if leader.signal.is_session_leader or pids.pgrp_members(leader.pid):
        raise KernelError(Errno.EPERM, "already a process group leader")
    pids.join_session(leader, leader.pid)
    pids.join_pgrp(leader, leader.pid)
    leader.signal.tty = None
    return leader.pid


# ---- pidfds --------------------------------------------------------------------------------------


@syscall("pidfd_open", x86_64=434, i386=434, group="process", returns="fd")
def sys_pidfd_open(task: Task, pid: Pid, flags: UInt) -> int:
    """A descriptor for a process."""
    if flags & ~(PIDFD_NONBLOCK | PIDFD_THREAD) or pid <= 0:
        raise KernelError(Errno.EINVAL, "unknown flag, or pid not positive")
    target = _find_task(task, pid)
    if not flags & PIDFD_THREAD and target is not target.group_leader:
        raise KernelError(Errno.ENOENT, "a thread, and no PIDFD_THREAD")
    return fd_install(task, PidFile(target, flags), cloexec=True)


@syscall("pidfd_getfd", x86_64=438, i386=438, group="process", returns="fd")
def sys_pidfd_getfd(task: Task, pidfd: Fd, fd: Fd, flags: UInt) -> int:
    """A copy of another process's descriptor."""
    if flags:
        raise KernelError(Errno.EINVAL, "unknown flag")
    target, _ = pidfd_task(task, pidfd)
    if not ptrace_may_access(task, target):
        raise KernelError(Errno.EPERM, "may not look into that process")
    if target.state is TaskState.ZOMBIE:
        raise KernelError(Errno.ESRCH, "the process has exited")
    return fd_install(task, target.files.get_raw(fd).get(), cloexec=True)
