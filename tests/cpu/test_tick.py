"""The tick: exact, repeatable, and without a trace in what the program computes."""

from __future__ import annotations

import pytest

from emu.cpu import FastMemory, StopReason, Tick
from kernel.hardware import Reg
from tests.cpu.harness import CODE, DATA, RW, SYSCALL, UD2, Box

# A loop of three blocks with read-modify-write instructions, flags across block ends, and a call:
#   again: lock xadd [rdi], rax; add [rdi+8], rcx; adc rbx, rax; call f; sub ecx, 1; jnz again; ud2
#   f:     xor [rdi+16], rbx; rcl rbx, 1; ret
WORK = bytes.fromhex("f0480fc107 48014f08 4811c3 e8 07000000 83e901 75ea 0f0b 48315f10 48d1d3 c3".replace(" ", ""))
ROUNDS = 500
BLOCK_STARTS = (0, 17, 22, 24)
BLOCKS_PER_ROUND = 3


def work(quantum: int, **options: object) -> tuple[list[int], list[int], list[tuple[int, int]], int]:
    """Registers, data, (RIP, blocks) at every stop, blocks in all."""
    box = Box(**options)
    regs = box.load(WORK)
    regs.write(Reg.RDI, DATA)
    regs.write(Reg.RCX, ROUNDS)
    regs.write(Reg.RAX, 0x123456789)
    stops = []
    while (stop := box.run(regs, quantum)).reason is StopReason.QUANTUM:
        stops.append((regs.read(Reg.RIP) - CODE, box.cpu.blocks))
    assert stop.vector == 6
    result = regs.read_all(), [box.data(offset) for offset in (0, 8, 16)], stops, box.cpu.blocks
    box.cpu.close()
    return result


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[int], list[int], list[tuple[int, int]], int]:
    return work(1 << 40)


@pytest.mark.parametrize("quantum", [1, 2, 3, 7, 100, 1499, 1500, 1501])
@pytest.mark.parametrize("fast_memory", FastMemory)
def test_any_quantum_gives_the_same_result(
    undisturbed: tuple[list[int], list[int], list[tuple[int, int]], int], quantum: int, fast_memory: FastMemory
) -> None:
    registers, data, stops, blocks = work(quantum, fast_memory=fast_memory)
    assert (registers, data, blocks) == (undisturbed[0], undisturbed[1], undisturbed[3])
    assert [count for _, count in stops] == list(range(quantum, blocks, quantum))
    assert {rip for rip, _ in stops} <= set(BLOCK_STARTS)


def test_blocks_are_counted_exactly(undisturbed: tuple[list[int], list[int], list[tuple[int, int]], int]) -> None:
    assert undisturbed[3] == BLOCKS_PER_ROUND * ROUNDS + 1  # the last block is the ud2


def test_stops_are_at_the_same_places_run_after_run() -> None:
    assert work(11) == work(11)


def test_slices_of_a_quantum_are_not_seen() -> None:
    """A quantum longer than a slice is run in several pieces."""
    box = Box()
    regs = box.load(b"\xff\xc9\x75\xfc" + UD2)  # again: dec ecx; jnz again
    regs.write(Reg.RCX, 1_000_000)
    assert box.run(regs, 777_777).reason is StopReason.QUANTUM
    assert box.cpu.blocks == 777_777
    assert regs.read(Reg.RCX) == 1_000_000 - 777_777
    assert box.run(regs, 1 << 40).vector == 6
    assert box.cpu.blocks == 1_000_001
    box.cpu.close()


def test_blocks_is_exact_inside_callbacks() -> None:
    box = Box()
    # again: syscall; dec ebx; jnz again
    regs = box.load(SYSCALL + b"\xff\xcb\x75\xfa" + UD2)
    regs.write(Reg.RBX, 5)
    seen = []

    def handler(*_args: int) -> int:
        seen.append(box.cpu.blocks)
        return 0

    box.cpu.on_syscall = handler
    box.run(regs)
    assert seen == [1, 3, 5, 7, 9]
    assert box.cpu.blocks == 11
    box.cpu.close()


