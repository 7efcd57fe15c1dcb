"""Page faults: mm/memory.c, arch/x86/mm/fault.c; manual: mmap(2), fork(2), mprotect(2), signal codes of sigaction(2).

Every step is followed by a recount of all page counters (check_kernel).
"""

from __future__ import annotations

from typing import Any

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.mm.fault import PAGE_FAULT_USER, FaultResult, handle_mm_fault, populate_range, touch
from kernel.mm.memory import change_protection, zap_page_range
from kernel.mm.page import PG_anon, PG_exclusive, PG_exec, PG_mlocked
from kernel.mm.pagetable import PTE_PROTNONE, PTE_SPECIAL
from kernel.mm.types import (
    PAGE_SIZE,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_IO,
    VM_LOCKED,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    Vma,
)
from kernel.mm.usercopy import copy_from_user, copy_to_user
from kernel.profile import PROFILES
from kernel.trace import Tracepoint
from mmu.paging import PF_INSTR, PF_PROT, PF_WRITE, PTE_A, PTE_D, PTE_NX, PTE_P, PTE_W
from tests.kernel.fakes import (
    RW,
    FakeFile,
    FakeInode,
    check_kernel,
    exit_mm,
    fork_mm,
    make_kernel,
    make_mm,
    map_anon,
    map_file,
)

BASE = 0x1000_0000
MINOR, MAJOR = FaultResult.MINOR, FaultResult.MAJOR


