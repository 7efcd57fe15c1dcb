"""Several register files and address spaces on one processor."""

from __future__ import annotations

import struct

import pytest

from emu.cpu import Cpu, StopReason
from emu.cpu.registers import CpuRegisters
from kernel.hardware import Reg
from mmu.physmem import PhysMem
from tests.cpu.harness import CODE, DATA, RW, RX, STACK, SYSCALL, UD2, Box, Space


class Task:
    """Its own address space, with its own code at the same addresses as everybody's."""

    def __init__(self, box: Box, code: bytes) -> None:
        self.box = box
        self.space = Space(box)
        self.space.map(CODE, RX, code)
        self.frame = self.space.map(DATA, RW)
        self.space.map(STACK, RW)
        self.regs: CpuRegisters = box.registers()
        self.regs.write(Reg.RDI, DATA)

    def run(self, nr_blocks: int) -> StopReason:
        return self.box.cpu.run(self.regs, self.space.cr3, nr_blocks).reason

    @property
    def result(self) -> tuple[list[int], bytes]:
        return self.regs.read_all(), bytes(self.box.ram.frame(self.frame)[:64])


# again: add [rdi], rcx; adc rbx, rcx; cvtsi2sd xmm0, rcx; addsd xmm1, xmm0; fild word [rdi]; faddp; dec ecx; jnz
SUM = bytes.fromhex("48010f 4811cb f2480f2ac1 f20f58c8 df07 dec1 ffc9 75ea 0f0b".replace(" ", ""))
# again: xor [rdi+8], rcx; rcl rbx, 1; mulsd xmm1, xmm0; movq [rdi+16], xmm1; dec ecx; jnz
MIX = bytes.fromhex("48314f08 48d1d3 f20f59c8 660fd64f10 ffc9 75ec 0f0b".replace(" ", ""))


def prepare(box: Box) -> list[Task]:
    tasks = [Task(box, SUM), Task(box, MIX)]
    for task in tasks:
        task.regs.write(Reg.RCX, 300)
        task.regs.write(Reg.RBX, 0x8000_0000_0000_0001)
    image = bytearray(tasks[1].regs.fp_state())
    image[160:168] = struct.pack("<d", 1.0001)
    image[176:184] = struct.pack("<d", 3.0)
    tasks[1].regs.set_fp_state(bytes(image))
    return tasks


@pytest.mark.parametrize("quantum", [1, 2, 17])
def test_switching_changes_nothing(quantum: int) -> None:
    alone, together = Box(), Box()
    expected = []
    for task in prepare(alone):
        assert task.run(1 << 40) is StopReason.EXCEPTION
        expected.append((task.result, task.regs.fp_state()))
    tasks = prepare(together)
    waiting = list(tasks)
    nr_switches = 0
    while waiting:
        task = waiting.pop(0)
        if task.run(quantum) is StopReason.QUANTUM:
            waiting.append(task)
        nr_switches += 1
    assert nr_switches > 30
    assert [(task.result, task.regs.fp_state()) for task in tasks] == expected
    alone.cpu.close()
    together.cpu.close()


def test_same_addresses_hold_different_memory(box: Box) -> None:
    store = [b"\x48\xc7\x07" + struct.pack("<I", value) + SYSCALL + b"\xeb\xf5" for value in (1, 2)]
    first, second = (Task(box, code) for code in store)
    for _ in range(3):
        for task, value in ((first, 1), (second, 2)):
            box.ram.q[task.frame * 512] = 0
            assert task.run(100) is StopReason.SYSCALL
            assert box.ram.q[task.frame * 512] == value


def test_threads_share_an_address_space_without_a_flush(box: Box) -> None:
    """Same root table: the TLB stays valid over the switch, and stays stale where nobody asked for a flush."""
    regs = box.load(b"\x48\x8b\x07" + SYSCALL + b"\xeb\xf9")  # again: mov rax, [rdi]; syscall; jmp again
    other = regs.clone()
    for thread in (regs, other):
        thread.write(Reg.RDI, DATA)
    frames = [box.alloc(), box.alloc()]
    box.ram.q[frames[0] * 512], box.ram.q[frames[1] * 512] = 111, 222
    box.space.set_pte(DATA, frames[0] << 12 | RW)
    box.run(regs)
    box.space.set_pte(DATA, frames[1] << 12 | RW)
    box.run(other)
    assert other.read(Reg.RAX) == 111, "the switch flushed for nothing"
    box.cpu.flush_tlb()
    box.run(regs)
    assert regs.read(Reg.RAX) == 222


def test_registers_of_a_task_that_does_not_run_can_be_read_and_written(box: Box) -> None:
    regs = box.load(SYSCALL + UD2)
    other = box.registers()
    regs.write(Reg.RAX, 77)
    box.run(regs)
    box.run(other)
    assert regs.read(Reg.RAX) == 77
    assert regs.read(Reg.RIP) == CODE + 2
    regs.write(Reg.RAX, 78)
    regs.write(Reg.RIP, CODE)
    box.run(regs)
    assert box.syscalls[-1][0] == 78


def test_many_tasks(box: Box) -> None:
    regs = box.load(b"\x48\x01\xd8" + SYSCALL + b"\xeb\xf9")  # again: add rax, rbx; syscall; jmp again
    tasks = []
    for number in range(50):
        task = regs.clone()
        task.write(Reg.RBX, number)
        tasks.append(task)
    for _ in range(3):
        for task in tasks:
            assert box.run(task).reason is StopReason.SYSCALL
    assert [task.read(Reg.RAX) for task in tasks] == [3 * number for number in range(50)]


def test_registers_of_another_processor_are_refused(box: Box) -> None:
    from kernel.hardware import PlainRegisters

    with pytest.raises(TypeError):
        box.cpu.run(PlainRegisters(), box.space.cr3, 1)


def test_two_processors_do_not_disturb_each_other() -> None:
    boxes = [Box(), Box()]
    loaded = [box.load(b"\x48\x83\xc0" + bytes([step]) + SYSCALL + b"\xeb\xf8") for step, box in enumerate(boxes, 1)]
    for _ in range(5):
        for box, regs in zip(boxes, loaded, strict=True):
            box.run(regs)
    assert [regs.read(Reg.RAX) for regs in loaded] == [5, 10]
    for box in boxes:
        box.cpu.close()


def test_reserved_frames_are_at_the_top_of_ram() -> None:
    ram = PhysMem(256)
    cpu = Cpu(ram)
    assert cpu.reserved_frames.stop == 256
    assert list(cpu.kernel_pml4_entries) == [511]
    assert not any(ram.mem[: cpu.reserved_frames.start * 4096])
    cpu.close()


def test_too_little_ram_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        Cpu(PhysMem(8))
