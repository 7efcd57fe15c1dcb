"""Which compilation unit holds an address: as much of DWARF, versions 2 to 5, as that takes.

Read by hand, because a program asks for a few addresses and its C library may have thousands of units: their address
table (``.debug_aranges``) is read whole, and of units that it does not mention (clang writes none, ``dwz`` makes units
without code) only the attributes of the first entry that say where its code is.
"""

from __future__ import annotations

import bisect
import contextlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_AT_LOW_PC, _AT_HIGH_PC, _AT_RANGES, _AT_ADDR_BASE, _AT_RNGLISTS_BASE = 0x11, 0x12, 0x55, 0x73, 0x74
_AT_GNU_ADDR_BASE = 0x2133
_TAG_PARTIAL_UNIT = 0x3C
_UT_TYPE, _UT_SKELETON, _UT_SPLIT_COMPILE, _UT_SPLIT_TYPE = 2, 4, 5, 6

_FORM_ADDR, _FORM_BLOCK2, _FORM_BLOCK4, _FORM_STRING, _FORM_BLOCK, _FORM_BLOCK1 = 0x01, 0x03, 0x04, 0x08, 0x09, 0x0A
_FORM_SDATA, _FORM_REF_ADDR, _FORM_INDIRECT, _FORM_EXPRLOC, _FORM_IMPLICIT_CONST = 0x0D, 0x10, 0x16, 0x18, 0x21
_FORM_RNGLISTX = 0x23
_FIXED_BYTES = {
    0x05: 2, 0x06: 4, 0x07: 8, 0x0B: 1, 0x0C: 1, 0x11: 1, 0x12: 2, 0x13: 4, 0x14: 8, 0x19: 0, 0x1C: 4, 0x1E: 16,
    0x20: 8, 0x24: 8, 0x25: 1, 0x26: 2, 0x27: 3, 0x28: 4, 0x29: 1, 0x2A: 2, 0x2B: 3, 0x2C: 4,
}  # fmt: skip
_OFFSET_FORMS = frozenset((0x0E, 0x17, 0x1D, 0x1F, 0x1F20, 0x1F21))
"""As wide as an offset into a section: strp, sec_offset, strp_sup, line_strp, GNU_ref_alt, GNU_strp_alt."""
_ULEB_FORMS = frozenset((0x0F, 0x15, 0x1A, 0x1B, 0x22, 0x23, 0x1F01, 0x1F02))
_ADDRX_FORMS = frozenset((0x1B, 0x29, 0x2A, 0x2B, 0x2C, 0x1F01))

SECTIONS = (".debug_info", ".debug_abbrev", ".debug_aranges", ".debug_ranges", ".debug_rnglists", ".debug_addr")


class DwarfError(Exception):
    """Not DWARF as we know it."""


