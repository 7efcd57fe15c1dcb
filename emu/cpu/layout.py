"""What the processor itself needs in memory: supervisor pages at the top of the address space and of RAM.

Linux's counterpart is ``arch/x86/mm/cpu_entry_area.c``: a GDT, a TSS, an entry stack and an entry stub that are mapped
in every address space.  The kernel (in Python) does not run in the guest, so there is nothing more.

Frames, counted from the first of the reserved ones:

    0  root table used while no address space is loaded (start-up)
    1  level 3   2  level 2   3  level 1 of the supervisor pages   4  level 1 of the code window
    5  GDT and TSS   6  stub (``iretq``, probe code)   7  stack

The code window is a range of user-executable addresses, empty while the guest runs.  The engine forgets translations
only by virtual address, and only of a page that is executable for the current privilege level: a frame is mapped into
the window for that moment (``Cpu._forget_code``).
"""

from __future__ import annotations

import struct

from mmu.paging import PTE_NX, PTE_P, PTE_U, PTE_W, make_pte
from mmu.physmem import PhysMem

NR_RESERVED_FRAMES = 8
ROOT, LEVEL3, LEVEL2, LEVEL1, WINDOW_LEVEL1, TABLES, STUB, STACK = range(NR_RESERVED_FRAMES)

PML4_SLOT = 511
KERNEL_BASE = 0xFFFF_FF80_0000_0000
STUB_VADDR = KERNEL_BASE
TABLES_VADDR = KERNEL_BASE + 0x1000
STACK_VADDR = KERNEL_BASE + 0x2000
WINDOW_VADDR = KERNEL_BASE + 0x20_0000
WINDOW_PAGES = 512

# Linux's selectors (arch/x86/include/asm/segment.h).
KERNEL_CS, KERNEL_DS, USER_DS, USER_CS = 0x10, 0x18, 0x2B, 0x33
TSS_SELECTOR = 0x40
TSS_OFFSET, TSS_LIMIT = 0x800, 0x67
TSS_FLAGS = 0x8B00
"""Present, busy 64-bit TSS.  Its limit leaves no room for an I/O bitmap: no port is open to user code."""
GDT_LIMIT = 0x7F

_GDT = {
    KERNEL_CS >> 3: 0x00AF9B000000FFFF,
    KERNEL_DS >> 3: 0x00CF93000000FFFF,
    USER_DS >> 3: 0x00CFF3000000FFFF,
    USER_CS >> 3: 0x00AFFB000000FFFF,
    0x78 >> 3: 0x0040F50000000000,  # CPUNODE: its limit is the number of the processor (0), for ``lsl``
}
"""No 32-bit code segment: compatibility mode cannot be entered, and its system calls need no rules."""

# The stub page.
IRETQ = 0x00
PROBE_READ = 0x10
PROBE_WRITE = 0x20
PROBE_INT3 = 0x30
PROBE_CPUID = 0x40
PROBE_TOUCH = 0x50
PROBE_SUB = 0x60
PROBE_ADD = 0x70
PROBE_OPERAND = 0x01020304
_STUB_CODE = {
    IRETQ: b"\x48\xcf",  # iretq
    PROBE_READ: b"\x8b\x03",  # mov eax, [rbx]
    PROBE_WRITE: b"\x89\x03",  # mov [rbx], eax
    PROBE_INT3: b"\xcc",  # int3
    PROBE_CPUID: b"\x0f\xa2\xcc",  # cpuid; int3
    PROBE_SUB: b"\x2d\x04\x03\x02\x01\xcc",  # sub eax, PROBE_OPERAND; int3
    PROBE_ADD: b"\x05\x04\x03\x02\x01\xcc",  # add eax, PROBE_OPERAND; int3
    # again: mov ecx, [rbx]; add rbx, 4096; dec eax; jnz again; int3
    PROBE_TOUCH: b"\x8b\x0b\x48\x81\xc3\x00\x10\x00\x00\xff\xc8\x75\xf3\xcc",
}


class KernelLayout:
    """Builds the reserved frames of ``physmem`` and knows where they are."""

    def __init__(self, physmem: PhysMem) -> None:
        first = physmem.nr_frames - NR_RESERVED_FRAMES
        if first <= 0:
            raise ValueError(f"RAM of {physmem.nr_frames} frames is too small for the processor's own pages")
        self.physmem = physmem
        self.frames = range(first, physmem.nr_frames)
        self.pml4_entries = {PML4_SLOT: make_pte(first + LEVEL3, PTE_P | PTE_W | PTE_U)}
        self.boot_cr3 = (first + ROOT) << 12
        self._window_index = (first + WINDOW_LEVEL1) * 512
        self._build(first)

    def _build(self, first: int) -> None:
        physmem = self.physmem
        for pfn in self.frames:
            physmem.zero_frame(pfn)

        def table(frame: int) -> int:
            return (first + frame) * 512

        q = physmem.q
        open_table = PTE_P | PTE_W | PTE_U
        for slot, entry in self.pml4_entries.items():
            q[table(ROOT) + slot] = entry
        q[table(LEVEL3)] = make_pte(first + LEVEL2, open_table)
        q[table(LEVEL2)] = make_pte(first + LEVEL1, open_table)
        q[table(LEVEL2) + 1] = make_pte(first + WINDOW_LEVEL1, open_table)
        q[table(LEVEL1)] = make_pte(first + STUB, PTE_P)
        q[table(LEVEL1) + 1] = make_pte(first + TABLES, PTE_P | PTE_W | PTE_NX)
        q[table(LEVEL1) + 2] = make_pte(first + STACK, PTE_P | PTE_W | PTE_NX)
        for number, descriptor in _GDT.items():
            q[table(TABLES) + number] = descriptor
        for offset, code in _STUB_CODE.items():
            physmem.write(((first + STUB) << 12) + offset, code)

    def map_window(self, pfns: list[int]) -> None:
        """Map up to WINDOW_PAGES frames, user and executable, at the start of the window."""
        q, index = self.physmem.q, self._window_index
        for pfn in pfns:
            q[index] = make_pte(pfn, PTE_P | PTE_U)
            index += 1

    def clear_window(self, nr_pages: int) -> None:
        q = self.physmem.q
        for index in range(self._window_index, self._window_index + nr_pages):
            q[index] = 0

    def push_user_frame(self, rip: int, rflags: int, rsp: int) -> int:
        """Put what ``iretq`` needs to enter ring 3 on the supervisor stack; returns the stack pointer."""
        offset = 0xF00
        frame = struct.pack("<5Q", rip, USER_CS, rflags, rsp, USER_DS)
        self.physmem.write((self.frames[STACK] << 12) + offset, frame)
        return STACK_VADDR + offset
