"""As much of an x86-64 decoder as the cures of ``quirks.py`` need: lengths, classes, and who writes the flags.

Models the opcode maps of the Intel SDM, volume 2, appendix A, for 64-bit code.  What it does not know has length 0.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

MAX_INSTRUCTION_BYTES = 15

_LEGACY_PREFIXES = frozenset(b"\x66\x67\x26\x2e\x36\x3e\x64\x65\xf0\xf2\xf3")


class Map(IntEnum):
    ONE_BYTE = 0
    MAP_0F = 1
    MAP_0F38 = 2
    MAP_0F3A = 3


class Instruction(NamedTuple):
    """One decoded instruction.  ``modrm`` is -1 where there is none; ``imm8`` is the last byte."""

    length: int
    map: Map
    opcode: int
    modrm: int
    vex: bool
    imm8: int

    @property
    def reg(self) -> int:
        """ModRM.reg, which extends the opcode of many instructions."""
        return self.modrm >> 3 & 7

    @property
    def has_memory_operand(self) -> bool:
        return 0 <= self.modrm < 0xC0


UNKNOWN = Instruction(0, Map.ONE_BYTE, 0, -1, False, 0)


def _ranges(*spans: tuple[int, int]) -> frozenset[int]:
    return frozenset(opcode for first, last in spans for opcode in range(first, last + 1))


_ALU = frozenset(opcode for opcode in range(0x40) if opcode & 7 < 6)
_MODRM_1 = frozenset(op for op in _ALU if op & 7 < 4) | _ranges(
    (0x63, 0x63), (0x69, 0x69), (0x6B, 0x6B), (0x80, 0x81), (0x83, 0x8F), (0xC0, 0xC1), (0xC6, 0xC7), (0xD0, 0xD3),
    (0xD8, 0xDF), (0xF6, 0xF7), (0xFE, 0xFF)
)  # fmt: skip
_NO_MODRM_0F = _ranges(
    (0x05, 0x09), (0x0B, 0x0B), (0x0E, 0x0E), (0x30, 0x37), (0x77, 0x77), (0x80, 0x8F), (0xA0, 0xA2), (0xA8, 0xAA),
    (0xC8, 0xCF)
)  # fmt: skip
# Immediates by size; "z" is 4 bytes, or 2 with an operand-size prefix.
_IMM1_1 = frozenset(op for op in _ALU if op & 7 == 4) | _ranges(
    (0x6A, 0x6B), (0x70, 0x80), (0x83, 0x83), (0xA8, 0xA8), (0xB0, 0xB7), (0xC0, 0xC1), (0xC6, 0xC6), (0xCD, 0xCD),
    (0xD4, 0xD5), (0xE0, 0xE7), (0xEB, 0xEB)
)  # fmt: skip
_IMMZ_1 = frozenset(op for op in _ALU if op & 7 == 5) | frozenset((0x68, 0x69, 0x81, 0xA9, 0xC7))
_IMM4_1 = frozenset((0xE8, 0xE9))
_IMM1_0F = frozenset((0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6))
_UNDEFINED_1 = frozenset(bytes.fromhex("06070e16171e1f272f373f606162829aced4d5d6ea"))


def _modrm_tail(code: bytes, index: int) -> int:
    """Bytes of SIB and displacement after the ModRM byte at ``index``."""
    modrm = code[index]
    mod, rm = modrm >> 6, modrm & 7
    if mod == 3:
        return 0
    tail = (0, 1, 4)[mod]
    if rm == 4:
        tail += 1
        if mod == 0 and code[index + 1] & 7 == 5:
            tail += 4
    elif rm == 5 and mod == 0:
        tail += 4
    return tail


def decode(code: bytes) -> Instruction:
    """The instruction at the start of ``code``; UNKNOWN when it is undefined or cut short."""
    try:
        return _decode(code)
    except IndexError:
        return UNKNOWN


def _decode(code: bytes) -> Instruction:
    index = 0
    operand_16 = address_32 = wide = False
    while (byte := code[index]) in _LEGACY_PREFIXES or byte & 0xF0 == 0x40:
        operand_16 |= byte == 0x66
        address_32 |= byte == 0x67
        wide = byte & 0xF8 == 0x48  # a REX prefix counts only right before the opcode
        index += 1
    opcode_map, vex = Map.ONE_BYTE, False
    if code[index] == 0x0F:
        index += 1
        opcode_map = Map.MAP_0F
        if code[index] in (0x38, 0x3A):
            opcode_map = Map.MAP_0F38 if code[index] == 0x38 else Map.MAP_0F3A
            index += 1
    elif code[index] in (0xC4, 0xC5):
        vex = True
        number = 1 if code[index] == 0xC5 else code[index + 1] & 31
        if number not in (1, 2, 3):
            return UNKNOWN
        opcode_map = Map(number)
        index += 2 if code[index] == 0xC5 else 3
    opcode = code[index]
    index += 1
    if opcode_map is Map.ONE_BYTE and opcode in _UNDEFINED_1:
        return UNKNOWN
    modrm = -1
    has_modrm = opcode in _MODRM_1 if opcode_map is Map.ONE_BYTE else True
    if opcode_map is Map.MAP_0F:
        has_modrm = opcode not in _NO_MODRM_0F
    if has_modrm:
        modrm = code[index]
        index += 1 + _modrm_tail(code, index)
    index += _immediate_bytes(opcode_map, opcode, modrm, operand_16 and not wide, address_32, wide)
    if index > min(len(code), MAX_INSTRUCTION_BYTES):
        return UNKNOWN
    return Instruction(index, opcode_map, opcode, modrm, vex, code[index - 1])


def _immediate_bytes(opcode_map: Map, opcode: int, modrm: int, operand_16: bool, address_32: bool, wide: bool) -> int:
    z = 2 if operand_16 else 4
    if opcode_map is Map.MAP_0F38:
        return 0
    if opcode_map is Map.MAP_0F3A:
        return 1
    if opcode_map is Map.MAP_0F:
        return 4 if opcode & 0xF0 == 0x80 else 1 if opcode in _IMM1_0F or opcode == 0x0F else 0
    if opcode in _IMM1_1:
        return 1
    if opcode in _IMMZ_1:
        return z
    if opcode in _IMM4_1:
        return 4
    if opcode & 0xF8 == 0xB8:
        return 8 if wide else z
    if opcode in (0xF6, 0xF7) and modrm >> 3 & 7 < 2:
        return 1 if opcode == 0xF6 else z
    if 0xA0 <= opcode <= 0xA3:
        return 4 if address_32 else 8
    return {0xC2: 2, 0xC8: 3, 0xCA: 2}.get(opcode, 0)


# Classes of instructions -----------------------------------------------------------------------------------------

# ModRM.reg values with which an opcode reads and then writes its memory operand.
_ALWAYS = frozenset(range(8))
_READ_MODIFY_WRITE: dict[tuple[Map, int], frozenset[int]] = {
    # add or adc sbb and sub xor, register into memory; not cmp
    **{(Map.ONE_BYTE, base + width): _ALWAYS for base in range(0x00, 0x38, 8) for width in (0, 1)},
    **{(Map.ONE_BYTE, opcode): frozenset(range(7)) for opcode in (0x80, 0x81, 0x83)},  # the same, immediate
    **{(Map.ONE_BYTE, opcode): _ALWAYS for opcode in (0x86, 0x87)},  # xchg
    **{(Map.ONE_BYTE, opcode): _ALWAYS for opcode in (0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3)},  # shifts
    **{(Map.ONE_BYTE, opcode): frozenset((2, 3)) for opcode in (0xF6, 0xF7)},  # not neg
    **{(Map.ONE_BYTE, opcode): frozenset((0, 1)) for opcode in (0xFE, 0xFF)},  # inc dec
    **{(Map.MAP_0F, opcode): _ALWAYS for opcode in (0xA4, 0xA5, 0xAC, 0xAD)},  # shld shrd
    **{(Map.MAP_0F, opcode): _ALWAYS for opcode in (0xAB, 0xB3, 0xBB)},  # bts btr btc
    (Map.MAP_0F, 0xBA): frozenset((5, 6, 7)),  # bts btr btc, immediate
    **{(Map.MAP_0F, opcode): _ALWAYS for opcode in (0xB0, 0xB1, 0xC0, 0xC1)},  # cmpxchg xadd
    (Map.MAP_0F, 0xC7): frozenset((1,)),  # cmpxchg8b cmpxchg16b
}
_SHIFTS = frozenset((0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3))
_SHIFTS_BY_CL = frozenset((0xD2, 0xD3))
_SHIFTS_BY_IMM8 = frozenset((0xC0, 0xC1))


def reads_before_it_writes(instruction: Instruction) -> bool:
    """Whether an instruction reads a memory operand in order to write it."""
    if instruction.vex or not instruction.has_memory_operand:
        return False
    regs = _READ_MODIFY_WRITE.get((instruction.map, instruction.opcode))
    return regs is not None and instruction.reg in regs


def is_rotate_through_carry(instruction: Instruction) -> bool:
    """rcl or rcr."""
    return instruction.map is Map.ONE_BYTE and instruction.opcode in _SHIFTS and instruction.reg in (2, 3)


def setcc_condition(instruction: Instruction) -> int:
    """The condition (0 to 15) of a setcc instruction, else -1."""
    if instruction.map is Map.MAP_0F and instruction.opcode & 0xF0 == 0x90 and not instruction.vex:
        return instruction.opcode & 15
    return -1


class FlagsEffect(IntEnum):
    """What the engine's translator knows of the flags after an instruction."""

    NONE = 0
    """Nothing new."""
    KNOWN = 1
    """Which operation they are the result of."""
    UNKNOWN = 2
    """That depends on values at run time: a count that may be 0."""


