"""The page cache: one set of pages for read(), write() and every mapping of a file.

Models ``mm/filemap.c``, ``mm/truncate.c``, ``mm/readahead.c`` and the inode side of ``mm/page-writeback.c``.

The file's own code is behind three methods of the inode: ``readpages(pgoff, nr)``, ``writepage(pgoff, data)`` and
``touch_mtime()``.

Invariants: ``pages[pgoff]`` holds one reference on its frame, whose ``mapping`` is this object and ``index`` pgoff;
``dirty`` holds exactly the offsets of pages with PG_dirty; a page of a file with write-notify (all but
shmem) has a writable PTE only while it is dirty; no page lies wholly beyond ``host.i_size``.

Deliberate differences: reading is done at once (no locked, half-read pages); read-ahead is one batch of up to 32 pages
without state per open file; dirty pages of shmem are not counted in ``dirty`` (they are never written back).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.mm.i_mmap import MappingTree
from kernel.mm.memory import unmap_mapping_range
from kernel.mm.page import PG_dirty, PG_exec, PG_referenced, PG_swapbacked, PG_uptodate
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, VM_RAND_READ, VM_SEQ_READ, VM_SHARED, Vma
from mmu.paging import PTE_D, PTE_P, PTE_PFN_MASK, PTE_W

if TYPE_CHECKING:
    from kernel.fs.inode import Inode
    from kernel.mm.page import MemMap
    from kernel.mm.swapfile import SwapSystem

READAHEAD_PAGES = 32
"""``ra_pages`` (VM_READAHEAD_PAGES, 128 KiB)."""
_KB_SHIFT = PAGE_SHIFT - 10
_ZERO_PAGE = bytes(PAGE_SIZE)
_NOT_DIRTY = ~PG_dirty & 0xFFFF_FFFF
_NOT_REFERENCED = ~PG_referenced & 0xFFFF_FFFF
MAX_PGOFF = (1 << 52) - 1


class AddressSpace:
    """``struct address_space``: the cached pages of one inode and who maps them."""

    __slots__ = ("dirty", "host", "i_mmap", "is_shmem", "memmap", "pages", "swapped", "writeback_error")

    def __init__(self, host: Inode, is_shmem: bool = False) -> None:
        self.host = host
        self.memmap: MemMap = host.i_sb.kernel.pages
        self.is_shmem = is_shmem
        """The pages are the file (tmpfs, memfd, shared anonymous memory): never dropped, never written back."""
        self.pages: dict[int, int] = {}
        """pgoff -> pfn."""
        self.swapped: dict[int, int] = {}
        """pgoff -> swap entry of a page that was swapped out (shmem only); never an offset that ``pages`` has too."""
        self.dirty: dict[int, None] = {}
        """Offsets to be written back, in the order in which they became dirty."""
        self.i_mmap = MappingTree()
        self.writeback_error = 0
        """Errno of a failed write-back that nobody has been told yet (``filemap_check_errors``)."""

    @property
    def nrpages(self) -> int:
        return len(self.pages)

    # ---- finding and reading ------------------------------------------------------------------------------------

    def find_get_page(self, pgoff: int) -> int | None:
        """The cached page with one more reference, or None."""
        pfn = self.pages.get(pgoff)
        if pfn is not None:
            self.memmap.refcount[pfn] += 1
        return pfn

    def read_mapping_page(self, pgoff: int, nr_ahead: int = READAHEAD_PAGES) -> int:
        """The page at ``pgoff``; if absent, read with those after it (``nr_ahead`` in all, not beyond the end).

        The caller must take a reference or be done before it next allocates.  KernelError: EIO and the like, ENOMEM.
        """
        pfn = self.pages.get(pgoff)
        if pfn is not None:
            return pfn
        return self._read_batch(pgoff, pgoff, nr_ahead)

    def read_fault_page(self, pgoff: int, vma: Vma) -> int:
        """As :meth:`read_mapping_page` for a fault in ``vma``: read around the page (``do_sync_mmap_readahead``)."""
        if self.is_shmem or vma.vm_flags & VM_RAND_READ:
            return self._read_batch(pgoff, pgoff, 1)
        if vma.vm_flags & VM_SEQ_READ:
            return self._read_batch(pgoff, pgoff, READAHEAD_PAGES)
        return self._read_batch(pgoff, max(0, pgoff - READAHEAD_PAGES // 2), READAHEAD_PAGES)

    def _read_batch(self, pgoff: int, first: int, nr: int) -> int:
        """Read the absent pages around ``pgoff`` that lie in ``[first, first + nr)`` with one ``readpages``."""
        if self.is_shmem:
            return self._shmem_page(pgoff)
        pages = self.pages
        end_of_file = (self.host.i_size + PAGE_SIZE - 1) >> PAGE_SHIFT
        start, stop = pgoff, pgoff + 1
        limit = min(first + nr, end_of_file)
        while stop < limit and stop not in pages:
            stop += 1
        while start > first and start - 1 not in pages:
            start -= 1
        memmap = self.memmap
        if stop - start > 1 and memmap.nr_free - (stop - start) < memmap.watermark_low:
            start, stop = pgoff, pgoff + 1  # no luxury when memory is short
        pfns = memmap.alloc_pages(stop - start)
        try:
            data = memoryview(self.host.readpages(start, stop - start))
        except KernelError:
            for pfn in pfns:
                memmap.put_page(pfn)
            raise
        self.host.i_sb.kernel.vmstat.pgpgin += len(pfns) << _KB_SHIFT
        mem = memmap.physmem.mem
        for i, pfn in enumerate(pfns):
            chunk = data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]
            address = pfn << PAGE_SHIFT
            mem[address : address + len(chunk)] = chunk
            if len(chunk) < PAGE_SIZE:
                mem[address + len(chunk) : address + PAGE_SIZE] = bytes(PAGE_SIZE - len(chunk))
            self.add_page(start + i, pfn, PG_uptodate)
        return pfns[pgoff - start]

    def _shmem_page(self, pgoff: int) -> int:
        """``shmem_get_folio``: bring the page back from swap, or begin with zeros."""
        if pgoff not in self.swapped:
            return self.add_new_page(pgoff)
        from kernel.mm.swapin import shmem_swapin

        return shmem_swapin(self._swap_system(), self, pgoff)

    def _swap_system(self) -> SwapSystem:
        from kernel.mm.swapfile import SwapSystem

        swap = self.memmap.swap
        assert isinstance(swap, SwapSystem), "a swapped page without swap"
        return swap

    def add_new_page(self, pgoff: int) -> int:
        """A page of zeros at an offset where the file has nothing (a hole of shmem, a page wholly to be written)."""
        pfn = self.memmap.alloc_zeroed_page()
        self.add_page(pgoff, pfn, PG_uptodate | (PG_swapbacked if self.is_shmem else 0))
        return pfn

    def add_page(self, pgoff: int, pfn: int, flags: int) -> None:
        """``filemap_add_folio``: one reference of the caller's becomes the page cache's."""
        memmap = self.memmap
        if not self.pages:
            memmap.mappings[self] = None
        self.pages[pgoff] = pfn
        memmap.flags[pfn] = flags
        memmap.mapping[pfn] = self
        memmap.index[pfn] = pgoff
        memmap.lru_batch.append(pfn)

    # ---- dirtying -----------------------------------------------------------------------------------------------

    def set_page_dirty(self, pfn: int) -> None:
        memmap = self.memmap
        memmap.flags[pfn] |= PG_dirty
        if not self.is_shmem:
            self.dirty[memmap.index[pfn]] = None

    def page_mkwrite(self, pfn: int) -> None:
        """The first write through a shared mapping to a clean page (``filemap_page_mkwrite``): time stamp and dirty.

        KernelError if the file does not take writes: the fault becomes a bus error.
        """
        self.host.touch_mtime()
        self.set_page_dirty(pfn)

    # ---- removing -----------------------------------------------------------------------------------------------

    def delete_page(self, pgoff: int) -> None:
        """``filemap_remove_folio``: the page leaves the cache.  It must not be mapped, or be about to be unmapped."""
        memmap = self.memmap
        pfn = self.pages.pop(pgoff)
        self.dirty.pop(pgoff, None)
        memmap.flags[pfn] &= _NOT_DIRTY
        memmap.mapping[pfn] = None
        if not self.pages and not self.swapped:
            del memmap.mappings[self]
        memmap.put_page(pfn)

    def delete_swapped(self, pgoff: int) -> None:
        """A swapped-out page is truncated away: its slot is free."""
        self._swap_system().free_swap_and_cache(self.swapped.pop(pgoff))
        if not self.pages and not self.swapped:
            del self.memmap.mappings[self]


# ---- read(2) and write(2) -------------------------------------------------------------------------------------------


def generic_file_read(mapping: AddressSpace, pos: int, count: int) -> bytes:
    """Up to ``count`` bytes from ``pos``, less at the end of the file (``filemap_read``)."""
    count = min(count, mapping.host.i_size - pos)
    if count <= 0:
        return b""
    memmap = mapping.memmap
    buf, flags = memmap.physmem.buf, memmap.flags
    get = mapping.pages.get
    parts: list[bytes] = []
    end = pos + count
    while pos < end:
        pgoff = pos >> PAGE_SHIFT
        pfn = get(pgoff)
        if pfn is None:
            if mapping.is_shmem and pgoff not in mapping.swapped:  # a hole reads as zeros and stays a hole
                nr_bytes = min(end, (pgoff + 1) << PAGE_SHIFT) - pos
                parts.append(_ZERO_PAGE[:nr_bytes])
                pos += nr_bytes
                continue
            try:
                pfn = mapping.read_mapping_page(pgoff)
            except KernelError:
                if parts:
                    break
                raise
        if not pos & (PAGE_SIZE - 1) or not flags[pfn] & PG_referenced:  # once for many small reads of one page
            memmap.mark_page_accessed(pfn)
        nr_bytes = min(end, (pgoff + 1) << PAGE_SHIFT) - pos
        address = (pfn << PAGE_SHIFT) + (pos & (PAGE_SIZE - 1))
        parts.append(buf[address : address + nr_bytes])
        pos += nr_bytes
    return parts[0] if len(parts) == 1 else b"".join(parts)


def generic_file_write(mapping: AddressSpace, pos: int, data: bytes | memoryview) -> int:
    """Write ``data`` at ``pos`` into the page cache, extending the file; returns how many bytes were taken.

    Less than all only if memory or the file gave out in the middle; KernelError if not even one page could be had.
    The caller checks limits, seals and the open mode, and stamps the times.
    """
    host = mapping.host
    memmap = mapping.memmap
    mem, flags = memmap.physmem.mem, memmap.flags
    source = memoryview(data)
    total = len(source)
    done = 0
    if pos > host.i_size and total:
        pagecache_isize_extended(mapping, host.i_size, pos)
    while done < total:
        pgoff = pos >> PAGE_SHIFT
        offset = pos & (PAGE_SIZE - 1)
        nr_bytes = min(PAGE_SIZE - offset, total - done)
        try:
            pfn = _page_for_write(mapping, pgoff, nr_bytes)
        except KernelError:
            if done:
                return done
            raise
        address = (pfn << PAGE_SHIFT) + offset
        mem[address : address + nr_bytes] = source[done : done + nr_bytes]
        if flags[pfn] & PG_exec:
            memmap.hw.invalidate_code(pfn)
        mapping.set_page_dirty(pfn)
        done += nr_bytes
        pos += nr_bytes
        if pos > host.i_size:
            host.i_size = pos
    return done


def _page_for_write(mapping: AddressSpace, pgoff: int, nr_bytes: int) -> int:
    """``write_begin``: the page, read first if it exists in the file and will not be overwritten whole."""
    pfn = mapping.pages.get(pgoff)
    if pfn is not None:
        return pfn
    if mapping.is_shmem:
        return mapping.read_mapping_page(pgoff)
    if nr_bytes == PAGE_SIZE or pgoff << PAGE_SHIFT >= mapping.host.i_size:
        return mapping.add_new_page(pgoff)
    return mapping.read_mapping_page(pgoff, 1)


# ---- truncate and holes ---------------------------------------------------------------------------------------------


def truncate_inode_pages(mapping: AddressSpace, new_size: int) -> None:
    """``truncate_pagecache``: forget what lies at and beyond byte ``new_size``; ``host.i_size`` is set already.

    Mapped pages are unmapped first, private copies too; the tail of the page that is cut is zeroed.
    """
    first_gone = (new_size + PAGE_SIZE - 1) >> PAGE_SHIFT
    unmap_mapping_range(mapping, first_gone, 0, even_cows=True)
    _zero_in_page(mapping, new_size, first_gone << PAGE_SHIFT)
    _remove_pages(mapping, first_gone, MAX_PGOFF)


def pagecache_isize_extended(mapping: AddressSpace, old_size: int, new_size: int) -> None:
    """The file grows: what mappings wrote behind the old end, in its last page, must read as zeros."""
    _zero_in_page(mapping, old_size, min(new_size, -(-old_size // PAGE_SIZE) * PAGE_SIZE))


def truncate_pagecache_range(mapping: AddressSpace, start: int, end: int) -> None:
    """Punch a hole into bytes ``[start, end)``: zeros afterwards; private copies of the pages stay mapped."""
    first_whole = (start + PAGE_SIZE - 1) >> PAGE_SHIFT
    first_after = end >> PAGE_SHIFT
    if first_after > first_whole:
        unmap_mapping_range(mapping, first_whole, first_after - first_whole, even_cows=False)
        _remove_pages(mapping, first_whole, first_after - 1)
        _zero_in_page(mapping, start, first_whole << PAGE_SHIFT)
        _zero_in_page(mapping, first_after << PAGE_SHIFT, end)
    elif start >> PAGE_SHIFT == end >> PAGE_SHIFT:
        _zero_in_page(mapping, start, end)
    else:
        _zero_in_page(mapping, start, first_whole << PAGE_SHIFT)
        _zero_in_page(mapping, first_after << PAGE_SHIFT, end)


def _zero_in_page(mapping: AddressSpace, start: int, end: int) -> None:
    """Zero bytes ``[start, end)``, all in one page, if that page is cached."""
    if start >= end:
        return
    pgoff = start >> PAGE_SHIFT
    pfn = mapping.pages.get(pgoff)
    if pfn is None:
        if pgoff not in mapping.swapped:
            return
        pfn = mapping.read_mapping_page(pgoff)
    memmap = mapping.memmap
    address = (pfn << PAGE_SHIFT) + (start & (PAGE_SIZE - 1))
    memmap.physmem.mem[address : address + end - start] = bytes(end - start)
    if memmap.flags[pfn] & PG_exec:
        memmap.hw.invalidate_code(pfn)
    mapping.set_page_dirty(pfn)


def _remove_pages(mapping: AddressSpace, first: int, last: int) -> None:
    for pgoff in _offsets_between(mapping.pages, first, last):
        mapping.delete_page(pgoff)
    for pgoff in _offsets_between(mapping.swapped, first, last):
        mapping.delete_swapped(pgoff)


def _offsets_between(table: dict[int, int], first: int, last: int) -> list[int]:
    if last - first < len(table):
        return [pgoff for pgoff in range(first, last + 1) if pgoff in table]
    return sorted(pgoff for pgoff in table if first <= pgoff <= last)


def evict_mapping(mapping: AddressSpace) -> None:
    """``truncate_inode_pages_final``: the inode is going away."""
    _remove_pages(mapping, 0, MAX_PGOFF)


# ---- write-back -----------------------------------------------------------------------------------------------------


def filemap_write_and_wait(mapping: AddressSpace, first_pgoff: int = 0, last_pgoff: int = MAX_PGOFF) -> None:
    """Write the dirty pages in the range through ``host.writepage`` (msync, fsync, sync).

    Raises the first KernelError that a page gave; the others are still written and failed pages stay dirty.
    """
    pgoffs = [pgoff for pgoff in mapping.dirty if first_pgoff <= pgoff <= last_pgoff]
    if not pgoffs:
        return
    pgoffs.sort()
    _write_protect(mapping, pgoffs)
    memmap = mapping.memmap
    failure: KernelError | None = None
    for pgoff in pgoffs:
        pfn = mapping.pages[pgoff]
        address = pfn << PAGE_SHIFT
        try:
            mapping.host.writepage(pgoff, memmap.physmem.buf[address : address + PAGE_SIZE])
        except KernelError as error:
            failure = failure or error
            continue
        memmap.flags[pfn] &= _NOT_DIRTY
        del mapping.dirty[pgoff]
        mapping.host.i_sb.kernel.vmstat.pgpgout += 1 << _KB_SHIFT
    if failure is not None:
        raise failure


def _write_protect(mapping: AddressSpace, pgoffs: list[int]) -> None:
    """``folio_mkclean``: the next write through a mapping to any of ``pgoffs`` (sorted) is to fault again."""
    changed = False
    for vma in mapping.i_mmap.overlapping(pgoffs[0], pgoffs[-1]):
        if not vma.vm_flags & VM_SHARED:
            continue
        pt = vma.vm_mm.pt
        q = pt.q
        for pgoff in pgoffs:
            vaddr = vma.vm_start + ((pgoff - vma.vm_pgoff) << PAGE_SHIFT)
            if not vma.vm_start <= vaddr < vma.vm_end:
                continue
            index = pt.pte_index(vaddr)
            if index < 0:
                continue
            pte = q[index]
            if (pte & PTE_PFN_MASK) >> PAGE_SHIFT == mapping.pages[pgoff] and pte & (PTE_W | PTE_D):
                q[index] = pte & ~(PTE_W | PTE_D)
                changed = changed or bool(pte & PTE_P)
    if changed:
        mapping.memmap.hw.flush_tlb()


# ---- reclaim --------------------------------------------------------------------------------------------------------


def invalidate_mapping_pages(mapping: AddressSpace, first: int = 0, last: int = MAX_PGOFF) -> int:
    """Drop the pages in the range that are clean and used by nobody (POSIX_FADV_DONTNEED, drop_caches); how many."""
    if mapping.is_shmem:
        return 0
    memmap = mapping.memmap
    unused = [
        pgoff
        for pgoff, pfn in mapping.pages.items()
        if first <= pgoff <= last and memmap.refcount[pfn] == 1 and not memmap.flags[pfn] & PG_dirty
    ]
    for pgoff in unused:
        mapping.delete_page(pgoff)
    return len(unused)


def page_cache_shrinker(memmap: MemMap) -> Callable[[int], int]:
    """A ``reclaim_hook`` that gives back clean, unmapped page-cache pages, and writes dirty ones first if it must.

    The oldest files first, the oldest pages of each first, with a second chance for pages read since the last time.
    """

    def shrink(nr_pages: int) -> int:
        nr_freed = 0
        for rule in (_drop_unreferenced, _drop_unreferenced, _write_and_drop):
            for mapping in list(memmap.mappings):
                if not mapping.is_shmem:
                    nr_freed += rule(mapping, nr_pages - nr_freed)
                if nr_freed >= nr_pages:
                    return nr_freed
        return nr_freed

    return shrink


def _drop_unreferenced(mapping: AddressSpace, nr_pages: int) -> int:
    memmap = mapping.memmap
    refcount, flags = memmap.refcount, memmap.flags
    victims: list[int] = []
    for pgoff, pfn in mapping.pages.items():
        if len(victims) >= nr_pages:
            break
        if refcount[pfn] != 1 or flags[pfn] & PG_dirty:
            continue
        if flags[pfn] & PG_referenced:
            flags[pfn] &= _NOT_REFERENCED
            continue
        victims.append(pgoff)
    for pgoff in victims:
        mapping.delete_page(pgoff)
    return len(victims)


def _write_and_drop(mapping: AddressSpace, nr_pages: int) -> int:
    try:
        filemap_write_and_wait(mapping)
    except KernelError as error:
        mapping.writeback_error = error.errno
    return _drop_unreferenced(mapping, nr_pages)


def filemap_check_errors(mapping: AddressSpace) -> None:
    """Tell the caller (fsync, close) once of a write-back that failed behind its back."""
    errno, mapping.writeback_error = mapping.writeback_error, 0
    if errno:
        raise KernelError(errno, "write-back failed earlier")


def msync_interval(vma: Vma, start: int, end: int) -> None:
    """MS_SYNC for ``[start, end)`` of one area: write its file's dirty pages.  KernelError as the file gives it."""
    if vma.vm_file is None or not vma.vm_flags & VM_SHARED:
        return
    mapping = vma.vm_file.f_mapping
    if mapping is None:
        raise KernelError(Errno.EIO, "mapped file has no pages")
    first = (start - vma.vm_start >> PAGE_SHIFT) + vma.vm_pgoff
    last = (end - 1 - vma.vm_start >> PAGE_SHIFT) + vma.vm_pgoff
    filemap_write_and_wait(mapping, first, last)
    filemap_check_errors(mapping)
