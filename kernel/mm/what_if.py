"""Kernels that do not exist, but could: what mremap(2) leaves open, decided the other way.

mremap(2) promises that the contents are found at the address returned, and that without MREMAP_MAYMOVE this is the old
one.  It does not promise that a mapping grows in place when it could, that it stays where it is when it need not move,
or that memory can be moved at all.  A program that works on today's kernels may lean on such things without its
author knowing; under these rules it shows (``pagewalk check mremap --limits``, ``--limit``).

``never_grow_in_place``
    Growth never happens in place, as if another mapping followed everywhere (which any library, thread stack or ASLR
    may put there).  With MREMAP_MAYMOVE the mapping moves; without, ENOMEM.
``always_move``
    Every call with MREMAP_MAYMOVE, but without MREMAP_FIXED and MREMAP_DONTUNMAP, that would succeed in place moves,
    whether it grows, shrinks or keeps its size; the old range is unmapped.  It finds those who keep old pointers: they
    fault.  Models an allocator of addresses that compacts, or one that moves to large pages.  Where there is no way to
    move (no hole, a limit, ``no_move_after_fork``, a range with holes, a sealed area) the call succeeds in place: the
    question is about addresses, and refusing would answer another one.
``no_move_after_fork``
    Private memory of an address space that has forked, parent or child, cannot be moved until exec: ENOMEM.  Anonmm
    (RMAP.md section 3) knows an anonymous page by one virtual address in all of an exec family; it was saved by copying
    the pages that are shared.  A kernel that will not copy must refuse.  Growth in place, shrinking, and all shared
    memory (its pages are found through the file) are as ever.
``split_spanning``
    A call that the rules refuse with EFAULT because its range spans several areas is carried out area by area, as the
    program could have done itself had it known the boundaries: see mremap_what_if.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class WhatIf:
    """Which of these kernels is asked for; they can be combined."""

    no_move_after_fork: bool = False
    never_grow_in_place: bool = False
    always_move: bool = False
    split_spanning: bool = False
    changes_mremap: bool = field(init=False)
    """Is any of them?  The one thing to test on the way of a real kernel."""

    def __post_init__(self) -> None:
        asked = self.no_move_after_fork or self.never_grow_in_place or self.always_move or self.split_spanning
        object.__setattr__(self, "changes_mremap", asked)


AS_THE_RULES_SAY = WhatIf()
