"""The "disk" of files that live in memory: sparse pages over an optional read-only original.

Where Linux's overlayfs copies a whole file up before the first write, a :class:`FileStore` keeps the host's
file below and only the changed pages on top: opening a large file for writing costs nothing.

Invariants: ``pages[pgoff]`` is 4096 bytes, or ``HOLE`` for a page that reads as zeros though the original has bytes
there; the original counts only below ``base_size``.

The page cache (kernel/mm/filemap.py) lies above: newer data may be there and not here yet.
"""

from __future__ import annotations

from typing import Protocol

from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

ZERO_PAGE = bytes(PAGE_SIZE)
HOLE = b""
UNWRITTEN = bytes(bytearray(PAGE_SIZE))
"""A page that fallocate gave space to: zeros, and still a hole for SEEK_HOLE (known by identity)."""
assert UNWRITTEN is not ZERO_PAGE


class Original(Protocol):
    """The read-only file below."""

    def pread(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes; fewer at the end."""
        ...


class Space:
    """How many pages all stores of a file system may hold together: the guest cannot fill the host's memory."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def free(self) -> int:
        return max(0, self.limit - self.used)


class FileStore:
    """The data of one regular file."""

    __slots__ = ("base", "base_size", "nr_base_pages", "pages", "space")

    def __init__(self, space: Space, base: Original | None = None, base_size: int = 0) -> None:
        self.pages: dict[int, bytes] = {}
        self.space = space
        self.base = base
        self.base_size = base_size
        self.nr_base_pages = (base_size + PAGE_SIZE - 1) >> PAGE_SHIFT

    def readpages(self, pgoff: int, nr: int) -> bytes:
        """``nr`` whole pages."""
        pages = self.pages
        if not pages:
            return self._read_base(pgoff, nr)
        if pgoff >= self.nr_base_pages:
            return b"".join([pages.get(index) or ZERO_PAGE for index in range(pgoff, pgoff + nr)])
        parts: list[bytes] = []
        index, end = pgoff, pgoff + nr
        while index < end:
            page = pages.get(index)
            if page is not None:
                parts.append(page or ZERO_PAGE)
                index += 1
                continue
            stop = index + 1
            while stop < end and stop not in pages:
                stop += 1
            parts.append(self._read_base(index, stop - index))
            index = stop
        return b"".join(parts)

    def _read_base(self, pgoff: int, nr: int) -> bytes:
        offset = pgoff << PAGE_SHIFT
        wanted = min(nr << PAGE_SHIFT, self.base_size - offset)
        if self.base is None or wanted <= 0:
            return bytes(nr << PAGE_SHIFT)
        return self.base.pread(offset, wanted).ljust(nr << PAGE_SHIFT, b"\0")

    def _put(self, pgoff: int, data: bytes) -> None:
        if pgoff not in self.pages:
            self.space.used += 1
        self.pages[pgoff] = data

    def _drop(self, pgoffs: list[int]) -> None:
        for pgoff in pgoffs:
            del self.pages[pgoff]
        self.space.used -= len(pgoffs)

    def writepage(self, pgoff: int, data: bytes) -> None:
        """Keep one page.  Never refused: what is written back was reserved or is the mapping of a file that was."""
        self._put(pgoff, data)

    def reserve(self, first: int, last: int) -> int:
        """Pages ``first`` to ``last`` are about to be written: allocate them; returns how many there is space for."""
        pages, nr_base, space = self.pages, self.nr_base_pages, self.space
        for pgoff in range(first, last + 1):
            if pgoff in pages:
                if not pages[pgoff] or pages[pgoff] is UNWRITTEN:
                    pages[pgoff] = ZERO_PAGE
                continue
            if space.used >= space.limit:
                return pgoff - first
            if pgoff >= nr_base:
                space.used += 1
                pages[pgoff] = ZERO_PAGE
        return last + 1 - first

    def allocate(self, first: int, last: int) -> int:
        """fallocate: as :meth:`reserve`, but all or nothing, and the pages are not data until somebody writes them."""
        pages, nr_base, space = self.pages, self.nr_base_pages, self.space
        start = max(first, nr_base)
        missing = last + 1 - start - sum(1 for pgoff in pages if start <= pgoff <= last)
        if missing > space.limit - space.used:
            return 0
        for pgoff in range(first, min(last + 1, nr_base)):
            if pages.get(pgoff) == HOLE:
                pages[pgoff] = UNWRITTEN
        for pgoff in range(start, last + 1):
            if not pages.get(pgoff):
                self._put(pgoff, UNWRITTEN)
        return last + 1 - first

    def truncate(self, size: int) -> None:
        """Nothing at or beyond byte ``size`` is kept."""
        first_gone = (size + PAGE_SIZE - 1) >> PAGE_SHIFT
        pages = self.pages
        if pages:
            self._drop(list(pages) if size == 0 else [pgoff for pgoff in pages if pgoff >= first_gone])
        tail = size & (PAGE_SIZE - 1)
        if tail:
            page = pages.get(size >> PAGE_SHIFT)
            if page:
                pages[size >> PAGE_SHIFT] = page[:tail].ljust(PAGE_SIZE, b"\0")
        if size < self.base_size:
            self.base_size = size
            self.nr_base_pages = first_gone

    def punch(self, first: int, last: int) -> None:
        """Whole pages ``first`` to ``last`` become a hole."""
        self._drop([pgoff for pgoff in self.pages if first <= pgoff <= last])
        for pgoff in range(first, min(last + 1, self.nr_base_pages)):
            self._put(pgoff, HOLE)

    def is_data(self, pgoff: int) -> bool:
        """Is the page allocated?  (SEEK_DATA, SEEK_HOLE; the original is taken as one run of data.)"""
        page = self.pages.get(pgoff)
        return bool(page) and page is not UNWRITTEN if page is not None else pgoff < self.nr_base_pages

    def next_data(self, pgoff: int, nr_pages: int) -> int:
        """The first allocated page from ``pgoff`` on, or ``nr_pages``."""
        while pgoff < min(nr_pages, self.nr_base_pages):
            if self.is_data(pgoff):
                return pgoff
            pgoff += 1
        later = [index for index in self.pages if index >= pgoff and self.is_data(index)]
        return min(later, default=nr_pages)

    def next_hole(self, pgoff: int, nr_pages: int) -> int:
        """The first page from ``pgoff`` on that is not allocated, or ``nr_pages``."""
        while pgoff < nr_pages and self.is_data(pgoff):
            pgoff += 1
        return pgoff

    @property
    def nr_pages(self) -> int:
        """How many pages are allocated."""
        nr_base = self.nr_base_pages
        if not nr_base:
            return len(self.pages)
        above = sum(1 for pgoff in self.pages if pgoff >= nr_base)
        holes = sum(1 for page in self.pages.values() if not page)
        return nr_base - holes + above
