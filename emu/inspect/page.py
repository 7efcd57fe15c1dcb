"""``pagewalk page``: one page in full.

What ``struct page`` says (flags, counts, owner, index), and every page-table entry that maps it, found twice: as the
kernel's reverse map finds them, and by reading all page tables.  A mapping that only the reading finds is one that the
policy has lost; a place that only the policy names is a stale proposal, which costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

import kernel.mm.page as page_module
from emu.inspect.columns import align, count_text
from emu.inspect.identity import mm_text, object_name, users_of
from emu.inspect.pt import State, perms_of, state_of
from emu.trace.locate import Locator, short_name
from kernel.mm.filemap import AddressSpace
from kernel.mm.page import PG_anon, PG_reserved, PG_swapcache, PG_table
from kernel.mm.pagetable import PTE_PRESENT, is_swap_pte, pte_to_swp_entry
from kernel.mm.rmap.scan import scan_mm
from kernel.mm.types import PAGE_SHIFT, MmStruct, Vma
from mmu.paging import PTE_A, PTE_D, PTE_PFN_MASK

if TYPE_CHECKING:
    from emu.inspect.moment import Scene
    from kernel.kernel import Kernel

_FLAG_NAMES = sorted(
    (value, name.removeprefix("PG_"))
    for name, value in vars(page_module).items()
    if name.startswith("PG_") and isinstance(value, int) and value.bit_count() == 1
)


class BadPage(ValueError):
    """What was asked for is no page."""


class Found(Enum):
    """Who knows of a mapping."""

    BOTH = "both"
    SCAN_ONLY = "scan only"
    POLICY_ONLY = "policy only"
    UNTRACKED = "scan"
    """A page of the kernel's own ([vdso], [vvar]): no reverse map knows it, none has to."""


_FOUND_NOTES = {
    Found.BOTH: "",
    Found.SCAN_ONLY: "  <== MISSED by the policy",
    Found.POLICY_ONLY: "  (stale: the entry there does not map it)",
    Found.UNTRACKED: "  (the kernel's page: no reverse map)",
}


_HOLDERS = {
    "page_tables": "in page tables",
    "page_cache": "in the page cache",
    "swap_cache": "in the swap cache",
    "kernel": "by the kernel",
}


@dataclass(frozen=True)
class PteRow:
    """A place where the page is mapped, or was said to be."""

    mm_id: int
    mm_text: str
    vaddr: int
    area: str | None
    pte: int
    perms: str
    found: Found

    def as_json(self) -> dict[str, Any]:
        return {
            "mm": self.mm_id,
            "address": f"{self.vaddr:#x}",
            "area": self.area,
            "pte": f"{self.pte:#x}",
            "perms": self.perms,
            "accessed": bool(self.pte & PTE_A) and bool(self.pte & PTE_PRESENT),
            "dirty": bool(self.pte & PTE_D) and bool(self.pte & PTE_PRESENT),
            "found_by": self.found.value,
        }

    def cells(self) -> list[str]:
        marks = ("A" if self.pte & PTE_A else "-") + ("D" if self.pte & PTE_D else "-")
        note = self.found.value + _FOUND_NOTES[self.found]
        return [self.mm_text, f"{self.vaddr:#x}", self.area or "-", f"{self.pte:#x}", self.perms, marks, note]


