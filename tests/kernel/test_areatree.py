"""The area tree against a sorted list."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from kernel.mm.areatree import STACK_GUARD_GAP, AreaTree
from kernel.mm.types import PAGE_SIZE, VM_GROWSDOWN, VM_READ, Vma

LOW, HIGH = 0x1_0000, 0x4000_0000


def area(start_page: int, nr_pages: int, flags: int = VM_READ) -> Vma:
    owner: Any = None
    return Vma(owner, start_page * PAGE_SIZE, (start_page + nr_pages) * PAGE_SIZE, flags)


def gap_start(vma: Vma) -> int:
    return max(0, vma.vm_start - STACK_GUARD_GAP) if vma.vm_flags & VM_GROWSDOWN else vma.vm_start


def naive_highest(areas: list[Vma], length: int, low: int, high: int) -> int | None:
    """The highest address at which ``length`` bytes fit, page by hole."""
    edges = [(0, areas[0])] if areas else []
    edges += [(lower.vm_end, upper) for lower, upper in pairwise(areas)]
    holes = [(start, min(gap_start(upper), high)) for start, upper in edges]
    holes.append((areas[-1].vm_end if areas else 0, high))
    fitting = [end - length for start, end in holes if end - length >= max(start, low) and start < high]
    return max(fitting, default=None)


def naive_lowest(areas: list[Vma], length: int, low: int, high: int) -> int | None:
    start = low
    for vma in areas:
        if vma.vm_end <= start:
            continue
        if vma.vm_start > start and start + length <= gap_start(vma):
            break
        start = max(start, vma.vm_end)
    return start if start + length <= high else None


@pytest.mark.parametrize("seed", range(6))
def test_against_a_sorted_list(seed: int) -> None:
    rng = random.Random(seed)
    tree = AreaTree()
    areas: list[Vma] = []
    for step in range(3000):
        page, nr_pages = rng.randrange(16, 6000), rng.randint(1, 4)
        new = area(page, nr_pages, VM_READ | (VM_GROWSDOWN if rng.random() < 0.02 else 0))
        overlap = [vma for vma in areas if vma.vm_start < new.vm_end and new.vm_start < vma.vm_end]
        if not overlap:
            tree.link(new)
            areas.append(new)
            areas.sort(key=lambda vma: vma.vm_start)
        elif rng.random() < 0.6:
            tree.unlink(overlap[0])
            areas.remove(overlap[0])
        else:
            victim = overlap[0]
            before = victim.vm_prev.vm_end if victim.vm_prev is not None else 0
            start = rng.randrange(before, victim.vm_end, PAGE_SIZE)
            tree.set_range(victim, start, victim.vm_end)
        addr = rng.randrange(0, 6100 * PAGE_SIZE)
        expected = next((vma for vma in areas if vma.vm_end > addr), None)
        assert tree.find_vma(addr) is expected
        assert tree.find_exact(addr) is (expected if expected is not None and expected.vm_start <= addr else None)
        below = [vma for vma in areas if vma.vm_start < addr]
        assert tree.find_prev(addr) is (below[-1] if below else None)
        if step % 50 == 0:
            assert tree.check() == []
            assert list(tree) == areas and len(tree) == len(areas)
            for _ in range(5):
                length = rng.choice([1, 1, 2, 3, 8, 40, 400]) * PAGE_SIZE
                high = rng.randrange(LOW, 6200 * PAGE_SIZE, PAGE_SIZE)
                assert tree.highest_hole(length, LOW, high) == naive_highest(areas, length, LOW, high)
                low = rng.randrange(LOW, 6000 * PAGE_SIZE, PAGE_SIZE)
                assert tree.lowest_hole(length, low, HIGH) == naive_lowest(areas, length, low, HIGH)


def test_cutting_in_two() -> None:
    tree = AreaTree()
    whole = area(100, 10)
    tree.link(whole)
    upper = area(104, 6)
    tree.link_half(whole, upper, 104 * PAGE_SIZE)
    assert (whole.vm_start, whole.vm_end) == (100 * PAGE_SIZE, 104 * PAGE_SIZE)
    lower = area(100, 2)
    tree.link_half(whole, lower, 102 * PAGE_SIZE)
    assert [(vma.vm_start >> 12, vma.vm_end >> 12) for vma in tree] == [(100, 102), (102, 104), (104, 110)]
    assert tree.first is lower and tree.last is upper
    assert tree.check() == []


def test_many_areas() -> None:
    """65,000 neighbours made from the top down, as mmap does, and then thinned out."""
    tree = AreaTree()
    nr_areas = 65_000
    for i in range(nr_areas):
        tree.link(area(200_000 - i, 1))
    assert tree.check() == []
    assert tree.highest_hole(PAGE_SIZE, LOW, 200_001 * PAGE_SIZE) == (200_000 - nr_areas) * PAGE_SIZE
    every_third = list(tree)[::3]
    for vma in every_third:
        tree.unlink(vma)
    assert tree.check() == []
    assert len(tree) == nr_areas - len(every_third)
    assert tree.highest_hole(PAGE_SIZE, LOW, 200_001 * PAGE_SIZE) == every_third[-1].vm_start
    assert tree.highest_hole(2 * PAGE_SIZE, LOW, 200_001 * PAGE_SIZE) == (200_000 - nr_areas) * PAGE_SIZE
