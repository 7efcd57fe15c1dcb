"""The register file as gdb sees it: a target description, and values in its order.

The standard features of gdb's manual, "i386 Features": core, sse, linux (``orig_rax``) and segments; x87 and SSE
registers come out of, and go back into, the image that ``fxsave64`` stores.

Deliberate difference: selectors, fiseg and foseg are read-only (flat 64-bit segments), and the opcode and pointers of
the last x87 instruction cannot be set.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from kernel.hardware import Reg, Registers

_GENERAL = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split()
_SELECTORS = "cs ss ds es fs gs".split()
_X87 = "fctrl fstat ftag fiseg fioff foseg fooff fop".split()
_POINTER_TYPES = {"rbp": "data_ptr", "rsp": "data_ptr"}

_LAYOUT: list[tuple[str, int]] = [
    *((name, 8) for name in _GENERAL),
    ("rip", 8),
    ("eflags", 4),
    *((name, 4) for name in _SELECTORS),
    *((f"st{number}", 10) for number in range(8)),
    *((name, 4) for name in _X87),
    *((f"xmm{number}", 16) for number in range(16)),
    ("mxcsr", 4),
    ("orig_rax", 8),
    ("fs_base", 8),
    ("gs_base", 8),
]
NAMES = [name for name, _ in _LAYOUT]
"""By gdb's register numbers."""
SIZES = [size for _, size in _LAYOUT]
EXPEDITED = tuple(NAMES.index(name) for name in ("rbp", "rsp", "rip"))
"""What every stop reply carries along."""

_REG_OF = {name: Reg[name.upper()] for name in (*_GENERAL, "rip", "eflags", "cs", "ss", "fs_base", "gs_base")}
_FXSAVE_FIELDS = {"fctrl": (0, 2), "fstat": (2, 2), "fop": (6, 2), "fioff": (8, 4), "fooff": (16, 4), "mxcsr": (24, 4)}
_WRITABLE_FIELDS = frozenset(("fctrl", "fstat", "mxcsr"))
_ST_OFFSET, _XMM_OFFSET = 32, 160
_EMPTY = 3


def _reg(name: str, bits: int, kind: str, group: str = "") -> str:
    return f'<reg name="{name}" bitsize="{bits}" type="{kind}"{group}/>'


def target_xml() -> str:
    """The target description; the order is that of :data:`NAMES`."""
    core = [_reg(name, 64, _POINTER_TYPES.get(name, "int64")) for name in _GENERAL]
    core += [_reg("rip", 64, "code_ptr"), _reg("eflags", 32, "i386_eflags")]
    core += [_reg(name, 32, "int32") for name in _SELECTORS]
    core += [_reg(f"st{number}", 80, "i387_ext") for number in range(8)]
    core += [_reg(name, 32, "int", ' group="float"') for name in _X87]
    sse = [_reg(f"xmm{number}", 128, "vec128") for number in range(16)]
    sse.append(_reg("mxcsr", 32, "i386_mxcsr", ' group="vector"'))
    features = {
        "core": _EFLAGS_XML + "".join(core),
        "sse": _SSE_XML + "".join(sse),
        "linux": _reg("orig_rax", 64, "int", ' group="system"'),
        "segments": _reg("fs_base", 64, "int") + _reg("gs_base", 64, "int"),
    }
    return (
        '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">'
        "<architecture>i386:x86-64</architecture><osabi>GNU/Linux</osabi>"
        + "".join(f'<feature name="org.gnu.gdb.i386.{name}">{xml}</feature>' for name, xml in features.items())
        + "</target>"
    )


def _flags_xml(name: str, fields: str) -> str:
    """``NAME:FIRST[-LAST]`` words as a flags type."""
    text = f'<flags id="{name}" size="4">'
    for word in fields.split():
        field, _, bits = word.partition(":")
        first, _, last = bits.partition("-")
        text += f'<field name="{field}" start="{first}" end="{last or first}"/>'
    return text + "</flags>"


