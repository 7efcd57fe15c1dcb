"""Stale translations, of data and of code: what needs asking, and that asking helps, at any moment."""

from __future__ import annotations

import pytest

from emu.cpu import FastMemory, StopReason
from kernel.hardware import Reg
from mmu.paging import PF_PROT, PF_USER, PF_WRITE, PTE_A, PTE_D, PTE_W
from tests.cpu.harness import CODE, DATA, RO, RW, RX, SYSCALL, UD2, Box

READ_LOOP = b"\x48\x8b\x07" + SYSCALL + b"\xeb\xf9"  # again: mov rax, [rdi]; syscall; jmp again
WRITE_LOOP = b"\x48\x89\x07" + SYSCALL + b"\xeb\xf9"


def two_frames(box: Box) -> tuple[int, int]:
    first, second = box.alloc(), box.alloc()
    box.ram.q[first * 512], box.ram.q[second * 512] = 111, 222
    return first, second


@pytest.mark.parametrize("flush", ["none", "all", "page"])
@pytest.mark.parametrize("inside", [False, True])
def test_another_frame_is_seen_after_a_flush_only(box: Box, flush: str, inside: bool) -> None:
    regs = box.load(READ_LOOP)
    regs.write(Reg.RDI, DATA)
    first, second = two_frames(box)
    box.space.set_pte(DATA, first << 12 | RW)
    box.run(regs)

    def change() -> None:
        box.space.set_pte(DATA, second << 12 | RW)
        if flush == "all":
            box.cpu.flush_tlb()
        elif flush == "page":
            box.cpu.flush_tlb_page(DATA + 123)

    if inside:
        calls: list[int] = []

        def handler(*args: int) -> int | None:
            calls.append(args[0])
            if len(calls) == 1:
                change()
                return 0
            return None

        box.cpu.on_syscall = handler
        box.run(regs)
        assert calls == [111, 111 if flush == "none" else 222]
    else:
        change()
        box.run(regs)
        assert regs.read(Reg.RAX) == (111 if flush == "none" else 222)


def test_more_permission_and_presence_need_no_flush(box: Box) -> None:
    regs = box.load(WRITE_LOOP)
    regs.write(Reg.RDI, DATA)
    box.space.set_pte(DATA, 0)
    seen = []

    def handler(vaddr: int, error_code: int, _rip: int) -> bool:
        seen.append(error_code)
        if not box.space.get_pte(DATA):
            box.space.map(vaddr, RO)
        else:
            box.space.set_pte(vaddr, box.space.get_pte(DATA) | PTE_W)
        return True

    box.cpu.on_page_fault = handler
    assert box.run(regs).reason is StopReason.SYSCALL
    assert seen == [PF_USER | PF_WRITE, PF_USER | PF_WRITE | PF_PROT]
    assert box.space.get_pte(DATA) & (PTE_A | PTE_D) == PTE_A | PTE_D


def test_write_protection_needs_a_flush_and_then_faults(box: Box) -> None:
    regs = box.load(WRITE_LOOP)
    regs.write(Reg.RDI, DATA)
    box.run(regs)
    box.space.set_pte(DATA, box.space.get_pte(DATA) & ~PTE_W)
    box.cpu.flush_tlb_page(DATA)
    stop = box.run(regs)
    assert (stop.reason, stop.error_code) == (StopReason.PAGE_FAULT, PF_USER | PF_WRITE | PF_PROT)


def test_accessed_and_dirty_bits_come_back_after_clearing_and_a_flush(box: Box) -> None:
    regs = box.load(WRITE_LOOP)
    regs.write(Reg.RDI, DATA)
    box.run(regs)
    pte = box.space.get_pte(DATA)
    assert pte & PTE_A and pte & PTE_D
    box.space.set_pte(DATA, pte & ~(PTE_A | PTE_D))
    box.cpu.flush_tlb()
    assert not box.space.get_pte(DATA) & (PTE_A | PTE_D)
    box.run(regs)
    assert box.space.get_pte(DATA) == pte


def test_copy_on_write_in_a_fault_handler(box: Box) -> None:
    regs = box.load(b"\x48\x8b\x07\x48\xff\x07\x48\x8b\x1f" + SYSCALL)  # mov rax,[rdi]; inc qword [rdi]; mov rbx,[rdi]
    regs.write(Reg.RDI, DATA)
    shared, private = two_frames(box)
    box.space.set_pte(DATA, shared << 12 | RO)

    def handler(_vaddr: int, _error_code: int, _rip: int) -> bool:
        box.ram.copy_frame(private, shared)
        box.space.set_pte(DATA, private << 12 | RW)
        box.cpu.flush_tlb_page(DATA)
        return True

    box.cpu.on_page_fault = handler
    box.run(regs)
    assert (regs.read(Reg.RAX), regs.read(Reg.RBX)) == (111, 112)
    assert (box.ram.q[shared * 512], box.ram.q[private * 512]) == (111, 112)


# Code -----------------------------------------------------------------------------------------------------------------


def returns(value: int) -> bytes:
    """mov eax, value; ret"""
    return b"\xb8" + value.to_bytes(4, "little") + b"\xc3"


CALL_LOOP = b"\xff\xd7" + SYSCALL + b"\xeb\xfa"  # again: call rdi; syscall; jmp again
FUNCTION = 0x50_0000


