"""Invariants of frames, page tables, the page cache, swap, the LRU lists and the reverse map, checked fast
(``--check``).

The companion of check.py, whose rules are about areas and the policies' own structures.  Everything is recounted from
the page tables of all address spaces, whole tables at a time, and compared with what the kernel keeps; nothing may
differ between two operations of the kernel.

``rmap-found`` is the rule that the reverse map lives for: counted together, the places that the policy proposes for
a page hold it as often as it is mapped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from kernel.mm.page import (
    PG_active,
    PG_anon,
    PG_dirty,
    PG_exclusive,
    PG_exec,
    PG_lru,
    PG_reserved,
    PG_stale,
    PG_swapbacked,
    PG_swapcache,
    PG_table,
)
from kernel.mm.pagetable import PTE_SPECIAL
from kernel.mm.rmap.anonmm import Anonmm, AnonmmPolicy
from kernel.mm.rmap.check import Violation
from kernel.mm.rmap.pte_chain import PteChainPolicy
from kernel.mm.rmap.recount import BoolArray, IntArray, MmRecount, Recount, count_hits
from kernel.mm.swap import PTE_ENTRY_SHIFT, SWAP_OFFSET_MASK, SWAP_TYPE_SHIFT, SwapArea
from kernel.mm.types import PAGE_SHIFT, VM_SHARED, VM_WRITE

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.mm.page import MemMap

_MAX_DETAILS = 4
"""How many pages one broken rule names."""
_FLAG_NAMES = {
    PG_anon: "anon", PG_swapbacked: "swapbacked", PG_swapcache: "swapcache", PG_dirty: "dirty", PG_lru: "lru",
    PG_active: "active", PG_exclusive: "exclusive", PG_table: "table", PG_reserved: "reserved", PG_stale: "free",
}  # fmt: skip
_LRU_ACTIVE = PG_lru | PG_active
_MAX_PGOFF = (1 << 52) - 1
_NOT_FREE_FLAGS = ~(PG_stale | PG_exec) & 0xFFFF_FFFF


def check_memory(kernel: Kernel, held: Counter[int] | None = None) -> list[Violation]:
    """Every broken invariant; an empty list when all hold.  ``held``: references that a test itself has taken."""
    recount = Recount(kernel)
    found: list[Violation] = []
    for mm in recount.mms:
        found.extend(_check_mm(kernel, mm))
    found.extend(_check_frames(kernel, recount, held or Counter()))
    found.extend(_check_free_list(kernel.pages))
    found.extend(_check_page_cache(kernel))
    found.extend(_check_swap(kernel, recount))
    found.extend(_check_lru(kernel, recount))
    found.extend(_check_rmap(kernel, recount))
    return found


def describe_page(kernel: Kernel, pfn: int) -> str:
    """One page for a report."""
    pages = kernel.pages
    flags = pages.flags[pfn]
    names = " ".join(name for bit, name in _FLAG_NAMES.items() if flags & bit)
    return (
        f"pfn {pfn:#x} [{names}] refcount {pages.refcount[pfn]} mapcount {pages.mapcount[pfn]} "
        f"mapping {pages.mapping[pfn]!r} index {pages.index[pfn]:#x} private {pages.private[pfn]:#x}"
    )


def _pages_where(
    kernel: Kernel, rule: str, wrong: BoolArray | IntArray, say: Callable[[int], str] = lambda _pfn: ""
) -> Iterator[Violation]:
    """One violation for each of the first frames in ``wrong`` (a mask, or frame numbers)."""
    pfns = np.flatnonzero(wrong) if wrong.dtype == bool else wrong
    for pfn in pfns[:_MAX_DETAILS].tolist():
        extra = say(pfn)
        yield Violation(rule, describe_page(kernel, pfn) + (f": {extra}" if extra else ""))
    if pfns.size > _MAX_DETAILS:
        yield Violation(rule, f"and {pfns.size - _MAX_DETAILS} more pages")


# ---- one address space ----------------------------------------------------------------------------------------------


def _check_mm(kernel: Kernel, recount: MmRecount) -> Iterator[Violation]:
    """PTEs lie in areas that allow them; rss, swap and table counters; the tables are this mm's own."""
    mm, pages = recount.mm, kernel.pages
    numbers = recount.area_numbers()
    for vaddr, pte in _first(recount.vaddrs, recount.ptes, numbers < 0):
        yield Violation("pte-in-area", f"mm {mm.id}: PTE {pte:#x} at {vaddr:#x} outside every area")
    inside = numbers >= 0
    if recount.areas:
        vm_flags = np.where(inside, recount.flags[numbers], VM_WRITE | VM_SHARED)
        writable = recount.is_writable
        for vaddr, pte in _first(recount.vaddrs, recount.ptes, writable & ((vm_flags & VM_WRITE) == 0)):
            yield Violation("pte-writable", f"mm {mm.id}: PTE {pte:#x} at {vaddr:#x} allows what its area does not")
        own = PG_anon | PG_exclusive
        shared = (pages.flags_np[np.minimum(recount.pfns, pages.nr_frames - 1)] & own) != own
        wrong = writable & ((vm_flags & VM_SHARED) == 0) & (shared | ((recount.ptes & PTE_SPECIAL) != 0))
        for vaddr, pte in _first(recount.vaddrs, recount.ptes, wrong):
            what = describe_page(kernel, pte >> PAGE_SHIFT & 0xFF_FFFF_FFFF)
            yield Violation("cow-protected", f"mm {mm.id}: PTE {pte:#x} at {vaddr:#x} lets {what} be written")
    counters = (mm.rss_anon, mm.rss_file, mm.rss_shmem)
    if counters != recount.rss():
        yield Violation("rss", f"mm {mm.id}: (anon, file, shmem) {counters}, but the PTEs say {recount.rss()}")
    if mm.swap_pages != recount.swap_ptes.size:
        yield Violation("swap-pages", f"mm {mm.id}: {mm.swap_pages}, but {recount.swap_ptes.size} swap PTEs")

    upper, middle, last = recount.tables
    if sorted(last.tolist()) != sorted(table >> 9 for table in mm.pt.leaf.values()):
        yield Violation("page-tables", f"mm {mm.id}: the root leads to other last-level tables than are known")
    tables = np.concatenate((upper, middle, last))
    if tables.size != mm.pt.nr_tables:
        yield Violation("nr-tables", f"mm {mm.id}: {mm.pt.nr_tables}, but the root leads to {tables.size}")
    foreign = [pfn for pfn in tables.tolist() if pages.mapping[pfn] is not mm]
    for pfn in foreign[:_MAX_DETAILS]:
        yield Violation("page-tables", f"mm {mm.id}: table of another mm: {describe_page(kernel, pfn)}")


