"""Copying between the kernel and a program's memory.

Models ``lib/usercopy.c``, ``lib/strncpy_from_user.c`` and ``arch/x86/include/asm/uaccess.h``.  An access is checked as
the hardware checks a supervisor access to user pages with CR0.WP set: the PTE must be a user's, a write needs PTE_W, NX
does not matter; A and D are set.  What the PTE refuses goes to ``handle_mm_fault``; what that refuses is EFAULT.

``*_some`` functions stop quietly at the first bad page and say how far they came (read(2) and write(2) transfer what
they can); the others raise.

Deliberate difference: ``copy_to_user`` that fails has still written the pages before the bad one, as in Linux, but
raises instead of returning the number of bytes left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.mm.page import PG_exec
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, TASK_SIZE
from mmu.paging import PF_WRITE, PTE_A, PTE_D, PTE_P, PTE_PFN_MASK, PTE_U, PTE_W

if TYPE_CHECKING:
    from kernel.mm.types import MmStruct

_OFFSET_MASK = PAGE_SIZE - 1
_READ_BITS = PTE_P | PTE_U
_WRITE_BITS = PTE_P | PTE_U | PTE_W
_READ_DONE = _READ_BITS | PTE_A
_WRITE_DONE = _WRITE_BITS | PTE_A | PTE_D
_MAX_RETRIES = 8


def _efault(addr: int) -> KernelError:
    return KernelError(Errno.EFAULT, f"bad address {addr:#x}")


def user_page_for_read(mm: MmStruct, addr: int) -> int:
    """Physical address of user byte ``addr``, its page faulted in for reading; -1 if the program may not read it."""
    if not 0 <= addr < TASK_SIZE:
        return -1
    pt = mm.pt
    for _ in range(_MAX_RETRIES):
        table = pt.leaf.get(addr >> 21)
        if table is not None:
            index = table + (addr >> 12 & 511)
            pte = pt.q[index]
            if pte & _READ_BITS == _READ_BITS:
                if not pte & PTE_A:
                    pt.q[index] = pte | PTE_A
                return (pte & PTE_PFN_MASK) + (addr & _OFFSET_MASK)
        if not _fault_in(mm, addr, 0):
            return -1
    raise AssertionError(f"page of {addr:#x} cannot be held")


def user_page_for_write(mm: MmStruct, addr: int) -> int:
    """As :func:`user_page_for_read` for a write that the caller is about to do: D is set, stale code forgotten."""
    if not 0 <= addr < TASK_SIZE:
        return -1
    pt = mm.pt
    for _ in range(_MAX_RETRIES):
        table = pt.leaf.get(addr >> 21)
        if table is not None:
            index = table + (addr >> 12 & 511)
            pte = pt.q[index]
            if pte & _WRITE_BITS == _WRITE_BITS:
                if pte & _WRITE_DONE != _WRITE_DONE:
                    pt.q[index] = pte | PTE_A | PTE_D
                paddr: int = pte & PTE_PFN_MASK
                pages = mm.kernel.pages
                if pages.flags[paddr >> PAGE_SHIFT] & PG_exec:
                    pages.hw.invalidate_code(paddr >> PAGE_SHIFT)
                return paddr + (addr & _OFFSET_MASK)
        if not _fault_in(mm, addr, PF_WRITE):
            return -1
    raise AssertionError(f"page of {addr:#x} cannot be held")


def _fault_in(mm: MmStruct, addr: int, access: int) -> bool:
    from kernel.mm.fault import MAJOR, handle_mm_fault

    return handle_mm_fault(mm, addr, access) <= MAJOR


# ---- bytes ----------------------------------------------------------------------------------------------------------


def copy_from_user(mm: MmStruct, addr: int, nr_bytes: int) -> bytes:
    """``nr_bytes`` of user memory.  KernelError(EFAULT)."""
    offset = addr & _OFFSET_MASK
    if 0 < nr_bytes <= PAGE_SIZE - offset:
        # The common case: one page, present.
        pt = mm.pt
        table = pt.leaf.get(addr >> 21)
        if table is not None:
            pte = pt.q[table + (addr >> 12 & 511)]
            if pte & _READ_DONE == _READ_DONE:
                paddr = (pte & PTE_PFN_MASK) + offset
                return mm.kernel.physmem.buf[paddr : paddr + nr_bytes]
    data = copy_from_user_some(mm, addr, nr_bytes)
    if len(data) != nr_bytes:
        raise _efault(addr + len(data))
    return data


def copy_from_user_some(mm: MmStruct, addr: int, nr_bytes: int) -> bytes:
    """Up to ``nr_bytes`` of user memory: less if a page in it cannot be read."""
    buf = mm.kernel.physmem.buf
    parts: list[bytes] = []
    end = addr + nr_bytes
    while addr < end:
        nr = min(PAGE_SIZE - (addr & _OFFSET_MASK), end - addr)
        paddr = user_page_for_read(mm, addr)
        if paddr < 0:
            break
        parts.append(buf[paddr : paddr + nr])
        addr += nr
    return parts[0] if len(parts) == 1 else b"".join(parts)


def copy_to_user(mm: MmStruct, addr: int, data: bytes | bytearray | memoryview) -> None:
    """Store ``data`` in user memory.  KernelError(EFAULT); the pages before the bad one are written then."""
    offset = addr & _OFFSET_MASK
    nr_bytes = len(data)
    if 0 < nr_bytes <= PAGE_SIZE - offset:
        paddr = user_page_for_write(mm, addr)
        if paddr < 0:
            raise _efault(addr)
        mm.kernel.physmem.mem[paddr : paddr + nr_bytes] = data
        return
    done = copy_to_user_some(mm, addr, data)
    if done != nr_bytes:
        raise _efault(addr + done)


def copy_to_user_some(mm: MmStruct, addr: int, data: bytes | bytearray | memoryview) -> int:
    """Store as much of ``data`` as the pages allow; returns how many bytes."""
    mem = mm.kernel.physmem.mem
    source = memoryview(data)
    total = len(source)
    done = 0
    while done < total:
        nr = min(PAGE_SIZE - (addr + done & _OFFSET_MASK), total - done)
        paddr = user_page_for_write(mm, addr + done)
        if paddr < 0:
            break
        mem[paddr : paddr + nr] = source[done : done + nr]
        done += nr
    return done


def clear_user(mm: MmStruct, addr: int, nr_bytes: int) -> None:
    """Store zeros.  KernelError(EFAULT)."""
    while nr_bytes > 0:
        nr = min(PAGE_SIZE - (addr & _OFFSET_MASK), nr_bytes)
        copy_to_user(mm, addr, bytes(nr))
        addr += nr
        nr_bytes -= nr


def access_ok(addr: int, nr_bytes: int) -> bool:
    """Does the range lie in the user's half of the address space at all?"""
    return addr >= 0 and nr_bytes >= 0 and addr + nr_bytes <= TASK_SIZE


