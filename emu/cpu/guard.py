"""Pages that user code may not touch without our hearing of it: the ground that watchpoints stand on.

While the engine runs, the table entries of watched pages deny what is watched (writing, or all use by user code), so
that the page-fault callback sees every such access before it is done; all other pages keep their full speed.  Whenever
anybody else could look at the tables, they are as they were: the guard is open outside the engine and while a system
call or a page fault is served.

Invariant: ``_closed`` names exactly the entries in RAM that are changed now, each with the bit that was taken away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple

from mmu.paging import PF_INSTR, PF_WRITE, PTE_NX, PTE_P, PTE_PFN_MASK, PTE_PS, PTE_U, PTE_W
from mmu.physmem import PhysMem

_PAGE = 4096


class WatchKind(IntEnum):
    """The numbers of the remote protocol's Z packets."""

    WRITE = 2
    READ = 3
    ACCESS = 4


class Watchpoint(NamedTuple):
    """``length`` bytes from ``address`` on."""

    address: int
    length: int
    kind: WatchKind

    @property
    def end(self) -> int:
        return self.address + self.length


class PageGuard:
    """``flush_page(vaddr)`` drops a page from the engine's TLB."""

    def __init__(self, physmem: PhysMem, flush_page: Callable[[int], None]) -> None:
        self._physmem = physmem
        self._flush_page = flush_page
        self._denied: dict[int, int] = {}
        """Watched page -> the bit that is taken from its entry."""
        self._closed: dict[int, tuple[int, int]] = {}

    def watch(self, watchpoints: Iterable[Watchpoint]) -> None:
        """Replace what is guarded; the guard must be open."""
        self._denied = {}
        for point in watchpoints:
            for page in range(point.address & -_PAGE, point.end, _PAGE):
                bit = PTE_W if point.kind is WatchKind.WRITE else PTE_U
                self._denied[page] = PTE_U if self._denied.get(page, bit) == PTE_U else bit

    def close(self, cr3: int) -> None:
        """Deny: the engine is about to go on with this table."""
        q = self._physmem.q
        for page, bit in self._denied.items():
            index = self._pte_index(cr3, page)
            if index < 0 or not q[index] & PTE_P or not q[index] & bit:
                continue
            q[index] &= ~bit
            self._closed[page] = index, bit
            self._flush_page(page)

    def open(self) -> None:
        """Put the entries back; the engine will look at them again by itself."""
        q = self._physmem.q
        for index, bit in self._closed.values():
            q[index] |= bit
        self._closed.clear()

    def denies(self, vaddr: int, error_code: int) -> bool:
        """Whether an access that has faulted would have been allowed but for the guard."""
        closed = self._closed.get(vaddr & -_PAGE)
        if closed is None:
            return False
        index, bit = closed
        pte = self._physmem.q[index] | bit
        if error_code & PF_WRITE:
            return bool(pte & PTE_W)
        return not (error_code & PF_INSTR and pte & PTE_NX)

    def _pte_index(self, cr3: int, vaddr: int) -> int:
        """The word of the entry of a 4 KiB page, -1 where there is none."""
        q = self._physmem.q
        table = cr3 & PTE_PFN_MASK
        for shift in (39, 30, 21):
            entry = q[(table >> 3) + (vaddr >> shift & 511)]
            if not entry & PTE_P or (entry & PTE_PS and shift != 39):
                return -1
            table = entry & PTE_PFN_MASK
        return (table >> 3) + (vaddr >> 12 & 511)
