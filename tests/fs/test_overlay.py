"""The root file system: the host's files below, changes above.  Manual: Documentation/filesystems/overlayfs.rst."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from kernel.abi.errno import Errno
from kernel.fs import dcache
from kernel.task.task import Task
from tests.fs.harness import FileSim, Out, names_of

O_RDWR, O_CREAT, O_TRUNC, O_APPEND = 2, 0o100, 0o1000, 0o2000
STAT = Out(144)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    (tmp_path / "dir" / "one").write_bytes(b"1")
    (tmp_path / "dir" / "two").write_bytes(b"22")
    (tmp_path / "big").write_bytes(bytes(range(256)) * 64)
    os.link(tmp_path / "big", tmp_path / "big2")
    return tmp_path


def names(sim: FileSim, task: Task, path: bytes) -> list[str]:
    fd = sim.do(task, "open", path, 0)
    count = sim.do(task, "getdents64", fd, Out(8192), 8192)
    found = [name for name, _dtype in names_of(sim.answer[0][:count])][2:]
    sim.do(task, "close", fd)
    return [name for name in found if name not in ("dev", "proc", "sys")]


def read(sim: FileSim, task: Task, path: bytes, size: int = 20_000, pos: int = 0) -> bytes:
    fd = sim.do(task, "open", path, 0)
    assert fd >= 0, path
    count = sim.do(task, "pread64", fd, Out(size), size, pos)
    data = sim.answer[0][:count]
    sim.do(task, "close", fd)
    return data


def stat(sim: FileSim, task: Task, path: bytes) -> dict[str, int]:
    assert sim.do(task, "lstat", path, STAT) == 0
    keys = "dev ino nlink mode uid gid pad rdev size blksize blocks atime atime_ns mtime mtime_ns ctime ctime_ns"
    return dict(zip(keys.split(), struct.unpack("<QQQIIIIQqqqQqQqQq24x", sim.answer[0]), strict=True))


def test_lower_files_show_as_on_the_host(root: Path) -> None:
    sim = FileSim(root)
    task = sim.shell()
    for name in ("big", "dir", "dir/one"):
        want, got = (root / name).lstat(), stat(sim, task, name.encode())
        assert got["ino"] == want.st_ino and got["dev"] == want.st_dev and got["blocks"] == want.st_blocks
        assert got["mode"] == want.st_mode and got["size"] == want.st_size and got["nlink"] == want.st_nlink
        assert got["mtime"] * 10**9 + got["mtime_ns"] == want.st_mtime_ns
    assert sorted(names(sim, task, b"/dir")) == ["one", "sub", "two"]
    assert names(sim, task, b"/dir") == [entry.name for entry in os.scandir(root / "dir")], "the host's order"


def test_writing_copies_up_page_by_page(root: Path) -> None:
    sim = FileSim(root)
    task = sim.shell()
    before = stat(sim, task, b"big")
    fd = sim.do(task, "open", b"big", O_RDWR)
    assert sim.do(task, "pwrite64", fd, b"XYZ", 3, 5000) == 3
    original = (root / "big").read_bytes()
    changed = original[:5000] + b"XYZ" + original[5003:]
    assert read(sim, task, b"big") == changed
    assert read(sim, task, b"big2") == changed, "hard links stay links"
    after = stat(sim, task, b"big")
    assert after["ino"] == before["ino"] and after["nlink"] == 2 and after["mtime"] != before["mtime"]
    assert sim.do(task, "ftruncate", fd, 4100) == 0
    assert sim.do(task, "ftruncate", fd, 9000) == 0
    assert read(sim, task, b"big") == original[:4100] + bytes(4900)


def test_changes_survive_a_full_name_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dcache, "MAX_UNUSED_DENTRIES", 8)
    for number in range(40):
        (root / f"filler{number}").write_bytes(b"")
    sim = FileSim(root)
    task = sim.shell()
    assert sim.do(task, "chmod", b"/dir/one", 0o600) == 0
    assert sim.do(task, "unlink", b"/dir/two") == 0
    fd = sim.do(task, "open", b"/dir/new", O_RDWR | O_CREAT, 0o644)
    assert sim.do(task, "write", fd, b"data", 4) == 4
    assert sim.do(task, "rename", b"/dir/sub", b"/moved") == 0
    held = sim.do(task, "open", b"/filler3", 0)
    for _ in range(3):
        for number in range(40):
            stat(sim, task, b"/filler%d" % number)
    assert len(sim.kernel.vfs.dcache.lru) < 40
    sim.kernel.vfs.dcache.prune_all()
    assert stat(sim, task, b"/dir/one")["mode"] & 0o777 == 0o600
    assert sim.do(task, "access", b"/dir/two", 0) == -Errno.ENOENT
    assert read(sim, task, b"/dir/new") == b"data"
    assert sim.do(task, "access", b"/dir/sub", 0) == -Errno.ENOENT
    assert stat(sim, task, b"/moved")["ino"] == (root / "dir" / "sub").stat().st_ino
    assert sim.do(task, "readlink", b"/proc/self/fd/%d" % held, Out(50), 50) == 8


def test_names_that_were_removed_stay_removed(root: Path) -> None:
    sim = FileSim(root)
    task = sim.shell()
    assert sim.do(task, "unlink", b"/dir/one") == 0
    assert sim.do(task, "rmdir", b"/dir") == -Errno.ENOTEMPTY
    assert sim.do(task, "mkdir", b"/dir/one", 0o755) == 0
    assert sorted(names(sim, task, b"/dir")) == ["one", "sub", "two"]
    assert sim.do(task, "rmdir", b"/dir/one") == 0
    assert sorted(names(sim, task, b"/dir")) == ["sub", "two"]
    assert sim.do(task, "unlink", b"/dir/two") == 0
    assert sim.do(task, "rmdir", b"/dir/sub") == 0
    assert sim.do(task, "rmdir", b"/dir") == 0
    assert sim.do(task, "mkdir", b"/dir", 0o755) == 0
    assert names(sim, task, b"/dir") == [], "a new directory is opaque"


def test_a_moved_directory_keeps_its_content(root: Path) -> None:
    sim = FileSim(root)
    task = sim.shell()
    assert sim.do(task, "rename", b"/dir", b"/other") == 0
    assert sorted(names(sim, task, b"/other")) == ["one", "sub", "two"]
    assert read(sim, task, b"/other/two") == b"22"
    assert sim.do(task, "mkdir", b"/dir", 0o755) == 0
    assert names(sim, task, b"/dir") == []
    assert sim.do(task, "rename", b"/other/two", b"/dir/two") == 0
    assert read(sim, task, b"/dir/two") == b"22"


def test_the_space_for_changes_is_bounded(root: Path) -> None:
    sim = FileSim(root)
    task = sim.shell()
    sim.kernel.vfs.superblocks[0].space.limit = 16  # type: ignore[attr-defined]
    fd = sim.do(task, "open", b"/fill", O_RDWR | O_CREAT | O_APPEND, 0o644)
    written = 0
    while (count := sim.do(task, "write", fd, b"z" * 5000, 5000)) > 0:
        written += count
    assert count == -Errno.ENOSPC and written == 16 * 4096
    assert sim.do(task, "unlink", b"/fill") == 0
    assert sim.do(task, "close", fd) == 0
    assert sim.kernel.vfs.superblocks[0].space.used == 0, "space of removed files comes back"  # type: ignore[attr-defined]


def test_an_unlinked_file_lives_until_it_is_closed(root: Path) -> None:
    sim = FileSim(root)
    task = sim.shell()
    nr_free = 0
    for _ in range(2):  # the first round also faults in the caller's own memory
        nr_free = sim.kernel.pages.nr_free
        fd = sim.do(task, "open", b"/tmpfile", O_RDWR | O_CREAT, 0o644)
        assert sim.do(task, "write", fd, b"y" * 9000, 9000) == 9000
        assert sim.do(task, "unlink", b"/tmpfile") == 0
        assert sim.do(task, "pread64", fd, Out(10), 10, 8995) == 5
        assert sim.do(task, "close", fd) == 0
    assert sim.kernel.pages.nr_free == nr_free, "its pages are free again"


def test_xattrs(root: Path) -> None:
    sim = FileSim(root)
    task = sim.shell()
    assert sim.do(task, "getxattr", b"/big", b"user.a", Out(10), 10) == -Errno.ENODATA
    assert sim.do(task, "setxattr", b"/big", b"user.a", b"value", 5, 0) == 0
    assert sim.do(task, "setxattr", b"/big", b"user.a", b"value", 5, 1) == -Errno.EEXIST
    assert sim.do(task, "getxattr", b"/big2", b"user.a", Out(10), 10) == 5
    assert sim.answer[0][:5] == b"value"
    assert sim.do(task, "getxattr", b"/big", b"user.a", Out(3), 3) == -Errno.ERANGE
    assert sim.do(task, "listxattr", b"/big", Out(50), 50) == 7
    assert sim.do(task, "setxattr", b"/big", b"system.posix_acl_access", b"v", 1, 0) == -Errno.EOPNOTSUPP
    assert sim.do(task, "removexattr", b"/big", b"user.a") == 0
    assert sim.do(task, "removexattr", b"/big", b"user.a") == -Errno.ENODATA


def test_holes(root: Path) -> None:
    sim = FileSim(root)
    task = sim.shell()
    fd = sim.do(task, "open", b"/sparse", O_RDWR | O_CREAT, 0o644)
    assert sim.do(task, "pwrite64", fd, b"data", 4, 40_960) == 4
    assert sim.do(task, "lseek", fd, 0, 3) == 40_960
    assert sim.do(task, "lseek", fd, 0, 4) == 0
    assert sim.do(task, "lseek", fd, 40_960, 4) == 40_964
    assert sim.do(task, "lseek", fd, 50_000, 3) == -Errno.ENXIO
    assert stat(sim, task, b"/sparse")["blocks"] == 8
    fd = sim.do(task, "open", b"/big", O_RDWR)
    assert sim.do(task, "fallocate", fd, 3, 4096, 8192) == 0
    assert read(sim, task, b"/big", 4096, 8192) == bytes(4096)
    assert sim.do(task, "lseek", fd, 0, 4) == 4096
    assert sim.do(task, "lseek", fd, 4096, 3) == 12_288
    assert stat(sim, task, b"/big")["blocks"] == 16
