"""The hardware page walk in Python: what the processor does on a TLB miss.

Models the Intel SDM, volume 3, sections 5.5 (4-level paging), 5.6 (access rights), 5.7 (page-fault exceptions) and 5.8
(accessed and dirty flags).  It is the processor for a kernel that runs without an emulator, and the second opinion
on the emulated processor, which has its own walker: both must agree on the frame, the fault, the error code
and the A and D bits afterwards (``tests/mmu/test_walker_vs_unicorn.py``).

Where the manuals leave room, the choice is QEMU's: the A bit of an upper entry is set as soon as the entry has been
used, even if a lower level then faults (a 1 GiB entry counts as an upper one); A and D of the entry that maps the page
are set only when the access is allowed.  Protection keys, SMEP, SMAP, global pages and 5-level paging are not modelled:
the machine has them off.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from mmu.paging import (
    PF_INSTR,
    PF_PROT,
    PF_RSVD,
    PF_USER,
    PF_WRITE,
    PTE_A,
    PTE_D,
    PTE_NX,
    PTE_P,
    PTE_PFN_MASK,
    PTE_PS,
    PTE_U,
    PTE_W,
    VECTOR_GP,
    VECTOR_PF,
    FourLevel,
)
from mmu.physmem import PhysMem


class Access(IntEnum):
    READ = 0
    WRITE = 1
    EXECUTE = 2


# The same as plain ints: walk() is called for every page that a test or a user copy touches.
READ, WRITE, EXECUTE = 0, 1, 2

PERM_R = 4
PERM_W = 2
PERM_X = 1
PERM_U = 8


class Translation(NamedTuple):
    """A successful walk.  ``perms``: what the entries allow at this CPL (PERM_*), and PERM_U where user code may."""

    paddr: int
    pfn: int
    perms: int
    page_size: int


class PageFault(Exception):
    """The walk ended in an exception: #PF with its error code, or #GP for a non-canonical address."""

    def __init__(self, vaddr: int, error_code: int, vector: int = VECTOR_PF) -> None:
        super().__init__(f"vector {vector} at {vaddr:#x}, error code {error_code:#x}")
        self.vaddr = vaddr
        self.error_code = error_code
        self.vector = vector

    @property
    def non_canonical(self) -> bool:
        return self.vector == VECTOR_GP


_RSVD_UPPER = FourLevel.rsvd_pfn_mask
_RSVD_LARGE = (0, 0, FourLevel.rsvd_mask(2, True, True), FourLevel.rsvd_mask(3, True, True))


def walk(
    physmem: PhysMem,
    cr3: int,
    vaddr: int,
    access: int,
    cpl: int,
    cr0_wp: bool = True,
    nxe: bool = True,
    set_ad: bool = True,
) -> Translation:
    """Translate ``vaddr`` for an access (READ, WRITE, EXECUTE) at privilege level ``cpl``.

    Raises :class:`PageFault`.  ``set_ad=False`` looks without leaving a trace in the tables, as a debugger does.
    Tables outside RAM read as zero (not present), as an empty bus does here.
    """
    if not FourLevel.is_canonical(vaddr):
        raise PageFault(vaddr, 0, VECTOR_GP)
    q = physmem.q
    nr_words = physmem.nr_frames * 512
    user = cpl == 3
    error_code = (PF_USER if user else 0) | (PF_WRITE if access == WRITE else 0)
    if access == EXECUTE and nxe:
        error_code |= PF_INSTR
    rsvd_nx = 0 if nxe else PTE_NX

    table = (cr3 & PTE_PFN_MASK) >> 3
    allowed, forbidden, level = PTE_U | PTE_W, 0, 4
    while True:
        index = table + (vaddr >> (3 + 9 * level) & 511)
        entry = q[index] if index < nr_words else 0
        if not entry & PTE_P:
            raise PageFault(vaddr, error_code)
        maps_page = level == 1 or (entry & PTE_PS and level != 4)
        rsvd = _RSVD_UPPER | rsvd_nx
        if maps_page and level > 1:
            rsvd |= _RSVD_LARGE[level]
        elif level == 4:
            rsvd |= PTE_PS
        if entry & rsvd:
            # A 1 GiB entry with a misplaced address bit has been used as an upper entry before that is noticed.
            if maps_page and level == 3 and not entry & (_RSVD_UPPER | rsvd_nx) and set_ad:
                q[index] = entry | PTE_A
            raise PageFault(vaddr, error_code | PF_PROT | PF_RSVD)
        allowed &= entry
        forbidden |= entry & PTE_NX
        if maps_page:
            break
        if set_ad and not entry & PTE_A:
            q[index] = entry | PTE_A
        table = (entry & PTE_PFN_MASK) >> 3
        level -= 1

    perms = PERM_R
    if allowed & PTE_U:
        perms |= PERM_U
    if allowed & PTE_W or not (user or cr0_wp):
        perms |= PERM_W
    if not forbidden:
        perms |= PERM_X
    refused = (
        (user and not perms & PERM_U)
        or (access == WRITE and not perms & PERM_W)
        or (access == EXECUTE and not perms & PERM_X)
    )
    if refused:
        if level == 3 and set_ad:
            q[index] = entry | PTE_A
        raise PageFault(vaddr, error_code | PF_PROT)
    if set_ad:
        marked = entry | PTE_A | (PTE_D if access == WRITE else 0)
        if marked != entry:
            q[index] = marked
    page_size = 1 << (3 + 9 * level)
    paddr = entry & PTE_PFN_MASK & -page_size | vaddr & page_size - 1
    return Translation(paddr, paddr >> 12, perms, page_size)
