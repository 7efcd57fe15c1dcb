"""A failure at each call in turn: does the program cope?

Models what LFI, and strace's ``--inject=CALL:error=E:when=N`` in a shell loop, do to a program, in one step: a run
without failures says how often the call is made; then one run for each of these calls, in which it fails once, and a
comparison with the first run, since a program may report the failure, work around it, or do something else than it
should.  Runs are deterministic, so that call N of one run is call N of the others up to the failure.

    baseline = run_job(Job("baseline", config, argv))
    jobs = sweep_jobs(config, argv, nr_calls(baseline), "EFAULT")
    rows = tabulate(baseline, run_jobs(jobs))          # or run_jobs_dask(jobs, address)

A :class:`SweepRow` is one line of the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from emu.jobs import Job, Outcome
from kernel.abi.errno import errno_name
from kernel.fault_inject import parse_fail

if TYPE_CHECKING:
    from emu.config import MachineConfig

_ASLEEP = "every task sleeps"
"""How the error of a run begins in which the program waits for something that cannot come."""
_MAX_DETAIL = 200


class Coping(Enum):
    """What a program made of a failure, the best first."""

    SAME_OUTPUT = "same output"
    REPORTS = "reports an error"
    """Its exit status says that it failed."""
    DIFFERENT_OUTPUT = "different output"
    """The exit status does not say that anything failed, but what was printed is not the same."""
    DIFFERENT_FILES = "different files"
    """Nothing that was printed, and no exit status, shows that the files left behind are not the same."""
    CRASHED = "crashed"
    DID_NOT_END = "did not end"
    """It used up its time, or waits for ever."""
    NOT_REACHED = "not reached"
    """The call was not made so often in this run."""
    PAGEWALK_ERROR = "pagewalk error"
    """The run could not be finished, for a reason that is ours."""


@dataclass(frozen=True)
class SweepRow:
    """What one failure did."""

    call: int
    """Which call of the run failed, from 1."""
    point: str
    """Which system call: ``mremap``."""
    error: str
    """The errno that it got."""
    coping: Coping
    exit_status: int | None
    signal: str | None
    detail: str
    """One line: the first message, the first difference, the signal, or why the run could not be finished."""

    @property
    def text(self) -> str:
        """``crashed SIGSEGV``, ``reports an error: out of memory``."""
        if self.coping is Coping.CRASHED:
            return f"{self.coping.value} {self.signal}" + (f": {self.detail}" if self.detail else "")
        return f"{self.coping.value}: {self.detail}" if self.detail else self.coping.value

    @property
    def copes(self) -> bool:
        """Did the program notice, or not need to?"""
        return self.coping in (Coping.SAME_OUTPUT, Coping.REPORTS)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"coping": self.coping.value}


def nr_calls(baseline: Outcome) -> int:
    """How many calls of mremap a sweep has to try, from the statistics of a run without failures."""
    return sum(baseline.stats.get("mremap", {}).values())


def sweep_jobs(
    config: MachineConfig,
    argv: Sequence[str],
    nr_calls: int,
    error: str,
    *,
    point: str = "mremap",
    calls: Sequence[int] | None = None,
    stdin: bytes | None = None,
    virtual_timeout_ns: int | None = None,
    wall_timeout_s: float | None = None,
) -> list[Job]:
    """One run for each call of ``point``, in which exactly that call fails with ``error`` (``"EFAULT"``).

    ``calls`` are the numbers to try instead of all from 1 to ``nr_calls``.  A job's label is its failure as ``--fail``
    takes it.  Programs that fail may loop: give a timeout (:func:`sweep_timeout_ns`).
    """
    jobs = []
    for number in range(1, nr_calls + 1) if calls is None else calls:
        spec = f"{point}:{error}@{number}"
        parse_fail(spec)
        jobs.append(
            Job(
                label=spec,
                config=replace(config, fail=(*config.fail, spec)),
                argv=tuple(argv),
                stdin=stdin,
                virtual_timeout_ns=virtual_timeout_ns,
                wall_timeout_s=wall_timeout_s,
            )
        )
    return jobs


def sweep_timeout_ns(baseline: Outcome) -> int:
    """How much virtual time a run with a failure may take: ten times what the undisturbed run took, and 2 s more for
    those who wait and try again.
    """
    from kernel.clock import BOOT_NS

    return 10 * max(0, baseline.stats["time"]["virtual_ns"] - BOOT_NS) + 2_000_000_000


def tabulate(baseline: Outcome, outcomes: Sequence[Outcome]) -> list[SweepRow]:
    """A row for each run of :func:`sweep_jobs`, in the same order."""
    return [_row(baseline, outcome) for outcome in outcomes]


def summary(rows: Sequence[SweepRow]) -> dict[str, int]:
    """How often what came out, the best first; only what did."""
    counts = Counter(row.coping for row in rows)
    return {coping.value: counts[coping] for coping in Coping if counts[coping]}


def _row(baseline: Outcome, outcome: Outcome) -> SweepRow:
    rule = parse_fail(outcome.label)
    coping, detail = _coping(baseline, outcome)
    return SweepRow(
        call=rule.first,
        point=rule.point,
        error=errno_name(rule.errno),
        coping=coping,
        exit_status=outcome.exit_status,
        signal=outcome.signal,
        detail=detail,
    )


def _coping(baseline: Outcome, outcome: Outcome) -> tuple[Coping, str]:
    if outcome.timed_out is not None:
        return Coping.DID_NOT_END, outcome.error or ""
    if outcome.error is not None:
        return Coping.DID_NOT_END if outcome.error.startswith(_ASLEEP) else Coping.PAGEWALK_ERROR, outcome.error
    if not outcome.injected:
        return Coping.NOT_REACHED, ""
    message = _first_new_line(baseline.stderr, outcome.stderr)
    if outcome.signal is not None and outcome.signal != baseline.signal:
        return Coping.CRASHED, message or ""
    if outcome.exit_status and outcome.exit_status != baseline.exit_status:
        if message is None:
            message = _first_new_line(baseline.stdout, outcome.stdout)
        return Coping.REPORTS, message or f"exit status {outcome.exit_status}, no message"
    if outcome.exit_status != baseline.exit_status:
        return Coping.DIFFERENT_OUTPUT, f"exit status {outcome.exit_status} instead of {baseline.exit_status}"
    for name in ("stdout", "stderr"):
        theirs, ours = getattr(baseline, name), getattr(outcome, name)
        if ours != theirs:
            return Coping.DIFFERENT_OUTPUT, _difference(name, theirs, ours)
    for path in sorted(outcome.files.keys() | baseline.files.keys()):
        if outcome.files.get(path) != baseline.files.get(path):
            return Coping.DIFFERENT_FILES, path
    return Coping.SAME_OUTPUT, ""


def _first_new_line(theirs: bytes, ours: bytes) -> str | None:
    """The first line of ``ours`` that is not what ``theirs`` has in its place."""
    for old, new in zip_longest(theirs.splitlines(), ours.splitlines()):
        if new is not None and new != old and new.strip():
            return _shown(new)
    return None


def _difference(name: str, theirs: bytes, ours: bytes) -> str:
    lines = enumerate(zip_longest(theirs.split(b"\n"), ours.split(b"\n")), start=1)
    number, old, new = next((number, old, new) for number, (old, new) in lines if old != new)
    return f"{name} line {number}: {_quoted(new)} instead of {_quoted(old)}"


def _quoted(line: bytes | None) -> str:
    return "nothing" if line is None else repr(_shown(line))


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace").strip()
    return text if len(text) <= _MAX_DETAIL else text[: _MAX_DETAIL - 3] + "..."
