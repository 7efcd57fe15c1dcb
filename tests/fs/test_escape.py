"""The guest cannot leave its root, and cannot change the host but in directories opened with --writable."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from emu.hosttree import HostDirectory, ReadOnlyHostTree
from kernel.abi.errno import Errno, KernelError
from kernel.fs.dcache import Path as Place
from kernel.task.task import Task
from tests.fs.harness import FileSim, Out
from tests.fs.test_same_as_host import snapshot

O_RDWR, O_CREAT, O_PATH, O_DIRECTORY, O_TRUNC = 2, 0o100, 0o10000000, 0o200000, 0o1000
AT_FDCWD = -100
SECRET = b"not for the guest"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """``tmp_path/secret`` and ``tmp_path/root``, the guest's root, with links that point out of it."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "dir").mkdir()
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "w").mkdir()
    os.symlink(tmp_path / "secret", root / "absolute")
    os.symlink("../secret", root / "relative")
    os.symlink("../../../../../../../.." + str(tmp_path / "secret"), root / "a" / "deep")
    os.symlink("/", root / "top")
    os.symlink(tmp_path, root / "w" / "out")
    os.symlink("..", root / "w" / "up")
    return tmp_path


def content(sim: FileSim, task: Task, path: bytes, flags: int = 0) -> bytes | int:
    fd = sim.do(task, "open", path, flags)
    if fd < 0:
        return int(fd)
    count = sim.do(task, "read", fd, Out(100), 100)
    data = sim.answer[0][:count] if count >= 0 else int(count)
    sim.do(task, "close", fd)
    return data


WAYS_OUT = [
    b"../secret", b"/../secret", b"../../../../../../secret", b"a/../../secret", b"absolute", b"relative", b"a/deep",
    b"top/../secret", b"top/absolute", b"/proc/self/root/../secret", b"/proc/self/cwd/../secret", b"w/out/secret",
    b"w/up/../secret", b"/proc/self/root/absolute", b"/dev/fd/../../../secret", b"/proc/1/root/../secret",
    b"/proc/self/task/../root/../secret",
]  # fmt: skip


@pytest.mark.parametrize("path", WAYS_OUT)
def test_no_path_leads_out(outside: Path, path: bytes) -> None:
    sim = FileSim(outside / "root")
    task = sim.shell()
    for flags in (0, O_RDWR, O_RDWR | O_CREAT | O_TRUNC):
        assert content(sim, task, path, flags) != SECRET
    assert (outside / "secret").read_bytes() == SECRET


def test_descriptors_do_not_lead_out(outside: Path) -> None:
    sim = FileSim(outside / "root")
    task = sim.shell()
    for flags in (0, O_PATH, O_DIRECTORY):
        fd = sim.do(task, "open", b"/", flags)
        assert sim.do(task, "openat", fd, b"../secret", 0) == -Errno.ENOENT
        assert sim.do(task, "openat", fd, b"../../secret", 0) == -Errno.ENOENT
        assert content(sim, task, b"/proc/self/fd/%d/../secret" % fd) == -Errno.ENOENT
        assert sim.do(task, "fchdir", fd) == 0
        assert sim.do(task, "chdir", b"../../..") == 0
        assert sim.do(task, "getcwd", Out(100), 100) == 2
        assert sim.answer[0][:2] == b"/\0"


def test_moving_the_directory_one_stands_in(outside: Path) -> None:
    """The classical trick: the walker stands deep, the directory is moved up, ``..`` is counted wrong."""
    sim = FileSim(outside / "root")
    task = sim.shell()
    assert sim.do(task, "mkdir", b"/x", 0o755) == 0
    assert sim.do(task, "chdir", b"/a/b") == 0
    assert sim.do(task, "rename", b"/a/b", b"/x/b") == 0
    assert content(sim, task, b"../../secret") == -Errno.ENOENT
    assert content(sim, task, b"../../../secret") == -Errno.ENOENT
    assert sim.do(task, "rename", b"/x/b", b"/b") == 0
    assert content(sim, task, b"../secret") == -Errno.ENOENT


