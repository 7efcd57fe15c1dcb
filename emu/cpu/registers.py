"""The register file of one task: in the engine while the task is on the processor, in a saved context otherwise.

Both forms have the same layout (a context is a copy of the engine's state), so reading and writing is an access to one
memoryview, ``_q``, which points to the one or the other.  Implements :class:`kernel.hardware.Registers`.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from emu.cpu import unicorn_abi as abi
from emu.cpu.engine import EngineError
from emu.cpu.probe import StateLayout
from kernel.hardware import NR_REGS, Reg

if TYPE_CHECKING:
    from emu.cpu.cpu import Cpu

_U64 = 0xFFFF_FFFF_FFFF_FFFF

# RFLAGS that user code, a signal frame or a debugger may choose: CF PF AF ZF SF TF DF OF AC ID.
_RFLAGS_USER = 0x24_0DD5
_RFLAGS_FIXED = 0x202
"""Bit 1 is always set; IF is, because user code never runs with interrupts off; IOPL is 0."""

_RIP, _RSP, _EFLAGS, _CS, _SS = (int(reg) for reg in (Reg.RIP, Reg.RSP, Reg.EFLAGS, Reg.CS, Reg.SS))
_STOPPED_ONLY = frozenset((_RIP, _RSP, _EFLAGS))
_SELECTORS = frozenset((_CS, _SS))

_ENCODING = "RAX RCX RDX RBX RSP RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15".split()
"""The general registers as they stand at the start of the engine's state."""


def sanitize_rflags(value: int) -> int:
    """What a task's RFLAGS become when somebody asks for ``value``."""
    return value & _RFLAGS_USER | _RFLAGS_FIXED


def register_words(state: StateLayout) -> tuple[int, ...]:
    """For each :class:`Reg`, the index of its 64-bit word in the engine's state."""
    offsets = {name: 8 * number for number, name in enumerate(_ENCODING)} | {
        "RIP": state.rip,
        "EFLAGS": state.rflags,
        "CS": state.cs,
        "SS": state.ss,
        "FS_BASE": state.fs_base,
        "GS_BASE": state.gs_base,
    }
    if any(offset % 8 for offset in offsets.values()):
        raise EngineError(f"a register does not stand on a word of the engine's state: {offsets}")
    return tuple(offsets[reg.name] // 8 for reg in Reg)


class CpuRegisters:
    """Invariant: ``_q`` views the engine's state exactly when ``cpu.live is self``, else the saved context."""

    __slots__ = ("_context", "_cpu", "_q", "_saved", "_words", "address")

    def __init__(self, cpu: Cpu, image: bytes) -> None:
        self._cpu = cpu
        self._context = ctypes.create_string_buffer(image, len(image))
        self.address = ctypes.addressof(self._context)
        """Host address of the saved context."""
        self._saved = memoryview(self._context).cast("B")[cpu.state.header_bytes :].cast("Q")
        self._q = self._saved
        self._words = cpu.register_words

    # The processor's side -----------------------------------------------------------------------------------------

    def attach(self, live_words: memoryview) -> None:
        """The engine now holds these registers."""
        self._q = live_words

    def detach(self) -> None:
        """The saved context now holds them (the caller has saved it)."""
        self._q = self._saved

    # The kernel's side --------------------------------------------------------------------------------------------

    def read(self, reg: Reg) -> int:
        if reg in _SELECTORS:
            return self._q[self._words[reg]] & 0xFFFF
        if reg == _EFLAGS and self._is_running():
            return self._cpu.engine.reg_read(abi.REG_EFLAGS)  # inside a run they are not in one word
        return self._q[self._words[reg]]

    def write(self, reg: Reg, value: int) -> None:
        """Store a register.  Selectors are fixed (flat 64-bit user segments): writing them changes nothing."""
        if reg in _SELECTORS:
            return
        if reg in _STOPPED_ONLY:
            self._must_be_stopped()
            if reg == _EFLAGS:
                value = sanitize_rflags(value)
        self._q[self._words[reg]] = value & _U64

    def read_all(self) -> list[int]:
        q = self._q
        values = [q[word] for word in self._words]
        values[_CS] &= 0xFFFF
        values[_SS] &= 0xFFFF
        if self._is_running():
            values[_EFLAGS] = self._cpu.engine.reg_read(abi.REG_EFLAGS)
        return values

    def write_all(self, values: list[int]) -> None:
        if len(values) != NR_REGS:
            raise ValueError(f"{NR_REGS} registers, not {len(values)}")
        self._must_be_stopped()
        q, words = self._q, self._words
        for reg, value in enumerate(values):
            if reg not in _SELECTORS:
                q[words[reg]] = value & _U64
        q[words[_EFLAGS]] = sanitize_rflags(values[_EFLAGS])

    def fp_state(self) -> bytes:
        self._must_be_stopped()
        engine, codec = self._cpu.engine, self._cpu.fxsave
        codec.clear()
        if self._cpu.live is self:
            engine.lib.uc_reg_read_batch(engine.handle, *codec.batch.args)
        else:
            engine.lib.uc_context_reg_read_batch(self.address, *codec.batch.args)
        return codec.pack()

    def set_fp_state(self, fxsave: bytes) -> None:
        self._must_be_stopped()
        engine, codec = self._cpu.engine, self._cpu.fxsave
        codec.unpack(fxsave)
        if self._cpu.live is self:
            engine.lib.uc_reg_write_batch(engine.handle, *codec.batch.args)
        else:
            engine.lib.uc_context_reg_write_batch(self.address, *codec.batch.args)

    def clone(self) -> CpuRegisters:
        self._must_be_stopped()
        if self._cpu.live is self:
            self._cpu.engine.context_save(self.address)
        return CpuRegisters(self._cpu, self._context.raw)

    def reset(self) -> None:
        self._must_be_stopped()
        ctypes.memmove(self._context, self._cpu.pristine_context, len(self._context))
        if self._cpu.live is self:
            self._cpu.engine.context_restore(self.address)

    def _is_running(self) -> bool:
        return self._cpu.running and self._cpu.live is self

    def _must_be_stopped(self) -> None:
        if self._is_running():
            raise RuntimeError("registers of the running task changed or copied inside a callback")
