"""The debug unit: exact stops, and a program that cannot tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.cpu import Stop, StopReason
from emu.cpu.debug import DebugUnit, Trap, TrapKind, WatchKind, Watchpoint
from emu.cpu.registers import CpuRegisters
from kernel.hardware import Reg
from mmu.paging import PTE_P, PTE_U, PTE_W
from tests.cpu.harness import CODE, DATA, RW, STACK, SYSCALL, UD2, Box, mov_rax

LOOP = b"\xff\xc0\xff\xc9\x75\xfa"  # again: inc eax; dec ecx; jnz again


def unit_of(box: Box, on_breakpoint: Callable[[int], bool] = lambda _address: True) -> DebugUnit:
    return box.cpu.enable_debug(on_breakpoint)


def go(box: Box, unit: DebugUnit, regs: CpuRegisters, *, step: bool = False) -> tuple[Stop, Trap | None]:
    return unit.run(regs, box.space.cr3, 1_000_000, step=step, mid_block=unit.mid_block)


def steps(box: Box, unit: DebugUnit, regs: CpuRegisters, nr: int) -> list[int]:
    """Offsets of RIP after each of ``nr`` steps."""
    found = []
    for _ in range(nr):
        stop, trap = go(box, unit, regs, step=True)
        assert stop.reason is StopReason.DEBUG and trap is not None and trap.kind is TrapKind.STEP, stop
        assert not regs.read(Reg.EFLAGS) & 0x100
        found.append(regs.read(Reg.RIP) - CODE)
    return found


def test_breakpoint_inside_a_block_already_translated(box: Box) -> None:
    regs = box.load(LOOP + UD2)
    regs.write(Reg.RCX, 5)
    assert box.run(regs).vector == 6
    unit = unit_of(box)
    unit.set_breakpoints([CODE + 2])
    regs.write(Reg.RIP, CODE)
    regs.write(Reg.RCX, 3)
    regs.write(Reg.RAX, 0)
    for turn in range(1, 4):
        stop, trap = go(box, unit, regs)
        assert stop.reason is StopReason.DEBUG and trap == Trap(TrapKind.BREAKPOINT)
        assert (regs.read(Reg.RIP), regs.read(Reg.RAX), regs.read(Reg.RCX)) == (CODE + 2, turn, 4 - turn)
        unit.set_breakpoints([])
        assert steps(box, unit, regs, 1) == [4]
        unit.set_breakpoints([CODE + 2])
    assert go(box, unit, regs)[0].vector == 6
    assert regs.read(Reg.RAX) == 3


def test_breakpoint_that_is_not_for_this_task_changes_nothing(box: Box) -> None:
    asked: list[int] = []

    def refuse(address: int) -> bool:
        asked.append(address)
        return False

    unit = unit_of(box, refuse)
    regs = box.load(LOOP + UD2)
    regs.write(Reg.RCX, 5)
    unit.set_breakpoints([CODE + 2])
    stop, trap = go(box, unit, regs)
    assert stop.vector == 6 and trap is None and regs.read(Reg.RAX) == 5
    assert asked == [CODE + 2] * 5


def test_flags_live_across_a_breakpoint(box: Box) -> None:
    # cmp ecx, 7; jb taken; ud2; taken: syscall: the breakpoint is at the jump
    regs = box.load(bytes.fromhex("83f907 7202 0f0b 0f05"))
    regs.write(Reg.RCX, 3)
    unit = unit_of(box)
    unit.set_breakpoints([CODE + 3])
    assert go(box, unit, regs)[1] == Trap(TrapKind.BREAKPOINT)
    assert regs.read(Reg.EFLAGS) & 1
    unit.set_breakpoints([])
    assert go(box, unit, regs)[0].reason is StopReason.SYSCALL


def test_steps_go_through_everything(box: Box) -> None:
    # push 1; rep stosb (3 times); syscall; jmp +1; nop; pushf; pop rbx; nop
    code = bytes.fromhex("6a01 f3aa 0f05 eb01 90 9c 5b 90")
    regs = box.load(code)
    box.cpu.on_syscall = lambda *_args: 42
    regs.write(Reg.RCX, 3)
    regs.write(Reg.RDI, DATA)
    unit = unit_of(box)
    assert steps(box, unit, regs, 9) == [2, 2, 2, 4, 6, 9, 10, 11, 12]
    assert regs.read(Reg.RAX) == 42
    assert not regs.read(Reg.R11) & 0x100 and not regs.read(Reg.RBX) & 0x100
    assert regs.read(Reg.RDI) == DATA + 3


def test_step_through_a_page_fault(box: Box) -> None:
    # mov [rdi], rax; nop
    regs = box.load(bytes.fromhex("488907 90"))
    regs.write(Reg.RDI, DATA + 0x3000)

    def serve(vaddr: int, error_code: int, rip: int) -> bool:
        box.faults.append((vaddr, error_code, rip))
        box.space.map(DATA + 0x3000, RW)
        return True

    box.cpu.on_page_fault = serve
    assert steps(box, unit_of(box), regs, 2) == [3, 4]
    assert box.faults == [(DATA + 0x3000, 6, CODE)]


def test_a_step_that_is_refused_leaves_no_trap_flag(box: Box) -> None:
    regs = box.load(bytes.fromhex("488907 90"))
    regs.write(Reg.RDI, DATA + 0x3000)
    stop, trap = go(box, unit_of(box), regs, step=True)
    assert stop.reason is StopReason.PAGE_FAULT and trap is None
    assert regs.read(Reg.EFLAGS) & 0x100 == 0 and regs.read(Reg.RIP) == CODE


def test_stopped_system_call_does_not_see_the_trap_flag(box: Box) -> None:
    regs = box.load(SYSCALL + b"\x90")
    stop, _ = go(box, unit_of(box), regs, step=True)
    assert stop.reason is StopReason.SYSCALL
    assert regs.read(Reg.RIP) == CODE + 2
    assert not regs.read(Reg.R11) & 0x100 and not regs.read(Reg.EFLAGS) & 0x100


def test_the_programs_own_trap_flag_is_its_own(box: Box) -> None:
    # push 0x302; popf; nop; nop
    regs = box.load(bytes.fromhex("6802030000 9d 90 90"))
    unit = unit_of(box)
    for _ in range(2):
        assert go(box, unit, regs, step=True)[1] == Trap(TrapKind.STEP)
    assert regs.read(Reg.EFLAGS) & 0x100
    stop, trap = go(box, unit, regs)
    assert (stop.reason, stop.vector, trap) == (StopReason.EXCEPTION, 1, None)
    assert regs.read(Reg.RIP) == CODE + 7


WATCHED = DATA + 0x20
# mov [rdi], rax (8 before the watched word); mov [rdi+8], eax; mov rbx, [rdi+8]; inc qword [rdi+8]; syscall
TOUCHES = bytes.fromhex("488907 894708 488b5f08 48ff4708 0f05")


@pytest.mark.parametrize(
    ("kind", "stops"),
    [(WatchKind.WRITE, [6, 14]), (WatchKind.READ, [10, 14]), (WatchKind.ACCESS, [6, 10, 14])],
)
def test_watchpoints(box: Box, kind: WatchKind, stops: list[int]) -> None:
    regs = box.load(TOUCHES)
    regs.write(Reg.RDI, WATCHED - 8)
    regs.write(Reg.RAX, 5)
    unit = unit_of(box)
    point = Watchpoint(WATCHED, 4, kind)
    unit.set_watchpoints([point])
    for offset in stops:
        stop, trap = go(box, unit, regs)
        assert stop.reason is StopReason.DEBUG and trap == Trap(TrapKind.WATCH, point)
        assert regs.read(Reg.RIP) == CODE + offset
        assert not regs.read(Reg.EFLAGS) & 0x100
        assert box.space.get_pte(DATA) & (PTE_P | PTE_U | PTE_W) == PTE_P | PTE_U | PTE_W
    assert go(box, unit, regs)[0].reason is StopReason.SYSCALL
    assert not regs.read(Reg.EFLAGS) & 0x100
    assert box.data(0x20) == 6 and regs.read(Reg.RBX) == 5


@pytest.mark.parametrize(
    ("code", "is_hit"),
    [
        ("48894701", True),  # mov [rdi+1], rax: overlaps
        ("488947f8", False),  # mov [rdi-8], rax
        ("48894704", False),  # mov [rdi+4], rax
        ("8807", True),  # mov [rdi], al
        ("a4", True),  # movsb
        ("0f1107", True),  # movups [rdi], xmm0
        ("480fab07", True),  # bts [rdi], rax with rax = 5
        ("ff07", True),
        ("488b07", False),  # a read
        ("488d07", False),  # lea
    ],
)
def test_watched_bytes_are_told_from_the_rest_of_the_page(box: Box, code: str, is_hit: bool) -> None:
    regs = box.load(bytes.fromhex(code) + SYSCALL)
    regs.write(Reg.RDI, WATCHED)
    regs.write(Reg.RSI, DATA + 0x100)
    regs.write(Reg.RAX, 5)
    unit = unit_of(box)
    unit.set_watchpoints([Watchpoint(WATCHED, 4, WatchKind.WRITE)])
    stop, _ = go(box, unit, regs)
    assert stop.reason is (StopReason.DEBUG if is_hit else StopReason.SYSCALL)
    assert not regs.read(Reg.R11) & 0x100 and not regs.read(Reg.EFLAGS) & 0x100


def test_watched_stack_word(box: Box) -> None:
    # push rax; pop rbx; pushf; pop rcx; syscall
    regs = box.load(bytes.fromhex("50 5b 9c 59 0f05"))
    regs.write(Reg.RAX, 77)
    unit = unit_of(box)
    unit.set_watchpoints([Watchpoint(STACK + 0x7F8, 8, WatchKind.WRITE)])
    found = []
    while (stop := go(box, unit, regs)[0]).reason is StopReason.DEBUG:
        found.append(regs.read(Reg.RIP) - CODE)
    assert stop.reason is StopReason.SYSCALL and found == [1, 3]
    assert regs.read(Reg.RBX) == 77 and not regs.read(Reg.RCX) & 0x100


def test_watch_sees_the_first_touch_of_an_absent_page(box: Box) -> None:
    regs = box.load(bytes.fromhex("488907 0f05"))
    place = DATA + 0x3010
    regs.write(Reg.RDI, place)
    regs.write(Reg.RAX, 9)

    def serve(vaddr: int, error_code: int, rip: int) -> bool:
        box.faults.append((vaddr, error_code, rip))
        box.space.map(DATA + 0x3000, RW)
        return True

    box.cpu.on_page_fault = serve
    unit = unit_of(box)
    unit.set_watchpoints([Watchpoint(place, 8, WatchKind.WRITE)])
    assert go(box, unit, regs)[1] == Trap(TrapKind.WATCH, Watchpoint(place, 8, WatchKind.WRITE))
    assert box.faults == [(place, 6, CODE)]


def test_the_kernel_sees_its_own_tables(box: Box) -> None:
    regs = box.load(SYSCALL + bytes.fromhex("488907 0f05"))
    regs.write(Reg.RDI, DATA + 0x100)
    seen: list[int] = []

    def serve(*_args: int) -> int | None:
        seen.append(box.space.get_pte(DATA) & (PTE_P | PTE_U | PTE_W))
        return 1 if len(seen) == 1 else None

    box.cpu.on_syscall = serve
    unit = unit_of(box)
    unit.set_watchpoints([Watchpoint(DATA, 8, WatchKind.ACCESS)])
    assert go(box, unit, regs)[0].reason is StopReason.SYSCALL
    assert seen == [PTE_P | PTE_U | PTE_W] * 2
    assert box.cpu.on_syscall is serve


def test_blocks_are_counted_as_if_nobody_had_looked(box: Box) -> None:
    # the loop with a store in it: mov [rdi], rax; inc eax; dec ecx; jnz
    code = bytes.fromhex("488907 ffc0 ffc9 75f7 0f05")

    def blocks(debug: Callable[[DebugUnit, CpuRegisters], object]) -> int:
        regs = box.registers()
        regs.write(Reg.RCX, 20)
        regs.write(Reg.RDI, DATA)
        unit = unit_of(box)
        before = box.cpu.blocks
        debug(unit, regs)
        unit.set_breakpoints([])
        unit.set_watchpoints([])
        assert go(box, unit, regs)[0].reason is StopReason.SYSCALL
        return box.cpu.blocks - before

    def watch(unit: DebugUnit, regs: CpuRegisters) -> None:
        unit.set_watchpoints([Watchpoint(DATA + 64, 8, WatchKind.WRITE)])
        assert go(box, unit, regs)[0].reason is StopReason.SYSCALL
        regs.write(Reg.RIP, CODE + 9)
        box.cpu._blocks_before -= 1  # the last two bytes are executed once more

    def breaks(unit: DebugUnit, regs: CpuRegisters) -> None:
        for _ in range(5):
            unit.set_breakpoints([CODE + 5])
            assert go(box, unit, regs)[1] == Trap(TrapKind.BREAKPOINT)
            unit.set_breakpoints([])
            steps(box, unit, regs, 1)

    box.load(code)
    undisturbed = blocks(lambda _unit, _regs: None)
    assert undisturbed == 21
    assert blocks(lambda unit, regs: steps(box, unit, regs, 33)) == undisturbed
    assert blocks(breaks) == undisturbed
    assert blocks(watch) == undisturbed


def test_breakpoint_survives_code_that_is_replaced(box: Box) -> None:
    regs = box.load(mov_rax(1) + UD2)
    unit = unit_of(box)
    unit.set_breakpoints([CODE + 10])
    assert go(box, unit, regs)[1] == Trap(TrapKind.BREAKPOINT)
    pfn = box.space.map(CODE, PTE_P | PTE_U, mov_rax(2) + UD2)
    box.cpu.flush_tlb()
    box.cpu.invalidate_code(pfn)
    regs.write(Reg.RIP, CODE)
    assert go(box, unit, regs)[1] == Trap(TrapKind.BREAKPOINT)
    assert regs.read(Reg.RAX) == 2
