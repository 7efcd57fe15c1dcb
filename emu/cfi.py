"""Call frame information: for an address of code, where its caller's registers are.

Models section 6.4 of DWARF 5 (``.debug_frame``) and the ``.eh_frame`` of the Linux Standard Base (Core, chapter 10) for
x86-64: what gdb, libunwind and the C++ runtime unwind by.

Deliberate differences: ``.eh_frame_hdr`` is not used, all entries are read once and sorted; of expressions (section
2.5) only what compilers, linkers and libcs write into frame information is known; an entry with anything else is as
good as none.  Everything is by link-time address; nothing is read from a guest here.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from emu.dwarf import DwarfError, Reader

RSP = 7
RETURN_ADDRESS = 16
"""DWARF's numbers of registers (System V ABI, AMD64 supplement, figure 3.36)."""

_MASK64 = (1 << 64) - 1
_PE_OMIT = 0xFF
_UNSIGNED, _SIGNED = {0x00: 8, 0x02: 2, 0x03: 4, 0x04: 8}, {0x0A: 2, 0x0B: 4, 0x0C: 8}
"""Bytes of a DW_EH_PE_* number."""
_PE_PCREL = 0x10


class Where(Enum):
    """How the caller's value of a register is found (DWARF 5, 6.4.1)."""

    UNDEFINED = "undefined"
    SAME = "same value"
    OFFSET = "in memory at CFA + offset"
    VAL_OFFSET = "CFA + offset"
    REGISTER = "in another register"
    EXPRESSION = "in memory at the value of an expression"
    VAL_EXPRESSION = "the value of an expression"


@dataclass(frozen=True, slots=True)
class Rule:
    where: Where
    value: int = 0
    """An offset in bytes, or the number of a register."""
    expression: bytes = b""


@dataclass(slots=True)
class Row:
    """The rules that hold at one address."""

    cfa_register: int = RSP
    cfa_offset: int = 8
    cfa_expression: bytes | None = None
    rules: dict[int, Rule] = field(default_factory=dict)
    is_signal_frame: bool = False
    """The frame was interrupted, not called: its address is that of an instruction not yet executed."""

    def copy(self) -> Row:
        return Row(self.cfa_register, self.cfa_offset, self.cfa_expression, dict(self.rules), self.is_signal_frame)


class _Reader(Reader):
    """What frame information has beside numbers."""

    __slots__ = ()

    def block(self) -> bytes:
        return self.take(self.uleb())

    def string(self) -> bytes:
        end = self.data.index(b"\0", self.at, self.end)
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    def pointer(self, encoding: int, section_address: int) -> int:
        """A DW_EH_PE_* encoded pointer."""
        base = section_address + self.at if encoding & 0x70 == _PE_PCREL else 0
        if encoding & 0x70 not in (0, _PE_PCREL) or encoding & 0x80:
            raise DwarfError(f"pointer encoding {encoding:#x}")
        form = encoding & 0x0F
        if form == 0x01:
            value = self.uleb()
        elif form == 0x09:
            value = self.sleb()
        elif form in _UNSIGNED:
            value = self.uint(_UNSIGNED[form])
        elif form in _SIGNED:
            value = self.sint(_SIGNED[form])
        else:
            raise DwarfError(f"pointer encoding {encoding:#x}")
        return base + value & _MASK64


@dataclass(frozen=True, slots=True)
class _Cie:
    """A common information entry."""

    code_alignment: int
    data_alignment: int
    return_register: int
    pointer_encoding: int
    has_augmentation: bool
    is_signal_frame: bool
    instructions: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Fde:
    """A frame description entry; ``instructions`` is where they lie in the section."""

    cie: _Cie
    start: int
    end: int
    instructions: tuple[int, int]


