"""What the guest has changed below the root.  Model: the upper directory of an overlayfs, listed by find(1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.fs.changes import changed_files
from kernel.fs.overlay import OverlaySuper
from kernel.task.task import Task
from tests.fs.harness import FileSim

O_WRONLY, O_RDWR, O_CREAT, O_TRUNC = 1, 2, 0o100, 0o1000


@pytest.fixture
def sim(tmp_path: Path) -> FileSim:
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    for name in ("dir/one", "dir/two", "dir/sub/three", "four"):
        (tmp_path / name).write_bytes(name.encode())
    return FileSim(tmp_path)


def write(sim: FileSim, task: Task, path: bytes, data: bytes, flags: int = O_WRONLY | O_CREAT) -> None:
    fd = sim.do(task, "open", path, flags, 0o600)
    assert fd >= 0 and sim.do(task, "write", fd, data, len(data)) == len(data)
    sim.do(task, "close", fd)


def changes(sim: FileSim) -> dict[bytes, bytes | None]:
    sim.kernel.vfs.sync()
    sb = sim.kernel.vfs.root.dentry.d_sb
    assert isinstance(sb, OverlaySuper)
    return {
        path: None if inode is None else inode.readpages(0, 1)[: inode.i_size]
        for path, inode in changed_files(sb).items()
    }


def test_nothing_is_changed_by_looking(sim: FileSim) -> None:
    task = sim.shell()
    assert sim.do(task, "open", b"/dir/sub/three", 0) >= 0
    assert sim.do(task, "chmod", b"/four", 0o600) == 0
    assert changes(sim) == {}


def test_new_and_written_files(sim: FileSim) -> None:
    task = sim.shell()
    write(sim, task, b"/new", b"x")
    write(sim, task, b"/dir/sub/three", b"DIR")
    write(sim, task, b"/dir/one", b"", O_WRONLY | O_TRUNC)
    assert sim.do(task, "mkdir", b"/made", 0o700) == 0
    write(sim, task, b"/made/inside", b"y")
    assert changes(sim) == {
        b"/dir/one": b"",
        b"/dir/sub/three": b"DIR/sub/three",
        b"/made/inside": b"y",
        b"/new": b"x",
    }


def test_removed_and_renamed_files(sim: FileSim) -> None:
    task = sim.shell()
    assert sim.do(task, "unlink", b"/four") == 0
    assert sim.do(task, "rename", b"/dir/one", b"/dir/uno") == 0
    write(sim, task, b"/gone", b"x")
    assert sim.do(task, "unlink", b"/gone") == 0
    assert changes(sim) == {b"/dir/one": None, b"/dir/uno": b"dir/one", b"/four": None}


def test_a_written_file_that_moved_is_told_once(sim: FileSim) -> None:
    task = sim.shell()
    write(sim, task, b"/dir/two", b"DIR")
    assert sim.do(task, "rename", b"/dir/two", b"/two") == 0
    assert changes(sim) == {b"/dir/two": None, b"/two": b"DIR/two"}


def test_a_replaced_file_has_the_new_content(sim: FileSim) -> None:
    task = sim.shell()
    write(sim, task, b"/four.new", b"better")
    assert sim.do(task, "rename", b"/four.new", b"/four") == 0
    assert changes(sim) == {b"/four": b"better"}
