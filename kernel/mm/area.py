"""Areas of an address space: make, link, cut; the tree, the file's i_mmap, map_count and the rmap policy together.

Models ``vma_link``, ``split_vma`` and ``remove_vma`` of ``mm/mmap.c`` and ``mm/vma.c``.
"""

from __future__ import annotations

from kernel.abi.errno import Errno, KernelError
from kernel.fs.file import fput
from kernel.mm.areatree import STACK_GUARD_GAP, AreaTree, vm_start_gap
from kernel.mm.types import PAGE_SHIFT, MmStruct, Vma
from kernel.trace import Tracepoint

__all__ = ["STACK_GUARD_GAP", "AreaTree", "vm_start_gap"]

VMA_SPLIT = Tracepoint("mm:vma_split", "vma new addr")
VMA_STORE = Tracepoint("mmap:vma_store", "mm vma")
"""``vma`` was linked, or its range, permissions, name or anon_vma have changed."""
VMA_UNLINK = Tracepoint("mmap:vma_unlink", "mm vma")


def page_align(nr_bytes: int) -> int:
    """``PAGE_ALIGN``: up to whole pages, modulo 2**64."""
    return nr_bytes + 4095 & 0xFFFF_FFFF_FFFF_F000


def i_mmap_insert(vma: Vma) -> None:
    """``__vma_link_file``: make the file's mapping know ``vma``."""
    mapping = vma.vm_file.f_mapping if vma.vm_file is not None else None
    if mapping is not None:
        mapping.i_mmap.add(vma)


def i_mmap_remove(vma: Vma) -> None:
    """``__remove_shared_vm_struct``.  Must come before ``vm_start``, ``vm_end`` or ``vm_pgoff`` change."""
    mapping = vma.vm_file.f_mapping if vma.vm_file is not None else None
    if mapping is not None:
        mapping.i_mmap.remove(vma)


def vma_link(mm: MmStruct, vma: Vma) -> None:
    """Insert a new area: tree, file mapping, map_count."""
    mm.areas.link(vma)
    mm.map_count += 1
    if mm.map_count > mm.hiwater_map_count:
        mm.hiwater_map_count = mm.map_count
    if vma.vm_file is not None:
        i_mmap_insert(vma)
    if VMA_STORE.on:
        VMA_STORE.emit(mm, vma)


def vma_unlink(mm: MmStruct, vma: Vma) -> None:
    """Take an area out of the tree; its ``vm_prev`` and ``vm_next`` keep their values."""
    mm.areas.unlink(vma)
    mm.map_count -= 1
    if VMA_UNLINK.on:
        VMA_UNLINK.emit(mm, vma)


def set_vma_range(vma: Vma, start: int, end: int, pgoff: int) -> None:
    """Move the edges of an area that is linked (``vma_prepare`` and ``vma_complete``)."""
    mm = vma.vm_mm
    policy = mm.kernel.policy
    if vma.vm_file is not None:
        i_mmap_remove(vma)
    vma.vm_pgoff = pgoff
    mm.areas.set_range(vma, start, end)
    if policy.indexed:
        policy.range_changed(vma)
    if vma.vm_file is not None:
        i_mmap_insert(vma)
    if VMA_STORE.on:
        VMA_STORE.emit(mm, vma)


def duplicate(vma: Vma) -> Vma:
    """A copy of the structure (``*new = *vma``), linked nowhere; its rmap links are the policy's to make."""
    new = Vma(vma.vm_mm, vma.vm_start, vma.vm_end, vma.vm_flags, vma.vm_pgoff, vma.vm_file)
    new.vm_ops = vma.vm_ops
    new.vm_name = vma.vm_name
    new.anon_name = vma.anon_name
    new.vm_policy = vma.vm_policy
    new.vm_private = vma.vm_private
    new.first_write = vma.first_write
    return new


def split_vma(mm: MmStruct, vma: Vma, addr: int, new_below: bool) -> Vma:
    """Cut ``vma`` at ``addr``; the new area is the lower half if ``new_below``, else the upper.  ENOMEM at the limit.
    """
    if mm.map_count >= mm.kernel.sysctl.max_map_count:
        raise KernelError(Errno.ENOMEM, "split: map_count at max_map_count")
    return split_vma_unlimited(mm, vma, addr, new_below)


def split_vma_unlimited(mm: MmStruct, vma: Vma, addr: int, new_below: bool) -> Vma:
    """``__split_vma``: as :func:`split_vma` without the limit (munmap looks at it only once)."""
    policy = mm.kernel.policy
    new = duplicate(vma)
    delta = (addr - vma.vm_start) >> PAGE_SHIFT
    file = vma.vm_file
    if file is not None:
        i_mmap_remove(vma)
        file.get()
    if new_below:
        new.vm_end = addr
        vma.vm_pgoff += delta
    else:
        new.vm_start = addr
        new.vm_pgoff += delta
    mm.areas.link_half(vma, new, addr)
    mm.map_count += 1
    if mm.map_count > mm.hiwater_map_count:
        mm.hiwater_map_count = mm.map_count
    if policy.indexed:
        policy.range_changed(vma)
    if file is not None:
        i_mmap_insert(vma)
        i_mmap_insert(new)
    policy.split(vma, new)
    if VMA_STORE.on:
        VMA_STORE.emit(mm, vma)
        VMA_STORE.emit(mm, new)
    if VMA_SPLIT.on:
        VMA_SPLIT.emit(vma, new, addr)
    return new


def free_vma(vma: Vma) -> None:
    """``remove_vma``: an area that is linked nowhere any more lets go of its file."""
    if vma.vm_file is not None:
        fput(vma.vm_file)
