"""Page tables of one mm (kernel/mm/pagetable.py)."""

from __future__ import annotations

import pytest

from kernel.mm.page import PG_table
from kernel.mm.pagetable import (
    PROTECTION_MAP,
    PTE_PRESENT,
    PTE_PROTNONE,
    USER_PGTABLES_CEILING,
    PageTables,
    is_swap_pte,
    pte_present,
    pte_to_swp_entry,
    swp_entry_to_pte,
)
from kernel.mm.types import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE
from mmu.paging import PTE_NX, PTE_P, PTE_U, PTE_W
from mmu.walker import READ, PageFault, walk
from tests.kernel.fakes import KERNEL_SLOT, check_kernel, make_kernel, make_mm

MB = 1 << 20
GB = 1 << 30


def make_pt() -> PageTables:
    return make_mm(make_kernel(profile="2.6.7")).pt


def test_pte_alloc_makes_what_the_hardware_walks() -> None:
    pt = make_pt()
    kernel = pt.mm.kernel  # type: ignore[union-attr]
    for vaddr in (0x40_0000, 0x7FFF_FFFF_E000, 0x5555_5555_4000):
        assert pt.pte_index(vaddr) == -1 and pt.get(vaddr) == 0
        with pytest.raises(PageFault):
            walk(kernel.physmem, pt.cr3, vaddr, READ, 3)
        pfn = kernel.pages.alloc_page()
        index = pt.set_pte(vaddr, pfn << 12 | PTE_P | PTE_U)
        assert pt.pte_index(vaddr) == index
        assert walk(kernel.physmem, pt.cr3, vaddr | 0x123, READ, 3).paddr == pfn << 12 | 0x123


def test_tables_are_counted_and_carry_their_owner() -> None:
    mm = make_mm(make_kernel(profile="2.6.7"))
    pages = mm.kernel.pages
    mm.pt.pte_alloc(0x40_0000)
    assert mm.pt.nr_tables == 3
    mm.pt.pte_alloc(0x60_0000)
    assert mm.pt.nr_tables == 4
    mm.pt.pte_alloc(5 * GB)
    assert mm.pt.nr_tables == 6
    leaf = mm.pt.leaf[0x60_0000 >> 21] >> 9
    assert pages.flags[leaf] & PG_table
    assert pages.mapping[leaf] is mm
    assert pages.index[leaf] == 0x60_0000
    check_kernel(mm.kernel)


def test_the_template_is_in_every_root_and_is_not_freed() -> None:
    mm = make_mm(make_kernel(profile="2.6.7"))
    kernel = mm.kernel
    assert kernel.physmem.q[mm.pt.root_pfn * 512 + KERNEL_SLOT] == kernel.pml4_template[KERNEL_SLOT]
    nr_free = kernel.pages.nr_free
    mm.pt.pte_alloc(0x40_0000)
    mm.pt.destroy()
    assert kernel.pages.nr_free == nr_free + 1


def test_leaf_ranges_in_order_over_existing_tables_only() -> None:
    pt = make_pt()
    for vaddr in (700 * GB, 0x40_0000, 3 * GB, 0x20_0000):
        pt.pte_alloc(vaddr)
    everything = list(pt.leaf_ranges(0, USER_PGTABLES_CEILING))
    assert [base for base, _, _, _ in everything] == [0x20_0000, 0x40_0000, 3 * GB, 700 * GB]
    assert all((i0, i1) == (0, 512) for _, _, i0, i1 in everything)
    part = list(pt.leaf_ranges(0x20_0000 + 5 * 4096, 0x40_0000 + 7 * 4096))
    assert [(base, i0, i1) for base, _, i0, i1 in part] == [(0x20_0000, 5, 512), (0x40_0000, 0, 7)]
    assert part[0][1] == pt.leaf[1]
    assert list(pt.leaf_ranges(0x60_0000, 2 * GB)) == []
    assert list(pt.leaf_ranges(4096, 4096)) == []
    one = list(pt.leaf_ranges(3 * GB + 4096, 3 * GB + 8192))
    assert [(i0, i1) for _, _, i0, i1 in one] == [(1, 2)]


def test_free_pgtables_respects_neighbours() -> None:
    pt = make_pt()
    pt.pte_alloc(0x40_0000)
    pt.pte_alloc(0x60_0000)
    # an area ends inside the table at 0x40_0000: its table must stay, the other goes
    pt.free_pgtables(0x50_0000, 0x70_0000, 0x48_0000, 0)
    assert sorted(pt.leaf) == [0x40_0000 >> 21]
    assert pt.nr_tables == 3
    # an area starts later in the same gigabyte: the leaf goes, the upper tables stay
    pt.free_pgtables(0x40_0000, 0x48_0000, 0, 0x3000_0000)
    assert pt.leaf == {} and pt.nr_tables == 2
    pt.pte_alloc(0x40_0000)
    pt.free_pgtables(0x40_0000, 0x48_0000, 0, 0)
    assert pt.nr_tables == 0
    check_kernel(pt.mm.kernel)  # type: ignore[union-attr]


def test_free_pgtables_at_the_top_of_the_address_space() -> None:
    pt = make_pt()
    top = 0x7FFF_FFFF_F000
    pt.pte_alloc(top - 4096)
    pt.free_pgtables(top - 4096, top, top - 2 * GB, 0)
    assert pt.leaf == {}
    assert pt.nr_tables == 1  # the area before lies under the same top-level entry
    pt.pte_alloc(top - 4096)
    pt.free_pgtables(top - 4096, top, 0, top)
    assert pt.nr_tables == 0


def test_free_pgtables_without_bounds_takes_only_what_is_inside() -> None:
    pt = make_pt()
    for slot in range(4):
        pt.pte_alloc(slot * 2 * MB)
    pt.free_pgtables(1 * MB, 7 * MB)
    assert sorted(pt.leaf) == [0, 3]


@pytest.mark.parametrize("swp_type", [0, 1, 31])
@pytest.mark.parametrize("offset", [1, 12345, (1 << 50) - 1])
def test_swap_entries_are_neither_present_nor_none(swp_type: int, offset: int) -> None:
    pte = swp_entry_to_pte(swp_type, offset)
    assert is_swap_pte(pte) and not pte_present(pte)
    assert pte_to_swp_entry(pte) == (swp_type, offset)
    assert 0 < pte < 1 << 64
    assert not pte & (PTE_P | PTE_PROTNONE)


def test_prot_none_is_present_for_the_kernel_only() -> None:
    for vm_flags, pte in enumerate(PROTECTION_MAP):
        accessible = vm_flags & (VM_READ | VM_WRITE | VM_EXEC)
        assert bool(pte & PTE_P) == bool(accessible)
        assert pte & PTE_PRESENT
        assert bool(pte & PTE_W) == (vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED)
        assert bool(pte & PTE_NX) == (not vm_flags & VM_EXEC)
        assert not is_swap_pte(pte)
