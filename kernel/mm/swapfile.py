"""All swap areas of the machine: handing out slots, counting references, swapon, /proc/swaps.

Models ``mm/swapfile.c`` (2.6.7 for the rules, today's names where they are better known).  The swap cache is in
swap_state.py, swap-in in swapin.py, the system calls in swapon.py and swapoff.py.

:class:`SwapSystem` is the ``SwapOps`` that page-table code sees (``pages.swap``); there a swap entry is a PTE.
Everywhere else it is an *entry* (swap.py).  Changes of many PTEs are done with NumPy when they all belong to one
area.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernel.abi.errno import Errno, KernelError
from kernel.mm.page_io import SwapIo
from kernel.mm.swap import (
    MAX_SWAPFILES,
    PTE_ENTRY_SHIFT,
    SWAP_OFFSET_MASK,
    SWAP_TYPE_SHIFT,
    SwapArea,
    SwapDevice,
    read_swap_header,
)
from kernel.mm.swap_state import SwapCache
from kernel.mm.swapin import do_swap_page
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, Vma
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kernel.kernel import Kernel
    from kernel.mm.fault import Served
    from kernel.mm.page import PfnArray

SWAPON = Tracepoint("swap:on", "path type nr_pages prio")

_FEW = 16
"""Up to so many entries are cheaper one by one."""
_LEAST_PRIORITY = -2
"""Priority of the first area that swapon is not told one for; the next get lower ones."""
_KB_SHIFT = PAGE_SHIFT - 10


class SwapSystem:
    """Every swap area, and the swap cache."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.areas: list[SwapArea | None] = []
        """Indexed by type; None where swapoff left a gap."""
        self._by_priority: list[SwapArea] = []
        """Areas that may have free slots, best first; equals take turns."""
        self._least_priority = _LEAST_PRIORITY
        self.io = SwapIo(kernel)
        self.cache = SwapCache(kernel, self)
        self.devices: dict[bytes, SwapDevice] = {}
        """The machine's own swap devices, by the names under which programs know them."""
        self.total_swap_pages = 0
        self.nr_swap_pages = 0
        """Free slots."""
        self.peak_used_pages = 0

    # ---- areas --------------------------------------------------------------------------------------------------

    def area_of(self, entry: int) -> SwapArea:
        area = self.areas[entry >> SWAP_TYPE_SHIFT]
        if area is None:
            raise AssertionError(f"swap entry {entry:#x} of an area that is off")
        return area

    def active_areas(self) -> list[SwapArea]:
        return [area for area in self.areas if area is not None]

    def swapon_device(self, device: SwapDevice, path: bytes, prio: int | None = None) -> SwapArea:
        """Use ``device`` for swapping.  KernelError: EINVAL (no header), EPERM (too many areas)."""
        frame = bytearray(PAGE_SIZE)
        try:
            device.read_pages(0, [memoryview(frame)])
        except OSError as error:
            raise KernelError(Errno.EIO, "swap header cannot be read") from error
        nr_pages = read_swap_header(bytes(frame), device.nr_pages)
        try:
            swp_type = self.areas.index(None)
        except ValueError:
            swp_type = len(self.areas)
            if swp_type >= MAX_SWAPFILES:
                raise KernelError(Errno.EPERM, "too many swap areas") from None
            self.areas.append(None)
        if prio is None:
            prio = self._least_priority
            self._least_priority -= 1
        area = SwapArea(swp_type, path, device, nr_pages, prio)
        self.areas[swp_type] = area
        self.set_writeok(area)
        kbytes = area.pages << _KB_SHIFT
        text = path.decode("utf-8", "backslashreplace")
        self.kernel.log(f"Adding {kbytes}k swap on {text}.  Priority:{prio} extents:1 across:{kbytes}k")
        if SWAPON.on:
            SWAPON.emit(path, swp_type, area.pages, prio)
        return area

    def set_writeok(self, area: SwapArea) -> None:
        """Let slots of ``area`` be handed out (``_enable_swap_info``)."""
        area.writeok = True
        self._by_priority.append(area)
        self._by_priority.sort(key=lambda a: -a.prio)
        self.total_swap_pages += area.pages
        self.nr_swap_pages += area.pages - area.inuse_pages
        self.kernel.total_swap_pages = self.total_swap_pages

    def clear_writeok(self, area: SwapArea) -> None:
        """No more slots from ``area``: swapoff begins."""
        area.writeok = False
        self._by_priority.remove(area)
        self.total_swap_pages -= area.pages
        self.nr_swap_pages -= area.pages - area.inuse_pages
        self.kernel.total_swap_pages = self.total_swap_pages

    def forget(self, area: SwapArea) -> None:
        """``area`` is off and empty; priorities that nobody chose close up."""
        self.areas[area.swp_type] = None
        if area.prio < 0:
            for other in self._by_priority:
                if other.prio < area.prio:
                    other.prio += 1
            self._least_priority += 1

    def vm_swap_full(self) -> bool:
        """Is more than half of swap in use?  Then slots of pages that are in memory are given back."""
        return self.nr_swap_pages * 2 < self.total_swap_pages

    @property
    def used_pages(self) -> int:
        return sum(area.inuse_pages for area in self.active_areas())

    # ---- slots --------------------------------------------------------------------------------------------------

    def get_swap_page(self) -> int:
        """Allocate a slot: its entry, with one reference for the caller; 0 if swap is full."""
        areas = self._by_priority
        for i, area in enumerate(areas):
            offset = area.scan_swap_map()
            if not offset:
                continue
            self.nr_swap_pages -= 1
            used = self.total_swap_pages - self.nr_swap_pages
            if used > self.peak_used_pages:
                self.peak_used_pages = used
            if i + 1 < len(areas) and areas[i + 1].prio == area.prio:
                areas.insert(self._end_of_priority(area.prio), areas.pop(i))
            return area.entry_base | offset
        return 0

    def _end_of_priority(self, prio: int) -> int:
        """Where an area of ``prio`` must stand (the list is short of it) to be the last of its equals."""
        return sum(area.prio >= prio for area in self._by_priority) - 1

    def duplicate(self, entry: int) -> None:
        """One more reference (``swap_duplicate``)."""
        self.area_of(entry).counts[entry & SWAP_OFFSET_MASK] += 1

    def free(self, entry: int) -> int:
        """One reference less (``swap_free``); how many are left, the cache's included."""
        area = self.area_of(entry)
        offset = entry & SWAP_OFFSET_MASK
        left = area.counts[offset] - 1
        if left < 0:
            raise AssertionError(f"swap_free: unused slot {offset} of {area!r}")
        area.counts[offset] = left
        if not left:
            area.free_slot(offset)
            if area.writeok:
                self.nr_swap_pages += 1
        return int(left)

    def free_swap_and_cache(self, entry: int) -> None:
        """Drop the reference of a PTE or mapping that is going away; a page only the cache has goes with it."""
        if self.free(entry) == 1:
            area = self.area_of(entry)
            pfn = area.cache[entry & SWAP_OFFSET_MASK]
            if pfn and (self.kernel.pages.refcount[pfn] == 1 or self.vm_swap_full()):
                self.cache.delete(pfn)

    # ---- SwapOps: what page-table code calls, entries as PTEs ----------------------------------------------------

    def swap_duplicate(self, ptes: list[int]) -> None:
        """fork copied ``ptes`` into one more page table."""
        if len(ptes) > _FEW:
            for area, offsets in self._by_area(ptes):
                np.add.at(area.counts_np, offsets, 1)
            return
        for pte in ptes:
            self.duplicate(pte >> PTE_ENTRY_SHIFT)

    def swap_free(self, ptes: list[int]) -> None:
        """``ptes`` are gone from one page table."""
        if len(ptes) > _FEW:
            for area, offsets in self._by_area(ptes):
                self._free_many(area, offsets)
            return
        for pte in ptes:
            self.free_swap_and_cache(pte >> PTE_ENTRY_SHIFT)

    def swap_count(self, pte: int) -> int:
        """How many page tables and mappings hold this entry (``swp_swapcount``)."""
        entry = pte >> PTE_ENTRY_SHIFT
        area = self.area_of(entry)
        offset = entry & SWAP_OFFSET_MASK
        return int(area.counts[offset]) - (area.cache[offset] != 0)

    def try_to_free_swap(self, pfn: int) -> bool:
        return self.cache.try_to_free_swap(pfn)

    def release_swap_cache(self, pfns: PfnArray) -> None:
        self.cache.release(pfns)

    def do_swap_page(self, vma: Vma, vaddr: int, pte_word_index: int, pte: int, access: int) -> Served:
        return do_swap_page(self, vma, vaddr, pte_word_index, pte, access)

    def _by_area(self, ptes: list[int]) -> list[tuple[SwapArea, NDArray[np.int64]]]:
        entries = np.array(ptes, np.uint64) >> np.uint64(PTE_ENTRY_SHIFT)
        offsets = (entries & np.uint64(SWAP_OFFSET_MASK)).astype(np.int64)
        types = (entries >> np.uint64(SWAP_TYPE_SHIFT)).astype(np.int64)
        first = int(types[0])
        if (types == first).all():
            return [(self.area_of(ptes[0] >> PTE_ENTRY_SHIFT), offsets)]
        found = []
        for swp_type in np.unique(types).tolist():
            area = self.areas[swp_type]
            assert area is not None, f"swap entries of type {swp_type}, which is off"
            found.append((area, offsets[types == swp_type]))
        return found

    def _free_many(self, area: SwapArea, offsets: NDArray[np.int64]) -> None:
        """``free_swap_and_cache`` for slots of one area (one may stand there twice)."""
        counts = area.counts_np
        np.subtract.at(counts, offsets, 1)
        left = counts[offsets]
        if (left < 0).any():
            raise AssertionError(f"swap_free: unused slots of {area!r}")
        gone = np.unique(offsets[left == 0])
        if gone.size:
            area.free_slots(gone)
            if area.writeok:
                self.nr_swap_pages += int(gone.size)
        only_cached = offsets[(left == 1) & (area.cache_np[offsets] != 0)]
        if only_cached.size:
            refcount = self.kernel.pages.refcount
            for pfn in area.cache_np[np.unique(only_cached)].tolist():
                if refcount[pfn] == 1 or self.vm_swap_full():
                    self.cache.delete(pfn)
