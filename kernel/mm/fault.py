"""Page faults: what the processor's #PF becomes.

Models ``mm/memory.c`` (``handle_mm_fault`` and the ``do_*_fault`` under it), ``mm/gup.c`` (``populate``) and the user
half of ``arch/x86/mm/fault.c``.

:func:`handle_mm_fault` begins with the commonest case written flat: the first touch of private anonymous memory.
Everything else goes through :func:`_handle_pte_fault`, a list of decisions in Linux's order.

Allocation may run reclaim, which may change any PTE and the page cache: every path allocates first and then looks
(again) at what it will change.

Deliberate differences: no mm or page locks; a page is reused on write when this PTE is its only user, as in Linux since
5.19 (PageAnonExclusive), in every profile; fault-around maps up to 16 pages that are in the page cache, as Linux
since 3.15, in every profile; no huge pages; no userfaultfd.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kernel.abi.errno import Errno, KernelError
from kernel.mm.memory import vm_page_prot
from kernel.mm.page import (
    PG_NEW_ANON,
    PG_anon,
    PG_exclusive,
    PG_exec,
    PG_mlocked,
    PG_swapbacked,
    PG_swapcache,
)
from kernel.mm.pagetable import PROTECTION_MAP, PTE_PRESENT, PTE_SPECIAL
from kernel.mm.types import (
    PAGE_MASK,
    PAGE_SHIFT,
    TASK_SIZE,
    VM_ACCESS_FLAGS,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_IO,
    VM_LOCKED,
    VM_PFNMAP,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    Vma,
)
from kernel.trace import Tracepoint
from mmu.paging import PF_INSTR, PF_PROT, PF_WRITE, PTE_A, PTE_D, PTE_P, PTE_PFN_MASK, PTE_W
from mmu.walker import EXECUTE, READ, WRITE, PageFault, walk

if TYPE_CHECKING:
    from kernel.mm.filemap import AddressSpace

PAGE_FAULT_USER = Tracepoint("exceptions:page_fault_user", "task vaddr error_code ip kind result pfn old_pfn vma")
"""After a fault was served or refused.  ``kind``: zero anonymous cow reuse file file_cow shared special swap stack
spurious, or ``bad`` when ``result`` is a signal.  ``pfn`` is mapped now, ``old_pfn`` was mapped before; None: none."""

FAULT_BEGIN = Tracepoint("fault:begin", "mm vaddr access")
"""Before a fault changes anything; PAGE_FAULT_USER follows, and no other fault comes between.  Only for those who
listen to that, too."""

FAULT_AROUND_PAGES = 16
"""``fault_around_bytes`` (64 KiB) in pages."""


class FaultResult(IntEnum):
    """How a fault ended; above MAJOR the access cannot be done."""

    MINOR = 0
    MAJOR = 1
    """A page had to be read from a file or from swap."""
    SIGSEGV_MAPERR = 2
    SIGSEGV_ACCERR = 3
    SIGBUS_ADRERR = 4
    OOM = 5


MINOR = FaultResult.MINOR
MAJOR = FaultResult.MAJOR
SIGSEGV_MAPERR = FaultResult.SIGSEGV_MAPERR
SIGSEGV_ACCERR = FaultResult.SIGSEGV_ACCERR
SIGBUS_ADRERR = FaultResult.SIGBUS_ADRERR
OOM = FaultResult.OOM


class Served(NamedTuple):
    """What one path did: for the tracepoint and the caller."""

    result: FaultResult
    kind: str
    pfn: int | None = None
    old_pfn: int | None = None


_FETCH_PRESENT = PF_INSTR | PF_PROT
_BAD_ACCESS = Served(SIGSEGV_ACCERR, "bad")
_BUS_ERROR = Served(SIGBUS_ADRERR, "bad")
_OUT_OF_MEMORY = Served(OOM, "bad")
_SPURIOUS = Served(MINOR, "spurious")

_ANON_PROT = [(prot | PTE_W | PTE_D) if prot & PTE_P else prot for prot in PROTECTION_MAP[:8]]
"""PTE bits of a fresh private page that is written, by VM_READ|VM_WRITE|VM_EXEC."""


def handle_mm_fault(mm: MmStruct, vaddr: int, access: int, ip: int = 0) -> FaultResult:
    """Serve the fault of an access to ``vaddr``; ``access`` is the error code (PF_WRITE, PF_INSTR and PF_PROT count).

    MINOR and MAJOR mean: retry the access.  It may fault again (a PTE was changed by reclaim meanwhile).
    """
    vma = mm.areas.find_exact(vaddr)
    if vma is not None and access & PF_WRITE and vma.vm_file is None and not PAGE_FAULT_USER.on:
        # First write to private anonymous memory: everything in one place.  While somebody listens, the list below.
        table = mm.pt.leaf.get(vaddr >> 21)
        vm_flags = vma.vm_flags
        if table is not None and vm_flags & VM_WRITE and vma.vm_ops is None:
            q = mm.pt.q
            index = table + (vaddr >> 12 & 511)
            if not q[index]:
                kernel = mm.kernel
                policy = kernel.policy
                pages = kernel.pages
                vaddr_of_page = vaddr & PAGE_MASK
                try:
                    if vma.anon_vma is None or policy.always_prepare:
                        policy.anon_vma_prepare(vma, vaddr_of_page)
                    pfn = pages.alloc_zeroed_page()
                except KernelError:
                    return _done(mm, vma, vaddr, access, ip, _OUT_OF_MEMORY)
                pages.flags[pfn] = PG_NEW_ANON
                pages.mapcount[pfn] = 1
                policy.page_add_new_anon_rmap(pfn, vma, vaddr_of_page, index)
                pages.lru_batch.append(pfn)
                mm.rss_anon += 1
                kernel.vmstat.pgfault += 1
                q[index] = pfn << 12 | _ANON_PROT[vm_flags & 7]
                if vm_flags & (VM_LOCKED | VM_EXEC):
                    _mark_special_page(mm, vma, pfn)
                return MINOR

    if FAULT_BEGIN.on:
        FAULT_BEGIN.emit(mm, vaddr, access)
    kind = ""
    if vma is None:
        vma = _grow_stack(mm, vaddr)
        if vma is None:
            return _done(mm, None, vaddr, access, ip, Served(SIGSEGV_MAPERR, "bad"))
        kind = "stack"
    try:
        served = _handle_pte_fault(mm, vma, vaddr & PAGE_MASK, access)
    except KernelError as error:
        served = _OUT_OF_MEMORY if error.errno == Errno.ENOMEM else _BUS_ERROR
    if kind and served.result <= MAJOR:
        served = served._replace(kind=kind)
    return _done(mm, vma, vaddr, access, ip, served)


def _done(mm: MmStruct, vma: Vma | None, vaddr: int, access: int, ip: int, served: Served) -> FaultResult:
    """Count and tell what was done."""
    vmstat = mm.kernel.vmstat
    vmstat.pgfault += 1
    if served.result is MAJOR:
        vmstat.pgmajfault += 1
    if PAGE_FAULT_USER.on:
        result, kind, pfn, old_pfn = served
        PAGE_FAULT_USER.emit(mm.kernel.current, vaddr, access, ip, kind, result, pfn, old_pfn, vma)
    return served.result


def _grow_stack(mm: MmStruct, vaddr: int) -> Vma | None:
    """The area below which ``vaddr`` lies, grown down to it, if it is a stack that may grow so far."""
    if not 0 <= vaddr < TASK_SIZE:
        return None
    vma = mm.areas.find_vma(vaddr)
    if vma is None or not vma.vm_flags & VM_GROWSDOWN:
        return None
    from kernel.mm.mmap import expand_stack

    try:
        expand_stack(vma, vaddr)
    except KernelError:
        return None
    return vma


def _handle_pte_fault(mm: MmStruct, vma: Vma, vaddr: int, access: int) -> Served:
    """The decision list.  ``vaddr`` is page aligned.  KernelError: ENOMEM is out of memory, all others a bus error."""
    vm_flags = vma.vm_flags
    if access & PF_WRITE:
        if not vm_flags & VM_WRITE:
            return _BAD_ACCESS
    elif not vm_flags & (VM_EXEC if access & _FETCH_PRESENT == _FETCH_PRESENT else VM_ACCESS_FLAGS):
        return _BAD_ACCESS  # as access_error(): a fetch from an absent page is served like a read, and faults again

    index = mm.pt.pte_alloc(vaddr)
    pte = mm.pt.q[index]
    if not pte:
        if vma.vm_ops is not None:
            return _do_special_fault(mm, vma, vaddr, access, index)
        if vma.vm_file is not None:
            return _do_file_fault(mm, vma, vaddr, access, index)
        return _do_anonymous_page(mm, vma, vaddr, access, index)
    if not pte & PTE_PRESENT:
        swap = mm.kernel.pages.swap
        assert swap is not None, f"bad PTE {pte:#x} at {vaddr:#x}"
        return swap.do_swap_page(vma, vaddr, index, pte, access)
    if access & PF_WRITE and not pte & PTE_W:
        return do_wp_page(mm, vma, vaddr, index, pte)
    # The table allows it already: the processor used an old translation.
    mm.pt.q[index] = pte | PTE_A | (PTE_D if access & PF_WRITE else 0)
    mm.kernel.hw.flush_tlb_page(vaddr)
    return _SPURIOUS


# ---- anonymous memory -----------------------------------------------------------------------------------------------


def _mark_special_page(mm: MmStruct, vma: Vma, pfn: int) -> None:
    """What the area asks of a page just mapped in it: PG_mlocked, PG_exec."""
    flags = mm.kernel.pages.flags
    if vma.vm_flags & VM_LOCKED:
        flags[pfn] |= PG_mlocked
    if vma.vm_flags & VM_EXEC:
        flags[pfn] |= PG_exec


def _anon_vma_prepare(vma: Vma, vaddr: int) -> None:
    policy = vma.vm_mm.kernel.policy
    if vma.anon_vma is None or policy.always_prepare:
        policy.anon_vma_prepare(vma, vaddr)


def map_new_anon_page(mm: MmStruct, vma: Vma, vaddr: int, index: int, pfn: int, prot: int) -> None:
    """``pfn`` (refcount 1, content ready) becomes the private page at ``vaddr``."""
    pages, policy = mm.kernel.pages, mm.kernel.policy
    pages.flags[pfn] = PG_NEW_ANON
    pages.mapcount[pfn] = 1
    policy.page_add_new_anon_rmap(pfn, vma, vaddr, index)
    pages.lru_batch.append(pfn)
    mm.rss_anon += 1
    mm.pt.q[index] = pfn << PAGE_SHIFT | prot
    if vma.vm_flags & (VM_LOCKED | VM_EXEC):
        _mark_special_page(mm, vma, pfn)


def _do_anonymous_page(mm: MmStruct, vma: Vma, vaddr: int, access: int, index: int) -> Served:
    pages = mm.kernel.pages
    if not access & PF_WRITE:
        pte = pages.zero_pfn << PAGE_SHIFT | PTE_SPECIAL | PROTECTION_MAP[vma.vm_flags & 7]
        mm.pt.q[index] = pte
        return Served(MINOR, "zero", pages.zero_pfn)
    _anon_vma_prepare(vma, vaddr)
    pfn = pages.alloc_zeroed_page()
    map_new_anon_page(mm, vma, vaddr, index, pfn, _ANON_PROT[vma.vm_flags & 7])
    return Served(MINOR, "anonymous", pfn)


# ---- writes to pages that are mapped read-only ----------------------------------------------------------------------


def do_wp_page(mm: MmStruct, vma: Vma, vaddr: int, index: int, pte: int) -> Served:
    """A write to a page whose PTE forbids it: use it again, let the file know, or copy it."""
    pages = mm.kernel.pages
    if pte & PTE_SPECIAL:
        return _copy_page(mm, vma, vaddr, index, pte, "cow")
    pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    if vma.vm_flags & VM_SHARED:
        _file_mapping(vma).page_mkwrite(pfn)
        mm.pt.q[index] = pte | PTE_W | PTE_D | PTE_A
        return Served(MINOR, "shared", pfn, pfn)
    flags = pages.flags[pfn]
    if not flags & PG_anon:
        return _copy_page(mm, vma, vaddr, index, pte, "file_cow")
    if flags & PG_exclusive or _is_only_user(mm, pfn):
        pages.flags[pfn] |= PG_exclusive
        mm.pt.q[index] = pte | PTE_W | PTE_D | PTE_A
        return Served(MINOR, "reuse", pfn, pfn)
    return _copy_page(mm, vma, vaddr, index, pte, "cow")


def _is_only_user(mm: MmStruct, pfn: int) -> bool:
    """``wp_can_reuse_anon_folio``: nobody but this PTE has the page, once it is out of the swap cache."""
    pages = mm.kernel.pages
    if pages.flags[pfn] & PG_swapcache and pages.swap is not None:
        pages.swap.try_to_free_swap(pfn)
    return pages.refcount[pfn] == 1


def _copy_page(mm: MmStruct, vma: Vma, vaddr: int, index: int, pte: int, kind: str) -> Served:
    """``wp_page_copy``: replace what the PTE maps by a private copy."""
    kernel = mm.kernel
    pages, policy, q = kernel.pages, kernel.policy, mm.pt.q
    _anon_vma_prepare(vma, vaddr)
    old_pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    if old_pfn == pages.zero_pfn:
        new_pfn = pages.alloc_zeroed_page()
    else:
        pages.get_page(old_pfn)  # or reclaim, to make room for the copy, could take this very page, for ever
        try:
            new_pfn = pages.alloc_page()
        finally:
            pages.put_page(old_pfn)
        if (q[index] ^ pte) & ~PTE_A:
            pages.put_page(new_pfn)
            return _SPURIOUS
        kernel.physmem.copy_frame(new_pfn, old_pfn)
    if not pte & PTE_SPECIAL:
        old_flags = pages.flags[old_pfn]
        if old_flags & PG_anon:
            mm.rss_anon -= 1
        elif old_flags & PG_swapbacked:
            mm.rss_shmem -= 1
        else:
            mm.rss_file -= 1
        if policy.per_pte:
            policy.page_remove_rmap(old_pfn, vma, vaddr, index)
        pages.mapcount[old_pfn] -= 1
        if old_flags & PG_swapcache and pages.swap is not None:
            pages.swap.release_swap_cache(np.array([old_pfn]))
        pages.put_page(old_pfn)
    map_new_anon_page(mm, vma, vaddr, index, new_pfn, _ANON_PROT[vma.vm_flags & 7])
    kernel.hw.flush_tlb_page(vaddr)
    return Served(MINOR, kind, new_pfn, old_pfn)


def unshare_page(vma: Vma, vaddr: int) -> int:
    """Break copy-on-write at ``vaddr`` whatever the protection (mremap under anonmm); returns the private page.

    The page is mapped as it was, but for PTE_W.  Raises KernelError(ENOMEM).
    """
    mm = vma.vm_mm
    q = mm.pt.q
    index = mm.pt.pte_index(vaddr)
    pte = q[index]
    served = _copy_page(mm, vma, vaddr, index, pte, "cow")
    if served.pfn is None:
        raise KernelError(Errno.ENOMEM, "page was reclaimed while it was unshared")
    q[index] = served.pfn << PAGE_SHIFT | pte & ~PTE_PFN_MASK & ~PTE_W
    return served.pfn


# ---- files ----------------------------------------------------------------------------------------------------------


def _file_mapping(vma: Vma) -> AddressSpace:
    assert vma.vm_file is not None
    mapping = vma.vm_file.f_mapping
    if mapping is None:
        raise KernelError(Errno.EIO, "mapped file has no pages")
    return mapping


def _do_file_fault(mm: MmStruct, vma: Vma, vaddr: int, access: int, index: int) -> Served:
    mapping = _file_mapping(vma)
    pgoff = (vaddr - vma.vm_start >> PAGE_SHIFT) + vma.vm_pgoff
    if pgoff << PAGE_SHIFT >= mapping.host.i_size:
        return _BUS_ERROR
    if access & PF_WRITE and not vma.vm_flags & VM_SHARED:
        return _do_cow_fault(mm, vma, vaddr, index, mapping, pgoff)

    pfn = mapping.pages.get(pgoff)
    result = MINOR
    if pfn is None:
        pfn = mapping.read_fault_page(pgoff, vma)
        result = MINOR if mapping.is_shmem else MAJOR
    prot = vm_page_prot(vma)
    if access & PF_WRITE:
        mapping.page_mkwrite(pfn)
        prot |= PTE_W | PTE_D
    _map_file_page(mm, vma, vaddr, index, pfn, prot)
    if not access & PF_WRITE:
        _fault_around(mm, vma, vaddr, index, mapping, pgoff, prot)
    return Served(result, "shared" if vma.vm_flags & VM_SHARED else "file", pfn)


def _do_cow_fault(mm: MmStruct, vma: Vma, vaddr: int, index: int, mapping: AddressSpace, pgoff: int) -> Served:
    """A write to a page of a private file mapping that was not mapped yet: straight to the copy."""
    pages = mm.kernel.pages
    _anon_vma_prepare(vma, vaddr)
    new_pfn = pages.alloc_page()
    result = MINOR
    try:
        old_pfn = mapping.pages.get(pgoff)
        if old_pfn is None:
            old_pfn = mapping.read_fault_page(pgoff, vma)
            result = MINOR if mapping.is_shmem else MAJOR
    except KernelError:
        pages.put_page(new_pfn)
        raise
    mm.kernel.physmem.copy_frame(new_pfn, old_pfn)
    map_new_anon_page(mm, vma, vaddr, index, new_pfn, _ANON_PROT[vma.vm_flags & 7])
    return Served(result, "file_cow", new_pfn, old_pfn)


def _map_file_page(mm: MmStruct, vma: Vma, vaddr: int, index: int, pfn: int, prot: int) -> None:
    """``set_pte_range`` for one page of a file."""
    kernel = mm.kernel
    pages = kernel.pages
    pages.refcount[pfn] += 1
    pages.mapcount[pfn] += 1
    if pages.flags[pfn] & PG_swapbacked:
        mm.rss_shmem += 1
    else:
        mm.rss_file += 1
    mm.pt.q[index] = pfn << PAGE_SHIFT | prot
    if kernel.policy.per_pte:
        kernel.policy.page_dup_rmap(pfn, vma, vaddr, index)
    if vma.vm_flags & (VM_LOCKED | VM_EXEC):
        _mark_special_page(mm, vma, pfn)


def _fault_around(mm: MmStruct, vma: Vma, vaddr: int, index: int, mapping: AddressSpace, pgoff: int, prot: int) -> None:
    """``do_fault_around``: also map the neighbours that are in the page cache, inside the aligned 64 KiB window."""
    q = mm.pt.q
    get = mapping.pages.get
    back = min(vaddr >> PAGE_SHIFT & (FAULT_AROUND_PAGES - 1), vaddr - vma.vm_start >> PAGE_SHIFT)
    last_of_window = FAULT_AROUND_PAGES - 1 - (vaddr >> PAGE_SHIFT & (FAULT_AROUND_PAGES - 1))
    last_of_file = (mapping.host.i_size - 1 >> PAGE_SHIFT) - pgoff
    ahead = min(last_of_window, (vma.vm_end - vaddr >> PAGE_SHIFT) - 1, last_of_file)
    for i in range(-back, ahead + 1):
        if q[index + i]:
            continue
        pfn = get(pgoff + i)
        if pfn is not None:
            _map_file_page(mm, vma, vaddr + (i << PAGE_SHIFT), index + i, pfn, prot)


def _do_special_fault(mm: MmStruct, vma: Vma, vaddr: int, access: int, index: int) -> Served:
    """A special mapping ([vdso], [vvar]): its pages belong to the kernel."""
    pgoff = (vaddr - vma.vm_start >> PAGE_SHIFT) + vma.vm_pgoff
    pfn: int = vma.vm_ops.fault(vma, pgoff)
    prot = vm_page_prot(vma)
    if vma.vm_flags & (VM_PFNMAP | VM_IO):
        mm.pt.q[index] = pfn << PAGE_SHIFT | prot | PTE_SPECIAL
        return Served(MINOR, "special", pfn)
    _map_file_page(mm, vma, vaddr, index, pfn, prot)
    if access & PF_WRITE:
        return do_wp_page(mm, vma, vaddr, index, mm.pt.q[index])
    return Served(MINOR, "special", pfn)


# ---- faults made by the kernel --------------------------------------------------------------------------------------


def touch(mm: MmStruct, vaddr: int, write: bool = False, execute: bool = False) -> FaultResult:
    """Access ``vaddr`` as a program would: walk the tables as the hardware does, fault until it succeeds.

    Returns the worst fault that was served (MINOR if none was needed), or the signal.
    """
    access = EXECUTE if execute else WRITE if write else READ
    worst = MINOR
    for _ in range(_MAX_RETRIES):
        try:
            walk(mm.kernel.physmem, mm.pt.cr3, vaddr, access, 3)
            return worst
        except PageFault as fault:
            if fault.non_canonical:
                return SIGSEGV_MAPERR
            result = handle_mm_fault(mm, vaddr, fault.error_code)
        if result > MAJOR:
            return result
        worst = max(worst, result)
    raise AssertionError(f"fault at {vaddr:#x} is served again and again without effect")


_MAX_RETRIES = 8


def fault_in_page(mm: MmStruct, vaddr: int, access: int) -> FaultResult:
    """``faultin_page`` of GUP: one page, until the PTE allows ``access`` (0 or PF_WRITE) or it cannot be had."""
    need = PTE_P | PTE_W if access & PF_WRITE else PTE_P
    for _ in range(_MAX_RETRIES):
        if mm.pt.get(vaddr) & need == need:
            return MINOR
        result = handle_mm_fault(mm, vaddr, access)
        if result > MAJOR:
            return result
    raise AssertionError(f"fault at {vaddr:#x} is served again and again without effect")


def populate_range(mm: MmStruct, start: int, end: int, write: bool | None = None) -> int:
    """``make_pages_present`` (``populate_vma_page_range``) over ``[start, end)``; returns how many pages were passed.

    ``write`` None is mlock's and MAP_POPULATE's rule: break copy-on-write now where the area is private and writable.
    Raises KernelError: EFAULT for a hole, a forbidden access or a bus error, ENOMEM.  What was done stays done.
    """
    vaddr = start & PAGE_MASK
    while vaddr < end:
        vma = mm.areas.find_exact(vaddr)
        if vma is None:
            raise KernelError(Errno.EFAULT, f"no area at {vaddr:#x}")
        stop = min(end, vma.vm_end)
        if vma.vm_flags & (VM_IO | VM_PFNMAP):
            raise KernelError(Errno.EFAULT, f"device memory at {vaddr:#x}")
        if write is None:
            access = PF_WRITE if vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE else 0
        else:
            access = PF_WRITE if write else 0
        while vaddr < stop:
            result = fault_in_page(mm, vaddr, access)
            if result > MAJOR:
                if result is OOM:
                    raise KernelError(Errno.ENOMEM, f"no page for {vaddr:#x}")
                raise KernelError(Errno.EFAULT, f"{result.name} at {vaddr:#x}")
            vaddr += 1 << PAGE_SHIFT
    return (vaddr - (start & PAGE_MASK)) >> PAGE_SHIFT
