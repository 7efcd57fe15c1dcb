"""mmap, munmap, brk, stacks: where areas go, what they are made of, when they are refused (mmap(2), brk(2))."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FMODE_READ, FMODE_WRITE
from kernel.abi.mman import Map
from kernel.mm.accounting import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK
from kernel.mm.areatree import STACK_GUARD_GAP
from kernel.mm.brk import do_brk, sys_brk
from kernel.mm.exit import mmput
from kernel.mm.fault import FaultResult, touch
from kernel.mm.fork import dup_mm, new_mm
from kernel.mm.madvise import do_madvise
from kernel.mm.mmap import (
    MmapRequest,
    arch_pick_mmap_layout,
    do_mmap,
    expand_stack,
    insert_special_mapping,
    insert_vm_struct,
    vm_mmap,
)
from kernel.mm.munmap import do_munmap
from kernel.mm.rmap.check import check_rmap
from kernel.mm.types import (
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    MmStruct,
    Vma,
)
from kernel.profile import Layout
from tests.kernel.fakes import FakeFile, FakeInode, check_kernel, make_kernel

ANON = int(Map.MAP_PRIVATE | Map.MAP_ANONYMOUS)
FIXED = ANON | int(Map.MAP_FIXED)
AT = 0x1000_0000


def make(profile: str = "6.18", **limits: int) -> tuple[Any, MmStruct]:
    """A kernel and an empty address space; ``limits`` name soft resource limits of the running task."""
    kernel = make_kernel(1024, profile)
    mm = new_mm(kernel)
    kernel.mms.append(mm)
    arch_pick_mmap_layout(mm)
    if limits:
        run_as(kernel, **limits)
    return kernel, mm


def run_as(kernel: Any, caps: int = 0, **limits: int) -> None:
    rlimits = [(RLIM_INFINITY, RLIM_INFINITY)] * 16
    for name, value in limits.items():
        number = {"as": RLIMIT_AS, "data": RLIMIT_DATA, "stack": RLIMIT_STACK, "memlock": RLIMIT_MEMLOCK}[name]
        rlimits[number] = (value, RLIM_INFINITY)
    creds = SimpleNamespace(cap_effective=caps, fsuid=1000)
    kernel.current = SimpleNamespace(signal=SimpleNamespace(rlimits=rlimits), creds=creds)


def fails(errno: int, call: Callable[..., object], *args: object) -> None:
    with pytest.raises(KernelError) as info:
        call(*args)
    assert info.value.errno == errno, info.value


def anon(mm: MmStruct, nr_pages: int, prot: int = 3, flags: int = ANON, addr: int = 0) -> int:
    return do_mmap(mm, MmapRequest(addr, nr_pages * PAGE_SIZE, prot, flags))


# -- where -----------------------------------------------------------------------------------------------------------


def test_top_down_below_mmap_base() -> None:
    _, mm = make()
    first = anon(mm, 4, prot=1)
    assert first + 4 * PAGE_SIZE == mm.mmap_base
    assert anon(mm, 2, prot=3) + 2 * PAGE_SIZE == first
    assert anon(mm, 2, prot=1, addr=AT) == AT, "a hint that is free is taken"
    assert anon(mm, 2, prot=1, addr=AT + PAGE_SIZE) != AT + PAGE_SIZE, "a hint that is in use is not"
    assert anon(mm, 1, addr=AT + 8 * PAGE_SIZE + 5) == AT + 8 * PAGE_SIZE, "a hint is rounded down"
    assert anon(mm, 1, addr=5) != 0
    assert anon(mm, 1, addr=PAGE_SIZE) == 0x1_0000, "a hint below mmap_min_addr is moved up to it"


def test_highest_hole_that_fits() -> None:
    _, mm = make()
    base = anon(mm, 16, prot=1)
    do_munmap(mm, base + 3 * PAGE_SIZE, PAGE_SIZE)
    do_munmap(mm, base + 8 * PAGE_SIZE, 2 * PAGE_SIZE)
    assert anon(mm, 1, prot=3) == base + 9 * PAGE_SIZE
    assert anon(mm, 2, prot=3) == base - 2 * PAGE_SIZE
    assert anon(mm, 1, prot=7) == base + 8 * PAGE_SIZE
    assert anon(mm, 1, prot=7) == base + 3 * PAGE_SIZE


def test_bottom_up_layout() -> None:
    kernel, mm = make()
    kernel.profile = replace(kernel.profile, layout=Layout.BOTTOM_UP)
    first = anon(mm, 2, prot=1)
    assert first == TASK_SIZE // 3 & ~(PAGE_SIZE - 1)
    assert anon(mm, 2, prot=3) == first + 2 * PAGE_SIZE


def test_32bit_addresses() -> None:
    _, mm = make()
    addr = anon(mm, 2, flags=ANON | Map.MAP_32BIT)
    assert 0x4000_0000 <= addr < 0x8000_0000
    assert anon(mm, 2, prot=1, flags=ANON | Map.MAP_32BIT) == addr + 2 * PAGE_SIZE, "bottom-up"
    fails(Errno.ENOMEM, anon, mm, 1 << 19, 3, ANON | Map.MAP_32BIT)


def test_nothing_is_put_into_the_stack_guard_gap() -> None:
    _, mm = make()
    stack = anon(mm, 2, flags=ANON | Map.MAP_GROWSDOWN)
    below = anon(mm, 1, prot=1)
    assert below + PAGE_SIZE == stack - STACK_GUARD_GAP


def test_fixed() -> None:
    _, mm = make()
    anon(mm, 4, prot=1, flags=FIXED, addr=AT)
    anon(mm, 2, prot=3, flags=FIXED, addr=AT + PAGE_SIZE)
    assert [vma.nr_pages for vma in mm.areas] == [1, 2, 1]
    no_replace = ANON | Map.MAP_FIXED_NOREPLACE
    fails(Errno.EEXIST, anon, mm, 1, 3, no_replace, AT + 3 * PAGE_SIZE)
    assert anon(mm, 1, 3, no_replace, AT + 4 * PAGE_SIZE) == AT + 4 * PAGE_SIZE
    fails(Errno.EINVAL, anon, mm, 1, 3, FIXED, AT + 1)
    fails(Errno.ENOMEM, anon, mm, 1, 3, FIXED, TASK_SIZE)


def test_mmap_min_addr_needs_a_capability() -> None:
    kernel, mm = make()
    assert anon(mm, 1, flags=FIXED, addr=0x1000) == 0x1000
    run_as(kernel)
    fails(Errno.EPERM, anon, mm, 1, 3, FIXED, 0x1000)


# -- what ------------------------------------------------------------------------------------------------------------


def test_flags_of_areas() -> None:
    for profile, noreserve in (("2.6.7", 0), ("6.18", VM_NORESERVE)):
        _, mm = make(profile)
        writable = mm.areas.find_exact(anon(mm, 1))
        reading = mm.areas.find_exact(anon(mm, 1, prot=1))
        reckless = mm.areas.find_exact(anon(mm, 1, flags=ANON | Map.MAP_NORESERVE))
        assert writable is not None and reading is not None and reckless is not None
        assert writable.vm_flags & VM_ACCOUNT
        assert not reading.vm_flags & VM_ACCOUNT
        assert reckless.vm_flags & (VM_ACCOUNT | VM_NORESERVE) == noreserve
    stack = mm.areas.find_exact(anon(mm, 1, flags=ANON | Map.MAP_STACK))
    assert stack is not None and stack.vm_flags & VM_NOHUGEPAGE


def test_types() -> None:
    _, mm = make()
    fails(Errno.EINVAL, anon, mm, 1, 3, Map.MAP_ANONYMOUS)
    fails(Errno.EINVAL, anon, mm, 1, 3, Map.MAP_SHARED_VALIDATE | Map.MAP_ANONYMOUS)
    fails(Errno.EINVAL, anon, mm, 1, 3, Map.MAP_SHARED | Map.MAP_ANONYMOUS | Map.MAP_GROWSDOWN)
    fails(Errno.ENOMEM, anon, mm, 1, 3, ANON | Map.MAP_HUGETLB)
    fails(Errno.EINVAL, anon, mm, 0)
    fails(Errno.ENOMEM, do_mmap, mm, MmapRequest(0, TASK_SIZE + PAGE_SIZE, 3, ANON))


def test_populate_and_lock() -> None:
    kernel, mm = make()
    vm_mmap(mm, MmapRequest(AT, 3 * PAGE_SIZE, 3, FIXED | Map.MAP_POPULATE))
    assert mm.rss_anon == 3
    vm_mmap(mm, MmapRequest(AT + 8 * PAGE_SIZE, 2 * PAGE_SIZE, 3, FIXED | Map.MAP_LOCKED))
    assert (mm.rss_anon, mm.locked_vm) == (5, 2)
    mm.def_flags = VM_LOCKED
    vm_mmap(mm, MmapRequest(AT + 16 * PAGE_SIZE, PAGE_SIZE, 3, FIXED))
    assert (mm.rss_anon, mm.locked_vm) == (6, 3)
    assert check_rmap(kernel) == []


class OpenFile(FakeFile):
    """A :class:`FakeFile` opened in some way, that can be mapped."""

    def __init__(self, inode: FakeInode, mode: int) -> None:
        super().__init__(inode)
        inode.i_seals = -1  # type: ignore[attr-defined]
        self.f_mode = mode
        self.f_path = SimpleNamespace(mnt=SimpleNamespace(mnt_flags=0))

    def mmap_prepare(self, task: Any, len_bytes: int, pgoff: int, prot: int, shared: bool) -> FakeFile:
        return self.get()


def test_files() -> None:
    kernel, mm = make()
    inode = FakeInode(kernel, b"hello" + bytes(5 * PAGE_SIZE))
    both, reading = OpenFile(inode, FMODE_READ | FMODE_WRITE), OpenFile(inode, FMODE_READ)

    def map_file(file: Any, prot: int, flags: int, nr_pages: int = 2, pgoff: int = 0, addr: int = 0) -> Vma:
        at = do_mmap(mm, MmapRequest(addr, nr_pages * PAGE_SIZE, prot, flags, file, pgoff))
        vma = mm.areas.find_exact(at)
        assert vma is not None
        return vma

    assert map_file(both, 3, Map.MAP_SHARED).vm_flags & VM_SHARED
    assert not map_file(reading, 1, Map.MAP_SHARED).vm_flags & (VM_SHARED | VM_MAYWRITE)
    fails(Errno.EACCES, map_file, reading, 3, Map.MAP_SHARED)
    assert map_file(reading, 3, Map.MAP_PRIVATE).vm_flags & VM_ACCOUNT
    fails(Errno.EACCES, map_file, OpenFile(inode, FMODE_WRITE), 1, Map.MAP_PRIVATE)
    fails(Errno.EINVAL, map_file, both, 3, Map.MAP_PRIVATE | Map.MAP_GROWSDOWN)
    fails(Errno.EOPNOTSUPP, map_file, both, 3, Map.MAP_SHARED_VALIDATE | Map.MAP_SYNC)
    fails(Errno.EOVERFLOW, map_file, both, 3, Map.MAP_PRIVATE, 2, (1 << 51) - 1)
    reading.f_path.mnt.mnt_flags = 8
    fails(Errno.EPERM, map_file, reading, 5, Map.MAP_PRIVATE)
    assert not map_file(reading, 1, Map.MAP_PRIVATE).vm_flags & VM_EXEC << 4
    before = mm.map_count
    one = map_file(both, 1, Map.MAP_PRIVATE | Map.MAP_FIXED, 2, 0, AT)
    assert map_file(both, 1, Map.MAP_PRIVATE | Map.MAP_FIXED, 2, 2, AT + 2 * PAGE_SIZE) is one, "offsets continue"
    assert map_file(both, 1, Map.MAP_PRIVATE | Map.MAP_FIXED, 2, 0, AT + 4 * PAGE_SIZE) is not one
    assert mm.map_count == before + 2
    assert check_rmap(kernel) == []
    kernel.mms.remove(mm)
    mmput(mm)
    assert both.f_count == reading.f_count == 1, "every area has let go of its file"
    assert len(inode.i_mapping.i_mmap) == 0
    check_kernel(kernel)


# -- refused ---------------------------------------------------------------------------------------------------------


def test_resource_limits() -> None:
    kernel, mm = make(**{"as": 8 * PAGE_SIZE})
    anon(mm, 6)
    fails(Errno.ENOMEM, anon, mm, 3)
    anon(mm, 2)
    kernel, mm = make(data=4 * PAGE_SIZE)
    anon(mm, 4)
    fails(Errno.ENOMEM, anon, mm, 1)
    anon(mm, 4, prot=1)
    kernel, mm = make(memlock=2 * PAGE_SIZE)
    fails(Errno.EAGAIN, anon, mm, 3, 3, ANON | Map.MAP_LOCKED)
    anon(mm, 2, 3, ANON | Map.MAP_LOCKED)
    run_as(kernel, memlock=0)
    fails(Errno.EPERM, anon, mm, 1, 3, ANON | Map.MAP_LOCKED)
    assert check_rmap(kernel) == []


def test_what_a_refused_fixed_mapping_has_destroyed() -> None:
    """2.6 unmapped first and asked afterwards."""
    for profile, left in (("2.6.7", 0), ("6.18", 2)):
        kernel, mm = make(profile)
        anon(mm, 2, prot=1, flags=FIXED, addr=AT)
        run_as(kernel, **{"as": 2 * PAGE_SIZE})
        fails(Errno.ENOMEM, anon, mm, 3, 3, FIXED, AT)
        assert mm.total_vm == left


def test_overcommit() -> None:
    kernel, mm = make()
    nr_usable = kernel.pages.nr_usable
    fails(Errno.ENOMEM, anon, mm, nr_usable + 1)
    anon(mm, nr_usable + 1, flags=ANON | Map.MAP_NORESERVE)
    anon(mm, nr_usable)
    anon(mm, nr_usable)
    kernel.sysctl.overcommit_memory = 1
    anon(mm, 100 * nr_usable)
    kernel, mm = make()
    kernel.sysctl.overcommit_memory = 2
    half = nr_usable // 2
    anon(mm, half - 100)
    fails(Errno.ENOMEM, anon, mm, 200)
    fails(Errno.ENOMEM, anon, mm, 200, 3, ANON | Map.MAP_NORESERVE)
    anon(mm, 10_000, prot=1)
    kernel.sysctl.overcommit_kbytes = nr_usable * 4
    anon(mm, 200)
    assert kernel.vm_stat.committed_pages == half + 100
    assert check_rmap(kernel) == []


def test_map_count() -> None:
    kernel, mm = make()
    kernel.sysctl.max_map_count = 3
    for i in range(4):
        anon(mm, 1, flags=FIXED, addr=AT + 2 * i * PAGE_SIZE)
    fails(Errno.ENOMEM, anon, mm, 1, 3, FIXED, AT + 20 * PAGE_SIZE)
    anon_area = mm.areas.first
    assert anon_area is not None
    do_munmap(mm, AT, PAGE_SIZE)
    anon(mm, 3, prot=1, flags=FIXED, addr=AT + 10 * PAGE_SIZE)
    fails(Errno.ENOMEM, do_munmap, mm, AT + 11 * PAGE_SIZE, PAGE_SIZE)
    do_munmap(mm, AT + 12 * PAGE_SIZE, PAGE_SIZE)  # cutting an end off needs no new area


def test_munmap_arguments() -> None:
    _, mm = make()
    anon(mm, 4, flags=FIXED, addr=AT)
    fails(Errno.EINVAL, do_munmap, mm, AT + 1, PAGE_SIZE)
    fails(Errno.EINVAL, do_munmap, mm, AT, 0)
    fails(Errno.EINVAL, do_munmap, mm, AT, TASK_SIZE)
    do_munmap(mm, AT + 0x100_0000, PAGE_SIZE)
    do_munmap(mm, AT + PAGE_SIZE, 1)
    assert [vma.nr_pages for vma in mm.areas] == [1, 2]
    assert mm.total_vm == 3


# -- heap and stack --------------------------------------------------------------------------------------------------


def test_brk() -> None:
    kernel, mm = make()
    mm.start_brk = mm.brk = AT
    assert sys_brk(mm, 0) == AT
    assert sys_brk(mm, AT + 100) == AT + 100
    assert touch(mm, AT, write=True) is FaultResult.MINOR
    assert sys_brk(mm, AT + 3 * PAGE_SIZE) == AT + 3 * PAGE_SIZE
    assert [vma.nr_pages for vma in mm.areas] == [3]
    assert sys_brk(mm, AT + 10) == AT + 10
    assert [vma.nr_pages for vma in mm.areas] == [1]
    anon(mm, 1, flags=FIXED, addr=AT + 4 * PAGE_SIZE)
    assert sys_brk(mm, AT + 4 * PAGE_SIZE) == AT + 10, "a page stays free before the next area"
    assert sys_brk(mm, AT + 3 * PAGE_SIZE) == AT + 3 * PAGE_SIZE
    run_as(kernel, data=4 * PAGE_SIZE)
    assert sys_brk(mm, AT + 0x10_0000) == AT + 3 * PAGE_SIZE
    kernel.current = None
    do_brk(mm, AT + 0x20_0000, 1, VM_EXEC)
    fails(Errno.EINVAL, do_brk, mm, AT, PAGE_SIZE, VM_SHARED)
    assert check_rmap(kernel) == []


def test_stack_growth() -> None:
    kernel, mm = make()
    stack = mm.areas.find_exact(anon(mm, 2, flags=FIXED | Map.MAP_GROWSDOWN, addr=AT + 0x100_0000))
    assert stack is not None
    assert touch(mm, stack.vm_start - 3 * PAGE_SIZE, write=True) is FaultResult.MINOR
    assert stack.nr_pages == 5 and mm.stack_vm == 5
    run_as(kernel, stack=8 * PAGE_SIZE)
    fails(Errno.ENOMEM, expand_stack, stack, stack.vm_start - 4 * PAGE_SIZE)
    expand_stack(stack, stack.vm_start - 3 * PAGE_SIZE)
    run_as(kernel)
    anon(mm, 1, flags=FIXED, addr=stack.vm_start - STACK_GUARD_GAP)
    fails(Errno.ENOMEM, expand_stack, stack, stack.vm_start - PAGE_SIZE)
    plain = mm.areas.first
    assert plain is not None and not plain.vm_flags & VM_GROWSDOWN
    fails(Errno.EFAULT, expand_stack, plain, plain.vm_start - PAGE_SIZE)
    assert check_rmap(kernel) == []


def test_special_mappings_never_join() -> None:
    _, mm = make()
    ops = SimpleNamespace(fault=lambda vma, pgoff: 0)
    insert_special_mapping(mm, AT, PAGE_SIZE, VM_READ, ops, "[vvar]")
    insert_special_mapping(mm, AT + PAGE_SIZE, PAGE_SIZE, VM_READ, ops, "[vvar]")
    assert mm.map_count == 2
    fails(Errno.ENOMEM, insert_vm_struct, mm, Vma(mm, AT, AT + PAGE_SIZE, VM_READ))


# -- fork and exit -----------------------------------------------------------------------------------------------------


def test_fork_copies_what_may_be_copied() -> None:
    kernel, mm = make()
    for i, advice in enumerate([0, 10, 18]):  # MADV_NORMAL, MADV_DONTFORK, MADV_WIPEONFORK
        at = AT + 4 * i * PAGE_SIZE
        anon(mm, 2, flags=FIXED | (Map.MAP_LOCKED if i == 0 else 0), addr=at)
        assert touch(mm, at, write=True) is FaultResult.MINOR
        kernel.physmem.mem[mm.pt.get(at) & 0xF_FFFF_FFFF_F000] = 7
        do_madvise(mm, at, 2 * PAGE_SIZE, advice)
    child = dup_mm(mm)
    kernel.mms.append(child)
    assert [vma.vm_start for vma in child.areas] == [AT, AT + 8 * PAGE_SIZE]
    assert (child.total_vm, child.locked_vm, child.rss_anon) == (4, 0, 1)
    assert touch(child, AT + 8 * PAGE_SIZE) is FaultResult.MINOR
    assert kernel.physmem.mem[child.pt.get(AT + 8 * PAGE_SIZE) & 0xF_FFFF_FFFF_F000] == 0, "wiped"
    assert check_rmap(kernel) == []
    kernel.mms.remove(child)
    mmput(child)
    assert check_rmap(kernel) == []
    check_kernel(kernel)


@pytest.mark.parametrize("profile", ["2.6.6", "2.6.6-anonmm", "2.6.7", "one-anon-vma", "6.18"])
def test_fork_that_fails_leaves_nothing(profile: str) -> None:
    kernel, mm = make(profile)
    for i in range(4):
        at = AT + 4 * i * PAGE_SIZE
        anon(mm, 60, flags=FIXED, addr=at)
        touch(mm, at, write=True)
    kernel.sysctl.overcommit_memory = 2
    kernel.sysctl.overcommit_kbytes = (kernel.vm_stat.committed_pages + 70) * 4
    free = kernel.pages.nr_free
    fails(Errno.ENOMEM, dup_mm, mm)
    assert kernel.pages.nr_free == free
    assert check_rmap(kernel) == []
    check_kernel(kernel)


def test_counters_of_writable_and_executable_memory() -> None:
    _, mm = make()
    anon(mm, 1, prot=5)
    anon(mm, 2, prot=3)
    anon(mm, 4, prot=1)
    assert (mm.total_vm, mm.exec_vm, mm.data_vm, mm.stack_vm) == (7, 1, 2, 0)
