"""Everything that a program can execute and may not: each ends as one well-defined stop."""

from __future__ import annotations

import pytest

from emu.cpu import Stop, StopReason, Tick
from kernel.hardware import Reg
from tests.cpu.harness import CODE, DATA, SYSCALL, UD2, Box, mov_rax

GP, UD, DB, BP, OF, DE, MF = 13, 6, 1, 3, 4, 0, 16

# name: (code, vector, error code, offset of RIP)
CASES: dict[str, tuple[str, int, int, int]] = {
    "hlt": ("f4", GP, 0, 0),
    "cli": ("fa", GP, 0, 0),
    "sti": ("fb", GP, 0, 0),
    "in al, dx": ("ec", GP, 0, 0),
    "in eax, imm8": ("e5 70", GP, 0, 0),
    "out dx, al": ("ee", GP, 0, 0),
    "out imm8, eax": ("e7 80", GP, 0, 0),
    "insb": ("6c", GP, 0, 0),
    "rep outsd": ("f3 6f", GP, 0, 0),
    "mov rax, cr0": ("0f 20 c0", GP, 0, 0),
    "mov cr3, rax": ("0f 22 d8", GP, 0, 0),
    "mov rax, dr0": ("0f 21 c0", GP, 0, 0),
    "lgdt": ("0f 01 17", GP, 0, 0),
    "lldt": ("0f 00 d0", GP, 0, 0),
    "swapgs": ("0f 01 f8", GP, 0, 0),
    "invlpg": ("0f 01 3f", GP, 0, 0),
    "wbinvd": ("0f 09", GP, 0, 0),
    "rdmsr": ("0f 32", GP, 0, 0),
    "wrmsr": ("0f 30", GP, 0, 0),
    "sysret": ("0f 07", GP, 0, 0),
    "clts": ("0f 06", GP, 0, 0),
    "mov ds, bad selector": ("b8 98 00 00 00 8e d8", GP, 0x98, 5),
    "mov ss, 0": ("31 c0 8e d0", GP, 0, 2),
    "mov ss, kernel data": ("b8 18 00 00 00 8e d0", GP, 0x18, 5),
    "int3": ("cc", BP, 0, 1),
    "int 3": ("cd 03", BP, 0, 2),
    "int 4": ("cd 04", OF, 0, 2),
    "int 0x80": ("cd 80", 128, 0, 2),
    "int 0": ("cd 00", GP, 0 * 8 + 2, 0),
    "int 13": ("cd 0d", GP, 13 * 8 + 2, 0),
    "int 14 is no page fault": ("cd 0e", GP, 14 * 8 + 2, 0),
    "int 255": ("cd ff", GP, 255 * 8 + 2, 0),
    "icebp": ("f1", DB, 0, 1),
    "into": ("ce", UD, 0, 0),
    "ud2": ("0f 0b", UD, 0, 0),
    "ud0": ("0f ff", UD, 0, 0),
    "ud1": ("0f b9 c0", UD, 0, 0),
    "sysenter": ("0f 34", UD, 0, 0),
    "lock nop": ("f0 90", UD, 0, 0),
    "ymm": ("c5 fc 57 c0", UD, 0, 0),
    "evex": ("62 f1 7c 48 58 c0", UD, 0, 0),
    "xgetbv": ("0f 01 d0", UD, 0, 0),
    "xsave": ("0f ae 27", UD, 0, 0),
    "rdrand": ("0f c7 f0", UD, 0, 0),
    "rdseed": ("0f c7 f8", UD, 0, 0),
    "rdpmc": ("0f 33", UD, 0, 0),
    "rdpid": ("f3 0f c7 f8", UD, 0, 0),
    "monitor": ("0f 01 c8", UD, 0, 0),
    "mwait": ("0f 01 c9", UD, 0, 0),
    "vmcall": ("0f 01 c1", UD, 0, 0),
    "vmrun": ("0f 01 d8", UD, 0, 0),
    "getsec": ("0f 37", UD, 0, 0),
    "rsm": ("0f aa", UD, 0, 0),
    "pcmpistri": ("66 0f 3a 63 c1 0c", UD, 0, 0),
    "crc32": ("f2 0f 38 f1 c0", UD, 0, 0),
    "call far in 64-bit code": ("9a", UD, 0, 0),
    "divide by zero": ("31 c9 f7 f1", DE, 0, 2),
    "divide overflow": ("48 c7 c2 ff ff ff ff b9 01 00 00 00 f7 f1", DE, 0, 12),
    "cmpxchg16b, misaligned": ("48 ff c7 48 0f c7 0f", GP, 0, 3),
    "read of a non-canonical address": ("48 c1 e7 20 8b 07", GP, 0, 4),
    "single step": ("68 02 03 00 00 9d 90 90", DB, 0, 7),
    "iretq to kernel code": ("6a 00 6a 00 6a 00 6a 10 6a 00 48 cf", GP, 0x10, 10),
    "retf to 32-bit code": ("6a 23 6a 00 48 cb", GP, 0x20, 4),
    "x87 exception": ("db e3 66 c7 07 00 00 d9 2f d9 e8 d9 ee de f9 9b", MF, 0, 15),
}


def outcome(box: Box, regs_rip: int, stop: Stop) -> tuple[StopReason, int, int, int]:
    return stop.reason, stop.vector, stop.error_code, regs_rip - CODE


