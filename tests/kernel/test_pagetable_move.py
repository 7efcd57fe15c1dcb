"""mremap's page-table half: move_page_tables (mm/mremap.c), under every rmap policy."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.mm.area import duplicate, vma_link
from kernel.mm.fault import touch
from kernel.mm.memory import change_protection, move_page_tables, zap_page_range
from kernel.mm.page import PG_anon
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, VM_READ, VM_SHARED, MmStruct, Vma
from kernel.mm.usercopy import copy_from_user, copy_to_user
from kernel.profile import PROFILES
from tests.kernel.fakes import (
    RW,
    FakeFile,
    FakeInode,
    check_kernel,
    fork_mm,
    make_kernel,
    make_mm,
    map_anon,
    map_file,
    user_ptes,
)

BASE = 0x1000_0000
MB = 1 << 20


@pytest.fixture(params=list(PROFILES))
def mm(request: pytest.FixtureRequest) -> MmStruct:
    return make_mm(make_kernel(profile=request.param))


def check_rmap(kernel: Any) -> None:
    """Every mapping of an anonymous page is proposed by the policy."""
    where: dict[int, set[tuple[int, int]]] = {}
    for mm in kernel.mms:
        for vaddr, pte in user_ptes(mm).items():
            pfn = (pte & 0xF_FFFF_FFFF_F000) >> 12
            if pte & 0x101 and not pte & 0x200 and kernel.pages.flags[pfn] & PG_anon:
                where.setdefault(pfn, set()).add((mm.id, vaddr))
    for pfn, mappings in where.items():
        proposed = {(mm.id, vaddr) for mm, vaddr, _vma in kernel.policy.walk(pfn)}
        assert mappings <= proposed, f"pfn {pfn:#x}: {mappings - proposed} not found"
    assert kernel.policy.violations() == []


def copy_vma(vma: Vma, addr: int) -> Vma:
    """The new area of mremap, without merging."""
    new = duplicate(vma)
    new.vm_start, new.vm_end = addr, addr + vma.vm_end - vma.vm_start
    if new.vm_file is not None:
        new.vm_file.get()
    if vma.anon_vma is None and vma.vm_file is None:
        new.vm_pgoff = addr >> PAGE_SHIFT
    vma_link(vma.vm_mm, new)
    vma.vm_mm.kernel.policy.copy_vma(vma, new)
    return new


def move(vma: Vma, addr: int) -> Vma:
    """Copy the area to ``addr`` and move all its pages."""
    new = copy_vma(vma, addr)
    length = vma.vm_end - vma.vm_start
    assert move_page_tables(vma, vma.vm_start, new, addr, length) == length
    assert zap_page_range(vma, vma.vm_start, vma.vm_end) == 0
    return new


@pytest.mark.parametrize("distance", [PAGE_SIZE * 64, 2 * MB, 2 * MB + 7 * PAGE_SIZE, 513 * MB])
def test_content_moves_and_counters_stay(mm: MmStruct, distance: int) -> None:
    vma = map_anon(mm, BASE, 60)
    for i in range(0, 60, 2):
        copy_to_user(mm, BASE + i * PAGE_SIZE, bytes([i + 1]))
    touch(mm, BASE + PAGE_SIZE)  # the zero page moves too
    rss = mm.rss_anon
    nr_free = mm.kernel.pages.nr_free
    tables = mm.pt.nr_tables
    move(vma, BASE + distance)
    check_kernel(mm.kernel)
    check_rmap(mm.kernel)
    assert mm.rss_anon == rss
    assert mm.kernel.pages.nr_free == nr_free - (mm.pt.nr_tables - tables)
    for i in range(60):
        want = bytes([i + 1]) if i % 2 == 0 else b"\0"
        assert copy_from_user(mm, BASE + distance + i * PAGE_SIZE, 1) == want
        assert mm.pt.get(BASE + i * PAGE_SIZE) == 0


def test_over_several_tables_with_holes(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE + 5 * PAGE_SIZE, 2500)
    touched = (0, 1, 506, 507, 1900, 2499)
    for i in touched:
        copy_to_user(mm, vma.vm_start + i * PAGE_SIZE, b"%d" % i)
    new = move(vma, BASE * 4 + 300 * PAGE_SIZE)
    check_kernel(mm.kernel)
    check_rmap(mm.kernel)
    assert [i for i in range(2500) if mm.pt.get(new.vm_start + i * PAGE_SIZE)] == list(touched)
    for i in touched:
        assert copy_from_user(mm, new.vm_start + i * PAGE_SIZE, 4).rstrip(b"\0") == b"%d" % i


def test_pages_shared_with_a_child(mm: MmStruct) -> None:
    """anonmm must make private copies; every other policy moves without one."""
    vma = map_anon(mm, BASE, 20)
    for i in range(20):
        copy_to_user(mm, BASE + i * PAGE_SIZE, bytes([i + 1]))
    child = fork_mm(mm)
    nr_free = mm.kernel.pages.nr_free
    before = mm.pt.nr_tables
    move(vma, BASE * 3)
    used = nr_free - mm.kernel.pages.nr_free - (mm.pt.nr_tables - before)
    assert used == (20 if mm.kernel.profile.rmap == "anonmm" else 0)
    check_kernel(mm.kernel)
    check_rmap(mm.kernel)
    copy_to_user(mm, BASE * 3, b"P")
    copy_to_user(child, BASE + PAGE_SIZE, b"C")
    check_kernel(mm.kernel)
    check_rmap(mm.kernel)
    assert copy_from_user(child, BASE, 1) == b"\1" and copy_from_user(mm, BASE * 3 + PAGE_SIZE, 1) == b"\2"


def test_prot_none_and_read_only_pages_move_as_they_are(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE, 4)
    copy_to_user(mm, BASE, b"kept")
    child = fork_mm(mm)
    vma.vm_flags &= ~RW
    change_protection(vma, vma.vm_start, vma.vm_end)
    new = move(vma, BASE * 3)
    check_kernel(mm.kernel)
    new.vm_flags |= VM_READ
    change_protection(new, new.vm_start, new.vm_end)
    assert copy_from_user(mm, BASE * 3, 4) == b"kept" == copy_from_user(child, BASE, 4)
    check_kernel(mm.kernel)


def test_file_pages_move(mm: MmStruct) -> None:
    inode = FakeInode(mm.kernel, b"f" * (20 * PAGE_SIZE))
    private = map_file(mm, BASE, 20, FakeFile(inode), RW)
    shared = map_file(mm, BASE * 2, 20, FakeFile(inode), RW | VM_SHARED)
    copy_to_user(mm, BASE + PAGE_SIZE, b"private")
    copy_to_user(mm, BASE * 2 + 2 * PAGE_SIZE, b"shared")
    copy_from_user(mm, BASE + 5 * PAGE_SIZE, 1)
    move(private, BASE * 5)
    move(shared, BASE * 6)
    check_kernel(mm.kernel)
    check_rmap(mm.kernel)
    assert copy_from_user(mm, BASE * 5 + PAGE_SIZE, 7) == b"private"
    assert copy_from_user(mm, BASE * 5 + 2 * PAGE_SIZE, 6) == b"shared" == copy_from_user(mm, BASE * 6 + 8192, 6)


def test_out_of_memory_says_how_far_it_came(mm: MmStruct, monkeypatch: pytest.MonkeyPatch) -> None:
    vma = map_anon(mm, BASE, 1600)
    for i in (0, 600, 1500):
        copy_to_user(mm, BASE + i * PAGE_SIZE, bytes([i & 0xFF | 1]))
    new = copy_vma(vma, BASE * 3)
    allowed = 1
    real = mm.pt.pte_alloc

    def pte_alloc(self: Any, vaddr: int) -> int:
        nonlocal allowed
        if vaddr >> 21 not in mm.pt.leaf:
            if not allowed:
                raise KernelError(Errno.ENOMEM, "test")
            allowed -= 1
        return real(vaddr)

    monkeypatch.setattr(type(mm.pt), "pte_alloc", pte_alloc)
    moved = move_page_tables(vma, vma.vm_start, new, new.vm_start, 1600 * PAGE_SIZE)
    assert 0 < moved <= 600 * PAGE_SIZE
    monkeypatch.undo()
    # mremap moves them back
    assert move_page_tables(new, new.vm_start, vma, vma.vm_start, moved) == moved
    check_kernel(mm.kernel)
    check_rmap(mm.kernel)
    for i in (0, 600, 1500):
        assert copy_from_user(mm, BASE + i * PAGE_SIZE, 1) == bytes([i & 0xFF | 1])


def test_an_empty_range_allocates_nothing(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE, 1 << 20)
    move(vma, BASE << 8)
    assert mm.pt.nr_tables == 0