def _first(vaddrs: IntArray, ptes: np.ndarray, wrong: BoolArray) -> list[tuple[int, int]]:
    if not wrong.any():
        return []
    return list(zip(vaddrs[wrong][:_MAX_DETAILS].tolist(), ptes[wrong][:_MAX_DETAILS].tolist(), strict=True))


# ---- frames ---------------------------------------------------------------------------------------------------------


def _check_frames(kernel: Kernel, recount: Recount, held: Counter[int]) -> Iterator[Violation]:
    """Every frame has one kind of owner, and exactly the references that are accounted for."""
    pages = kernel.pages
    flags, refcount, mapcount = pages.flags_np, pages.refcount_np, pages.mapcount_np
    is_reserved = (flags & PG_reserved) != 0
    is_used = (refcount > 0) & ~is_reserved
    is_table = (flags & PG_table) != 0
    is_anon = (flags & (PG_anon | PG_swapcache)) != 0
    in_cache = recount.in_page_cache
    in_swap_cache = (flags & PG_swapcache) != 0

    yield from _pages_where(kernel, "refcount-negative", (refcount < 0) | (mapcount < 0))
    yield from _pages_where(
        kernel, "mapcount", (mapcount != recount.mapcount) & ~is_reserved, lambda pfn: _where_mapped(recount, pfn)
    )
    is_free = ~is_used & ~is_reserved
    leftover = (flags & _NOT_FREE_FLAGS) != 0
    yield from _pages_where(kernel, "free-and-used", is_free & (leftover | (mapcount != 0) | (recount.mapcount != 0)))
    yield from _pages_where(kernel, "free-and-cached", is_free & in_cache)

    owners = is_table.astype(np.int64) + in_cache + is_anon
    yield from _pages_where(kernel, "one-owner", is_used & (owners > 1))
    roots = [mm.mm.pt.root_pfn for mm in recount.mms]
    reached = np.zeros(pages.nr_frames, np.int64)
    for mm in recount.mms:
        for tables in mm.tables:
            np.add.at(reached, tables, 1)
    np.add.at(reached, np.array(roots, np.int64), 1)
    yield from _pages_where(
        kernel, "table-owner", is_used & (reached != is_table), lambda pfn: f"reached {reached[pfn]} times"
    )

    is_kernel = is_used & (owners == 0)
    known = np.zeros(pages.nr_frames, bool)
    known[[*_kernel_frames(kernel), *held]] = True
    is_leaked = is_kernel & ~known
    yield from _pages_where(kernel, "frame-leaked", is_leaked)

    expected = recount.mapcount + in_cache + in_swap_cache + is_table + (is_kernel & known)
    for pfn, count in held.items():
        expected[pfn] += count - int(is_kernel[pfn])
    wrong = is_used & ~is_leaked & (refcount != expected)
    yield from _pages_where(kernel, "refcount", wrong, lambda pfn: f"{expected[pfn]} are accounted for")
    yield from _pages_where(
        kernel, "exclusive", (flags & PG_exclusive != 0) & ((flags & PG_anon == 0) | (mapcount > 1))
    )
    lost = [pfn for pfn in np.flatnonzero(is_free).tolist() if pages.mapping[pfn] is not None]
    yield from _pages_where(kernel, "free-and-owned", np.array(lost, np.int64))


