"""A bare machine for tests of the processor: RAM, page tables built by hand, code given as bytes."""

from __future__ import annotations

import struct
from typing import Any

from emu.cpu import Cpu, Stop
from emu.cpu.registers import CpuRegisters
from kernel.hardware import Reg
from mmu.paging import PTE_NX, PTE_P, PTE_PFN_MASK, PTE_U, PTE_W
from mmu.physmem import PhysMem

CODE, DATA, STACK = 0x40_0000, 0x60_0000, 0x7FFF_F000_0000
RX = PTE_P | PTE_U
RWX = PTE_P | PTE_U | PTE_W
RO = PTE_P | PTE_U | PTE_NX
RW = PTE_P | PTE_U | PTE_W | PTE_NX
TABLE = PTE_P | PTE_U | PTE_W

UD2 = b"\x0f\x0b"
SYSCALL = b"\x0f\x05"


class Space:
    """One address space."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.root = box.alloc()
        for slot, entry in box.cpu.kernel_pml4_entries.items():
            box.ram.q[self.root * 512 + slot] = entry

    @property
    def cr3(self) -> int:
        return self.root << 12

    def pte_index(self, vaddr: int) -> int:
        """The word index of the PTE of ``vaddr``; tables are made as needed."""
        q, table = self.box.ram.q, self.root
        for level in (4, 3, 2):
            index = table * 512 + (vaddr >> (3 + 9 * level) & 511)
            if not q[index]:
                q[index] = self.box.alloc() << 12 | TABLE
            table = (q[index] & PTE_PFN_MASK) >> 12
        return table * 512 + (vaddr >> 12 & 511)

    def set_pte(self, vaddr: int, pte: int) -> None:
        self.box.ram.q[self.pte_index(vaddr)] = pte

    def get_pte(self, vaddr: int) -> int:
        return self.box.ram.q[self.pte_index(vaddr)]

    def map(self, vaddr: int, flags: int, data: bytes = b"", pfn: int | None = None) -> int:
        """Map pages at ``vaddr`` that hold ``data`` (at least one page); returns the first frame."""
        first = 0
        for offset in range(0, max(len(data), 1), 4096):
            frame = self.box.alloc() if pfn is None else pfn
            first = first or frame
            self.box.ram.write(frame << 12, data[offset : offset + 4096])
            self.set_pte(vaddr + offset, frame << 12 | flags)
        return first


class Box:
    """RAM, a processor, and one address space with a code page, a data page and a stack page."""

    def __init__(self, nr_frames: int = 1024, **options: Any) -> None:
        self.ram = PhysMem(nr_frames)
        self.cpu = Cpu(self.ram, **options)
        self.next_frame = 1
        self.space = Space(self)
        self.syscalls: list[tuple[int, ...]] = []
        self.faults: list[tuple[int, int, int]] = []
        self.cpu.on_syscall = self._on_syscall
        self.cpu.on_page_fault = self._on_page_fault

    def _on_syscall(self, *args: int) -> int | None:
        self.syscalls.append(args)
        return None

    def _on_page_fault(self, vaddr: int, error_code: int, rip: int) -> bool:
        self.faults.append((vaddr, error_code, rip))
        return False

    def alloc(self) -> int:
        pfn = self.next_frame
        self.next_frame += 1
        assert pfn not in self.cpu.reserved_frames
        self.ram.zero_frame(pfn)
        return pfn

    def load(self, code: bytes, flags: int = RX) -> CpuRegisters:
        """Map ``code``, a data page and a stack page; returns registers that are about to run it."""
        self.space.map(CODE, flags, code)
        self.space.map(DATA, RW)
        self.space.map(STACK, RW)
        self.cpu.flush_tlb()
        return self.registers()

    def registers(self, rip: int = CODE) -> CpuRegisters:
        regs = self.cpu.new_registers()
        assert isinstance(regs, CpuRegisters)
        regs.write(Reg.RIP, rip)
        regs.write(Reg.RSP, STACK + 0x800)
        return regs

    def run(self, regs: CpuRegisters, nr_blocks: int = 1_000_000) -> Stop:
        return self.cpu.run(regs, self.space.cr3, nr_blocks)

    def data(self, offset: int = 0) -> int:
        """A 64-bit word of the data page."""
        pfn = (self.space.get_pte(DATA) & PTE_PFN_MASK) >> 12
        return int(struct.unpack_from("<Q", self.ram.frame(pfn), offset)[0])


def mov_rax(value: int) -> bytes:
    return b"\x48\xb8" + struct.pack("<Q", value & 0xFFFF_FFFF_FFFF_FFFF)
