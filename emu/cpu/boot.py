"""From a fresh engine to a processor in ring 3 with paging on: what firmware and a kernel's head do.

Models ``arch/x86/kernel/head_64.S`` and ``cpu_init()``: descriptor tables, CR4, EFER, CR3, CR0; then the probes, which
end in ring 3 by a real ``iretq`` (writing CS through the engine's interface would not change the privilege level).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from emu.cpu import layout
from emu.cpu import unicorn_abi as abi
from emu.cpu.engine import Engine, EngineError
from emu.cpu.fxsave import INITIAL_FXSAVE, FxsaveCodec
from emu.cpu.probe import RingProbe, StateLayout, find_state, probe_state_layout
from emu.cpu.quirks import PageFlush, Sse42, TlbGauge, find_page_flush, find_tlb_gauge, hide_features

_CR0 = 0x8005_0033  # PG AM WP NE ET MP PE, as Linux sets it
_CR4 = 0x0001_0620  # PAE OSFXSR OSXMMEXCPT FSGSBASE; no OSXSAVE: there is no AVX
_EFER_MSR = 0xC000_0080
_EFER = 0xD01  # SCE LME LMA NXE


@dataclass(frozen=True)
class Booted:
    """An engine in ring 3, and where its parts are."""

    state: StateLayout
    state_address: int
    """Host address of the engine's state; see ``StateLayout`` for what stands where."""
    processor_address: int
    live_bytes: memoryview
    """The engine's state as bytes, 64-bit words and 32-bit ints."""
    live_words: memoryview
    live_ints: memoryview
    pristine_context: bytes
    """A saved context of a program before its first instruction: ring 3, all registers zero."""
    tlb: TlbGauge | None
    flush_page: PageFlush | None


def enter_long_mode(engine: Engine, kernel: layout.KernelLayout) -> None:
    """Switch paging on with the boot table; the engine stays in ring 0."""
    engine.reg_write_segment(abi.REG_GDTR, 0, layout.TABLES_VADDR, layout.GDT_LIMIT, 0)
    engine.reg_write_segment(
        abi.REG_TR,
        layout.TSS_SELECTOR,
        layout.TABLES_VADDR + layout.TSS_OFFSET,
        layout.TSS_LIMIT,
        layout.TSS_FLAGS,
    )
    engine.reg_write(abi.REG_CR4, _CR4)
    engine.msr_write(_EFER_MSR, _EFER)
    engine.reg_write(abi.REG_CR3, kernel.boot_cr3)
    engine.reg_write(abi.REG_CR0, _CR0)
    if engine.reg_read(abi.REG_CR3) != kernel.boot_cr3:
        raise EngineError(f"CR3 cannot hold {kernel.boot_cr3:#x}: RAM is too large for this engine")


def boot(engine: Engine, kernel: layout.KernelLayout, fxsave: FxsaveCodec, sse42: Sse42) -> Booted:
    """Start the processor.  Hooks on blocks must have been added before."""
    state_address, processor_address = find_state(engine)
    enter_long_mode(engine, kernel)
    probe = RingProbe(engine, kernel, state_address)
    state = probe_state_layout(probe)
    hide_features(probe, state, sse42)
    tlb = find_tlb_gauge(probe)
    flush_page = find_page_flush(probe, tlb, processor_address)
    live_bytes = memoryview((ctypes.c_char * state.state_bytes).from_address(state_address)).cast("B")
    words, ints = live_bytes.cast("Q"), live_bytes.cast("i")
    for offset in (*range(0, 128, 8), state.rip, state.fs_base, state.gs_base):
        words[offset // 8] = 0
    words[state.rflags // 8] = 0x202
    ints[state.old_exception // 4] = -1
    fxsave.unpack(INITIAL_FXSAVE)
    engine.lib.uc_reg_write_batch(engine.handle, *fxsave.batch.args)
    context = ctypes.create_string_buffer(engine.empty_context(), engine.context_bytes)
    engine.context_save(ctypes.addressof(context))
    return Booted(
        state=state,
        state_address=state_address,
        processor_address=processor_address,
        live_bytes=live_bytes,
        live_words=words,
        live_ints=ints,
        pristine_context=context.raw,
        tlb=tlb,
        flush_page=flush_page,
    )
