"""What lies under a range of addresses: its areas, where one of them ends inside it and why, how much data it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emu.check.history import History
from emu.check.model import AreaState, Boundary, Footprint
from emu.inspect.identity import anon_vma_number, verdict
from emu.trace.explain import flag_names, permission_text
from emu.trace.locate import Locator
from kernel.mm.page import PG_anon
from kernel.mm.pagetable import PTE_PRESENT, PTE_SPECIAL
from kernel.mm.types import PAGE_SHIFT, MmStruct, Vma
from mmu.paging import PTE_PFN_MASK

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_AREAS = 40
"""Of one footprint that are kept: half from its start, half from its end."""
MAX_BOUNDARIES = 20


def footprint(mm: MmStruct, start: int, end: int, locator: Locator) -> Footprint:
    """The areas that have a part in ``[start, end)``, and their data there."""
    vmas = list(_areas(mm, start, end))
    kept = vmas if len(vmas) <= MAX_AREAS else vmas[: MAX_AREAS // 2] + vmas[-MAX_AREAS // 2 :]
    areas = [area_state(vma, locator) for vma in kept]
    return Footprint(start, end, areas, len(vmas), nr_pages_with_data(mm, start, end))


def area_state(vma: Vma, locator: Locator) -> AreaState:
    return AreaState(
        start=vma.vm_start,
        end=vma.vm_end,
        perms=permission_text(vma.vm_flags),
        flags=flag_names(vma.vm_flags),
        pgoff=vma.vm_pgoff,
        name=locator.area_name(vma),
        anon_vma=anon_vma_number(vma),
    )


def boundaries(
    mm: MmStruct, start: int, end: int, locator: Locator, history: History, max_told: int = MAX_BOUNDARIES
) -> tuple[list[Boundary], int]:
    """The first places in ``[start, end)`` where one area ends, and how many there are."""
    found: list[Boundary] = []
    nr_found = 0
    for vma in _areas(mm, start, end):
        if vma.vm_end >= end:
            break
        nr_found += 1
        if len(found) < max_told:
            found.append(_boundary(vma, locator, history))
    return found, nr_found


def _boundary(lower: Vma, locator: Locator, history: History) -> Boundary:
    upper, address = lower.vm_next, lower.vm_end
    if upper is None or upper.vm_start > address:
        size = "up to the end" if upper is None else f"of {upper.vm_start - address:#x} bytes"
        return Boundary(address, area_state(lower, locator), None, "hole", f"nothing is mapped there: a hole {size}")
    found = verdict(lower, upper)
    assert found is not None, "they touch"
    reason = found.reason or "unjoined"
    numbers = [number for number in (anon_vma_number(lower), anon_vma_number(upper)) if number is not None]
    return Boundary(
        address=address,
        lower=area_state(lower, locator),
        upper=area_state(upper, locator),
        reason=reason,
        text=_text(lower, upper, reason, found.text.removeprefix("apart: ")),
        first_writes=[history.first_write(lower.vm_mm, number) for number in numbers] if reason == "anon_vma" else [],
        events=history.events_about(lower, upper, reason),
    )


def _text(lower: Vma, upper: Vma, reason: str, text: str) -> str:
    """A special area has flags that keep it apart from all others: which?"""
    differing = lower.vm_flags ^ upper.vm_flags
    return f"{text} ({', '.join(flag_names(differing))})" if reason == "special" and differing else text


def _areas(mm: MmStruct, start: int, end: int) -> Iterator[Vma]:
    vma = mm.areas.find_vma(start)
    while vma is not None and vma.vm_start < end:
        yield vma
        vma = vma.vm_next


def nr_pages_with_data(mm: MmStruct, start: int, end: int) -> int:
    """Anonymous pages that are mapped in ``[start, end)``, and swap entries: what an munmap there would lose."""
    flags = mm.kernel.pages.flags_np
    total = 0
    for _base, table, i0, i1 in mm.pt.leaf_ranges(start, end):
        ptes = mm.pt.words[table + i0 : table + i1]
        ptes = ptes[ptes != 0]
        present = (ptes & PTE_PRESENT) != 0
        pfns = (ptes[present & ((ptes & PTE_SPECIAL) == 0)] & PTE_PFN_MASK).astype(np.int64) >> PAGE_SHIFT
        total += int(np.count_nonzero(~present)) + int(np.count_nonzero(flags[pfns] & PG_anon))
    return total
