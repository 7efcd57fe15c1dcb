"""Two walkers of the same tables: ours and the engine's must agree in everything that can be seen."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emu.cpu import layout
from emu.cpu import unicorn_abi as abi
from emu.cpu.boot import enter_long_mode
from emu.cpu.engine import Engine, IntrCallback
from emu.cpu.probe import RingProbe, find_state, probe_state_layout
from mmu import walker
from mmu.paging import PTE_A, PTE_D, PTE_G, PTE_NX, PTE_P, PTE_PS, PTE_SOFT1, PTE_U, PTE_W
from mmu.physmem import PhysMem

ROOT, LEVEL3, LEVEL2, LEVEL1 = 1, 2, 3, 4
FIRST_DATA_FRAME = 16
NR_FRAMES = 1024
EFER, CR0 = 0xD01, 0x8005_0033
EFER_NXE, CR0_WP = 0x800, 0x1_0000
MAGIC = 0x5AFE_C0DE


@dataclass
class Outcome:
    """What an access did: an exception, or the number that it read, wrote or executed."""

    vector: int
    error_code: int
    address: int
    value: int
    entries: tuple[int, ...]


class Bench:
    """An engine that makes one access at a time, in ring 0 or 3, starting with an empty TLB."""

    def __init__(self) -> None:
        self.ram = PhysMem(NR_FRAMES)
        self.kernel = layout.KernelLayout(self.ram)
        self.engine = Engine(self.ram.address, self.ram.size)
        state_address, _ = find_state(self.engine)
        enter_long_mode(self.engine, self.kernel)
        probe = RingProbe(self.engine, self.kernel, state_address)
        self.ring0 = probe.ring0_context
        self.state = probe_state_layout(probe)
        image = memoryview((ctypes.c_char * self.state.state_bytes).from_address(state_address)).cast("B")
        self.q, self.i = image.cast("Q"), image.cast("i")
        self.kernel.map_window([self.kernel.frames[layout.STUB]])
        self.ram.q[ROOT * 512 + layout.PML4_SLOT] = self.kernel.pml4_entries[layout.PML4_SLOT]
        level1 = self.kernel.frames[layout.LEVEL1] * 512
        for index in range(level1, level1 + 3):
            self.ram.q[index] &= ~PTE_NX  # reserved while NXE is off
        self.stub = self.kernel.frames[layout.STUB] << 12
        for place, code in ((0x80, b"\x8b\x03\xcc"), (0x90, b"\x89\x03\xcc")):
            self.ram.write(self.stub + place, code)  # mov eax, [rbx]; int3 -- mov [rbx], eax; int3
        self.seen: list[tuple[int, int]] = []
        self.engine.add_hook(abi.HOOK_INTR, IntrCallback(self._on_interrupt))

    def _on_interrupt(self, _engine: int, vector: int, _data: int) -> None:
        self.seen.append((vector, self.i[self.state.error_code // 4]))
        self.i[self.state.old_exception // 4] = -1
        self.engine.stop()

    def access(self, vaddr: int, access: int, cpl: int, wp: bool, nxe: bool) -> tuple[int, int, int, int]:
        """(vector, error code, CR2, EAX)."""
        engine = self.engine
        engine.context_restore(ctypes.addressof(self.ring0))
        engine.reg_write(abi.REG_CR0, CR0 if wp else CR0 & ~CR0_WP)
        engine.msr_write(0xC000_0080, EFER if nxe else EFER & ~EFER_NXE)
        engine.reg_write(abi.REG_CR3, ROOT << 12)
        engine.reg_write(abi.REG_RBX, vaddr)
        engine.reg_write(abi.REG_RAX, MAGIC)
        place = {walker.READ: 0x80, walker.WRITE: 0x90}.get(access, 0)
        if cpl == 3:
            rip = vaddr if access == walker.EXECUTE else layout.WINDOW_VADDR + place
            engine.reg_write(abi.REG_RSP, self.kernel.push_user_frame(rip, 0x202, 0))
            start = layout.STUB_VADDR + layout.IRETQ
        else:
            start = vaddr if access == walker.EXECUTE else layout.STUB_VADDR + place
        self.seen.clear()
        engine.start(start)
        vector, error_code = self.seen[0]
        return vector, error_code, self.q[self.state.cr2 // 8], self.q[0] & 0xFFFF_FFFF


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.close()


FLAG_BITS = [PTE_W, PTE_U, PTE_A, PTE_D, PTE_G, PTE_SOFT1, PTE_NX, 1 << 52]
RESERVED_BITS = [1 << 40, 1 << 51]


@st.composite
def flags(draw: st.DrawFn) -> int:
    """The bits of one entry: mostly present and permissive, so that the walk gets on."""
    value = 0 if draw(st.integers(0, 15)) == 0 else PTE_P
    for bit in FLAG_BITS:
        likely = bit in (PTE_W, PTE_U)
        if draw(st.integers(0, 3)) < (3 if likely else 1):
            value |= bit
    if draw(st.integers(0, 15)) == 0:
        value |= draw(st.sampled_from(RESERVED_BITS))
    return value


@st.composite
def translations(draw: st.DrawFn) -> tuple[int, dict[int, int]]:
    """An address, and the words to put into RAM for its path."""
    index4 = draw(st.integers(0, 510))
    index3, index1 = draw(st.integers(0, 511)), draw(st.integers(0, 511))
    index2, offset = draw(st.integers(0, 1)), draw(st.integers(0, 4080))
    vaddr = index4 << 39 | index3 << 30 | index2 << 21 | index1 << 12 | offset
    if index4 >= 256:
        vaddr |= 0xFFFF_0000_0000_0000
    page_size_bit = {level: PTE_PS if draw(st.integers(0, 7)) == 0 else 0 for level in (4, 3, 2)}
    level3 = LEVEL2 << 12
    if page_size_bit[3]:
        level3 = draw(st.sampled_from([0, 0, 1 << 12, 1 << 29]))  # the last is a misplaced address bit
    level2 = LEVEL1 << 12
    if page_size_bit[2]:
        level2 = draw(st.sampled_from([0, 1 << 21, 1 << 12, 1 << 13]))
    level1 = draw(st.integers(FIRST_DATA_FRAME, NR_FRAMES - 32)) << 12
    words = {
        ROOT * 512 + index4: LEVEL3 << 12 | draw(flags()) | page_size_bit[4],
        LEVEL3 * 512 + index3: level3 | draw(flags()) | page_size_bit[3],
        LEVEL2 * 512 + index2: level2 | draw(flags()) | page_size_bit[2],
        LEVEL1 * 512 + index1: level1 | draw(flags()) | (PTE_PS if draw(st.booleans()) else 0),
    }
    return vaddr, words


def our_outcome(ram: PhysMem, vaddr: int, access: int, cpl: int, wp: bool, nxe: bool) -> tuple[int, int, int, int]:
    """(vector, error code, CR2, physical address)."""
    try:
        found = walker.walk(ram, ROOT << 12, vaddr, access, cpl, cr0_wp=wp, nxe=nxe)
    except walker.PageFault as fault:
        return fault.vector, fault.error_code, fault.vaddr, 0
    return 0, 0, 0, found.paddr


@settings(max_examples=max(400, settings().max_examples))
@given(
    translation=translations(),
    access=st.sampled_from([walker.READ, walker.WRITE, walker.EXECUTE]),
    cpl=st.sampled_from([0, 3, 3]),
    wp=st.sampled_from([True, True, True, False]),
    nxe=st.sampled_from([True, True, True, False]),
)
def test_same_frame_fault_error_code_and_marks(
    bench: Bench, translation: tuple[int, dict[int, int]], access: int, cpl: int, wp: bool, nxe: bool
) -> None:
    vaddr, words = translation
    q = bench.ram.q
    for index, word in words.items():
        q[index] = word
    try:
        vector, error_code, cr2, paddr = our_outcome(bench.ram, vaddr, access, cpl, wp, nxe)
        ours = {index: q[index] for index in words}
        if not vector:
            assume(FIRST_DATA_FRAME << 12 <= paddr < (NR_FRAMES - 32) << 12)
            # The same code for the same frame always: the engine would not notice a change from outside.
            expected = paddr >> 4 & 0xFFFF_FFFF if access != walker.WRITE else MAGIC
            bench.ram.write(paddr, b"\xb8" + struct.pack("<I", expected) + b"\xcc")  # mov eax, ...; int3
            if access == walker.READ:
                expected = struct.unpack("<I", bench.ram.read(paddr, 4))[0]
        for index, word in words.items():
            q[index] = word
        got = bench.access(vaddr, access, cpl, wp, nxe)
        if vector:
            assert got[:2] == (vector, error_code)
            if vector == 14:
                assert got[2] == cr2 == vaddr
        else:
            assert got[0] == 3, f"our walk: {paddr:#x}, the engine's: fault {got}"
            if access == walker.WRITE:
                assert bench.ram.read(paddr, 4) == struct.pack("<I", MAGIC)
            else:
                assert got[3] == expected
        assert {index: q[index] for index in words} == ours
    finally:
        for index in words:
            q[index] = 0


@pytest.mark.parametrize("vaddr", [0x0000_8000_0000_0000, 0xFFFF_7FFF_FFFF_F000, 0x1234_5678_0000_0000])
@pytest.mark.parametrize("access", [walker.READ, walker.WRITE, walker.EXECUTE])
def test_non_canonical(bench: Bench, vaddr: int, access: int) -> None:
    assert our_outcome(bench.ram, vaddr, access, 3, True, True)[:2] == (13, 0)
    assert bench.access(vaddr, access, 3, True, True)[:2] == (13, 0)
