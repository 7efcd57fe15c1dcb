"""madvise, mlock, mincore, msync, mseal (their manual pages), and how eras differ."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.abi.mman import Madv, Map, Mcl
from kernel.mm.exit import mmput
from kernel.mm.fault import touch
from kernel.mm.fork import dup_mm
from kernel.mm.madvise import do_madvise, set_anon_vma_name
from kernel.mm.mincore import do_mincore
from kernel.mm.mlock import do_mlock, do_mlockall, do_munlock, do_munlockall
from kernel.mm.mprotect import do_mprotect
from kernel.mm.msync import do_msync
from kernel.mm.page import PG_mlocked
from kernel.mm.rmap.check import check_rmap
from kernel.mm.types import (
    PAGE_SIZE,
    VM_DONTCOPY,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_WIPEONFORK,
    MmStruct,
)
from tests.kernel.fakes import RW, FakeFile, FakeInode, map_file
from tests.kernel.test_mmap import ANON, AT, FIXED, anon, fails, make, run_as


def fill(kernel: Any, mm: MmStruct, addr: int, nr_pages: int, value: int = 7) -> None:
    for at in range(addr, addr + nr_pages * PAGE_SIZE, PAGE_SIZE):
        touch(mm, at, write=True)
        kernel.physmem.mem[mm.pt.get(at) & 0xF_FFFF_FFFF_F000] = value


def byte(kernel: Any, mm: MmStruct, addr: int) -> int:
    touch(mm, addr)
    return int(kernel.physmem.mem[mm.pt.get(addr) & 0xF_FFFF_FFFF_F000])


# -- madvise ---------------------------------------------------------------------------------------------------------


def test_dontneed_and_free() -> None:
    kernel, mm = make()
    anon(mm, 4, flags=FIXED, addr=AT)
    fill(kernel, mm, AT, 4)
    do_madvise(mm, AT, 2 * PAGE_SIZE, Madv.MADV_DONTNEED)
    assert mm.rss_anon == 2
    assert byte(kernel, mm, AT) == 0 and byte(kernel, mm, AT + 2 * PAGE_SIZE) == 7
    do_madvise(mm, AT + 2 * PAGE_SIZE, 2 * PAGE_SIZE, Madv.MADV_FREE)
    assert byte(kernel, mm, AT + 3 * PAGE_SIZE) == 7, "nobody needed the memory"
    do_mlock(mm, AT, PAGE_SIZE, VM_LOCKED)
    fails(Errno.EINVAL, do_madvise, mm, AT, PAGE_SIZE, Madv.MADV_DONTNEED)
    fails(Errno.EINVAL, do_madvise, mm, AT, PAGE_SIZE, Madv.MADV_FREE)
    do_madvise(mm, AT, PAGE_SIZE, Madv.MADV_DONTNEED_LOCKED)
    assert check_rmap(kernel) == []


def test_holes_are_passed_and_told_at_the_end() -> None:
    kernel, mm = make()
    anon(mm, 1, flags=FIXED, addr=AT)
    anon(mm, 1, flags=FIXED, addr=AT + 2 * PAGE_SIZE)
    fill(kernel, mm, AT, 1)
    fill(kernel, mm, AT + 2 * PAGE_SIZE, 1)
    fails(Errno.ENOMEM, do_madvise, mm, AT, 3 * PAGE_SIZE, Madv.MADV_DONTNEED)
    assert mm.rss_anon == 0
    fails(Errno.ENOMEM, do_madvise, mm, AT + PAGE_SIZE, PAGE_SIZE, Madv.MADV_NORMAL)


def test_arguments() -> None:
    kernel, mm = make()
    anon(mm, 1, flags=FIXED, addr=AT)
    for advice in (5, 6, 7, 26, 99, 104, -1):
        fails(Errno.EINVAL, do_madvise, mm, AT, PAGE_SIZE, advice)
    fails(Errno.EINVAL, do_madvise, mm, AT + 1, PAGE_SIZE, Madv.MADV_NORMAL)
    fails(Errno.EINVAL, do_madvise, mm, AT, (1 << 64) - 1, Madv.MADV_NORMAL)
    do_madvise(mm, AT + (1 << 40), 0, Madv.MADV_NORMAL)
    run_as(kernel)
    fails(Errno.EPERM, do_madvise, mm, AT, PAGE_SIZE, Madv.MADV_HWPOISON)
    fails(Errno.EINVAL, do_madvise, mm, AT, PAGE_SIZE, Madv.MADV_COLLAPSE)


@pytest.mark.parametrize(
    ("advice", "flag", "undo"),
    [
        (Madv.MADV_RANDOM, VM_RAND_READ, Madv.MADV_NORMAL),
        (Madv.MADV_SEQUENTIAL, VM_SEQ_READ, Madv.MADV_NORMAL),
        (Madv.MADV_DONTFORK, VM_DONTCOPY, Madv.MADV_DOFORK),
        (Madv.MADV_WIPEONFORK, VM_WIPEONFORK, Madv.MADV_KEEPONFORK),
        (Madv.MADV_HUGEPAGE, VM_HUGEPAGE, Madv.MADV_NOHUGEPAGE),
    ],
)
@pytest.mark.parametrize(("profile", "left"), [("2.6.7", 3), ("6.18", 1)])
def test_advice_that_sets_flags(advice: Madv, flag: int, undo: Madv, profile: str, left: int) -> None:
    """Only today's kernels join areas again when the advice is taken back."""
    _, mm = make(profile)
    anon(mm, 3, flags=FIXED, addr=AT)
    do_madvise(mm, AT, 3 * PAGE_SIZE, undo)
    do_madvise(mm, AT + PAGE_SIZE, PAGE_SIZE, advice)
    assert [bool(vma.vm_flags & flag) for vma in mm.areas] == [False, True, False]
    do_madvise(mm, AT + PAGE_SIZE, PAGE_SIZE, undo)
    assert len(mm.areas) == left


