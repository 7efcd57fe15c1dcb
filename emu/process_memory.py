"""A program's memory, protection or not: what ``/proc/PID/mem`` and PTRACE_POKEDATA reach.  For gdb and the Python API.

Models ``access_remote_vm`` with FOLL_FORCE (mm/memory.c, mm/gup.c).  A write to private memory that the program may not
write gives it a private copy of the page, as a breakpoint set by ptrace does; its protection stays.

Deliberate difference: reading leaves no mark (absent pages are not faulted in) unless the page is on swap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.trace.peek import peek
from kernel.abi.errno import KernelError
from kernel.mm.fault import MAJOR, handle_mm_fault
from kernel.mm.memory import change_protection
from kernel.mm.pagetable import PTE_PRESENT
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, VM_MAYWRITE, VM_READ, VM_SHARED, VM_WRITE
from kernel.mm.usercopy import user_page_for_write
from mmu.paging import PF_WRITE, PTE_PFN_MASK

if TYPE_CHECKING:
    from kernel.mm.types import MmStruct, Vma


def read_memory(mm: MmStruct | None, address: int, length: int) -> bytes:
    """Up to ``length`` bytes from ``address`` on; fewer where nothing is mapped."""
    if mm is None:
        return b""
    data = b""
    while len(data) < length:
        place = address + len(data)
        part = peek(mm, place, length - len(data)) or _force_read(mm, place, length - len(data))
        if not part:
            break
        data += part
    return data


def _force_read(mm: MmStruct, address: int, length: int) -> bytes:
    """The rest of one page that ``peek`` refuses: not readable for the program, or on swap."""
    vma = mm.areas.find_exact(address)
    if vma is None:
        return b""
    pte = mm.pt.get(address)
    if pte and not pte & PTE_PRESENT:
        if handle_mm_fault(mm, address, 0) > MAJOR:
            return b""
        pte = mm.pt.get(address)
    offset = address & (PAGE_SIZE - 1)
    length = min(length, PAGE_SIZE - offset)
    if not pte & PTE_PRESENT:
        return b"" if vma.vm_flags & VM_READ or vma.vm_file is not None else bytes(length)
    return bytes(mm.kernel.physmem.frame((pte & PTE_PFN_MASK) >> PAGE_SHIFT)[offset : offset + length])


def write_memory(mm: MmStruct | None, address: int, data: bytes) -> bool:
    """Store ``data``; False when a page of it cannot be written (the pages before it are)."""
    if mm is None:
        return False
    done = 0
    while done < len(data):
        place = address + done
        nr_bytes = min(PAGE_SIZE - (place & (PAGE_SIZE - 1)), len(data) - done)
        vma = mm.areas.find_exact(place)
        if vma is None or not _write_in_page(mm, vma, place, data[done : done + nr_bytes]):
            return False
        done += nr_bytes
    return True


def _write_in_page(mm: MmStruct, vma: Vma, address: int, data: bytes) -> bool:
    kernel = mm.kernel
    try:
        paddr = user_page_for_write(mm, address) if vma.vm_flags & VM_WRITE else _force_write(mm, vma, address)
    except KernelError:
        return False
    if paddr < 0:
        return False
    kernel.physmem.mem[paddr : paddr + len(data)] = data
    kernel.hw.invalidate_code(paddr >> PAGE_SHIFT)
    return True


def _force_write(mm: MmStruct, vma: Vma, address: int) -> int:
    """Break copy-on-write of a page that is not writable; the physical address, or -1."""
    flags = vma.vm_flags
    if flags & VM_SHARED or not flags & VM_MAYWRITE or vma.vm_ops is not None:
        return -1
    page = address & -PAGE_SIZE
    vma.vm_flags = flags | VM_READ | VM_WRITE
    try:
        if handle_mm_fault(mm, address, PF_WRITE) > MAJOR:
            return -1
    finally:
        vma.vm_flags = flags
        change_protection(vma, page, page + PAGE_SIZE)
    mm.kernel.hw.flush_tlb_page(page)
    return (mm.pt.get(address) & PTE_PFN_MASK) + (address & (PAGE_SIZE - 1))
