"""Event counters of memory management, and the texts made from them: /proc/vmstat, /proc/meminfo, /proc/swaps.

Models ``mm/vmstat.c``, ``fs/proc/meminfo.c`` and ``swap_show`` of ``mm/swapfile.c``.  Events are plain int attributes
that only grow; numbers of pages (``nr_*``) are counted from the page array when somebody asks, so they cannot be
wrong.

Deliberate differences: one zone and node; the kernel's own memory (slab, stacks, vmalloc) is not in the machine's
RAM, so its lines are zero; lines of huge pages, zswap, CMA and NUMA are left out, as by a kernel built without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernel.mm.accounting import vm_commit_limit
from kernel.mm.page import (
    PG_active,
    PG_anon,
    PG_dirty,
    PG_lru,
    PG_mlocked,
    PG_swapbacked,
    PG_swapcache,
    PG_table,
)
from kernel.mm.types import PAGE_SHIFT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kernel.kernel import Kernel

_KB_SHIFT = PAGE_SHIFT - 10

EVENTS = (
    "pgpgin",
    "pgpgout",
    "pswpin",
    "pswpout",
    "allocstall_normal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pgfault",
    "pgmajfault",
    "pglazyfreed",
    "pgrefill",
    "pgsteal_kswapd",
    "pgsteal_direct",
    "pgscan_kswapd",
    "pgscan_direct",
    "pgscan_anon",
    "pgscan_file",
    "pgsteal_anon",
    "pgsteal_file",
    "pageoutrun",
    "oom_kill",
    "swap_ra",
    "swap_ra_hit",
)
"""Event names as /proc/vmstat has them, in its order.  ``pgpgin`` and ``pgpgout`` are in kB."""


class VmEvents:
    """``vm_event_states``, and the node counters that only grow."""

    def __init__(self) -> None:
        self.pgpgin = 0
        self.pgpgout = 0
        self.pswpin = 0
        self.pswpout = 0
        self.allocstall_normal = 0
        self.pgactivate = 0
        self.pgdeactivate = 0
        self.pglazyfree = 0
        self.pgfault = 0
        self.pgmajfault = 0
        self.pglazyfreed = 0
        self.pgrefill = 0
        self.pgsteal_kswapd = 0
        self.pgsteal_direct = 0
        self.pgscan_kswapd = 0
        self.pgscan_direct = 0
        self.pgscan_anon = 0
        self.pgscan_file = 0
        self.pgsteal_anon = 0
        self.pgsteal_file = 0
        self.pageoutrun = 0
        self.oom_kill = 0
        self.swap_ra = 0
        self.swap_ra_hit = 0
        self.workingset_refault_anon = 0
        self.workingset_refault_file = 0
        self.nr_vmscan_write = 0
        self.nr_written = 0


class PageCounts:
    """How many frames are what, counted now (``global_node_page_state``).  All in pages."""

    def __init__(self, kernel: Kernel) -> None:
        kernel.lru.drain()
        pages = kernel.pages
        flags = pages.flags_np
        is_used = pages.refcount_np > 0
        is_mapped = pages.mapcount_np > 0
        is_anon = (flags & PG_anon) != 0
        is_swapbacked = (flags & (PG_swapbacked | PG_anon)) != 0
        is_active = (flags & (PG_lru | PG_active)) == PG_lru | PG_active
        is_inactive = (flags & (PG_lru | PG_active)) == PG_lru
        is_cached = _in_page_cache(kernel)
        self.active_anon = _count(is_active & is_swapbacked)
        self.inactive_anon = _count(is_inactive & is_swapbacked)
        self.active_file = _count(is_active & ~is_swapbacked)
        self.inactive_file = _count(is_inactive & ~is_swapbacked)
        self.swapcache = _count((flags & PG_swapcache) != 0)
        self.anon_pages = _count(is_anon & is_mapped)
        self.mapped_file = _count(is_cached & is_mapped)
        self.file_pages = _count(is_cached) + self.swapcache
        self.shmem = _count(is_cached & is_swapbacked)
        self.file_dirty = _count(is_cached & ~is_swapbacked & ((flags & PG_dirty) != 0))
        self.mlocked = _count(is_used & ((flags & PG_mlocked) != 0))
        self.page_tables = _count(is_used & ((flags & PG_table) != 0))


def _count(mask: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _in_page_cache(kernel: Kernel) -> NDArray[np.bool_]:
    """A mask of the frames that the page cache holds."""
    mask = np.zeros(kernel.pages.nr_frames, bool)
    for mapping in kernel.pages.mappings:
        mask[np.fromiter(mapping.pages.values(), np.int64, len(mapping.pages))] = True
    return mask


def meminfo(kernel: Kernel) -> dict[str, int]:
    """The lines of /proc/meminfo in kB, in Linux's order."""
    pages, swap = kernel.pages, kernel.swap
    counts = PageCounts(kernel)
    file_lru = counts.active_file + counts.inactive_file
    # si_mem_available: what is free beyond the reserve, and what the page cache can surely give up
    available = pages.nr_free - pages.watermark_high + file_lru - min(file_lru // 2, pages.watermark_low)
    nr_pages = {
        "MemTotal": pages.nr_usable,
        "MemFree": pages.nr_free,
        "MemAvailable": max(0, available),
        "Buffers": 0,
        "Cached": counts.file_pages - counts.swapcache,
        "SwapCached": counts.swapcache,
        "Active": counts.active_anon + counts.active_file,
        "Inactive": counts.inactive_anon + counts.inactive_file,
        "Active(anon)": counts.active_anon,
        "Inactive(anon)": counts.inactive_anon,
        "Active(file)": counts.active_file,
        "Inactive(file)": counts.inactive_file,
        "Unevictable": counts.mlocked,
        "Mlocked": counts.mlocked,
        "SwapTotal": swap.total_swap_pages,
        "SwapFree": swap.nr_swap_pages,
        "Dirty": counts.file_dirty,
        "Writeback": 0,
        "AnonPages": counts.anon_pages,
        "Mapped": counts.mapped_file,
        "Shmem": counts.shmem,
        "KReclaimable": 0,
        "Slab": 0,
        "SReclaimable": 0,
        "SUnreclaim": 0,
        "KernelStack": 0,
        "PageTables": counts.page_tables,
        "SecPageTables": 0,
        "NFS_Unstable": 0,
        "Bounce": 0,
        "WritebackTmp": 0,
        "CommitLimit": vm_commit_limit(kernel),
        "Committed_AS": kernel.vm_stat.committed_pages,
    }
    return {name: value << _KB_SHIFT for name, value in nr_pages.items()}


def meminfo_text(kernel: Kernel) -> str:
    """/proc/meminfo."""
    lines = [f"{name + ':':16}{kbytes:8} kB\n" for name, kbytes in meminfo(kernel).items()]
    lines += [f"{'VmallocTotal:':16}{34_359_738_367:8} kB\n", f"{'VmallocUsed:':16}{0:8} kB\n"]
    lines += [f"{'VmallocChunk:':16}{0:8} kB\n", f"{'Percpu:':16}{0:8} kB\n"]
    return "".join(lines)


def vmstat_text(kernel: Kernel) -> str:
    """/proc/vmstat: what is counted here, in Linux's order."""
    counts, stat, pages = PageCounts(kernel), kernel.vmstat, kernel.pages
    numbers = {
        "nr_free_pages": pages.nr_free,
        "nr_mlock": counts.mlocked,
        "nr_inactive_anon": counts.inactive_anon,
        "nr_active_anon": counts.active_anon,
        "nr_inactive_file": counts.inactive_file,
        "nr_active_file": counts.active_file,
        "nr_unevictable": counts.mlocked,
        "workingset_refault_anon": stat.workingset_refault_anon,
        "workingset_refault_file": stat.workingset_refault_file,
        "nr_anon_pages": counts.anon_pages,
        "nr_mapped": counts.mapped_file,
        "nr_file_pages": counts.file_pages,
        "nr_dirty": counts.file_dirty,
        "nr_writeback": 0,
        "nr_shmem": counts.shmem,
        "nr_vmscan_write": stat.nr_vmscan_write,
        "nr_written": stat.nr_written,
        "nr_page_table_pages": counts.page_tables,
        "nr_swapcached": counts.swapcache,
    }
    for name in EVENTS:
        numbers[name] = getattr(stat, name)
    return "".join(f"{name} {value}\n" for name, value in numbers.items())


def swaps_text(kernel: Kernel) -> str:
    """/proc/swaps."""
    lines = ["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"]
    for area in kernel.swap.active_areas():
        name = "".join(_escape(byte) for byte in area.path)
        kind = "partition" if area.is_partition else "file\t"
        size, used = area.pages << _KB_SHIFT, area.inuse_pages << _KB_SHIFT
        size_tab, used_tab = "\t" * (size < 10_000_000), "\t" * (used < 10_000_000)
        padding = " " * max(1, 40 - len(name))
        lines.append(f"{name}{padding}{kind}\t{size}\t{size_tab}{used}\t{used_tab}{area.prio}\n")
    return "".join(lines)


def _escape(byte: int) -> str:
    """What ``seq_file_path(swap, file, " \\t\\n\\\\")`` makes of one byte of a name."""
    return f"\\{byte:03o}" if byte in b" \t\n\\" else chr(byte)