def test_populate() -> None:
    kernel, mm = make()
    anon(mm, 3, flags=FIXED, addr=AT)
    do_madvise(mm, AT, 3 * PAGE_SIZE, Madv.MADV_POPULATE_READ)
    assert mm.rss_anon == 0 and mm.pt.get(AT + PAGE_SIZE)
    do_madvise(mm, AT, 2 * PAGE_SIZE, Madv.MADV_POPULATE_WRITE)
    assert mm.rss_anon == 2
    do_mprotect(mm, AT, PAGE_SIZE, 1)
    fails(Errno.EINVAL, do_madvise, mm, AT, PAGE_SIZE, Madv.MADV_POPULATE_WRITE)
    fails(Errno.ENOMEM, do_madvise, mm, AT, 4 * PAGE_SIZE, Madv.MADV_POPULATE_READ)
    assert check_rmap(kernel) == []


def test_advice_about_files() -> None:
    kernel, mm = make()
    file = FakeFile(FakeInode(kernel, b"x" * (8 * PAGE_SIZE)))
    map_file(mm, AT, 8, file, RW | VM_SHARED)
    do_madvise(mm, AT, 4 * PAGE_SIZE, Madv.MADV_WILLNEED)
    assert set(range(4)) <= set(file.f_mapping.pages)
    fails(Errno.EINVAL, do_madvise, mm, AT, PAGE_SIZE, Madv.MADV_FREE)
    fails(Errno.EINVAL, do_madvise, mm, AT, PAGE_SIZE, Madv.MADV_WIPEONFORK)
    private = FakeFile(FakeInode(kernel, b"x" * PAGE_SIZE))
    map_file(mm, AT + 0x10_0000, 1, private)
    fails(Errno.EACCES, do_madvise, mm, AT + 0x10_0000, PAGE_SIZE, Madv.MADV_REMOVE)
    anon(mm, 1, flags=FIXED, addr=AT + 0x20_0000)
    fails(Errno.EINVAL, do_madvise, mm, AT + 0x20_0000, PAGE_SIZE, Madv.MADV_REMOVE)


def test_names_keep_areas_apart() -> None:
    _, mm = make()
    anon(mm, 3, flags=FIXED, addr=AT)
    set_anon_vma_name(mm, AT + PAGE_SIZE, PAGE_SIZE, "heap")
    assert [vma.anon_name for vma in mm.areas] == [None, "heap", None]
    set_anon_vma_name(mm, AT + 2 * PAGE_SIZE, PAGE_SIZE, "heap")
    assert [vma.nr_pages for vma in mm.areas] == [1, 2]
    set_anon_vma_name(mm, AT, 3 * PAGE_SIZE, None)
    assert [vma.nr_pages for vma in mm.areas] == [3]


# -- mlock -----------------------------------------------------------------------------------------------------------


def test_mlock_faults_in_and_counts() -> None:
    for profile, nr_areas in (("2.6.7", 2), ("6.18", 1)):
        kernel, mm = make(profile)
        anon(mm, 4, flags=FIXED, addr=AT)
        do_mlock(mm, AT + 1, PAGE_SIZE, VM_LOCKED)
        assert (mm.locked_vm, mm.rss_anon) == (2, 2), "the range is widened to whole pages"
        pfn = mm.pt.get(AT) >> 12 & 0xFF_FFFF
        assert kernel.pages.flags[pfn] & PG_mlocked
        do_munlock(mm, AT, 2 * PAGE_SIZE)
        assert mm.locked_vm == 0 and len(mm.areas) == nr_areas
        assert not kernel.pages.flags[pfn] & PG_mlocked
        assert check_rmap(kernel) == []


