"""mremap for the kernels of what_if.py: by the rules of the profile, but elsewhere, or area by area.

Everything is done through the rules themselves, by further calls that a program could have made: a range is moved by
one MREMAP_FIXED call for each of its areas, so that limits, accounting, merging and the reverse map are those of the
profile.

``split_spanning``: what is refused as spanning areas is done so:

* Growth is first tried in place, where the last area ends.  Without MREMAP_MAYMOVE that is all that can be done.
* Otherwise each area goes to its place in the target range, with MREMAP_DONTUNMAP if the caller asks for that.  The
  last goes first: it alone grows, so that it alone can meet RLIMIT_AS, RLIMIT_MEMLOCK and the commit limit.
* A hole in the range stays EFAULT.

When one area cannot be moved, those that were are moved back and the error is the call's.  What is lost then: the
target of MREMAP_FIXED has been unmapped, by the rules of 2.6 and 6.1 all of it (as they do whenever they fail that
late), by those of 6.17 as far as areas had been moved there; a range to be shrunk has lost its tail; and areas that
were joined or cut on the way may stay so.  An area that cannot be moved back, since memory for page tables has run out
too, stays at the target.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from kernel.abi.errno import Errno, KernelError
from kernel.mm.area import page_align
from kernel.mm.mremap import (
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    Growth,
    MremapRequest,
    SpansAreas,
    find_new_addr,
)
from kernel.mm.munmap import do_munmap
from kernel.mm.types import MmStruct, Vma

Rules = Callable[[MmStruct, MremapRequest], int]


def mremap_what_if(mm: MmStruct, request: MremapRequest, rules: Rules) -> int:
    """mremap(2) by ``rules`` and what ``mm.kernel.what_if`` changes; returns the address of the range."""
    what_if = mm.kernel.what_if
    if what_if.never_grow_in_place:
        request.growth = Growth.ELSEWHERE
    if what_if.always_move and request.flags & (MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) == MREMAP_MAYMOVE:
        return _move_always(mm, request, rules)
    return _remap(mm, request, rules)


def _remap(mm: MmStruct, request: MremapRequest, rules: Rules) -> int:
    asked = replace(request)  # the rules write into theirs
    try:
        return rules(mm, request)
    except SpansAreas:
        if not mm.kernel.what_if.split_spanning:
            raise
    return _remap_pieces(mm, asked, rules)


# -- always elsewhere ------------------------------------------------------------------------------------------------


def _move_always(mm: MmStruct, request: MremapRequest, rules: Rules) -> int:
    """A range that may move does, if there is any way."""
    try:
        addr = _remap(mm, replace(request, growth=Growth.ELSEWHERE), rules)
    except KernelError as error:
        if error.errno != Errno.ENOMEM:
            raise
        return _remap(mm, request, rules)  # nowhere to go: in place, if it is allowed to grow there
    if addr != request.addr:
        return addr
    # It has shrunk or kept its size where it is.
    len_bytes = page_align(request.new_len)
    pieces = _pieces(mm, addr, addr + len_bytes)
    if pieces is not None:
        with suppress(KernelError):
            new_addr = find_new_addr(mm, pieces[0].vma, 0, len_bytes, 0)
            _move_pieces(mm, pieces, new_addr, 0, 0, rules)
            return new_addr
    return addr


# -- area by area ----------------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """The part of a range that lies in one area."""

    start: int
    len_bytes: int
    vma: Vma
    """The area when the range was cut; it may have been joined to another since."""


def _pieces(mm: MmStruct, start: int, end: int) -> list[Piece] | None:
    """``[start, end)`` cut where areas end; None if it has a hole."""
    pieces: list[Piece] = []
    while start < end:
        vma = mm.areas.find_exact(start)
        if vma is None:
            return None
        pieces.append(Piece(start, min(end, vma.vm_end) - start, vma))
        start = vma.vm_end
    return pieces


def _remap_pieces(mm: MmStruct, request: MremapRequest, rules: Rules) -> int:
    """``split_spanning``: a call that the rules have refused because its range spans areas."""
    addr, flags = request.addr, request.flags
    old_len, new_len = page_align(request.old_len), page_align(request.new_len)
    kept, growth = min(old_len, new_len), max(0, new_len - old_len)
    pieces = _pieces(mm, addr, addr + kept)
    if pieces is None:
        raise SpansAreas("range spans areas and has a hole")
    if not flags & (MREMAP_FIXED | MREMAP_DONTUNMAP):
        last = pieces[-1]
        try:
            rules(mm, MremapRequest(last.start, last.len_bytes, last.len_bytes + growth, 0, growth=request.growth))
            return addr
        except KernelError as error:
            if not flags & MREMAP_MAYMOVE or error.errno != Errno.ENOMEM:
                raise
    new_addr = request.new_addr
    if not flags & MREMAP_FIXED:
        hint = new_addr if flags & MREMAP_DONTUNMAP else 0
        new_addr = find_new_addr(mm, pieces[0].vma, hint, new_len, flags)
    if old_len > kept:
        do_munmap(mm, addr + kept, old_len - kept)
    _move_pieces(mm, pieces, new_addr, growth, flags & MREMAP_DONTUNMAP, rules)
    return new_addr


def _move_pieces(
    mm: MmStruct, pieces: list[Piece], new_addr: int, growth: int, dontunmap: int, rules: Rules
) -> None:
    """Move ``pieces`` so that the first is at ``new_addr``; the last grows by ``growth`` bytes.  All or nothing."""
    distance = new_addr - pieces[0].start
    flags = MREMAP_MAYMOVE | MREMAP_FIXED | dontunmap
    moved: list[Piece] = []
    try:
        for piece in reversed(pieces):
            new_len = piece.len_bytes + (growth if piece is pieces[-1] else 0)
            rules(mm, MremapRequest(piece.start, piece.len_bytes, new_len, flags, piece.start + distance))
            moved.append(piece)
    except KernelError:
        with suppress(KernelError):
            if moved and growth:
                do_munmap(mm, pieces[-1].start + distance + pieces[-1].len_bytes, growth)
        for piece in reversed(moved):
            with suppress(KernelError):
                _move_back(mm, piece, distance, rules)
        raise


def _move_back(mm: MmStruct, piece: Piece, distance: int, rules: Rules) -> None:
    rules(
        mm,
        MremapRequest(
            piece.start + distance,
            piece.len_bytes,
            piece.len_bytes,
            MREMAP_MAYMOVE | MREMAP_FIXED,
            piece.start,
        ),
    )
