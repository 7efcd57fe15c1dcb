"""Page-table formats: entry bits, index arithmetic, page-fault error codes.

Models the Intel SDM, volume 3, chapter 5 ("Paging"), and ``arch/x86/include/asm/pgtable_types.h``.  Names are
Linux's with ``PTE_`` for ``_PAGE_``.  All values are plain ints, because entries are tested on hot paths.

A format is one class with one interface (:class:`FourLevel`); level 1 is the last table (PTEs), the highest level is
the root.  The kernel and the walker take numbers from the format instead of writing them down again.
"""

from __future__ import annotations

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
PAGE_MASK = ~(PAGE_SIZE - 1)
PTRS_PER_TABLE = 512

# Bits of an entry, the same at every level unless said otherwise.
PTE_P = 1 << 0
PTE_W = 1 << 1
PTE_U = 1 << 2
PTE_PWT = 1 << 3
PTE_PCD = 1 << 4
PTE_A = 1 << 5
PTE_D = 1 << 6
"""Dirty: in entries that map a page only; ignored in entries that point to a table."""
PTE_PS = 1 << 7
"""The entry of level 2 or 3 maps a large page; reserved at level 4; PAT in a 4 KiB entry."""
PTE_G = 1 << 8
PTE_SOFT1 = 1 << 9
PTE_SOFT2 = 1 << 10
PTE_SOFT3 = 1 << 11
PTE_PAT_LARGE = 1 << 12
"""PAT in an entry that maps a large page."""
PTE_NX = 1 << 63
PTE_PFN_MASK = 0x000F_FFFF_FFFF_F000

# Error code of a page fault (#PF).
PF_PROT = 1 << 0
"""The translation exists and forbids the access; clear: an entry is not present."""
PF_WRITE = 1 << 1
PF_USER = 1 << 2
PF_RSVD = 1 << 3
"""A reserved bit is set in a present entry."""
PF_INSTR = 1 << 4

# Exception vectors that a translation can end with.
VECTOR_GP = 13
VECTOR_PF = 14

PHYS_ADDR_BITS = 40
"""MAXPHYADDR of the processor: what CPUID leaf 0x80000008 says, and above which entry bits are reserved."""


class FourLevel:
    """64-bit paging with four levels: 48-bit addresses, 8-byte entries, 4 KiB, 2 MiB and 1 GiB pages."""

    name = "4-level"
    levels = 4
    entry_bytes = 8
    index_bits = 9
    vaddr_bits = 48
    has_nx = True
    table_flags = PTE_P | PTE_W | PTE_U
    """What Linux writes into an entry that points to a table (``_PAGE_TABLE`` without A and D)."""

    shifts = (0, 12, 21, 30, 39)
    """``shifts[level]``: the lowest address bit that level indexes; ``1 << shifts[level]`` is what one entry covers."""
    large_levels = (2, 3)
    """Levels whose entries may map a page (PS set)."""
    rsvd_pfn_mask = PTE_PFN_MASK & ~((1 << PHYS_ADDR_BITS) - 1)
    """Address bits that must be zero in a present entry, at every level."""

    @staticmethod
    def index(vaddr: int, level: int) -> int:
        """Which of the 512 entries of the table at ``level`` translates ``vaddr``."""
        return vaddr >> (3 + 9 * level) & 511

    @staticmethod
    def span(level: int) -> int:
        """Bytes of address space that one entry at ``level`` covers."""
        return 1 << (3 + 9 * level)

    @staticmethod
    def is_canonical(vaddr: int) -> bool:
        """Bits 63..47 of a 64-bit (unsigned) address are all equal."""
        return vaddr < 0x0000_8000_0000_0000 or vaddr >= 0xFFFF_8000_0000_0000

    @staticmethod
    def rsvd_mask(level: int, large: bool, nxe: bool) -> int:
        """The bits that must be zero in a present entry at ``level`` that maps a page (``large``) or not."""
        mask = FourLevel.rsvd_pfn_mask
        if not nxe:
            mask |= PTE_NX
        if level == 4:
            mask |= PTE_PS
        elif large:
            mask |= (FourLevel.span(level) - 1) & PTE_PFN_MASK & ~PTE_PAT_LARGE
        return mask


def pte_pfn(pte: int) -> int:
    """The frame number in an entry."""
    return (pte & PTE_PFN_MASK) >> PAGE_SHIFT


def make_pte(pfn: int, flags: int) -> int:
    """An entry for frame ``pfn`` with the given bits."""
    return pfn << PAGE_SHIFT | flags


def describe_error_code(error_code: int) -> str:
    """A page-fault error code in words, as in Linux's oops messages: ``user write protection``."""
    who = "user" if error_code & PF_USER else "supervisor"
    what = "instruction fetch" if error_code & PF_INSTR else "write" if error_code & PF_WRITE else "read"
    if error_code & PF_RSVD:
        return f"{who} {what} reserved-bit"
    return f"{who} {what} {'protection' if error_code & PF_PROT else 'not-present'}"
