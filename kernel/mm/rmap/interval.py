"""The areas of one anon_vma by page offset: who contains page ``index``?

Models ``mm/interval_tree.c`` (``anon_vma_interval_tree_*``).

Deliberate difference: no tree is kept up to date.  Areas come, go and change their ranges far more often than somebody
asks; the order is made when it is asked for the first time after a change, and only if there are many areas.  While
reclaim works, nothing changes, and a query costs O(log n + hits).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Protocol, TypeVar

from kernel.mm.types import PAGE_SHIFT, Vma


class HasVma(Protocol):
    @property
    def vma(self) -> Vma: ...


T = TypeVar("T", bound=HasVma)

_FEW = 24
_BLOCK = 32


def _pgoffs(vma: Vma) -> tuple[int, int]:
    return vma.vm_pgoff, vma.vm_pgoff + ((vma.vm_end - vma.vm_start) >> PAGE_SHIFT) - 1


class IntervalIndex(dict[T, None]):
    """Links to areas, in order of age.  Who changes an area's range calls :meth:`range_changed`."""

    __slots__ = ("_firsts", "_greatest", "_order")

    def __init__(self) -> None:
        super().__init__()
        self._order: list[tuple[int, int, T]] | None = None
        """(first page, last page, link) by first page, then age; None when out of date."""
        self._firsts: list[int] = []
        self._greatest: list[int] = []
        """Greatest last page of each ``_BLOCK`` entries of the order."""

    def add(self, link: T) -> None:
        self[link] = None
        self._order = None

    def remove(self, link: T) -> None:
        del self[link]
        self._order = None

    def range_changed(self) -> None:
        self._order = None

    def containing(self, index: int) -> Iterator[T]:
        """All links whose area has page ``index``, lowest first, then oldest first."""
        if len(self) <= _FEW:
            hits = []
            for link in self:
                vma = link.vma
                first = vma.vm_pgoff
                if first <= index < first + ((vma.vm_end - vma.vm_start) >> PAGE_SHIFT):
                    hits.append(link)
            if len(hits) > 1:
                hits.sort(key=_first_page)
            return iter(hits)
        return self._search(index)

    def _search(self, index: int) -> Iterator[T]:
        order = self._order
        if order is None:
            order = self._sort()
        stop = bisect_right(self._firsts, index)
        for block, greatest in enumerate(self._greatest[: (stop + _BLOCK - 1) // _BLOCK]):
            if greatest < index:
                continue
            start = block * _BLOCK
            for _, last, link in order[start : min(start + _BLOCK, stop)]:
                if last >= index:
                    yield link

    def _sort(self) -> list[tuple[int, int, T]]:
        order = [(*_pgoffs(link.vma), link) for link in self]
        order.sort(key=lambda entry: entry[0])
        self._order = order
        self._firsts = [first for first, _, _ in order]
        self._greatest = [
            max(last for _, last, _ in order[start : start + _BLOCK]) for start in range(0, len(order), _BLOCK)
        ]
        return order


def _first_page(link: HasVma) -> int:
    return link.vma.vm_pgoff
