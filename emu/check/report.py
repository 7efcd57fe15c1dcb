"""The whole answer, and its JSON (``schema/check-1.json``): addresses are "0x..." strings, all else as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from emu.check.aftermath import as_json as deeds_json
from emu.check.aftermath import next_deeds
from emu.check.align import site_key
from emu.check.finding import Finding, Site, Where, sites
from emu.check.model import After, AreaState, Boundary, Call, Chain, FirstWrite, Footprint, Frame, MemoryEvent, TaskEnd
from emu.check.verdict import Judged, Noise, OddCall, Trial, Verdict, overall
from emu.limits import Question
from emu.sweep import Coping, SweepRow, summary

SCHEMA_VERSION = 1


_UNTOLD = (Coping.DID_NOT_END, Coping.PAGEWALK_ERROR)


@dataclass
class Sweep:
    """A failure at each mremap of the reference in turn."""

    reference: Trial
    rows: list[SweepRow]

    @property
    def verdict(self) -> Verdict:
        """A program that notices the failure copes with it, by other means or by giving up."""
        if any(not row.copes and row.coping not in (*_UNTOLD, Coping.NOT_REACHED) for row in self.rows):
            return Verdict.BREAKS
        return Verdict.UNKNOWN if any(row.coping in _UNTOLD for row in self.rows) else Verdict.SAFE

    def site_of(self, row: SweepRow) -> Frame | None:
        """Where the call was made that failed; the first calls of a run are known only."""
        calls = self.reference.run.calls
        return calls[row.call - 1].site if row.call <= len(calls) else None

    def as_json(self) -> dict[str, Any]:
        return {
            "kernel": self.reference.kernel,
            "verdict": self.verdict.value,
            "summary": summary(self.rows),
            "rows": [row.as_json() | {"site": _frame(self.site_of(row))} for row in self.rows],
        }


@dataclass
class Report:
    """What ``pagewalk check mremap`` found."""

    argv: tuple[str, ...]
    questions: list[Question]
    reference: Trial
    noise: Noise
    judged: list[Judged]
    findings: list[Finding] = field(default_factory=list)
    """Those that fail everywhere alike come last."""
    sweep: Sweep | None = None

    @property
    def verdict(self) -> str:
        """``safe``, ``breaks`` or ``unknown``."""
        verdicts = [judged.verdict for judged in self.judged]
        return overall(verdicts if self.sweep is None else [*verdicts, self.sweep.verdict]).value

    @property
    def exit_status(self) -> int:
        return {"safe": 0, "breaks": 1, "unknown": 3}[self.verdict]

    @property
    def calls_mremap(self) -> bool:
        return any(judged.trial.run.nr_calls for judged in self.judged)

    @cached_property
    def sites(self) -> list[Site]:
        return sites(self.reference.run, self.findings)

    def of_question(self, name: str | None) -> list[Judged]:
        return [judged for judged in self.judged if judged.trial.question == name]

    def as_json(self) -> dict[str, Any]:
        return {
            "type": "check",
            "check": "mremap",
            "schema": SCHEMA_VERSION,
            "argv": list(self.argv),
            "verdict": self.verdict,
            "exit_status": self.exit_status,
            "calls_mremap": self.calls_mremap,
            "reference": self.reference.kernel,
            "noise": self.noise.value,
            "questions": [{"name": name, "limits": limits.as_json()} for name, limits in self.questions],
            "idle_failures": self.idle_failures,
            "runs": [_run(judged) for judged in self.judged],
            "sites": [
                {
                    "site": _frame(site.frame),
                    "nr_calls_on_reference": site.nr_calls,
                    "findings": [self.findings.index(finding) for finding in site.findings],
                }
                for site in self.sites
            ],
            "findings": [self._finding(finding) for finding in self.findings],
            "sweep": None if self.sweep is None else self.sweep.as_json(),
        }

    def works_on(self, finding: Finding) -> list[Trial]:
        """The runs in which this place called mremap and met no such failure."""
        if finding.is_everywhere:
            return []
        failing = {where.judged.trial.title for where in finding.wheres}
        place = site_key(finding.call)
        return [
            judged.trial
            for judged in self.judged
            if judged.trial.title not in failing and any(site_key(call) == place for call in judged.trial.run.calls)
        ]

    @property
    def unaffected_sites(self) -> list[Site]:
        """Places whose calls went the same way in every run."""
        odd = {site_key(odd.call) for judged in self.judged for odd in judged.odd_calls}
        return [site for site in self.sites if not site.findings and site.key not in odd]

    @property
    def idle_failures(self) -> list[str]:
        """Failures to inject that were made in no run: the call was not made so often."""
        idle = []
        for name, limits in self.questions:
            for spec in limits.fail:
                point = spec.partition(":")[0]
                made = {made for one in self.of_question(name) for made, *_ in one.trial.outcome.injected}
                if point not in made and spec not in idle:
                    idle.append(spec)
        return idle

    def _finding(self, finding: Finding) -> dict[str, Any]:
        return {
            "site": _frame(finding.site),
            "error": finding.error,
            "reason": finding.reason,
            "boundary": None if finding.boundary is None else _boundary(finding.boundary),
            "everywhere": finding.is_everywhere,
            "works_on": [{"kernel": trial.kernel, "question": trial.question} for trial in self.works_on(finding)],
            "fails_on": [_where(where) for where in self._fails_on(finding)],
        }

    def _fails_on(self, finding: Finding) -> list[Where]:
        """Every run in which it fails; what fails everywhere alike is kept as the reference had it."""
        if not finding.is_everywhere:
            return finding.wheres
        [reference] = finding.wheres
        found = []
        for judged in self.judged:
            own = {theirs: ours for ours, theirs in judged.pairs.items()}
            calls = [judged.trial.run.calls[own[call.nr] - 1] for call in reference.calls if call.nr in own]
            is_reference = judged is reference.judged
            found.append(reference if is_reference else Where(judged, calls, finding.call))
        return found


def _where(where: Where) -> dict[str, Any]:
    trial = where.judged.trial
    return {
        "kernel": trial.kernel,
        "question": trial.question,
        "calls": [call.nr for call in where.calls],
        "reference_call": None if where.partner is None else where.partner.nr,
        "rescues": [rescue.as_json() for rescue in where.rescues],
    }


def _run(judged: Judged) -> dict[str, Any]:
    trial, outcome, run = judged.trial, judged.trial.outcome, judged.trial.run
    return {
        "kernel": trial.kernel,
        "question": trial.question,
        "verdict": judged.verdict.value,
        "reasons": judged.reasons,
        "exit_status": outcome.exit_status,
        "signal": outcome.signal,
        "error": outcome.error,
        "timed_out": outcome.timed_out,
        "unimplemented": outcome.unimplemented,
        "injected": [{"point": point, "time": time, "errno": errno} for point, time, errno in outcome.injected],
        "mremap": {"calls": run.nr_calls, "ok": run.nr_ok, "failed": run.nr_failed},
        "differences": [difference.as_json() for difference in judged.differences],
        "then": deeds_json(judged.deeds),
        "tasks": [_end(end) for end in run.ends],
        "refusals": [
            {
                "name": refusal.name,
                "text": refusal.text,
                "error": refusal.error,
                "reason": refusal.reason,
                "site": _frame(refusal.chain.site),
                "stack": _chain(refusal.chain),
            }
            for refusal in judged.refusals
        ],
        "odd_calls": [_odd(odd) for odd in judged.odd_calls],
        "calls": [_call(call, judged.pairs.get(call.nr)) for call in run.calls],
    }


def _odd(odd: OddCall) -> dict[str, Any]:
    return {
        "how": odd.odd.value,
        "call": odd.call.nr,
        "reference_call": None if odd.partner is None else odd.partner.nr,
    }


def _end(end: TaskEnd) -> dict[str, Any]:
    return {
        "task": end.task,
        "pid": end.pid,
        "comm": end.comm,
        "exit_status": end.exit_status,
        "signal": end.signal,
        "where": _chain(end.where),
        "fault_address": _hex(end.fault_address),
    }


def _call(call: Call, partner: int | None) -> dict[str, Any]:
    return {
        "nr": call.nr,
        "reference_call": partner,
        "task": call.task,
        "pid": call.pid,
        "comm": call.comm,
        "addr": _hex(call.addr),
        "old_len_bytes": _exact(call.old_len),
        "new_len_bytes": _exact(call.new_len),
        "flags": _exact(call.flags),
        "new_addr": _hex(call.new_addr),
        "text": call.text,
        "ret": None if call.failed else _hex(call.ret),
        "error": call.error,
        "reason": call.reason,
        "site": _frame(call.site),
        "stack": _chain(call.chain),
        "before": _footprint(call.before),
        "after": _footprint(call.after),
        "boundaries": [_boundary(boundary) for boundary in call.boundaries],
        "nr_boundaries": call.nr_boundaries,
        "destroyed": [_footprint(gone) for gone in call.destroyed],
        "next": None if call.aftermath is None else _after(call.aftermath),
        "then": deeds_json(next_deeds(call)) if call.failed else [],
    }


def _after(after: After) -> dict[str, Any]:
    copy = after.copy
    return {
        "nr_calls": after.nr_calls,
        "calls": [
            {"name": call.name, "text": call.text, "result": call.result, "error": call.error, "pid": call.pid}
            for call in after.calls
        ],
        "retried": after.retried,
        "retry_error": after.retry_error,
        "mapped": after.mapped,
        "copy": None
        if copy is None
        else {
            "address": _hex(copy.address),
            "len_bytes": copy.len_bytes,
            "nr_pages_copied": copy.nr_copied,
            "nr_pages_compared": copy.nr_compared,
        },
        "unmapped": after.unmapped,
        "said": after.said,
    }


def _exact(value: int) -> int | str:
    """A number that JSON can hold, else "0x..."."""
    return value if value < 1 << 53 else f"{value:#x}"


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _frame(frame: Frame | None) -> dict[str, Any] | None:
    if frame is None:
        return None
    return {
        "function": frame.function,
        "offset": f"{frame.offset:#x}",
        "module": frame.module,
        "file": frame.file,
        "line": frame.line,
        "address": _hex(frame.address),
        "insn": frame.insn,
        "text": frame.text,
    }


def _chain(chain: Chain) -> list[dict[str, Any] | None]:
    return [_frame(frame) for frame in chain.frames]


def _area(area: AreaState) -> dict[str, Any]:
    return {
        "start": _hex(area.start),
        "end": _hex(area.end),
        "perms": area.perms,
        "flags": area.flags,
        "pgoff": area.pgoff,
        "name": area.name,
        "anon_vma": area.anon_vma,
    }


def _footprint(found: Footprint | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "start": _hex(found.start),
        "end": _hex(found.end),
        "nr_areas": found.nr_areas,
        "nr_pages_with_data": found.nr_pages_with_data,
        "areas": [_area(area) for area in found.areas],
    }


def _boundary(boundary: Boundary) -> dict[str, Any]:
    return {
        "address": _hex(boundary.address),
        "lower": _area(boundary.lower),
        "upper": None if boundary.upper is None else _area(boundary.upper),
        "reason": boundary.reason,
        "text": boundary.text,
        "first_writes": [_first_write(write) for write in boundary.first_writes],
        "events": [_event(event) for event in boundary.events],
    }


def _first_write(write: FirstWrite) -> dict[str, Any]:
    return {
        "anon_vma": write.anon_vma,
        "how": write.how,
        "pid": write.pid,
        "address": _hex(write.address),
        "site": _frame(write.chain.site),
        "stack": _chain(write.chain),
    }


def _event(event: MemoryEvent) -> dict[str, Any]:
    return {
        "nr": event.nr,
        "name": event.name,
        "pid": event.pid,
        "text": event.text,
        "site": _frame(event.chain.site),
        "stack": _chain(event.chain),
    }

