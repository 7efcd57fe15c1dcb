"""Kernels that decide otherwise what mremap(2) leaves open: kernel/mm/what_if.py, for every profile and rule set.

Contents, places and errors follow from the text there; accounting and the reverse map are recounted after every call.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.abi.errno import Errno, KernelError
from kernel.mm.exit import mmput
from kernel.mm.fault import MAJOR, touch
from kernel.mm.fork import dup_mm, new_mm
from kernel.mm.mlock import do_mlock
from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, vm_mmap
from kernel.mm.mprotect import do_mprotect
from kernel.mm.mremap import MremapRequest, do_mremap
from kernel.mm.munmap import do_munmap
from kernel.mm.rmap.check import check_all
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, VM_LOCKED, VM_MAYSHARE, MmStruct
from kernel.mm.what_if import WhatIf
from tests.kernel.swapfakes import PROFILES, make_swap_kernel, peek, poke

BASE = 0x1000_0000
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 1, 2, 0x10, 0x20
MAYMOVE, FIXED, DONTUNMAP = 1, 2, 4
R, RW = 1, 3
RULES_OF = {"2.6.7": "2.6", "6.1": "6.1", "6.18": "6.17"}
all_profiles = pytest.mark.parametrize("profile", PROFILES)
all_rules = pytest.mark.parametrize("profile", RULES_OF)


def at(page: int) -> int:
    return BASE + (page << PAGE_SHIFT)


class Guest:
    """One address space on a kernel of its own; every call is followed by all checks."""

    def __init__(self, profile: str, mm: MmStruct | None = None, **what_if: bool) -> None:
        if mm is None:
            kernel = make_swap_kernel(400, 400, profile)
            kernel.what_if = WhatIf(**what_if)
            mm = new_mm(kernel)
            arch_pick_mmap_layout(mm)
            kernel.mms.append(mm)
        self.mm = mm
        self.kernel: Any = mm.kernel

    def check(self) -> None:
        assert check_all(self.kernel) == []

    def map(self, page: int, nr_pages: int, prot: int = RW, flags: int = MAP_PRIVATE) -> None:
        flags |= MAP_FIXED | MAP_ANONYMOUS
        vm_mmap(self.mm, MmapRequest(at(page), nr_pages << PAGE_SHIFT, prot, flags))

    def protect(self, page: int, nr_pages: int, prot: int) -> None:
        do_mprotect(self.mm, at(page), nr_pages << PAGE_SHIFT, prot)

    def fill(self, page: int, nr_pages: int) -> None:
        """Page p holds p + 1."""
        for p in range(page, page + nr_pages):
            assert poke(self.mm, at(p), p + 1).value <= 1

    def spanning(self) -> None:
        """Pages 0 to 5, filled, in three areas: 0-1 rw, 2-3 r, 4-5 rw."""
        self.map(0, 6)
        self.fill(0, 6)
        self.protect(2, 2, R)

    def remap(self, page: int, old: int, new: int, flags: int, to: int = 0) -> int:
        """mremap; the page where the range now begins."""
        request = MremapRequest(at(page), old << PAGE_SHIFT, new << PAGE_SHIFT, flags, at(to) if to else 0)
        try:
            return (do_mremap(self.mm, request) - BASE) >> PAGE_SHIFT
        finally:
            self.check()

    def refused(self, page: int, old: int, new: int, flags: int, to: int = 0) -> str:
        with pytest.raises(KernelError) as caught:
            self.remap(page, old, new, flags, to)
        return str(caught.value)

    def content(self, page: int, nr_pages: int) -> list[int | None]:
        """The word that each page begins with; None where nothing is mapped."""
        mapped = [self.mm.areas.find_exact(at(p)) is not None for p in range(page, page + nr_pages)]
        found = [peek(self.mm, at(page + i)) if here else None for i, here in enumerate(mapped)]
        self.check()
        return found

    def areas(self) -> list[tuple[int, int, int]]:
        """(first page, number of pages, protection)."""
        return [((vma.vm_start - BASE) >> PAGE_SHIFT, vma.nr_pages, vma.vm_flags & 7) for vma in self.mm.areas]


# ---- never grow in place --------------------------------------------------------------------------------------------


@all_profiles
def test_never_grow_in_place(profile: str) -> None:
    guest = Guest(profile, never_grow_in_place=True)
    guest.map(0, 2)
    guest.fill(0, 2)
    assert guest.refused(0, 2, 3, 0) == "ENOMEM (what if: never grow in place)"
    assert guest.content(0, 3) == [1, 2, None]
    there = guest.remap(0, 2, 3, MAYMOVE)
    assert there not in (0, 1, 2)
    assert guest.content(there, 3) == [1, 2, 0]
    assert guest.content(0, 2) == [None, None]
    # What is no growth is as ever, and where there is no room the reason is the ordinary one.
    assert guest.remap(there, 3, 3, MAYMOVE) == there
    assert guest.remap(there, 3, 1, 0) == there
    guest.map(there + 1, 1, R)
    assert guest.refused(there, 1, 2, 0) == "ENOMEM (no room to grow and no MREMAP_MAYMOVE)"


# ---- always move ----------------------------------------------------------------------------------------------------


@all_profiles
@pytest.mark.parametrize(("old", "new"), [(4, 4), (4, 2), (4, 7)])
def test_always_move(profile: str, old: int, new: int) -> None:
    guest = Guest(profile, always_move=True)
    guest.map(0, old)
    guest.fill(0, old)
    there = guest.remap(0, old, new, MAYMOVE)
    assert guest.content(there, new) == [*range(1, min(old, new) + 1), *[0] * (new - old)]
    untouched = [p for p in range(old) if not there <= p < there + new]
    assert there != 0 and untouched
    assert all(guest.mm.areas.find_exact(at(p)) is None for p in untouched)
    assert guest.mm.total_vm == new


@all_profiles
def test_always_move_leaves_calls_without_maymove_alone(profile: str) -> None:
    guest = Guest(profile, always_move=True)
    guest.map(0, 4)
    guest.fill(0, 4)
    assert [guest.remap(0, 4, 4, 0), guest.remap(0, 4, 6, 0), guest.remap(0, 6, 3, 0)] == [0, 0, 0]
    assert guest.content(0, 4) == [1, 2, 3, None]
    assert guest.remap(0, 3, 3, MAYMOVE | FIXED, 50) == 50


@all_profiles
def test_always_move_moves_areas_together(profile: str) -> None:
    """A range of several areas that a call without growth leaves alone otherwise."""
    guest = Guest(profile, always_move=True)
    guest.spanning()
    there = guest.remap(0, 6, 5, MAYMOVE)
    assert there != 0
    assert guest.content(there, 5) == [1, 2, 3, 4, 5]
    assert [prot for _, _, prot in guest.areas()] == [RW, R, RW]


@all_profiles
def test_always_move_stays_where_nothing_can_move(profile: str) -> None:
    guest = Guest(profile, always_move=True)
    guest.map(0, 3)
    guest.fill(0, 3)
    guest.kernel.sysctl.max_map_count = 3
    assert guest.remap(0, 3, 3, MAYMOVE) == 0
    assert guest.remap(0, 3, 5, MAYMOVE) == 0
    assert guest.content(0, 6) == [1, 2, 3, 0, 0, None]


@all_profiles
def test_always_move_keeps_locked_memory_locked(profile: str) -> None:
    guest = Guest(profile, always_move=True)
    guest.map(0, 4)
    do_mlock(guest.mm, at(0), 4 << PAGE_SHIFT, VM_LOCKED)
    there = guest.remap(0, 4, 6, MAYMOVE)
    assert there != 0
    assert guest.mm.locked_vm == 6 and guest.mm.rss == 6


def test_2_6_succeeds_for_nothing_at_all() -> None:
    """By the rules of 2.6 a range that does not grow is not even looked up: there is nothing to move."""
    guest = Guest("2.6.7", always_move=True)
    guest.map(0, 1)
    assert guest.remap(10, 2, 2, MAYMOVE) == 10
    assert guest.remap(0, 3, 3, MAYMOVE) == 0


# ---- no move after fork ---------------------------------------------------------------------------------------------


@all_profiles
def test_no_move_after_fork(profile: str) -> None:
    guest = Guest(profile, no_move_after_fork=True)
    guest.map(0, 2)
    guest.fill(0, 2)
    first = guest.remap(0, 2, 2, MAYMOVE | FIXED, 20)  # before fork
    child = Guest(profile, dup_mm(guest.mm))
    guest.kernel.mms.append(child.mm)
    for one in (guest, child):
        assert one.refused(first, 2, 2, MAYMOVE | FIXED, 40) == "ENOMEM (what if: no move after fork)"
        assert one.content(first, 2) == [1, 2]
        assert one.remap(first, 2, 4, MAYMOVE) == first, "there is room to grow"
        one.map(first + 4, 1, R)
        assert one.refused(first, 4, 5, MAYMOVE) == "ENOMEM (what if: no move after fork)"
        assert one.remap(first, 4, 3, MAYMOVE) == first
    # Still refused when the other one is gone: it is the address space that has forked.
    guest.kernel.mms.remove(child.mm)
    mmput(child.mm)
    assert guest.refused(first, 3, 3, MAYMOVE | FIXED, 40).startswith("ENOMEM")
    # exec begins anew.
    fresh = Guest(profile, new_mm(guest.kernel))
    guest.kernel.mms.append(fresh.mm)
    arch_pick_mmap_layout(fresh.mm)
    fresh.map(0, 2)
    assert fresh.remap(0, 2, 2, MAYMOVE | FIXED, 20) == 20


@all_profiles
def test_shared_memory_moves_after_fork(profile: str) -> None:
    guest = Guest(profile, no_move_after_fork=True)
    guest.map(0, 2, flags=MAP_SHARED)
    guest.fill(0, 2)
    child = Guest(profile, dup_mm(guest.mm))
    guest.kernel.mms.append(child.mm)
    assert child.remap(0, 2, 2, MAYMOVE | FIXED, 20) == 20
    assert child.content(20, 2) == guest.content(0, 2) == [1, 2]


@all_profiles
def test_always_move_after_fork_stays(profile: str) -> None:
    guest = Guest(profile, no_move_after_fork=True, always_move=True)
    guest.map(0, 2)
    guest.fill(0, 2)
    guest.kernel.mms.append(dup_mm(guest.mm))
    assert guest.remap(0, 2, 2, MAYMOVE) == 0
    assert guest.remap(0, 2, 4, MAYMOVE) == 0
    assert guest.content(0, 5) == [1, 2, 0, 0, None]


# ---- split spanning -------------------------------------------------------------------------------------------------


@all_profiles
def test_what_spans_areas_is_refused_otherwise(profile: str) -> None:
    guest = Guest(profile)
    guest.spanning()
    assert guest.refused(0, 6, 8, MAYMOVE) == "EFAULT (range spans areas)"


@all_profiles
def test_growth_in_place(profile: str) -> None:
    guest = Guest(profile, split_spanning=True)
    guest.spanning()
    for flags in (0, MAYMOVE):
        assert guest.remap(0, 6, 8, flags) == 0
        assert guest.areas() == [(0, 2, RW), (2, 2, R), (4, 4, RW)]
        assert guest.content(0, 9) == [1, 2, 3, 4, 5, 6, 0, 0, None]
        guest.remap(0, 8, 6, 0)


@all_profiles
def test_growth_elsewhere(profile: str) -> None:
    guest = Guest(profile, split_spanning=True)
    guest.spanning()
    guest.map(6, 1, R)
    assert guest.refused(0, 6, 9, 0) == "ENOMEM (no room to grow and no MREMAP_MAYMOVE)"
    there = guest.remap(0, 6, 9, MAYMOVE)
    assert guest.areas() == [(6, 1, R), (there, 2, RW), (there + 2, 2, R), (there + 4, 5, RW)]
    assert guest.content(there, 9) == [1, 2, 3, 4, 5, 6, 0, 0, 0]
    assert guest.mm.total_vm == 10


@all_profiles
def test_growth_to_a_fixed_place(profile: str) -> None:
    guest = Guest(profile, split_spanning=True)
    guest.spanning()
    guest.map(30, 10)
    guest.fill(30, 10)
    assert guest.remap(0, 6, 8, MAYMOVE | FIXED, 31) == 31
    assert guest.content(30, 10) == [31, 1, 2, 3, 4, 5, 6, 0, 0, 40]
    assert guest.content(0, 6) == [None] * 6


@all_profiles
def test_shrinking_to_a_fixed_place(profile: str) -> None:
    guest = Guest(profile, split_spanning=True)
    guest.spanning()
    assert guest.remap(0, 6, 3, MAYMOVE | FIXED, 31) == 31
    assert guest.areas() == [(31, 2, RW), (33, 1, R)]
    assert guest.content(31, 3) == [1, 2, 3]


@all_profiles
def test_a_part_of_areas(profile: str) -> None:
    """From the middle of the first area to the middle of the last: there is no growing in place there."""
    guest = Guest(profile, split_spanning=True)
    guest.spanning()
    there = guest.remap(1, 4, 5, MAYMOVE)
    assert guest.content(there, 5) == [2, 3, 4, 5, 0]
    assert guest.content(0, 6) == [1, None, None, None, None, 6]


@pytest.mark.parametrize("profile", ["6.1", "6.18"])
def test_dontunmap(profile: str) -> None:
    guest = Guest(profile, split_spanning=True)
    guest.spanning()
    there = guest.remap(0, 6, 6, MAYMOVE | DONTUNMAP)
    assert guest.content(there, 6) == [1, 2, 3, 4, 5, 6]
    assert guest.content(0, 6) == [0] * 6
    guest.fill(there + 4, 2)
    assert guest.remap(there, 6, 6, MAYMOVE | DONTUNMAP | FIXED, 60) == 60
    assert guest.content(60, 4) == [1, 2, 3, 4]


@all_profiles
def test_holes_stay_efault(profile: str) -> None:
    guest = Guest(profile, split_spanning=True)
    guest.spanning()
    do_munmap(guest.mm, at(3), PAGE_SIZE)
    before = guest.areas()
    assert guest.refused(0, 6, 7, MAYMOVE) == "EFAULT (range spans areas and has a hole)"
    assert guest.refused(0, 7, 8, MAYMOVE).startswith("EFAULT")
    assert guest.refused(3, 3, 4, MAYMOVE) == "EFAULT (no area at the old address)"
    assert guest.areas() == before


@all_profiles
def test_all_or_nothing_at_the_limit_of_areas(profile: str) -> None:
    """For every max_map_count: the call succeeds, or everything is where it was."""
    results = set()
    for limit in range(8, 20):
        guest = Guest(profile, split_spanning=True)
        guest.spanning()
        guest.map(6, 1, R)
        guest.map(20, 1, R)
        before = guest.areas(), guest.content(0, 7), guest.mm.total_vm, guest.kernel.vm_stat.committed_pages
        guest.kernel.sysctl.max_map_count = limit
        try:
            guest.remap(1, 5, 8, MAYMOVE)
        except KernelError as error:
            assert error.errno == Errno.ENOMEM
            after = guest.areas(), guest.content(0, 7), guest.mm.total_vm, guest.kernel.vm_stat.committed_pages
            assert after == before
            results.add("refused")
        else:
            results.add("moved")
    assert results == {"refused", "moved"}


class _FailNth:
    def __init__(self, kernel: Any, nth: int) -> None:
        self.left = nth
        kernel.pages.inject_failures(self)

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


_GROWING = [(profile, 6, MAYMOVE | FIXED) for profile in PROFILES]
_KEEPING = [(profile, 4, MAYMOVE | DONTUNMAP) for profile in ("6.1", "6.18")]  # there the address is a hint


@pytest.mark.parametrize(("profile", "new_len", "flags"), _GROWING + _KEEPING)
def test_all_or_nothing_without_memory(profile: str, new_len: int, flags: int) -> None:
    """Each allocation of the call fails in turn (once: moving back gets its memory); nothing may have changed."""
    nth = nr_refused = 0
    while True:
        nth += 1
        guest = Guest(profile, split_spanning=True)
        guest.map(510, 4)
        guest.fill(510, 4)
        guest.protect(511, 2, R)
        child = Guest(profile, dup_mm(guest.mm))
        guest.kernel.mms.append(child.mm)
        free_before = child.content(510, 4), child.areas(), child.mm.total_vm, guest.kernel.vm_stat.committed_pages
        failing = _FailNth(guest.kernel, nth)
        try:
            child.remap(510, 4, new_len, flags, 0x4_01FF)
        except KernelError as error:
            failing.left = 0
            assert error.errno == Errno.ENOMEM
            nr_refused += 1
            after = child.content(510, 4), child.areas(), child.mm.total_vm, guest.kernel.vm_stat.committed_pages
            assert after == free_before
        else:
            failing.left = 0
            assert child.content(0x4_01FF, new_len) == [511, 512, 513, 514, 0, 0][:new_len]
            break
        assert guest.content(510, 4) == [511, 512, 513, 514]
    assert nr_refused >= 2


@all_profiles
def test_split_and_always_move(profile: str) -> None:
    guest = Guest(profile, split_spanning=True, always_move=True)
    guest.spanning()
    there = guest.remap(0, 6, 8, MAYMOVE)
    assert there != 0
    assert guest.content(there, 8) == [1, 2, 3, 4, 5, 6, 0, 0]
    guest.kernel.what_if = WhatIf(split_spanning=True, never_grow_in_place=True)
    assert guest.refused(there, 8, 9, 0) == "ENOMEM (what if: never grow in place)"


# ---- whatever is done -----------------------------------------------------------------------------------------------

NR_PAGES = 24
_pages, _lengths = st.integers(0, NR_PAGES - 1), st.integers(1, 6)
_flags = st.sampled_from([0, MAYMOVE, MAYMOVE, MAYMOVE, MAYMOVE | FIXED])
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("map"), _pages, _lengths, st.sampled_from([R, RW, RW])),
        st.tuples(st.just("map shared"), _pages, _lengths, st.sampled_from([R, RW, RW])),
        st.tuples(st.just("protect"), _pages, _lengths, st.sampled_from([R, RW])),
        st.tuples(st.just("unmap"), _pages, _lengths),
        st.tuples(st.just("lock"), _pages, _lengths),
        st.tuples(st.just("fork")),
        st.tuples(st.just("remap"), _pages, _lengths, _lengths, _flags, _pages),
        st.tuples(st.just("remap"), _pages, _lengths, _lengths, _flags, _pages),
        st.tuples(st.just("remap last"), st.integers(-3, 6)),
    ),
    min_size=4,
    max_size=14,
)
_what_ifs = st.builds(WhatIf, st.booleans(), st.booleans(), st.booleans(), st.booleans())


class Model:
    """Runs steps and compares memory with what mremap(2) promises."""

    def __init__(self, profile: str, what_if: WhatIf) -> None:
        self.guest = Guest(profile)
        self.guest.kernel.what_if = what_if
        self.memory: dict[int, int] = {}
        """Page -> word, of everything that is mapped."""
        self.last = (0, 1)
        self.children: list[tuple[MmStruct, dict[int, int]]] = []
        """Forked address spaces, which nobody touches, and what they hold."""

    def observed(self, mm: MmStruct | None = None) -> dict[int, int]:
        mm = mm or self.guest.mm
        pages = [p for vma in mm.areas for p in range(vma.vm_start, vma.vm_end, PAGE_SIZE)]
        # Beyond the end of a shared object, where a mapping may grow to, there is nothing (SIGBUS).
        return {(p - BASE) >> PAGE_SHIFT: peek(mm, p) if touch(mm, p) <= MAJOR else 0 for p in pages}

    def step(self, kind: str, *args: int) -> None:
        guest = self.guest
        if kind in ("map", "map shared"):
            page, nr_pages, prot = args
            guest.map(page, nr_pages, flags=MAP_PRIVATE if kind == "map" else MAP_SHARED)
            guest.fill(page, nr_pages)
            guest.protect(page, nr_pages, prot)
        elif kind == "fork":
            child = dup_mm(guest.mm)
            guest.kernel.mms.append(child)
            self.children.append((child, dict(self.memory)))
        elif kind == "unmap":
            do_munmap(guest.mm, at(args[0]), args[1] << PAGE_SHIFT)
        elif kind in ("protect", "lock"):
            page, nr_pages, *prot = args
            try:
                if prot:
                    guest.protect(page, nr_pages, prot[0])
                else:
                    do_mlock(guest.mm, at(page), nr_pages << PAGE_SHIFT, VM_LOCKED)
            except KernelError as error:
                assert error.errno in (Errno.ENOMEM, Errno.EFAULT)  # a hole, or nothing behind the mapping
        elif kind == "remap":
            self.remap(*args)
        else:
            page, nr_pages = self.last
            self.remap(page, nr_pages, max(1, nr_pages + args[0]), MAYMOVE, 0)
        self.memory = self.observed()
        guest.check()

    def finish(self) -> None:
        for child, memory in self.children:
            assert self.observed(child) == memory

    def is_private(self, page: int) -> bool:
        vma = self.guest.mm.areas.find_exact(at(page))
        return vma is not None and not vma.vm_flags & VM_MAYSHARE

    def remap(self, page: int, old: int, new: int, flags: int, to: int) -> None:
        guest, what_if = self.guest, self.guest.kernel.what_if
        before = self.memory
        fixed = bool(flags & FIXED)
        is_private, grows_private = self.is_private(page), self.is_private(page + old - 1)
        try:
            there = guest.remap(page, old, new, flags, to + 100 if fixed else 0)
        except KernelError as error:
            assert error.errno in (Errno.EFAULT, Errno.ENOMEM), str(error)
            assert error.reason
            if what_if.split_spanning and all(p in before for p in range(page, page + min(old, new))):
                assert error.errno != Errno.EFAULT, "it could have been split"
            lost = set(range(page + new, page + old)) | (set(range(to + 100, to + 100 + new)) if fixed else set())
            after = self.observed()
            assert all(after.get(p) == word for p, word in before.items() if p not in lost)
            return
        self.last = there, new
        after = self.observed()
        expected = dict(before)
        for p in [*range(page, page + old), *(range(there, there + new) if there != page else ())]:
            expected.pop(p, None)
        for i in range(new):
            if i >= old:
                # Shared memory shows more of its object.
                expected[there + i] = 0 if grows_private else after[there + i]
            elif page + i in before:
                expected[there + i] = before[page + i]
        assert after == expected
        has_hole = any(page + i not in before for i in range(min(old, new)))
        if what_if.never_grow_in_place and new > old:
            assert there != page
        if what_if.always_move and flags == MAYMOVE and not has_hole and not what_if.no_move_after_fork:
            assert there != page
        if not flags & MAYMOVE:
            assert there == page
        if what_if.no_move_after_fork and guest.mm.has_forked and is_private:
            assert there == page


@all_profiles
@settings(max_examples=40, deadline=None)
@given(what_if=_what_ifs, steps=_steps)
def test_memory_is_what_mremap_promises(profile: str, what_if: WhatIf, steps: list[tuple[Any, ...]]) -> None:
    model = Model(profile, what_if)
    for step in steps:
        model.step(*step)
    model.finish()


@pytest.mark.proof
@all_profiles
@settings(max_examples=1500, deadline=None)
@given(what_if=_what_ifs, steps=_steps)
def test_memory_is_what_mremap_promises_for_long(
    profile: str, what_if: WhatIf, steps: list[tuple[Any, ...]]
) -> None:
    model = Model(profile, what_if)
    for step in steps:
        model.step(*step)
    model.finish()


def test_nothing_is_asked_of_an_ordinary_kernel() -> None:
    assert not WhatIf().changes_mremap
    names = ("no_move_after_fork", "never_grow_in_place", "always_move", "split_spanning")
    assert all(WhatIf(**{name: True}).changes_mremap for name in names)
    assert all(one != other for one, other in pairwise(WhatIf(**{name: True}) for name in names))
