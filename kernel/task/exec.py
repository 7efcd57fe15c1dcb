"""execve: another program in the same process.

Models ``fs/exec.c`` (``do_execveat_common``, ``bprm_execve``, ``begin_new_exec``, ``de_thread``) and ``start_thread``
of ``arch/x86/kernel/process_64.c``.  Manual: execve(2), execveat(2).

Deliberate differences: the other threads end at once (see exit.py); no binfmt_misc; no file capabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kernel.abi.elf import ELFMAG, why_not_native
from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD
from kernel.abi.personality import PER_CLEAR_ON_SETID, READ_IMPLIES_EXEC
from kernel.abi.resource import RLIMIT_STACK
from kernel.abi.signal import SIGCHLD, SIGSEGV
from kernel.abi.stat import S_ISGID, S_ISUID, S_IXGRP
from kernel.fs.file import File, fput
from kernel.fs.permission import inode_permission
from kernel.hardware import Reg
from kernel.mm.exit import mmput
from kernel.mm.fork import new_mm
from kernel.task.binfmt_elf import ElfFile, ExecFatal, Loaded, load_elf_binary, open_interpreter, read_elf
from kernel.task.binfmt_script import load_script, parse_script
from kernel.task.bprm import STK_LIM, Bprm
from kernel.task.cred import SUID_DUMP_DISABLE, SUID_DUMP_USER, commit_creds, exec_creds
from kernel.task.exit import mm_release, task_usage, zap_other_threads
from kernel.task.sigframe import USER_CS, USER_DS, sas_ss_reset
from kernel.task.signal import flush_signal_handlers, force_fatal_sig
from kernel.task.task import COMM_LEN, Task, TaskState
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.mm.types import MmStruct

SCHED_PROCESS_EXEC = Tracepoint("sched:sched_process_exec", "task filename old_pid")

MAX_INTERPRETERS = 5
"""How many #! scripts may stand before the program."""
MAY_READ = 4


Strings = Callable[[], tuple[list[bytes], list[bytes]]]
"""Fetches argv and envp: after the file was opened, so that ENOENT comes before EFAULT and E2BIG."""


def do_execve(task: Task, filename: bytes, argv: list[bytes], envp: list[bytes]) -> None:
    """:func:`do_execveat` with strings that the kernel has already."""
    do_execveat(task, AT_FDCWD, filename, lambda: (argv, envp), 0)


def do_execveat(task: Task, dirfd: int, filename: bytes, strings: Strings, at_flags: int) -> None:
    """Replace the program of ``task``; its registers are then those of program entry.

    Raises KernelError while the old program can still go on: ENOENT, EACCES, ENOEXEC, E2BIG, ELIBBAD, ELOOP ...
    Raises :class:`ExecFatal` when it cannot: the process is to die of SIGSEGV, which has been sent if it had a program.
    In both cases ``reason`` says in words what is wrong with the file.
    """
    kernel = task.kernel
    previous, kernel.current = kernel.current, task
    try:
        _do_execveat(task, dirfd, filename, strings, at_flags)
    finally:
        kernel.current = previous


def _do_execveat(task: Task, dirfd: int, filename: bytes, strings: Strings, at_flags: int) -> None:
    bprm = _open_program(task, filename, dirfd, at_flags)
    interp: ElfFile | None = None
    mm: MmStruct | None = None
    try:
        bprm.set_strings(*strings())
        program = _find_format(bprm)
        _prepare_creds(bprm)
        interp = open_interpreter(bprm, program)
        for part in (program, interp):
            if part is not None:
                _note_readable(bprm, part.file)
        mm = new_mm(task.kernel)
        loaded = load_elf_binary(bprm, program, interp, mm)
    except ExecFatal:
        _give_up(mm)
        if task.mm is not None:
            zap_other_threads(task, 0)
            force_fatal_sig(task, SIGSEGV)
        raise
    except KernelError:
        _give_up(mm)
        raise
    finally:
        fput(bprm.file)
        if interp is not None:
            fput(interp.file)
    _begin_new_exec(bprm, loaded)


def _give_up(mm: MmStruct | None) -> None:
    if mm is not None:
        mmput(mm)


def _open_program(task: Task, filename: bytes, dirfd: int, at_flags: int) -> Bprm:
    """Open the file; what AT_EXECFN and comm show depends on how it was named."""
    if not filename and not at_flags & AT_EMPTY_PATH:
        raise KernelError(Errno.ENOENT, "empty file name")
    file = task.kernel.vfs.open_exec(task, filename, dirfd, at_flags)
    if dirfd == AT_FDCWD or filename.startswith(b"/"):
        return Bprm(task, filename, file, filename.rsplit(b"/", 1)[-1])
    # By descriptor: the name is made up, so comm is the file's own.
    shown = b"/dev/fd/%d" % dirfd + (b"/" + filename if filename else b"")
    bprm = Bprm(task, shown, file, file.f_path.dentry.d_name)
    bprm.inaccessible = task.files.get_cloexec(dirfd)
    return bprm


