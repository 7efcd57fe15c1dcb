"""Starting the first program: what a shell's fork, descriptors and execvp do on a real machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emu.errors import NotRunnable
from kernel.abi.errno import Errno, KernelError
from kernel.fs.files import FsStruct
from kernel.fs.namei import LOOKUP_DIRECTORY, LOOKUP_FOLLOW
from kernel.task.cred import Cred
from kernel.task.exec import do_execve
from kernel.task.fork import spawn_task

if TYPE_CHECKING:
    from emu.board import Board
    from emu.console import HostConsole
    from kernel.task.task import Task

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_RUNNABLE = 126
NOT_FOUND = 127

_WORDS = {
    Errno.ENOENT: "no such file",
    Errno.ENOTDIR: "a part of the path is not a directory",
    Errno.EACCES: "permission denied",
    Errno.ELOOP: "too many symbolic links",
    Errno.ENAMETOOLONG: "file name too long",
    Errno.ENOEXEC: "not a program for this machine",
    Errno.ELIBBAD: "its program interpreter is no usable ELF file",
    Errno.E2BIG: "arguments and environment are too large",
    Errno.ENOMEM: "not enough memory to load it",
    Errno.EISDIR: "a directory",
}


def spawn_program(machine: Board, argv: list[str], env: dict[str, str], cwd: str | None, console: HostConsole) -> Task:
    """A new process that is about to execute the first instruction of ``argv[0]``; see :meth:`Machine.spawn`.

    Its descriptors 0, 1 and 2 are those of ``console``.
    """
    if not argv or not argv[0]:
        raise NotRunnable(NOT_FOUND, "no program was named")
    kernel = machine.kernel
    task = spawn_task(kernel, _host_credentials())
    root = kernel.vfs.root
    task.fs = FsStruct(root, root)
    _enter_directory(machine, task, cwd)
    console.open_standard_files(task)
    for resource, limit in machine.config.limits.rlimits().items():
        task.signal.rlimits[resource] = (limit, limit)
    arguments = [os.fsencode(word) for word in argv]
    environment = [os.fsencode(f"{name}={value}") for name, value in env.items()]
    _execvp(task, arguments, environment, env.get("PATH") or DEFAULT_PATH)
    kernel.sched.enqueue(task)
    return task


def _host_credentials() -> Cred:
    """The guest has the user's own numbers, so that what programs print is what they print natively."""
    return Cred(os.getuid(), os.getgid(), tuple(os.getgroups()))


def _enter_directory(machine: Board, task: Task, cwd: str | None) -> None:
    """The host's current directory if it is there and the guest has it, else /; one that was asked for must exist."""
    vfs = machine.kernel.vfs
    try:
        wanted = os.getcwd() if cwd is None else cwd
    except FileNotFoundError:  # it has been removed
        return
    try:
        task.fs.cwd = vfs.lookup(task, os.fsencode(wanted), flags=LOOKUP_FOLLOW | LOOKUP_DIRECTORY)
    except KernelError as error:
        if cwd is not None:
            raise NotRunnable(NOT_FOUND, f"{cwd}: cannot be the working directory: {_explain(error)}") from error


def _execvp(task: Task, argv: list[bytes], envp: list[bytes], path: str) -> None:
    """execvp(3): a name without a slash is looked for in ``path``."""
    name = argv[0]
    if b"/" in name:
        candidates = [name]
    else:
        candidates = [os.path.join(os.fsencode(part) or b".", name) for part in path.split(":")]
    refused: tuple[bytes, KernelError] | None = None
    for candidate in candidates:
        try:
            do_execve(task, candidate, argv, envp)
            return
        except KernelError as error:
            if error.errno in (Errno.ENOENT, Errno.ENOTDIR) and b"/" not in name:
                continue
            if refused is None:
                refused = candidate, error
            if error.errno != Errno.EACCES:
                break
    shown = os.fsdecode(name)
    if refused is None:
        raise NotRunnable(NOT_FOUND, f"{shown}: not found in PATH")
    candidate, refusal = refused
    # A script or program that is there, but needs another file that is not, cannot be run; it is not missing.
    needs_another = refusal.reason.startswith(("interpreter", "loader"))
    is_missing = refusal.errno in (Errno.ENOENT, Errno.ENOTDIR) and not needs_another
    status = NOT_FOUND if is_missing else NOT_RUNNABLE
    raise NotRunnable(status, f"{os.fsdecode(candidate)}: {_explain(refusal)}")


def _explain(error: KernelError) -> str:
    """What is wrong, in words; the kernel's own reason when it has one that says more."""
    words = _WORDS.get(Errno(error.errno)) or os.strerror(error.errno)
    return f"{words} ({error.reason})" if error.reason else words
