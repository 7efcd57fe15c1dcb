"""The register file of one task: in the engine while the task is on the processor, in a saved context otherwise.

Both forms have the same layout (a context is a copy of the engine's state), so reading and writing is an access to one
memoryview, ``_q``, which points to the one or the other.  Implements :class:`kernel.hardware.Registers`.

The floating-point state goes through the engine's API, because writing the control words also sets derived state.
Models ``struct fxregs_state`` (arch/x86/include/asm/fpu/types.h).  Deliberate difference: the opcode and the pointers of
the last x87 instruction are read but not restored; the engine's own ``fxrstor`` drops them, too.
"""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING

from emu.cpu import layout
from emu.cpu import unicorn_abi as abi
from emu.cpu.engine import EngineError, RegisterBatch
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

# Position of each general register in the engine's state: the machine's encoding order.
_ENCODING = {
    Reg.RAX: 0,
    Reg.RCX: 1,
    Reg.RDX: 2,
    Reg.RBX: 3,
    Reg.RSP: 4,
    Reg.RBP: 5,
    Reg.RSI: 6,
    Reg.RDI: 7,
    Reg.R8: 8,
    Reg.R9: 9,
    Reg.R10: 10,
    Reg.R11: 11,
    Reg.R12: 12,
    Reg.R13: 13,
    Reg.R14: 14,
    Reg.R15: 15,
}


def sanitize_rflags(value: int) -> int:
    """What a task's RFLAGS become when somebody asks for ``value``."""
    return value & _RFLAGS_USER | _RFLAGS_FIXED


def register_words(rip: int, rflags: int, cs: int, ss: int, fs_base: int, gs_base: int) -> tuple[int, ...]:
    """For each :class:`Reg`, the index of its 64-bit word, from the byte offsets of those that are not general registers."""
    offsets = {Reg.RIP: rip, Reg.EFLAGS: rflags, Reg.CS: cs, Reg.SS: ss, Reg.FS_BASE: fs_base, Reg.GS_BASE: gs_base}
    words = []
    for reg in Reg:
        offset = offsets.get(reg)
        if offset is not None and offset % 8:
            raise EngineError(f"{reg.name} does not stand on a word of the engine's state")
        words.append(_ENCODING[reg] if offset is None else offset // 8)
    return tuple(words)


# The fxsave image -----------------------------------------------------------------------------------------------

_FX_BATCH_IDS = (
    abi.REG_FPSW,  # first: the ST registers are relative to its TOP field
    abi.REG_FPCW,
    abi.REG_FPTAG,
    abi.REG_MXCSR,
    abi.REG_FOP,
    abi.REG_FIP,
    abi.REG_FDP,
    *range(abi.REG_ST0, abi.REG_ST0 + 8),
    *range(abi.REG_XMM0, abi.REG_XMM0 + 16),
)
_SLOT = RegisterBatch.SLOT_BYTES
_ST_START = 7 * _SLOT
_XMM_START = _ST_START + 8 * _SLOT
FXSAVE_BYTES = 512
_MXCSR_MASK = 0xFFFF


class FxsaveCodec:
    """Turns the engine's floating-point registers into an fxsave image and back, in one batch call each."""

    def __init__(self) -> None:
        self.batch = RegisterBatch(_FX_BATCH_IDS)
        self._data = memoryview(self.batch.data).cast("B")

    def clear(self) -> None:
        """To be done before the batch is read: registers are narrower than their slots."""
        self._data[:] = bytes(len(self._data))

    def pack(self) -> bytes:
        """The image of what the batch holds."""
        data = self._data
        fpsw, fpcw, tags, mxcsr, opcode, fip, fdp = (struct.unpack_from("<Q", data, slot * _SLOT)[0] for slot in range(7))
        abridged = 0
        for number in range(8):
            if tags >> 2 * number & 3 != 3:
                abridged |= 1 << number
        image = bytearray(FXSAVE_BYTES)
        struct.pack_into("<HHBxHQQII", image, 0, fpcw, fpsw, abridged, opcode, fip, fdp, mxcsr, _MXCSR_MASK)
        for number in range(8):
            start = _ST_START + number * _SLOT
            image[32 + 16 * number : 42 + 16 * number] = data[start : start + 10]
        image[160:416] = data[_XMM_START : _XMM_START + 256]
        return bytes(image)

    def unpack(self, image: bytes) -> None:
        """Put an image into the batch.  Reserved bits of MXCSR are cleared, as the kernel does before ``fxrstor``."""
        if len(image) != FXSAVE_BYTES:
            raise ValueError(f"an fxsave image has 512 bytes, not {len(image)}")
        data = self._data
        self.clear()
        fpcw, fpsw, abridged, mxcsr = struct.unpack_from("<HHB19xI", image)
        tags = 0
        for number in range(8):
            if not abridged >> number & 1:
                tags |= 3 << 2 * number
        for slot, value in enumerate((fpsw, fpcw, tags, mxcsr & _MXCSR_MASK)):
            struct.pack_into("<Q", data, slot * _SLOT, value)
        for number in range(8):
            start = _ST_START + number * _SLOT
            data[start : start + 10] = image[32 + 16 * number : 42 + 16 * number]
        data[_XMM_START : _XMM_START + 256] = image[160:416]


INITIAL_FXSAVE = struct.pack("<HHBxHQQII", 0x37F, 0, 0, 0, 0, 0, 0x1F80, _MXCSR_MASK) + bytes(480)
"""After ``fninit`` and with the default MXCSR: what a program starts with."""


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
        if reg == _EFLAGS and self._cpu.running and self._cpu.live is self:
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
        if self._cpu.running and self._cpu.live is self:
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
        lib, codec = self._cpu.engine.lib, self._cpu.fxsave
        codec.clear()
        if self._cpu.live is self:
            lib.uc_reg_read_batch(self._cpu.engine.handle, *codec.batch.args)
        else:
            lib.uc_context_reg_read_batch(self.address, *codec.batch.args)
        return codec.pack()

    def set_fp_state(self, fxsave: bytes) -> None:
        self._must_be_stopped()
        lib, codec = self._cpu.engine.lib, self._cpu.fxsave
        codec.unpack(fxsave)
        if self._cpu.live is self:
            lib.uc_reg_write_batch(self._cpu.engine.handle, *codec.batch.args)
        else:
            lib.uc_context_reg_write_batch(self.address, *codec.batch.args)

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

    def _must_be_stopped(self) -> None:
        if self._cpu.running and self._cpu.live is self:
            raise RuntimeError("registers of the running task changed or copied inside a callback (stopped=True is missing)")


assert layout.USER_CS == 0x33
