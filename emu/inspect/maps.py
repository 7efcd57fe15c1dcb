"""``pagewalk maps``: the areas of an address space.

Without options the text is that of /proc/PID/maps (``--smaps``: of /proc/PID/smaps), byte for byte.  The options add
what Linux does not show: the anon_vma of each area with the write that made it, the verdict of the kernel's merge rules
between neighbours that touch, the holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emu.inspect.columns import count_text
from emu.inspect.identity import (
    Verdict,
    anon_text,
    anon_vma_number,
    chain_numbers,
    first_write_text,
    verdict,
)
from emu.trace.explain import flag_names, permission_text
from emu.trace.locate import Locator
from kernel.abi.stat import dev_major, dev_minor
from kernel.mm.task_mmu import MemSizeStats, maps_line, smaps_entry, vma_name
from kernel.mm.types import PAGE_SHIFT, Vma

if TYPE_CHECKING:
    from emu.inspect.moment import Scene

_SMAPS_BYTES = (
    "resident", "shared_clean", "shared_dirty", "private_clean", "private_dirty", "referenced", "anonymous",
    "lazyfree", "swap",
)  # fmt: skip
_SMAPS_SHIFTED = ("pss", "pss_dirty", "swap_pss")  # bytes << 12


@dataclass(frozen=True)
class MapsOptions:
    where: str | None = None
    """An address, or a part of a name; None: every area."""
    nr_before: int = 0
    nr_after: int = 0
    explain: bool = False
    gaps: bool = False
    smaps: bool = False


@dataclass(frozen=True)
class AreaRow:
    """One area as it was."""

    start: int
    end: int
    perms: str
    offset: int
    dev: str
    inode: int
    name: str
    flags: list[str]
    anon_vma: int | None
    chain: list[int]
    first_write: str | None
    hole_before: int
    """Bytes of the hole between the area below and this one."""
    verdict: Verdict | None
    """Of this area and the one below; None when they do not touch."""
    line: str
    """As in /proc/PID/maps."""
    anon: str
    smaps_text: str
    smaps: dict[str, int]
    is_hit: bool

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "start": f"{self.start:#x}",
            "end": f"{self.end:#x}",
            "perms": self.perms,
            "offset": f"{self.offset:#x}",
            "dev": self.dev,
            "inode": self.inode,
            "name": self.name,
            "flags": self.flags,
            "anon_vma": self.anon_vma,
            "anon_vma_chain": self.chain,
            "first_write": self.first_write,
            "hole_before_bytes": self.hole_before,
            "verdict": None if self.verdict is None else self.verdict.as_json(),
        }
        return found | ({"smaps": self.smaps} if self.smaps else {})


class MapsView:
    """The areas of one mm at one moment; :attr:`rows` are those that were asked for."""

    def __init__(self, scene: Scene, options: MapsOptions) -> None:
        self._head = scene.as_json()
        self._options = options
        self._total = scene.mm.map_count
        locator = Locator(scene.kernel)
        areas = list(scene.mm.areas)
        hits = {i for i, vma in enumerate(areas) if _matches(vma, options.where)}
        shown = range(len(areas)) if options.where is None else _with_neighbours(hits, len(areas), options)
        self.rows = [
            _row(vma, areas[i - 1] if i else None, locator, options, i in hits and options.where is not None)
            for i, vma in enumerate(areas)
            if i in shown
        ]
        self.has_hit = bool(hits)

    def as_json(self) -> dict[str, Any]:
        areas = [row.as_json() | ({"hit": row.is_hit} if self._options.where is not None else {}) for row in self.rows]
        return {"type": "maps", "schema": 1, **self._head, "map_count": self._total, "areas": areas}

    def lines(self) -> list[str]:
        options = self._options
        lines: list[str] = []
        width = max((len(row.line) for row in self.rows), default=0)
        before: AreaRow | None = None
        for row in self.rows:
            margin = "" if options.where is None else "=> " if row.is_hit else "   "
            blank = " " * len(margin)
            if options.gaps and row.hole_before:
                lines.append(f"{blank}{_hole_text(row)}")
            if options.explain and row.verdict is not None and before is not None and before.end == row.start:
                lines.append(f"{blank}    | {row.verdict.text}")
            if options.smaps:
                first, *rest = row.smaps_text.splitlines()
                lines += [margin + first, *(blank + line for line in rest)]
            else:
                lines.append(margin + (f"{row.line:<{width}}  {row.anon}" if options.explain else row.line))
            if options.explain and row.first_write is not None:
                lines.append(f"{blank}    {row.first_write}")
            before = row
        return lines


def _matches(vma: Vma, where: str | None) -> bool:
    if where is None:
        return False
    address = parse_address(where)
    if address is not None:
        return vma.vm_start <= address < vma.vm_end
    return where in vma_name(vma)


def parse_address(text: str) -> int | None:
    """``0x7ffd1000`` or ``7ffd1000``; None when it is no hexadecimal number."""
    try:
        return int(text, 16)
    except ValueError:
        return None


def _with_neighbours(hits: set[int], nr_areas: int, options: MapsOptions) -> set[int]:
    shown: set[int] = set()
    for hit in hits:
        shown.update(range(max(0, hit - options.nr_before), min(nr_areas, hit + options.nr_after + 1)))
    return shown


def _row(vma: Vma, below: Vma | None, locator: Locator, options: MapsOptions, is_hit: bool) -> AreaRow:
    file = vma.vm_file
    dev = file.f_inode.i_sb.s_dev if file is not None else 0
    return AreaRow(
        start=vma.vm_start,
        end=vma.vm_end,
        perms=permission_text(vma.vm_flags),
        offset=vma.vm_pgoff << PAGE_SHIFT if file is not None else 0,
        dev=f"{dev_major(dev):02x}:{dev_minor(dev):02x}",
        inode=file.f_inode.i_ino if file is not None else 0,
        name=vma_name(vma),
        flags=flag_names(vma.vm_flags),
        anon_vma=anon_vma_number(vma),
        chain=chain_numbers(vma),
        first_write=first_write_text(vma, locator) if options.explain else None,
        hole_before=vma.vm_start - (below.vm_end if below is not None else 0),
        verdict=verdict(below, vma) if below is not None else None,
        line=maps_line(vma),
        anon=anon_text(vma),
        smaps_text=smaps_entry(vma) if options.smaps else "",
        smaps=_smaps(vma) if options.smaps else {},
        is_hit=is_hit,
    )


def _smaps(vma: Vma) -> dict[str, int]:
    """The counters of smaps, in bytes."""
    stats = MemSizeStats()
    stats.add_vma(vma)
    found = {f"{name}_bytes": int(getattr(stats, name)) for name in _SMAPS_BYTES}
    return found | {f"{name}_bytes": int(getattr(stats, name)) >> 12 for name in _SMAPS_SHIFTED}


def _hole_text(row: AreaRow) -> str:
    start = row.start - row.hole_before
    return f"{start:08x}-{row.start:08x} ----  hole of {count_text(row.hole_before >> PAGE_SHIFT, 'page')}"
