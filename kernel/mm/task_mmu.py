"""What /proc/PID shows of an address space: maps, smaps, smaps_rollup, statm, pagemap, the memory lines of status.

Models ``fs/proc/task_mmu.c`` of Linux 6.18, byte for byte.  Manual: proc_pid_maps(5), proc_pid_smaps(5),
proc_pid_statm(5), proc_pid_pagemap(5), proc_pid_status(5).

Names are bytes in Linux; the texts here are str, with bytes that are not UTF-8 as surrogate escapes.

Deliberate differences: no [vsyscall] area (as with vsyscall=none); no huge pages, KSM, soft-dirty bits and protection
keys: their lines are what Linux shows on a machine without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernel.abi.stat import dev_major, dev_minor
from kernel.mm.memory import update_hiwater_rss
from kernel.mm.page import PG_anon, PG_dirty, PG_referenced, PG_swapbacked
from kernel.mm.pagetable import PTE_PRESENT, PTE_SPECIAL, pte_to_swp_entry
from kernel.mm.types import (
    PAGE_MASK,
    PAGE_SHIFT,
    PAGE_SIZE,
    TASK_SIZE,
    VM_EXEC,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_READ,
    VM_SOFTDIRTY,
    VM_WRITE,
    MmStruct,
    Vma,
)
from mmu.paging import PTE_A, PTE_D, PTE_PFN_MASK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_WIDTH = 25 + 8 * 6 - 1
"""``seq_setwidth(m, 25 + sizeof(void *) * 6 - 1)``."""
_PSS_SHIFT = 12

_VM_FLAG_NAMES = (
    (0, "rd"), (1, "wr"), (2, "ex"), (3, "sh"), (4, "mr"), (5, "mw"), (6, "me"), (7, "ms"), (8, "gd"), (10, "pf"),
    (13, "lo"), (14, "io"), (15, "sr"), (16, "rr"), (17, "dc"), (18, "de"), (19, "lf"), (20, "ac"), (21, "nr"),
    (22, "ht"), (23, "sf"), (25, "wf"), (26, "dd"), (27, "sd"), (28, "mm"), (29, "hg"), (30, "nh"), (31, "mg"),
    (40, "dp"), (42, "sl"),
)  # fmt: skip
"""Bit of ``vm_flags`` -> mnemonic, in the order of ``show_smap_vma_flags``."""


# ---- maps -----------------------------------------------------------------------------------------------------------


def vma_name(vma: Vma) -> str:
    """``get_vma_name``: path, or name in brackets; empty for ordinary anonymous memory."""
    mm = vma.vm_mm
    file = vma.vm_file
    if file is not None:
        mapping = file.f_mapping
        if vma.anon_name is not None and mapping is not None and mapping.is_shmem:
            return f"[anon_shmem:{vma.anon_name}]"
        path = mm.kernel.vfs.path_text(file.f_path, mm.kernel.current)
        return path.decode("utf-8", "surrogateescape").replace("\n", "\\012")
    if vma.vm_name is not None:
        return vma.vm_name
    if vma.vm_start < mm.brk and vma.vm_end > mm.start_brk:
        return "[heap]"
    if vma.vm_start <= mm.start_stack <= vma.vm_end:
        return "[stack]"
    return f"[anon:{vma.anon_name}]" if vma.anon_name is not None else ""


def maps_line(vma: Vma) -> str:
    """One line of maps, without the newline (``show_map_vma``)."""
    dev = ino = offset = 0
    file = vma.vm_file
    if file is not None:
        dev, ino = file.f_inode.i_sb.s_dev, file.f_inode.i_ino
        offset = vma.vm_pgoff << PAGE_SHIFT
    return _header(vma.vm_start, vma.vm_end, _permissions(vma.vm_flags), offset, dev, ino, vma_name(vma))


def _permissions(vm_flags: int) -> str:
    return (
        ("r" if vm_flags & VM_READ else "-")
        + ("w" if vm_flags & VM_WRITE else "-")
        + ("x" if vm_flags & VM_EXEC else "-")
        + ("s" if vm_flags & VM_MAYSHARE else "p")
    )


def _header(start: int, end: int, permissions: str, offset: int, dev: int, ino: int, name: str) -> str:
    text = f"{start:08x}-{end:08x} {permissions} {offset:08x} {dev_major(dev):02x}:{dev_minor(dev):02x} {ino} "
    return f"{text.ljust(_WIDTH)} {name}" if name else text


def maps_text(mm: MmStruct) -> str:
    """/proc/PID/maps."""
    return "".join([maps_line(vma) + "\n" for vma in mm.areas])


# ---- smaps ----------------------------------------------------------------------------------------------------------


class MemSizeStats:
    """``struct mem_size_stats``: bytes, but for ``pss*``, which are bytes << 12."""

    __slots__ = (
        "anonymous",
        "lazyfree",
        "private_clean",
        "private_dirty",
        "pss",
        "pss_anon",
        "pss_dirty",
        "pss_file",
        "pss_locked",
        "pss_shmem",
        "referenced",
        "resident",
        "shared_clean",
        "shared_dirty",
        "swap",
        "swap_pss",
    )

    def __init__(self) -> None:
        self.resident = self.shared_clean = self.shared_dirty = self.private_clean = self.private_dirty = 0
        self.referenced = self.anonymous = self.lazyfree = self.swap = 0
        self.pss = self.pss_anon = self.pss_file = self.pss_shmem = self.pss_dirty = self.pss_locked = 0
        self.swap_pss = 0

    def add_vma(self, vma: Vma) -> None:
        """``smap_gather_stats``."""
        pt = vma.vm_mm.pt
        before = self.pss
        for _base, table, i0, i1 in pt.leaf_ranges(vma.vm_start, vma.vm_end):
            ptes = pt.words[table + i0 : table + i1]
            ptes = ptes[ptes != 0]
            if ptes.size:
                self._add_ptes(vma.vm_mm, ptes)
        if vma.vm_flags & VM_LOCKED:
            self.pss_locked += self.pss - before

    def _add_ptes(self, mm: MmStruct, ptes: NDArray[np.uint64]) -> None:
        pages = mm.kernel.pages
        is_swap = (ptes & PTE_PRESENT) == 0
        if is_swap.any():
            assert pages.swap is not None
            for pte in ptes[is_swap].tolist():
                self.swap += PAGE_SIZE
                self.swap_pss += (PAGE_SIZE << _PSS_SHIFT) // max(1, pages.swap.swap_count(pte))
        ptes = ptes[~is_swap & ((ptes & PTE_SPECIAL) == 0)]
        pfns = (ptes & PTE_PFN_MASK).astype(np.int64) >> PAGE_SHIFT
        flags = pages.flags_np[pfns]
        mapcounts = pages.mapcount_np[pfns].astype(np.int64)
        is_dirty = ((ptes & PTE_D) != 0) | ((flags & PG_dirty) != 0)
        is_young = ((ptes & PTE_A) != 0) | ((flags & PG_referenced) != 0)
        is_anon = (flags & PG_anon) != 0
        is_shmem = ~is_anon & ((flags & PG_swapbacked) != 0)
        is_lazyfree = is_anon & ((flags & PG_swapbacked) == 0) & ~is_dirty
        is_shared = mapcounts >= 2
        pss = (PAGE_SIZE << _PSS_SHIFT) // mapcounts

        self.resident += int(pfns.size) * PAGE_SIZE
        self.anonymous += int(np.count_nonzero(is_anon)) * PAGE_SIZE
        self.lazyfree += int(np.count_nonzero(is_lazyfree)) * PAGE_SIZE
        self.referenced += int(np.count_nonzero(is_young)) * PAGE_SIZE
        self.shared_dirty += int(np.count_nonzero(is_shared & is_dirty)) * PAGE_SIZE
        self.shared_clean += int(np.count_nonzero(is_shared & ~is_dirty)) * PAGE_SIZE
        self.private_dirty += int(np.count_nonzero(~is_shared & is_dirty)) * PAGE_SIZE
        self.private_clean += int(np.count_nonzero(~is_shared & ~is_dirty)) * PAGE_SIZE
        self.pss += int(pss.sum())
        self.pss_anon += int(pss[is_anon].sum())
        self.pss_shmem += int(pss[is_shmem].sum())
        self.pss_file += int(pss[~is_anon & ~is_shmem].sum())
        self.pss_dirty += int(pss[is_dirty].sum())

    def text(self, *, rollup: bool) -> str:
        """``__show_smap``: the lines from Rss to Locked."""
        lines = [("Rss", self.resident), ("Pss", self.pss >> _PSS_SHIFT), ("Pss_Dirty", self.pss_dirty >> _PSS_SHIFT)]
        if rollup:
            lines += [
                ("Pss_Anon", self.pss_anon >> _PSS_SHIFT),
                ("Pss_File", self.pss_file >> _PSS_SHIFT),
                ("Pss_Shmem", self.pss_shmem >> _PSS_SHIFT),
            ]
        lines += [
            ("Shared_Clean", self.shared_clean),
            ("Shared_Dirty", self.shared_dirty),
            ("Private_Clean", self.private_clean),
            ("Private_Dirty", self.private_dirty),
            ("Referenced", self.referenced),
            ("Anonymous", self.anonymous),
            ("KSM", 0),
            ("LazyFree", self.lazyfree),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", self.swap),
            ("SwapPss", self.swap_pss >> _PSS_SHIFT),
            ("Locked", self.pss_locked >> _PSS_SHIFT),
        ]
        return _kb_lines(lines)


def _kb_lines(lines: Iterable[tuple[str, int]]) -> str:
    """``SEQ_PUT_DEC``: the name in 16 columns, the value in kB in 8."""
    return "".join([f"{name + ':':<16}{value >> 10:8} kB\n" for name, value in lines])


def smaps_entry(vma: Vma) -> str:
    """What smaps shows of one area (``show_smap``)."""
    stats = MemSizeStats()
    stats.add_vma(vma)
    vm_flags = vma.vm_flags
    mnemonics = "".join([name + " " for bit, name in _VM_FLAG_NAMES if vm_flags >> bit & 1])
    return (
        maps_line(vma)
        + "\n"
        + _kb_lines(
            [("Size", vma.vm_end - vma.vm_start), ("KernelPageSize", PAGE_SIZE), ("MMUPageSize", PAGE_SIZE)],
        )
        + stats.text(rollup=False)
        + "THPeligible:           0\n"
        + f"VmFlags: {mnemonics}\n"
    )


def smaps_text(mm: MmStruct) -> str:
    """/proc/PID/smaps."""
    return "".join([smaps_entry(vma) for vma in mm.areas])


def smaps_rollup_text(mm: MmStruct) -> str:
    """/proc/PID/smaps_rollup."""
    stats = MemSizeStats()
    first, last = mm.areas.first, mm.areas.last
    for vma in mm.areas:
        stats.add_vma(vma)
    start = first.vm_start if first is not None else 0
    end = last.vm_end if last is not None else 0
    return _header(start, end, "---p", 0, 0, 0, "[rollup]") + "\n" + stats.text(rollup=True)


# ---- statm, status --------------------------------------------------------------------------------------------------


def statm_text(mm: MmStruct) -> str:
    """/proc/PID/statm: size, resident, shared, text, lib, data, dt, in pages."""
    text = ((mm.end_code + PAGE_SIZE - 1 & PAGE_MASK) - (mm.start_code & PAGE_MASK)) >> PAGE_SHIFT
    shared = mm.rss_file + mm.rss_shmem
    return f"{mm.total_vm} {mm.rss} {shared} {text} 0 {mm.data_vm + mm.stack_vm} 0\n"


def status_text(mm: MmStruct) -> str:
    """The lines VmPeak to HugetlbPages of /proc/PID/status (``task_mem``)."""
    kb_per_page = PAGE_SHIFT - 10
    text = (mm.end_code + PAGE_SIZE - 1 & PAGE_MASK) - (mm.start_code & PAGE_MASK)
    text = min(text, mm.exec_vm << PAGE_SHIFT)
    lib = (mm.exec_vm << PAGE_SHIFT) - text
    update_hiwater_rss(mm)
    values = (
        ("VmPeak", max(mm.total_vm, mm.hiwater_vm) << kb_per_page),
        ("VmSize", mm.total_vm << kb_per_page),
        ("VmLck", mm.locked_vm << kb_per_page),
        ("VmPin", 0),
        ("VmHWM", mm.hiwater_rss << kb_per_page),
        ("VmRSS", mm.rss << kb_per_page),
        ("RssAnon", mm.rss_anon << kb_per_page),
        ("RssFile", mm.rss_file << kb_per_page),
        ("RssShmem", mm.rss_shmem << kb_per_page),
        ("VmData", mm.data_vm << kb_per_page),
        ("VmStk", mm.stack_vm << kb_per_page),
        ("VmExe", text >> 10),
        ("VmLib", lib >> 10),
        ("VmPTE", mm.pt.nr_tables << kb_per_page),
        ("VmSwap", mm.swap_pages << kb_per_page),
        ("HugetlbPages", 0),
    )
    return "".join([f"{name}:\t{value:8} kB\n" for name, value in values])


# ---- pagemap --------------------------------------------------------------------------------------------------------

PM_SOFT_DIRTY = 1 << 55
PM_MMAP_EXCLUSIVE = 1 << 56
PM_FILE = 1 << 61
PM_SWAP = 1 << 62
PM_PRESENT = 1 << 63
_MAX_SWAPFILES_SHIFT = 5


def pagemap_read(mm: MmStruct, pos: int, count: int, *, show_pfn: bool = True) -> bytes:
    """Bytes ``[pos, pos + count)`` of /proc/PID/pagemap, less at the end of the address space.

    Both must be multiples of 8 (the caller's EINVAL).  Frame numbers only with CAP_SYS_ADMIN: ``show_pfn``.
    """
    first = pos >> 3
    nr = min(count >> 3, max(0, (TASK_SIZE >> PAGE_SHIFT) - first))
    entries = np.zeros(nr, np.uint64)
    start, end = first << PAGE_SHIFT, (first + nr) << PAGE_SHIFT
    vma = mm.areas.find_vma(start) if nr else None
    while vma is not None and vma.vm_start < end:
        low, high = max(start, vma.vm_start), min(end, vma.vm_end)
        if vma.vm_flags & VM_SOFTDIRTY:
            entries[(low >> PAGE_SHIFT) - first : (high >> PAGE_SHIFT) - first] = PM_SOFT_DIRTY
        for base, table, i0, i1 in mm.pt.leaf_ranges(low, high):
            index = (base >> PAGE_SHIFT) + i0 - first
            entries[index : index + i1 - i0] |= _pagemap_entries(mm, table + i0, table + i1, show_pfn)
        vma = vma.vm_next
    return entries.tobytes()


def _pagemap_entries(mm: MmStruct, first: int, last: int, show_pfn: bool) -> NDArray[np.uint64]:
    pages = mm.kernel.pages
    ptes = mm.pt.words[first:last]
    pfns = (ptes & PTE_PFN_MASK) >> PAGE_SHIFT
    entries = np.zeros(last - first, np.uint64)
    present = (ptes & PTE_PRESENT) != 0
    entries[present] = PM_PRESENT
    if show_pfn:
        entries[present] |= pfns[present]
    normal = present & ((ptes & PTE_SPECIAL) == 0)
    frames = np.where(normal, pfns, 0).astype(np.int64)
    entries[normal & ((pages.flags_np[frames] & PG_anon) == 0)] |= np.uint64(PM_FILE)
    entries[normal & (pages.mapcount_np[frames] == 1)] |= np.uint64(PM_MMAP_EXCLUSIVE)
    for i in np.flatnonzero(~present & (ptes != 0)).tolist():
        swp_type, offset = pte_to_swp_entry(int(ptes[i]))
        entries[i] = PM_SWAP | (swp_type | offset << _MAX_SWAPFILES_SHIFT if show_pfn else 0)
    return entries


# ---- clear_refs -----------------------------------------------------------------------------------------------------


def clear_refs_write(mm: MmStruct, what: int) -> None:
    """/proc/PID/clear_refs: 1 all, 2 anonymous, 3 file pages lose their referenced marks; 5 resets VmHWM.

    4 (soft-dirty) does nothing, as on a kernel without CONFIG_MEM_SOFT_DIRTY.
    """
    if what == 5:
        mm.hiwater_rss = mm.rss
        return
    if what not in (1, 2, 3):
        return
    pages, words = mm.kernel.pages, mm.pt.words
    for vma in mm.areas:
        if (what == 2 and vma.vm_file is not None) or (what == 3 and vma.vm_file is None):
            continue
        for _base, table, i0, i1 in mm.pt.leaf_ranges(vma.vm_start, vma.vm_end):
            indices = np.flatnonzero(words[table + i0 : table + i1] & PTE_PRESENT) + table + i0
            indices = indices[(words[indices] & PTE_SPECIAL) == 0]
            ptes = words[indices]
            words[indices] = ptes & ~np.uint64(PTE_A)
            pfns = (ptes & PTE_PFN_MASK).astype(np.int64) >> PAGE_SHIFT
            pages.flags_np[pfns] &= np.uint32(~PG_referenced & 0xFFFF_FFFF)
    mm.kernel.hw.flush_tlb()