def test_chroot_and_back(outside: Path) -> None:
    sim = FileSim(outside / "root")
    task = sim.shell(0, 0)
    fd = sim.do(task, "open", b"/", O_DIRECTORY)
    assert sim.do(task, "chroot", b"/a") == 0
    assert sim.do(task, "fchdir", fd) == 0
    for _ in range(5):
        assert sim.do(task, "chdir", b"..") == 0
    assert sim.do(task, "chroot", b".") == 0
    assert content(sim, task, b"/secret") == -Errno.ENOENT
    assert content(sim, task, b"../secret") == -Errno.ENOENT


def test_links_and_mounts(outside: Path) -> None:
    sim = FileSim(outside / "root")
    task = sim.shell(0, 0)
    assert sim.do(task, "link", b"relative", b"mine") == 0  # a second name of the link
    assert sim.do(task, "linkat", AT_FDCWD, b"relative", AT_FDCWD, b"its", 0x400) == -Errno.ENOENT
    assert content(sim, task, b"mine") == -Errno.ENOENT
    assert sim.do(task, "mount", b"/..", b"/a", b"", 4096, 0) == 0
    assert content(sim, task, b"/a/../../secret") == -Errno.ENOENT
    assert content(sim, task, b"/a/secret") == -Errno.ENOENT


def test_openat2_stays_beneath(outside: Path) -> None:
    sim = FileSim(outside / "root")
    task = sim.shell()
    fd = sim.do(task, "open", b"/w", O_DIRECTORY)
    rows = [
        (b"up", 8, -Errno.EXDEV), (b"/a", 8, -Errno.EXDEV), (b"out", 8, -Errno.EXDEV), (b"../a", 8, -Errno.EXDEV),
        (b"up", 16, None), (b"../../a", 16, -Errno.ENOENT), (b"up", 4, -Errno.ELOOP), (b".", 8, None),
        (b"/", 16, None), (b"/a", 16, -Errno.ENOENT),
    ]  # fmt: skip
    for path, resolve, wanted in rows:
        sim.poke(task, 0x10_0400, struct.pack("<QQQ", 0, 0, resolve))
        result = sim.do(task, "openat2", fd, path, 0x10_0400, 24)
        assert (result >= 0) if wanted is None else result == wanted, (path, resolve, result)
    sim.poke(task, 0x10_0400, struct.pack("<QQQ", 0, 0, 2))
    assert sim.do(task, "openat2", AT_FDCWD, b"/proc/self/root", 0x10_0400, 24) == -Errno.ELOOP
    sim.poke(task, 0x10_0400, struct.pack("<QQQ", 0, 0, 1))
    assert sim.do(task, "openat2", AT_FDCWD, b"/proc/version", 0x10_0400, 24) == -Errno.EXDEV


def test_everything_the_guest_writes_stays_in_memory(outside: Path) -> None:
    root = outside / "root"
    (root / "file").write_bytes(b"x" * 10_000)
    before = snapshot(outside)
    sim = FileSim(root)
    task = sim.shell()
    fd = sim.do(task, "open", b"file", O_RDWR)
    assert sim.do(task, "pwrite64", fd, b"guest", 5, 5000) == 5
    assert sim.do(task, "ftruncate", fd, 6000) == 0
    assert sim.do(task, "fsync", fd) == 0
    for name, *args in [
        ("chmod", b"file", 0o600), ("mkdir", b"new", 0o755), ("rename", b"a", b"new/a"), ("unlink", b"top"),
        ("symlink", b"x", b"y"), ("link", b"file", b"other"), ("chown", b"file", 12, 34),
        ("setxattr", b"file", b"user.x", b"y", 1, 0), ("mknod", b"fifo", 0o10644, 0), ("rmdir", b"w/nothing"),
        ("truncate", b"other", 3),
    ]:  # fmt: skip
        assert sim.do(task, name, *args) in (0, -Errno.ENOENT), name
    sim.kernel.vfs.sync()
    assert snapshot(outside) == before
    assert content(sim, task, b"other") == b"xxx"