class Reader:
    """A place in a section, or in a part of one that ends before ``end``.  DwarfError beyond it."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    def take(self, nr_bytes: int) -> bytes:
        start, self.at = self.at, self.at + nr_bytes
        if not 0 <= start <= self.at <= self.end:
            raise DwarfError("cut short")
        return self.data[start : self.at]

    def uint(self, nr_bytes: int) -> int:
        return int.from_bytes(self.take(nr_bytes), "little")

    def sint(self, nr_bytes: int) -> int:
        return int.from_bytes(self.take(nr_bytes), "little", signed=True)

    def skip(self, nr_bytes: int) -> None:
        self.at += nr_bytes

    def uleb(self) -> int:
        value = shift = 0
        while True:
            byte = self.uint(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def sleb(self) -> int:
        start = self.at
        value = self.uleb()
        nr_bits = 7 * (self.at - start)
        return value - (1 << nr_bits) if value >> (nr_bits - 1) else value

    def initial_length(self) -> tuple[int, int]:
        """The length of what follows, and how wide offsets are in it."""
        length = self.uint(4)
        return (self.uint(8), 8) if length == 0xFFFF_FFFF else (length, 4)


@dataclass(frozen=True, slots=True)
class _Unit:
    """The header of a unit."""

    offset: int
    entries: int
    """Where its first entry stands."""
    version: int
    offset_bytes: int
    address_bytes: int
    abbrev_offset: int


class UnitIndex:
    """The units of one file; ``sections`` are the contents of those of :data:`SECTIONS` that it has."""

    def __init__(self, sections: Mapping[str, bytes]) -> None:
        self._sections = sections
        self._ranges: list[tuple[int, int, int]] | None = None

    def find(self, address: int) -> int | None:
        """The offset in ``.debug_info`` of the unit whose code holds ``address``."""
        if self._ranges is None:
            self._ranges = sorted(self._read())
        index = bisect.bisect_right(self._ranges, (address, 1 << 64, 0)) - 1
        if index >= 0 and self._ranges[index][0] <= address < self._ranges[index][1]:
            return self._ranges[index][2]
        return None

    def _read(self) -> Iterator[tuple[int, int, int]]:
        """(start, end, offset of the unit).  What is damaged is left out."""
        mentioned = set()
        with contextlib.suppress(DwarfError):
            for low, high, unit_offset in self._aranges():
                mentioned.add(unit_offset)
                if low and high > low:  # 0: the linker has thrown the code away
                    yield low, high, unit_offset
        with contextlib.suppress(DwarfError):
            for unit in self._units():
                if unit.offset not in mentioned:
                    yield from self._ranges_of(unit)

    def _ranges_of(self, unit: _Unit) -> list[tuple[int, int, int]]:
        try:
            return [(low, high, unit.offset) for low, high in self._code_of(unit) if low and high > low]
        except DwarfError:
            return []

    def _aranges(self) -> Iterator[tuple[int, int, int]]:
        reader = Reader(self._sections.get(".debug_aranges", b""), 0)
        while reader.at < len(reader.data):
            start = reader.at
            length, offset_bytes = reader.initial_length()
            end = reader.at + length
            reader.at += 2  # version
            unit_offset = reader.uint(offset_bytes)
            address_bytes, segment_bytes = reader.uint(1), reader.uint(1)
            if address_bytes not in (4, 8) or segment_bytes:
                raise DwarfError("address table of another machine")
            pair = struct.Struct("<QQ" if address_bytes == 8 else "<II")
            first = start - (start - reader.at) // pair.size * pair.size  # aligned, counted from the start
            whole = max(0, min(end, len(reader.data)) - first) // pair.size * pair.size
            for low, nr_bytes in pair.iter_unpack(reader.data[first : first + whole]):
                yield low, low + nr_bytes, unit_offset
            reader.at = end

    # ---- units ---------------------------------------------------------------------------------------------------

    def _units(self) -> Iterator[_Unit]:
        reader = Reader(self._sections.get(".debug_info", b""), 0)
        while reader.at < len(reader.data):
            offset = reader.at
            length, offset_bytes = reader.initial_length()
            end = reader.at + length
            version = reader.uint(2)
            if version >= 5:
                unit_type, address_bytes = reader.uint(1), reader.uint(1)
                abbrev_offset = reader.uint(offset_bytes)
                reader.at += {_UT_TYPE: 8 + offset_bytes, _UT_SPLIT_TYPE: 8 + offset_bytes}.get(unit_type, 0)
                reader.at += 8 if unit_type in (_UT_SKELETON, _UT_SPLIT_COMPILE) else 0
            else:
                abbrev_offset, address_bytes = reader.uint(offset_bytes), reader.uint(1)
            if 2 <= version <= 5:
                yield _Unit(offset, reader.at, version, offset_bytes, address_bytes, abbrev_offset)
            reader.at = end

    def _code_of(self, unit: _Unit) -> Iterator[tuple[int, int]]:
        """The ranges of addresses of a unit's code, from its first entry."""
        values = self._first_entry(unit)
        base = values.get(_AT_ADDR_BASE, values.get(_AT_GNU_ADDR_BASE, (8, 0)))[0]
        low = self._address(unit, values.get(_AT_LOW_PC), base)
        high, ranges = values.get(_AT_HIGH_PC), values.get(_AT_RANGES)
        if ranges is not None:
            yield from self._range_list(unit, ranges, low or 0, values.get(_AT_RNGLISTS_BASE, (0, 0))[0], base)
        elif low is not None and high is not None:
            is_address = high[1] == _FORM_ADDR or high[1] in _ADDRX_FORMS
            end = self._address(unit, high, base) if is_address else low + high[0]
            yield low, end or 0

    def _first_entry(self, unit: _Unit) -> dict[int, tuple[int, int]]:
        """Attribute -> (value, form), of those with a numeric form; nothing for a unit without code."""
        entry = Reader(self._sections[".debug_info"], unit.entries)
        code = entry.uleb()
        abbrev = Reader(self._sections.get(".debug_abbrev", b""), unit.abbrev_offset)
        while (found := abbrev.uleb()) != code:
            if not found:
                raise DwarfError("unknown abbreviation")
            abbrev.uleb()
            abbrev.at += 1
            while any((abbrev.uleb(), _form(abbrev)[0])):
                pass
        if abbrev.uleb() == _TAG_PARTIAL_UNIT:
            return {}
        abbrev.at += 1  # DW_CHILDREN
        values: dict[int, tuple[int, int]] = {}
        while True:
            name, (form, constant) = abbrev.uleb(), _form(abbrev)
            if not name:
                return values
            value = constant if form == _FORM_IMPLICIT_CONST else _value(entry, form, unit)
            if value is not None:
                values[name] = value, form

    # ---- addresses -----------------------------------------------------------------------------------------------

    def _address(self, unit: _Unit, value: tuple[int, int] | None, base: int) -> int | None:
        """An address, or the index of one in ``.debug_addr``."""
        if value is None or value[1] not in _ADDRX_FORMS:
            return None if value is None else value[0]
        return self._indexed(unit, value[0], base)

    def _indexed(self, unit: _Unit, index: int, base: int) -> int:
        table = Reader(self._sections.get(".debug_addr", b""), base + index * unit.address_bytes)
        return table.uint(unit.address_bytes)

    def _range_list(
        self, unit: _Unit, place: tuple[int, int], low: int, lists_base: int, addr_base: int
    ) -> Iterator[tuple[int, int]]:
        if unit.version < 5:
            yield from self._old_range_list(unit, place[0], low)
            return
        data, at = self._sections.get(".debug_rnglists", b""), place[0]
        if place[1] == _FORM_RNGLISTX:
            at = lists_base + Reader(data, lists_base + at * unit.offset_bytes).uint(unit.offset_bytes)
        reader, size, base = Reader(data, at), unit.address_bytes, low
        while kind := reader.uint(1):
            if kind == 1:  # base_addressx
                base = self._indexed(unit, reader.uleb(), addr_base)
            elif kind == 2:  # startx_endx
                yield self._indexed(unit, reader.uleb(), addr_base), self._indexed(unit, reader.uleb(), addr_base)
            elif kind == 3:  # startx_length
                start = self._indexed(unit, reader.uleb(), addr_base)
                yield start, start + reader.uleb()
            elif kind == 4:  # offset_pair
                yield base + reader.uleb(), base + reader.uleb()
            elif kind == 5:  # base_address
                base = reader.uint(size)
            elif kind == 6:  # start_end
                yield reader.uint(size), reader.uint(size)
            elif kind == 7:  # start_length
                start = reader.uint(size)
                yield start, start + reader.uleb()
            else:
                raise DwarfError(f"range list entry {kind}")

    def _old_range_list(self, unit: _Unit, offset: int, base: int) -> Iterator[tuple[int, int]]:
        reader, size = Reader(self._sections.get(".debug_ranges", b""), offset), unit.address_bytes
        while True:
            start, end = reader.uint(size), reader.uint(size)
            if not start and not end:
                return
            if start == (1 << 8 * size) - 1:
                base = end
            else:
                yield base + start, base + end