def test_mlock_of_what_cannot_be_present() -> None:
    for profile, errno in (("2.6.7", Errno.EFAULT), ("6.18", Errno.ENOMEM)):
        _, mm = make(profile)
        anon(mm, 1, prot=0, flags=FIXED, addr=AT)
        fails(errno, do_mlock, mm, AT, PAGE_SIZE, VM_LOCKED)
        assert mm.locked_vm == 1, "it is locked all the same"
        fails(Errno.ENOMEM, do_mlock, mm, AT, 2 * PAGE_SIZE, VM_LOCKED)


def test_mlock_limits() -> None:
    kernel, mm = make(memlock=2 * PAGE_SIZE)
    anon(mm, 4, flags=FIXED, addr=AT)
    do_mlock(mm, AT, 2 * PAGE_SIZE, VM_LOCKED)
    do_mlock(mm, AT, 2 * PAGE_SIZE, VM_LOCKED)
    fails(Errno.ENOMEM, do_mlock, mm, AT, 3 * PAGE_SIZE, VM_LOCKED)
    run_as(kernel, memlock=0)
    fails(Errno.EPERM, do_mlock, mm, AT, PAGE_SIZE, VM_LOCKED)
    run_as(kernel, caps=1 << 14, memlock=0)
    do_mlock(mm, AT, 4 * PAGE_SIZE, VM_LOCKED)


def test_mlock_on_fault() -> None:
    _, mm = make()
    anon(mm, 2, flags=FIXED, addr=AT)
    do_mlock(mm, AT, 2 * PAGE_SIZE, VM_LOCKED | VM_LOCKONFAULT)
    assert (mm.locked_vm, mm.rss_anon) == (2, 0)
    do_mlock(mm, AT, 2 * PAGE_SIZE, VM_LOCKED)
    assert (mm.locked_vm, mm.rss_anon) == (2, 2)


def test_mlockall() -> None:
    kernel, mm = make()
    anon(mm, 2, flags=FIXED, addr=AT)
    anon(mm, 1, prot=0, flags=FIXED, addr=AT + 4 * PAGE_SIZE)
    do_mlockall(mm, Mcl.MCL_CURRENT | Mcl.MCL_FUTURE)
    assert (mm.locked_vm, mm.rss_anon, mm.def_flags) == (3, 2, VM_LOCKED)
    child = dup_mm(mm)
    assert (child.locked_vm, child.def_flags) == (0, 0)
    mmput(child)
    do_munlockall(mm)
    assert (mm.locked_vm, mm.def_flags) == (0, 0)
    for flags in (0, 8, int(Mcl.MCL_ONFAULT)):
        fails(Errno.EINVAL, do_mlockall, mm, flags)
    do_mlockall(mm, Mcl.MCL_FUTURE | Mcl.MCL_ONFAULT)
    assert mm.def_flags == VM_LOCKED | VM_LOCKONFAULT and mm.locked_vm == 0
    assert check_rmap(kernel) == []


# -- mincore, msync ----------------------------------------------------------------------------------------------------


def test_mincore() -> None:
    kernel, mm = make()
    anon(mm, 3, flags=FIXED, addr=AT)
    fill(kernel, mm, AT + PAGE_SIZE, 1)
    assert do_mincore(mm, AT, 9) == bytes([0, 1, 0])
    file = FakeFile(FakeInode(kernel, bytes(4 * PAGE_SIZE)))
    map_file(mm, AT + 0x10_0000, 4, file)
    file.f_mapping.read_mapping_page(2, 1)
    assert do_mincore(mm, AT + 0x10_0000, 4) == bytes([0, 0, 1, 0])
    with pytest.raises(KernelError):
        do_mincore(mm, AT + 3 * PAGE_SIZE, 1)


def test_msync() -> None:
    kernel, mm = make()
    inode = FakeInode(kernel, bytes(2 * PAGE_SIZE))
    map_file(mm, AT, 2, FakeFile(inode), RW | VM_SHARED)
    fill(kernel, mm, AT + PAGE_SIZE, 1, 9)
    do_msync(mm, AT, 2 * PAGE_SIZE, 1)
    assert inode.writes == []
    do_msync(mm, AT, 2 * PAGE_SIZE, 4)
    assert inode.writes == [1] and inode.data[PAGE_SIZE] == 9
    fails(Errno.ENOMEM, do_msync, mm, AT, 3 * PAGE_SIZE, 4)
    fails(Errno.EINVAL, do_msync, mm, AT, PAGE_SIZE, 5)
    fails(Errno.EINVAL, do_msync, mm, AT, PAGE_SIZE, 8)
    fails(Errno.EINVAL, do_msync, mm, AT + 1, PAGE_SIZE, 4)
    anon(mm, 1, flags=FIXED | Map.MAP_LOCKED, addr=AT + 8 * PAGE_SIZE)
    fails(Errno.EBUSY, do_msync, mm, AT + 8 * PAGE_SIZE, PAGE_SIZE, 2)
    assert ANON == 0x22
