"""Random programs: what they compute, and where they fault, depends on nothing that the processor does for speed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.cpu import FastMemory, StopReason, Tick
from kernel.hardware import Reg
from tests.cpu.harness import CODE, RW, RX, STACK, UD2, Box

AREA = 0x70_0000_0000
NR_PAGES = 4

# Instructions on [rdi + disp32]; {} is the place of the displacement.
ON_MEMORY = [
    "48 8b 87 {}",  # mov rax, [m]
    "48 89 87 {}",  # mov [m], rax
    "48 01 8f {}",  # add [m], rcx
    "48 11 87 {}",  # adc [m], rax
    "48 13 97 {}",  # adc rdx, [m]
    "48 87 97 {}",  # xchg [m], rdx
    "f0 48 0f c1 8f {}",  # lock xadd [m], rcx
    "f0 48 0f b1 97 {}",  # lock cmpxchg [m], rdx
    "f0 ff 87 {}",  # lock inc dword [m]
    "66 31 87 {}",  # xor [m], ax
    "0f 11 87 {}",  # movups [m], xmm0
    "0f 10 8f {}",  # movups xmm1, [m]
    "66 0f ef 87 {}",  # pxor xmm0, [m] (16-byte aligned on hardware; see quirks.py)
    "48 d1 9f {}",  # rcr qword [m], 1
    "48 ff b7 {} 58",  # push [m]; pop rax
    "48 8d b7 {} b9 13 00 00 00 48 89 fb 48 81 c7 40 08 00 00 f3 a4 48 89 df",  # rep movsb to rdi + 0x840
    "0f b6 8f {}",  # movzx ecx, byte [m]
    "dd 87 {} dd 9f {}",  # fld, fstp
]
ON_REGISTERS = [
    "48 01 d0",  # add rax, rdx
    "48 0f af c1",  # imul rax, rcx
    "48 d1 d2",  # rcl rdx, 1
    "66 0f d4 c1",  # paddq xmm0, xmm1
    "48 ff c9 75 03 48 ff c0",  # dec rcx; jnz over; inc rax
    "72 02 f9 90",  # jc over; stc; nop
    "eb 00",  # jmp to the next
    "9c 59",  # pushf; pop rcx
]


@st.composite
def programs(draw: st.DrawFn) -> bytes:
    code = b""
    for _ in range(draw(st.integers(1, 25))):
        if draw(st.booleans()):
            template = draw(st.sampled_from(ON_MEMORY))
            displacement = draw(st.integers(0, NR_PAGES * 4096 - 0x900))
            code += bytes.fromhex(template.replace("{}", struct.pack("<i", displacement).hex()))
        else:
            code += bytes.fromhex(draw(st.sampled_from(ON_REGISTERS)))
    # Twice, so that the second time everything is translated and mapped: dec r15; jnz start
    code += b"\x49\xff\xcf\x0f\x85" + struct.pack("<i", -(len(code) + 9))
    return code + UD2


@dataclass
class Result:
    registers: list[int]
    fxsave: bytes
    memory: bytes
    faults: list[tuple[int, int, int]]


class Subject:
    def __init__(self, quantum: int, **options: Any) -> None:
        self.box = Box(**options)
        self.quantum = quantum
        self.box.space.map(STACK, RW)
        self.box.space.map(CODE, RX)
        self.frames = [self.box.alloc() for _ in range(NR_PAGES)]
        self.box.cpu.on_page_fault = self._on_page_fault
        self.regs = self.box.registers()
        self.faults: list[tuple[int, int, int]] = []

    def _on_page_fault(self, vaddr: int, error_code: int, rip: int) -> bool:
        self.faults.append((vaddr, error_code, rip))
        page = (vaddr - AREA) >> 12
        if not 0 <= page < NR_PAGES:
            return False
        self.box.space.set_pte(vaddr, self.frames[page] << 12 | RW)
        return True

    def run(self, code: bytes) -> Result:
        box, regs = self.box, self.regs
        code_pfn = box.space.get_pte(CODE) >> 12 & 0xFFFF
        box.ram.zero_frame(code_pfn)
        box.ram.write(code_pfn << 12, code)
        box.cpu.invalidate_code(code_pfn)
        for page, pfn in enumerate(self.frames):
            box.space.set_pte(AREA + 4096 * page, 0)
            box.ram.words[pfn] = (pfn - self.frames[0]) * 0x1234567
        box.ram.zero_frame(box.space.get_pte(STACK) >> 12 & 0xFFFF)
        box.cpu.flush_tlb()
        self.faults = []
        regs.reset()
        for reg, value in (
            (Reg.RIP, CODE),
            (Reg.RSP, STACK + 0x800),
            (Reg.RDI, AREA),
            (Reg.R15, 2),
            (Reg.RAX, 0x0123456789ABCDEF),
            (Reg.RCX, 77),
        ):
            regs.write(reg, value)
        while (stop := box.run(regs, self.quantum)).reason is StopReason.QUANTUM:
            pass
        assert stop.vector == 6, stop
        memory = b"".join(bytes(box.ram.frame(pfn)) for pfn in self.frames)
        return Result(regs.read_all(), regs.fp_state(), memory, self.faults)


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return [
        Subject(1 << 40),
        Subject(1 << 40, fast_memory=FastMemory.OFF),
        Subject(1),
        Subject(3, fast_memory=FastMemory.OFF),
        Subject(1 << 40, tick=Tick.KERNEL_ENTRIES),
    ]


@settings(max_examples=max(60, settings().max_examples // 2))
@given(code=programs())
def test_same_results(subjects: list[Subject], code: bytes) -> None:
    first, *others = (subject.run(code) for subject in subjects)
    for other in others:
        assert other == first
