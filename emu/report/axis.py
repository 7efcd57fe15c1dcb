"""An address space without its holes: where an address lies on the page.

An address space is almost all hole: an honest axis would show a line at the bottom and a line at the top.  Here the
parts that were ever used keep their order, each with a scale of its own (a part grows with the square root of its size,
so that one page and one gigabyte can both be seen), and the holes between them have one small width.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

PAGE = 4096
HEIGHT = 1000.0
_HOLE = 12.0
_LEAST = 18.0
"""Height of the smallest part."""
MAX_PARTS = 28
_FIRST_HOLE_BYTES = 64 * PAGE


@dataclass(frozen=True)
class Part:
    """Addresses ``start`` to ``end`` are drawn from ``low`` to ``high``."""

    start: int
    end: int
    low: float
    high: float


class AddressAxis:
    """The axis for the given ranges of addresses (any order, may overlap)."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        used = _joined(sorted(ranges))
        self.parts = _lay_out(used)
        self._starts = [part.start for part in self.parts]

    def place(self, address: int) -> float:
        """Where ``address`` lies, from 0 to HEIGHT; one in a hole lies at the nearest edge."""
        if not self.parts:
            return 0.0
        i = max(0, bisect_right(self._starts, address) - 1)
        part = self.parts[i]
        inside = min(max(address, part.start), part.end) - part.start
        return round(part.low + (part.high - part.low) * inside / (part.end - part.start), 3)

    @property
    def height(self) -> float:
        return self.parts[-1].high if self.parts else HEIGHT

    def ticks(self) -> list[tuple[float, str]]:
        """(place, label) of each part's first address."""
        return [(part.low, f"{part.start:x}") for part in self.parts]

    def holes(self) -> list[tuple[float, float]]:
        """(low, high) of each hole."""
        return [(below.high, above.low) for below, above in zip(self.parts[:-1], self.parts[1:], strict=True)]


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges with little between them become one; less little, if there would be too many parts."""
    hole_bytes = _FIRST_HOLE_BYTES
    while True:
        found: list[tuple[int, int]] = []
        for start, end in ranges:
            if found and start - found[-1][1] <= hole_bytes:
                found[-1] = (found[-1][0], max(found[-1][1], end))
            else:
                found.append((start, end))
        if len(found) <= MAX_PARTS:
            return found
        hole_bytes *= 8


def _lay_out(used: list[tuple[int, int]]) -> list[Part]:
    if not used:
        return []
    weights = [math.sqrt(max(1, (end - start) // PAGE)) for start, end in used]
    room = HEIGHT - _HOLE * (len(used) - 1) - _LEAST * len(used)
    parts = []
    low = 0.0
    for (start, end), weight in zip(used, weights, strict=True):
        high = low + _LEAST + max(room, 0.0) * weight / sum(weights)
        parts.append(Part(start, end, round(low, 3), round(high, 3)))
        low = high + _HOLE
    return parts