class PageView:
    """One page at one moment.  ``spec`` is an address of the moment's mm, or ``pfn:N``."""

    def __init__(self, scene: Scene, spec: str) -> None:
        self._head = scene.as_json()
        self._kernel = scene.kernel
        self._mms = scene.mms()
        self._locator = Locator(self._kernel)
        self._users = users_of(self._kernel)
        self.state: State | None = None
        self.pfn: int | None = None
        self.swap: tuple[int, int] | None = None
        self._address: int | None = None
        self._area: str | None = None
        self._find(scene.mm, spec)
        self.rows: list[PteRow] = []
        self._fields: list[tuple[str, str]] = []
        self._values: dict[str, Any] = {}
        if self.pfn is not None:
            self._describe_frame(self.pfn)
        elif self.swap is not None:
            self._describe_slot(*self.swap)

    # ---- which page ----------------------------------------------------------------------------------------------

    def _find(self, mm: MmStruct, spec: str) -> None:
        value = check_spec(spec)
        if spec.startswith("pfn:"):
            if not 0 <= value < self._kernel.pages.nr_frames:
                raise BadPage(f"there is no frame {value:#x}: the machine has {self._kernel.pages.nr_frames:#x}")
            self.pfn = value
            return
        self._address = value & -4096
        vma = mm.areas.find_exact(value)
        if vma is not None:
            self._area = short_name(self._locator.area_name(vma))
        pte = mm.pt.get(value)
        if pte:
            self.state = state_of(mm, pte)
            if is_swap_pte(pte):
                self.swap = pte_to_swp_entry(pte)
            else:
                self.pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT

    # ---- a frame -------------------------------------------------------------------------------------------------

    def _describe_frame(self, pfn: int) -> None:
        pages = self._kernel.pages
        flags = pages.flags[pfn]
        refcount, mapcount = pages.refcount[pfn], pages.mapcount[pfn]
        names = [name for bit, name in _FLAG_NAMES if flags & bit]
        owner, index = self._owner(pfn, flags)
        references = self._references(pfn, flags, refcount, mapcount)
        self.rows = self._mappings(pfn, flags)
        self._values = {
            "pfn": pfn,
            "flags": names,
            "refcount": refcount,
            "mapcount": mapcount,
            "references": references,
            "owner": owner,
            "index": index,
            "policy": self._kernel.policy.describe_page(pfn) if flags & PG_anon else None,
            "mappings": [row.as_json() for row in self.rows],
            "agree": self.is_found_by_policy,
        }
        by_whom = ", ".join(f"{count} {_HOLDERS[what]}" for what, count in references.items()) or "free"
        self._fields = [
            ("frame", f"{pfn:#x} (physical {pfn << PAGE_SHIFT:#x})"),
            ("flags", " ".join(names) or "-"),
            ("refcount", f"{refcount}: {by_whom}"),
            ("mapcount", str(mapcount)),
            ("owner", owner),
            ("index", index),
        ]

    def _owner(self, pfn: int, flags: int) -> tuple[str, str]:
        """Whose page it is, and which of theirs."""
        pages = self._kernel.pages
        mapping, index = pages.mapping[pfn], pages.index[pfn]
        if pfn == pages.zero_pfn:
            return "the kernel: the page of zeros", "-"
        if flags & PG_table:
            roots = (mm for mm in self._mms if mm.pt.root_pfn == pfn)
            mm = next(roots, mapping)  # a root is allocated before its mm is there to be named
            return f"a page table of {mm_text(mm.id, self._users)}", f"first address {index:#x}"
        if flags & PG_anon:
            policy = self._kernel.policy
            name = object_name(mapping)
            if name is None:
                return policy.describe_page(pfn), "-"
            if not policy.needs_anon_vma:  # anonmm: the index is the address
                return name, f"address {index:#x}"
            return f"{name} ({count_text(len(policy.vmas_of(mapping)), 'area')})", f"page offset {index:#x}"
        if isinstance(mapping, AddressSpace):
            return self._file_of(mapping), f"page offset {index:#x}"
        if flags & PG_reserved:
            return "the machine", "-"
        return ("nobody: free" if not pages.refcount[pfn] else "the kernel"), "-"

    def _file_of(self, mapping: AddressSpace) -> str:
        for vma in mapping.i_mmap.overlapping(0, (1 << 52) - 1):
            return f"file {self._locator.area_name(vma)}"
        kind = "shared memory" if mapping.is_shmem else "a file"
        return f"{kind}, inode {mapping.host.i_ino}"

    def _references(self, pfn: int, flags: int, refcount: int, mapcount: int) -> dict[str, int]:
        """Who holds the references, as far as it can be told."""
        if pfn == self._kernel.pages.zero_pfn or flags & PG_reserved:
            return {"kernel": refcount} if refcount else {}
        parts = {
            "page_tables": mapcount,
            "page_cache": int(isinstance(self._kernel.pages.mapping[pfn], AddressSpace)),
            "swap_cache": int(bool(flags & PG_swapcache)),
        }
        parts["kernel"] = refcount - sum(parts.values())
        return {what: count for what, count in parts.items() if count}

    # ---- mappings ------------------------------------------------------------------------------------------------

    def _mappings(self, pfn: int, flags: int) -> list[PteRow]:
        """The policy's proposals and the scan's findings, by address space and address."""
        if pfn == self._kernel.pages.zero_pfn:
            return []
        places: dict[tuple[int, int], MmStruct] = {}
        scanned = set()
        for mm in self._mms:
            for found_pfn, mapping in scan_mm(mm):
                if found_pfn == pfn:
                    places[mm.id, mapping.vaddr] = mm
                    scanned.add((mm.id, mapping.vaddr))
        is_tracked = self._kernel.policy.per_pte or self._kernel.pages.mapping[pfn] is not None
        proposed = set()
        for mm, vaddr in _proposals(self._kernel, pfn, flags):
            places[mm.id, vaddr] = mm
            proposed.add((mm.id, vaddr))
        rows = []
        for key in sorted(places):
            mm, vaddr = places[key], key[1]
            found = Found.BOTH if key in scanned and key in proposed else Found.POLICY_ONLY
            if key not in proposed:
                found = Found.SCAN_ONLY if is_tracked else Found.UNTRACKED
            vma = mm.areas.find_exact(vaddr)
            area = None if vma is None else short_name(self._locator.area_name(vma))
            pte = mm.pt.get(vaddr)
            rows.append(PteRow(mm.id, mm_text(mm.id, self._users), vaddr, area, pte, perms_of(pte), found))
        return rows

    # ---- a slot --------------------------------------------------------------------------------------------------

    def _describe_slot(self, swap_type: int, offset: int) -> None:
        area = self._kernel.swap.areas[swap_type]
        assert area is not None
        cached = area.cache[offset]
        holders = [
            {"mm": mm.id, "address": f"{vaddr:#x}"} for mm in self._mms for vaddr in _holders(mm, swap_type, offset)
        ]
        self._values = {
            "swap_type": swap_type,
            "slot": offset,
            "count": int(area.counts[offset]),
            "cached_pfn": int(cached) or None,
            "holders": holders,
        }
        self._fields = [
            ("swap", f"area {swap_type}, slot {offset}"),
            ("count", f"{area.counts[offset]} (page tables, shared memory and the swap cache)"),
            ("in memory", f"frame {cached:#x}, in the swap cache" if cached else "no"),
        ]
        self._fields += [
            ("held by", f"{mm_text(int(str(holder['mm'])), self._users)} at {holder['address']}") for holder in holders
        ]

    # ---- what was found ------------------------------------------------------------------------------------------

    @property
    def flags(self) -> list[str]:
        """Of struct page, by name; empty when the page is not in memory."""
        return list(self._values.get("flags", ()))

    @property
    def refcount(self) -> int:
        return int(self._values.get("refcount", 0))

    @property
    def mapcount(self) -> int:
        return int(self._values.get("mapcount", 0))

    @property
    def is_found_by_policy(self) -> bool:
        """Does the kernel's reverse map know every entry that maps the page?"""
        return all(row.found is not Found.SCAN_ONLY for row in self.rows)

    def __repr__(self) -> str:
        where = "" if self._address is None else f"{self._address:#x}: "
        if self.swap is not None:
            return f"<Page {where}swap {self.swap[0]}:{self.swap[1]}>"
        if self.pfn is None:
            return f"<Page {where}none>"
        return f"<Page {where}pfn {self.pfn:#x} refcount {self.refcount} mapcount {self.mapcount}>"

    # ---- output --------------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        return {
            "type": "page",
            "schema": 1,
            **self._head,
            "address": None if self._address is None else f"{self._address:#x}",
            "area": self._area,
            "state": None if self.state is None else self.state.value,
            **self._values,
        }

    def lines(self) -> list[str]:
        fields = list(self._fields)
        if self._address is not None:
            where = f"{self._address:#x} in {self._area}" if self._area is not None else f"{self._address:#x}, no area"
            fields.insert(0, ("address", where))
        if self.pfn is None and self.swap is None:
            fields.append(("page", "none: nothing is mapped there, and nothing is on swap"))
        lines = [f"{name:<10} {text}" for name, text in fields]
        if self.pfn is None:
            return lines
        if not self.rows:
            return [*lines, "mapped by no page table"]
        header = ["mapped by", "address", "area", "pte", "perms", "AD", "found by policy and scan"]
        return [*lines, "", *align(header, [row.cells() for row in self.rows])]


