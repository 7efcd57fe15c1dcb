"""An instruction that faults, is served and retried computes what it computes without a fault."""

from __future__ import annotations

import random
from collections.abc import Iterator

import capstone
import pytest

from emu.cpu import StopReason
from emu.cpu.decode import decode
from kernel.hardware import Reg
from mmu.paging import PTE_PFN_MASK
from tests.cpu.harness import CODE, RO, RW, RX, STACK, SYSCALL, UD2, Box

AREA = 0x70_0000_0000
PAGE_OF_OPERAND = AREA + 64

# What leaves the flags as every kind of operation that the engine knows.
BEFORE = {
    "add": "48 01 d0",
    "sub": "48 29 d0",
    "cmp with 1": "b8 03 00 00 00 83 f8 01",
    "and": "48 21 d0",
    "inc": "48 ff c0",
    "dec": "48 ff c8",
    "shl": "48 c1 e0 03",
    "sar": "48 c1 f8 03",
    "shl by cl": "48 d3 e0",
    "adc": "f9 48 11 d0",
    "sbb": "f9 48 19 d0",
    "mul": "48 f7 e2",
    "rol": "48 c1 c0 03",
    "bt": "48 0f a3 d0",
    "clear": "31 db",
    "stc": "f9",
    "popcnt": "f3 48 0f b8 c2",
    "bsf": "48 0f bc c2",
    "andn": "c4 e2 f8 f2 c2",
    "adcx": "66 48 0f 38 f6 c2",
    "ucomisd": "66 0f 2e c1",
}
BETWEEN = {"": "", "block end, nop": "eb 00 90", "shl by cl": "49 d3 e0"}


def instructions() -> dict[str, str]:
    """Instructions with [rdi] as their operand."""
    found = {
        f"alu {opcode:02x}": f"48 {opcode:02x} 0f" for base in range(0, 0x40, 8) for opcode in range(base, base + 4)
    }
    for reg in range(8):
        modrm = f"{7 | reg << 3:02x}"
        found[f"83 /{reg}"] = f"48 83 {modrm} 05"
        found[f"f7 /{reg}"] = f"48 f7 {modrm}" + ("45 23 01 00" if reg < 2 else "")
        for opcode in ("c1", "d1", "d3"):
            found[f"{opcode} /{reg}"] = f"48 {opcode} {modrm}" + ("05" if opcode == "c1" else "")
    for condition in range(16):
        found[f"set{condition:x}"] = f"0f {0x90 + condition:02x} 07"
        found[f"cmov{condition:x}"] = f"48 0f {0x40 + condition:02x} 0f"
    for opcode in "a3 ab b3 bb b0 b1 c0 c1 a5 ad af b6 bc bd".split():
        found[f"0f {opcode}"] = f"48 0f {opcode} 0f"
    return found | {
        "inc": "48 ff 07",
        "dec": "48 ff 0f",
        "push": "ff 37",
        "pop": "8f 07",
        "xchg": "48 87 0f",
        "mov from": "48 8b 0f",
        "mov to": "48 89 0f",
        "lock adc": "f0 48 11 0f",
        "lock xadd": "f0 48 0f c1 0f",
        "lock cmpxchg": "f0 48 0f b1 0f",
        "pushf there": "48 89 fc 9c",
        "stos": "48 ab",
        "scas": "48 af",
        "rep stos": "b9 05 00 00 00 f3 48 ab",
        "ucomisd": "66 0f 2e 07",
        "ptest": "66 0f 38 17 07",
        "fild, fistp": "df 2f df 3f",
        "fld1, fistp": "d9 e8 df 1f",
        "movups": "0f 11 07",
    }


# The flags that the instruction leaves undefined, and the engine makes of what it happens to know.
UNDEFINED_FLAGS = 0x811
UNDEFINED_AFTER = ("0f a3", "0f ab", "0f b3", "0f bb")