def _kernel_frames(kernel: Kernel) -> list[int]:
    """Frames that belong to the kernel itself."""
    vdso = getattr(kernel, "vdso", None)
    return list(vdso.text._pfns) if vdso is not None else []


def _where_mapped(recount: Recount, pfn: int) -> str:
    places = [f"mm {mm.id} {vaddr:#x}" for mm, vaddr in recount.places_of(pfn)]
    return f"{len(places)} PTEs: {', '.join(places[:8])}" if places else "no PTE"


def _check_free_list(pages: MemMap) -> Iterator[Violation]:
    """Every free frame is on the free list exactly once, and nothing else is."""
    times = np.bincount(pages.free_frames(), minlength=pages.nr_frames)
    is_free = (pages.refcount_np == 0) & ((pages.flags_np & PG_reserved) == 0)
    wrong = times != is_free
    for pfn in np.flatnonzero(wrong)[:_MAX_DETAILS].tolist():
        yield Violation("free-list", f"pfn {pfn:#x} is listed {times[pfn]} times, refcount {pages.refcount[pfn]}")
    if pages.nr_free != int(np.count_nonzero(is_free)):
        yield Violation("nr-free", f"{pages.nr_free}, but {np.count_nonzero(is_free)} frames are free")


# ---- the page cache -------------------------------------------------------------------------------------------------


def _check_page_cache(kernel: Kernel) -> Iterator[Violation]:
    """Cached pages know their mapping and offset; dirty offsets; nothing beyond the end of a file."""
    pages = kernel.pages
    for mapping in pages.mappings:
        if not mapping.pages and not mapping.swapped:
            yield Violation("mappings", f"{mapping!r} holds no page and is still listed")
        if mapping.swapped and (not mapping.is_shmem or mapping.pages.keys() & mapping.swapped.keys()):
            yield Violation("shmem-swapped", f"{mapping!r}: a page is in memory and in swap")
        end = (mapping.host.i_size + (1 << PAGE_SHIFT) - 1) >> PAGE_SHIFT
        owner, index, flags = pages.mapping, pages.index, pages.flags
        for pgoff, pfn in mapping.pages.items():
            if owner[pfn] is not mapping or index[pfn] != pgoff:
                yield Violation("page-cache", f"offset {pgoff:#x} of {mapping!r}: {describe_page(kernel, pfn)}")
            if pgoff >= end:
                yield Violation("page-beyond-end", f"offset {pgoff:#x}, size {mapping.host.i_size}: {mapping!r}")
            if not mapping.is_shmem and (flags[pfn] & PG_dirty != 0) != (pgoff in mapping.dirty):
                yield Violation("dirty-offsets", f"offset {pgoff:#x} of {mapping!r}: {describe_page(kernel, pfn)}")


