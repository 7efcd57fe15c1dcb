"""A kernel without a processor: enough of :class:`Kernel` to test memory management and what stands on it.

``make_kernel()`` gives an object with the attributes that ``kernel/mm`` uses, ``make_mm()`` an empty address space,
``map_anon``/``map_file`` areas in it: the real structures, but without the checks, merging and accounting of mmap(2).

``check_kernel()`` is the recount: mapcount, refcount, rss, swap and page-table counters of every mm against a brute-
force walk of all page tables, by code that shares nothing with the code under test but the meaning of a PTE's bits.
"""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

from kernel.clock import Clock
from kernel.fs.dcache import Path
from kernel.fs.pseudo import PseudoFs
from kernel.fs.vfs import Vfs
from kernel.hardware import NullHardware
from kernel.mm.accounting import VmStat
from kernel.mm.area import vma_link
from kernel.mm.exit import mmput
from kernel.mm.filemap import AddressSpace, page_cache_shrinker
from kernel.mm.fork import dup_mm, new_mm
from kernel.mm.page import MemMap, PG_anon, PG_exclusive, PG_reserved, PG_stale, PG_swapbacked, PG_swapcache, PG_table
from kernel.mm.types import (
    PAGE_SHIFT,
    PAGE_SIZE,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    Vma,
)
from kernel.mm.vmstat import VmEvents
from kernel.mm.what_if import AS_THE_RULES_SAY
from kernel.profile import make_policy, resolve_profile
from kernel.sysctl import Sysctl
from mmu.physmem import PhysMem

RW = VM_READ | VM_WRITE
MAY = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
KERNEL_SLOT = 256
"""The PML4 slot of the CPU's own supervisor mappings, in the template that the fake gives."""


def make_kernel(ram_pages: int = 4096, profile: str = "6.18", **overrides: str) -> Any:
    """A kernel-like object with ``ram_pages`` frames of RAM, the last four of them reserved as the CPU's are."""
    kernel = SimpleNamespace()
    kernel.physmem = PhysMem(ram_pages)
    kernel.hw = NullHardware()
    kernel.pages = MemMap(kernel.physmem, kernel.hw, range(ram_pages - 4, ram_pages))
    kernel.pages.reclaim_hook = page_cache_shrinker(kernel.pages)
    kernel.pml4_template = {KERNEL_SLOT: (ram_pages - 4) << PAGE_SHIFT | 0x63}
    kernel.sysctl = Sysctl()
    kernel.clock = Clock()
    kernel.rng = random.Random(1)
    kernel.current = None
    kernel.tasks = {}
    kernel.notes_first_writes = False
    kernel.check_every = 0
    kernel.total_swap_pages = 0
    kernel.vm_stat = VmStat()
    kernel.vmstat = VmEvents()
    kernel.log_lines = []
    kernel.log = kernel.log_lines.append
    kernel.mms = []
    kernel.all_mms = lambda: list(kernel.mms)
    kernel.last_mm_id = 0

    def next_mm_id() -> int:
        kernel.last_mm_id += 1
        return int(kernel.last_mm_id)

    kernel.next_mm_id = next_mm_id
    kernel.profile = resolve_profile(profile, **overrides)
    kernel.what_if = AS_THE_RULES_SAY
    kernel.policy = make_policy(kernel, kernel.profile)
    kernel.vfs = Vfs(kernel)
    kernel.vfs.pseudo = PseudoFs(kernel.vfs)
    kernel.vfs.root = Path(kernel.vfs.pseudo.shm, kernel.vfs.pseudo.shm.mnt_root)
    return kernel


def make_mm(kernel: Any) -> MmStruct:
    """An empty address space, known to ``kernel.mms``."""
    mm = new_mm(kernel)
    kernel.mms.append(mm)
    return mm


def fork_mm(parent: MmStruct) -> MmStruct:
    """fork's copy of ``parent``."""
    child = dup_mm(parent)
    parent.kernel.mms.append(child)  # type: ignore[attr-defined]
    return child


