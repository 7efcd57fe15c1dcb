"""Reading guest memory without leaving a mark: no fault, no accessed bit, no page brought in.

What a debugger reads with ``process_vm_readv``, but absent pages are not faulted in: an untouched anonymous page reads
as zeros, an untouched file page as the file says, a page on swap as its slot says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import KernelError
from kernel.mm.pagetable import PTE_PRESENT
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, VM_EXEC, VM_READ
from mmu.paging import PTE_PFN_MASK

if TYPE_CHECKING:
    from kernel.fs.inode import Inode
    from kernel.kernel import Kernel
    from kernel.mm.types import MmStruct

_ZEROS = bytes(PAGE_SIZE)


def peek(mm: MmStruct | None, address: int, length: int) -> bytes:
    """Up to ``length`` bytes from ``address`` on; fewer where the memory is not readable."""
    return _peek(mm, address, length, VM_READ)


def peek_code(mm: MmStruct | None, address: int, length: int) -> bytes:
    """As :func:`peek`, of what may be executed; the processor reads it whether or not the area may be read."""
    return _peek(mm, address, length, VM_READ | VM_EXEC)


def _peek(mm: MmStruct | None, address: int, length: int, vm_flags: int) -> bytes:
    if mm is None:
        return b""
    parts: list[bytes] = []
    end = address + length
    while address < end:
        page = _page(mm, address & -PAGE_SIZE, vm_flags)
        if page is None:
            break
        offset = address & (PAGE_SIZE - 1)
        part = bytes(page[offset : offset + end - address])
        parts.append(part)
        address += len(part)
    return b"".join(parts)


def peek_exactly(mm: MmStruct | None, address: int, length: int) -> bytes | None:
    """``length`` bytes, or None when they are not all readable."""
    data = peek(mm, address, length)
    return data if len(data) == length else None


def peek_string(mm: MmStruct | None, address: int, max_len: int = 4096) -> tuple[bytes, bool] | None:
    """The bytes before the first NUL, and whether there was one within ``max_len``; None when unreadable."""
    found = b""
    while len(found) < max_len:
        step = min(PAGE_SIZE - (address + len(found)) % PAGE_SIZE, max_len - len(found))
        part = peek(mm, address + len(found), step)
        nul = part.find(b"\0")
        if nul >= 0:
            return found + part[:nul], True
        found += part
        if len(part) < step:
            return None
    return found, False


def _page(mm: MmStruct, vaddr: int, vm_flags: int) -> bytes | memoryview | None:
    """The content of the page at ``vaddr`` (page aligned), if its area has one of ``vm_flags``."""
    vma = mm.areas.find_exact(vaddr)
    if vma is None or not vma.vm_flags & vm_flags:
        return None
    pte = mm.pt.get(vaddr)
    if pte & PTE_PRESENT:
        return mm.kernel.physmem.frame((pte & PTE_PFN_MASK) >> PAGE_SHIFT)
    pgoff = vma.vm_pgoff + ((vaddr - vma.vm_start) >> PAGE_SHIFT)
    if vma.vm_ops is not None:  # the kernel's own pages, always there
        return mm.kernel.physmem.frame(vma.vm_ops.fault(vma, pgoff))
    if pte:
        return None
    if vma.vm_file is None:
        return _ZEROS
    return _file_page(mm.kernel, vma.vm_file.f_inode, pgoff)


def _file_page(kernel: Kernel, inode: Inode, pgoff: int) -> bytes | memoryview | None:
    mapping = inode.i_mapping
    if mapping is None or pgoff << PAGE_SHIFT >= inode.i_size:
        return None
    pfn = mapping.pages.get(pgoff)
    if pfn is not None:
        return kernel.physmem.frame(pfn)
    try:
        return bytes(inode.readpages(pgoff, 1)).ljust(PAGE_SIZE, b"\0")[:PAGE_SIZE]
    except KernelError:
        return None


def peek_file(kernel: Kernel, inode: Inode) -> bytes | None:
    """The whole content of a regular file, dirty pages of the page cache included; None when it cannot be read."""
    nr_pages = (inode.i_size + PAGE_SIZE - 1) >> PAGE_SHIFT
    try:
        data = bytearray(inode.readpages(0, nr_pages).ljust(nr_pages << PAGE_SHIFT, b"\0"))
    except KernelError:
        return None
    mapping = inode.i_mapping
    if mapping is not None:
        for pgoff, pfn in mapping.pages.items():
            if pgoff < nr_pages:
                data[pgoff << PAGE_SHIFT : (pgoff + 1) << PAGE_SHIFT] = kernel.physmem.frame(pfn)
    return bytes(data[: inode.i_size])