# ---- swap -----------------------------------------------------------------------------------------------------------


def _check_swap(kernel: Kernel, recount: Recount) -> Iterator[Violation]:
    """Slot counts equal the PTEs, shmem entries and cached pages that hold them; the cache and its pages agree."""
    swap, pages = kernel.swap, kernel.pages
    entries = [(mm.swap_ptes >> np.uint64(PTE_ENTRY_SHIFT)).astype(np.int64) for mm in recount.mms]
    for mapping in pages.mappings:
        if mapping.swapped:
            entries.append(np.fromiter(mapping.swapped.values(), np.int64, len(mapping.swapped)))
    all_entries = np.concatenate(entries) if entries else np.zeros(0, np.int64)
    types = all_entries >> SWAP_TYPE_SHIFT
    areas = swap.active_areas()
    lost = ~np.isin(types, [area.swp_type for area in areas])
    for entry in all_entries[lost][:_MAX_DETAILS].tolist():
        yield Violation("swap-entry", f"entry {entry:#x} of an area that is off")
    nr_cached = nr_free = total = 0
    for area in areas:
        offsets = all_entries[types == area.swp_type] & SWAP_OFFSET_MASK
        yield from _check_area(area, np.bincount(offsets, minlength=area.max))
        cached = np.flatnonzero(area.cache_np)
        nr_cached += int(cached.size)
        pfns = area.cache_np[cached].astype(np.int64)
        wrong = (pages.flags_np[pfns] & PG_swapcache == 0) | (pages.private_np[pfns] != (cached | area.entry_base))
        yield from _pages_where(kernel, "swap-cache", pfns[wrong])
        if area.writeok:
            total += area.pages
            nr_free += area.pages - area.inuse_pages
    marked = int(np.count_nonzero(pages.flags_np & PG_swapcache))
    if marked != nr_cached:
        yield Violation("swap-cache", f"{marked} pages are marked, but {nr_cached} are in the cache")
    if (swap.nr_swap_pages, swap.total_swap_pages) != (nr_free, total):
        yield Violation(
            "nr-swap-pages",
            f"{swap.nr_swap_pages} of {swap.total_swap_pages} free, but the maps say {nr_free} of {total}",
        )


def _check_area(area: SwapArea, users: IntArray) -> Iterator[Violation]:
    if users.size > area.max or users[0]:
        yield Violation("swap-entry", f"{area!r}: an entry names a slot that does not exist")
        return
    expected = users + (area.cache_np != 0)
    for offset in np.flatnonzero(area.counts_np != expected)[:_MAX_DETAILS].tolist():
        yield Violation(
            "swap-count",
            f"{area!r} slot {offset}: {area.counts[offset]}, but {users[offset]} users, cache {area.cache[offset]:#x}",
        )
    is_used = area.counts_np > 0
    is_used[0] = True
    if (area.used_np != is_used).any():
        yield Violation("swap-used", f"{area!r}: slots marked in use are not those in use")
    if area.inuse_pages != int(np.count_nonzero(is_used)) - 1:
        yield Violation(
            "swap-inuse", f"{area!r}: {area.inuse_pages}, but {np.count_nonzero(is_used) - 1} slots are used"
        )
    free = np.flatnonzero(~is_used)
    if free.size and not (area.lowest_bit <= free[0] and free[-1] <= area.highest_bit):
        yield Violation("swap-bounds", f"{area!r}: free slots outside {area.lowest_bit}-{area.highest_bit}")


# ---- the LRU lists --------------------------------------------------------------------------------------------------


def _check_lru(kernel: Kernel, recount: Recount) -> Iterator[Violation]:
    """Marked pages are on the list that PG_active says, once; all that can be reclaimed is marked or on its way."""
    lru, pages = kernel.lru, kernel.pages
    flags = pages.flags_np
    for queue, want, rule in ((lru.active, _LRU_ACTIVE, "lru-active"), (lru.inactive, PG_lru, "lru-inactive")):
        marks = np.array(queue, np.int64)
        pfns = marks & 0xFFFF_FFFF
        pfns = pfns[(lru.token_np[pfns] == marks) & ((flags[pfns] & PG_lru) != 0)]
        times = np.bincount(pfns, minlength=pages.nr_frames)
        marked = (flags & _LRU_ACTIVE) == want
        yield from _pages_where(kernel, rule, times != marked)
    is_lru = (flags & PG_lru) != 0
    evictable = ((flags & (PG_anon | PG_swapcache)) != 0) | recount.in_page_cache
    yield from _pages_where(kernel, "lru-stranger", is_lru & ~evictable)
    waiting = np.zeros(pages.nr_frames, bool)
    waiting[np.array(pages.lru_batch, np.int64)] = True
    yield from _pages_where(kernel, "lru-missing", evictable & ~is_lru & ~waiting & (pages.refcount_np > 0))


