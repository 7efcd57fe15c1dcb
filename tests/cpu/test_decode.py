"""Which instructions fault as writes although they read first."""

from __future__ import annotations

import pytest

from emu.cpu import StopReason
from emu.cpu.decode import decode, reads_before_it_writes
from kernel.hardware import Reg
from mmu.paging import PF_USER, PF_WRITE
from tests.cpu.harness import RW, UD2, Box

READ_AND_WRITE = {
    "add [rdi], eax": "01 07",
    "add [rdi], al": "00 07",
    "or [rdi], rax": "48 09 07",
    "adc [rdi], eax": "11 07",
    "sbb [rdi], eax": "19 07",
    "and [rdi], eax": "21 07",
    "sub [rdi], eax": "29 07",
    "xor [rdi], ax": "66 31 07",
    "add byte [rdi], 1": "80 07 01",
    "sub dword [rdi], imm32": "81 2f 01 00 00 00",
    "xor qword [rdi], imm8": "48 83 37 01",
    "xchg [rdi], eax": "87 07",
    "xchg [rdi], al": "86 07",
    "rol byte [rdi], imm8": "c0 07 01",
    "shl dword [rdi], 1": "d1 27",
    "sar qword [rdi], cl": "48 d3 3f",
    "not dword [rdi]": "f7 17",
    "neg byte [rdi]": "f6 1f",
    "inc byte [rdi]": "fe 07",
    "dec qword [rdi]": "48 ff 0f",
    "shld [rdi], eax, imm8": "0f a4 07 03",
    "shrd [rdi], eax, cl": "0f ad 07",
    "bts [rdi], eax": "0f ab 07",
    "btr [rdi], eax": "0f b3 07",
    "btc [rdi], eax": "0f bb 07",
    "bts dword [rdi], imm8": "0f ba 2f 03",
    "cmpxchg [rdi], ecx": "0f b1 0f",
    "lock cmpxchg [rdi], cl": "f0 0f b0 0f",
    "lock xadd [rdi], rax": "f0 48 0f c1 07",
    "cmpxchg8b [rdi]": "0f c7 0f",
    "lock cmpxchg16b [rdi]": "f0 48 0f c7 0f",
    "lock inc dword [r15]": "f0 41 ff 07",
    "add fs:[rdi], eax": "64 01 07",
}

READ_ONLY = {
    "mov eax, [rdi]": "8b 07",
    "cmp [rdi], eax": "39 07",
    "cmp byte [rdi], 1": "80 3f 01",
    "cmp qword [rdi], imm8": "48 83 3f 01",
    "test [rdi], eax": "85 07",
    "test dword [rdi], imm32": "f7 07 01 00 00 00",
    "mul dword [rdi]": "f7 27",
    "add eax, [rdi]": "03 07",
    "bt [rdi], eax": "0f a3 07",
    "bt dword [rdi], imm8": "0f ba 27 03",
    "push qword [rdi]": "ff 37",
    "movzx eax, byte [rdi]": "0f b6 07",
    "movups xmm0, [rdi]": "0f 10 07",
    "imul eax, [rdi]": "0f af 07",
    "cmovz eax, [rdi]": "0f 44 07",
}


@pytest.mark.parametrize("name", READ_AND_WRITE)
def test_read_and_write(name: str) -> None:
    assert reads_before_it_writes(decode(bytes.fromhex(READ_AND_WRITE[name]) + bytes(5)))


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only(name: str) -> None:
    assert not reads_before_it_writes(decode(bytes.fromhex(READ_ONLY[name]) + bytes(5)))


@pytest.mark.parametrize("code", ["", "0f", "66", "48", "01", "01 c7", "0f c7", "0f c7 c9", "f0 f0 f0", "66 48 0f"])
def test_registers_and_fragments(code: str) -> None:
    assert not reads_before_it_writes(decode(bytes.fromhex(code)))


@pytest.mark.parametrize("name", READ_AND_WRITE)
def test_one_fault_for_each(box: Box, name: str) -> None:
    """The processor reports a write at once, and then the instruction completes."""
    regs = box.load(bytes.fromhex(READ_AND_WRITE[name]) + UD2)
    regs.write(Reg.RDI, 0x70_0000_0000)
    regs.write(Reg.R15, 0x70_0000_0000)
    seen = []

    def handler(vaddr: int, error_code: int, _rip: int) -> bool:
        seen.append(error_code)
        box.space.map(vaddr, RW)
        return True

    box.cpu.on_page_fault = handler
    assert box.run(regs).vector == 6
    assert seen == [PF_USER | PF_WRITE]


@pytest.mark.parametrize("name", READ_ONLY)
def test_reads_are_reads(box: Box, name: str) -> None:
    regs = box.load(bytes.fromhex(READ_ONLY[name]) + UD2)
    regs.write(Reg.RDI, 0x70_0000_0000)
    stop = box.run(regs)
    assert (stop.reason, stop.error_code) == (StopReason.PAGE_FAULT, PF_USER)


def test_code_at_the_same_address_may_change(box: Box) -> None:
    """What is remembered about an address goes with the TLB."""
    regs = box.load(b"\x8b\x07" + UD2)
    regs.write(Reg.RDI, 0x70_0000_0000)
    assert box.run(regs).error_code == PF_USER
    regs = box.load(b"\x01\x07" + UD2)  # another frame, and a flush
    regs.write(Reg.RDI, 0x70_0000_0000)
    assert box.run(regs).error_code == PF_USER | PF_WRITE