_EFLAGS_XML = _flags_xml(
    "i386_eflags",
    "CF:0 :1 PF:2 AF:4 ZF:6 SF:7 TF:8 IF:9 DF:10 OF:11 NT:14 RF:16 VM:17 AC:18 VIF:19 VIP:20 ID:21",
)
_SSE_XML = (
    '<vector id="v8bf16" type="bfloat16" count="8"/>'
    '<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>'
    '<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>'
    '<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>'
    '<union id="vec128"><field name="v8_bfloat16" type="v8bf16"/><field name="v4_float" type="v4f"/>'
    '<field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>'
    '<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>'
    '<field name="uint128" type="uint128"/></union>'
) + _flags_xml(
    "i386_mxcsr", "IE:0 DE:1 ZE:2 OE:3 UE:4 PE:5 DAZ:6 IM:7 DM:8 ZM:9 OM:10 UM:11 PM:12 FZ:15"
)  # fmt: skip


class RegisterView:
    """Reads and writes single registers by gdb's number.

    ``orig_rax`` is the system call that a thread is in, -1 outside one; ``set_orig_rax`` stores it.
    """

    def __init__(self, registers: Registers, orig_rax: int, set_orig_rax: Callable[[int], None]) -> None:
        self._registers = registers
        self._orig_rax = orig_rax
        self._set_orig_rax = set_orig_rax
        self._image: bytearray | None = None

    def _fxsave(self) -> bytearray:
        if self._image is None:
            self._image = bytearray(self._registers.fp_state())
        return self._image

    def read(self, number: int) -> bytes:
        name, size = _LAYOUT[number]
        if name in _REG_OF:
            return (self._registers.read(_REG_OF[name]) & (1 << 8 * size) - 1).to_bytes(size, "little")
        if name == "orig_rax":
            return struct.pack("<q", self._orig_rax)
        image = self._fxsave() if name not in _SELECTORS else bytearray()
        if name in _FXSAVE_FIELDS:
            offset, length = _FXSAVE_FIELDS[name]
            return bytes(image[offset : offset + length]).ljust(size, b"\0")
        if name == "ftag":
            return full_tags(image).to_bytes(size, "little")
        offset = _vector_offset(name)
        return bytes(image[offset : offset + size]) if offset else bytes(size)

    def write(self, number: int, data: bytes) -> None:
        name, size = _LAYOUT[number]
        if len(data) != size:
            raise ValueError(f"{name} has {size} bytes")
        value = int.from_bytes(data, "little")
        if name in _REG_OF:
            self._registers.write(_REG_OF[name], value)
        elif name == "orig_rax":
            self._orig_rax = int.from_bytes(data, "little", signed=True)
            self._set_orig_rax(self._orig_rax)
        elif name not in _SELECTORS:
            image = self._fxsave()
            if name in _WRITABLE_FIELDS:
                offset, length = _FXSAVE_FIELDS[name]
                image[offset : offset + length] = data[:length]
            elif name == "ftag":
                image[4] = abridged_tags(value)
            elif offset := _vector_offset(name):
                image[offset : offset + size] = data
            self._registers.set_fp_state(bytes(image))

    def read_all(self) -> bytes:
        return b"".join(self.read(number) for number in range(len(_LAYOUT)))

    def write_all(self, data: bytes) -> None:
        """As many registers as ``data`` has."""
        offset = 0
        for number, size in enumerate(SIZES):
            part = data[offset : offset + size]
            if len(part) == size and part != self.read(number):
                self.write(number, part)
            offset += size


def _vector_offset(name: str) -> int:
    """Where a register lies in the image; 0: it does not."""
    if name.startswith("xmm"):
        return _XMM_OFFSET + 16 * int(name[3:])
    return _ST_OFFSET + 16 * int(name[2:]) if name.startswith("st") else 0


def full_tags(image: bytes | bytearray) -> int:
    """The x87 tag word (two bits a register: valid, zero, special, empty) from the one bit of ``fxsave``."""
    top = struct.unpack_from("<H", image, 2)[0] >> 11 & 7
    tags = 0
    for number in range(8):
        tag = _EMPTY
        if image[4] >> number & 1:
            offset = _ST_OFFSET + 16 * ((number - top) & 7)
            mantissa, exponent = struct.unpack_from("<QH", image, offset)
            exponent &= 0x7FFF
            if exponent == 0x7FFF or (exponent == 0 and mantissa) or (exponent and not mantissa >> 63):
                tag = 2
            else:
                tag = 0 if exponent else 1
        tags |= tag << 2 * number
    return tags


def abridged_tags(tags: int) -> int:
    return sum(1 << number for number in range(8) if tags >> 2 * number & 3 != _EMPTY)
