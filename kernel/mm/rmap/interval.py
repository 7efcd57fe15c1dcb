"""The areas of one anon_vma by page offset: who contains page ``index``?

Models ``mm/interval_tree.c`` (``anon_vma_interval_tree_*``): an order by first page, then by age, with the greatest
last page kept for stretches of the order, so that a query looks at hits and at few others.

Deliberate difference: sorted blocks instead of a red-black tree (as kernel/mm/area.py).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_BLOCK_MAX = 64
_LAST = 1 << 64


class IntervalIndex(Generic[T]):
    """Items with closed ranges ``first .. last`` of pages.

    An item's range is given again when it is removed; it must be the one that it was added with.
    """

    __slots__ = ("_blocks", "_greatest", "_items", "_next_age")

    def __init__(self) -> None:
        self._blocks: list[list[tuple[int, int, int]]] = []
        """(first, age, last), sorted; each block not empty."""
        self._greatest: list[int] = []
        """Greatest last page of each block."""
        self._items: dict[int, T] = {}
        self._next_age = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: T, first: int, last: int) -> int:
        """Returns the item's age, by which it is removed."""
        age = self._next_age
        self._next_age += 1
        self.put(item, age, first, last)
        return age

    def put(self, item: T, age: int, first: int, last: int) -> None:
        """Add with an age that :meth:`add` gave before (the item's range has changed)."""
        self._items[age] = item
        entry = (first, age, last)
        blocks = self._blocks
        if not blocks:
            blocks.append([entry])
            self._greatest.append(last)
            return
        i = max(0, bisect_right(blocks, [entry]) - 1)
        block = blocks[i]
        insort(block, entry)
        if last > self._greatest[i]:
            self._greatest[i] = last
        if len(block) > _BLOCK_MAX:
            upper = block[_BLOCK_MAX // 2 :]
            del block[_BLOCK_MAX // 2 :]
            blocks.insert(i + 1, upper)
            self._greatest[i : i + 1] = [max(e[2] for e in block), max(e[2] for e in upper)]

    def remove(self, age: int, first: int, last: int) -> None:
        """KeyError if it is not there with this range."""
        del self._items[age]
        entry = (first, age, last)
        blocks = self._blocks
        i = max(0, bisect_right(blocks, [entry, (_LAST, 0, 0)]) - 1)
        if i >= len(blocks):
            raise KeyError(age)
        block = blocks[i]
        j = bisect_left(block, entry)
        if j == len(block) or block[j] != entry:
            raise KeyError(age)
        del block[j]
        if not block:
            del blocks[i], self._greatest[i]
        elif last == self._greatest[i]:
            self._greatest[i] = max(e[2] for e in block)

    def containing(self, index: int) -> Iterator[T]:
        """All items whose range has page ``index``, lowest first, then oldest first."""
        items = self._items
        hits = [
            age
            for block, greatest in zip(self._blocks, self._greatest, strict=True)
            if greatest >= index and block[0][0] <= index
            for first, age, last in block
            if first <= index <= last
        ]
        for age in hits:
            if age in items:
                yield items[age]

    def __iter__(self) -> Iterator[T]:
        """In order."""
        for block in list(self._blocks):
            for _first, age, _last in list(block):
                yield self._items[age]