def _form(abbrev: Reader) -> tuple[int, int]:
    """The form of an attribute, and the value that stands with it."""
    form = abbrev.uleb()
    return form, abbrev.uleb() if form == _FORM_IMPLICIT_CONST else 0


def _value(entry: Reader, form: int, unit: _Unit) -> int | None:
    """Read an attribute of an entry; None for what is no number."""
    if form in _FIXED_BYTES:
        return entry.uint(_FIXED_BYTES[form])
    if form in _OFFSET_FORMS:
        return entry.uint(unit.offset_bytes)
    if form in _ULEB_FORMS:
        return entry.uleb()
    if form == _FORM_ADDR:
        return entry.uint(unit.address_bytes)
    if form == _FORM_REF_ADDR:
        return entry.uint(unit.address_bytes if unit.version == 2 else unit.offset_bytes)
    if form == _FORM_INDIRECT:
        return _value(entry, entry.uleb(), unit)
    if form == _FORM_STRING:
        while entry.uint(1):
            pass
    elif form in (_FORM_BLOCK, _FORM_EXPRLOC):
        entry.skip(entry.uleb())
    elif form in (_FORM_BLOCK1, _FORM_BLOCK2, _FORM_BLOCK4):
        entry.skip(entry.uint({_FORM_BLOCK1: 1, _FORM_BLOCK2: 2, _FORM_BLOCK4: 4}[form]))
    elif form == _FORM_SDATA:
        entry.uleb()
    else:
        raise DwarfError(f"form {form:#x}")
    return None
