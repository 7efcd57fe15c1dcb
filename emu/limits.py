"""What a machine is allowed, as questions: "and with 100 areas?", "and if every mremap moved?".

``--limit KEY=VALUE`` sets one limit; a limits file (TOML) asks several questions at once: every ``[table]`` is one
machine to try, and keys before the first table hold for all of them::

    overcommit_memory = 2

    [small]
    rlimit_as = "64M"
    max_map_count = 100

    [moving]
    always_move = true
    fail = ["mmap:ENOMEM@10..", "mremap:ENOMEM@every3"]

:data:`KEYS` lists what can be limited.  Sizes are numbers of bytes or strings with K, M, G, T (powers of 1024).

A limit is stronger than the option of the same meaning: ``--ram 1G --limit ram=16M`` is a machine with 16M.

Deliberate difference: RLIMIT_* are those of the first program (soft and hard, as the shell's ``ulimit`` sets them); a
process with CAP_SYS_RESOURCE may raise them again, as on any Linux.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from emu.machine import MachineConfig
    from kernel.mm.what_if import WhatIf

MIN_RAM_BYTES = 1 << 20
MAX_RAM_BYTES = 16 << 30
UNLIMITED = 0xFFFF_FFFF_FFFF_FFFF
"""RLIM_INFINITY."""

_INT_MAX = 0x7FFF_FFFF
_MREMAP_RULES = ("2.6", "6.1", "6.17")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+)([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int | None:
    """``64M``, ``1GiB``, ``4096``: bytes; ``M`` is 2**20.  None if it is no size."""
    match = _SIZE.fullmatch(text)
    return None if match is None else int(match[1]) * _UNITS[match[2].upper()]


def size_text(nr_bytes: int) -> str:
    """The shortest exact way to write ``nr_bytes``."""
    if nr_bytes == UNLIMITED:
        return "unlimited"
    for suffix, unit in reversed(_UNITS.items()):
        if nr_bytes and nr_bytes % unit == 0:
            return f"{nr_bytes // unit}{suffix}"
    return str(nr_bytes)


@dataclass(frozen=True)
class Limits:
    """What is limited; None and False: as the machine has it otherwise."""

    max_map_count: int | None = None
    """Most areas of one address space (/proc/sys/vm/max_map_count)."""
    rlimit_as: int | None = None
    """RLIMIT_AS of the first program, in bytes; the other RLIMIT_* likewise."""
    rlimit_data: int | None = None
    rlimit_memlock: int | None = None
    rlimit_stack: int | None = None
    overcommit_memory: int | None = None
    """0 guess, 1 always, 2 never: proc(5)."""
    overcommit_ratio: int | None = None
    """Per cent of RAM that may be promised in mode 2."""
    ram: int | None = None
    """Bytes."""
    swap: str | None = None
    """A size, as ``--swap`` takes it; ``0`` is none."""
    mremap: str | None = None
    """Rule set of mremap: RMAP.md section 9."""
    no_move_after_fork: bool = False
    """This and the next three: kernel/mm/what_if.py."""
    never_grow_in_place: bool = False
    always_move: bool = False
    split_spanning: bool = False
    fail: tuple[str, ...] = ()
    """Failures to inject, beside those of ``--fail``: kernel/fault_inject.py."""

    @property
    def is_empty(self) -> bool:
        """Is nothing limited?"""
        return self == Limits()

    def describe(self) -> str:
        """``max_map_count=100, always_move``; ``no limits`` if nothing is limited."""
        parts = []
        for name, value in self._given():
            if value is True:
                parts.append(name)
            elif name == "fail":
                parts += [f"fail={spec}" for spec in value]
            else:
                is_size = isinstance(value, int) and KEYS[name].is_size
                parts.append(f"{name}={size_text(value) if is_size else value}")
        return ", ".join(parts) or "no limits"

    def as_json(self) -> dict[str, Any]:
        """What is limited, by key, as a limits file would say it (sizes in bytes)."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._given()}

    def _given(self) -> list[tuple[str, Any]]:
        values = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, value) for name, value in values if value is not None and value is not False and value != ()]

    def over(self, base: Limits) -> Limits:
        """``base`` with everything that this limits in its stead; failures of both are injected."""
        given = dict(self._given())
        given["fail"] = tuple(dict.fromkeys(base.fail + self.fail))
        return replace(base, **given)

    def apply_to(self, config: MachineConfig) -> MachineConfig:
        """``config`` with these limits, which are stronger than what it limits already."""
        return replace(config, limits=self.over(config.limits))

    def rlimits(self) -> dict[int, int]:
        """Resource -> bytes, for the first program."""
        from kernel.abi.resource import RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK

        wanted = {
            RLIMIT_AS: self.rlimit_as,
            RLIMIT_DATA: self.rlimit_data,
            RLIMIT_MEMLOCK: self.rlimit_memlock,
            RLIMIT_STACK: self.rlimit_stack,
        }
        return {resource: limit for resource, limit in wanted.items() if limit is not None}

    def what_if(self) -> WhatIf:
        """What is asked of the kernel's mremap."""
        from kernel.mm.what_if import WhatIf

        return WhatIf(
            no_move_after_fork=self.no_move_after_fork,
            never_grow_in_place=self.never_grow_in_place,
            always_move=self.always_move,
            split_spanning=self.split_spanning,
        )


NO_LIMITS = Limits()


