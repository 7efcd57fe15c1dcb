"""Invariants of address spaces, areas and rmap policies (``--check``).

Each has a name, so that a report says which rule is broken.  Most come from the authors' own words (RMAP.md sections 2
to 8); ``rmap-complete`` is the one that all the others serve: a policy proposes every place where a page is really
mapped.

Some defects that ``--bug`` restores break these rules: that is how they are seen here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from kernel.mm.accounting import vm_stat_account
from kernel.mm.page import PG_anon
from kernel.mm.rmap.anon_vma import AnonVmaPolicy
from kernel.mm.rmap.anon_vma_chain import AnonVmaChainPolicy, ChainAnonVma
from kernel.mm.rmap.anonmm import AnonmmPolicy
from kernel.mm.rmap.policy import vma_address
from kernel.mm.rmap.pte_chain import PteChainPolicy
from kernel.mm.rmap.scan import Mapping, scan_all
from kernel.mm.shmem import ShmemInode
from kernel.mm.types import PAGE_MASK, TASK_SIZE, VM_ACCOUNT, VM_LOCKED, VM_SHARED, VM_WRITE, MmStruct, Vma

if TYPE_CHECKING:
    from kernel.kernel import Kernel


class Violation(NamedTuple):
    """A broken rule."""

    invariant: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"


def check_all(kernel: Kernel) -> list[Violation]:
    """Every invariant of memory management; an empty list when all hold."""
    from kernel.mm.rmap.check_memory import check_memory  # needs Violation

    return check_rmap(kernel) + check_memory(kernel)


def check_rmap(kernel: Kernel) -> list[Violation]:
    """The rules of this module alone."""
    mms = kernel.all_mms()
    found: list[Violation] = []
    for mm in mms:
        found.extend(check_areas(mm))
    found.extend(_committed(kernel, mms))
    mappings = scan_all(mms)
    found.extend(_pages(kernel, mappings))
    found.extend(_policy(kernel, mms, mappings))
    found.extend(_rmap_complete(kernel, mappings))
    return found


# -- address spaces ----------------------------------------------------------------------------------------------


def check_areas(mm: MmStruct) -> Iterator[Violation]:
    """Areas in order, counters equal to a recount, files knowing their areas."""
    for text in mm.areas.check():
        yield Violation("area-tree", f"mm {mm.id}: {text}")
    end = 0
    recount = _Counters()
    nr_areas = 0
    for vma in mm.areas:
        nr_areas += 1
        if not end <= vma.vm_start < vma.vm_end <= TASK_SIZE:
            yield Violation("areas-disjoint", f"mm {mm.id}: {vma!r} after {end:#x}")
        if (vma.vm_start | vma.vm_end) & ~PAGE_MASK:
            yield Violation("areas-aligned", f"mm {mm.id}: {vma!r}")
        if vma.vm_mm is not mm:
            yield Violation("area-mm", f"mm {mm.id}: {vma!r} belongs to mm {vma.vm_mm.id}")
        end = vma.vm_end
        vm_stat_account(recount, vma.vm_flags, vma.nr_pages)  # type: ignore[arg-type]
        if vma.vm_flags & VM_LOCKED:
            recount.locked_vm += vma.nr_pages
        yield from _file_links(mm, vma)
    if nr_areas != mm.map_count:
        yield Violation("map-count", f"mm {mm.id}: {mm.map_count}, but {nr_areas} areas")
    for name in ("total_vm", "data_vm", "exec_vm", "stack_vm", "locked_vm"):
        counted, found = getattr(mm, name), getattr(recount, name)
        if counted != found:
            yield Violation("vm-counters", f"mm {mm.id}: {name} {counted}, but {found} pages")


class _Counters:
    """What vm_stat_account counts in."""

    def __init__(self) -> None:
        self.total_vm = self.data_vm = self.exec_vm = self.stack_vm = self.locked_vm = self.hiwater_vm = 0


def _file_links(mm: MmStruct, vma: Vma) -> Iterator[Violation]:
    mapping = vma.vm_file.f_mapping if vma.vm_file is not None else None
    if mapping is not None and vma not in mapping.i_mmap.overlapping(vma.vm_pgoff, vma.vm_pgoff + vma.nr_pages - 1):
        yield Violation("i-mmap", f"mm {mm.id}: {vma!r} is not in its file's i_mmap")


def _committed(kernel: Kernel, mms: list[MmStruct]) -> Iterator[Violation]:
    nr_pages = sum(vma.nr_pages for mm in mms for vma in mm.areas if vma.vm_flags & VM_ACCOUNT)
    # Shared anonymous memory is charged to its object, not to the areas that map it.
    inodes = {vma.vm_file.f_inode: None for mm in mms for vma in mm.areas if vma.vm_file is not None}
    nr_pages += sum(inode.charged_pages for inode in inodes if isinstance(inode, ShmemInode))
    if kernel.vm_stat.committed_pages != nr_pages:
        charged = kernel.vm_stat.committed_pages
        yield Violation("committed", f"{charged} pages charged, but areas account for {nr_pages}")
    if kernel.vm_stat.nr_uncharged_areas:
        return
    for mm in mms:
        for vma in mm.areas:
            if vma.vm_flags & (VM_WRITE | VM_SHARED | VM_ACCOUNT) == VM_WRITE:
                yield Violation("accounted", f"mm {mm.id}: {vma!r} may be written and was never charged")


# -- pages -------------------------------------------------------------------------------------------------------


def _pages(kernel: Kernel, mappings: dict[int, list[Mapping]]) -> Iterator[Violation]:
    """mapcount and rss equal to a recount; every PTE lies in an area."""
    pages = kernel.pages
    for pfn, places in mappings.items():
        if pages.mapcount[pfn] != len(places):
            yield Violation("mapcount", f"pfn {pfn:#x}: {pages.mapcount[pfn]}, but {len(places)} PTEs")
        if pages.refcount[pfn] < len(places):
            yield Violation("refcount", f"pfn {pfn:#x}: {pages.refcount[pfn]}, but {len(places)} PTEs")
        for mm, vaddr, _ in places:
            if mm.areas.find_exact(vaddr) is None:
                yield Violation("pte-in-area", f"mm {mm.id}: PTE at {vaddr:#x} maps pfn {pfn:#x} outside every area")
    for mm in kernel.all_mms():
        rss = sum(1 for places in mappings.values() for place in places if place.mm is mm)
        if mm.rss != rss:
            yield Violation("rss", f"mm {mm.id}: {mm.rss}, but {rss} PTEs")


# -- policies ------------------------------------------------------------------------------------------------------


def _anonymous(kernel: Kernel, mappings: dict[int, list[Mapping]]) -> Iterator[tuple[int, Mapping, Vma]]:
    flags = kernel.pages.flags
    for pfn, places in mappings.items():
        if flags[pfn] & PG_anon:
            for place in places:
                vma = place.mm.areas.find_exact(place.vaddr)
                if vma is not None:
                    yield pfn, place, vma


def _policy(kernel: Kernel, mms: list[MmStruct], mappings: dict[int, list[Mapping]]) -> Iterator[Violation]:
    policy = kernel.policy
    for text in policy.violations():
        yield Violation(policy.name, text)
    if isinstance(policy, AnonVmaPolicy):
        yield from _anon_vma(kernel, mms, mappings)
    elif isinstance(policy, AnonVmaChainPolicy):
        yield from _anon_vma_chain(kernel, mms, mappings)
    elif isinstance(policy, AnonmmPolicy):
        yield from _anonmm(kernel, mappings)
    elif isinstance(policy, PteChainPolicy):
        yield from _pte_chain(policy, mappings)


def _index_names_address(kernel: Kernel, mappings: dict[int, list[Mapping]]) -> Iterator[Violation]:
    for pfn, place, vma in _anonymous(kernel, mappings):
        if vma_address(vma, kernel.pages.index[pfn]) != place.vaddr:
            index = kernel.pages.index[pfn]
            yield Violation("anon-index", f"pfn {pfn:#x} index {index:#x} at {place.vaddr:#x} in {vma!r}")


def _anon_vma(kernel: Kernel, mms: list[MmStruct], mappings: dict[int, list[Mapping]]) -> Iterator[Violation]:
    """RMAP.md section 4, (i) to (v)."""
    pages = kernel.pages
    for pfn, _, vma in _anonymous(kernel, mappings):
        anon_vma = pages.mapping[pfn]
        if anon_vma is not vma.anon_vma:
            yield Violation("anon-vma-of-page", f"pfn {pfn:#x} has {anon_vma!r}, {vma!r} has {vma.anon_vma!r}")
        if anon_vma is not None and not anon_vma.vmas:
            yield Violation("anon-vma-empty", f"pfn {pfn:#x} is mapped, {anon_vma!r} has no areas")
    yield from _index_names_address(kernel, mappings)
    nr_linked = 0
    for mm in mms:
        for vma in mm.areas:
            if vma.anon_vma is not None:
                nr_linked += 1
                if vma not in vma.anon_vma.vmas:
                    yield Violation("anon-vma-list", f"{vma!r} is not on the list of {vma.anon_vma!r}")
    policy = kernel.policy
    assert isinstance(policy, AnonVmaPolicy)
    if policy.nr_linked != nr_linked:
        yield Violation("anon-vma-list", f"{policy.nr_linked} areas on lists, but {nr_linked} areas have an anon_vma")


def _anon_vma_chain(kernel: Kernel, mms: list[MmStruct], mappings: dict[int, list[Mapping]]) -> Iterator[Violation]:
    """RMAP.md section 8."""
    pages = kernel.pages
    for pfn, _, vma in _anonymous(kernel, mappings):
        anon_vma = pages.mapping[pfn]
        if all(link.anon_vma is not anon_vma for link in vma.anon_vma_chain or ()):
            yield Violation("chain-of-page", f"pfn {pfn:#x} has {anon_vma!r}, which {vma!r} is not linked to")
    yield from _index_names_address(kernel, mappings)
    active: Counter[ChainAnonVma] = Counter()
    chains: dict[ChainAnonVma, tuple[Vma, set[ChainAnonVma]]] = {}
    nr_chains = 0
    for mm in mms:
        for vma in mm.areas:
            own = vma.anon_vma
            links = vma.anon_vma_chain or []
            nr_chains += len(links)
            if own is None:
                if links:
                    yield Violation("chain-without-anon-vma", repr(vma))
                continue
            active[own] += 1
            linked = {link.anon_vma for link in links}
            if own not in linked or len(linked) != len(links):
                yield Violation("chain-has-own", f"{vma!r} is not linked to its {own!r} exactly once")
            first_vma, first = chains.setdefault(own, (vma, linked))
            if first != linked:
                yield Violation("equal-anon-vma-equal-chains", f"{first_vma!r} and {vma!r} with {own!r}")
            for link in links:
                if link.vma is not vma or link not in link.anon_vma.tree:
                    yield Violation("chain-tree", f"{vma!r} is not in the tree of {link.anon_vma!r}")
    policy = kernel.policy
    assert isinstance(policy, AnonVmaChainPolicy)
    if policy.nr_chains != nr_chains:
        yield Violation("chain-count", f"{policy.nr_chains} links counted, but {nr_chains} found")
    for own, count in active.items():
        if own.num_active_vmas != count:
            yield Violation("num-active-vmas", f"{own!r}: {own.num_active_vmas}, but {count} areas")


def _anonmm(kernel: Kernel, mappings: dict[int, list[Mapping]]) -> Iterator[Violation]:
    """RMAP.md section 3."""
    pages = kernel.pages
    seen: set[tuple[int, MmStruct]] = set()
    for pfn, place, _ in _anonymous(kernel, mappings):
        if pages.index[pfn] != place.vaddr:
            known = pages.index[pfn]
            yield Violation("anonmm-address", f"pfn {pfn:#x} known at {known:#x}, mapped at {place.vaddr:#x}")
        if (pfn, place.mm) in seen:
            yield Violation("anonmm-once", f"pfn {pfn:#x} is mapped twice in mm {place.mm.id}")
        seen.add((pfn, place.mm))
        own = pages.mapping[pfn]
        if own is None or place.mm.rmap not in own.members():
            yield Violation("anonmm-family", f"pfn {pfn:#x} of {own!r} is mapped in mm {place.mm.id} of another family")


def _pte_chain(policy: PteChainPolicy, mappings: dict[int, list[Mapping]]) -> Iterator[Violation]:
    """RMAP.md section 2: exactly one slot for each present PTE."""
    for pfn, places in mappings.items():
        slots = sorted(policy.slots(pfn))
        ptes = sorted(place.pte_word_index for place in places)
        if slots != ptes:
            yield Violation("pte-chain-slots", f"pfn {pfn:#x}: slots {slots}, PTEs {ptes}")
    for pfn in policy.mapped_pfns():
        if pfn not in mappings:
            yield Violation("pte-chain-slots", f"pfn {pfn:#x}: slots {policy.slots(pfn)}, but nobody maps it")


def _rmap_complete(kernel: Kernel, mappings: dict[int, list[Mapping]]) -> Iterator[Violation]:
    """The policy names every place where an anonymous page is mapped (for pte_chains: every page)."""
    policy = kernel.policy
    flags = kernel.pages.flags
    counters = policy.counters
    before = (counters.nr_walks, counters.nr_visited, counters.nr_proposed)
    for pfn, places in mappings.items():
        if not flags[pfn] & PG_anon and not policy.per_pte:
            continue
        proposed = {(proposal.mm, proposal.vaddr) for proposal in policy.walk(pfn)}
        for place in places:
            if (place.mm, place.vaddr) not in proposed:
                yield Violation("rmap-complete", f"pfn {pfn:#x} at {place.vaddr:#x} in mm {place.mm.id} is not found")
    counters.nr_walks, counters.nr_visited, counters.nr_proposed = before

