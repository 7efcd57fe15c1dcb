"""The register file: live and saved, whole and single, with the floating-point state as fxsave stores it."""

from __future__ import annotations

import random
import struct

import pytest

from emu.cpu.fxsave import INITIAL_FXSAVE
from kernel.hardware import NR_REGS, PlainRegisters, Reg
from tests.cpu.harness import CODE, DATA, STACK, SYSCALL, UD2, Box

FREE = [reg for reg in Reg if reg not in (Reg.CS, Reg.SS, Reg.EFLAGS)]


def some_values(seed: int) -> list[int]:
    rng = random.Random(seed)
    values = [rng.getrandbits(64) for _ in range(NR_REGS)]
    values[Reg.EFLAGS] = 0x202 | 0x8D5
    values[Reg.CS], values[Reg.SS] = 0x33, 0x2B
    return values


@pytest.mark.parametrize("live", [False, True])
def test_write_and_read(box: Box, live: bool) -> None:
    regs = box.load(SYSCALL)
    if live:
        box.run(regs)
    values = some_values(1)
    for reg in FREE:
        regs.write(reg, values[reg])
    regs.write(Reg.EFLAGS, values[Reg.EFLAGS])
    assert [regs.read(reg) for reg in Reg] == values
    assert regs.read_all() == values
    other = some_values(2)
    regs.write_all(other)
    assert regs.read_all() == other
    assert [regs.read(reg) for reg in Reg] == other


def test_the_program_sees_what_was_written_and_the_kernel_what_it_computed(box: Box) -> None:
    # r8 <- ~r8, ... for all general registers but rsp; then syscall
    code = b"".join(
        bytes([0x48 | (number >> 3), 0xF7, 0xD0 | number & 7]) for number in range(16) if number not in (4,)
    )
    regs = box.load(code + b"\x48\xf7\xd4" + SYSCALL)  # not rsp
    values = some_values(3)
    values[Reg.RIP] = CODE
    values[Reg.FS_BASE] = DATA
    regs.write_all(values)
    box.run(regs)
    after = regs.read_all()
    for reg in Reg:
        if reg in (Reg.RIP, Reg.EFLAGS, Reg.CS, Reg.SS, Reg.FS_BASE, Reg.GS_BASE, Reg.RCX, Reg.R11):
            continue
        assert after[reg] == values[reg] ^ (1 << 64) - 1, reg.name
    assert after[Reg.FS_BASE] == DATA
    assert after[Reg.GS_BASE] == values[Reg.GS_BASE]
    assert after[Reg.EFLAGS] == values[Reg.EFLAGS]


def test_segment_bases_reach_the_program_and_come_back(box: Box) -> None:
    # mov rax, fs:[0]; mov rbx, gs:[8]; wrfsbase rbx; rdgsbase rdx; syscall
    code = bytes.fromhex("64488b042500000000 65488b1c2508000000 f3480faed3 f3480faeca".replace(" ", ""))
    regs = box.load(code + SYSCALL)
    regs.write(Reg.FS_BASE, DATA + 0x10)
    regs.write(Reg.GS_BASE, DATA + 0x20)
    frame = box.ram.frame(box.space.get_pte(DATA) >> 12 & 0xFFFF)
    struct.pack_into("<Q", frame, 0x10, 1111)
    struct.pack_into("<Q", frame, 0x28, 2222)
    box.run(regs)
    assert (regs.read(Reg.RAX), regs.read(Reg.RBX), regs.read(Reg.RDX)) == (1111, 2222, DATA + 0x20)
    assert regs.read(Reg.FS_BASE) == 2222


def test_the_number_of_the_processor_stands_in_a_segment_limit(box: Box) -> None:
    """As getcpu() of Linux's vDSO reads it, without RDPID."""
    regs = box.load(b"\xb9\x7b\x00\x00\x00\x0f\x03\xc1" + SYSCALL)  # mov ecx, 0x7b; lsl eax, ecx
    regs.write(Reg.RAX, 99)
    box.run(regs)
    assert regs.read(Reg.RAX) == 0
    assert regs.read(Reg.R11) & 0x40, "ZF: the descriptor is there"


@pytest.mark.parametrize("base", ["FS_BASE", "GS_BASE"])
def test_segment_base_may_be_set_inside_a_system_call(box: Box, base: str) -> None:
    prefix = b"\x64" if base == "FS_BASE" else b"\x65"
    regs = box.load(SYSCALL + prefix + b"\x48\x8b\x04\x25\0\0\0\0" + SYSCALL)  # arch_prctl; mov rax, seg:[0]
    struct.pack_into("<Q", box.ram.frame(box.space.get_pte(DATA) >> 12 & 0xFFFF), 0, 4321)
    calls = []

    def handler(*args: int) -> int | None:
        calls.append(args[0])
        regs.write(Reg[base], DATA)
        return 0 if len(calls) == 1 else None

    box.cpu.on_syscall = handler
    box.run(regs)
    assert calls == [0, 4321]


