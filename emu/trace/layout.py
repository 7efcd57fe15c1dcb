"""Fixed layouts in guest memory, and the values that many structures share: numbers, strings, buffers.

A printer gets the memory to read from and an address, and gives text, or None when the memory is not readable (the
caller then prints the address).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.trace.peek import peek_exactly, peek_string
from emu.trace.quote import pointer, quote

if TYPE_CHECKING:
    from kernel.mm.types import MmStruct

StructPrinter = Callable[["MmStruct | None", int], str | None]
_AT_MOST_BYTES = 32


def fields(layout: str) -> Callable[[MmStruct | None, int], tuple[int, ...] | None]:
    packed = struct.Struct(layout)

    def read(mm: MmStruct | None, address: int) -> tuple[int, ...] | None:
        data = peek_exactly(mm, address, packed.size)
        return None if data is None else packed.unpack(data)

    return read


def plain(names: str, layout: str) -> StructPrinter:
    """A structure of plain numbers: ``{a=1, b=2}``."""
    read, labels = fields(layout), names.split()

    def text(mm: MmStruct | None, address: int) -> str | None:
        values = read(mm, address)
        if values is None:
            return None
        return "{" + ", ".join(f"{label}={value}" for label, value in zip(labels, values, strict=True)) + "}"

    return text


def pair(first: str, second: str, part: StructPrinter) -> StructPrinter:
    def text(mm: MmStruct | None, address: int) -> str | None:
        one, two = part(mm, address), part(mm, address + 16)
        return None if one is None or two is None else f"{{{first}={one}, {second}={two}}}"

    return text


def array(part: StructPrinter, size: int) -> Callable[[MmStruct | None, int, int], str | None]:
    """``count`` structures of ``size`` bytes in brackets; at most 32 are shown."""

    def text(mm: MmStruct | None, address: int, count: int) -> str | None:
        if count == 0:
            return "[]"
        shown: list[str] = []
        for index in range(min(count, 32)):
            one = part(mm, address + index * size)
            if one is None:
                if not shown:
                    return None
                shown.append(f"... /* {address + index * size:#x} */")
                break
            shown.append(one)
        else:
            if count > 32:
                shown.append("...")
        return f"[{', '.join(shown)}]"

    return text


def buffer_text(mm: MmStruct | None, address: int, length: int) -> str:
    """The bytes at ``address``, the first 32 of them; the address when they are not readable."""
    data = peek_exactly(mm, address, min(length, _AT_MOST_BYTES))
    return pointer(address) if data is None else quote(data, ellipsis=length > _AT_MOST_BYTES)


def string_text(mm: MmStruct | None, address: int, max_len: int = 4096) -> str:
    found = peek_string(mm, address, max_len) if address else None
    return pointer(address) if found is None else quote(found[0], ellipsis=not found[1])


read_int = fields("<i")
read_uint = fields("<I")
read_u64 = fields("<Q")


def int_at(mm: MmStruct | None, address: int) -> str | None:
    values = read_int(mm, address)
    return None if values is None else f"[{values[0]}]"


def uint_at(mm: MmStruct | None, address: int) -> str | None:
    values = read_uint(mm, address)
    return None if values is None else f"[{values[0]}]"


def pointer_at(mm: MmStruct | None, address: int) -> str | None:
    values = read_u64(mm, address)
    return None if values is None else f"[{pointer(values[0])}]"


def string_array(mm: MmStruct | None, address: int) -> str:
    """``["echo", "hi"]``: argv."""
    if not address:
        return "NULL"
    shown: list[str] = []
    for index in range(33):
        values = read_u64(mm, address + 8 * index)
        if values is None:
            return pointer(address) if not shown else f"[{', '.join(shown)}, ...]"
        if values[0] == 0:
            break
        shown.append("..." if index == 32 else string_text(mm, values[0], 4096))
    return f"[{', '.join(shown)}]"


def count_pointers(mm: MmStruct | None, address: int) -> int | None:
    """How many entries a NULL-terminated array of pointers has."""
    count = 0
    while True:
        values = read_u64(mm, address + 8 * count)
        if values is None:
            return None
        if values[0] == 0:
            return count
        count += 1