def test_a_writable_directory_is_the_only_one(outside: Path) -> None:
    root = outside / "root"
    before = snapshot(outside)
    sim = FileSim(root, [str(root / "w")])
    task = sim.shell()
    assert sim.do(task, "open", b"/w/new", O_RDWR | O_CREAT, 0o644) >= 0
    # links in it lead to places in the guest's root, where writing stays in memory
    assert sim.do(task, "open", b"/w/out/new", O_RDWR | O_CREAT, 0o644) == -Errno.ENOENT
    assert sim.do(task, "open", b"/w/up/new", O_RDWR | O_CREAT, 0o644) >= 0
    assert sim.do(task, "open", b"/w/../new2", O_RDWR | O_CREAT, 0o644) >= 0
    assert sim.do(task, "symlink", b"../../secret", b"/w/link") == 0
    assert sim.do(task, "open", b"/w/link", O_RDWR) == -Errno.ENOENT
    # and nothing moves across its edge
    assert sim.do(task, "rename", b"/w/new", b"/moved") == -Errno.EXDEV
    assert sim.do(task, "rename", b"/a", b"/w/a") == -Errno.EXDEV
    assert sim.do(task, "link", b"/relative", b"/w/linked") == -Errno.EXDEV
    assert sim.do(task, "rename", b"/w", b"/v") == -Errno.EBUSY
    assert sim.do(task, "rmdir", b"/w") == -Errno.EBUSY
    after = snapshot(outside)
    assert set(after) - set(before) == {"root/w/new", "root/w/link"}
    assert {name: after[name] for name in before} == before


def test_device_nodes_and_fifos_of_the_host_are_not_touched(outside: Path) -> None:
    root = outside / "root"
    os.mkfifo(root / "fifo")
    sim = FileSim(root)
    task = sim.shell()
    fd = sim.do(task, "open", b"fifo", O_RDWR)  # the guest's own pipe: opening the host's would block or feed it
    assert sim.do(task, "write", fd, b"hello", 5) == 5
    assert sim.do(task, "read", fd, Out(10), 10) == 5
    with pytest.raises(OSError, match="No such device"):
        os.open(root / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    tree = ReadOnlyHostTree("/dev")
    with pytest.raises(KernelError):
        tree.open_file(tree.open_root(), b"zero", write=False)


def test_a_directory_that_becomes_a_link_is_not_followed(outside: Path) -> None:
    """The host changes under our feet, as far as a race could go."""
    root = outside / "root"
    sim = FileSim(root, [str(root / "w")])
    task = sim.shell()
    (root / "w" / "d").mkdir()
    assert sim.do(task, "mkdir", b"/w/d/inner", 0o755) == 0
    place: Place = sim.kernel.vfs.lookup(task, b"/w/d")
    inode = place.dentry.d_inode
    sim.kernel.vfs.superblocks[-1].dirs.close_all()  # type: ignore[attr-defined]
    os.rename(root / "w" / "d", root / "w" / "away")
    os.symlink(outside / "dir", root / "w" / "d")
    assert inode.lookup(b"inner") is None
    with pytest.raises(KernelError):
        inode.entries()
    assert sim.do(task, "mkdir", b"/w/d/inner2", 0o755) == -Errno.ENOENT
    assert not list((outside / "dir").iterdir())


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"../secret"])
def test_the_host_tree_takes_single_names_only(outside: Path, name: bytes) -> None:
    tree = HostDirectory(outside / "root")
    top = tree.open_root()
    calls = [
        lambda: tree.lstat(top, name), lambda: tree.open_dir(top, name), lambda: tree.readlink(top, name),
        lambda: tree.open_file(top, name, write=True), lambda: tree.create(top, name, 0o644),
        lambda: tree.mkdir(top, name, 0o755), lambda: tree.unlink(top, name), lambda: tree.rmdir(top, name),
        lambda: tree.symlink(top, name, b"x"), lambda: tree.rename(top, name, top, b"ok", False),
        lambda: tree.rename(top, b"a", top, name, False), lambda: tree.link(top, name, top, b"ok"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(KernelError):
            call()


def test_the_host_tree_never_follows(outside: Path) -> None:
    tree = ReadOnlyHostTree(outside / "root")
    top = tree.open_root()
    with pytest.raises(KernelError):
        tree.open_file(top, b"relative", write=False)
    with pytest.raises(KernelError):
        tree.open_dir(top, b"top")
    assert not hasattr(tree, "create")
    with pytest.raises(KernelError) as caught:
        tree.open_file(top, b"relative", write=True)
    assert caught.value.errno == Errno.EROFS
