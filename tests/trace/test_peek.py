"""Reading guest memory leaves no mark: no page, no PTE, no accessed bit."""

from __future__ import annotations

from emu.trace.peek import peek, peek_exactly, peek_file, peek_string
from kernel.mm.fault import touch
from kernel.mm.types import PAGE_SIZE, VM_READ, VM_WRITE
from kernel.mm.usercopy import copy_to_user
from tests.kernel.fakes import FakeFile, FakeInode, make_kernel, make_mm, map_anon, map_file

BASE = 0x40_0000


def test_absent_pages_stay_absent() -> None:
    kernel = make_kernel()
    mm = make_mm(kernel)
    map_anon(mm, BASE, 3)
    free = kernel.pages.nr_free
    assert peek(mm, BASE + 10, 2 * PAGE_SIZE) == bytes(2 * PAGE_SIZE)
    assert mm.pt.get(BASE) == 0
    assert kernel.pages.nr_free == free


def test_present_pages_and_holes() -> None:
    mm = make_mm(make_kernel())
    map_anon(mm, BASE, 2)
    copy_to_user(mm, BASE + PAGE_SIZE - 2, b"abcd")
    assert peek(mm, BASE + PAGE_SIZE - 2, 4) == b"abcd"
    assert peek(mm, BASE + 2 * PAGE_SIZE - 3, 100) == bytes(3)
    assert peek_exactly(mm, BASE + 2 * PAGE_SIZE - 3, 4) is None
    assert peek(mm, 0x1000, 4) == b""
    assert peek(None, BASE, 4) == b""


def test_memory_without_read_permission_is_not_read() -> None:
    mm = make_mm(make_kernel())
    map_anon(mm, BASE, 1, VM_WRITE)
    assert peek(mm, BASE, 1) == b""


def test_untouched_file_pages_come_from_the_file() -> None:
    kernel = make_kernel()
    mm = make_mm(kernel)
    inode = FakeInode(kernel, b"x" * PAGE_SIZE + b"tail")
    map_file(mm, BASE, 4, FakeFile(inode), VM_READ)
    assert peek(mm, BASE + PAGE_SIZE - 1, 6) == b"xtail\0"
    assert peek(mm, BASE + 2 * PAGE_SIZE, 1) == b""
    assert not inode.i_mapping.pages
    assert mm.pt.get(BASE) == 0


def test_dirty_pages_of_the_page_cache_count() -> None:
    kernel = make_kernel()
    mm = make_mm(kernel)
    inode = FakeInode(kernel, b"old content")
    map_file(mm, BASE, 1, FakeFile(inode), VM_READ | VM_WRITE | 8)
    touch(mm, BASE, write=True)
    copy_to_user(mm, BASE, b"new")
    assert peek_file(kernel, inode) == b"new content"  # type: ignore[arg-type]
    assert bytes(inode.data) == b"old content"


def test_strings() -> None:
    mm = make_mm(make_kernel())
    map_anon(mm, BASE, 2)
    copy_to_user(mm, BASE + PAGE_SIZE - 3, b"hello\0")
    assert peek_string(mm, BASE + PAGE_SIZE - 3) == (b"hello", True)
    assert peek_string(mm, BASE + PAGE_SIZE - 3, 4) == (b"hell", False)
    assert peek_string(mm, 8) is None
    copy_to_user(mm, BASE + 2 * PAGE_SIZE - 2, b"ab")
    assert peek_string(mm, BASE + 2 * PAGE_SIZE - 2) is None
