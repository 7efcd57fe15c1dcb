"""The cost of memory pressure: pages swapped in a second, and how much the reverse map has to look at.

    python -m tests.bench.pressure [--svg FILE]

Both are measured on the kernel alone, without a processor.  The table counts, for one page, the entries that a walk of
each policy visits (areas, address spaces or PTE slots) and the PTEs that are then checked, with k forked children:
for a page that all of them share, and for a page that one child has written and so has for itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel.mm.fault import handle_mm_fault
from kernel.mm.fork import dup_mm, new_mm
from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, do_mmap
from kernel.mm.types import PAGE_SIZE, MmStruct
from mmu.paging import PF_WRITE, PTE_A, PTE_D
from tests.kernel.swapfakes import PROFILES, make_swap_kernel, poke

BASE = 0x1000_0000
RAM_PAGES, SWAP_PAGES = 4096, 65536
NR_PAGES = 25600
"""100 MiB through 16 MiB."""
FAMILIES = (1, 10, 100, 1000)
NR_AREAS = 8
"""Neighbouring areas of one page, alternately RW and RWX, each written before the next is mapped (like P13)."""


# ---- pages a second -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SwapRate:
    """One pass over all pages: how many went out and came in, in how much CPU time."""

    name: str
    nr_out: int
    nr_in: int
    seconds: float

    @property
    def out_rate(self) -> float:
        return self.nr_out / self.seconds

    @property
    def in_rate(self) -> float:
        return self.nr_in / self.seconds


def swap_rates(profile: str = "2.6.7") -> Iterator[SwapRate]:
    """Fill, read and rewrite 100 MiB in order on a machine of 16 MiB."""
    kernel = make_swap_kernel(RAM_PAGES, SWAP_PAGES, profile)
    mm = _new_mm(kernel)
    do_mmap(mm, MmapRequest(BASE, NR_PAGES * PAGE_SIZE, 3, 0x32))
    for name, access in (("fill", PF_WRITE), ("read", 0), ("rewrite", PF_WRITE)):
        before = kernel.vmstat.pswpout, kernel.vmstat.pswpin
        start = time.process_time()
        _touch_all(kernel, mm, access)
        seconds = time.process_time() - start
        yield SwapRate(name, kernel.vmstat.pswpout - before[0], kernel.vmstat.pswpin - before[1], seconds)


def _touch_all(kernel: Any, mm: MmStruct, access: int) -> None:
    """What a processor would do, as cheaply as possible: fault if the PTE does not allow the access, set A and D."""
    q, reclaim = kernel.physmem.q, kernel.reclaim
    needed = 3 if access else 1
    marks = PTE_A | (PTE_D if access else 0)
    for vaddr in range(BASE, BASE + NR_PAGES * PAGE_SIZE, PAGE_SIZE):
        index = mm.pt.pte_index(vaddr)
        while index < 0 or q[index] & needed != needed:
            assert handle_mm_fault(mm, vaddr, access) <= 1
            if reclaim.kswapd_wanted:
                reclaim.kswapd_tick()
            index = mm.pt.pte_index(vaddr)
        q[index] |= marks


def _new_mm(kernel: Any) -> MmStruct:
    mm = new_mm(kernel)
    kernel.mms.append(mm)
    arch_pick_mmap_layout(mm)
    return mm


# ---- the work of a walk ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WalkWork:
    """One walk of page_referenced."""

    visited: int
    checked: int


def walk_work(profile: str, nr_children: int) -> tuple[WalkWork, WalkWork]:
    """For a page shared by a parent and ``nr_children``, and for a page that one child in the middle has for itself."""
    kernel = make_swap_kernel(4096 + 8 * nr_children, 1024, profile)
    mm = _new_mm(kernel)
    for i in range(NR_AREAS):
        do_mmap(mm, MmapRequest(BASE + i * PAGE_SIZE, PAGE_SIZE, 3 if i % 2 else 7, 0x32))
        poke(mm, BASE + i * PAGE_SIZE, i)
    children = [dup_mm(mm) for _ in range(nr_children)]
    middle = children[nr_children // 2]
    poke(middle, BASE, 99)
    return _work(kernel, mm, BASE + PAGE_SIZE), _work(kernel, middle, BASE)


def _work(kernel: Any, mm: MmStruct, vaddr: int) -> WalkWork:
    counters, stats = kernel.policy.counters, kernel.reclaim.rmap.referenced
    visited, checked = counters.nr_visited, stats.nr_checked
    kernel.reclaim.rmap.page_referenced(mm.pt.get(vaddr) >> 12 & 0xFF_FFFF_FFFF)
    return WalkWork(counters.nr_visited - visited, stats.nr_checked - checked)


def walk_table() -> dict[str, list[tuple[WalkWork, WalkWork]]]:
    return {profile: [walk_work(profile, k) for k in FAMILIES] for profile in PROFILES}


def format_table(table: dict[str, list[tuple[WalkWork, WalkWork]]]) -> str:
    """Entries visited / PTEs checked, by number of children."""
    heads = "".join(f"{f'k = {k}':>16}" for k in FAMILIES)
    lines = [f"{'kernel':<14}{'page':<9}{heads}"]
    for profile, row in table.items():
        for which, name in enumerate(("shared", "private")):
            cells = "".join(f"{f'{work[which].visited} / {work[which].checked}':>16}" for work in row)
            lines.append(f"{profile if not which else '':<14}{name:<9}{cells}")
    return "\n".join(lines)


# ---- the picture ----------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _TOP, _STEP = 760, 380, 70, 40, 85
_COLOURS = ("#1b6ca8", "#c0392b", "#27804a", "#b9770e", "#7d3c98", "#117a65", "#5d6d7e", "#a04000")


def svg(table: dict[str, list[tuple[WalkWork, WalkWork]]]) -> str:
    """Entries visited against children, log-log; shared pages left, a child's own page right."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for which, title in enumerate(("a page that all children share", "a page that one child has for itself")):
        left = _LEFT + which * 300
        parts.append(f'<text x="{left}" y="22" font-weight="bold">{title}</text>')
        parts.append(_axes(left))
        lines: dict[tuple[int, ...], list[int]] = {}
        for number, row in enumerate(table.values()):
            lines.setdefault(tuple(work[which].visited for work in row), []).append(number)
        for values, numbers in lines.items():
            points = " ".join(f"{left + i * _STEP},{_y(value):.1f}" for i, value in enumerate(values))
            for place, number in enumerate(numbers):
                dash = f"{6} {6 * (len(numbers) - 1)}" if len(numbers) > 1 else "none"
                parts.append(
                    f'<polyline points="{points}" fill="none" stroke="{_COLOURS[number]}" stroke-width="2" '
                    f'stroke-dasharray="{dash}" stroke-dashoffset="{-6 * place}"/>'
                )
    for number, profile in enumerate(table):
        y = _TOP + 14 * number + 10
        parts.append(f'<rect x="{_WIDTH - 112}" y="{y - 8}" width="10" height="10" fill="{_COLOURS[number]}"/>')
        parts.append(f'<text x="{_WIDTH - 97}" y="{y + 1}">{profile}</text>')
    parts.append(f'<text x="{_LEFT + 200}" y="{_HEIGHT - 12}">forked children</text>')
    parts.append("</svg>\n")
    return "\n".join(parts)


def _y(value: int) -> float:
    from math import log10

    return _TOP + 4 * 70 - 70 * log10(max(value, 1))


def _axes(left: int) -> str:
    parts = []
    for power in range(5):
        y = _y(10**power)
        parts.append(f'<line x1="{left}" y1="{y}" x2="{left + 3 * _STEP}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{10**power}</text>')
    for i, k in enumerate(FAMILIES):
        parts.append(f'<text x="{left + i * _STEP}" y="{_y(1) + 18}" text-anchor="middle">{k}</text>')
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pressure", description=__doc__)
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also write the picture")
    options = parser.parse_args()
    print("100 MiB through 16 MiB, kernel 2.6.7, pages per second of CPU time (target 15,000 each way):")
    for rate in swap_rates():
        print(f"  {rate.name:<8} out {rate.out_rate:>8,.0f}   in {rate.in_rate:>8,.0f}   in {rate.seconds:.2f} s")
    table = walk_table()
    print("\nEntries visited / PTEs checked by one walk, k forked children:")
    print(format_table(table))
    if options.svg is not None:
        options.svg.write_text(svg(table))


if __name__ == "__main__":
    main()