def _find_format(bprm: Bprm) -> ElfFile:
    """exec_binprm(): through the scripts to the program."""
    for depth in range(MAX_INTERPRETERS + 2):
        if depth > MAX_INTERPRETERS:
            break
        head = bprm.read()
        script = parse_script(head)
        if script is None:
            if head[:4] != ELFMAG:
                raise KernelError(Errno.ENOEXEC, why_not_native(head) or "unknown format")
            return read_elf(bprm.file, Errno.ENOEXEC)
        interpreter, argument = script
        load_script(bprm, interpreter, argument)
        try:
            file: File = bprm.task.kernel.vfs.open_exec(bprm.task, interpreter)
        except KernelError as error:
            name = interpreter.decode(errors="replace")
            raise KernelError(error.errno, f"interpreter {name}: {error.reason or error}") from None
        script_file, bprm.file = bprm.file, file
        fput(script_file)
    raise KernelError(Errno.ELOOP, "more than 5 interpreters, one after the other")


def _prepare_creds(bprm: Bprm) -> None:
    """bprm_fill_uid() and the capability rules: set-user-ID and set-group-ID programs."""
    task = bprm.task
    inode = bprm.file.f_inode
    old = task.creds
    euid, egid = old.euid, old.egid
    if not task.no_new_privs and task.kernel.vfs.may_suid(bprm.file):
        mode = inode.i_mode
        if mode & S_ISUID:
            euid = inode.i_uid
        if mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP:
            egid = inode.i_gid
    bprm.creds, bprm.secure = exec_creds(old, euid, egid, task.no_new_privs)


def _note_readable(bprm: Bprm, file: File) -> None:
    """would_dump(): memory that holds a file its user cannot read is not shown either."""
    try:
        inode_permission(bprm.task, file.f_inode, MAY_READ)
    except KernelError:
        bprm.would_dump = False


# ---- past the point of no return -----------------------------------------------------------------


def _begin_new_exec(bprm: Bprm, loaded: Loaded) -> None:
    task = bprm.task
    old_pid = task.pid
    _de_thread(task)
    _unshare(task)
    mm_release(task)
    old_mm, task.mm = task.mm, loaded.mm
    if old_mm is not None:
        usage = task.signal.dead_threads
        usage.maxrss_pages = max(usage.maxrss_pages, old_mm.hiwater_rss, old_mm.rss)
        mmput(old_mm)
    if bprm.secure:
        task.pdeath_signal = 0
        task.personality &= ~PER_CLEAR_ON_SETID
        soft, hard = task.signal.rlimits[RLIMIT_STACK]
        task.signal.rlimits[RLIMIT_STACK] = (min(soft, STK_LIM), hard)
    new = bprm.creds
    dumpable = bprm.would_dump and new.euid == new.uid and new.egid == new.gid
    loaded.mm.dumpable = SUID_DUMP_USER if dumpable else SUID_DUMP_DISABLE
    commit_creds(task, new)
    task.personality &= ~READ_IMPLIES_EXEC  # set_personality_64bit()
    task.comm = bprm.comm[: COMM_LEN - 1].decode("latin-1")
    task.files.do_close_on_exec()
    flush_signal_handlers(task)
    sas_ss_reset(task)
    for timer in list(task.signal.posix_timers.values()):
        timer.delete()
    task.restart_block = None
    task.robust_list = task.set_child_tid = task.clear_child_tid = 0
    task.did_exec = True
    _start_thread(task, loaded)
    if SCHED_PROCESS_EXEC.on:
        SCHED_PROCESS_EXEC.emit(task, bprm.filename, old_pid)


def _unshare(task: Task) -> None:
    """Descriptors and signal actions shared with other processes become our own."""
    if task.files.refs > 1:
        shared = task.files
        task.files = shared.copy()
        shared.put()
    if task.sighand.refs > 1:
        task.sighand.refs -= 1
        task.sighand = task.sighand.copy()


def _start_thread(task: Task, loaded: Loaded) -> None:
    regs = task.regs
    regs.reset()
    regs.write(Reg.RIP, loaded.entry)
    regs.write(Reg.RSP, loaded.stack_pointer)
    regs.write(Reg.CS, USER_CS)
    regs.write(Reg.SS, USER_DS)
    task.syscall_nr = -1


def _de_thread(task: Task) -> None:
    """End the other threads; this one becomes the leader, with the leader's number."""
    signal = task.signal
    if signal.nr_threads == 1:
        return
    zap_other_threads(task, 0)
    leader = signal.group_leader
    if leader is not task:
        _take_leaders_place(task, leader)


def _take_leaders_place(task: Task, leader: Task) -> None:
    pids = task.kernel.pids
    signal = task.signal
    signal.dead_threads.add(task_usage(leader))
    del pids.tasks[task.pid]
    pids.tasks[leader.pid] = task
    task.pid = leader.pid
    task.start_ns = leader.start_ns
    task.exit_signal = SIGCHLD
    pids.replace_leader(leader, task)
    siblings = leader.parent.children
    leader.parent.children = {task if child is leader else child: None for child in siblings}
    signal.group_leader = signal.curr_target = task
    del signal.threads[leader]
    pids.charge_user(leader.creds.uid, -1)
    leader.sighand.refs -= 1
    leader.exit_signal = -1
    leader.state = TaskState.DEAD
