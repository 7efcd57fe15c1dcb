"""Why two areas did not become one: ``mm:merge_refused`` as a record, and as a few lines to read.

The record names both areas, the rule that refused, and, where that was the anon_vma, the first writes that made the two
anon_vmas, each with its instruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kernel.mm.types import (
    PAGE_SHIFT,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_RAND_READ,
    VM_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
)

if TYPE_CHECKING:
    from emu.trace.locate import Locator
    from kernel.mm.rmap.policy import FirstWrite

_FLAG_NAMES = {
    VM_READ: "VM_READ",
    VM_WRITE: "VM_WRITE",
    VM_EXEC: "VM_EXEC",
    VM_SHARED: "VM_SHARED",
    VM_MAYREAD: "VM_MAYREAD",
    VM_MAYWRITE: "VM_MAYWRITE",
    VM_MAYEXEC: "VM_MAYEXEC",
    VM_MAYSHARE: "VM_MAYSHARE",
    VM_GROWSDOWN: "VM_GROWSDOWN",
    VM_LOCKED: "VM_LOCKED",
    VM_SEQ_READ: "VM_SEQ_READ",
    VM_RAND_READ: "VM_RAND_READ",
    VM_DONTCOPY: "VM_DONTCOPY",
    VM_ACCOUNT: "VM_ACCOUNT",
    VM_NORESERVE: "VM_NORESERVE",
    VM_WIPEONFORK: "VM_WIPEONFORK",
}


def permission_text(vm_flags: int) -> str:
    """``rw-p``."""
    letters = "".join(c if vm_flags & bit else "-" for c, bit in zip("rwx", (VM_READ, VM_WRITE, VM_EXEC), strict=True))
    return letters + ("s" if vm_flags & VM_SHARED else "p")


def flag_names(vm_flags: int) -> list[str]:
    """The names of the bits of ``vm_flags``; bits without one as a hexadecimal number."""
    names = [name for bit, name in _FLAG_NAMES.items() if vm_flags & bit]
    rest = vm_flags & ~sum(_FLAG_NAMES)
    return names + ([f"{rest:#x}"] if rest else [])


def refusal_record(values: Mapping[str, Any], locator: Locator) -> dict[str, Any]:
    """The values of ``mm:merge_refused`` as plain data; ``lower`` and ``upper`` are the two areas by address."""
    mm, area, near = values["mm"], values["area"], values["near"]
    wanted = {
        "start": f"{area.vm_start:#x}",
        "end": f"{area.vm_end:#x}",
        "perms": permission_text(area.vm_flags),
        "pgoff": area.vm_pgoff,
        "anon_vma": _number(values["anon_vma"]),
        "is_new": area.source is None,
        "first_write": _write_record(values["first_write"], mm, locator) if values["anon_vma"] is not None else None,
    }
    other = {
        "start": f"{near.vm_start:#x}",
        "end": f"{near.vm_end:#x}",
        "perms": permission_text(near.vm_flags),
        "pgoff": near.vm_pgoff,
        "anon_vma": _number(values["near_anon_vma"]),
        "is_new": False,
        "first_write": _write_record(values["near_first_write"], mm, locator)
        if values["near_anon_vma"] is not None
        else None,
    }
    lower, upper = (other, wanted) if near.vm_start < area.vm_start else (wanted, other)
    difference = area.vm_flags ^ near.vm_flags
    return {
        "mm": mm.id,
        "reason": values["reason"],
        "lower": lower,
        "upper": upper,
        "differing_flags": flag_names(difference) if values["reason"] == "flags" else [],
    }


def _number(anon_vma: Any) -> int | None:
    """As every view numbers it: by birth, the same every run."""
    return None if anon_vma is None else int(anon_vma.id)


def _write_record(first: FirstWrite | None, mm: Any, locator: Locator) -> dict[str, Any] | None:
    if first is None:
        return None
    place = locator.code(mm, first.ip)
    return {
        "pid": first.task.pid if first.task is not None else 0,
        "address": None if first.vaddr is None else f"{first.vaddr:#x}",
        "ip": f"{first.ip:#x}",
        "code": place.symbol_text,
        "file": None if place.source is None else place.source.path,
        "line": None if place.source is None else place.source.line,
        "insn": place.insn,
    }


def refusal_lines(record: Mapping[str, Any]) -> list[str]:
    """A refusal for people: one line that says it, one for each area, one for each first write."""
    lower, upper = record["lower"], record["upper"]
    lines = [f"stay apart: {_range(lower)} and {_range(upper)}: {_why(record)}"]
    for area in (lower, upper):
        lines.append(f"    {_area_text(area)}")
        first = area["first_write"]
        if first is not None and record["reason"] == "anon_vma":
            lines.append(f"        {_first_write_text(first)}")
    return lines


def _range(area: Mapping[str, Any]) -> str:
    return f"{area['start'][2:]}-{area['end'][2:]}"


def _area_text(area: Mapping[str, Any]) -> str:
    nr_pages = (int(area["end"], 16) - int(area["start"], 16)) >> PAGE_SHIFT
    size = "1 page" if nr_pages == 1 else f"{nr_pages} pages"
    anon_vma = "no anon_vma (never written)" if area["anon_vma"] is None else f"anon_vma #{area['anon_vma']}"
    born = "  (new)" if area["is_new"] else ""
    return f"{_range(area)} {area['perms']}  {size}, page offset {area['pgoff']:#x}, {anon_vma}{born}"


def _first_write_text(first: Mapping[str, Any]) -> str:
    where = f" at {first['address']}" if first["address"] is not None else ""
    source = f" {first['file'].rsplit('/', 1)[-1]}:{first['line']}" if first["file"] else ""
    return f"first written{where} by {first['code']}{source}: {first['insn'] or '?'}"


def _why(record: Mapping[str, Any]) -> str:
    reason = record["reason"]
    if reason == "flags":
        return "flags differ: " + ", ".join(record["differing_flags"])
    if reason == "anon_vma":
        lower, upper = record["lower"]["anon_vma"], record["upper"]["anon_vma"]
        if lower is not None and upper is not None and lower != upper:
            return f"they were first written apart, and have anon_vmas #{lower} and #{upper}"
        return "the rules of this kernel do not join an area with an anon_vma and this neighbour"
    return REASON_TEXTS.get(reason, reason)


REASON_TEXTS = {
    "file": "they map different files, or only one maps a file",
    "pgoff": "their page offsets do not continue (one was moved)",
    "close": "one is a special mapping",
    "policy": "their memory policies differ",
    "anon_name": "they have different names (PR_SET_VMA_ANON_NAME)",
}


def refusal_key(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes two refusals the same: the two ranges and the rule."""
    lower, upper = record["lower"], record["upper"]
    return lower["start"], lower["end"], upper["start"], upper["end"], record["reason"]


def unique_refusals(records: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], int]]:
    """Each refusal once, with how often it was met, in the order of the first."""
    found: dict[tuple[str, ...], tuple[Mapping[str, Any], int]] = {}
    for record in records:
        key = refusal_key(record)
        first, count = found.get(key, (record, 0))
        found[key] = (first, count + 1)
    return list(found.values())
