"""The areas of one address space in order: find, link, unlink, look for a hole.

Models the rb-tree/maple-tree half of ``mm/mmap.c`` and ``mm/vma.c`` (``find_vma``, ``vma_link``, ``vma_adjust``'s tree
work, ``vm_unmapped_area``).

Data structure: sorted blocks of at most ``_BLOCK_MAX`` areas.  Every block keeps, beside its areas, their start
addresses (for ``bisect``) and the holes before them; the tree keeps each block's first start and greatest hole, and
the greatest hole of every ``_ROW`` blocks.  All searches are one or two bisections and at most three short scans,
so 65,000 areas cost about what 100 do.

Invariants: ``vm_prev``/``vm_next`` chain all areas in address order; blocks are never empty (but for an empty tree);
``starts[j] == vmas[j].vm_start``; ``holes[j]`` is the room before area j, down to the end of the area before it (or to
address 0), less the stack guard gap if area j grows down.

Deliberate difference: Linux has no ``vm_next`` any more; here the list makes neighbours cheap.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from kernel.mm.types import PAGE_SHIFT, VM_GROWSDOWN, Vma

STACK_GUARD_GAP = 256 << PAGE_SHIFT
"""``stack_guard_gap``: bytes that mmap leaves free below an area that grows down."""

_BLOCK_MAX = 96
_ROW_SHIFT = 5


def vm_start_gap(vma: Vma) -> int:
    """Where the room below ``vma`` ends for those who look for a hole."""
    if vma.vm_flags & VM_GROWSDOWN:
        return max(0, vma.vm_start - STACK_GUARD_GAP)
    return vma.vm_start


def _hole_before(vma: Vma) -> int:
    prev = vma.vm_prev
    start = vm_start_gap(vma)
    hole = start - prev.vm_end if prev is not None else start
    return hole if hole > 0 else 0


class _Block:
    """Up to ``_BLOCK_MAX`` neighbouring areas."""

    __slots__ = ("holes", "starts", "vmas")

    def __init__(self, starts: list[int], vmas: list[Vma], holes: list[int]) -> None:
        self.starts = starts
        self.vmas = vmas
        self.holes = holes


class AreaTree:
    """All areas of one mm, in address order.  Knows nothing of files, counters or rmap."""

    __slots__ = ("_blocks", "_firsts", "_holes", "_rows", "first", "last", "nr_areas")

    def __init__(self) -> None:
        self.first: Vma | None = None
        self.last: Vma | None = None
        self.nr_areas = 0
        self._blocks: list[_Block] = []
        self._firsts: list[int] = []
        self._holes: list[int] = []
        """Greatest hole of each block."""
        self._rows: list[int] = []
        """Greatest hole of blocks 32*r .. 32*r+31."""

    def __len__(self) -> int:
        return self.nr_areas

    def __iter__(self) -> Iterator[Vma]:
        """In address order.  The current area may be unlinked or split while the caller holds it."""
        vma = self.first
        while vma is not None:
            following = vma.vm_next
            yield vma
            vma = following

    # -- finding ------------------------------------------------------------------------------------------------

    def find_vma(self, addr: int) -> Vma | None:
        """The first area with ``addr < vm_end``; it need not contain ``addr``."""
        i = bisect_right(self._firsts, addr) - 1
        if i < 0:
            return self.first
        block = self._blocks[i]
        vma = block.vmas[bisect_right(block.starts, addr) - 1]
        return vma if vma.vm_end > addr else vma.vm_next

    def find_exact(self, addr: int) -> Vma | None:
        """The area that contains ``addr`` (``vma_lookup``)."""
        i = bisect_right(self._firsts, addr) - 1
        if i < 0:
            return None
        block = self._blocks[i]
        vma = block.vmas[bisect_right(block.starts, addr) - 1]
        return vma if vma.vm_end > addr else None

    def find_prev(self, addr: int) -> Vma | None:
        """The last area that starts below ``addr``."""
        i = bisect_right(self._firsts, addr - 1) - 1
        if i < 0:
            return None
        block = self._blocks[i]
        return block.vmas[bisect_right(block.starts, addr - 1) - 1]

    def find_intersection(self, start: int, end: int) -> Vma | None:
        """The first area that has a byte in ``[start, end)``."""
        vma = self.find_vma(start)
        return vma if vma is not None and vma.vm_start < end else None

    # -- changing -----------------------------------------------------------------------------------------------

    def link(self, vma: Vma) -> None:
        """Put ``vma`` in.  It must not overlap any area of the tree."""
        start = vma.vm_start
        i = bisect_right(self._firsts, start) - 1
        if i < 0:
            self._link_first(vma)
            return
        block = self._blocks[i]
        j = bisect_right(block.starts, start)
        prev = block.vmas[j - 1]
        following = prev.vm_next
        vma.vm_prev = prev
        vma.vm_next = following
        prev.vm_next = vma
        block.starts.insert(j, start)
        block.vmas.insert(j, vma)
        block.holes.insert(j, 0)
        self.nr_areas += 1
        if following is None:
            self.last = vma
        else:
            following.vm_prev = vma
            self._hole_changed(following, i, j + 1)
        self._set_hole(i, j, _hole_before(vma))
        if len(block.vmas) > _BLOCK_MAX:
            self._halve(i)

    def _link_first(self, vma: Vma) -> None:
        """``vma`` becomes the lowest area."""
        following = self.first
        vma.vm_prev = None
        vma.vm_next = following
        self.first = vma
        self.nr_areas += 1
        hole = _hole_before(vma)
        if following is None:
            self.last = vma
            self._blocks.append(_Block([vma.vm_start], [vma], [hole]))
            self._firsts.append(vma.vm_start)
            self._holes.append(hole)
            self._rows.append(hole)
            return
        following.vm_prev = vma
        block = self._blocks[0]
        block.starts.insert(0, vma.vm_start)
        block.vmas.insert(0, vma)
        block.holes.insert(0, 0)
        self._firsts[0] = vma.vm_start
        self._set_hole(0, 1, _hole_before(following))
        self._set_hole(0, 0, hole)
        if len(block.vmas) > _BLOCK_MAX:
            self._halve(0)

    def link_half(self, vma: Vma, new: Vma, addr: int) -> None:
        """``vma`` is cut at ``addr`` and ``new`` is the other half: set both ranges and put ``new`` in.

        ``new`` still has the range of ``vma`` but for the side at ``addr``: it tells which half it is.
        """
        i = bisect_right(self._firsts, vma.vm_start) - 1
        block = self._blocks[i]
        j = bisect_right(block.starts, vma.vm_start) - 1
        if new.vm_start == addr:
            following = vma.vm_next
            vma.vm_end = addr
            new.vm_prev = vma
            new.vm_next = following
            vma.vm_next = new
            if following is None:
                self.last = new
            else:
                following.vm_prev = new
            block.vmas.insert(j + 1, new)
        else:
            prev = vma.vm_prev
            vma.vm_start = addr
            new.vm_next = vma
            new.vm_prev = prev
            vma.vm_prev = new
            if prev is None:
                self.first = new
            else:
                prev.vm_next = new
            block.vmas.insert(j, new)
        block.starts.insert(j + 1, addr)
        block.holes.insert(j + 1, 0)
        self.nr_areas += 1
        if len(block.vmas) > _BLOCK_MAX:
            self._halve(i)

    def unlink(self, vma: Vma) -> None:
        """Take ``vma`` out.  Its ``vm_prev`` and ``vm_next`` keep their values."""
        i = bisect_right(self._firsts, vma.vm_start) - 1
        block = self._blocks[i]
        j = bisect_right(block.starts, vma.vm_start) - 1
        if block.vmas[j] is not vma:
            raise AssertionError(f"{vma!r} is not in this tree")
        prev, following = vma.vm_prev, vma.vm_next
        if prev is None:
            self.first = following
        else:
            prev.vm_next = following
        if following is None:
            self.last = prev
        else:
            following.vm_prev = prev
        self.nr_areas -= 1
        hole = block.holes[j]
        del block.starts[j], block.vmas[j], block.holes[j]
        if not block.vmas:
            del self._blocks[i], self._firsts[i], self._holes[i]
            self._rebuild_rows()
            if following is not None:
                self._hole_changed(following, i, 0)
            return
        if j == 0:
            self._firsts[i] = block.starts[0]
        if hole == self._holes[i]:
            self._block_maximum_fell(i)
        if following is not None:
            self._hole_changed(following, i, j)

    def set_range(self, vma: Vma, start: int, end: int) -> None:
        """Move the edges of ``vma``.  The order of areas must not change."""
        following = vma.vm_next
        if start != vma.vm_start:
            i = bisect_right(self._firsts, vma.vm_start) - 1
            block = self._blocks[i]
            j = bisect_right(block.starts, vma.vm_start) - 1
            vma.vm_start = start
            block.starts[j] = start
            if j == 0:
                self._firsts[i] = start
            self._set_hole(i, j, _hole_before(vma))
        if end != vma.vm_end:
            vma.vm_end = end
            if following is not None:
                i = bisect_right(self._firsts, following.vm_start) - 1
                block = self._blocks[i]
                self._set_hole(i, bisect_right(block.starts, following.vm_start) - 1, _hole_before(following))

    # -- holes --------------------------------------------------------------------------------------------------

    def _hole_changed(self, vma: Vma, i: int, j: int) -> None:
        """Recompute the hole before ``vma``, which is at place ``j`` of block ``i`` or first in the block after."""
        if j >= len(self._blocks[i].vmas):
            i, j = i + 1, 0
        self._set_hole(i, j, _hole_before(vma))

    def _set_hole(self, i: int, j: int, hole: int) -> None:
        holes = self._blocks[i].holes
        old = holes[j]
        holes[j] = hole
        greatest = self._holes[i]
        if hole >= greatest:
            self._holes[i] = hole
            if hole > self._rows[i >> _ROW_SHIFT]:
                self._rows[i >> _ROW_SHIFT] = hole
        elif old == greatest:
            self._block_maximum_fell(i)

    def _block_maximum_fell(self, i: int) -> None:
        old = self._holes[i]
        new = self._holes[i] = max(self._blocks[i].holes)
        row = i >> _ROW_SHIFT
        if old != new and self._rows[row] == old:
            self._rows[row] = max(self._holes[row << _ROW_SHIFT : (row + 1) << _ROW_SHIFT])

    def _rebuild_rows(self) -> None:
        size = 1 << _ROW_SHIFT
        self._rows = [max(self._holes[k : k + size]) for k in range(0, len(self._holes), size)]

    def _halve(self, i: int) -> None:
        block = self._blocks[i]
        # Growing downwards is the usual way of mmap: leave the low half the smaller one.
        half = len(block.vmas) // 3
        upper = _Block(block.starts[half:], block.vmas[half:], block.holes[half:])
        del block.starts[half:], block.vmas[half:], block.holes[half:]
        self._blocks.insert(i + 1, upper)
        self._firsts.insert(i + 1, upper.starts[0])
        self._holes[i : i + 1] = [max(block.holes), max(upper.holes)]
        self._rebuild_rows()

    def highest_hole(self, length: int, low: int, high: int) -> int | None:
        """Where ``length`` bytes fit highest in ``[low, high)``, or None (``unmapped_area_topdown``)."""
        above = self.find_vma(high - 1)
        ceiling = high if above is None else min(high, vm_start_gap(above))
        below = self.last if above is None else above.vm_prev
        addr = ceiling - length
        if addr >= low and (below is None or below.vm_end <= addr):
            return addr
        if below is None:
            return None
        i = bisect_right(self._firsts, below.vm_start) - 1
        block = self._blocks[i]
        j = bisect_right(block.starts, below.vm_start) - 1
        holes = block.holes
        while j >= 0 and holes[j] < length:
            j -= 1
        if j < 0:
            i = self._block_below(i, length)
            if i < 0:
                return None
            block = self._blocks[i]
            holes = block.holes
            j = len(holes) - 1
            while holes[j] < length:
                j -= 1
        addr = vm_start_gap(block.vmas[j]) - length
        return addr if addr >= low else None

    def _block_below(self, i: int, length: int) -> int:
        """The last block before block ``i`` with a hole of ``length``; -1 if there is none."""
        holes = self._holes
        i -= 1
        row_start = (i >> _ROW_SHIFT) << _ROW_SHIFT
        while i >= row_start and i >= 0:
            if holes[i] >= length:
                return i
            i -= 1
        row = i >> _ROW_SHIFT
        rows = self._rows
        while row >= 0 and rows[row] < length:
            row -= 1
        if i < 0 or row < 0:
            return -1
        i = ((row + 1) << _ROW_SHIFT) - 1
        while holes[i] < length:
            i -= 1
        return i

    def lowest_hole(self, length: int, low: int, high: int) -> int | None:
        """Where ``length`` bytes fit lowest in ``[low, high)``, or None (``unmapped_area``)."""
        above = self.find_vma(low)
        addr = low if above is None or above.vm_start > low else above.vm_end
        if above is not None and above.vm_start <= low:
            above = above.vm_next
        if addr + length > high:
            return None
        if above is None or addr + length <= vm_start_gap(above):
            return addr
        i = bisect_right(self._firsts, above.vm_start) - 1
        block = self._blocks[i]
        holes = block.holes
        j = bisect_right(block.starts, above.vm_start)
        while j < len(holes) and holes[j] < length:
            j += 1
        if j == len(holes):
            i = self._block_above(i, length)
            if i < 0:
                assert self.last is not None
                addr = self.last.vm_end
                return addr if addr + length <= high else None
            block = self._blocks[i]
            holes = block.holes
            j = 0
            while holes[j] < length:
                j += 1
        prev = block.vmas[j].vm_prev
        assert prev is not None
        return prev.vm_end if prev.vm_end + length <= high else None

    def _block_above(self, i: int, length: int) -> int:
        """The first block after block ``i`` with a hole of ``length``; -1 if there is none."""
        holes = self._holes
        nr_blocks = len(holes)
        i += 1
        row_end = min(nr_blocks, ((i >> _ROW_SHIFT) + 1) << _ROW_SHIFT)
        while i < row_end:
            if holes[i] >= length:
                return i
            i += 1
        rows = self._rows
        row = i >> _ROW_SHIFT
        while row < len(rows) and rows[row] < length:
            row += 1
        if i >= nr_blocks or row >= len(rows):
            return -1
        i = row << _ROW_SHIFT
        while holes[i] < length:
            i += 1
        return i

    def check(self) -> list[str]:
        """What is wrong with the tree itself (empty when all is well); for rmap/check.py."""
        wrong: list[str] = []
        prev: Vma | None = None
        count = 0
        for i, block in enumerate(self._blocks):
            if block.starts != [vma.vm_start for vma in block.vmas]:
                wrong.append(f"block {i}: starts differ from its areas")
            if block.holes != [_hole_before(vma) for vma in block.vmas]:
                wrong.append(f"block {i}: holes differ from its areas")
            if not block.vmas or self._firsts[i] != block.starts[0] or self._holes[i] != max(block.holes):
                wrong.append(f"block {i}: first start or greatest hole wrong")
            for vma in block.vmas:
                count += 1
                if vma.vm_prev is not prev or (self.first if prev is None else prev.vm_next) is not vma:
                    wrong.append(f"{vma!r}: vm_prev/vm_next differ from the order of the tree")
                prev = vma
        if self.last is not prev or (prev is not None and prev.vm_next is not None) or count != self.nr_areas:
            wrong.append("last area or number of areas wrong")
        rows = list(self._rows)
        self._rebuild_rows()
        if rows != self._rows:
            wrong.append("row maxima wrong")
        return wrong