class Faults:
    """Records of the fault tracepoint."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def __call__(self, point: Tracepoint, values: tuple[Any, ...]) -> None:
        self.records.append(dict(zip(point.fields, values, strict=True)))

    def kinds(self) -> list[str]:
        kinds = [record["kind"] for record in self.records]
        self.records.clear()
        return kinds


@pytest.fixture
def faults() -> Any:
    probe = Faults()
    PAGE_FAULT_USER.attach(probe)
    yield probe
    PAGE_FAULT_USER.detach(probe)


@pytest.fixture(params=list(PROFILES))
def mm(request: pytest.FixtureRequest) -> Any:
    mm = make_mm(make_kernel(profile=request.param))
    yield mm
    kernel: Any = mm.kernel
    check_kernel(kernel)
    for one in list(kernel.mms):
        exit_mm(one)
        check_kernel(kernel)
    for mapping in list(kernel.pages.mappings):
        for pgoff in list(mapping.pages):
            mapping.delete_page(pgoff)
    assert kernel.pages.nr_free == kernel.pages.nr_usable - 1  # all but the zero page


def pfn_at(mm: MmStruct, vaddr: int) -> int:
    return (mm.pt.get(vaddr) & 0xF_FFFF_FFFF_F000) >> 12


def protect(vma: Vma, vm_flags: int) -> None:
    """mprotect of a whole area."""
    vma.vm_flags = vma.vm_flags & ~(VM_READ | VM_WRITE | VM_EXEC) | vm_flags
    change_protection(vma, vma.vm_start, vma.vm_end)


# ---- anonymous memory -----------------------------------------------------------------------------------------------


def test_first_write_gives_a_zeroed_private_page(mm: MmStruct, faults: Faults) -> None:
    map_anon(mm, BASE, 4)
    assert touch(mm, BASE + 0x123, write=True) is MINOR
    assert faults.kinds() == ["anonymous"]
    pte = mm.pt.get(BASE)
    assert pte & (PTE_P | PTE_W | PTE_D | PTE_A | PTE_NX) == PTE_P | PTE_W | PTE_D | PTE_A | PTE_NX
    pfn = pfn_at(mm, BASE)
    pages = mm.kernel.pages
    assert (pages.refcount[pfn], pages.mapcount[pfn]) == (1, 1)
    assert pages.flags[pfn] & PG_anon and pages.flags[pfn] & PG_exclusive
    assert mm.rss_anon == 1
    assert copy_from_user(mm, BASE, PAGE_SIZE) == bytes(PAGE_SIZE)
    assert touch(mm, BASE, write=True) is MINOR and touch(mm, BASE) is MINOR
    assert faults.kinds() == []


def test_read_maps_the_zero_page_and_a_later_write_replaces_it(mm: MmStruct, faults: Faults) -> None:
    map_anon(mm, BASE, 2)
    assert touch(mm, BASE) is MINOR and touch(mm, BASE + PAGE_SIZE) is MINOR
    zero = mm.kernel.pages.zero_pfn
    assert pfn_at(mm, BASE) == pfn_at(mm, BASE + PAGE_SIZE) == zero
    assert mm.pt.get(BASE) & PTE_SPECIAL and not mm.pt.get(BASE) & PTE_W
    assert mm.rss == 0
    check_kernel(mm.kernel)
    assert touch(mm, BASE, write=True) is MINOR
    assert pfn_at(mm, BASE) != zero and mm.rss_anon == 1
    copy_to_user(mm, BASE, b"x")
    assert copy_from_user(mm, BASE + PAGE_SIZE, 1) == b"\0"
    assert faults.kinds() == ["zero", "zero", "cow"]


def test_areas_and_permissions_decide_the_signal(mm: MmStruct, faults: Faults) -> None:
    map_anon(mm, BASE, 1, VM_READ)
    map_anon(mm, BASE + 2 * PAGE_SIZE, 1, 0)
    map_anon(mm, BASE + 4 * PAGE_SIZE, 1, VM_WRITE)
    map_anon(mm, BASE + 6 * PAGE_SIZE, 1, VM_EXEC)
    assert touch(mm, BASE, write=True) is FaultResult.SIGSEGV_ACCERR
    assert touch(mm, BASE, execute=True) is FaultResult.SIGSEGV_ACCERR
    assert touch(mm, BASE + PAGE_SIZE) is FaultResult.SIGSEGV_MAPERR
    for write in (False, True):
        assert touch(mm, BASE + 2 * PAGE_SIZE, write=write) is FaultResult.SIGSEGV_ACCERR
    # x86 cannot forbid reading what may be written or executed
    assert touch(mm, BASE + 4 * PAGE_SIZE) is MINOR and touch(mm, BASE + 4 * PAGE_SIZE, write=True) is MINOR
    assert touch(mm, BASE + 6 * PAGE_SIZE) is MINOR and touch(mm, BASE + 6 * PAGE_SIZE, execute=True) is MINOR
    assert touch(mm, 0) is FaultResult.SIGSEGV_MAPERR
    assert touch(mm, 0x7FFF_FFFF_F000) is FaultResult.SIGSEGV_MAPERR
    assert touch(mm, 0xFFFF_8000_0000_0000) is FaultResult.SIGSEGV_MAPERR
    assert touch(mm, 0x8000_0000_0000_0000) is FaultResult.SIGSEGV_MAPERR
    bad = [record for record in faults.records if record["kind"] == "bad"]
    assert [record["result"] for record in bad[:3]] == [
        FaultResult.SIGSEGV_ACCERR,
        FaultResult.SIGSEGV_ACCERR,
        FaultResult.SIGSEGV_MAPERR,
    ]
    assert bad[2]["vma"] is None and bad[2]["pfn"] is None


def test_tracepoint_has_the_fields_of_the_access(mm: MmStruct, faults: Faults) -> None:
    vma = map_anon(mm, BASE, 1)
    handle_mm_fault(mm, BASE + 5, PF_WRITE | 4, 0x40_1000)
    record = faults.records[0]
    assert (record["vaddr"], record["error_code"], record["ip"], record["vma"]) == (BASE + 5, 6, 0x40_1000, vma)
    assert record["pfn"] == pfn_at(mm, BASE) and record["old_pfn"] is None and record["task"] is None


def test_faults_are_counted(mm: MmStruct) -> None:
    map_anon(mm, BASE, 2)
    map_file(mm, BASE * 2, 1, make_file(mm, 1))
    for vaddr, write in ((BASE, True), (BASE + PAGE_SIZE, False), (BASE * 2, False), (BASE * 3, False)):
        touch(mm, vaddr, write=write)
    assert (mm.kernel.vmstat.pgfault, mm.kernel.vmstat.pgmajfault, mm.kernel.vmstat.pgpgin) == (4, 1, 4)


def test_out_of_memory(faults: Faults) -> None:
    kernel = make_kernel(ram_pages=256, profile="2.6.7")
    mm = make_mm(kernel)
    map_anon(mm, BASE, 1024)
    results = [touch(mm, BASE + i * PAGE_SIZE, write=True) for i in range(400)]
    assert results[0] is MINOR and results[-1] is FaultResult.OOM
    assert kernel.pages.nr_free == 0
    check_kernel(kernel)
    # reading still works where the page table exists
    assert touch(mm, BASE + 450 * PAGE_SIZE) is MINOR
    assert touch(mm, BASE + 450 * PAGE_SIZE, write=True) is FaultResult.OOM
    assert touch(mm, BASE + 1000 * PAGE_SIZE) is FaultResult.OOM
    check_kernel(kernel)
    zap_page_range(mm.areas.first, BASE, BASE + 10 * PAGE_SIZE)  # type: ignore[arg-type]
    assert touch(mm, BASE, write=True) is MINOR
    check_kernel(kernel)


# ---- fork and copy on write -----------------------------------------------------------------------------------------


def test_fork_shares_and_the_first_writer_copies(mm: MmStruct, faults: Faults) -> None:
    map_anon(mm, BASE, 3)
    copy_to_user(mm, BASE, b"parent")
    shared = pfn_at(mm, BASE)
    child = fork_mm(mm)
    check_kernel(mm.kernel)
    pages = mm.kernel.pages
    assert pfn_at(child, BASE) == shared
    assert (pages.refcount[shared], pages.mapcount[shared]) == (2, 2)
    assert not pages.flags[shared] & PG_exclusive
    assert not mm.pt.get(BASE) & PTE_W and not child.pt.get(BASE) & PTE_W
    faults.records.clear()

    copy_to_user(child, BASE, b"child!")
    assert faults.records[0]["old_pfn"] == shared and faults.records[0]["pfn"] == pfn_at(child, BASE)
    assert faults.kinds() == ["cow"]
    check_kernel(mm.kernel)
    assert copy_from_user(mm, BASE, 6) == b"parent" and copy_from_user(child, BASE, 6) == b"child!"

    # now the parent is the only user: no second copy
    copy_to_user(mm, BASE, b"PARENT")
    assert faults.kinds() == ["reuse"]
    assert pfn_at(mm, BASE) == shared
    assert pages.flags[shared] & PG_exclusive
    check_kernel(mm.kernel)


def test_exit_of_the_child_lets_the_parent_reuse(mm: MmStruct, faults: Faults) -> None:
    map_anon(mm, BASE, 1)
    copy_to_user(mm, BASE, b"x")
    pfn = pfn_at(mm, BASE)
    exit_mm(fork_mm(mm))
    check_kernel(mm.kernel)
    faults.records.clear()
    copy_to_user(mm, BASE, b"y")
    assert faults.kinds() == ["reuse"] and pfn_at(mm, BASE) == pfn


def test_a_kernel_reference_forbids_reuse_of_a_shared_page(mm: MmStruct, faults: Faults) -> None:
    map_anon(mm, BASE, 1)
    copy_to_user(mm, BASE, b"x")
    pfn = pfn_at(mm, BASE)
    exit_mm(fork_mm(mm))
    mm.kernel.pages.get_page(pfn)
    faults.records.clear()
    copy_to_user(mm, BASE, b"y")
    assert faults.kinds() == ["cow"] and pfn_at(mm, BASE) != pfn
    mm.kernel.pages.put_page(pfn)


def test_three_generations(mm: MmStruct) -> None:
    map_anon(mm, BASE, 40)
    for i in range(40):
        copy_to_user(mm, BASE + i * PAGE_SIZE, bytes([i]) * 8)
    child = fork_mm(mm)
    for i in range(0, 40, 2):
        copy_to_user(child, BASE + i * PAGE_SIZE, b"C" * 8)
    check_kernel(mm.kernel)
    grandchild = fork_mm(child)
    for i in range(0, 40, 4):
        copy_to_user(grandchild, BASE + i * PAGE_SIZE, b"G" * 8)
    check_kernel(mm.kernel)
    exit_mm(child)
    check_kernel(mm.kernel)
    for i in range(40):
        assert copy_from_user(mm, BASE + i * PAGE_SIZE, 8) == bytes([i]) * 8
        want = b"G" * 8 if i % 4 == 0 else b"C" * 8 if i % 2 == 0 else bytes([i]) * 8
        assert copy_from_user(grandchild, BASE + i * PAGE_SIZE, 8) == want


def test_fork_copies_no_table_without_private_pages(mm: MmStruct) -> None:
    map_anon(mm, BASE, 600)
    for i in range(0, 600, 30):
        touch(mm, BASE + i * PAGE_SIZE)  # zero pages only
    child = fork_mm(mm)
    assert child.pt.nr_tables == 0
    assert touch(child, BASE, write=True) is MINOR
    check_kernel(mm.kernel)


def test_fork_of_many_tables(mm: MmStruct) -> None:
    map_anon(mm, BASE, 1500)
    populate_range(mm, BASE, BASE + 700 * PAGE_SIZE, True)
    populate_range(mm, BASE + 1400 * PAGE_SIZE, BASE + 1405 * PAGE_SIZE, True)
    child = fork_mm(mm)
    assert child.rss_anon == mm.rss_anon == 705
    check_kernel(mm.kernel)


# ---- protection -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nr_pages", [3, 40])
def test_prot_none_round_trip_keeps_the_pages(mm: MmStruct, nr_pages: int) -> None:
    vma = map_anon(mm, BASE, nr_pages + 2)
    for i in range(nr_pages):
        copy_to_user(mm, BASE + i * PAGE_SIZE, bytes([i + 1]))
    touch(mm, BASE + nr_pages * PAGE_SIZE)  # a zero page
    before = [pfn_at(mm, BASE + i * PAGE_SIZE) for i in range(nr_pages + 2)]
    nr_flushes = mm.kernel.hw.nr_flushes
    protect(vma, 0)
    assert mm.kernel.hw.nr_flushes > nr_flushes
    check_kernel(mm.kernel)
    pte = mm.pt.get(BASE)
    assert pte & PTE_PROTNONE and not pte & PTE_P
    assert mm.rss_anon == nr_pages
    assert touch(mm, BASE) is FaultResult.SIGSEGV_ACCERR
    with pytest.raises(KernelError):
        copy_from_user(mm, BASE, 1)
    protect(vma, RW)
    check_kernel(mm.kernel)
    assert [pfn_at(mm, BASE + i * PAGE_SIZE) for i in range(nr_pages + 2)] == before
    for i in range(nr_pages):
        assert copy_from_user(mm, BASE + i * PAGE_SIZE, 1) == bytes([i + 1])
    assert copy_from_user(mm, BASE + (nr_pages + 1) * PAGE_SIZE, 1) == b"\0"
    copy_to_user(mm, BASE + nr_pages * PAGE_SIZE, b"z")
    check_kernel(mm.kernel)


def test_prot_none_pages_are_forked_and_copied(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE, 20)
    for i in range(20):
        copy_to_user(mm, BASE + i * PAGE_SIZE, bytes([i + 1]))
    protect(vma, 0)
    child = fork_mm(mm)
    check_kernel(mm.kernel)
    child_vma = child.areas.first
    assert child_vma is not None
    protect(child_vma, RW)
    check_kernel(mm.kernel)
    copy_to_user(child, BASE, b"C")
    protect(vma, VM_READ)
    assert copy_from_user(mm, BASE, 1) == b"\1" and copy_from_user(child, BASE, 1) == b"C"
    assert copy_from_user(child, BASE + 19 * PAGE_SIZE, 1) == b"\x14"


def test_making_shared_pages_writable_again_does_not_break_copy_on_write(mm: MmStruct, faults: Faults) -> None:
    vma = map_anon(mm, BASE, 2)
    copy_to_user(mm, BASE, b"a")
    child = fork_mm(mm)
    copy_to_user(mm, BASE + PAGE_SIZE, b"b")  # exclusive
    protect(vma, VM_READ)
    protect(vma, RW)
    check_kernel(mm.kernel)
    assert not mm.pt.get(BASE) & PTE_W
    assert mm.pt.get(BASE + PAGE_SIZE) & PTE_W  # nobody else has it: no fault needed
    copy_to_user(mm, BASE, b"X")
    assert copy_from_user(child, BASE, 1) == b"a"


def test_exec_permission_marks_frames_that_may_hold_code(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE, 30)
    populate_range(mm, BASE, BASE + 30 * PAGE_SIZE, True)
    assert not mm.kernel.pages.flags[pfn_at(mm, BASE)] & PG_exec
    protect(vma, VM_READ | VM_EXEC)
    assert all(mm.kernel.pages.flags[pfn_at(mm, BASE + i * PAGE_SIZE)] & PG_exec for i in range(30))
    assert touch(mm, BASE, execute=True) is MINOR
    protect(vma, RW)
    assert touch(mm, BASE, execute=True) is FaultResult.SIGSEGV_ACCERR
    map_anon(mm, BASE * 2, 1, RW | VM_EXEC)
    touch(mm, BASE * 2, write=True)
    assert mm.kernel.pages.flags[pfn_at(mm, BASE * 2)] & PG_exec


def test_kernel_writes_to_code_invalidate_it(mm: MmStruct) -> None:
    map_anon(mm, BASE, 1, RW | VM_EXEC)
    copy_to_user(mm, BASE, b"\x90")
    pfn = pfn_at(mm, BASE)
    stale: list[int] = mm.kernel.hw.stale_code  # type: ignore[attr-defined]
    stale.clear()
    copy_to_user(mm, BASE + 1, b"\xc3")
    assert stale == [pfn]


# ---- zap ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nr_pages", [1, 10, 100, 1300])
def test_zap_frees_and_the_pages_read_as_zero_again(mm: MmStruct, nr_pages: int) -> None:
    vma = map_anon(mm, BASE, nr_pages)
    nr_free = mm.kernel.pages.nr_free
    for i in range(nr_pages):
        if i % 3 != 2:
            touch(mm, BASE + i * PAGE_SIZE, write=i % 3 == 0)
    nr_tables = mm.pt.nr_tables
    count = sum(1 for i in range(nr_pages) if i % 3 != 2)
    assert zap_page_range(vma, vma.vm_start, vma.vm_end) == count
    check_kernel(mm.kernel)
    assert mm.rss == 0 and mm.hiwater_rss == (nr_pages + 2) // 3
    assert mm.kernel.pages.nr_free == nr_free - nr_tables
    assert zap_page_range(vma, vma.vm_start, vma.vm_end) == 0
    assert copy_from_user(mm, BASE, 8) == bytes(8)


def test_zap_of_a_part(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE, 1100)
    populate_range(mm, BASE, BASE + 1100 * PAGE_SIZE, True)
    assert zap_page_range(vma, BASE + 5 * PAGE_SIZE, BASE + 1090 * PAGE_SIZE) == 1085
    check_kernel(mm.kernel)
    assert mm.rss_anon == 15


# ---- stack ----------------------------------------------------------------------------------------------------------


def test_stack_grows_down_to_the_fault(mm: MmStruct, faults: Faults) -> None:
    vma = map_anon(mm, BASE, 2, RW | VM_GROWSDOWN)
    assert touch(mm, BASE - 10 * PAGE_SIZE - 8, write=True) is MINOR
    assert vma.vm_start == BASE - 11 * PAGE_SIZE
    assert faults.kinds() == ["stack"]
    assert mm.rss_anon == 1
    assert touch(mm, BASE - 5 * PAGE_SIZE) is MINOR
    assert faults.kinds() == ["zero"]


def test_stack_does_not_grow_into_the_guard_gap(mm: MmStruct) -> None:
    map_anon(mm, BASE, 1)
    stack = map_anon(mm, BASE + 400 * PAGE_SIZE, 2, RW | VM_GROWSDOWN)
    assert touch(mm, BASE + 300 * PAGE_SIZE, write=True) is MINOR
    assert touch(mm, BASE + 200 * PAGE_SIZE, write=True) is FaultResult.SIGSEGV_MAPERR
    assert stack.vm_start == BASE + 300 * PAGE_SIZE


def test_an_ordinary_area_does_not_grow(mm: MmStruct) -> None:
    map_anon(mm, BASE, 1)
    assert touch(mm, BASE - 1, write=True) is FaultResult.SIGSEGV_MAPERR


# ---- special mappings -----------------------------------------------------------------------------------------------


class SpecialOps:
    """A special mapping of two kernel pages."""

    name = "[vdso]"

    def __init__(self, pfns: list[int]) -> None:
        self.pfns = pfns

    def fault(self, vma: Vma, pgoff: int) -> int:
        if pgoff >= len(self.pfns):
            raise KernelError(Errno.EFAULT, "beyond the special mapping")
        return self.pfns[pgoff]


def test_special_mapping_shares_the_kernels_pages(mm: MmStruct, faults: Faults) -> None:
    pages = mm.kernel.pages
    pfn = pages.alloc_zeroed_page()
    mm.kernel.physmem.frame(pfn)[0:4] = b"vdso"
    vma = map_anon(mm, BASE, 2, VM_READ | VM_EXEC)
    vma.vm_pgoff, vma.vm_ops = 0, SpecialOps([pfn])
    assert touch(mm, BASE, execute=True) is MINOR
    assert faults.kinds() == ["special"]
    assert (pages.refcount[pfn], pages.mapcount[pfn]) == (2, 1)
    assert mm.rss_file == 1 and pages.flags[pfn] & PG_exec
    assert copy_from_user(mm, BASE, 4) == b"vdso"
    assert touch(mm, BASE + PAGE_SIZE) is FaultResult.SIGBUS_ADRERR
    child = fork_mm(mm)
    assert child.rss == 0 and touch(child, BASE) is MINOR
    exit_mm(child)
    # a debugger writes a breakpoint: a private copy
    protect(vma, RW | VM_EXEC)
    copy_to_user(mm, BASE, b"\xcc")
    assert mm.rss_file == 0 and mm.rss_anon == 1
    assert mm.kernel.physmem.frame(pfn)[0:1] == b"v"
    assert pages.refcount[pfn] == 1
    pages.put_page(pfn)


def test_device_pages_are_not_counted(mm: MmStruct) -> None:
    pages = mm.kernel.pages
    pfn = pages.alloc_zeroed_page()
    vma = map_anon(mm, BASE, 1, VM_READ | VM_IO | VM_PFNMAP)
    vma.vm_pgoff, vma.vm_ops = 0, SpecialOps([pfn])
    assert touch(mm, BASE) is MINOR
    assert pages.refcount[pfn] == 1 and pages.mapcount[pfn] == 0 and mm.rss == 0
    with pytest.raises(KernelError):
        populate_range(mm, BASE, BASE + PAGE_SIZE, False)
    zap_page_range(vma, BASE, BASE + PAGE_SIZE)
    pages.put_page(pfn)


# ---- files ----------------------------------------------------------------------------------------------------------


def make_file(mm: MmStruct, nr_pages: int, is_shmem: bool = False) -> FakeFile:
    data = b"".join(bytes([i & 0xFF]) * PAGE_SIZE for i in range(nr_pages))
    return FakeFile(FakeInode(mm.kernel, data, is_shmem))


def test_read_of_a_private_file_maps_the_page_cache(mm: MmStruct, faults: Faults) -> None:
    file = make_file(mm, 3)
    map_file(mm, BASE, 3, file)
    assert touch(mm, BASE + PAGE_SIZE) is MAJOR
    assert faults.kinds() == ["file"]
    assert copy_from_user(mm, BASE + PAGE_SIZE, 2) == b"\1\1"
    assert pfn_at(mm, BASE + PAGE_SIZE) == file.f_inode.i_mapping.pages[1]
    assert not mm.pt.get(BASE + PAGE_SIZE) & PTE_W
    check_kernel(mm.kernel)


def test_fault_around_maps_cached_neighbours_inside_area_window_and_file(mm: MmStruct, faults: Faults) -> None:
    file = make_file(mm, 40)
    map_file(mm, BASE + 3 * PAGE_SIZE, 20, file, VM_READ, pgoff=3)
    for pgoff in range(40):
        file.f_inode.i_mapping.read_mapping_page(pgoff)
    assert touch(mm, BASE + 5 * PAGE_SIZE) is MINOR
    mapped = [i for i in range(40) if mm.pt.get(BASE + i * PAGE_SIZE)]
    assert mapped == list(range(3, 16))
    assert mm.rss_file == 13
    check_kernel(mm.kernel)
    assert touch(mm, BASE + 17 * PAGE_SIZE) is MINOR
    assert [i for i in range(40) if mm.pt.get(BASE + i * PAGE_SIZE)] == list(range(3, 23))
    assert faults.kinds() == ["file", "file"]


def test_write_to_a_private_file_copies(mm: MmStruct, faults: Faults) -> None:
    file = make_file(mm, 4)
    map_file(mm, BASE, 4, file)
    assert touch(mm, BASE, write=True) is MAJOR  # not in the cache, straight to the copy
    assert touch(mm, BASE + PAGE_SIZE) is MINOR
    assert touch(mm, BASE + PAGE_SIZE, write=True) is MINOR
    assert faults.kinds() == ["file_cow", "file", "file_cow"]
    copy_to_user(mm, BASE, b"private")
    copy_to_user(mm, BASE + PAGE_SIZE, b"private")
    assert mm.rss_anon == 2
    assert copy_from_user(mm, BASE + 7, 1) == b"\0" and copy_from_user(mm, BASE + PAGE_SIZE + 7, 1) == b"\1"
    assert file.f_inode.i_mapping.dirty == {} and file.f_inode.i_mtime == 0
    child = fork_mm(mm)
    check_kernel(mm.kernel)
    copy_to_user(child, BASE, b"CHILD")
    assert copy_from_user(mm, BASE, 7) == b"private"


def test_beyond_the_end_of_the_file_is_a_bus_error(mm: MmStruct) -> None:
    inode = FakeInode(mm.kernel, b"x" * (PAGE_SIZE + 100))
    for start, vm_flags in ((BASE, RW), (BASE * 2, RW | VM_SHARED)):
        map_file(mm, start, 4, FakeFile(inode), vm_flags)
        assert touch(mm, start + PAGE_SIZE) <= MAJOR
        assert copy_from_user(mm, start + PAGE_SIZE + 99, 2) == b"x\0"
        assert touch(mm, start + 2 * PAGE_SIZE) is FaultResult.SIGBUS_ADRERR
        assert touch(mm, start + 2 * PAGE_SIZE, write=True) is FaultResult.SIGBUS_ADRERR
        assert touch(mm, start + 4 * PAGE_SIZE) is FaultResult.SIGSEGV_MAPERR


def test_the_first_write_to_a_clean_shared_page_is_noticed(mm: MmStruct, faults: Faults) -> None:
    file = make_file(mm, 2)
    vma = map_file(mm, BASE, 2, file, RW | VM_SHARED)
    mapping = file.f_inode.i_mapping
    assert touch(mm, BASE) is MAJOR
    assert not mm.pt.get(BASE) & PTE_W and mapping.dirty == {}
    assert touch(mm, BASE, write=True) is MINOR
    assert list(mapping.dirty) == [0] and file.f_inode.i_mtime == 1
    assert touch(mm, BASE, write=True) is MINOR
    assert touch(mm, BASE + PAGE_SIZE, write=True) is MINOR
    assert list(mapping.dirty) == [0, 1] and file.f_inode.i_mtime == 2
    assert faults.kinds() == ["shared", "shared", "shared"]
    # a dirty page stays writable through mprotect, a clean one does not become so
    protect(vma, VM_READ)
    protect(vma, RW)
    assert mm.pt.get(BASE) & PTE_W
    check_kernel(mm.kernel)


def test_shared_file_pages_are_seen_by_everyone(mm: MmStruct) -> None:
    file = make_file(mm, 20)
    map_file(mm, BASE, 20, file, RW | VM_SHARED)
    copy_to_user(mm, BASE, b"before")
    child = fork_mm(mm)
    assert child.rss == 0  # faulted in again
    assert copy_from_user(child, BASE, 6) == b"before"
    copy_to_user(child, BASE + 19 * PAGE_SIZE, b"child")
    assert copy_from_user(mm, BASE + 19 * PAGE_SIZE, 5) == b"child"
    other = make_mm(mm.kernel)
    map_file(other, BASE * 3, 1, file, VM_READ, pgoff=19)
    assert copy_from_user(other, BASE * 3, 5) == b"child"
    check_kernel(mm.kernel)


def test_private_mapping_sees_shared_writes_until_it_copies(mm: MmStruct) -> None:
    file = make_file(mm, 1)
    map_file(mm, BASE, 1, file, RW | VM_SHARED)
    map_file(mm, BASE * 2, 1, file, RW)
    assert copy_from_user(mm, BASE * 2, 1) == b"\0"
    copy_to_user(mm, BASE, b"S")
    assert copy_from_user(mm, BASE * 2, 1) == b"S"
    copy_to_user(mm, BASE * 2, b"P")
    copy_to_user(mm, BASE, b"T")
    assert copy_from_user(mm, BASE * 2, 1) == b"P"


def test_shmem_is_counted_apart_and_writable_at_once(mm: MmStruct, faults: Faults) -> None:
    file = FakeFile(FakeInode(mm.kernel, bytes(20 * PAGE_SIZE), is_shmem=True))
    map_file(mm, BASE, 20, file, RW | VM_SHARED)
    assert touch(mm, BASE) is MINOR
    assert mm.pt.get(BASE) & PTE_W and not mm.pt.get(BASE) & PTE_D
    assert touch(mm, BASE, write=True) is MINOR
    assert faults.kinds() == ["shared"]
    populate_range(mm, BASE, BASE + 20 * PAGE_SIZE, True)
    assert (mm.rss_anon, mm.rss_file, mm.rss_shmem) == (0, 0, 20)
    child = fork_mm(mm)
    copy_to_user(child, BASE, b"c")
    assert copy_from_user(mm, BASE, 1) == b"c" and child.rss_shmem == 1
    check_kernel(mm.kernel)


def test_io_error_is_a_bus_error_and_leaks_nothing(mm: MmStruct, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_file(mm, 2)
    map_file(mm, BASE, 2, file)

    def fail(pgoff: int, nr: int) -> bytes:
        raise KernelError(Errno.EIO, "bad disk")

    monkeypatch.setattr(file.f_inode, "readpages", fail)
    nr_free = mm.kernel.pages.nr_free
    assert touch(mm, BASE) is FaultResult.SIGBUS_ADRERR
    assert touch(mm, BASE, write=True) is FaultResult.SIGBUS_ADRERR
    assert mm.kernel.pages.nr_free == nr_free - mm.pt.nr_tables
    check_kernel(mm.kernel)


# ---- populate, mlock ------------------------------------------------------------------------------------------------


def test_populate_follows_the_rule_of_mlock(mm: MmStruct) -> None:
    file = make_file(mm, 4)
    map_anon(mm, BASE, 4)
    map_anon(mm, BASE + 4 * PAGE_SIZE, 4, VM_READ)
    map_file(mm, BASE + 8 * PAGE_SIZE, 4, file, RW | VM_SHARED)
    map_file(mm, BASE + 12 * PAGE_SIZE, 4, file, RW)
    assert populate_range(mm, BASE, BASE + 16 * PAGE_SIZE) == 16
    assert (mm.rss_anon, mm.rss_file) == (8, 4)
    assert file.f_inode.i_mapping.dirty == {}
    check_kernel(mm.kernel)


def test_populate_errors(mm: MmStruct) -> None:
    map_anon(mm, BASE, 2)
    map_anon(mm, BASE + 3 * PAGE_SIZE, 1, 0)
    with pytest.raises(KernelError) as failure:
        populate_range(mm, BASE, BASE + 3 * PAGE_SIZE, True)
    assert failure.value.errno == Errno.EFAULT and mm.rss_anon == 2
    with pytest.raises(KernelError) as failure:
        populate_range(mm, BASE + 3 * PAGE_SIZE, BASE + 4 * PAGE_SIZE, None)
    assert failure.value.errno == Errno.EFAULT


def test_pages_of_a_locked_area_are_marked(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE, 20, RW | VM_LOCKED)
    populate_range(mm, BASE, BASE + 20 * PAGE_SIZE)
    pages = mm.kernel.pages
    pfns = [pfn_at(mm, BASE + i * PAGE_SIZE) for i in range(20)]
    assert all(pages.flags[pfn] & PG_mlocked for pfn in pfns)
    pages.get_page(pfns[0])
    zap_page_range(vma, vma.vm_start, vma.vm_end)
    assert not pages.flags[pfns[0]] & PG_mlocked
    pages.put_page(pfns[0])


def test_a_stale_translation_is_flushed_not_served(mm: MmStruct, faults: Faults) -> None:
    map_anon(mm, BASE, 1)
    touch(mm, BASE, write=True)
    nr_flushes = mm.kernel.hw.nr_flushes
    faults.records.clear()
    assert handle_mm_fault(mm, BASE, PF_WRITE) is MINOR
    assert faults.kinds() == ["spurious"] and mm.kernel.hw.nr_flushes > nr_flushes
    assert handle_mm_fault(mm, BASE, PF_INSTR | PF_PROT) is FaultResult.SIGSEGV_ACCERR


def test_a_fetch_from_an_absent_page_is_refused_only_when_it_is_there(mm: MmStruct, faults: Faults) -> None:
    """As x86 does it: the error code that the program sees says "present"."""
    map_anon(mm, BASE, 1)
    assert handle_mm_fault(mm, BASE, PF_INSTR) is MINOR
    assert touch(mm, BASE, execute=True) is FaultResult.SIGSEGV_ACCERR
    assert faults.kinds()[0] == "zero"