def test_rflags_are_sanitized(box: Box) -> None:
    regs = box.load(UD2)
    regs.write(Reg.EFLAGS, 0xFFFF_FFFF_FFFF_FFFF)
    assert regs.read(Reg.EFLAGS) == 0x24_0FD7
    regs.write(Reg.EFLAGS, 0)
    assert regs.read(Reg.EFLAGS) == 0x202
    values = regs.read_all()
    values[Reg.EFLAGS] = 0x3002  # IOPL 3, IF clear
    regs.write_all(values)
    assert regs.read(Reg.EFLAGS) == 0x202


def test_direction_flag_is_honoured(box: Box) -> None:
    regs = box.load(b"\xaa" + SYSCALL)  # stosb
    regs.write(Reg.RDI, DATA + 8)
    regs.write(Reg.EFLAGS, 0x602)
    box.run(regs)
    assert regs.read(Reg.RDI) == DATA + 7
    assert regs.read(Reg.EFLAGS) & 0x400


def test_selectors_are_fixed(box: Box) -> None:
    regs = box.load(UD2)
    assert (regs.read(Reg.CS), regs.read(Reg.SS)) == (0x33, 0x2B)
    values = regs.read_all()
    values[Reg.CS], values[Reg.SS] = 0x10, 0x18
    regs.write_all(values)
    regs.write(Reg.CS, 0x10)
    assert (regs.read(Reg.CS), regs.read(Reg.SS)) == (0x33, 0x2B)
    assert box.run(regs).vector == 6


def test_reset_is_the_state_at_program_entry(box: Box) -> None:
    plain = PlainRegisters().read_all()
    plain[Reg.CS], plain[Reg.SS] = 0x33, 0x2B
    # fninit state broken, xmm0 set, flags set, gs based
    regs = box.load(bytes.fromhex("d9e8 f3480f2ac0 660f76c0 fd f9".replace(" ", "")) + SYSCALL)
    for live in (False, True):
        if live:
            regs.write(Reg.RIP, CODE)
            box.run(regs)
            assert regs.fp_state() != INITIAL_FXSAVE
        regs.write(Reg.R12, 5)
        regs.write(Reg.GS_BASE, 5)
        regs.reset()
        assert regs.read_all() == plain
        assert regs.fp_state() == INITIAL_FXSAVE == PlainRegisters().fp_state()


def test_execve_in_the_running_task(box: Box) -> None:
    regs = box.load(SYSCALL + UD2)
    box.run(regs)
    regs.reset()
    regs.write(Reg.RIP, CODE)
    box.run(regs)
    assert box.syscalls == [(0,) * 7, (0,) * 7]


def test_clone_is_independent(box: Box) -> None:
    regs = box.load(bytes.fromhex("660f76c0") + SYSCALL + b"\x48\xff\xc0" + SYSCALL)  # pcmpeqd xmm0, xmm0
    box.run(regs)
    child = regs.clone()
    assert child.read_all() == regs.read_all()
    assert child.fp_state() == regs.fp_state()
    child.write(Reg.RAX, 100)
    box.run(child)
    box.run(regs)
    assert (regs.read(Reg.RAX), child.read(Reg.RAX)) == (1, 101)
    grandchild = child.clone()
    assert grandchild.read_all() == child.read_all()
    assert grandchild.fp_state()[160:176] == b"\xff" * 16


def test_what_needs_a_stopped_task_is_refused_inside_callbacks(box: Box) -> None:
    regs = box.load(SYSCALL + UD2)
    refused = []

    def handler(*_args: int) -> int:
        for action in (
            lambda: regs.write(Reg.RIP, 0),
            lambda: regs.write(Reg.RSP, 0),
            lambda: regs.write(Reg.EFLAGS, 0),
            lambda: regs.write_all([0] * NR_REGS),
            regs.clone,
            regs.reset,
            regs.fp_state,
            lambda: regs.set_fp_state(INITIAL_FXSAVE),
        ):
            try:
                action()  # type: ignore[no-untyped-call]
            except RuntimeError:
                refused.append(True)
        other = box.registers()
        other.write(Reg.RIP, 5)  # a task that does not run
        other.clone()
        return 0

    box.cpu.on_syscall = handler
    assert box.run(regs).vector == 6
    assert len(refused) == 8


def test_read_all_inside_a_callback(box: Box) -> None:
    regs = box.load(b"\x31\xc0" + SYSCALL + UD2)
    seen: list[list[int]] = []

    def handler(*_args: int) -> int:
        seen.append(regs.read_all())
        return 0

    box.cpu.on_syscall = handler
    box.run(regs)
    assert seen[0][Reg.EFLAGS] == 0x246
    assert seen[0][Reg.RIP] == CODE + 2
    assert seen[0][Reg.RSP] == STACK + 0x800


