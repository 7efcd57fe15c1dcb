"""The same calls natively and in the guest: same errors, same answers, same tree at the end.

Three ways to run a script: natively in a directory; in the guest over an equal directory (which must not change); in
the guest in an equal directory opened with --writable (which must end up as the native one).
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.fs.harness import BUFFER_SIZE, Call, FileSim, Out, canonical, run_guest, run_native

O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND = 1, 2, 0o100, 0o200, 0o1000, 0o2000
O_DIRECTORY, O_NOFOLLOW, O_PATH, O_TMPFILE = 0o200000, 0o400000, 0o10000000, 0o20200000
AT_FDCWD = -100
STAT = Out(144, "stat")


def populate(root: Path) -> None:
    """The tree that every run starts from."""
    (root / "d1" / "d2").mkdir(parents=True)
    (root / "d3").mkdir()
    (root / "f1").write_bytes(b"first file\n")
    (root / "f2").write_bytes(bytes(range(256)) * 40)
    (root / "d1" / "g1").write_bytes(b"below d1")
    (root / "d1" / "d2" / "g2").write_bytes(b"")
    os.link(root / "f1", root / "hard")
    os.symlink("f1", root / "s1")
    os.symlink("d1", root / "s2")
    os.symlink("nowhere", root / "s3")
    os.symlink("loop", root / "loop")
    os.mkfifo(root / "fifo")
    os.chmod(root / "f2", 0o640)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Names, modes, contents."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = Path(directory) / name
            st = path.lstat()
            content: object = None
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = path.read_bytes()
            nlink = st.st_nlink if not path.is_dir() or path.is_symlink() else 0
            found[str(path.relative_to(root))] = (st.st_mode, nlink, content)
    return found


NAMES = [b"f1", b"f2", b"hard", b"d1", b"d1/g1", b"d1/d2", b"d1/d2/g2", b"d3", b"s1", b"s2", b"s3", b"loop", b"s2/g1",
         b"new1", b"new2", b"d1/new3", b"d3/new4", b"d3/../f1", b"d1/d2/../g1", b"f1/x", b"d1/", b"f1/", b"new1/",
         b"s1/", b"s2/", b".", b"d1/.", b"", b"nowhere", b"./d3/./new4", b"d1//g1"]  # fmt: skip
MODES = [0o644, 0o600, 0o755, 0o4755, 0o000, 0o777]
FLAGS = [0, O_WRONLY, O_RDWR, O_CREAT | O_RDWR, O_CREAT | O_EXCL | O_WRONLY, O_CREAT | O_TRUNC | O_RDWR,
         O_TRUNC | O_RDWR, O_APPEND | O_RDWR, O_APPEND | O_CREAT | O_WRONLY, O_DIRECTORY, O_NOFOLLOW, O_PATH,
         O_PATH | O_NOFOLLOW, O_DIRECTORY | O_CREAT, O_NOFOLLOW | O_CREAT | O_RDWR, O_TMPFILE | O_RDWR, O_TMPFILE,
         O_DIRECTORY | O_RDWR, 3]  # fmt: skip


def random_call(rng: random.Random) -> list[Call]:
    name = rng.choice(NAMES)
    other = rng.choice(NAMES)
    fd = rng.randrange(3, 9)
    size = rng.choice([0, 1, 10, 4096, 5000, 12288, 40000])
    pos = rng.choice([0, 1, 100, 4095, 4096, 8192, 20000])
    data = bytes(rng.randrange(256) for _ in range(rng.choice([0, 1, 7, 300]))) * rng.choice([1, 1, 20])
    data = data.replace(b"\0", b"\1")
    calls: list[Call] = [
        ("open", name, rng.choice(FLAGS) | 0o4000, rng.choice(MODES)),
        ("open", name, rng.choice(FLAGS) | 0o4000, rng.choice(MODES)),
        ("close", fd),
        ("read", fd, Out(min(size, BUFFER_SIZE)), size),
        ("pread64", fd, Out(min(size, BUFFER_SIZE)), size, pos),
        ("write", fd, data, len(data)),
        ("write", fd, data, len(data)),
        ("pwrite64", fd, data, len(data), pos),
        ("lseek", fd, rng.choice([0, 5, 4096, -1, 100000]), rng.randrange(0, 6)),
        ("ftruncate", fd, pos),
        ("truncate", name, pos),
        ("fallocate", fd, rng.choice([0, 1, 3, 2, 16, 17]), pos, size),
        ("fstat", fd, STAT),
        ("stat", name, STAT),
        ("lstat", name, STAT),
        ("newfstatat", rng.choice([AT_FDCWD, fd]), name, STAT, rng.choice([0, 0x100, 0x1000, 0x1100])),
        ("mkdir", name, rng.choice(MODES)),
        ("rmdir", name),
        ("unlink", name),
        ("unlinkat", AT_FDCWD, name, rng.choice([0, 0x200])),
        ("rename", name, other),
        ("rename", name, other),
        ("renameat2", AT_FDCWD, name, AT_FDCWD, other, rng.choice([1, 2, 3, 8])),
        ("link", name, other),
        ("linkat", AT_FDCWD, name, AT_FDCWD, other, rng.choice([0, 0x400])),
        ("symlink", rng.choice([b"f1", b"d1", b"new1", b"x/y", b"./d1"]), name),
        ("readlink", name, Out(100), 100),
        ("chmod", name, rng.choice(MODES)),
        ("fchmod", fd, rng.choice(MODES)),
        ("access", name, rng.randrange(0, 9)),
        ("getdents64", fd, Out(8192, "dirents"), 8192),
        ("dup", fd),
        ("dup2", fd, rng.randrange(3, 12)),
        ("fcntl", fd, rng.choice([1, 3]), 0),
        ("fcntl", fd, 0, rng.randrange(3, 12)),
        ("umask", rng.choice([0o022, 0, 0o077])),
        ("mknod", name, rng.choice([0o100644, 0o010600, 0o040755, 0o170000]), 0),
        ("fsync", fd),
        ("copy_file_range", fd, 0, rng.randrange(3, 9), 0, size, 0),
        ("sendfile", fd, rng.randrange(3, 9), 0, size),
        ("flock", fd, rng.choice([5, 6, 8, 3])),
        ("fcntl", fd, rng.choice([1031, 1032, 4]), 0o4000),
    ]
    call = rng.choice(calls)
    if call[0] == "lseek" and call[3] in (3, 4):  # which pages are data is the file system's own business
        return []
    if call[0] == "getdents64":  # positions inside directories mean nothing outside of their file system
        return [("lseek", fd, 0, 0), call]
    return [call]


def make_script(seed: int, length: int) -> list[Call]:
    rng = random.Random(seed)
    return [call for _ in range(length) for call in random_call(rng)]


def trees(tmp_path: Path) -> tuple[Path, Path, Path]:
    roots = tmp_path / "native", tmp_path / "lower", tmp_path / "open"
    for root in roots:
        root.mkdir(mode=0o777)
        populate(root)
        if os.getuid() == 0:
            os.chmod(root, 0o777)
    return roots


def compare(script: list[Call], want: list[list[object]], got: list[list[object]]) -> None:
    for index, (call, one, other) in enumerate(zip(script, want, got, strict=True)):
        assert one == other, f"call {index} {call!r}: native {one!r}, guest {other!r}"


def in_guest(sim: FileSim, place: bytes, script: list[Call], uid: int | None = None) -> list[list[object]]:
    task = sim.shell(uid, uid)
    assert sim.do(task, "chdir", place) == 0
    return canonical(run_guest(sim, task, script))


@pytest.mark.parametrize("seed", range(8))
def test_random_scripts(tmp_path: Path, seed: int) -> None:
    native, lower, opened = trees(tmp_path)
    before = snapshot(lower)
    script = make_script(seed, 250)
    want = run_native(native, script)
    compare(script, want, in_guest(FileSim(tmp_path), b"/lower", script))
    assert snapshot(lower) == before, "the lower layer never changes"
    sim = FileSim(tmp_path, [str(opened)])
    compare(script, want, in_guest(sim, b"/open", script))
    sim.kernel.vfs.sync()
    assert snapshot(opened) == snapshot(native)


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user natively")
@pytest.mark.parametrize("seed", range(100, 104))
def test_random_scripts_of_an_ordinary_user(tmp_path: Path, seed: int) -> None:
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o001 == 0:
            os.chmod(parent, parent.stat().st_mode | 0o011)
    native, lower, _opened = trees(tmp_path)
    for root in (native, lower):
        os.chown(root / "d3", 65534, 65534)
        os.chmod(root / "d1", 0o1777)
    script = make_script(seed, 250)
    want = run_native(native, script, uid=65534)
    compare(script, want, in_guest(FileSim(tmp_path), b"/lower", script, 65534))
    shutil.rmtree(native)