@pytest.mark.parametrize("name", CASES)
def test_exception(box: Box, name: str) -> None:
    code, vector, error_code, offset = CASES[name]
    regs = box.load(bytes.fromhex(code) + b"\x48\xff\x07" + UD2)
    regs.write(Reg.RDI, DATA)
    regs.write(Reg.RSI, DATA)
    regs.write(Reg.RDX, 0x3F8)
    regs.write(Reg.RCX, 1)
    before = regs.read_all()
    stop = box.run(regs)
    assert outcome(box, regs.read(Reg.RIP), stop) == (StopReason.EXCEPTION, vector, error_code, offset)
    assert not box.faults
    if offset == 0:
        before[Reg.RIP] = regs.read(Reg.RIP)
        assert regs.read_all() == before


def test_exceptions_in_a_row_do_not_become_double_faults(box: Box) -> None:
    regs = box.load(b"\xf4\x90" + b"\xf7\xf1" + b"\x8b\x04\x25\0\0\0\0" + UD2)  # hlt; nop; div ecx; mov eax, [0]
    for _ in range(20):
        regs.write(Reg.RIP, CODE)
        assert box.run(regs).vector == GP
        regs.write(Reg.RIP, CODE + 2)
        regs.write(Reg.RCX, 0)
        assert box.run(regs).vector == DE
        regs.write(Reg.RIP, CODE + 4)
        assert box.run(regs).reason is StopReason.PAGE_FAULT


def test_single_stepping_visits_every_instruction(box: Box) -> None:
    regs = box.load(b"\x90\x48\xff\xc0\x31\xdb" + UD2)  # nop; inc rax; xor ebx, ebx
    regs.write(Reg.EFLAGS, 0x302)
    places = []
    while (stop := box.run(regs)).vector == DB:
        places.append(regs.read(Reg.RIP) - CODE)
    assert places == [1, 4, 6]
    assert stop.vector == UD
    assert regs.read(Reg.EFLAGS) & 0x100


@pytest.mark.parametrize("target", [0x0000_8000_0000_0000, 0xFFFF_0000_0000_0000, 1 << 63])
def test_jump_to_a_non_canonical_address(box: Box, target: int) -> None:
    regs = box.load(mov_rax(target) + b"\xff\xe0")
    stop = box.run(regs)
    assert (stop.reason, stop.vector, stop.error_code) == (StopReason.EXCEPTION, GP, 0)
    assert regs.read(Reg.RIP) == target


def test_start_at_a_non_canonical_address(box: Box) -> None:
    regs = box.load(UD2)
    regs.write(Reg.RIP, 0xDEAD_0000_0000_0000)
    stop = box.run(regs)
    assert (stop.reason, stop.vector) == (StopReason.EXCEPTION, GP)


def test_jump_into_the_kernels_half(box: Box) -> None:
    regs = box.load(mov_rax(0xFFFF_FF80_0000_0000) + b"\xff\xe0")
    stop = box.run(regs)
    assert stop.reason is StopReason.PAGE_FAULT
    assert stop.error_code == 0x15


def test_popf_cannot_change_what_belongs_to_the_kernel(box: Box) -> None:
    regs = box.load(b"\x6a\xff\x9d\x9c\x58" + b"\x90" + UD2)  # push -1; popfq; pushfq; pop rax
    stop = box.run(regs)
    while stop.vector == DB:  # it has set TF, too
        stop = box.run(regs)
    assert stop.vector == UD
    flags = regs.read(Reg.RAX)
    assert flags & 0x200, "interrupts stay on"
    assert not flags & 0x3000, "IOPL stays 0"
    assert not flags & 0x20000, "no virtual 8086 mode"


def test_the_program_goes_on_after_the_kernel_has_handled_a_trap(box: Box) -> None:
    regs = box.load(b"\xcc\xcd\x80\xf1" + mov_rax(5) + SYSCALL)
    vectors = [box.run(regs).vector for _ in range(3)]
    assert vectors == [3, 128, 1]
    assert box.run(regs).reason is StopReason.SYSCALL
    assert regs.read(Reg.RAX) == 5


@pytest.mark.parametrize("code", ["ec", "e5 70", "ee", "6c", "f3 6e"])
def test_port_access_without_native_stubs(code: str) -> None:
    box = Box(tick=Tick.KERNEL_ENTRIES)
    regs = box.load(bytes.fromhex(code) + b"\xeb\x00" + b"\x48\xff\x07" + UD2)
    regs.write(Reg.RDI, DATA + 8)
    regs.write(Reg.RSI, DATA + 16)
    regs.write(Reg.RCX, 2)
    before = regs.read_all()
    stop = box.run(regs)
    assert (stop.reason, stop.vector, stop.error_code) == (StopReason.EXCEPTION, GP, 0)
    assert regs.read_all() == before
    box.cpu.close()


def test_vex_encoded_sse_runs_as_sse(box: Box) -> None:
    """The known gap, written down: with AVX hidden in CPUID no careful program comes here."""
    regs = box.load(bytes.fromhex("c5f857c0") + UD2)  # vxorps xmm0, xmm0, xmm0
    stop = box.run(regs)
    assert stop.vector == UD
    assert regs.read(Reg.RIP) == CODE + 4