class FrameTable:
    """The frame information of one ELF file's section."""

    def __init__(self, data: bytes, section_address: int, is_eh_frame: bool) -> None:
        self._data = data
        self._address = section_address
        self._is_eh_frame = is_eh_frame
        self._cies: dict[int, _Cie] = {}
        self._fdes = sorted(self._read_all(), key=lambda fde: fde.start)
        self._starts = [fde.start for fde in self._fdes]

    def row_at(self, address: int) -> Row | None:
        """The rules at ``address``; None when nothing is known of it."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._fdes[index].end:
            return None
        try:
            return self._run(self._fdes[index], address)
        except (DwarfError, ValueError):
            return None

    # ---- entries -------------------------------------------------------------------------------

    def _read_all(self) -> Iterator[_Fde]:
        reader = Reader(self._data, 0)
        while reader.at + 4 <= reader.end:
            start = reader.at
            try:
                length, width = reader.initial_length()
            except DwarfError:
                return
            end = reader.at + length
            if end > reader.end or (not length and self._is_eh_frame):  # cut off; the terminator
                return
            if length:
                try:
                    fde = self._read_fde(_Reader(self._data, reader.at, end), start, width)
                except (DwarfError, ValueError):
                    fde = None
                if fde is not None:
                    yield fde
            reader.at = end

    def _read_fde(self, reader: _Reader, start: int, width: int) -> _Fde | None:
        id_at = reader.at
        # .eh_frame keeps four bytes here even after a 64-bit length
        pointer = reader.uint(4 if width == 4 or self._is_eh_frame else 8)
        if pointer == (0 if self._is_eh_frame else (0xFFFFFFFF if width == 4 else _MASK64)):
            return None  # a CIE: read when an FDE names it
        cie = self._cie(id_at - pointer if self._is_eh_frame else pointer)
        first = reader.pointer(cie.pointer_encoding, self._address)
        nr_bytes = reader.pointer(cie.pointer_encoding & 0x0F, 0)
        if cie.has_augmentation:
            reader.skip(reader.uleb())
        return _Fde(cie, first, first + nr_bytes, (reader.at, reader.end))

    def _cie(self, offset: int) -> _Cie:
        found = self._cies.get(offset)
        if found is None:
            found = self._cies[offset] = self._read_cie(offset)
        return found

    def _read_cie(self, offset: int) -> _Cie:
        reader = _Reader(self._data, offset, len(self._data))
        length, width = reader.initial_length()
        reader.end = min(reader.end, reader.at + length)
        reader.skip(4 if self._is_eh_frame else width)  # what says that it is a CIE
        version = reader.uint(1)
        augmentation = reader.string()
        if not self._is_eh_frame and version >= 4:
            reader.skip(2)  # address size, segment selector size
        code_alignment, data_alignment = reader.uleb(), reader.sleb()
        return_register = reader.uint(1) if version == 1 else reader.uleb()
        encoding = 0
        has_augmentation = augmentation.startswith(b"z")
        if has_augmentation:
            nr_bytes = reader.uleb()
            after = reader.at + nr_bytes
            encoding = self._pointer_encoding(reader, augmentation[1:])
            reader.at = after
        elif augmentation:
            raise DwarfError(f"augmentation {augmentation!r}")
        is_signal = b"S" in augmentation
        return _Cie(
            code_alignment, data_alignment, return_register, encoding, has_augmentation, is_signal,
            (reader.at, reader.end),
        )  # fmt: skip

    @staticmethod
    def _pointer_encoding(reader: _Reader, letters: bytes) -> int:
        """The pointer encoding that an augmentation string gives."""
        encoding = 0
        for letter in letters.decode("latin-1"):
            if letter == "R":
                encoding = reader.uint(1)
            elif letter == "P":
                personality = reader.uint(1)
                reader.pointer(personality & 0x0F, 0)
            elif letter == "L":
                reader.uint(1)
            elif letter not in "SB":
                raise DwarfError(f"augmentation {letter!r}")
        return encoding

    # ---- instructions --------------------------------------------------------------------------

    def _run(self, fde: _Fde, address: int) -> Row:
        """The row of ``fde`` that holds at ``address`` (DWARF 5, 6.4.3)."""
        row = Row(is_signal_frame=fde.cie.is_signal_frame)
        program = _Program(self._data, fde.cie, self._address)
        program.run(fde.cie.instructions, row, 0, None)
        initial = row.copy()
        return program.run(fde.instructions, row, fde.start, address, initial)


class _Program:
    """Interprets call frame instructions."""

    def __init__(self, data: bytes, cie: _Cie, section_address: int) -> None:
        self._data = data
        self._cie = cie
        self._address = section_address

    def run(
        self, bounds: tuple[int, int], row: Row, location: int, address: int | None, initial: Row | None = None
    ) -> Row:
        """Change ``row`` by the instructions up to ``address`` (None: all of them)."""
        cie, reader = self._cie, _Reader(self._data, *bounds)
        stack: list[Row] = []
        while reader.at < reader.end:
            opcode = reader.uint(1)
            high, low = opcode & 0xC0, opcode & 0x3F
            advance = 0
            if high == 0x40:  # DW_CFA_advance_loc
                advance = low
            elif high == 0x80:  # DW_CFA_offset
                row.rules[low] = Rule(Where.OFFSET, reader.uleb() * cie.data_alignment)
            elif high == 0xC0:  # DW_CFA_restore
                _restore(row, initial, low)
            elif opcode == 0x01:  # DW_CFA_set_loc
                location = reader.pointer(cie.pointer_encoding, self._address)
                if address is not None and location > address:
                    return row
            elif opcode in (0x02, 0x03, 0x04):  # DW_CFA_advance_loc1, 2, 4
                advance = reader.uint({2: 1, 3: 2, 4: 4}[opcode])
            elif opcode == 0x0A:  # DW_CFA_remember_state
                stack.append(row.copy())
            elif opcode == 0x0B:  # DW_CFA_restore_state
                if not stack:
                    raise DwarfError("DW_CFA_restore_state without a state")
                row = stack.pop()
            elif opcode:
                self._instruction(opcode, reader, row, initial)
            if advance:
                location += advance * cie.code_alignment
                if address is not None and location > address:
                    return row
        return row

    def _instruction(self, opcode: int, reader: _Reader, row: Row, initial: Row | None) -> None:
        """All that only change ``row``."""
        factor = self._cie.data_alignment
        if opcode == 0x0C:  # DW_CFA_def_cfa
            row.cfa_register, row.cfa_offset, row.cfa_expression = reader.uleb(), reader.uleb(), None
        elif opcode == 0x0D:
            row.cfa_register = reader.uleb()
        elif opcode == 0x0E:
            row.cfa_offset = reader.uleb()
        elif opcode == 0x0F:
            row.cfa_expression = reader.block()
        elif opcode == 0x12:  # DW_CFA_def_cfa_sf
            row.cfa_register, row.cfa_offset, row.cfa_expression = reader.uleb(), reader.sleb() * factor, None
        elif opcode == 0x13:
            row.cfa_offset = reader.sleb() * factor
        elif opcode == 0x2E:  # DW_CFA_GNU_args_size
            reader.uleb()
        else:
            register = reader.uleb()
            if opcode == 0x06:  # DW_CFA_restore_extended
                _restore(row, initial, register)
            else:
                row.rules[register] = _rule(opcode, reader, factor)


def _rule(opcode: int, reader: _Reader, factor: int) -> Rule:
    """The instructions that say how one register is found; its number has been read."""
    if opcode == 0x05:  # DW_CFA_offset_extended
        return Rule(Where.OFFSET, reader.uleb() * factor)
    if opcode == 0x07:
        return Rule(Where.UNDEFINED)
    if opcode == 0x08:
        return Rule(Where.SAME)
    if opcode == 0x09:
        return Rule(Where.REGISTER, reader.uleb())
    if opcode == 0x10:
        return Rule(Where.EXPRESSION, expression=reader.block())
    if opcode == 0x11:  # DW_CFA_offset_extended_sf
        return Rule(Where.OFFSET, reader.sleb() * factor)
    if opcode == 0x14:
        return Rule(Where.VAL_OFFSET, reader.uleb() * factor)
    if opcode == 0x15:
        return Rule(Where.VAL_OFFSET, reader.sleb() * factor)
    if opcode == 0x16:
        return Rule(Where.VAL_EXPRESSION, expression=reader.block())
    raise DwarfError(f"instruction {opcode:#x}")


def _restore(row: Row, initial: Row | None, register: int) -> None:
    rule = initial.rules.get(register) if initial is not None else None
    if rule is None:
        row.rules.pop(register, None)
    else:
        row.rules[register] = rule


# ---- expressions --------------------------------------------------------------------------------------------------

_BINARY: dict[int, Callable[[int, int], int]] = {
    0x1A: lambda a, b: a & b,
    0x1C: lambda a, b: a - b,
    0x1E: lambda a, b: a * b,
    0x21: lambda a, b: a | b,
    0x22: lambda a, b: a + b,
    0x24: lambda a, b: a << b if b < 64 else 0,
    0x25: lambda a, b: a >> b if b < 64 else 0,
    0x27: lambda a, b: a ^ b,
    0x29: lambda a, b: int(a == b),
    0x2A: lambda a, b: int(_signed(a) >= _signed(b)),
    0x2B: lambda a, b: int(_signed(a) > _signed(b)),
    0x2C: lambda a, b: int(_signed(a) <= _signed(b)),
    0x2D: lambda a, b: int(_signed(a) < _signed(b)),
    0x2E: lambda a, b: int(a != b),
}


def evaluate(expression: bytes, register: Callable[[int], int], load: Callable[[int], int], *start: int) -> int:
    """The value of a DWARF expression; ``load`` reads eight bytes.  Raises :class:`DwarfError`."""
    reader = _Reader(expression, 0, len(expression))
    stack = list(start)
    try:
        while reader.at < reader.end:
            _step(reader.uint(1), reader, stack, register, load)
        return stack[-1] & _MASK64
    except IndexError as error:
        raise DwarfError("expression without operands") from error


def _step(
    opcode: int, reader: _Reader, stack: list[int], register: Callable[[int], int], load: Callable[[int], int]
) -> None:
    if 0x30 <= opcode <= 0x4F:  # DW_OP_lit
        stack.append(opcode - 0x30)
    elif 0x70 <= opcode <= 0x8F:  # DW_OP_breg
        stack.append(register(opcode - 0x70) + reader.sleb() & _MASK64)
    elif opcode in _BINARY:
        second, first = stack.pop(), stack.pop()
        stack.append(_BINARY[opcode](first, second) & _MASK64)
    elif 0x08 <= opcode <= 0x0F:  # DW_OP_const1u, const1s, const2u ...
        nr_bytes = 1 << (opcode - 0x08 >> 1)
        stack.append(reader.sint(nr_bytes) & _MASK64 if opcode & 1 else reader.uint(nr_bytes))
    elif opcode == 0x06:  # DW_OP_deref
        stack.append(load(stack.pop()))
    elif opcode == 0x10:
        stack.append(reader.uleb())
    elif opcode == 0x11:
        stack.append(reader.sleb() & _MASK64)
    elif opcode == 0x12:  # DW_OP_dup
        stack.append(stack[-1])
    elif opcode == 0x13:
        stack.pop()
    elif opcode == 0x16:  # DW_OP_swap
        stack[-1], stack[-2] = stack[-2], stack[-1]
    elif opcode == 0x23:  # DW_OP_plus_uconst
        stack.append(stack.pop() + reader.uleb() & _MASK64)
    else:
        raise DwarfError(f"operation {opcode:#x}")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