class Bench:
    def __init__(self) -> None:
        self.box = Box()
        self.code_pfn = self.box.space.map(CODE, RX)
        self.frame = self.box.alloc()
        self.box.space.map(STACK, RW)
        self.box.cpu.on_page_fault = self._on_page_fault
        self.steps: list[int] = []

    def _on_page_fault(self, vaddr: int, _error_code: int, _rip: int) -> bool:
        self.box.space.set_pte(vaddr, self.frame << 12 | self.steps.pop(0))
        self.box.cpu.flush_tlb_page(vaddr)
        return True

    def run(self, steps: list[int], seed: int) -> tuple[list[int], bytes, bytes]:
        """Registers, x87 state and memory; ``steps``: PTE flags of the page at first and after each fault."""
        box, rng = self.box, random.Random(seed)
        box.ram.write(self.frame << 12, rng.randbytes(4096))
        box.ram.zero_frame((box.space.get_pte(STACK) & PTE_PFN_MASK) >> 12)
        self.steps = list(steps)
        first = self.steps.pop(0)
        box.space.set_pte(AREA, self.frame << 12 | first if first else 0)
        box.cpu.flush_tlb()
        regs = box.registers(CODE)
        for reg in (Reg.RAX, Reg.RBX, Reg.RCX, Reg.RDX, Reg.R8):
            regs.write(reg, rng.getrandbits(64))
        regs.write(Reg.RCX, rng.getrandbits(9))  # a bit offset: stays in the page
        regs.write(Reg.RDI, PAGE_OF_OPERAND)
        stop = box.run(regs)
        assert stop.reason is StopReason.EXCEPTION
        assert stop.vector in (0, 6)  # a division may overflow
        return regs.read_all(), regs.fp_state(), bytes(box.ram.frame(self.frame))

    def load(self, code: bytes) -> None:
        self.box.ram.write(self.code_pfn << 12, code)
        self.box.cpu.invalidate_code(self.code_pfn)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.box.cpu.close()


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("before", BEFORE)
def test_a_fault_changes_nothing(bench: Bench, before: str, between: str) -> None:
    for seed, (name, code) in enumerate(instructions().items()):
        bench.load(bytes.fromhex(BEFORE[before] + BETWEEN[between] + code) + b"\x49\x89\xe6\x9c\x41\x5f" + UD2)
        expected = bench.run([RW], seed)
        ways = [[0, RW], [RO, RW], [0, RO, RW]]
        if name[:2] in ("c1", "d1", "d3") and name[-1] in "23":
            ways = ways[:1]  # rcl and rcr: see faulting.py
        for way in ways:
            result = bench.run(way, seed)
            if name in UNDEFINED_AFTER:
                for registers in (expected[0], result[0]):
                    registers[Reg.EFLAGS] &= ~UNDEFINED_FLAGS
                    registers[Reg.R15] &= ~UNDEFINED_FLAGS
            assert result == expected, f"{before}; {between}; {name}: {way}"


@pytest.mark.parametrize("how", ["tick", "syscall", "exception", "fault"])
@pytest.mark.parametrize("wide", [False, True])
def test_operands_do_not_get_among_the_flags(box: Box, how: str, wide: bool) -> None:
    """After cmpxchg8b and cmpxchg16b the engine's flags hold an operand of an earlier instruction."""
    after = {"tick": b"\xeb\x00", "syscall": SYSCALL, "exception": UD2, "fault": b"\xa0" + bytes(8)}[how]
    regs = box.load(b"\x48\x01\xc3" + (b"\x48" if wide else b"") + b"\x0f\xc7\x0f" + after + UD2)  # add rbx, rax
    regs.write(Reg.RAX, 0xFFFF_FFFF_FFFF_FFFF)
    regs.write(Reg.RDI, 0x60_0000)
    stop = box.run(regs, 1 if how == "tick" else 1000)
    flags = regs.read(Reg.EFLAGS)
    assert flags & ~0x8D5 == 0x202, f"{flags:#x} after {stop}"
    if how == "syscall":
        assert regs.read(Reg.R11) & ~0x8D5 == 0x202


@pytest.mark.parametrize("seed", range(8))
def test_lengths_are_those_of_another_decoder(seed: int) -> None:
    other = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    rng = random.Random(seed)
    prefixes = [b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a", b"\x48", b"\x4c", b"\x66", b"\xf3\x0f", b"\xc5", b"\xf0"]
    # ud0, ud1 and moves to control registers are read differently by different processors and decoders
    ignored = {"ud0", "ud1"}
    nr_compared = 0
    for _ in range(3000):
        code = (rng.choice(prefixes) + rng.randbytes(15))[:15]
        theirs = next(other.disasm(code, 0, 1), None)
        if theirs is None or theirs.mnemonic in ignored or code[:1] == b"\x62":
            continue
        ours = decode(code)
        if (ours.map, ours.opcode) in [(1, opcode) for opcode in range(0x20, 0x24)] or code[:1] == b"\x66":
            continue
        assert ours.length == theirs.size, f"{code.hex()} {theirs.mnemonic} {theirs.op_str}"
        nr_compared += 1
    assert nr_compared > 1000
