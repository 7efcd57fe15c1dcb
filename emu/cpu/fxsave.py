"""The floating-point state as the 512 bytes that ``fxsave64`` stores.

Models ``struct fxregs_state`` (arch/x86/include/asm/fpu/types.h).  It is read and written through the engine's
interface, because writing the control words also sets state that is derived from them.

Deliberate difference: the opcode and the pointers of the last x87 instruction are read but not restored; the engine's
own ``fxrstor`` drops them, too.
"""

from __future__ import annotations

import struct

from emu.cpu import unicorn_abi as abi
from emu.cpu.engine import RegisterBatch

FXSAVE_BYTES = 512
_MXCSR_MASK = 0xFFFF

_BATCH_IDS = (
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
_NR_CONTROL = 7
_ST_START = _NR_CONTROL * _SLOT
_XMM_START = _ST_START + 8 * _SLOT

_IMAGE_ST, _IMAGE_XMM, _IMAGE_XMM_END = 32, 160, 416
_ST_BYTES = 10

INITIAL_FXSAVE = struct.pack("<HHBxHQQII", 0x37F, 0, 0, 0, 0, 0, 0x1F80, _MXCSR_MASK) + bytes(480)
"""After ``fninit`` and with the default MXCSR: what a program starts with."""


class FxsaveCodec:
    """Between the engine's registers, read or written in one batch call, and an image."""

    def __init__(self) -> None:
        self.batch = RegisterBatch(_BATCH_IDS)
        self._data = memoryview(self.batch.data).cast("B")

    def clear(self) -> None:
        """To be done before the batch is read: registers are narrower than their slots."""
        self._data[:] = bytes(len(self._data))

    def pack(self) -> bytes:
        """The image of what the batch holds."""
        data = self._data
        control = [struct.unpack_from("<Q", data, slot * _SLOT)[0] for slot in range(_NR_CONTROL)]
        fpsw, fpcw, tags, mxcsr, opcode, fip, fdp = control
        abridged = 0
        for number in range(8):
            if tags >> 2 * number & 3 != 3:
                abridged |= 1 << number
        image = bytearray(FXSAVE_BYTES)
        struct.pack_into("<HHBxHQQII", image, 0, fpcw, fpsw, abridged, opcode, fip, fdp, mxcsr, _MXCSR_MASK)
        for number in range(8):
            source, target = _ST_START + number * _SLOT, _IMAGE_ST + 16 * number
            image[target : target + _ST_BYTES] = data[source : source + _ST_BYTES]
        image[_IMAGE_XMM:_IMAGE_XMM_END] = data[_XMM_START : _XMM_START + 256]
        return bytes(image)

    def unpack(self, image: bytes) -> None:
        """Put an image into the batch.  Reserved bits of MXCSR are cleared, as the kernel does before ``fxrstor``."""
        if len(image) != FXSAVE_BYTES:
            raise ValueError(f"an fxsave image has {FXSAVE_BYTES} bytes, not {len(image)}")
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
            target, source = _ST_START + number * _SLOT, _IMAGE_ST + 16 * number
            data[target : target + _ST_BYTES] = image[source : source + _ST_BYTES]
        data[_XMM_START : _XMM_START + 256] = image[_IMAGE_XMM:_IMAGE_XMM_END]
