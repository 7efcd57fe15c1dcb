"""The arguments of a system call as strace prints them, from their declaration (``kernel/syscalls/table.py``).

Arguments that the call reads are printed at entry, those that it fills at exit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag
from typing import TYPE_CHECKING, Any

from emu.trace.layout import buffer_text, string_text
from emu.trace.quote import enum_text, flags_text, pointer
from emu.trace.structs import STRUCTS
from emu.trace.structs_files import iovecs
from kernel.abi.fcntl import AT_FDCWD
from kernel.abi.signal import signal_name
from kernel.syscalls.table import Param, Width

if TYPE_CHECKING:
    from kernel.mm.types import MmStruct

_MASK64 = (1 << 64) - 1


@dataclass(slots=True)
class Call:
    """One system call under way or done, as the printers see it."""

    task: Any
    mm: MmStruct | None
    name: str
    params: Sequence[Param]
    args: tuple[int, ...]
    """Raw registers."""
    texts: list[str | None] = field(default_factory=list)
    """Of the arguments; None: printed at exit."""
    ret: int | None = None
    """None: not returned."""
    error: int = 0
    """errno, a positive number, restart codes included; 0 for success."""

    def value(self, index: int) -> int:
        """Argument ``index``, cut and signed as declared."""
        return decode(self.params[index].width, self.args[index])

    @property
    def failed(self) -> bool:
        return self.error != 0


Printer = Callable[[Call, int], str]


class When(Enum):
    ENTRY = "entry"
    EXIT = "exit"


def decode(width: Width, raw: int) -> int:
    if width is Width.INT:
        return (raw & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    if width is Width.UINT:
        return raw & 0xFFFFFFFF
    if width is Width.LONG:
        return (raw ^ 1 << 63) - (1 << 63)
    return raw


def signal_text(signo: int) -> str:
    return signal_name(signo) if 1 <= signo <= 64 else str(signo)


def mode_bits(mode: int) -> str:
    """``0644``, ``022``, ``000``: C's ``%#03o``."""
    return f"0{mode & 0xFFFF:o}".zfill(3)


def hexadecimal(call: Call, value: int) -> str:
    return f"{value & _MASK64:#x}" if value else "0"


_OWNERS = ("owner", "group", "user", "uid", "gid", "ruid", "rgid", "euid", "egid", "suid", "sgid")


def _owner(call: Call, value: int) -> str:
    """A user or group id: all bits set means no change."""
    return "-1" if value == 0xFFFFFFFF else str(value)


def _plain(call: Call, value: int) -> str:
    return str(value)


def _fd(call: Call, value: int) -> str:
    return "AT_FDCWD" if value == AT_FDCWD else str(value)


_BY_KIND: dict[str, Printer] = {
    "fd": _fd,
    "addr": lambda call, value: pointer(value),
    "path": lambda call, value: string_text(call.mm, value),
    "mode": lambda call, value: mode_bits(value),
    "signo": lambda call, value: signal_text(value),
}


def _flags(enum: type[IntFlag], width: Width) -> Printer:
    mask = 0xFFFFFFFF if width in (Width.INT, Width.UINT) else _MASK64
    return lambda call, value: flags_text(enum, value & mask)


def _enum(enum: type[IntEnum]) -> Printer:
    return lambda call, value: enum_text(enum, value)


def _struct(name: str, when: When) -> Printer:
    read = STRUCTS.get(name)

    def text(call: Call, value: int) -> str:
        if read is None or not value or (when is When.EXIT and call.failed):
            return pointer(value)
        return read(call.mm, value) or pointer(value)

    return text


def _addresses_of_buffers(count_index: int) -> Printer:
    """An array of iovecs, without what they point to."""
    return lambda call, value: iovecs(call.mm, value, call.value(count_index), -1) or pointer(value)


def _buffer_in(size_index: int) -> Printer:
    return lambda call, value: buffer_text(call.mm, value, call.value(size_index)) if value else "NULL"


def buffer_out(call: Call, value: int) -> str:
    """What the call wrote: as many bytes as it returned."""
    if call.failed or not value or call.ret is None:
        return pointer(value)
    return buffer_text(call.mm, value, call.ret)


def printer_of(params: Sequence[Param], index: int) -> tuple[When, Printer]:
    """How argument ``index`` is printed, and when it is known."""
    param = params[index]
    direction, _, struct_name = param.kind.partition(":")
    if struct_name == "iovec":
        return When.ENTRY, _addresses_of_buffers(index + 1)
    if direction in ("in", "out") and struct_name:
        when = When.ENTRY if direction == "in" else When.EXIT
        return when, _struct(struct_name, when)
    if param.kind == "buf_out":
        return When.EXIT, buffer_out
    if param.kind == "buf_in":
        size = next((i for i in range(index + 1, len(params)) if params[i].kind == "size"), None)
        return When.ENTRY, _buffer_in(size) if size is not None else _BY_KIND["addr"]
    if param.enum is not None:
        if issubclass(param.enum, IntFlag):
            return When.ENTRY, _flags(param.enum, param.width)
        return When.ENTRY, _enum(param.enum)
    if param.name in _OWNERS:
        return When.ENTRY, _owner
    return When.ENTRY, _BY_KIND.get(param.kind, _plain)
