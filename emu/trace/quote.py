"""Strings, numbers and flags as strace prints them (``src/util.c``: string_quote, printflags, printxval)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, IntFlag
from functools import lru_cache

_SHORT = {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r", 0x0B: "\\v", 0x0C: "\\f", ord('"'): '\\"', 0x5C: "\\\\"}


def quote(data: bytes, ellipsis: bool = False) -> str:
    """``data`` in double quotes with C's octal escapes; ``...`` after it when there was more."""
    out = ['"']
    for index, byte in enumerate(data):
        short = _SHORT.get(byte)
        if short is not None:
            out.append(short)
        elif 0x20 <= byte < 0x7F:
            out.append(chr(byte))
        else:
            next_is_digit = index + 1 < len(data) and 0x30 <= data[index + 1] <= 0x37
            out.append(f"\\{byte:03o}" if next_is_digit else f"\\{byte:o}")
    out.append('"...' if ellipsis else '"')
    return "".join(out)


def quote_hex(data: bytes, ellipsis: bool = False) -> str:
    """``data`` as hexadecimal escapes (random bytes)."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in data) + ('"...' if ellipsis else '"')


def pointer(value: int) -> str:
    return f"{value:#x}" if value else "NULL"


# strace's order where it is not that of the values
_ORDER = {
    name: rank
    for names in (
        """MAP_FIXED MAP_ANONYMOUS MAP_32BIT MAP_NORESERVE MAP_POPULATE MAP_NONBLOCK MAP_GROWSDOWN MAP_DENYWRITE
           MAP_EXECUTABLE MAP_LOCKED MAP_STACK MAP_HUGETLB MAP_SYNC MAP_FIXED_NOREPLACE""",
        "SA_RESTORER SA_ONSTACK SA_RESTART SA_NODEFER SA_RESETHAND SA_SIGINFO SA_NOCLDSTOP SA_NOCLDWAIT",
        """O_CREAT O_EXCL O_NOCTTY O_TRUNC O_APPEND O_NONBLOCK O_SYNC O_DSYNC O_DIRECT O_LARGEFILE O_NOFOLLOW
           O_NOATIME O_CLOEXEC O_PATH O_TMPFILE O_DIRECTORY FASYNC""",
        "WNOHANG WEXITED WSTOPPED WCONTINUED WNOWAIT __WCLONE __WALL __WNOTHREAD",
        "R_OK W_OK X_OK",
        "ST_VALID",
        "MS_SYNC MS_ASYNC MS_INVALIDATE",
        "AT_STATX_FORCE_SYNC AT_STATX_DONT_SYNC",  # the rest by value, after these
    )
    for rank, name in enumerate(names.split())
}

# Members of several bits, and names that an enum class cannot have (a leading double underscore is private to it).
_EXTRA: dict[str, dict[str, int]] = {
    "OpenFlags": {"O_SYNC": 0o4010000, "O_TMPFILE": 0o20200000},
    "WaitOptions": {"__WNOTHREAD": 1 << 29, "__WALL": 1 << 30, "__WCLONE": 1 << 31},
    "StatxMask": {"STATX_BASIC_STATS": 0x7FF, "STATX_ALL": 0xFFF},
}
_RENAMED = {"WUNTRACED": "WSTOPPED", "O_ASYNC": "FASYNC"}


def common_prefix(names: Iterable[str]) -> str:
    """``MADV_`` of the members of an enum: what strace puts before ``???``."""
    heads = {name.split("_", 1)[0] + "_" for name in names if "_" in name}
    return heads.pop() if len(heads) == 1 else ""


@lru_cache(maxsize=256)
def _table(enum: type[IntFlag]) -> list[tuple[int, str]]:
    """(bits, name), members of several bits before their parts."""
    names = {name: int(member) for name, member in enum.__members__.items() if int(member)}
    names.update(_EXTRA.get(enum.__name__, {}))
    rows = [(bits, _RENAMED.get(name, name)) for name, bits in names.items()]
    return sorted(rows, key=lambda row: (-row[0].bit_count(), row[0]))


def _split(enum: type[IntFlag], value: int) -> tuple[list[str], int]:
    """The names of the known bits of ``value`` in strace's order, and the other bits."""
    found: list[tuple[int, int, str]] = []
    for bits, name in _table(enum):
        if value & bits == bits:
            found.append((_ORDER.get(name, 100), bits, name))
            value &= ~bits
    return [name for _, _, name in sorted(found)], value


_MAP_HUGE_SHIFT = 26


@lru_cache(maxsize=4096)
def flags_text(enum: type[IntFlag], value: int) -> str:
    """``A|B|0x40``; ``0x40 /* A_??? */`` when no bit is known; zero is ``0`` or has a name."""
    names = enum.__members__
    if "O_CREAT" in names:
        return _number_and_flags(enum, value, 3, ("O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"))
    if "MAP_ANONYMOUS" in names:
        return _mmap_flags_text(enum, value)
    if not value:
        named = next((name for name, member in names.items() if not int(member)), None)
        return named or ("PROT_NONE" if "PROT_READ" in names else "F_OK" if "R_OK" in names else "0")
    known, rest = _split(enum, value)
    if not known:
        prefix = common_prefix(names)
        return f"{value:#x} /* {prefix}??? */" if prefix else f"{value:#x}"
    return "|".join([*known, f"{rest:#x}"] if rest else known)


def _mmap_flags_text(enum: type[IntFlag], value: int) -> str:
    """The kind, the flags, and in the six highest bits the size of huge pages (where MAP_UNINITIALIZED is, too)."""
    kinds = ("MAP_FILE", "MAP_SHARED", "MAP_PRIVATE", "MAP_SHARED_VALIDATE")
    kind, huge = value & 0xF, value >> _MAP_HUGE_SHIFT & 0x3F
    numbers = (*kinds, *(f"{n:#x} /* MAP_??? */" for n in range(4, kind + 1)))
    text = _number_and_flags(enum, value & ~(0x3F << _MAP_HUGE_SHIFT), 0xF, numbers)
    return f"{text}|{huge}<<MAP_HUGE_SHIFT" if huge else text


def open_bits_text(enum: type[IntFlag], value: int) -> str:
    """Open flags where there is no access mode (pipe2, dup3)."""
    known, rest = _split(enum, value)
    return "|".join([*known, *([f"{rest:#x}"] if rest else [])]) or "0"


def _number_and_flags(enum: type[IntFlag], value: int, mask: int, numbers: tuple[str, ...]) -> str:
    """The low bits are a number with a name of its own (the access mode of open, the kind of mmap)."""
    known, rest = _split(enum, value & ~mask)
    return "|".join([numbers[value & mask], *known, *([f"{rest:#x}"] if rest else [])])


@lru_cache(maxsize=4096)
def enum_text(enum: type[IntEnum], value: int) -> str:
    """The member's name, ``0x63 /* MADV_??? */`` if there is none."""
    try:
        return enum(value).name
    except ValueError:
        return f"{value & 0xFFFFFFFF:#x} /* {common_prefix(enum.__members__)}??? */"
