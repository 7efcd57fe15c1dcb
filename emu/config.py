"""What a machine is made of: the settings behind ``Machine(kernel=..., ram=...)`` and behind the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from emu.limits import MAX_RAM_BYTES, MIN_RAM_BYTES, NO_LIMITS, Limits, parse_size
from kernel.fault_inject import parse_fail
from kernel.profile import DEFAULT_KERNEL, resolve_profile


class MachineOptions(TypedDict, total=False):
    """The keywords of :class:`emu.Machine`: the fields of :class:`MachineConfig`, with sizes as people write them."""

    kernel: str
    rmap: str | None
    mremap: str | None
    bugs: Sequence[str]
    ram: int | str
    swap: int | str | None
    root: str
    writable: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None
    seed: int
    aslr: bool
    clock: str
    max_map_count: int | None
    check: int
    record_stats: bool
    fail: Sequence[str]
    limits: Limits


@dataclass
class MachineConfig:
    """What a machine is made of.  ValueError when it cannot be built."""

    kernel: str = DEFAULT_KERNEL
    rmap: str | None = None
    mremap: str | None = None
    bugs: tuple[str, ...] = ()
    ram_bytes: int = 256 << 20
    swap: str | None = None
    """``SIZE`` for a temporary file, or ``FILE:SIZE``."""
    root: str = "/"
    writable: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    seed: int = 0
    aslr: bool = False
    clock: str = "virtual"
    max_map_count: int | None = None
    check: int = 0
    """Check all invariants after every so many system calls and faults; 0 never."""
    record_stats: bool = False
    """Also count what only events tell (emu/stats.py)."""
    fail: tuple[str, ...] = ()
    """Failures to inject: kernel/fault_inject.py."""
    limits: Limits = NO_LIMITS
    """What it is allowed; stronger than the fields of the same meaning, which are made to say the same."""

    def __post_init__(self) -> None:
        limits = self.limits
        self.ram_bytes = self.ram_bytes if limits.ram is None else limits.ram
        self.swap = self.swap if limits.swap is None else limits.swap if limits.swap != "0" else None
        self.mremap = limits.mremap or self.mremap
        self.max_map_count = limits.max_map_count or self.max_map_count
        self.fail = tuple(dict.fromkeys(self.fail + limits.fail))
        for spec in self.fail:
            parse_fail(spec)
        if not MIN_RAM_BYTES <= self.ram_bytes <= MAX_RAM_BYTES:
            raise ValueError(f"RAM of {self.ram_bytes} bytes: from 1M to 16G is possible")
        resolve_profile(self.kernel, self.rmap, self.mremap, self.bugs)


def fields_of(options: MachineOptions) -> dict[str, Any]:
    """The fields of :class:`MachineConfig` that ``options`` give.  ValueError for what is no size."""
    fields: dict[str, Any] = dict(options)
    if "ram" in fields:
        fields["ram_bytes"] = _bytes(fields.pop("ram"))
    if isinstance(fields.get("swap"), int):
        fields["swap"] = str(fields["swap"])
    for name, make in (("bugs", tuple), ("fail", tuple), ("writable", list), ("env", dict)):
        if name in fields:
            fields[name] = make(fields[name])
    return fields


def _bytes(size: int | str) -> int:
    nr_bytes = parse_size(size) if isinstance(size, str) else size
    if nr_bytes is None:
        raise ValueError(f"{size!r} is no size; write bytes, or a number with K, M, G or T, such as 64M")
    return nr_bytes
