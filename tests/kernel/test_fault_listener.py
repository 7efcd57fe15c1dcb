"""Faults are served the same whether or not somebody listens: first touches take another road then."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from kernel.abi.errno import KernelError
from kernel.mm.fault import FAULT_BEGIN, PAGE_FAULT_USER, touch
from kernel.mm.types import PAGE_SIZE, VM_EXEC, VM_LOCKED, VM_READ, VM_WRITE
from kernel.profile import PROFILES
from tests.kernel.fakes import make_kernel, make_mm, map_anon

BASE = 0x40_0000
AREAS = (VM_READ | VM_WRITE, VM_READ | VM_WRITE | VM_EXEC, VM_READ, VM_READ | VM_WRITE | VM_LOCKED)
PAGES = 30


def touched(profile: str, listens: bool) -> dict[str, Any]:
    """The state after a few hundred accesses, and what each answered."""
    kernel = make_kernel(profile=profile)
    mm = make_mm(kernel)
    for number, vm_flags in enumerate(AREAS):
        map_anon(mm, BASE + number * PAGES * PAGE_SIZE, PAGES, vm_flags)
    events: list[str] = []

    def listen(point: Any, values: tuple[Any, ...]) -> None:
        events.append(point.name)

    points = (FAULT_BEGIN, PAGE_FAULT_USER) if listens else ()
    for point in points:
        point.attach(listen)
    choose = random.Random(7)
    answers = []
    try:
        for _ in range(400):
            vaddr = BASE + choose.randrange(len(AREAS) * PAGES + 2) * PAGE_SIZE
            try:
                answers.append(touch(mm, vaddr, write=choose.random() < 0.7))
            except KernelError as error:
                answers.append(error.errno)
    finally:
        for point in points:
            point.detach(listen)
    if listens:
        assert events and events == [FAULT_BEGIN.name, PAGE_FAULT_USER.name] * (len(events) // 2)
    pages = kernel.pages
    arrays = (pages.refcount_np, pages.mapcount_np, pages.flags_np, pages.index_np)
    return {
        "answers": answers,
        "memory": bytes(kernel.physmem.mem),
        "pages": [array.copy() for array in arrays],
        "rss": (mm.rss_anon, mm.rss_file, mm.pt.nr_tables, pages.nr_free, list(pages.lru_batch)),
        "vmstat": (kernel.vmstat.pgfault, kernel.vmstat.pgmajfault),
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_a_listener_changes_nothing(profile: str) -> None:
    quiet, heard = touched(profile, listens=False), touched(profile, listens=True)
    for name in ("answers", "memory", "rss", "vmstat"):
        assert heard[name] == quiet[name], name
    for one, other in zip(heard["pages"], quiet["pages"], strict=True):
        assert np.array_equal(one, other)
    assert quiet["vmstat"][0] > 100
