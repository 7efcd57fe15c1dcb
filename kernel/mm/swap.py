"""Swap areas: the slot map, the header on the device, and what a device must be able to do.

Models ``struct swap_info_struct`` and ``scan_swap_map`` of ``mm/swapfile.c`` (2.6.7) and ``union swap_header`` of
``include/linux/swap.h``.

A *slot* is one page of a swap area.  A swap *entry* names a slot of some area: ``type << 50 | offset``, which is a
swap PTE (kernel/mm/pagetable.py) without its low 9 bits: ``entry = pte >> 9``, ``pte = entry << 9``.  Slot 0 holds
the header and is never used, so no entry is 0 in its low bits.

Invariants (checked by rmap/check_memory.py), for every slot of an area:
* ``counts[slot]`` = number of page-table entries and shmem mappings that hold its entry, plus 1 if a page in the swap
  cache has it (``cache[slot]`` != 0);
* ``used[slot]`` is 1 exactly when ``counts[slot]`` > 0; ``inuse_pages`` is the number of used slots but the header;
* a free slot has no page in the swap cache; slots below ``lowest_bit`` and above ``highest_bit`` are used.

Deliberate differences: counts are 32 bits wide, so there are no continuation pages (``SWAP_MAP_MAX``); no bad blocks;
no extents (a swap file is read and written through its inode); the swap cache is an array beside the counts.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kernel.abi.errno import Errno, KernelError
from kernel.mm.types import PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

SWAP_TYPE_SHIFT = 50
SWAP_OFFSET_MASK = (1 << SWAP_TYPE_SHIFT) - 1
PTE_ENTRY_SHIFT = 9
MAX_SWAPFILES = 29
"""Linux with migration, hwpoison and device-private entries compiled in has so many types left for swap."""
SWAPFILE_CLUSTER = 256
"""Slots that are handed out one after the other before a new empty stretch is looked for."""

_EMPTY_CLUSTER = bytes(SWAPFILE_CLUSTER)
SIGNATURE = b"SWAPSPACE2"
_HEADER = struct.Struct("<III16s16s")  # at byte 1024: version, last_page, nr_badpages, uuid, volume name


class SwapDevice(Protocol):
    """Where swapped pages go.  ``offset`` counts pages from the start of the device; a frame is 4096 bytes."""

    @property
    def nr_pages(self) -> int:
        """Size, the header page included."""
        ...

    def read_pages(self, offset: int, frames: list[memoryview]) -> None:
        """Fill ``frames`` with the pages from ``offset`` on.  Raises OSError."""
        ...

    def write_pages(self, offset: int, frames: list[memoryview]) -> None:
        """Write ``frames`` to the pages from ``offset`` on.  Raises OSError."""
        ...


def mkswap(nr_pages: int, uuid: bytes = bytes(16), label: bytes = b"") -> bytes:
    """The first page of a swap area of ``nr_pages``, as mkswap(8) writes it."""
    page = bytearray(PAGE_SIZE)
    _HEADER.pack_into(page, 1024, 1, nr_pages - 1, 0, uuid, label)
    page[PAGE_SIZE - len(SIGNATURE) :] = SIGNATURE
    return bytes(page)


def read_swap_header(page: bytes, nr_pages: int) -> int:
    """``read_swap_header``: how many pages of a device of ``nr_pages`` may be used, the header included; EINVAL."""
    if page[PAGE_SIZE - len(SIGNATURE) :] != SIGNATURE:
        raise KernelError(Errno.EINVAL, "no swap signature")
    version, last_page, nr_badpages, _uuid, _label = _HEADER.unpack_from(page, 1024)
    if version != 1:
        raise KernelError(Errno.EINVAL, f"swap header version {version}")
    if not last_page:
        raise KernelError(Errno.EINVAL, "empty swap area")
    if last_page + 1 > nr_pages:
        raise KernelError(Errno.EINVAL, "swap area shorter than its header says")
    if nr_badpages:
        raise KernelError(Errno.EINVAL, "swap area with bad blocks")
    return int(last_page) + 1


class SwapArea:
    """``struct swap_info_struct``: one area that swapon made known."""

    __slots__ = (
        "cache",
        "cache_np",
        "cluster_next",
        "cluster_nr",
        "counts",
        "counts_np",
        "device",
        "entry_base",
        "highest_bit",
        "inode",
        "inuse_pages",
        "is_partition",
        "lowest_bit",
        "max",
        "path",
        "prio",
        "swp_type",
        "used",
        "used_np",
        "writeok",
    )

    def __init__(self, swp_type: int, path: bytes, device: SwapDevice, nr_pages: int, prio: int) -> None:
        self.swp_type = swp_type
        self.entry_base = swp_type << SWAP_TYPE_SHIFT
        """Entry of slot n: ``entry_base | n``."""
        self.path = path
        """What /proc/swaps shows and swapoff looks for."""
        self.device = device
        self.inode: object = None
        """The file or device node that was given to swapon, if any: it may not be given twice."""
        self.is_partition = True
        self.max = nr_pages
        """Slots, the header included: valid offsets are 1 .. max - 1."""
        self.prio = prio
        self.writeok = True
        """SWP_WRITEOK: slots may be handed out (cleared while swapoff works)."""
        self.inuse_pages = 0
        self.counts_np = np.zeros(nr_pages, np.int32)
        self.counts = memoryview(self.counts_np)  # type: ignore[arg-type]
        self.cache_np = np.zeros(nr_pages, np.int32)
        self.cache = memoryview(self.cache_np)  # type: ignore[arg-type]
        """offset -> pfn of the page in the swap cache, 0 if there is none."""
        self.used = bytearray(nr_pages)
        """1 for slots in use: bytes, because ``bytearray.find`` is the fastest search there is."""
        self.used_np = np.frombuffer(self.used, np.uint8)
        self.used[0] = 1
        self.lowest_bit = 1
        self.highest_bit = nr_pages - 1
        self.cluster_next = 1
        self.cluster_nr = 0

    @property
    def pages(self) -> int:
        """Usable slots."""
        return self.max - 1

    def scan_swap_map(self) -> int:
        """A free slot, now with count 1; 0 if there is none.

        Slots come one after the other inside a stretch of 256 that was empty when it was begun; when there is no such
        stretch any more, first fit.
        """
        used = self.used
        offset = self.cluster_next
        if self.cluster_nr and offset <= self.highest_bit:
            if used[offset]:
                offset = used.find(0, offset, self.highest_bit + 1)
            if offset > 0:
                self.cluster_nr -= 1
                self._take(offset)
                return offset
        if self.lowest_bit > self.highest_bit:
            return 0
        self.cluster_nr = SWAPFILE_CLUSTER - 1
        offset = used.find(_EMPTY_CLUSTER, self.lowest_bit, self.highest_bit + 1)
        if offset < 0:
            offset = used.find(0, self.lowest_bit, self.highest_bit + 1)
            if offset < 0:
                self.lowest_bit, self.highest_bit = self.max, 0
                return 0
            self.lowest_bit = offset
        self._take(offset)
        return offset

    def _take(self, offset: int) -> None:
        if offset == self.lowest_bit:
            self.lowest_bit += 1
        if offset == self.highest_bit:
            self.highest_bit -= 1
        if self.lowest_bit > self.highest_bit:
            self.lowest_bit, self.highest_bit = self.max, 0
        self.used[offset] = 1
        self.counts[offset] = 1
        self.inuse_pages += 1
        self.cluster_next = offset + 1

    def free_slot(self, offset: int) -> None:
        """The count of ``offset`` fell to 0."""
        self.used[offset] = 0
        self.inuse_pages -= 1
        if offset < self.lowest_bit:
            self.lowest_bit = offset
        if offset > self.highest_bit:
            self.highest_bit = offset

    def free_slots(self, offsets: NDArray[np.int64]) -> None:
        """:meth:`free_slot` for many different slots."""
        self.used_np[offsets] = 0
        self.inuse_pages -= int(offsets.size)
        self.lowest_bit = min(self.lowest_bit, int(offsets.min()))
        self.highest_bit = max(self.highest_bit, int(offsets.max()))

    def __repr__(self) -> str:
        return f"<SwapArea {self.swp_type} {self.path!r} {self.inuse_pages}/{self.pages}>"
