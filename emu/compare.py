"""One program under several kernels: what the choice of rules does to it.

Each run is a process of its own, forked from one that has everything loaded, as many at a time as the host has cores.
A run's output goes to files and is compared byte for byte; its statistics come back through a pipe as JSON.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import selectors
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emu.machine import Machine, MachineConfig
    from emu.report.story import Story

SCHEMA_VERSION = 1
MAX_REFUSALS_KEPT = 2000
"""Refusals of one run that are kept for --explain; what is beyond is counted only."""


@dataclass
class Outcome:
    """What one run came to."""

    kernel: str
    exit_status: int | None = None
    """As a shell shows it; None when the run did not end (see ``error``)."""
    signal: str | None = None
    """The name of the signal that killed the program."""
    stdout: bytes = b""
    stderr: bytes = b""
    stats: dict[str, Any] = field(default_factory=dict)
    refusals: list[dict[str, Any]] = field(default_factory=list)
    unimplemented: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    """Why pagewalk itself could not finish the run."""
    story: Story | None = None
    """For a report; see emu/report/story.py."""
    not_runnable: int | None = None
    """126 or 127 when the program could not be started at all."""

    @property
    def behaviour(self) -> tuple[int | None, str | None, bytes, bytes]:
        """What a user of the program notices."""
        return self.exit_status, self.error, self.stdout, self.stderr


@dataclass
class Job:
    """A run to be made."""

    config: MachineConfig
    label: str
    wants_refusals: bool = False
    wants_story: bool = False


def run_jobs(
    jobs: Sequence[Job], argv: Sequence[str], stdin: bytes | None, on_done: Callable[[int], None] | None = None
) -> list[Outcome]:
    """Run all ``jobs`` in parallel; outcomes in the order of the jobs.  ``on_done`` gets the number finished so far."""
    import emu.machine  # noqa: F401 - loaded once, before the first fork

    outcomes: list[Outcome | None] = [None] * len(jobs)
    waiting = list(range(len(jobs)))
    nr_done = 0
    with tempfile.TemporaryDirectory(prefix="pagewalk-") as directory, selectors.DefaultSelector() as selector:
        running: dict[int, _Child] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (os.cpu_count() or 1):
                    number = waiting.pop(0)
                    child = _Child(jobs[number], argv, stdin, os.path.join(directory, str(number)))
                    running[number] = child
                    selector.register(child.pipe, selectors.EVENT_READ, number)
                for key, _ in selector.select():
                    child = running[key.data]
                    if child.read():
                        continue
                    selector.unregister(child.pipe)
                    outcomes[key.data] = child.finish()
                    del running[key.data]
                    nr_done += 1
                    if on_done is not None:
                        on_done(nr_done)
        finally:
            for child in running.values():
                child.kill()
    return [outcome for outcome in outcomes if outcome is not None]


class _Child:
    """One run in a forked process."""

    def __init__(self, job: Job, argv: Sequence[str], stdin: bytes | None, path: str) -> None:
        self.job = job
        self._path = path
        self._report = bytearray()
        if stdin is not None:
            with open(path + ".in", "wb") as file:
                file.write(stdin)
        self.pipe, write_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self.pipe)
                _redirect(path, stdin is not None)
                outcome = _run_here(job, argv, path + ".jsonl")
                _send(write_end, outcome)
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)

    def read(self) -> bool:
        """Take what has come; False at the end."""
        data = os.read(self.pipe, 1 << 16)
        self._report += data
        return bool(data)

    def finish(self) -> Outcome:
        os.close(self.pipe)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        outcome = Outcome(self.job.label)
        if self._report:
            for name, value in json.loads(self._report).items():
                setattr(outcome, name, value)
        else:
            outcome.error = f"the run ended without a report (status {status})"
        outcome.stdout = _content(self._path + ".out")
        outcome.stderr = _content(self._path + ".err")
        if self.job.wants_story:
            outcome.story = _story(self._path + ".jsonl")
        return outcome

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.pipe)


def _redirect(path: str, has_stdin: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    for target, source in ((1, os.open(path + ".out", flags, 0o600)), (2, os.open(path + ".err", flags, 0o600))):
        os.dup2(source, target)
        os.close(source)
    source = os.open(path + ".in" if has_stdin else os.devnull, os.O_RDONLY)
    os.dup2(source, 0)
    os.close(source)


def _story(path: str) -> Story | None:
    """What a run recorded; None when it did not come to that."""
    from emu.report.story import BadTrace, read_story

    try:
        with open(path, "rb") as file:
            return read_story(file)
    except (OSError, BadTrace):
        return None


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _send(pipe: int, outcome: Outcome) -> None:
    fields = asdict(outcome)
    for name in ("stdout", "stderr", "story"):
        del fields[name]
    with os.fdopen(pipe, "w", encoding="utf-8") as file:
        json.dump(fields, file)


def _run_here(job: Job, argv: Sequence[str], records_path: str) -> Outcome:
    """The run itself, in the child."""
    from emu.machine import CheckFailed, Deadlock, Machine, NotRunnable
    from kernel.abi.signal import signal_name

    outcome = Outcome(job.label)
    config = replace(job.config, record_stats=True)
    gc.freeze()
    gc.enable()
    try:
        machine = Machine(config)
        if job.wants_refusals:
            _record_refusals(machine.kernel, outcome.refusals)
        with _recorded(machine, argv, records_path, outcome) if job.wants_story else nullcontext():
            machine.spawn(list(argv))
            outcome.exit_status = machine.run()
    except NotRunnable as error:
        outcome.not_runnable, outcome.error = error.status, error.message
        return outcome
    except (CheckFailed, Deadlock) as error:
        outcome.error = str(error)
    assert machine.init is not None
    signo = machine.init.exit_code & 0x7F
    if signo and outcome.exit_status is not None:
        outcome.signal = signal_name(signo)
    outcome.stats = machine.stats()
    outcome.unimplemented = machine.unimplemented
    return outcome


@contextmanager
def _recorded(machine: Machine, argv: Sequence[str], path: str, outcome: Outcome) -> Iterator[None]:
    """Everything that a report needs goes to ``path``, as JSON lines."""
    from emu.report.story import NEEDED_EVENTS
    from emu.trace.jsonl import JsonLinesSink
    from emu.trace.session import TraceSession, machine_fields

    with open(path, "wb") as file:
        session = TraceSession(machine.kernel, NEEDED_EVENTS, JsonLinesSink(file))
        session.start(argv, machine_fields(machine.config))
        try:
            yield
        finally:
            session.finish(outcome.exit_status)


def _record_refusals(kernel: Any, refusals: list[dict[str, Any]]) -> None:
    from emu.trace.explain import refusal_record
    from emu.trace.locate import Locator
    from kernel.mm.rmap.policy import MERGE_REFUSED

    locator = Locator(kernel)
    fields = MERGE_REFUSED.fields

    def probe(_point: Any, values: tuple[Any, ...]) -> None:
        if len(refusals) < MAX_REFUSALS_KEPT:
            refusals.append(refusal_record(dict(zip(fields, values, strict=True)), locator))

    MERGE_REFUSED.attach(probe)


def read_stdin() -> bytes | None:
    """All of our standard input, for every run to have; None when it is a terminal."""
    try:
        return None if sys.stdin is None or os.isatty(0) else sys.stdin.buffer.read()
    except OSError:
        return None


# ---- the comparison -----------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One line of the table, and one entry of ``--json``."""

    kernel: str
    exit_status: int | None
    signal: str | None
    output: str
    """``same`` as the reference kernel's, or ``differs``."""
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
            kernel=outcome.kernel,
            exit_status=outcome.exit_status,
            signal=outcome.signal,
            output="same" if same else "differs",
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
            "reference": self.reference.kernel,
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
    jobs = [Job(replace(config, kernel=name), name, wants_refusals, wants_stories) for name in kernels]
    return Comparison.of(run_jobs(jobs, argv, read_stdin(), on_done))


