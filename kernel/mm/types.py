"""``struct mm_struct`` and ``struct vm_area_struct``: the data that all of ``kernel/mm`` works on.

Models ``include/linux/mm_types.h`` (2.6.7 names where they differ: no maple tree, ``vm_prev``/``vm_next`` list).
Only data and trivial accessors live here; behaviour is in area.py (find, link, split), merge.py, mmap.py,
memory.py (page tables), fault.py and the rmap policies.

Units: ``vm_start``/``vm_end`` are byte addresses (page aligned, end exclusive); ``vm_pgoff`` is in pages;
``total_vm``, ``locked_vm``, ``data_vm``, ``exec_vm``, ``stack_vm`` and all rss counters are in pages.

Invariants (checked by rmap/check.py): areas sorted, disjoint, non-empty, page aligned, below TASK_SIZE;
``map_count`` equals the number of areas; the counters equal a recount.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel.fs.file import File
    from kernel.kernel import Kernel
    from kernel.mm.area import AreaTree
    from kernel.mm.pagetable import PageTables

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = ~(PAGE_SIZE - 1)
TASK_SIZE = 0x7FFF_FFFF_F000

# vm_flags: include/linux/mm.h of today; plain ints because IntFlag arithmetic is too slow for the fault path.
VM_READ = 0x1
VM_WRITE = 0x2
VM_EXEC = 0x4
VM_SHARED = 0x8
VM_MAYREAD = 0x10
VM_MAYWRITE = 0x20
VM_MAYEXEC = 0x40
VM_MAYSHARE = 0x80
VM_GROWSDOWN = 0x100
VM_PFNMAP = 0x400
VM_RESERVED = 0x800
VM_LOCKED = 0x2000
VM_IO = 0x4000
VM_SEQ_READ = 0x8000
VM_RAND_READ = 0x1_0000
VM_DONTCOPY = 0x2_0000
VM_DONTEXPAND = 0x4_0000
VM_LOCKONFAULT = 0x8_0000
VM_ACCOUNT = 0x10_0000
VM_NORESERVE = 0x20_0000
VM_HUGETLB = 0x40_0000
VM_SYNC = 0x80_0000
VM_WIPEONFORK = 0x200_0000
VM_DONTDUMP = 0x400_0000
VM_SOFTDIRTY = 0x800_0000
VM_MIXEDMAP = 0x1000_0000
VM_HUGEPAGE = 0x2000_0000
VM_NOHUGEPAGE = 0x4000_0000
VM_MERGEABLE = 0x8000_0000
VM_DROPPABLE = 1 << 40
VM_SEALED = 1 << 42
VM_STACK = VM_GROWSDOWN
VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC
VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP


class Vma:
    """``struct vm_area_struct``: one area of one mm.  Compared by identity."""

    __slots__ = (
        "__weakref__",
        "anon_name",
        "anon_vma",
        "anon_vma_chain",
        "first_write",
        "vm_end",
        "vm_file",
        "vm_flags",
        "vm_mm",
        "vm_name",
        "vm_next",
        "vm_ops",
        "vm_pgoff",
        "vm_policy",
        "vm_prev",
        "vm_private",
        "vm_start",
    )

    def __init__(
        self,
        vm_mm: MmStruct,
        vm_start: int,
        vm_end: int,
        vm_flags: int,
        vm_pgoff: int = 0,
        vm_file: File | None = None,
    ) -> None:
        self.vm_mm = vm_mm
        self.vm_start = vm_start
        self.vm_end = vm_end
        self.vm_flags = vm_flags
        self.vm_pgoff = vm_pgoff
        self.vm_file = vm_file
        """The mapped file (shared anonymous memory has a shmem file); None for private anonymous memory."""
        self.vm_ops: Any = None
        """Special mappings only ([vdso], [vvar]): an object with ``name`` and ``fault(vma, pgoff) -> pfn``."""
        self.vm_name: str | None = None
        """What /proc/PID/maps shows in brackets for special mappings."""
        self.anon_name: str | None = None
        """PR_SET_VMA_ANON_NAME."""
        self.vm_policy: Any = None
        self.anon_vma: Any = None
        """Owned by the rmap policy."""
        self.anon_vma_chain: Any = None
        """Owned by the rmap policy (anon_vma_chain only)."""
        self.first_write: Any = None
        """Who made ``anon_vma`` non-NULL: a record for ``mm:merge_refused``; None unless traced."""
        self.vm_prev: Vma | None = None
        self.vm_next: Vma | None = None
        self.vm_private: Any = None

    @property
    def nr_pages(self) -> int:
        return (self.vm_end - self.vm_start) >> PAGE_SHIFT

    def __repr__(self) -> str:
        flags = self.vm_flags
        perms = "".join(c if flags & bit else "-" for c, bit in zip("rwx", (1, 2, 4), strict=True))
        sharing = "s" if flags & VM_SHARED else "p"
        return f"<Vma {self.vm_start:x}-{self.vm_end:x} {perms}{sharing} pgoff={self.vm_pgoff:x}>"


class MmStruct:
    """``struct mm_struct``: one address space."""

    def __init__(self, kernel: Kernel, areas: AreaTree, page_tables: PageTables) -> None:
        self.kernel = kernel
        self.areas = areas
        self.pt = page_tables
        self.mm_users = 1
        self.map_count = 0
        # layout, set by exec
        self.mmap_base = 0
        self.start_code = self.end_code = self.start_data = self.end_data = 0
        self.start_brk = self.brk = self.start_stack = 0
        self.arg_start = self.arg_end = self.env_start = self.env_end = 0
        self.saved_auxv = b""
        self.exe_file: File | None = None
        self.vdso_base = 0
        # counters, in pages
        self.total_vm = self.locked_vm = self.data_vm = self.exec_vm = self.stack_vm = 0
        self.rss_anon = self.rss_file = self.rss_shmem = 0
        self.swap_pages = 0
        self.hiwater_rss = self.hiwater_vm = 0
        self.hiwater_map_count = 0
        """Most areas that this address space ever had."""
        self.def_flags = 0
        """VM_LOCKED | VM_LOCKONFAULT after mlockall(MCL_FUTURE)."""
        self.dumpable = 1
        self.has_forked = False
        """It has been copied by fork, or is such a copy: pages may be shared with others, copy-on-write."""
        self.membarrier_state = 0
        """MEMBARRIER_CMD_REGISTER_* that were asked for."""
        self.rmap: Any = None
        """Per-mm object of the rmap policy (anonmm, the one anon_vma)."""
        self.id = kernel.next_mm_id()
        """A small number that names this mm in traces and pictures, the same every run."""

    def for_each_vma(self) -> Iterator[Vma]:
        """The areas in address order, those that there are now."""
        return iter(list(self.areas))

    @property
    def rss(self) -> int:
        return self.rss_anon + self.rss_file + self.rss_shmem
