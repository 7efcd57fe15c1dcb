"""The page cache: read, write, mmap, truncate and write-back agree (mm/filemap.c, mm/truncate.c).

Manuals: read(2), write(2), ftruncate(2), fallocate(2), msync(2), posix_fadvise(2).
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.mm.fault import FaultResult, populate_range, touch
from kernel.mm.filemap import (
    READAHEAD_PAGES,
    evict_mapping,
    filemap_check_errors,
    filemap_write_and_wait,
    generic_file_read,
    generic_file_write,
    invalidate_mapping_pages,
    msync_interval,
    page_cache_shrinker,
    pagecache_isize_extended,
    truncate_inode_pages,
    truncate_pagecache_range,
)
from kernel.mm.i_mmap import MappingTree
from kernel.mm.page import PG_dirty
from kernel.mm.types import PAGE_SIZE, VM_EXEC, VM_RAND_READ, VM_READ, VM_SEQ_READ, VM_SHARED, MmStruct, Vma
from kernel.mm.usercopy import copy_from_user, copy_to_user
from mmu.paging import PTE_W
from tests.kernel.fakes import RW, FakeFile, FakeInode, check_kernel, fork_mm, make_kernel, make_mm, map_file

BASE = 0x1000_0000
SHARED = RW | VM_SHARED


def pattern(nr_bytes: int) -> bytes:
    return random.Random(nr_bytes).randbytes(nr_bytes)


@pytest.fixture
def kernel() -> Any:
    kernel = make_kernel(profile="2.6.7")
    yield kernel
    check_kernel(kernel)


@pytest.fixture
def mm(kernel: Any) -> MmStruct:
    return make_mm(kernel)


# ---- read and write -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 300_000])
def test_read_gives_the_bytes_of_the_file(kernel: Any, size: int) -> None:
    data = pattern(size)
    mapping = FakeInode(kernel, data).i_mapping
    assert generic_file_read(mapping, 0, size + 10) == data
    for pos, count in ((0, 1), (1, 4095), (4095, 2), (size // 2, 9000), (size, 5), (size + 5, 5)):
        assert generic_file_read(mapping, pos, count) == data[pos : pos + count]


def test_readahead_is_one_call_for_many_pages(kernel: Any) -> None:
    inode = FakeInode(kernel, pattern(100 * PAGE_SIZE + 7))
    mapping = inode.i_mapping
    generic_file_read(mapping, 0, 10)
    assert inode.reads == [(0, READAHEAD_PAGES)] and mapping.nrpages == READAHEAD_PAGES
    generic_file_read(mapping, 0, 32 * PAGE_SIZE)
    assert len(inode.reads) == 1
    generic_file_read(mapping, 90 * PAGE_SIZE, 1)
    assert inode.reads[1] == (90, 11)  # not beyond the end
    generic_file_read(mapping, 85 * PAGE_SIZE, 1)
    assert inode.reads[2] == (85, 5)  # not over what is there


@pytest.mark.parametrize(("advice", "want"), [(0, (48, 32)), (VM_RAND_READ, (64, 1)), (VM_SEQ_READ, (64, 32))])
def test_a_fault_reads_around(kernel: Any, mm: MmStruct, advice: int, want: tuple[int, int]) -> None:
    inode = FakeInode(kernel, bytes(200 * PAGE_SIZE))
    map_file(mm, BASE, 200, FakeFile(inode), VM_READ | advice)
    touch(mm, BASE + 64 * PAGE_SIZE)
    assert inode.reads == [want]


def test_write_then_read(kernel: Any) -> None:
    inode = FakeInode(kernel, pattern(3 * PAGE_SIZE))
    mapping = inode.i_mapping
    want = bytearray(inode.data)
    for pos, data in (
        (10, b"abc"),
        (4090, b"0123456789"),
        (PAGE_SIZE, bytes(PAGE_SIZE)),
        (3 * PAGE_SIZE - 2, b"tail!"),
    ):
        assert generic_file_write(mapping, pos, data) == len(data)
        want[pos : pos + len(data)] = data
    assert inode.i_size == len(want) == 3 * PAGE_SIZE + 3
    assert generic_file_read(mapping, 0, len(want) + 1) == bytes(want)


def test_a_page_that_is_overwritten_whole_is_not_read(kernel: Any) -> None:
    inode = FakeInode(kernel, pattern(3 * PAGE_SIZE))
    generic_file_write(inode.i_mapping, PAGE_SIZE, bytes(PAGE_SIZE))
    assert inode.reads == []
    generic_file_write(inode.i_mapping, 10, b"x")
    assert inode.reads == [(0, 1)]


def test_write_beyond_the_end_leaves_a_hole_of_zeros(kernel: Any) -> None:
    inode = FakeInode(kernel, b"start")
    generic_file_write(inode.i_mapping, 3 * PAGE_SIZE + 5, b"end")
    assert generic_file_read(inode.i_mapping, 0, 1 << 20) == b"start" + bytes(3 * PAGE_SIZE) + b"end"


def test_write_back_reaches_the_disk(kernel: Any) -> None:
    inode = FakeInode(kernel, pattern(5 * PAGE_SIZE))
    want = bytearray(inode.data)
    for pos in (4 * PAGE_SIZE, 100, 5 * PAGE_SIZE - 1):
        generic_file_write(inode.i_mapping, pos, b"new")
        want[pos : pos + 3] = b"new"
    filemap_write_and_wait(inode.i_mapping)
    assert inode.data == want and inode.writes == [0, 4, 5]
    assert inode.i_mapping.dirty == {}
    filemap_write_and_wait(inode.i_mapping)
    assert len(inode.writes) == 3


def test_write_back_of_a_range(kernel: Any) -> None:
    inode = FakeInode(kernel, bytes(10 * PAGE_SIZE))
    generic_file_write(inode.i_mapping, 0, bytes(10 * PAGE_SIZE))
    filemap_write_and_wait(inode.i_mapping, 3, 5)
    assert inode.writes == [3, 4, 5] and sorted(inode.i_mapping.dirty) == [0, 1, 2, 6, 7, 8, 9]


def test_a_failed_write_back_keeps_the_page_dirty(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inode = FakeInode(kernel, bytes(3 * PAGE_SIZE))
    generic_file_write(inode.i_mapping, 0, b"x" * (3 * PAGE_SIZE))
    good = inode.writepage

    def writepage(pgoff: int, data: bytes) -> None:
        if pgoff == 1:
            raise KernelError(Errno.ENOSPC, "full")
        good(pgoff, data)

    monkeypatch.setattr(inode, "writepage", writepage)
    with pytest.raises(KernelError) as failure:
        filemap_write_and_wait(inode.i_mapping)
    assert failure.value.errno == Errno.ENOSPC
    assert list(inode.i_mapping.dirty) == [1] and inode.writes == [0, 2]


# ---- mappings and file I/O see the same bytes -----------------------------------------------------------------------


def test_write_and_shared_mapping_agree(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, bytes(4 * PAGE_SIZE))
    map_file(mm, BASE, 4, FakeFile(inode), SHARED)
    generic_file_write(inode.i_mapping, 4090, b"0123456789")
    assert copy_from_user(mm, BASE + 4090, 10) == b"0123456789"
    copy_to_user(mm, BASE + 2 * PAGE_SIZE - 3, b"mapped")
    assert generic_file_read(inode.i_mapping, 2 * PAGE_SIZE - 3, 6) == b"mapped"
    filemap_write_and_wait(inode.i_mapping)
    assert inode.data[2 * PAGE_SIZE - 3 : 2 * PAGE_SIZE + 3] == b"mapped"


def test_msync_writes_and_the_next_write_is_noticed_again(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, bytes(4 * PAGE_SIZE))
    vma = map_file(mm, BASE, 4, FakeFile(inode), SHARED)
    child = fork_mm(mm)
    copy_to_user(mm, BASE + PAGE_SIZE, b"one")
    copy_to_user(child, BASE + PAGE_SIZE, b"two")
    copy_to_user(mm, BASE + 3 * PAGE_SIZE, b"three")
    msync_interval(vma, BASE, BASE + 2 * PAGE_SIZE)
    assert inode.writes == [1] and inode.data[PAGE_SIZE : PAGE_SIZE + 3] == b"two"
    for one in (mm, child):
        assert not one.pt.get(BASE + PAGE_SIZE) & PTE_W
    assert list(inode.i_mapping.dirty) == [3]
    mtime = inode.i_mtime
    copy_to_user(child, BASE + PAGE_SIZE, b"six")
    assert inode.i_mtime == mtime + 1
    msync_interval(vma, BASE, BASE + 4 * PAGE_SIZE)
    assert inode.data[PAGE_SIZE : PAGE_SIZE + 3] == b"six"


def test_msync_of_private_memory_writes_nothing(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, bytes(PAGE_SIZE))
    vma = map_file(mm, BASE, 1, FakeFile(inode))
    copy_to_user(mm, BASE, b"private")
    msync_interval(vma, BASE, BASE + PAGE_SIZE)
    assert inode.writes == []


def test_writing_a_file_that_is_mapped_as_code_invalidates_it(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, bytes(PAGE_SIZE))
    map_file(mm, BASE, 1, FakeFile(inode), VM_READ | VM_EXEC)
    touch(mm, BASE, execute=True)
    kernel.hw.stale_code.clear()
    generic_file_write(inode.i_mapping, 5, b"\xcc")
    assert kernel.hw.stale_code == [inode.i_mapping.pages[0]]


# ---- truncate and holes ---------------------------------------------------------------------------------------------


def shrink(inode: FakeInode, size: int) -> None:
    inode.i_size = size
    del inode.data[size:]
    truncate_inode_pages(inode.i_mapping, size)


def test_truncate_unmaps_private_copies_too_and_zeroes_the_tail(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, b"d" * (6 * PAGE_SIZE))
    file = FakeFile(inode)
    map_file(mm, BASE, 6, file, SHARED)
    map_file(mm, BASE * 2, 6, file, RW)
    populate_range(mm, BASE, BASE + 6 * PAGE_SIZE, True)
    copy_to_user(mm, BASE * 2 + 2 * PAGE_SIZE, b"private copy")
    copy_to_user(mm, BASE * 2 + 5 * PAGE_SIZE, b"private copy")
    shrink(inode, 2 * PAGE_SIZE + 10)
    check_kernel(kernel)
    for start in (BASE, BASE * 2):
        assert touch(mm, start + 3 * PAGE_SIZE) is FaultResult.SIGBUS_ADRERR
        assert touch(mm, start + 5 * PAGE_SIZE, write=True) is FaultResult.SIGBUS_ADRERR
    assert copy_from_user(mm, BASE + 2 * PAGE_SIZE, 12) == b"d" * 10 + b"\0\0"
    # the private copy of the page that was cut is left as it is
    assert copy_from_user(mm, BASE * 2 + 2 * PAGE_SIZE, 12) == b"private copy"
    assert sorted(inode.i_mapping.pages) == [0, 1, 2]
    # growing again brings zeros, not the old bytes
    inode.i_size = 6 * PAGE_SIZE
    assert copy_from_user(mm, BASE + 2 * PAGE_SIZE + 10, 4) == bytes(4)
    assert copy_from_user(mm, BASE + 5 * PAGE_SIZE, 4) == bytes(4)
    assert copy_from_user(mm, BASE * 2 + 5 * PAGE_SIZE, 4) == bytes(4)


def test_truncate_reaches_every_mm(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, b"d" * (40 * PAGE_SIZE))
    map_file(mm, BASE, 40, FakeFile(inode), SHARED)
    populate_range(mm, BASE, BASE + 40 * PAGE_SIZE, True)
    child = fork_mm(mm)
    populate_range(child, BASE, BASE + 40 * PAGE_SIZE, False)
    other = make_mm(kernel)
    map_file(other, BASE * 5, 10, FakeFile(inode), VM_READ, pgoff=15)
    populate_range(other, BASE * 5, BASE * 5 + 10 * PAGE_SIZE, False)
    shrink(inode, 20 * PAGE_SIZE)
    check_kernel(kernel)
    assert (mm.rss_file, child.rss_file, other.rss_file) == (20, 20, 5)


def test_truncate_to_nothing_frees_everything(kernel: Any, mm: MmStruct) -> None:
    nr_free = kernel.pages.nr_free
    inode = FakeInode(kernel, b"d" * (40 * PAGE_SIZE))
    generic_file_read(inode.i_mapping, 0, 40 * PAGE_SIZE)
    shrink(inode, 0)
    assert kernel.pages.nr_free == nr_free and inode.i_mapping not in kernel.pages.mappings


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 8 * 4096), (4096, 3 * 4096), (100, 200), (100, 4096), (4000, 4200), (4000, 20_000), (0, 5), (8192, 9000)],
)
def test_hole_punch_reads_as_zeros_everywhere(kernel: Any, mm: MmStruct, start: int, end: int) -> None:
    data = pattern(8 * PAGE_SIZE)
    inode = FakeInode(kernel, data, is_shmem=True)
    generic_file_write(inode.i_mapping, 0, data)
    map_file(mm, BASE, 8, FakeFile(inode), SHARED)
    map_file(mm, BASE * 2, 8, FakeFile(inode), RW)
    populate_range(mm, BASE, BASE + 8 * PAGE_SIZE, True)
    copy_to_user(mm, BASE * 2 + PAGE_SIZE, b"private copy")
    truncate_pagecache_range(inode.i_mapping, start, end)
    check_kernel(kernel)
    want = data[:start] + bytes(end - start) + data[end:]
    assert generic_file_read(inode.i_mapping, 0, 8 * PAGE_SIZE) == want
    assert copy_from_user(mm, BASE, 8 * PAGE_SIZE) == want
    assert copy_from_user(mm, BASE * 2 + PAGE_SIZE, 12) == b"private copy"


def test_what_was_written_behind_the_end_is_gone_when_the_file_grows(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, b"abc")
    map_file(mm, BASE, 1, FakeFile(inode), SHARED)
    copy_to_user(mm, BASE + 3, b"garbage")
    generic_file_write(inode.i_mapping, 20, b"end")
    assert generic_file_read(inode.i_mapping, 0, 100) == b"abc" + bytes(17) + b"end"
    copy_to_user(mm, BASE + 23, b"garbage")
    pagecache_isize_extended(inode.i_mapping, 23, 100)
    inode.i_size = 100
    assert generic_file_read(inode.i_mapping, 23, 77) == bytes(77)


# ---- shmem ----------------------------------------------------------------------------------------------------------


def test_shmem_holes_stay_holes_when_read(kernel: Any) -> None:
    inode = FakeInode(kernel, bytes(10 * PAGE_SIZE), is_shmem=True)
    assert generic_file_read(inode.i_mapping, 5, 3 * PAGE_SIZE) == bytes(3 * PAGE_SIZE)
    assert inode.i_mapping.nrpages == 0
    generic_file_write(inode.i_mapping, 5000, b"x")
    assert list(inode.i_mapping.pages) == [1]
    assert generic_file_read(inode.i_mapping, 4990, 20) == bytes(10) + b"x" + bytes(9)
    assert kernel.pages.flags[inode.i_mapping.pages[1]] & PG_dirty and inode.i_mapping.dirty == {}


# ---- giving pages back ----------------------------------------------------------------------------------------------


def test_invalidate_drops_clean_unmapped_pages_only(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, bytes(10 * PAGE_SIZE))
    generic_file_read(inode.i_mapping, 0, 10 * PAGE_SIZE)
    generic_file_write(inode.i_mapping, 3 * PAGE_SIZE, b"dirty")
    map_file(mm, BASE, 1, FakeFile(inode), VM_READ, pgoff=5)
    touch(mm, BASE)
    assert invalidate_mapping_pages(inode.i_mapping) == 8
    assert sorted(inode.i_mapping.pages) == [3, 5]


def test_a_file_larger_than_memory_can_be_read_and_written(kernel: Any) -> None:
    small = make_kernel(ram_pages=256, profile="2.6.7")
    data = pattern(1000 * PAGE_SIZE)
    inode = FakeInode(small, data)
    assert b"".join(generic_file_read(inode.i_mapping, pos, 65536) for pos in range(0, len(data), 65536)) == data
    check_kernel(small)
    assert generic_file_write(inode.i_mapping, 0, data[::-1]) == len(data)
    check_kernel(small)
    filemap_write_and_wait(inode.i_mapping)
    assert inode.data == data[::-1]
    assert generic_file_read(inode.i_mapping, 0, len(data)) == data[::-1]
    check_kernel(small)


def test_pages_read_since_the_last_time_get_a_second_chance(kernel: Any) -> None:
    inode = FakeInode(kernel, bytes(8 * PAGE_SIZE))
    generic_file_read(inode.i_mapping, 0, 1)
    shrink_cache = page_cache_shrinker(kernel.pages)
    assert shrink_cache(3) == 3
    assert sorted(inode.i_mapping.pages) == [0, 4, 5, 6, 7]
    assert shrink_cache(100) == 5


def test_errors_of_background_write_back_are_told_once(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inode = FakeInode(kernel, bytes(2 * PAGE_SIZE))
    generic_file_write(inode.i_mapping, 0, b"x")

    def fail(pgoff: int, data: bytes) -> None:
        raise KernelError(Errno.EIO, "bad disk")

    monkeypatch.setattr(inode, "writepage", fail)
    page_cache_shrinker(kernel.pages)(10)
    with pytest.raises(KernelError) as failure:
        filemap_check_errors(inode.i_mapping)
    assert failure.value.errno == Errno.EIO
    filemap_check_errors(inode.i_mapping)
    assert list(inode.i_mapping.dirty) == [0]


def test_evict_forgets_all(kernel: Any) -> None:
    inode = FakeInode(kernel, bytes(4 * PAGE_SIZE))
    generic_file_write(inode.i_mapping, 0, bytes(4 * PAGE_SIZE))
    evict_mapping(inode.i_mapping)
    assert inode.i_mapping.nrpages == 0 and inode.i_mapping.dirty == {}


def test_find_get_page_holds_the_page(kernel: Any) -> None:
    inode = FakeInode(kernel, bytes(PAGE_SIZE))
    assert inode.i_mapping.find_get_page(0) is None
    pfn = inode.i_mapping.read_mapping_page(0)
    assert inode.i_mapping.find_get_page(0) == pfn and kernel.pages.refcount[pfn] == 2
    assert invalidate_mapping_pages(inode.i_mapping) == 0
    kernel.pages.put_page(pfn)


# ---- i_mmap ---------------------------------------------------------------------------------------------------------


def make_vma(first: int, nr_pages: int) -> Vma:
    return Vma(None, BASE, BASE + nr_pages * PAGE_SIZE, VM_READ, first)  # type: ignore[arg-type]


def test_mapping_tree_against_brute_force() -> None:
    rng = random.Random(40)
    tree = MappingTree()
    present: list[Vma] = []
    for step in range(1500):
        if rng.random() < 0.6 or not present:
            vma = make_vma(rng.randrange(200), rng.choice((1, 1, 2, 5, 50)))
            tree.add(vma)
            present.append(vma)
        else:
            tree.remove(present.pop(rng.randrange(len(present))))
        if step % 5 == 0:
            first = rng.randrange(260)
            last = first + rng.choice((0, 1, 10, 300))
            found = tree.overlapping(first, last)
            want = [v for v in present if v.vm_pgoff <= last and v.vm_pgoff + v.nr_pages - 1 >= first]
            assert sorted(map(id, found)) == sorted(map(id, want))
            keys = [(v.vm_pgoff, v.nr_pages) for v in found]
            assert keys == sorted(keys)
            assert len(tree) == len(present)


def test_mapping_tree_keeps_the_order_of_equals_and_refuses_strangers() -> None:
    tree = MappingTree()
    vmas = [make_vma(3, 4) for _ in range(5)]
    for vma in vmas:
        tree.add(vma)
    tree.remove(vmas[1])
    assert tree.overlapping(6, 100) == [vmas[0], *vmas[2:]]
    assert tree.overlapping(0, 2) == tree.overlapping(7, 9) == []
    with pytest.raises(AssertionError):
        tree.add(vmas[0])
    with pytest.raises(KeyError):
        tree.remove(vmas[1])


def test_mapping_tree_is_fast_when_many_do_not_overlap() -> None:
    tree = MappingTree()
    for i in range(3000):
        tree.add(make_vma(i * 10, 5))
    visited = 0
    for i in range(0, 30_000, 100):
        visited += len(tree.overlapping(i, i))
    assert visited == 300