class Question(NamedTuple):
    """One table of a limits file."""

    name: str
    limits: Limits


# ---- what each key takes -----------------------------------------------------------------------------------------


class Key(NamedTuple):
    """What one limit takes.  ``read`` gives the value of a :class:`Limits` field, or None if it is not allowed."""

    allowed: str
    read: Callable[[object], Any]
    is_size: bool = False
    is_flag: bool = False


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(low: int, high: int) -> Callable[[object], int | None]:
    def read(value: object) -> int | None:
        return value if isinstance(value, int) and _is_int(value) and low <= value <= high else None

    return read


def _bytes(low: int, high: int) -> Callable[[object], int | None]:
    def read(value: object) -> int | None:
        nr_bytes = parse_size(value) if isinstance(value, str) else value if _is_int(value) else None
        return nr_bytes if isinstance(nr_bytes, int) and low <= nr_bytes <= high else None

    return read


def _rlimit(value: object) -> int | None:
    return UNLIMITED if value == "unlimited" else _bytes(0, UNLIMITED - 1)(value)


def _swap(value: object) -> str | None:
    from emu.swapdev import MAX_SWAP_BYTES, MIN_SWAP_BYTES

    nr_bytes = _bytes(0, MAX_SWAP_BYTES)(value)
    return None if nr_bytes is None or 0 < nr_bytes < MIN_SWAP_BYTES else size_text(nr_bytes)


def _rules(value: object) -> str | None:
    return value if isinstance(value, str) and value in _MREMAP_RULES else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _failures(value: object) -> tuple[str, ...] | None:
    """ValueError, with a text of its own, for a string that is no failure."""
    from kernel.fault_inject import parse_fail

    specs = [value] if isinstance(value, str) else value
    if not isinstance(specs, list) or not all(isinstance(spec, str) for spec in specs):
        return None
    for spec in specs:
        try:
            parse_fail(spec)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("--fail ")) from None
    return tuple(specs)


_RLIMIT = Key('bytes, a size such as "64M", or "unlimited"', _rlimit, is_size=True)
_FLAG = Key("true or false", _flag, is_flag=True)

KEYS: dict[str, Key] = {
    "max_map_count": Key("a number of areas from 1 to 2147483647", _number(1, _INT_MAX)),
    "rlimit_as": _RLIMIT,
    "rlimit_data": _RLIMIT,
    "rlimit_memlock": _RLIMIT,
    "rlimit_stack": _RLIMIT,
    "overcommit_memory": Key("0 (guess), 1 (always) or 2 (never)", _number(0, 2)),
    "overcommit_ratio": Key("per cent of RAM, from 0 to 2147483647", _number(0, _INT_MAX)),
    "ram": Key('bytes or a size such as "16M", from 1M to 16G', _bytes(MIN_RAM_BYTES, MAX_RAM_BYTES), is_size=True),
    "swap": Key('bytes or a size such as "64M", from 40K to 64G; 0 for none', _swap),
    "mremap": Key('"2.6", "6.1" or "6.17"', _rules),
    "no_move_after_fork": _FLAG,
    "never_grow_in_place": _FLAG,
    "always_move": _FLAG,
    "split_spanning": _FLAG,
    "fail": Key('a failure such as "mremap:EFAULT@3", or a list of them', _failures),
}


def read_value(name: str, value: object) -> Any:
    """The value of the :class:`Limits` field ``name`` from TOML's ``value``.

    ValueError: ``KEY: what is allowed``.
    """
    key = KEYS.get(name)
    if key is None:
        raise ValueError(f"{name}: no such limit{_did_you_mean(name)}; there are {', '.join(KEYS)}")
    try:
        found = key.read(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if found is None:
        raise ValueError(f"{name}: {key.allowed}, not {_shown(value)}")
    return found


def _did_you_mean(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name.lower().replace("-", "_"), KEYS, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _shown(value: object) -> str:
    """``value`` as TOML writes it, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a table"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


# ---- --limit -----------------------------------------------------------------------------------------------------


def parse_limit(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``, or ``KEY`` alone for what is only on or off: the field of :class:`Limits` and its value.

    ValueError: ``KEY: what is allowed``.
    """
    name, equals, content = text.partition("=")
    name, content = name.strip(), content.strip()
    key = KEYS.get(name)
    value: object = content
    if key is not None and key.is_flag:
        value = {"true": True, "false": False}.get(content, content) if equals else True
    elif key is not None and not equals:
        raise ValueError(f"{name}: write {name}=VALUE: {key.allowed}")
    elif content.isascii() and content.isdecimal():
        value = int(content)
    return name, read_value(name, value)


def limits_of(texts: Iterable[str]) -> Limits:
    """All ``--limit`` options of one command.  ValueError, also for a key that is given twice (but ``fail``)."""
    given: dict[str, Any] = {}
    for text in texts:
        name, value = parse_limit(text)
        if name == "fail":
            value = given.get("fail", ()) + value
        elif name in given:
            raise ValueError(f"{name}: given twice")
        given[name] = value
    return Limits(**given)


# ---- limits files ------------------------------------------------------------------------------------------------


def read_limits(path: str) -> list[Question]:
    """The questions of a limits file, in its order; a file without tables is one question, named after the file.

    ValueError: ``FILE:LINE: KEY: what is allowed``.  OSError if the file cannot be read.
    """
    from emu.limits_file import parse_limits_file

    return parse_limits_file(path)
