"""The guest's files over real host directories, and the same system calls made natively, for comparison.

A script is a list of calls: ``(name, *arguments)``; an argument is a number, bytes (a path or data, placed in memory),
or :class:`Out` (room for an answer).  :func:`run_guest` makes the calls in a kernel without a processor;
:func:`run_native` makes them in a child process, in a directory that was prepared in the same way.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emu.hosttree import OsHostTree
from kernel.abi.stat import S_IFDIR, S_IFMT
from kernel.fs.files import FsStruct
from kernel.fs.hostfs import HostStat
from kernel.fs.mount_root import mount_root
from kernel.fs.tty import StdioKind
from kernel.syscalls.table import BY_NAME
from kernel.task.cred import Cred
from kernel.task.task import Task
from tests.task.harness import ASLEEP, DATA, GONE, Sim

PATHS = DATA + 0x2000
BUFFER = DATA + 0x8000
BUFFER_SIZE = 0x2_0000


@dataclass(frozen=True)
class Out:
    """Room for ``size`` bytes of answer, which are part of the result (``kind`` says how to compare them)."""

    size: int
    kind: str = "raw"


Call = tuple[Any, ...]


class NoConsole:
    """No standard descriptors at all."""

    is_waited_for = False

    def __init__(self) -> None:
        self.driver: Any = None

    def attach(self, driver: Any) -> None:
        self.driver = driver

    def poll_host(self, timeout_ns: int | None) -> bool:
        return False

    def open_standard_files(self, task: Task) -> None: ...
    def kind(self, fd: int) -> StdioKind:
        return StdioKind.CLOSED

    def stat(self, fd: int) -> HostStat:
        raise AssertionError

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"no console: {name}")


class FileSim(Sim):
    """A machine whose root is the host directory ``root``."""

    def __init__(self, root: Path | str, writable: list[str] | None = None, console: Any = None) -> None:
        super().__init__()
        self.tree = OsHostTree(str(root), writable)
        self.console = console or NoConsole()
        mount_root(self.kernel, self.tree, self.console)  # type: ignore[arg-type]

    def shell(self, uid: int | None = None, gid: int | None = None) -> Task:
        """A process at the root, with /dev/null as 0, 1 and 2."""
        task = self.process()
        task.creds = Cred(os.getuid() if uid is None else uid, os.getgid() if gid is None else gid)
        task.fs = FsStruct(self.kernel.vfs.root, self.kernel.vfs.root)
        for _ in range(3):
            self.do(task, "open", b"/dev/null", 2)
        return task

    def do(self, task: Task, name: str, *args: Any) -> Any:
        """One call; bytes are placed in memory, :class:`Out` is room whose content comes back in ``answer``."""
        raw: list[int] = []
        path_at, out_at = PATHS, BUFFER
        outs: list[tuple[int, Out]] = []
        for arg in args:
            if isinstance(arg, bytes):
                self.poke(task, path_at, arg + b"\0")
                raw.append(path_at)
                path_at += len(arg) + 16 & ~15
            elif isinstance(arg, Out):
                outs.append((out_at, arg))
                raw.append(out_at)
                out_at += arg.size + 15 & ~15
            else:
                raw.append(arg)
        value = self.call(task, name, *raw)
        self.answer = [self.peek(task, address, out.size) for address, out in outs]
        return value


def tidy(name: str, ret: Any, outs: list[tuple[Out, bytes]]) -> list[Any]:
    """A result without what may differ between two machines: inode numbers, times, sizes of directories."""
    if ret is ASLEEP or ret is GONE:
        return [str(ret)]
    result: list[Any] = [ret]
    for out, data in outs:
        if ret < 0:
            continue
        if out.kind == "raw":
            result.append(data[:ret].hex())
        elif out.kind == "stat":
            result.append(tidy_stat(data))
        elif out.kind == "dirents":
            result[0] = 0 if ret == 0 else 1
            result.append(sorted(names_of(data[:ret])))
    return result


def tidy_stat(data: bytes) -> list[int]:
    _dev, _ino, nlink, mode, uid, gid, _pad, rdev, size = struct.unpack_from("<QQQIIIIQq", data)
    is_dir = mode & S_IFMT == S_IFDIR
    return [mode, uid, gid, rdev, *([] if is_dir else [nlink, size])]


def names_of(data: bytes) -> list[tuple[str, int]]:
    names: list[tuple[str, int]] = []
    offset = 0
    while offset < len(data):
        _ino, _off, reclen, dtype = struct.unpack_from("<QqHB", data, offset)
        names.append((data[offset + 19 : offset + reclen].split(b"\0")[0].decode(), dtype))
        offset += reclen
    return names


def run_guest(sim: FileSim, task: Task, script: list[Call]) -> list[list[Any]]:
    results = []
    for name, *args in script:
        ret = sim.do(task, name, *args)
        outs = [arg for arg in args if isinstance(arg, Out)]
        results.append(tidy(name, ret, list(zip(outs, sim.answer, strict=True))))
    return results


# ---- the same natively ----------------------------------------------------------------------------------------------


def run_native(directory: Path | str, script: list[Call], uid: int | None = None) -> list[list[Any]]:
    """The results of ``script`` in a child process that stands in ``directory``."""
    encoded = [[name, *[_encode(arg) for arg in args]] for name, *args in script]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fs.harness", str(directory), str(-1 if uid is None else uid)],
        input=json.dumps(encoded),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    results: list[list[Any]] = json.loads(done.stdout)
    return results


def _encode(arg: Any) -> Any:
    if isinstance(arg, bytes):
        return {"bytes": arg.hex()}
    if isinstance(arg, Out):
        return {"out": arg.size, "kind": arg.kind}
    return arg


def _native_main() -> None:
    directory, uid = sys.argv[1], int(sys.argv[2])
    script = json.load(sys.stdin)
    stdout = os.dup(1)
    os.dup2(stdout, 900)
    os.closerange(3, 900)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
    os.chdir(directory)
    os.umask(0o022)
    if uid >= 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    libc = ctypes.CDLL(None, use_errno=True)
    results = []
    for name, *args in script:
        raw: list[Any] = []
        outs: list[tuple[Out, Any]] = []
        for arg in args:
            if isinstance(arg, dict) and "bytes" in arg:
                raw.append(ctypes.c_char_p(bytes.fromhex(arg["bytes"])))
            elif isinstance(arg, dict):
                room = ctypes.create_string_buffer(arg["out"])
                outs.append((Out(arg["out"], arg["kind"]), room))
                raw.append(room)
            else:
                raw.append(ctypes.c_long(arg))
        libc.syscall.restype = ctypes.c_long
        ret = libc.syscall(BY_NAME[name].x86_64, *raw)
        if ret == -1:
            ret = -ctypes.get_errno()
        results.append(tidy(name, ret, [(out, room.raw) for out, room in outs]))
    os.write(900, json.dumps(results).encode())


def canonical(results: list[list[Any]]) -> list[list[Any]]:
    """As JSON would have it (tuples become lists)."""
    plain: list[list[Any]] = json.loads(json.dumps(results))
    return plain


if __name__ == "__main__":
    _native_main()