def exit_mm(mm: MmStruct) -> None:
    """Take ``mm`` down."""
    mmput(mm)
    mm.kernel.mms.remove(mm)  # type: ignore[attr-defined]


def map_anon(mm: MmStruct, start: int, nr_pages: int, vm_flags: int = RW) -> Vma:
    """A private anonymous area."""
    return _map(mm, start, nr_pages, vm_flags, start >> PAGE_SHIFT, None)


def map_file(mm: MmStruct, start: int, nr_pages: int, file: Any, vm_flags: int = RW, pgoff: int = 0) -> Vma:
    """An area of ``file`` (a :class:`FakeFile` or the like); shared if ``vm_flags`` has VM_SHARED."""
    return _map(mm, start, nr_pages, vm_flags, pgoff, file)


def _map(mm: MmStruct, start: int, nr_pages: int, vm_flags: int, pgoff: int, file: Any) -> Vma:
    flags = vm_flags | MAY | (VM_MAYSHARE if vm_flags & VM_SHARED else 0)
    if file is not None:
        file.get()
    vma = Vma(mm, start, start + nr_pages * PAGE_SIZE, flags, pgoff, file)
    vma_link(mm, vma)
    return vma


class FakeInode:
    """A regular file whose bytes lie in ``data`` ("the disk")."""

    def __init__(self, kernel: Any, data: bytes = b"", is_shmem: bool = False) -> None:
        self.i_sb = SimpleNamespace(kernel=kernel, s_dev=0x801)
        self.i_ino = 1
        self.data = bytearray(data)
        self.i_size = len(data)
        self.i_flctx = None
        self.i_mtime = 0
        self.reads: list[tuple[int, int]] = []
        self.writes: list[int] = []
        self.i_mapping = AddressSpace(self, is_shmem)  # type: ignore[arg-type]

    def readpages(self, pgoff: int, nr: int) -> bytes:
        self.reads.append((pgoff, nr))
        part = bytes(self.data[pgoff * PAGE_SIZE : (pgoff + nr) * PAGE_SIZE])
        return part + bytes(nr * PAGE_SIZE - len(part))

    def writepage(self, pgoff: int, data: bytes) -> None:
        self.writes.append(pgoff)
        end = min(self.i_size, (pgoff + 1) * PAGE_SIZE)
        self.data.extend(bytes(max(0, end - len(self.data))))
        self.data[pgoff * PAGE_SIZE : end] = data[: end - pgoff * PAGE_SIZE]

    def touch_mtime(self) -> None:
        self.i_mtime += 1


class FakeFile:
    """An open :class:`FakeInode`."""

    def __init__(self, inode: FakeInode) -> None:
        self.f_inode = inode
        self.f_mapping = inode.i_mapping
        self.f_count = 1
        self.f_ep = None
        self.f_writer = False

    def get(self) -> FakeFile:
        self.f_count += 1
        return self

    def release(self) -> None:
        """The last reference is gone."""


# ---- the recount ----------------------------------------------------------------------------------------------------


def user_ptes(mm: MmStruct) -> dict[int, int]:
    """vaddr -> PTE for every non-zero user PTE, by walking the tables from the root as the hardware would."""
    q = mm.kernel.physmem.q
    found: dict[int, int] = {}

    def walk(table_pfn: int, level: int, base: int) -> None:
        for i in range(512 if level < 4 else 256):
            entry = q[table_pfn * 512 + i]
            if not entry:
                continue
            vaddr = base + (i << (3 + 9 * level))
            if level == 1:
                found[vaddr] = entry
            else:
                walk((entry & 0xF_FFFF_FFFF_F000) >> 12, level - 1, vaddr)

    walk(mm.pt.root_pfn, 4, 0)
    return found