# ---- the reverse map ------------------------------------------------------------------------------------------------


def _check_rmap(kernel: Kernel, recount: Recount) -> Iterator[Violation]:
    """``rmap-found``: the places named for each page, by the policy or by i_mmap, hold it as often as it is mapped."""
    pages, policy = kernel.pages, kernel.policy
    is_anon = (pages.flags_np & PG_anon) != 0
    found: IntArray = np.zeros(pages.nr_frames, np.int64)
    if isinstance(policy, PteChainPolicy):
        for pfn in np.flatnonzero(recount.mapcount).tolist():
            found[pfn] = sum(_maps(kernel, index, pfn) for index in policy.slots(pfn))
    else:
        _find_anonymous(kernel, np.flatnonzero((recount.mapcount > 0) & is_anon), found)
    for mapping in pages.mappings:
        if isinstance(policy, PteChainPolicy) or not len(mapping.i_mmap):
            continue
        pfns = np.fromiter(mapping.pages.values(), np.int64, len(mapping.pages))
        pfns = pfns[recount.mapcount[pfns] > 0]
        index = pages.index_np[pfns]
        for vma in mapping.i_mmap.overlapping(0, _MAX_PGOFF):
            inside = (index >= vma.vm_pgoff) & (index < vma.vm_pgoff + vma.nr_pages)
            vaddrs = vma.vm_start + ((index[inside] - vma.vm_pgoff) << PAGE_SHIFT)
            count_hits(found, vma.vm_mm, vaddrs, pfns[inside])
    in_question = (recount.mapcount > 0) & (is_anon | recount.in_page_cache)

    def missing(pfn: int) -> str:
        return f"{found[pfn]} of its mappings are found; {_where_mapped(recount, pfn)}; {_areas_of(recount, pfn)}"

    yield from _pages_where(kernel, "rmap-found", in_question & (found != recount.mapcount), missing)


def _find_anonymous(kernel: Kernel, pfns: IntArray, found: IntArray) -> None:
    """Count for each anonymous page the mappings that a walk would find: one walk for all pages of one object."""
    pages, policy = kernel.pages, kernel.policy
    groups: dict[object, list[int]] = {}
    mapping = pages.mapping
    for pfn in pfns.tolist():
        groups.setdefault(mapping[pfn], []).append(pfn)
    for owner, members in groups.items():
        group = np.array(members, np.int64)
        index = pages.index_np[group]
        if isinstance(policy, AnonmmPolicy):
            if isinstance(owner, Anonmm):
                for anonmm in owner.members():
                    if anonmm.mm is not None:
                        count_hits(found, anonmm.mm, index, group)
            continue
        for vma in policy.vmas_of(owner):
            inside = (index >= vma.vm_pgoff) & (index < vma.vm_pgoff + vma.nr_pages)
            vaddrs = vma.vm_start + ((index[inside] - vma.vm_pgoff) << PAGE_SHIFT)
            count_hits(found, vma.vm_mm, vaddrs, group[inside])


def _maps(kernel: Kernel, pte_word_index: int, pfn: int) -> bool:
    pte = kernel.physmem.q[pte_word_index]
    return bool(pte & 0x101) and not pte & PTE_SPECIAL and pte >> PAGE_SHIFT & 0xFF_FFFF_FFFF == pfn


def _areas_of(recount: Recount, pfn: int) -> str:
    areas = [mm.areas.find_exact(vaddr) for mm, vaddr in recount.places_of(pfn)]
    return "areas " + ", ".join(f"{vma!r} anon_vma {vma.anon_vma!r}" for vma in areas[:_MAX_DETAILS] if vma is not None)