# ---- numbers --------------------------------------------------------------------------------------------------------


def get_user_u64(mm: MmStruct, addr: int) -> int:
    if not addr & 7:
        table = mm.pt.leaf.get(addr >> 21)
        if table is not None:
            q = mm.pt.q
            pte = q[table + (addr >> 12 & 511)]
            if pte & _READ_DONE == _READ_DONE:
                value: int = q[(pte & PTE_PFN_MASK | addr & _OFFSET_MASK) >> 3]
                return value
    return int.from_bytes(copy_from_user(mm, addr, 8), "little")


def get_user_u32(mm: MmStruct, addr: int) -> int:
    return int.from_bytes(copy_from_user(mm, addr, 4), "little")


def get_user_i32(mm: MmStruct, addr: int) -> int:
    return int.from_bytes(copy_from_user(mm, addr, 4), "little", signed=True)


def get_user_i64(mm: MmStruct, addr: int) -> int:
    return int.from_bytes(copy_from_user(mm, addr, 8), "little", signed=True)


def get_user_u16(mm: MmStruct, addr: int) -> int:
    return int.from_bytes(copy_from_user(mm, addr, 2), "little")


def get_user_u8(mm: MmStruct, addr: int) -> int:
    return copy_from_user(mm, addr, 1)[0]


def put_user_u64(mm: MmStruct, addr: int, value: int) -> None:
    """``value`` may be negative: its low 64 bits are stored (the same for the other widths)."""
    copy_to_user(mm, addr, (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"))


def put_user_u32(mm: MmStruct, addr: int, value: int) -> None:
    copy_to_user(mm, addr, (value & 0xFFFF_FFFF).to_bytes(4, "little"))


def put_user_u16(mm: MmStruct, addr: int, value: int) -> None:
    copy_to_user(mm, addr, (value & 0xFFFF).to_bytes(2, "little"))


def put_user_u8(mm: MmStruct, addr: int, value: int) -> None:
    copy_to_user(mm, addr, bytes((value & 0xFF,)))


# ---- strings --------------------------------------------------------------------------------------------------------


def strncpy_from_user(mm: MmStruct, addr: int, max_bytes: int) -> bytes:
    """The string at ``addr`` without its NUL.  KernelError(EFAULT).

    If there is no NUL in the first ``max_bytes`` bytes, just those come back: the caller's ENAMETOOLONG.
    """
    buf = mm.kernel.physmem.buf
    parts: list[bytes] = []
    left = max_bytes
    while left > 0:
        paddr = user_page_for_read(mm, addr)
        if paddr < 0:
            raise _efault(addr)
        nr = min(PAGE_SIZE - (addr & _OFFSET_MASK), left)
        end = buf.find(b"\0", paddr, paddr + nr)
        if end >= 0:
            parts.append(buf[paddr:end])
            break
        parts.append(buf[paddr : paddr + nr])
        addr += nr
        left -= nr
    return parts[0] if len(parts) == 1 else b"".join(parts)


def strnlen_user(mm: MmStruct, addr: int, max_bytes: int) -> int:
    """Length of the string at ``addr`` without its NUL, ``max_bytes`` if it is longer.  KernelError(EFAULT)."""
    return len(strncpy_from_user(mm, addr, max_bytes))


def get_user_pointers(mm: MmStruct, addr: int, max_pointers: int) -> list[int]:
    """The NULL-terminated pointers at ``addr`` (argv, envp).  KernelError: EFAULT, E2BIG after ``max_pointers``."""
    pointers: list[int] = []
    while True:
        pointer = get_user_u64(mm, addr)
        if not pointer:
            return pointers
        if len(pointers) == max_pointers:
            raise KernelError(Errno.E2BIG, "too many arguments")
        pointers.append(pointer)
        addr += 8


# ---- compare and exchange (futexes) ---------------------------------------------------------------------------------


def cmpxchg_user_u32(mm: MmStruct, addr: int, expected: int, new: int) -> int:
    """If the word is ``expected``, make it ``new``; returns what it was.  KernelError(EFAULT)."""
    paddr = user_page_for_write(mm, addr)
    if paddr < 0:
        raise _efault(addr)
    mem = mm.kernel.physmem.mem
    old = int.from_bytes(mem[paddr : paddr + 4], "little")
    if old == expected:
        mem[paddr : paddr + 4] = (new & 0xFFFF_FFFF).to_bytes(4, "little")
    return old