@pytest.mark.parametrize("fast_memory", FastMemory)
@pytest.mark.parametrize("ask", [False, True])
def test_a_frame_of_code_that_is_used_again(ask: bool, fast_memory: FastMemory) -> None:
    box = Box(fast_memory=fast_memory)
    regs = box.load(CALL_LOOP)
    regs.write(Reg.RDI, FUNCTION)
    pfn = box.space.map(FUNCTION, RX, returns(1))
    box.run(regs)
    assert regs.read(Reg.RAX) == 1
    box.ram.write(pfn << 12, returns(2))
    box.cpu.flush_tlb()
    if ask:
        box.cpu.invalidate_code(pfn)
    box.run(regs)
    assert regs.read(Reg.RAX) == (2 if ask else 1)
    box.cpu.close()


@pytest.mark.parametrize("moment", ["outside", "syscall", "fault"])
def test_code_may_be_invalidated_at_any_moment(box: Box, moment: str) -> None:
    # again: call rdi; mov rdx, [rsi]; syscall; call rdi; jmp again
    regs = box.load(b"\xff\xd7\x48\x8b\x16" + SYSCALL + b"\xff\xd7\xeb\xf5")
    regs.write(Reg.RDI, FUNCTION)
    regs.write(Reg.RSI, DATA + 0x1000)
    pfn = box.space.map(FUNCTION, RX, returns(1))
    seen: list[int] = []

    def change() -> None:
        box.ram.write(pfn << 12, returns(2))
        box.cpu.invalidate_code(pfn)

    def on_page_fault(vaddr: int, _error_code: int, _rip: int) -> bool:
        box.space.map(vaddr, RW)
        if moment == "fault":
            change()
        return True

    def on_syscall(*args: int) -> int | None:
        seen.append(args[0])
        if moment == "syscall" and len(seen) == 1:
            change()
        return None if len(seen) == 2 else 0

    box.cpu.on_page_fault, box.cpu.on_syscall = on_page_fault, on_syscall
    if moment == "outside":
        box.space.map(DATA + 0x1000, RW)
        box.cpu.on_syscall = lambda *_args: None
        box.run(regs)
        change()
        box.cpu.on_syscall = on_syscall
    box.run(regs)
    assert seen[-1] == 2
    assert regs.read(Reg.RIP) == CODE + 7


def test_the_page_that_runs_may_itself_be_invalidated(box: Box) -> None:
    regs = box.load(SYSCALL + returns(1)[:5] + UD2)
    pfn = box.space.get_pte(CODE) >> 12 & 0xFFFF

    def handler(*_args: int) -> int:
        box.ram.write((pfn << 12) + 2, returns(2)[:5])
        box.cpu.invalidate_code(pfn)
        return 0

    for _ in range(2):
        box.ram.write((pfn << 12) + 2, returns(1)[:5])
        box.cpu.invalidate_code(pfn)
        regs.write(Reg.RIP, CODE)
        box.cpu.on_syscall = handler
        assert box.run(regs).vector == 6
        assert regs.read(Reg.RAX) == 2


def test_many_frames_at_once(box: Box) -> None:
    """More than the window holds, with repetitions."""
    regs = box.load(CALL_LOOP)
    pages = [FUNCTION + 0x1000 * number for number in range(8)]
    frames = [box.space.map(page, RX, returns(number)) for number, page in enumerate(pages)]
    for page in pages:
        regs.write(Reg.RDI, page)
        box.run(regs)
    for number, pfn in enumerate(frames):
        box.ram.write(pfn << 12, returns(100 + number))
    for pfn in [*frames[:4], *range(300, 900), *frames, *frames[:2]]:
        box.cpu.invalidate_code(pfn)
    results = []
    for page in pages:
        regs.write(Reg.RDI, page)
        box.run(regs)
        results.append(regs.read(Reg.RAX))
    assert results == [100 + number for number in range(8)]


def test_the_window_is_closed_while_the_program_runs(box: Box) -> None:
    from emu.cpu.layout import WINDOW_VADDR

    regs = box.load(b"\x8b\x07" + UD2)
    box.cpu.invalidate_code(3)
    regs.write(Reg.RDI, WINDOW_VADDR)
    stop = box.run(regs)
    assert (stop.reason, stop.error_code, stop.vaddr) == (StopReason.PAGE_FAULT, PF_USER, WINDOW_VADDR)


def test_an_alias_in_another_place_runs_the_same_frame(box: Box) -> None:
    regs = box.load(CALL_LOOP)
    pfn = box.space.map(FUNCTION, RX, returns(1))
    alias = FUNCTION + 0x10_0000
    box.space.set_pte(alias, pfn << 12 | RX)
    for vaddr in (FUNCTION, alias):
        regs.write(Reg.RDI, vaddr)
        box.run(regs)
    box.ram.write(pfn << 12, returns(2))
    box.cpu.invalidate_code(pfn)
    for vaddr in (alias, FUNCTION):
        regs.write(Reg.RDI, vaddr)
        box.run(regs)
        assert regs.read(Reg.RAX) == 2


def test_the_tlb_grows_for_a_large_working_set() -> None:
    box = Box(3000)
    # again: mov rax, [rdi]; add rdi, 4096; cmp rdi, rsi; jb again; mov rdi, rbx; jmp again
    regs = box.load(bytes.fromhex("488b07 4881c700100000 4839f7 72f1 4889df ebec".replace(" ", "")))
    base = 0x70_0000_0000
    for number in range(1500):
        box.space.set_pte(base + 4096 * number, (1000 + number) << 12 | RW)
    for reg, value in ((Reg.RDI, base), (Reg.RBX, base), (Reg.RSI, base + 1500 * 4096)):
        regs.write(reg, value)
    tlb = box.cpu._tlb
    assert tlb is not None
    assert tlb.nr_entries == 512  # after the probes
    box.run(regs, 400_000)
    assert tlb.nr_entries >= 2048
    box.cpu.close()
