"""The oracle itself: every rule is broken on purpose, and the oracle says which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kernel.mm.fork import dup_mm
from kernel.mm.page import PG_active, PG_anon, PG_dirty, PG_exclusive, PG_lru, PG_swapcache
from kernel.mm.rmap.check_memory import check_memory, describe_page
from kernel.mm.types import PAGE_SIZE, MmStruct
from mmu.paging import PTE_W
from tests.kernel.fakes import FakeFile, FakeInode, make_mm, map_anon, map_file
from tests.kernel.swapfakes import PROFILES, fill, is_swapped, make_swap_kernel, peek

BASE = 0x1000_0000
FILE = 0x2000_0000
SHMEM = 0x3000_0000


class Machine:
    """A little of everything: private, shared, forked and swapped pages, a file, shared memory."""

    def __init__(self, profile: str = "2.6.7") -> None:
        self.kernel: Any = make_swap_kernel(512, 1024, profile)
        self.mm: MmStruct = make_mm(self.kernel)
        self.inode = FakeInode(self.kernel, bytes(8 * PAGE_SIZE))
        shmem: Any = FakeInode(self.kernel, is_shmem=True)
        shmem.i_size = 40 * PAGE_SIZE
        self.shmem = shmem.i_mapping
        map_anon(self.mm, BASE, 120)
        map_file(self.mm, FILE, 8, FakeFile(self.inode), 0xB)
        map_file(self.mm, SHMEM, 40, FakeFile(shmem), 0xB)
        fill(self.mm, SHMEM, 40, 3)
        fill(self.mm, BASE, 80)
        self.child = dup_mm(self.mm)
        self.kernel.mms.append(self.child)
        self.kernel.reclaim.try_to_free_pages(40)
        fill(self.mm, BASE + 80 * PAGE_SIZE, 40)
        for i in range(8):
            peek(self.mm, FILE + i * PAGE_SIZE)
        fill(self.mm, FILE, 3, 2)
        for i in range(60):
            peek(self.child, BASE + i * PAGE_SIZE)
        self.kernel.lru.drain()
        self.pages = self.kernel.pages

    def pfn(self, vaddr: int) -> int:
        return self.mm.pt.get(vaddr) >> 12 & 0xFF_FFFF_FFFF

    @property
    def own(self) -> int:
        """A page that only the parent has."""
        return self.pfn(BASE + 100 * PAGE_SIZE)

    @property
    def file_page(self) -> int:
        return self.pfn(FILE)

    @property
    def cached(self) -> int:
        """A page in the swap cache."""
        return int(self.kernel.area.cache_np[self.kernel.area.cache_np != 0][0])

    @property
    def slot(self) -> int:
        """A slot in use."""
        return int(self.kernel.area.counts_np.nonzero()[0][0])

    def set_pte(self, vaddr: int, change: Callable[[int], int]) -> None:
        index = self.mm.pt.pte_index(vaddr)
        self.mm.pt.q[index] = change(self.mm.pt.q[index])


@pytest.mark.parametrize("profile", PROFILES)
def test_a_sound_machine(profile: str) -> None:
    machine = Machine(profile)
    assert check_memory(machine.kernel) == []
    assert machine.kernel.swap.used_pages > 20
    assert machine.shmem.swapped
    assert any(is_swapped(machine.mm, BASE + i * PAGE_SIZE) for i in range(80))


def _clear_pte(machine: Machine) -> None:
    machine.set_pte(BASE + 100 * PAGE_SIZE, lambda _pte: 0)


def _writable_shared(machine: Machine) -> None:
    machine.pages.flags[machine.own] &= ~PG_exclusive & 0xFFFF_FFFF


def _read_only_area(machine: Machine) -> None:
    vma = machine.mm.areas.find_exact(BASE)
    assert vma is not None
    vma.vm_flags &= ~2


def _outside(machine: Machine) -> None:
    vma = machine.mm.areas.find_exact(BASE)
    assert vma is not None
    vma.vm_end -= PAGE_SIZE


def _wrong_index(machine: Machine) -> None:
    machine.pages.index[machine.own] += 1


def _not_on_list(machine: Machine) -> None:
    vma = machine.mm.areas.find_exact(BASE)
    assert vma is not None
    del vma.anon_vma.vmas[vma]


def _leak(machine: Machine) -> None:
    machine.pages.alloc_page()


def _freed_while_mapped(machine: Machine) -> None:
    pages, pfn = machine.pages, machine.own
    pages.mapcount[pfn] = 0
    pages.put_page(pfn)


def _listed_twice(machine: Machine) -> None:
    pages = machine.pages
    pages._pcp.append(pages._pcp[0])


def _stolen_from_the_free_list(machine: Machine) -> None:
    machine.pages._pcp.pop()


def _lost_slot(machine: Machine) -> None:
    machine.kernel.area.counts[machine.slot] += 1


def _slot_not_marked(machine: Machine) -> None:
    machine.kernel.area.used[machine.slot] = 0


def _cache_forgets(machine: Machine) -> None:
    machine.pages.private[machine.cached] += 1


def _not_marked_cached(machine: Machine) -> None:
    machine.pages.flags[machine.cached] &= ~PG_swapcache & 0xFFFF_FFFF


def _wrong_list(machine: Machine) -> None:
    machine.pages.flags[machine.own] ^= PG_active


def _off_the_lists(machine: Machine) -> None:
    machine.pages.flags[machine.own] &= ~(PG_lru | PG_active) & 0xFFFF_FFFF


def _dirty_without_note(machine: Machine) -> None:
    machine.pages.flags[machine.pfn(FILE + 7 * PAGE_SIZE)] |= PG_dirty


def _two_owners(machine: Machine) -> None:
    machine.pages.flags[machine.file_page] |= PG_anon


def _table_cut_off(machine: Machine) -> None:
    pt = machine.mm.pt
    pt.q[pt.root_pfn * 512 + (FILE >> 39)] = 0


def _shared_entry_forgotten(machine: Machine) -> None:
    pgoff = next(iter(machine.shmem.swapped))
    del machine.shmem.swapped[pgoff]


BREAKAGES: list[tuple[Callable[[Machine], Any], set[str]]] = [
    (lambda m: m.pages.mapcount.__setitem__(m.own, 2), {"mapcount", "exclusive"}),
    (lambda m: m.pages.refcount.__setitem__(m.own, 5), {"refcount"}),
    (lambda m: m.pages.refcount.__setitem__(m.file_page, 1), {"refcount"}),
    (lambda m: setattr(m.mm, "rss_anon", m.mm.rss_anon + 1), {"rss"}),
    (lambda m: setattr(m.mm, "swap_pages", m.mm.swap_pages - 1), {"swap-pages"}),
    (lambda m: setattr(m.mm.pt, "nr_tables", 1), {"nr-tables"}),
    (_clear_pte, {"rss", "mapcount", "refcount"}),
    (_writable_shared, {"cow-protected"}),
    (_read_only_area, {"pte-writable"}),
    (_outside, {"pte-in-area", "rmap-found"}),
    (_wrong_index, {"rmap-found"}),
    (_not_on_list, {"rmap-found"}),
    (_leak, {"frame-leaked"}),
    (_freed_while_mapped, {"mapcount", "free-and-used", "rss", "cow-protected"}),
    (_listed_twice, {"free-list", "nr-free"}),
    (_stolen_from_the_free_list, {"free-list", "nr-free"}),
    (_lost_slot, {"swap-count"}),
    (_slot_not_marked, {"swap-used"}),
    (lambda m: setattr(m.kernel.area, "inuse_pages", 0), {"swap-inuse", "nr-swap-pages"}),
    (lambda m: setattr(m.kernel.swap, "nr_swap_pages", 1), {"nr-swap-pages"}),
    (_cache_forgets, {"swap-cache"}),
    (_not_marked_cached, {"swap-cache", "frame-leaked", "lru-stranger"}),
    (_wrong_list, {"lru-active", "lru-inactive"}),
    (_off_the_lists, {"lru-missing"}),
    (_dirty_without_note, {"dirty-offsets"}),
    (_two_owners, {"one-owner", "rss"}),
    (_table_cut_off, {"page-tables", "nr-tables", "table-owner"}),
    (_shared_entry_forgotten, {"swap-count"}),
]


@pytest.mark.parametrize("number", range(len(BREAKAGES)))
def test_what_is_broken_is_named(number: int) -> None:
    machine = Machine()
    breakage, expected = BREAKAGES[number]
    breakage(machine)
    violations = check_memory(machine.kernel)
    assert {violation.invariant for violation in violations} == expected, "\n".join(map(str, violations))


def test_a_page_of_a_file_that_i_mmap_does_not_find() -> None:
    machine = Machine()
    vma = machine.mm.areas.find_exact(FILE)
    assert vma is not None
    machine.inode.i_mapping.i_mmap.remove(vma)
    violations = check_memory(machine.kernel)
    assert {violation.invariant for violation in violations} == {"rmap-found"}
    assert "and 4 more pages" in violations[-1].detail


def test_references_that_a_test_holds() -> None:
    from collections import Counter

    machine = Machine()
    machine.pages.get_page(machine.own)
    kept = machine.pages.alloc_page()
    assert check_memory(machine.kernel, Counter({machine.own: 1, kept: 1})) == []


def test_a_page_is_described() -> None:
    machine = Machine()
    text = describe_page(machine.kernel, machine.own)
    state = "[anon swapbacked lru active exclusive] refcount 1 mapcount 1 mapping anon_vma#"
    assert text.startswith(f"pfn {machine.own:#x} {state}")


def test_writable_bits_of_swapped_neighbours_do_not_confuse() -> None:
    machine = Machine()
    machine.set_pte(BASE + 100 * PAGE_SIZE, lambda pte: pte & ~PTE_W)
    assert check_memory(machine.kernel) == []


def test_the_history_of_what_is_broken() -> None:
    from kernel.mm.fault import touch
    from kernel.mm.rmap.history import History, report

    history = History()
    history.attach()
    try:
        machine = Machine()
        touch(machine.child, BASE, write=True)
    finally:
        history.detach()
    pfn = machine.own
    machine.pages.index[pfn] += 1
    violations = check_memory(machine.kernel)
    text = report(violations, history).splitlines()
    assert text[0].startswith(f"rmap-found: pfn {pfn:#x} ")
    assert any(
        "exceptions:page_fault_user vaddr=0x10064000" in line and f"kind=anonymous result=0 pfn={pfn:#x}" in line
        for line in text[1:]
    )
    assert len(text) <= 17
    assert report(violations, None) == str(violations[0])