_FLAGS_KNOWN_1 = _ALU | frozenset(
    (0x69, 0x6B, 0x80, 0x81, 0x83, 0x84, 0x85, 0x9E, 0xA6, 0xA7, 0xA8, 0xA9, 0xAE, 0xAF, 0xF5, 0xF8, 0xF9)
)
_FLAGS_KNOWN_0F = frozenset(
    (0x02, 0x03, 0x2E, 0x2F, 0xA3, 0xAB, 0xAF, 0xB0, 0xB1, 0xB3, 0xB8, 0xBA, 0xBB, 0xBC, 0xBD, 0xC0, 0xC1)
)


def flags_effect(instruction: Instruction) -> FlagsEffect:
    """See :class:`FlagsEffect`.  Division and ``not`` leave the flags alone, here."""
    opcode, reg, known = instruction.opcode, instruction.reg, False
    if instruction.map is Map.ONE_BYTE:
        if opcode in _SHIFTS:
            if opcode in _SHIFTS_BY_CL:
                return FlagsEffect.UNKNOWN
            known = opcode not in _SHIFTS_BY_IMM8 or instruction.imm8 & 31 != 0
        elif opcode in (0xF6, 0xF7):
            known = reg in (0, 1, 3, 4, 5)
        elif opcode in (0xFE, 0xFF):
            known = reg in (0, 1)
        elif opcode in (0xDB, 0xDF):  # fucomi fcomi
            known = instruction.modrm >= 0xE8 and reg in (5, 6)
        else:
            known = opcode in _FLAGS_KNOWN_1
    elif instruction.map is Map.MAP_0F:
        if opcode in (0xA4, 0xA5, 0xAC, 0xAD):
            return FlagsEffect.UNKNOWN
        known = opcode in _FLAGS_KNOWN_0F or (opcode == 0xC7 and reg == 1)
    elif instruction.map is Map.MAP_0F38:
        known = opcode in (0x17, 0xF6) if not instruction.vex else opcode in (0x17, 0xF2, 0xF3, 0xF5, 0xF7)
    else:
        known = 0x60 <= opcode <= 0x63
    return FlagsEffect.KNOWN if known else FlagsEffect.NONE
