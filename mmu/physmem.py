"""Physical memory: one anonymous block of host memory that is the machine's RAM.

The emulator maps the block as it is (``address``), the kernel reads and writes it through the views below, so
neither ever copies.  A frame is 4096 bytes; its number (pfn) is its physical address divided by 4096.

Views over the same bytes, for different hot paths:

``mem``     bytes (memoryview 'B'): slices of frames, user copies
``q``       64-bit words (memoryview 'Q'): single page-table entries; word index = pfn * 512 + index in the table
``words``   NumPy uint64, shape (nr_frames, 512): whole tables at once

Memory starts as zeros, as the firmware of a virtual machine leaves it.  Host pages are taken only when touched.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME_SIZE = 4096
FRAME_SHIFT = 12
WORDS_PER_FRAME = FRAME_SIZE // 8

_ZERO_FRAME = bytes(FRAME_SIZE)
_MIB = 1 << 20


class PhysMem:
    """RAM of ``nr_frames`` frames, at physical addresses ``0 .. size - 1``."""

    __slots__ = ("_move", "address", "buf", "mem", "nr_frames", "q", "size", "words")

    def __init__(self, nr_frames: int) -> None:
        if nr_frames <= 0:
            raise ValueError("RAM needs at least one frame")
        self.nr_frames = nr_frames
        self.size = nr_frames * FRAME_SIZE
        self.buf = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._ask_for_huge_pages()
        self.mem = memoryview(self.buf)
        self.q = self.mem.cast("Q")
        self.words: NDArray[np.uint64] = np.frombuffer(self.buf, dtype=np.uint64).reshape(nr_frames, WORDS_PER_FRAME)
        self.address: int = self.words.__array_interface__["data"][0]
        """Host address of physical address 0."""
        self._move = self.buf.move

    def _ask_for_huge_pages(self) -> None:
        """First touch of a frame is four times cheaper in host huge pages; the ends stay small for small programs."""
        start, length = 4 * _MIB, self.size - 6 * _MIB
        if length >= 2 * _MIB and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a host kernel without them
                self.buf.madvise(mmap.MADV_HUGEPAGE, start, length)

    def frame(self, pfn: int) -> memoryview:
        """The 4096 bytes of a frame, writable in place."""
        start = pfn << FRAME_SHIFT
        return self.mem[start : start + FRAME_SIZE]

    def zero_frame(self, pfn: int) -> None:
        start = pfn << FRAME_SHIFT
        self.mem[start : start + FRAME_SIZE] = _ZERO_FRAME

    def copy_frame(self, dst_pfn: int, src_pfn: int) -> None:
        self._move(dst_pfn << FRAME_SHIFT, src_pfn << FRAME_SHIFT, FRAME_SIZE)

    def read(self, paddr: int, nr_bytes: int) -> bytes:
        """``nr_bytes`` at a physical address; ValueError when they are not all RAM."""
        if paddr < 0 or nr_bytes < 0 or paddr + nr_bytes > self.size:
            raise ValueError(f"physical range {paddr:#x}+{nr_bytes:#x} is not RAM")
        return self.buf[paddr : paddr + nr_bytes]

    def write(self, paddr: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` at a physical address; ValueError when it does not fit into RAM."""
        if paddr < 0 or paddr + len(data) > self.size:
            raise ValueError(f"physical range {paddr:#x}+{len(data):#x} is not RAM")
        self.mem[paddr : paddr + len(data)] = data