# fxsave --------------------------------------------------------------------------------------------------------------

# fld1; fldpi; fldz; fldl2e; mov eax, 0x1f3f; ...; then fxsave64 [rdi]; syscall
FP_WORK = {
    "initial": "",
    "x87 stack": "d9e8 d9eb d9ee d9ea",
    "x87 stack, wrapped and popped": "d9e8 d9eb ddd8 ddd8 d9ec d9ed d9f7",
    "x87 full": "d9e8 " * 8,
    "control words": "66c7077f02 d92f c70780ff0000 0fae17",
    "xmm": "660f76c0 0f28c8 660f73f920 440f28f8 f20f2ac0",
    "status": "d9ee d9e8 def1 d9fe",
}


@pytest.mark.parametrize("name", FP_WORK)
def test_image_is_what_fxsave_stores(box: Box, name: str) -> None:
    regs = box.load(bytes.fromhex(FP_WORK[name].replace(" ", "")) + b"\x48\x0f\xae\x07" + SYSCALL)
    regs.write(Reg.RDI, DATA)
    box.run(regs)
    stored = bytes(box.ram.frame(box.space.get_pte(DATA) >> 12 & 0xFFFF)[:416])
    image = regs.fp_state()
    assert image[:416] == stored
    assert image[416:] == bytes(96)
    box.run(box.registers())  # now a saved context
    assert regs.fp_state() == image


def random_image(seed: int) -> bytes:
    rng = random.Random(seed)
    image = bytearray(512)
    struct.pack_into("<HHB", image, 0, 0x27F, rng.getrandbits(3) << 11 | 0x4100, rng.getrandbits(8))
    struct.pack_into("<II", image, 24, 0x9F80, 0xFFFF)
    for number in range(8):
        image[32 + 16 * number : 42 + 16 * number] = rng.randbytes(10)
    image[160:416] = rng.randbytes(256)
    return bytes(image)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_image_round_trip(box: Box, live: bool, seed: int) -> None:
    regs = box.load(SYSCALL + b"\x48\x0f\xae\x07" + SYSCALL)
    regs.write(Reg.RDI, DATA)
    box.run(regs)
    if not live:
        box.run(box.registers(CODE))
    image = random_image(seed)
    regs.set_fp_state(image)
    assert regs.fp_state() == image
    box.run(regs)
    assert bytes(box.ram.frame(box.space.get_pte(DATA) >> 12 & 0xFFFF)[:416]) == image[:416]


def test_rounding_mode_takes_effect(box: Box) -> None:
    """Writing the control words also sets what is derived from them."""
    regs = box.load(bytes.fromhex("f2480f2dc0 d9c0 df3f") + SYSCALL)  # cvtsd2si rax, xmm0; fld st0; fistp qword [rdi]
    for rounding, expected in ((0, 2), (1, 2), (2, 3), (3, 2)):
        image = bytearray(INITIAL_FXSAVE)
        struct.pack_into("<HHB", image, 0, 0x37F | rounding << 10, 7 << 11, 0x80)
        struct.pack_into("<I", image, 24, 0x1F80 | rounding << 13)
        image[32:42] = struct.pack("<QH", 0xA000_0000_0000_0000, 0x4000)  # 2.5
        image[160:168] = struct.pack("<d", 2.5)
        regs.set_fp_state(bytes(image))
        regs.write(Reg.RIP, CODE)
        regs.write(Reg.RDI, DATA)
        box.run(regs)
        assert (regs.read(Reg.RAX), box.data()) == (expected, expected)


def test_pointers_of_the_last_x87_instruction_are_not_restored(box: Box) -> None:
    """As the engine's own fxrstor: it drops them."""
    regs = box.registers()
    image = bytearray(INITIAL_FXSAVE)
    struct.pack_into("<HQQ", image, 6, 0x123, 0x4567, 0x89AB)
    regs.set_fp_state(bytes(image))
    assert regs.fp_state() == INITIAL_FXSAVE


def test_reserved_bits_of_mxcsr_are_dropped(box: Box) -> None:
    regs = box.load(UD2)
    image = bytearray(INITIAL_FXSAVE)
    struct.pack_into("<I", image, 24, 0xFFFF_1F80)
    regs.set_fp_state(bytes(image))
    assert regs.fp_state() == INITIAL_FXSAVE


@pytest.mark.parametrize("length", [0, 511, 513])
def test_image_of_a_wrong_size_is_refused(box: Box, length: int) -> None:
    with pytest.raises(ValueError, match="512"):
        box.registers().set_fp_state(bytes(length))


def test_wrong_number_of_registers_is_refused(box: Box) -> None:
    with pytest.raises(ValueError, match="registers"):
        box.registers().write_all([0])
