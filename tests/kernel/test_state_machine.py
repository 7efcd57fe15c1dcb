"""A Hypothesis state machine over several address spaces, for every kernel.

Rules: map, unmap, protect, remap, fork, exit, touch, reclaim, swapoff, truncate.  The model is one plain dictionary
for each address space (page -> value) and the bytes of the file.  After every step: contents equal the model, areas are
sorted, disjoint and aligned, what the era joins is joined, every mapping is found through the reverse map, and all
counters equal a recount.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kernel.abi.errno import Errno, KernelError
from kernel.mm.accounting import vm_stat_account
from kernel.mm.exit import mmput
from kernel.mm.fault import FaultResult
from kernel.mm.filemap import truncate_inode_pages
from kernel.mm.fork import dup_mm, new_mm
from kernel.mm.merge import why_apart
from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, vm_mmap
from kernel.mm.mprotect import do_mprotect
from kernel.mm.mremap import MremapRequest, do_mremap
from kernel.mm.munmap import do_munmap
from kernel.mm.rmap.check import check_all
from kernel.mm.swapoff import do_swapoff
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, VM_READ, VM_WRITE, MmStruct, Vma
from kernel.profile import MprotectRules
from tests.kernel.fakes import FakeFile, FakeInode, map_file
from tests.kernel.swapfakes import PROFILES, make_swap_kernel, peek, poke

BASE = 0x1000_0000
FILE_BASE = 0x2000_0000
NR_PAGES = 16
FILE_PAGES = 6
RAM_PAGES = 160
SWAP_PAGES = 400
MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 2, 0x10, 0x20
MAYMOVE, FIXED = 1, 2
MAX_PROCESSES = 4

pages = st.integers(0, NR_PAGES - 1)
lengths = st.integers(1, 4)
prots = st.sampled_from([0, 1, 3, 3, 3, 7])
choices = st.integers(0, 63)


def at(page: int) -> int:
    return BASE + (page << PAGE_SHIFT)


class Process:
    """One address space and what it should hold: the value of every anonymous page that was written."""

    def __init__(self, mm: MmStruct, written: dict[int, int]) -> None:
        self.mm = mm
        self.written = written

    def area(self, page: int) -> Vma | None:
        return self.mm.areas.find_exact(at(page))

    def forget(self, first: int, nr_pages: int) -> None:
        for page in range(first, first + nr_pages):
            self.written.pop(page, None)


class MemoryMachine(RuleBasedStateMachine):
    """The rules; :func:`machine_for` gives it a kernel."""

    profile = ""

    @initialize()
    def boot(self) -> None:
        self.kernel = make_swap_kernel(RAM_PAGES, SWAP_PAGES, self.profile)
        mm = new_mm(self.kernel)
        self.kernel.mms.append(mm)
        arch_pick_mmap_layout(mm)
        self.processes = [Process(mm, {})]
        inode: Any = FakeInode(self.kernel, b"".join(bytes([n + 1]) * PAGE_SIZE for n in range(FILE_PAGES)))
        area = map_file(mm, FILE_BASE, FILE_PAGES, FakeFile(inode), VM_READ)
        vm_stat_account(mm, area.vm_flags, FILE_PAGES)
        self.inode = inode
        self.next_value = 1

    def process(self, choice: int) -> Process:
        return self.processes[choice % len(self.processes)]

    # ---- rules --------------------------------------------------------------------------------------------------

    @rule(who=choices, page=pages, nr_pages=lengths, prot=prots)
    def map(self, who: int, page: int, nr_pages: int, prot: int) -> None:
        process = self.process(who)
        flags = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS
        vm_mmap(process.mm, MmapRequest(at(page), nr_pages << PAGE_SHIFT, prot, flags))
        process.forget(page, nr_pages)
        self.check_joined(process, page, nr_pages)

    @rule(who=choices, page=pages, nr_pages=lengths)
    def unmap(self, who: int, page: int, nr_pages: int) -> None:
        process = self.process(who)
        do_munmap(process.mm, at(page), nr_pages << PAGE_SHIFT)
        process.forget(page, nr_pages)
        assert all(process.area(p) is None for p in range(page, page + nr_pages))

    @rule(who=choices, page=pages, nr_pages=lengths, prot=prots)
    def protect(self, who: int, page: int, nr_pages: int, prot: int) -> None:
        process = self.process(who)
        before = [process.area(p) for p in range(page, page + nr_pages)]
        changes = [vma is not None and vma.vm_flags & 7 != prot for vma in before]
        try:
            do_mprotect(process.mm, at(page), nr_pages << PAGE_SHIFT, prot)
        except KernelError as error:
            assert error.errno == Errno.ENOMEM and None in before, str(error)
            return
        assert None not in before, "mprotect passed over a hole"
        joins = self.kernel.profile.mprotect in (MprotectRules.ALL, MprotectRules.LINUX_6)
        if joins and all(changes):
            self.check_joined(process, page, nr_pages)

    @rule(who=choices, page=pages, old=lengths, new=lengths, to=pages, fixed=st.booleans())
    def remap(self, who: int, page: int, old: int, new: int, to: int, fixed: bool) -> None:
        process, target = self.process(who), to
        flags = MAYMOVE | FIXED if fixed else 0
        moved = [process.written.get(p) for p in range(page, page + min(old, new))]
        request = MremapRequest(at(page), old << PAGE_SHIFT, new << PAGE_SHIFT, flags, at(target) if fixed else 0)
        try:
            do_mremap(process.mm, request)
        except KernelError:
            # What the call has destroyed before it failed is gone; nothing else may be.
            gone = set(range(target, target + new)) if fixed else set()
            gone |= set(range(page + new, page + old))
            for p in gone:
                if process.area(p) is None:
                    process.written.pop(p, None)
            return
        if not fixed:
            process.forget(page + new, max(0, old - new))
            return
        process.forget(target, new)
        process.forget(page, old)
        for offset, value in enumerate(moved):
            if value is not None:
                process.written[target + offset] = value

    @precondition(lambda self: len(self.processes) < MAX_PROCESSES)
    @rule(who=choices)
    def fork(self, who: int) -> None:
        parent = self.process(who)
        mm = dup_mm(parent.mm)
        self.kernel.mms.append(mm)
        self.processes.append(Process(mm, dict(parent.written)))

    @precondition(lambda self: len(self.processes) > 1)
    @rule(who=choices)
    def exit(self, who: int) -> None:
        process = self.process(who)
        self.processes.remove(process)
        self.kernel.mms.remove(process.mm)
        mmput(process.mm)

    @rule(who=choices, page=pages)
    def write(self, who: int, page: int) -> None:
        process = self.process(who)
        vma = process.area(page)
        result = poke(process.mm, at(page), self.next_value)
        if vma is None:
            assert result is FaultResult.SIGSEGV_MAPERR
        elif not vma.vm_flags & VM_WRITE:
            assert result is FaultResult.SIGSEGV_ACCERR
        else:
            assert result <= FaultResult.MAJOR
            process.written[page] = self.next_value
            self.next_value += 1

    @rule(who=choices, page=pages, nr_pages=lengths)
    def write_pages(self, who: int, page: int, nr_pages: int) -> None:
        for p in range(page, page + nr_pages):
            self.write(who, p)

    @rule(nr_pages=st.integers(1, 40))
    def reclaim(self, nr_pages: int) -> None:
        self.kernel.reclaim.try_to_free_pages(nr_pages)

    @rule()
    def swapoff(self) -> None:
        """Every page comes back; then the area is switched on again."""
        do_swapoff(self.kernel, self.kernel.area)
        assert all(process.mm.swap_pages == 0 for process in self.processes)
        self.kernel.area = self.kernel.swap.swapon_device(self.kernel.device, b"/dev/vda")

    @rule(nr_pages=st.integers(0, FILE_PAGES))
    def truncate(self, nr_pages: int) -> None:
        self.inode.i_size = nr_pages << PAGE_SHIFT
        truncate_inode_pages(self.inode.i_mapping, self.inode.i_size)
        self.inode.data = self.inode.data[: self.inode.i_size].ljust(FILE_PAGES * PAGE_SIZE, b"\0")

    # ---- what must hold -----------------------------------------------------------------------------------------

    def check_joined(self, process: Process, page: int, nr_pages: int) -> None:
        """The two ends of a range that was just mapped or changed are joined to what they can be joined to."""
        first, last = process.area(page), process.area(page + nr_pages - 1)
        assert first is not None and last is not None
        for lower, upper in ((first.vm_prev, first), (last, last.vm_next)):
            if lower is not None and upper is not None and lower.vm_end == upper.vm_start:
                assert why_apart(lower, upper, upper.vm_flags), f"{lower!r} and {upper!r} should be one"

    @invariant()
    def contents_equal_the_model(self) -> None:
        for process in getattr(self, "processes", ()):
            for page in range(NR_PAGES + 4):
                vma = process.area(page)
                if vma is None:
                    assert page not in process.written, f"page {page} is lost with its area"
                elif vma.vm_flags & VM_READ:
                    assert peek(process.mm, at(page)) == process.written.get(page, 0), f"page {page}"

    @invariant()
    def the_file_equals_the_model(self) -> None:
        if not hasattr(self, "processes"):
            return
        nr_left = (self.inode.i_size + PAGE_SIZE - 1) >> PAGE_SHIFT
        for process in self.processes:
            for n in range(nr_left):
                expected = self.inode.data[n * PAGE_SIZE]
                assert peek(process.mm, FILE_BASE + n * PAGE_SIZE) & 0xFF == expected

    @invariant()
    def nothing_is_inconsistent(self) -> None:
        if hasattr(self, "processes"):
            assert check_all(self.kernel) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_memory_machine(profile: str) -> None:
    machine = type("Machine", (MemoryMachine,), {"profile": profile})
    state = machine.TestCase  # type: ignore[attr-defined]
    state.settings = settings(max_examples=12, stateful_step_count=30)
    state("runTest").runTest()


@pytest.mark.proof
@pytest.mark.parametrize("profile", PROFILES)
def test_memory_machine_for_long(profile: str) -> None:
    machine = type("Machine", (MemoryMachine,), {"profile": profile})
    state = machine.TestCase  # type: ignore[attr-defined]
    state.settings = settings(max_examples=400, stateful_step_count=60)
    state("runTest").runTest()
