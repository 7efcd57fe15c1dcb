"""Names for the objects of the reverse map, whatever policy made them, and why two areas stay apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emu.trace.explain import REASON_TEXTS, flag_names
from kernel.mm.merge import why_apart
from kernel.mm.rmap.anon_vma import AnonVma
from kernel.mm.rmap.anon_vma_chain import ChainAnonVma
from kernel.mm.rmap.anonmm import Anonmm
from kernel.mm.types import PAGE_SHIFT, Vma

if TYPE_CHECKING:
    from emu.trace.locate import Locator
    from kernel.kernel import Kernel


def object_name(thing: Any) -> str | None:
    """``anon_vma #3``, ``anonmm #1``; None for anything else."""
    if isinstance(thing, AnonVma | ChainAnonVma):
        return f"anon_vma #{thing.id}"
    return f"anonmm #{thing.id}" if isinstance(thing, Anonmm) else None


def anon_vma_number(vma: Vma) -> int | None:
    """The number of the area's anon_vma; None when it has none, or the policy knows none."""
    return None if vma.anon_vma is None else int(vma.anon_vma.id)


def chain_numbers(vma: Vma) -> list[int]:
    """anon_vma_chain only: every anon_vma whose pages the area may map, the oldest ancestor first."""
    return [] if vma.anon_vma_chain is None else [link.anon_vma.id for link in vma.anon_vma_chain]


def anon_text(vma: Vma) -> str:
    """``anon_vma #3``, ``anon_vma #5 (chain #1 #5)``, ``-``."""
    number = anon_vma_number(vma)
    if number is None:
        return "-"
    chain = chain_numbers(vma)
    linked = f" (chain {' '.join(f'#{n}' for n in chain)})" if len(chain) > 1 else ""
    return f"anon_vma #{number}{linked}"


def first_write_text(vma: Vma, locator: Locator) -> str | None:
    """Who gave the area its anon_vma, if that was noted."""
    first = vma.first_write
    if first is None or vma.anon_vma is None:
        return None
    at = "" if first.vaddr is None else f" at {first.vaddr:#x}"
    task = first.task
    if not first.ip:
        return f"first written{at} by exec"
    code = locator.code(task.mm if task is not None else None, first.ip)
    source = f" {code.source}" if code.source is not None else ""
    return f"first written{at} by {code.symbol_text}{source}"


@dataclass(frozen=True)
class Verdict:
    """May an area and the one above it, which it touches, be one?"""

    reason: str
    """The rule that keeps them apart, a word as in ``mm:merge_refused``; empty: none does."""
    text: str

    def as_json(self) -> dict[str, Any]:
        return {"joins": not self.reason, "reason": self.reason or None, "text": self.text}


def verdict(lower: Vma, upper: Vma) -> Verdict | None:
    """What this kernel would say now; None when the areas do not touch."""
    if lower.vm_end != upper.vm_start:
        return None
    reason = why_apart(lower, upper, upper.vm_flags)
    return Verdict(reason, _verdict_text(lower, upper, reason))


def _verdict_text(lower: Vma, upper: Vma, reason: str) -> str:
    if not reason:
        return "may join: no rule keeps them apart, but no call has asked"
    if reason == "special":
        return "apart: a special mapping never joins"
    if reason == "flags":
        return f"apart: flags differ: {', '.join(flag_names(lower.vm_flags ^ upper.vm_flags))}"
    if reason == "anon_vma":
        low, high = anon_vma_number(lower), anon_vma_number(upper)
        if low is not None and high is not None and low != high:
            return f"apart: anon_vma: first written apart (#{low} and #{high})"
        return "apart: anon_vma: this kernel does not join a written area and this neighbour"
    if reason == "pgoff":
        follows = lower.vm_pgoff + ((lower.vm_end - lower.vm_start) >> PAGE_SHIFT)
        return f"apart: pgoff: {upper.vm_pgoff:#x} does not follow ({follows:#x} would)"
    return f"apart: {reason}: {REASON_TEXTS.get(reason, reason)}"


def users_of(kernel: Kernel) -> dict[int, list[Any]]:
    """mm number -> the tasks that use it, by pid."""
    users: dict[int, list[Any]] = {}
    for task in kernel.tasks.values():
        if task.mm is not None:
            users.setdefault(task.mm.id, []).append(task)
    return users


def mm_text(mm_id: int, users: dict[int, list[Any]]) -> str:
    """``mm #1 (faults, pid 2)``."""
    tasks = users.get(mm_id, [])
    if not tasks:
        return f"mm #{mm_id}"
    pids = ", ".join(str(task.pid) for task in tasks)
    return f"mm #{mm_id} ({tasks[0].comm}, pid {pids})"