def check_spec(spec: str) -> int:
    """The number in an address or ``pfn:N``; BadPage when it is neither."""
    number = spec.removeprefix("pfn:")
    try:
        return int(number, 0 if spec.startswith("pfn:") else 16)
    except ValueError:
        raise BadPage(f"{spec!r} is no page; write an address, such as 0x401000, or pfn:N") from None


def _proposals(kernel: Kernel, pfn: int, flags: int) -> Iterable[tuple[MmStruct, int]]:
    """Where the kernel would look for mappings of the page, as kernel/mm/unmap.py does; counts nothing."""
    policy, pages = kernel.policy, kernel.pages
    if flags & PG_anon or policy.per_pte:
        counters = dict(vars(policy.counters))
        mapping = pages.mapping[pfn]
        found = [(proposal.mm, proposal.vaddr) for proposal in policy.walk(pfn)]
        vars(policy.counters).update(counters)
        pages.mapping[pfn] = mapping  # anonmm's walk finds a new home for pages of the dead
        return found
    mapping, pgoff = pages.mapping[pfn], pages.index[pfn]
    if not isinstance(mapping, AddressSpace):
        return []
    return [(vma.vm_mm, _address_in(vma, pgoff)) for vma in mapping.i_mmap.overlapping(pgoff, pgoff)]


def _address_in(vma: Vma, pgoff: int) -> int:
    return vma.vm_start + ((pgoff - vma.vm_pgoff) << PAGE_SHIFT)


def _holders(mm: MmStruct, swap_type: int, offset: int) -> Iterable[int]:
    """Addresses of ``mm`` whose entry names the slot."""
    for slot in sorted(mm.pt.leaf):
        table = mm.pt.leaf[slot]
        ptes = mm.pt.words[table : table + 512]
        absent = np.flatnonzero((ptes != 0) & (ptes & np.uint64(PTE_PRESENT) == 0))
        for i in absent.tolist():
            if pte_to_swp_entry(int(ptes[i])) == (swap_type, offset):
                yield (slot << 21) + (i << PAGE_SHIFT)