def _table_pfns(mm: MmStruct) -> list[int]:
    q = mm.kernel.physmem.q
    found: list[int] = []

    def walk(table_pfn: int, level: int) -> None:
        found.append(table_pfn)
        if level == 1:
            return
        for i in range(512 if level < 4 else 256):
            entry = q[table_pfn * 512 + i]
            if entry:
                walk((entry & 0xF_FFFF_FFFF_F000) >> 12, level - 1)

    walk(mm.pt.root_pfn, 4)
    return found


def check_kernel(kernel: Any, swap_cache: dict[int, int] | None = None, held: Counter[int] | None = None) -> None:
    """Assert that every counter equals a recount.  ``held`` are references that the test itself has."""
    pages: MemMap = kernel.pages
    mapcount: Counter[int] = Counter()
    refcount: Counter[int] = Counter(held or {})
    tables: Counter[int] = Counter()
    for mm in kernel.mms:
        rss = {"anon": 0, "file": 0, "shmem": 0}
        nr_swap = 0
        for vaddr, pte in user_ptes(mm).items():
            vma = mm.areas.find_exact(vaddr)
            assert vma is not None, f"PTE {pte:#x} at {vaddr:#x} outside every area"
            if not pte & 0x101:  # neither P nor PROTNONE
                nr_swap += 1
                continue
            pfn = (pte & 0xF_FFFF_FFFF_F000) >> 12
            if pte & 0x200:  # special
                assert not pte & 2, f"special PTE at {vaddr:#x} is writable"
                continue
            mapcount[pfn] += 1
            refcount[pfn] += 1
            flags = pages.flags[pfn]
            rss["anon" if flags & PG_anon else "shmem" if flags & PG_swapbacked else "file"] += 1
            if pte & 2:
                assert vma.vm_flags & VM_WRITE, f"writable PTE at {vaddr:#x} in {vma!r}"
                if not vma.vm_flags & VM_SHARED:
                    assert flags & PG_anon and flags & PG_exclusive, f"shared page {pfn:#x} writable at {vaddr:#x}"
        assert rss == {"anon": mm.rss_anon, "file": mm.rss_file, "shmem": mm.rss_shmem}, f"rss of mm {mm.id}"
        assert nr_swap == mm.swap_pages, f"swap counter of mm {mm.id}"
        own = _table_pfns(mm)
        tables.update(own)
        assert len(own) - 1 == mm.pt.nr_tables, f"page-table counter of mm {mm.id}"
        assert not mm.areas.check()
    for mapping in pages.mappings:
        assert mapping.pages
        for pgoff, pfn in mapping.pages.items():
            refcount[pfn] += 1
            assert pages.mapping[pfn] is mapping and pages.index[pfn] == pgoff
            assert pgoff << PAGE_SHIFT < mapping.host.i_size, "page beyond the end of the file"
    for pfn in (swap_cache or {}).values():
        refcount[pfn] += 1
    for pfn, count in tables.items():
        assert count == 1 and pages.refcount[pfn] == 1 and pages.flags[pfn] & PG_table
    nr_used = 0
    for pfn in range(pages.nr_frames):
        flags = pages.flags[pfn]
        if flags & PG_reserved:
            continue
        nr_used += pages.refcount[pfn] > 0
        if pfn in tables:
            continue
        assert pages.refcount[pfn] == refcount[pfn], f"refcount of pfn {pfn:#x}"
        assert pages.mapcount[pfn] == mapcount[pfn], f"mapcount of pfn {pfn:#x}"
        if flags & PG_exclusive:
            assert flags & PG_anon and mapcount[pfn] <= 1, f"exclusive pfn {pfn:#x} is shared"
        if not pages.refcount[pfn]:
            assert pages.mapping[pfn] is None and not flags & (PG_anon | PG_swapcache)
            assert flags & PG_stale or not flags
    nr_reserved_used = sum(1 for pfn in range(pages.nr_frames) if pages.flags[pfn] & PG_reserved)
    assert nr_used + pages.nr_free + nr_reserved_used == pages.nr_frames
