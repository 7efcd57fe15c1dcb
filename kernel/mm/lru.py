"""The LRU lists: active and inactive pages in the order in which reclaim will look at them.

Models ``mm/swap.c`` (``lru_add_drain``, ``activate_page``, ``mark_page_accessed``) and the list half of
``mm/vmscan.c`` of 2.6.7: one active and one inactive list, new pages at the head, scanning from the tail, first in
first out.

A list is a queue of *tokens*, ``serial << 32 | pfn``.  ``token[pfn]`` is the only valid one of that page: putting a
page anywhere gives it a new token, so a page leaves the middle of a list in constant time by being forgotten, and
whoever frees a frame need only clear PG_lru, as the page allocator does.  Dead tokens are skipped and now and then
swept out.

Invariants (checked by rmap/check_memory.py): a page with PG_lru has its token exactly once, in the list that its
PG_active says; a page on a list is anonymous, in the page cache or in the swap cache; nothing free or reserved is
there.

Deliberate differences: no zones; today's split into anonymous and file lists (2.6.28) is made only when they are
counted; no unevictable list: locked pages go round the active list, as in 2.6.7.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from kernel.mm.filemap import AddressSpace
from kernel.mm.page import PG_active, PG_anon, PG_lru, PG_referenced, PG_swapcache

if TYPE_CHECKING:
    from kernel.kernel import Kernel

_NOT_LRU = ~PG_lru & 0xFFFF_FFFF
_NOT_ACTIVE = ~PG_active & 0xFFFF_FFFF
_NOT_REFERENCED = ~PG_referenced & 0xFFFF_FFFF
_LRU_ACTIVE = PG_lru | PG_active
_TOKEN_SHIFT = 32
_PFN_MASK = (1 << _TOKEN_SHIFT) - 1
_SHADOWS_MIN = 1024


class Lru:
    """The two lists of one machine."""

    __slots__ = ("_pages", "_serial", "_shadows", "_vmstat", "active", "inactive", "token", "token_np")

    def __init__(self, kernel: Kernel) -> None:
        self._pages = kernel.pages
        self._vmstat = kernel.vmstat
        self._serial = 1
        self._shadows: dict[tuple[object, int], None] = {}
        """(mapping, pgoff) of file pages that reclaim threw away, oldest first: whoever comes back is a refault."""
        self.active: deque[int] = deque()
        self.inactive: deque[int] = deque()
        """Tokens; the left end is the tail, where scanning takes the oldest."""
        self.token_np = np.zeros(kernel.pages.nr_frames, np.int64)
        self.token = memoryview(self.token_np)  # type: ignore[arg-type]

    # ---- counting -----------------------------------------------------------------------------------------------

    @property
    def nr_active(self) -> int:
        return int(np.count_nonzero((self._pages.flags_np & _LRU_ACTIVE) == _LRU_ACTIVE))

    @property
    def nr_inactive(self) -> int:
        return int(np.count_nonzero((self._pages.flags_np & _LRU_ACTIVE) == PG_lru))

    # ---- putting pages on the lists -----------------------------------------------------------------------------

    def drain(self) -> None:
        """``lru_add_drain``: anonymous and swap-cache pages go to the active list, file pages to the inactive."""
        pages = self._pages
        batch = pages.lru_batch
        if not batch:
            return
        flags, refcount, mapping, token = pages.flags, pages.refcount, pages.mapping, self.token
        serial = self._serial
        add_active, add_inactive = self.active.append, self.inactive.append
        for pfn in batch:
            old = flags[pfn]
            if old & PG_lru or refcount[pfn] <= 0:
                continue
            serial += 1
            mark = serial << _TOKEN_SHIFT | pfn
            if old & (PG_anon | PG_swapcache):
                flags[pfn] = old | _LRU_ACTIVE
                add_active(mark)
            elif old & PG_active:
                flags[pfn] = old | PG_lru
                add_active(mark)
            else:
                owner = mapping[pfn]
                if not isinstance(owner, AddressSpace):
                    continue  # freed since, and now a page table or the like
                flags[pfn] = old | PG_lru
                add_inactive(mark)
                if self._shadows and (owner, pages.index[pfn]) in self._shadows:
                    del self._shadows[owner, pages.index[pfn]]
                    self._vmstat.workingset_refault_file += 1
            token[pfn] = mark
        self._serial = serial
        batch.clear()
        if len(self.active) + len(self.inactive) > 3 * pages.nr_frames:
            self._sweep()

    def putback(self, pfn: int) -> None:
        """Put an isolated page at the head of the list that its PG_active names."""
        flags = self._pages.flags
        self._serial = serial = self._serial + 1
        mark = self.token[pfn] = serial << _TOKEN_SHIFT | pfn
        old = flags[pfn]
        flags[pfn] = old | PG_lru
        (self.active if old & PG_active else self.inactive).append(mark)

    def _sweep(self) -> None:
        """Throw dead tokens away."""
        for queue in (self.active, self.inactive):
            live = [mark for mark in queue if self._is_live(mark)]
            queue.clear()
            queue.extend(live)

    def _is_live(self, mark: int) -> bool:
        pfn = mark & _PFN_MASK
        return self.token[pfn] == mark and bool(self._pages.flags[pfn] & PG_lru)

    # ---- taking pages off ---------------------------------------------------------------------------------------

    def isolate(self, queue: deque[int], nr_pages: int) -> list[int]:
        """Take up to ``nr_pages`` pages from the tail of ``active`` or ``inactive``; they lose PG_lru."""
        flags, token = self._pages.flags, self.token
        taken: list[int] = []
        while queue and len(taken) < nr_pages:
            mark = queue.popleft()
            pfn = mark & _PFN_MASK
            old = flags[pfn]
            if old & PG_lru and token[pfn] == mark:
                flags[pfn] = old & _NOT_LRU
                taken.append(pfn)
        return taken

    def isolate_page(self, pfn: int) -> bool:
        """Take one page from wherever it is (``folio_isolate_lru``); False if it was on no list."""
        flags = self._pages.flags
        old = flags[pfn]
        if not old & PG_lru:
            return False
        flags[pfn] = old & _NOT_LRU
        return True

    # ---- use of a page ------------------------------------------------------------------------------------------

    def mark_page_accessed(self, pfn: int) -> None:
        """inactive, unreferenced -> inactive, referenced -> active, unreferenced -> active, referenced."""
        flags = self._pages.flags
        old = flags[pfn]
        if not old & PG_referenced:
            flags[pfn] = old | PG_referenced
        elif not old & PG_active and (old & PG_lru or pfn in self._pages.lru_batch):
            if not old & PG_lru:
                self.drain()
            self.activate_page(pfn)
            flags[pfn] &= _NOT_REFERENCED

    def activate_page(self, pfn: int) -> None:
        """Move a page of the inactive list to the head of the active one."""
        flags = self._pages.flags
        if flags[pfn] & _LRU_ACTIVE == PG_lru:
            flags[pfn] |= PG_active
            self._vmstat.pgactivate += 1
            self.putback(pfn)

    def deactivate_page(self, pfn: int) -> None:
        """Move a page of the active list to the head of the inactive one."""
        flags = self._pages.flags
        if flags[pfn] & _LRU_ACTIVE == _LRU_ACTIVE:
            flags[pfn] &= _NOT_ACTIVE & _NOT_REFERENCED
            self._vmstat.pgdeactivate += 1
            self.putback(pfn)

    # ---- refaults -----------------------------------------------------------------------------------------------

    def note_eviction(self, mapping: object, pgoff: int) -> None:
        """Reclaim throws a page of a file away (``workingset_eviction``)."""
        shadows = self._shadows
        shadows[mapping, pgoff] = None
        if len(shadows) > max(_SHADOWS_MIN, self._pages.nr_frames):
            del shadows[next(iter(shadows))]

    # ---- for the oracle -----------------------------------------------------------------------------------------

    def members(self, queue: deque[int]) -> list[int]:
        """The pages of one list, tail first."""
        return [mark & _PFN_MASK for mark in queue if self._is_live(mark)]