@pytest.mark.parametrize("disturb", ["stop", "flush", "code"])
def test_stops_and_queued_work_do_not_change_the_count(disturb: str) -> None:
    """The count is the clock: it may not depend on how often the engine was left and entered."""

    def blocks(disturbed: bool) -> tuple[int, int, list[int]]:
        box = Box()
        # again: syscall; inc qword [rdi]; add rdi, 4096; dec ebx; jnz again
        regs = box.load(SYSCALL + b"\x48\xff\x07\x48\x81\xc7\x00\x10\x00\x00\xff\xcb\x75\xf0" + UD2)
        regs.write(Reg.RBX, 40)
        regs.write(Reg.RDI, 0x70_0000_0000)
        at_calls = []

        def poke() -> None:
            if not disturbed:
                return
            if disturb == "stop":
                box.cpu.request_stop()
            elif disturb == "flush":
                box.cpu.flush_tlb()
            else:
                box.cpu.invalidate_code(box.space.get_pte(CODE) >> 12 & 0xFFFF)

        def on_syscall(*_args: int) -> int:
            at_calls.append(box.cpu.blocks)
            poke()
            return 0

        def on_page_fault(vaddr: int, _error_code: int, _rip: int) -> bool:
            at_calls.append(box.cpu.blocks)
            box.space.map(vaddr, RW)
            poke()
            return True

        box.cpu.on_syscall, box.cpu.on_page_fault = on_syscall, on_page_fault
        while (stop := box.run(regs)).reason is StopReason.REQUESTED:
            pass
        assert stop.vector == 6
        result = box.cpu.blocks, regs.read(Reg.RDI), at_calls
        box.cpu.close()
        return result

    assert blocks(True) == blocks(False)


def test_time_stamp_counter_follows_the_blocks() -> None:
    box = Box()
    # rdtsc; mov rsi, rax; rdtsc; mov rdi, rax; rdtscp; syscall
    regs = box.load(bytes.fromhex("0f31 4889c6 0f31 4889c7 0f01f9".replace(" ", "")) + SYSCALL)
    regs.write(Reg.RCX, 99)

    def tsc() -> tuple[int, int, int]:
        regs.write(Reg.RIP, CODE)
        box.run(regs)
        return regs.read(Reg.RSI), regs.read(Reg.RDI), regs.read(Reg.RDX) << 32 | regs.read(Reg.RAX)

    first = tsc()
    assert first[0] < first[1] < first[2]
    assert tsc()[0] > first[2]
    box.cpu.on_rdtsc = lambda: 0x1122334455667788
    assert tsc() == (0x55667788, 0x55667788, 0x1122334455667788)
    box.cpu.close()


def test_rdtscp_names_processor_0() -> None:
    box = Box()
    regs = box.load(b"\x0f\x01\xf9" + UD2)
    regs.write(Reg.RCX, 99)
    box.run(regs)
    assert regs.read(Reg.RCX) == 0
    box.cpu.close()


def test_without_executable_memory_kernel_entries_are_counted() -> None:
    box = Box(tick=Tick.KERNEL_ENTRIES)
    assert box.cpu.tick is Tick.KERNEL_ENTRIES
    regs = box.load(b"\x31\xc0" + SYSCALL + b"\xeb\xfa")  # for ever
    box.cpu.on_syscall = lambda *_args: 0
    stop = box.run(regs, 10_000)
    assert stop.reason is StopReason.QUANTUM
    assert regs.read(Reg.RIP) == CODE + 4
    assert regs.read(Reg.R11) == 0x246
    assert regs.read(Reg.RCX) == CODE + 4
    assert box.cpu.blocks == 10_000
    box.cpu.close()


def test_a_quantum_of_nothing_is_a_quantum_of_one() -> None:
    box = Box()
    regs = box.load(b"\xeb\xfe")
    assert box.run(regs, 0).reason is StopReason.QUANTUM
    assert box.cpu.blocks == 1
    box.cpu.close()


def test_data_survives_a_stop_at_every_block() -> None:
    box = Box()
    # again: add [rdi], rcx; dec rcx; jnz again
    regs = box.load(b"\x48\x01\x0f\x48\xff\xc9\x75\xf8" + UD2)
    regs.write(Reg.RDI, DATA)
    regs.write(Reg.RCX, 1000)
    while box.run(regs, 1).reason is StopReason.QUANTUM:
        pass
    assert box.data() == 1000 * 1001 // 2
    box.cpu.close()
