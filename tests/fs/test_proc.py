"""/proc, /dev and /sys: the names, and the texts as Linux formats them.  Manual: proc(5)."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from kernel.abi.errno import Errno
from kernel.task.task import Task
from tests.fs.harness import BUFFER, FileSim, Out, names_of
from tests.task.harness import DATA


@pytest.fixture
def sim(tmp_path: Path) -> FileSim:
    (tmp_path / "f").write_bytes(b"content")
    tmp_path.chmod(0o755)
    return FileSim(tmp_path)


def read(sim: FileSim, task: Task, path: bytes, size: int = 60_000) -> bytes | int:
    fd = sim.do(task, "open", path, 0)
    if fd < 0:
        return int(fd)
    data = b""
    while True:
        count = sim.do(task, "read", fd, Out(size), size)
        if count <= 0:
            break
        data += sim.answer[0][:count]
    sim.do(task, "close", fd)
    return data if count == 0 else int(count)


def text(sim: FileSim, task: Task, path: str) -> str:
    data = read(sim, task, path.encode())
    assert isinstance(data, bytes), f"{path}: {data}"
    return data.decode()


def write(sim: FileSim, task: Task, path: bytes, data: bytes) -> int:
    fd = sim.do(task, "open", path, 1)
    if fd < 0:
        return int(fd)
    result = sim.do(task, "write", fd, data, len(data))
    sim.do(task, "close", fd)
    return int(result)


def names(sim: FileSim, task: Task, path: bytes) -> list[str]:
    fd = sim.do(task, "open", path, 0)
    found: list[str] = []
    while (count := sim.do(task, "getdents64", fd, Out(8192), 8192)) > 0:
        found += [name for name, _dtype in names_of(sim.answer[0][:count])]
    sim.do(task, "close", fd)
    return found


def link(sim: FileSim, task: Task, path: bytes) -> bytes | int:
    count = sim.do(task, "readlink", path, Out(200), 200)
    return sim.answer[0][:count] if count >= 0 else int(count)


SAME_SHAPE = [
    "self/stat", "self/statm", "self/status", "self/limits", "self/io", "self/maps", "self/smaps", "self/smaps_rollup",
    "self/mounts", "self/mountinfo", "self/oom_score_adj", "self/personality", "self/wchan", "self/schedstat",
    "self/uid_map", "self/comm", "self/loginuid", "self/timerslack_ns", "uptime", "loadavg", "version", "swaps",
    "meminfo", "stat", "filesystems", "cpuinfo", "sys/vm/max_map_count", "sys/kernel/osrelease", "sys/fs/file-nr",
    "sys/kernel/random/uuid", "devices", "vmstat",
]  # fmt: skip


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_lines_have_the_shape_of_the_hosts(sim: FileSim, name: str) -> None:
    """Every kind of line that we show is one that Linux shows: words stay, numbers and names may differ."""
    host = Path("/proc", name)
    try:
        native = host.read_text()
    except OSError:
        pytest.skip("the host does not show it")
    ours = text(sim, sim.shell(), f"/proc/{name}")
    assert ours.endswith("\n") == native.endswith("\n")
    if name in ("version", "cpuinfo"):
        assert ours.split()[0] == native.split()[0]
        return
    if name.endswith(("mounts", "mountinfo", "maps", "filesystems", "devices", "smaps_rollup")):
        fields = {len(line.split()) for line in native.splitlines()}
        assert all(len(line.split()) in fields | {5, 6} for line in ours.splitlines())
        return

    def shape(line: str) -> str:
        head = re.split(r"[:\s]", line.strip())[0]
        return re.sub(r"\d+", "0", head)

    known = {shape(line) for line in native.splitlines()}
    for line in ours.splitlines():
        if name in ("self/comm", "sys/kernel/osrelease", "sys/kernel/random/uuid"):
            continue
        if re.fullmatch(r"[\da-f.-]+", shape(line)):
            continue
        assert shape(line) in known, line


def test_stat_has_52_fields_in_place(sim: FileSim) -> None:
    task = sim.shell()
    task.comm = "odd ) name"
    line = text(sim, task, "/proc/self/stat")
    head, tail = line.rsplit(")", 1)
    assert head == f"{task.pid} (odd ) name"
    fields = tail.split()
    assert len(fields) == 50
    assert fields[0] == "R" and fields[2] == str(task.signal.pgrp) and fields[17] == "1"
    assert task.mm is not None and int(fields[20]) == task.mm.total_vm * 4096


def test_which_names_there_are(sim: FileSim) -> None:
    task = sim.shell()
    top = names(sim, task, b"/proc")
    for name in ("self", "thread-self", "meminfo", "cpuinfo", "stat", "sys", "mounts", "1", str(task.pid)):
        assert name in top
    mine = names(sim, task, b"/proc/self")
    for name in ("maps", "smaps", "status", "stat", "fd", "fdinfo", "exe", "cwd", "root", "task", "mem", "ns", "auxv"):
        assert name in mine
    for name in mine[2:]:
        assert sim.do(task, "lstat", b"/proc/self/" + name.encode(), Out(144)) == 0, name
    assert names(sim, task, b"/proc/self/task")[2:] == [str(task.pid)]
    assert sim.do(task, "open", b"/proc/99999", 0) == -Errno.ENOENT
    assert sim.do(task, "open", b"/proc/nothing", 0o102, 0o644) == -Errno.ENOENT
    assert sim.do(task, "mkdir", b"/proc/x", 0o755) == -Errno.ENOENT
    assert sim.do(task, "unlink", b"/proc/stat") == -Errno.EPERM


def test_links(sim: FileSim) -> None:
    task = sim.shell()
    sim.do(task, "mkdir", b"/d", 0o755)
    sim.do(task, "chdir", b"/d")
    assert link(sim, task, b"/proc/self") == b"%d" % task.pid
    assert link(sim, task, b"/proc/thread-self") == b"%d/task/%d" % (task.pid, task.pid)
    assert link(sim, task, b"/proc/self/cwd") == b"/d"
    assert link(sim, task, b"/proc/self/root") == b"/"
    assert link(sim, task, b"/proc/self/exe") == -Errno.ENOENT
    fd = sim.do(task, "open", b"/f", 2)
    assert link(sim, task, b"/proc/self/fd/%d" % fd) == b"/f"
    sim.do(task, "rename", b"/f", b"/d/g")
    assert link(sim, task, b"/proc/self/fd/%d" % fd) == b"/d/g"
    sim.do(task, "unlink", b"/d/g")
    assert link(sim, task, b"/proc/self/fd/%d" % fd) == b"/d/g (deleted)"
    assert read(sim, task, b"/proc/self/fd/%d" % fd) == b"content", "the link leads to the file, not to a name"
    assert names(sim, task, b"/proc/self/fd")[2:] == ["0", "1", "2", str(fd), str(fd + 1)]
    assert "pos:\t0\nflags:\t0100002\n" in text(sim, task, f"/proc/self/fdinfo/{fd}")
    assert str(link(sim, task, b"/proc/self/ns/uts")).startswith("b'uts:[")


def test_another_users_process(sim: FileSim) -> None:
    root, user = sim.shell(0, 0), sim.shell(1000, 1000)
    pid = b"%d" % root.pid
    assert isinstance(read(sim, user, b"/proc/" + pid + b"/status"), bytes)
    for name in (b"/maps", b"/environ", b"/mem", b"/auxv", b"/io", b"/pagemap"):
        assert read(sim, user, b"/proc/" + pid + name) in (-Errno.EACCES, -Errno.EPERM), name
    assert link(sim, user, b"/proc/" + pid + b"/cwd") == -Errno.EACCES
    assert sim.do(user, "open", b"/proc/" + pid + b"/fd", 0) == -Errno.EACCES
    assert isinstance(read(sim, root, b"/proc/%d/maps" % user.pid), bytes)


def test_memory_as_a_file(sim: FileSim) -> None:
    task = sim.shell()
    sim.poke(task, DATA + 100, b"needle")
    fd = sim.do(task, "open", b"/proc/self/mem", 2)
    assert sim.do(task, "pread64", fd, Out(6), 6, DATA + 100) == 6
    assert sim.answer[0] == b"needle"
    assert sim.do(task, "pwrite64", fd, b"thread", 6, DATA + 100) == 6
    assert sim.peek(task, DATA + 100, 6) == b"thread"
    assert sim.do(task, "pread64", fd, Out(6), 6, 0x1000) == -Errno.EIO
    fd = sim.do(task, "open", b"/proc/self/pagemap", 0)
    assert sim.do(task, "pread64", fd, Out(8), 8, DATA // 4096 * 8) == 8
    assert struct.unpack("<Q", sim.answer[0])[0] >> 63, "present"
    assert sim.do(task, "pread64", fd, Out(8), 7, 0) == -Errno.EINVAL


def test_tunables(sim: FileSim) -> None:
    task = sim.shell(0, 0)
    assert write(sim, task, b"/proc/sys/vm/max_map_count", b"1234\n") == 5
    assert sim.kernel.sysctl.max_map_count == 1234
    assert text(sim, task, "/proc/sys/vm/max_map_count") == "1234\n"
    assert write(sim, task, b"/proc/sys/vm/overcommit_memory", b"3\n") == -Errno.EINVAL
    assert write(sim, task, b"/proc/sys/vm/overcommit_memory", b"x") == -Errno.EINVAL
    pages = sim.kernel.pages
    assert text(sim, task, "/proc/sys/vm/min_free_kbytes") == f"{pages.watermark_min * 4}\n"
    assert write(sim, task, b"/proc/sys/vm/min_free_kbytes", b"400\n") == 4
    assert (pages.watermark_min, pages.watermark_low, pages.watermark_high) == (100, 125, 150)
    assert write(sim, task, b"/proc/sys/kernel/hostname", b"box\n") == 4
    assert sim.kernel.sysctl.hostname == "box"
    assert write(sim, task, b"/proc/sys/vm/drop_caches", b"3\n") == 2
    user = sim.shell(1000, 1000)
    assert write(sim, user, b"/proc/sys/vm/max_map_count", b"1\n") == -Errno.EACCES
    assert write(sim, user, b"/proc/self/oom_score_adj", b"500") == 3
    assert user.signal.oom_score_adj == 500
    assert write(sim, user, b"/proc/self/oom_score_adj", b"-1") == -Errno.EACCES
    assert write(sim, user, b"/proc/self/comm", b"renamed\n") == 8
    assert user.comm == "renamed"


def test_a_dead_process_is_gone(sim: FileSim) -> None:
    task = sim.shell()
    child = sim.fork(task)
    fd = sim.do(task, "open", b"/proc/%d/stat" % child.pid, 0)
    directory = sim.do(task, "open", b"/proc/%d" % child.pid, 0)
    sim.call(child, "exit_group", 0)
    assert sim.do(task, "read", fd, Out(500), 500) > 0, "a zombie"
    assert b" Z " in sim.answer[0]
    assert sim.call(task, "wait4", child.pid, 0, 0, 0) == child.pid
    assert sim.do(task, "pread64", fd, Out(500), 500, 0) == -Errno.ESRCH
    assert sim.do(task, "openat", directory, b"stat", 0) == -Errno.ENOENT
    assert str(child.pid) not in names(sim, task, b"/proc")


def test_devices(sim: FileSim) -> None:
    task = sim.shell()
    zero = sim.do(task, "open", b"/dev/zero", 2)
    assert sim.do(task, "read", zero, Out(100), 100) == 100 and sim.answer[0] == bytes(100)
    full = sim.do(task, "open", b"/dev/full", 1)
    assert sim.do(task, "write", full, b"x", 1) == -Errno.ENOSPC
    null = sim.do(task, "open", b"/dev/null", 2)
    assert sim.do(task, "write", null, b"x" * 1000, 1000) == 1000 and sim.do(task, "read", null, Out(1), 1) == 0
    random = sim.do(task, "open", b"/dev/urandom", 0)
    assert sim.do(task, "read", random, Out(16), 16) == 16
    assert sim.do(task, "open", b"/dev/tty", 2) == -Errno.ENXIO
    assert sim.do(task, "lseek", zero, 10, 0) == 0
    shared = sim.call(task, "mmap", 0, 8192, 3, 1, zero, 0)
    assert shared > 0
    sim.poke(task, shared, b"both")
    child = sim.fork(task)
    assert sim.peek(child, shared, 4) == b"both"
    assert sim.call(task, "mmap", 0, 4096, 1, 2, null, 0) == -Errno.ENODEV
    assert link(sim, task, b"/dev/fd") == b"/proc/self/fd"
    assert text(sim, task, "/sys/devices/system/cpu/online") == "0\n"
    assert "[never]" in text(sim, task, "/sys/kernel/mm/transparent_hugepage/enabled")


def test_random_bytes_come_from_the_seed(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        sim = FileSim(tmp_path)
        task = sim.shell()
        fd = sim.do(task, "open", b"/dev/urandom", 0)
        sim.do(task, "read", fd, Out(32), 32)
        seen.append(sim.answer[0])
    assert seen[0] == seen[1] != os.urandom(32)


def test_memfd_and_seals(sim: FileSim) -> None:
    task = sim.shell()
    fd = sim.do(task, "memfd_create", b"name", 2)
    assert link(sim, task, b"/proc/self/fd/%d" % fd) == b"/memfd:name (deleted)"
    assert sim.do(task, "write", fd, b"data", 4) == 4
    address = sim.call(task, "mmap", 0, 4096, 3, 1, fd, 0)
    assert sim.peek(task, address, 4) == b"data"
    assert sim.do(task, "fcntl", fd, 1033, 8) == -Errno.EBUSY, "mapped shared and writable"
    sim.poke(task, address, b"DATA")
    assert sim.call(task, "munmap", address, 4096) == 0
    assert sim.do(task, "fcntl", fd, 1033, 8 | 4) == 0
    assert sim.do(task, "fcntl", fd, 1034, 0) == 12
    assert sim.do(task, "write", fd, b"x", 1) == -Errno.EPERM
    assert sim.do(task, "ftruncate", fd, 10) == -Errno.EPERM
    assert sim.do(task, "ftruncate", fd, 2) == 0
    assert sim.call(task, "mmap", 0, 4096, 3, 1, fd, 0) == -Errno.EPERM
    assert sim.do(task, "fcntl", fd, 1033, 1) == 0
    assert sim.do(task, "fcntl", fd, 1033, 2) == -Errno.EPERM
    assert sim.do(task, "memfd_create", b"x" * 250, 0) == -Errno.EINVAL
    assert sim.do(task, "fcntl", 0, 1034, 0) == -Errno.EINVAL
    assert BUFFER
