"""One program under several kernels: what the choice of rules does to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from emu.jobs import Job, Outcome, read_stdin, run_jobs

if TYPE_CHECKING:
    from emu.machine import Machine, MachineConfig

SCHEMA_VERSION = 1
MAX_REFUSALS_KEPT = 2000
"""Refusals of one run that are kept for --explain; what is beyond is counted only."""


class RefusalCollector:
    """Every ``mm:merge_refused`` of a run, as records (emu/trace/explain.py)."""

    def __init__(self, machine: Machine) -> None:
        from emu.trace.explain import refusal_record
        from emu.trace.locate import Locator
        from kernel.mm.rmap.policy import MERGE_REFUSED

        self._refusals: list[dict[str, Any]] = []
        locator = Locator(machine.kernel)
        fields = MERGE_REFUSED.fields

        def probe(_point: Any, values: tuple[Any, ...]) -> None:
            if len(self._refusals) < MAX_REFUSALS_KEPT:
                self._refusals.append(refusal_record(dict(zip(fields, values, strict=True)), locator))

        MERGE_REFUSED.attach(probe)

    def finish(self) -> list[dict[str, Any]]:
        return self._refusals


REFUSALS = "emu.compare:RefusalCollector"


def refusals_of(outcome: Outcome) -> list[dict[str, Any]]:
    """What a :class:`RefusalCollector` found; nothing for a run that did not start."""
    found: list[dict[str, Any]] = outcome.collected.get(REFUSALS, [])
    return found


@dataclass
class Row:
    """One line of the table, and one entry of ``--json``."""

    kernel: str
    exit_status: int | None
    signal: str | None
    output: str
    """``same`` as the reference kernel's, or ``differs``."""
    files: str
    """The same of the files that the program left."""
    areas_end: int | None
    areas_peak: int
    merges: int
    refused: dict[str, int]
    anon_vmas: int
    list_length_mean: float
    list_length_longest: int
    rmap_bytes: int
    mremap: dict[str, int]
    """``ok`` and errno names, with counts."""
    faults: int
    copied_pages: int
    stdout_sha256: str
    stderr_sha256: str
    error: str | None
    unimplemented: dict[str, int]


REASONS = ("flags", "file", "pgoff", "anon_vma")


@dataclass
class Comparison:
    """The outcomes side by side."""

    outcomes: list[Outcome]
    reference: Outcome

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> Comparison:
        """The reference is the newest kernel's run: the last one."""
        return cls(outcomes, outcomes[-1])

    @property
    def agrees(self) -> bool:
        """Does the program behave the same under every kernel?"""
        return all(outcome.behaviour == self.reference.behaviour for outcome in self.outcomes)

    def rows(self) -> list[Row]:
        return [self._row(outcome) for outcome in self.outcomes]

    def _row(self, outcome: Outcome) -> Row:
        stats = outcome.stats
        areas, at_end = stats.get("areas", {}), stats.get("at_end", {})
        same = (outcome.stdout, outcome.stderr) == (self.reference.stdout, self.reference.stderr)
        faults = stats.get("faults", {})
        return Row(
            kernel=outcome.label,
            exit_status=outcome.exit_status,
            signal=outcome.signal,
            output="same" if same else "differs",
            files="same" if outcome.files == self.reference.files else "differs",
            areas_end=at_end.get("areas"),
            areas_peak=areas.get("peak", 0),
            merges=sum(areas.get("merges", {}).values()),
            refused=areas.get("refused", {}),
            anon_vmas=at_end.get("anon_vmas", 0),
            list_length_mean=at_end.get("list_length_mean", 0.0),
            list_length_longest=at_end.get("list_length_longest", 0),
            rmap_bytes=at_end.get("rmap_bytes", 0),
            mremap=stats.get("mremap", {}),
            faults=faults.get("total", 0),
            copied_pages=faults.get("copied_pages", 0),
            stdout_sha256=hashlib.sha256(outcome.stdout).hexdigest(),
            stderr_sha256=hashlib.sha256(outcome.stderr).hexdigest(),
            error=outcome.error,
            unimplemented=outcome.unimplemented,
        )

    def as_json(self, argv: Sequence[str]) -> dict[str, Any]:
        """The whole comparison; the schema is emu/schema/compare-1.json."""
        return {
            "type": "compare",
            "schema": SCHEMA_VERSION,
            "argv": list(argv),
            "reference": self.reference.label,
            "agree": self.agrees,
            "kernels": [asdict(row) for row in self.rows()],
        }


def compare(
    config: MachineConfig,
    kernels: Sequence[str],
    argv: Sequence[str],
    *,
    wants_refusals: bool = False,
    wants_stories: bool = False,
    on_done: Callable[[int], None] | None = None,
) -> Comparison:
    """Run ``argv`` under every one of ``kernels``.  ValueError for overrides that contradict a kernel."""
    stdin = read_stdin()
    jobs = [
        Job(
            name,
            replace(config, kernel=name),
            tuple(argv),
            stdin,
            collectors=(REFUSALS,) if wants_refusals else (),
            wants_story=wants_stories,
        )
        for name in kernels
    ]
    return Comparison.of(run_jobs(jobs, on_done))


