"""The record of executed blocks: complete, in order, and without a trace in the run."""

from __future__ import annotations

import itertools

import pytest

from emu.cpu import EngineError, StopReason, Tick
from emu.cpu.insn_watch import BUFFER_BLOCKS, Block, Interruption
from kernel.hardware import Reg
from tests.cpu.harness import CODE, DATA, RW, RWX, SYSCALL, UD2, Box
from tests.cpu.test_tick import BLOCK_STARTS, BLOCKS_PER_ROUND, WORK

Told = list[tuple[list[Block], Interruption | None]]


def watched(box: Box) -> Told:
    told: Told = []
    box.cpu.watch_instructions(lambda blocks, interruption: told.append((blocks, interruption)))
    return told


def starts(told: Told) -> list[int]:
    """Addresses of all blocks, from the start of the code on."""
    blocks = itertools.chain.from_iterable(blocks for blocks, _ in told)
    return [block.address - CODE for block in blocks for _ in range(block.times)]


@pytest.mark.parametrize("quantum", [1, 2, 7, 1 << 40])
def test_every_block_once_whatever_the_quantum(box: Box, quantum: int) -> None:
    regs = box.load(WORK)
    regs.write(Reg.RDI, DATA)
    regs.write(Reg.RCX, 20)
    told = watched(box)
    while box.run(regs, quantum).reason is StopReason.QUANTUM:
        pass
    body = [BLOCK_STARTS[0], BLOCK_STARTS[3], BLOCK_STARTS[1]]
    assert starts(told) == [*body * 20, BLOCK_STARTS[2]]
    assert told[-1][1] == Interruption(CODE + BLOCK_STARTS[2])
    assert box.cpu.blocks == 20 * BLOCKS_PER_ROUND + 1


def test_the_run_is_the_same_run() -> None:
    results = []
    for is_watched in (False, True):
        box = Box()
        regs = box.load(WORK)
        regs.write(Reg.RDI, DATA)
        regs.write(Reg.RCX, 300)
        if is_watched:
            watched(box)
        stops = []
        while box.run(regs, 11).reason is StopReason.QUANTUM:
            stops.append((regs.read(Reg.RIP), box.cpu.blocks))
        results.append((stops, regs.read_all(), [box.data(offset) for offset in (0, 8, 16)]))
        box.cpu.close()
    assert results[0] == results[1]


def test_a_loop_of_one_block_is_one_entry(box: Box) -> None:
    regs = box.load(bytes.fromhex("ffc9 75fc".replace(" ", "")) + UD2)  # dec ecx; jnz
    regs.write(Reg.RCX, 100_000)
    told = watched(box)
    box.run(regs)
    ((blocks, interruption),) = told
    assert blocks == [Block(CODE, 4, 100_000), Block(CODE + 4, 2, 1)]
    assert interruption == Interruption(CODE + 4)


def test_a_full_buffer_is_emptied_on_the_way(box: Box) -> None:
    regs = box.load(bytes.fromhex("eb00 ffc9 75fa".replace(" ", "")) + UD2)  # jmp; dec ecx; jnz: two blocks a round
    nr_rounds = BUFFER_BLOCKS  # so that it is filled twice
    regs.write(Reg.RCX, nr_rounds)
    told = watched(box)
    box.run(regs, 1 << 40)
    assert len(told) == 3 and [interruption for _, interruption in told[:2]] == [None, None]
    assert starts(told) == [0, 2] * nr_rounds + [6]


def test_told_before_the_kernel_serves(box: Box) -> None:
    page = 0x70_0000
    code = bytes.fromhex("90 8b0425 00007000 90 0f05".replace(" ", ""))  # nop; mov eax, [page]; nop; syscall
    regs = box.load(code)
    log: list[object] = []

    def serve(vaddr: int, error_code: int, rip: int) -> bool:
        log.append("fault")
        box.space.map(page, RW)
        return True

    box.cpu.on_page_fault = serve
    box.cpu.on_syscall = lambda *args: log.append("call")  # type: ignore[func-returns-value]
    box.cpu.watch_instructions(lambda blocks, interruption: log.append((blocks, interruption)))
    box.run(regs)
    assert log == [
        ([Block(CODE, len(code), 1)], Interruption(CODE + 1)),
        "fault",
        ([Block(CODE + 1, len(code) - 1, 1)], None),
        "call",
    ]


def test_rounds_of_a_repeated_instruction(box: Box) -> None:
    regs = box.load(bytes.fromhex("90 b905000000 f3a4 90 f3a4".replace(" ", "")) + UD2)
    regs.write(Reg.RSI, DATA)
    regs.write(Reg.RDI, DATA + 100)
    told = watched(box)
    box.run(regs)
    assert told[0][0] == [Block(CODE, 8, 1), Block(CODE + 6, 2, 5), Block(CODE + 8, 3, 1), Block(CODE + 11, 2, 1)]


def test_a_block_that_changes_itself_begins_anew(box: Box) -> None:
    # nop; mov byte [rip + 1], 2; mov eax, 1 (which becomes mov eax, 2); nop; ud2
    regs = box.load(bytes.fromhex("90 c6050100000002 b801000000 90".replace(" ", "")) + UD2, RWX)
    told = watched(box)
    box.run(regs)
    assert regs.read(Reg.RAX) == 2
    assert starts(told) == [0, 1, 8]


def test_nothing_is_told_after_the_end(box: Box) -> None:
    regs = box.load(SYSCALL + SYSCALL + UD2)
    told = watched(box)
    box.run(regs)
    assert box.cpu.insns is not None
    box.cpu.insns.close()
    nr_told = len(told)
    box.run(regs)
    assert (len(told), nr_told, len(box.syscalls), box.cpu.insns) == (1, 1, 2, None)


def test_errors_of_the_listener_come_out(box: Box) -> None:
    def refuse(_blocks: list[Block], _interruption: Interruption | None) -> None:
        raise ValueError("no")

    box.cpu.watch_instructions(refuse)
    with pytest.raises(ValueError, match="no"):
        box.run(box.load(SYSCALL))


def test_a_host_without_executable_memory_cannot() -> None:
    box = Box(tick=Tick.KERNEL_ENTRIES)
    with pytest.raises(EngineError, match="executable memory"):
        watched(box)
    box.cpu.close()
