"""Many runs: a program under several kernels, limits or failures, as many at a time as the host has cores.

Each run is a process of its own, forked from one that has everything loaded.  Its output goes to files and is compared
byte for byte; what else is known of it comes back through a pipe as JSON.

A :class:`Job` is plain data and says everything about its run, so that it can be made on another machine as well
(:func:`run_job`).
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
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from emu.machine import Machine, MachineConfig
    from emu.report.story import Story

_OVERDUE_S = 10.0
"""How much longer than its wall timeout a run may take to come to a place where it can stop, before it is killed."""
_PAGES_AT_A_TIME = 1024


class Collector(Protocol):
    """Something that watches one run.  It is made, with the machine, before the program is loaded."""

    def finish(self) -> Any:
        """What it has found, as JSON can hold it; called once, after the run, however that ended."""
        ...


@dataclass(frozen=True)
class Job:
    """A run to be made."""

    label: str
    config: MachineConfig
    argv: tuple[str, ...]
    stdin: bytes | None = None
    """All that the program can read; None: nothing."""
    collectors: tuple[str, ...] = ()
    """``package.module:name`` of callables that take the machine and return a :class:`Collector`."""
    wants_story: bool = False
    virtual_timeout_ns: int | None = None
    """How long the program may run by its own clock, from its start."""
    wall_timeout_s: float | None = None


@dataclass
class Outcome:
    """What one run came to."""

    label: str
    exit_status: int | None = None
    """As a shell shows it; None when the run did not end (see ``error``)."""
    signal: str | None = None
    """The name of the signal that killed the program."""
    stdout: bytes = b""
    stderr: bytes = b""
    files: dict[str, str] = field(default_factory=dict)
    """The regular files that the program left changed: path -> SHA-256 of the content, or ``deleted``."""
    stats: dict[str, Any] = field(default_factory=dict)
    unimplemented: dict[str, int] = field(default_factory=dict)
    injected: list[tuple[str, int, int]] = field(default_factory=list)
    """Failures made on request: (point, which time, errno)."""
    collected: dict[str, Any] = field(default_factory=dict)
    """What the job's collectors found, by their names."""
    error: str | None = None
    """Why pagewalk itself could not finish the run."""
    timed_out: str | None = None
    """``virtual`` or ``wall``."""
    not_runnable: int | None = None
    """126 or 127 when the program could not be started at all."""
    story: Story | None = None
    """For a report; see emu/report/story.py."""

    @property
    def behaviour(self) -> tuple[Any, ...]:
        """What a user of the program notices."""
        return self.exit_status, self.signal, self.error, self.stdout, self.stderr, self.files


class _TimedOut(Exception):
    """A run has used up its time; the argument is ``virtual`` or ``wall``."""


def run_job(job: Job) -> Outcome:
    """One run, in a child process."""
    return run_jobs([job])[0]


def run_jobs(jobs: Sequence[Job], on_done: Callable[[int], None] | None = None) -> list[Outcome]:
    """Make all runs in parallel; outcomes in the order of the jobs.  ``on_done`` gets the number finished so far.

    ValueError for jobs that would disturb each other.
    """
    import emu.machine  # noqa: F401 - loaded once, before the first fork

    check_apart(jobs)
    outcomes: list[Outcome | None] = [None] * len(jobs)
    waiting = list(range(len(jobs)))
    nr_done = 0
    with tempfile.TemporaryDirectory(prefix="pagewalk-") as directory, selectors.DefaultSelector() as selector:
        running: dict[int, _Child] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (os.cpu_count() or 1):
                    number = waiting.pop(0)
                    child = _Child(jobs[number], os.path.join(directory, str(number)))
                    running[number] = child
                    selector.register(child.pipe, selectors.EVENT_READ, number)
                for key, _ in selector.select(_until_overdue(running.values())):
                    child = running[key.data]
                    if child.read():
                        continue
                    selector.unregister(child.pipe)
                    outcomes[key.data] = child.finish()
                    del running[key.data]
                    nr_done += 1
                    if on_done is not None:
                        on_done(nr_done)
                for child in running.values():
                    child.kill_if_overdue()
        finally:
            for child in running.values():
                child.kill()
                child.finish()
    return [outcome for outcome in outcomes if outcome is not None]


def check_apart(jobs: Sequence[Job]) -> None:
    """Runs at the same time must not share what they write."""
    if len(jobs) < 2:
        return
    for job in jobs:
        if job.config.swap is not None and ":" in job.config.swap:
            raise ValueError("--swap FILE:SIZE: several runs cannot share one swap file; write --swap SIZE")
        if job.config.writable:
            raise ValueError("--writable: the program runs several times and would meet its own changes; leave it out")


def _until_overdue(children: Any) -> float | None:
    deadlines = [child.overdue_at for child in children if child.overdue_at is not None]
    return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None


class _Child:
    """One run in a forked process."""

    def __init__(self, job: Job, path: str) -> None:
        self.job = job
        self._path = path
        self._report = bytearray()
        self.overdue_at: float | None = None
        if job.wall_timeout_s is not None:
            self.overdue_at = time.monotonic() + job.wall_timeout_s + _OVERDUE_S
        if job.stdin is not None:
            with open(path + ".in", "wb") as file:
                file.write(job.stdin)
        self.pipe, write_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self.pipe)
                _redirect(path, job.stdin is not None)
                _send(write_end, _run_or_explain(job, path + ".jsonl"))
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
        elif self.overdue_at is not None and status == -signal.SIGKILL:
            outcome.timed_out = "wall"
            outcome.error = f"did not end within {self.job.wall_timeout_s:g} seconds"
        else:
            outcome.error = f"the run ended without a report (status {status})"
        outcome.stdout = _content(self._path + ".out")
        outcome.stderr = _content(self._path + ".err")
        if self.job.wants_story:
            outcome.story = _story(self._path + ".jsonl")
        return outcome

    def kill_if_overdue(self) -> None:
        if self.overdue_at is not None and time.monotonic() > self.overdue_at:
            self.kill()

    def kill(self) -> None:
        """The end of its pipe will be noticed as that of others."""
        os.kill(self.pid, signal.SIGKILL)
        self._report.clear()


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


# ---- in the child -------------------------------------------------------------------------------------------------


def _run_or_explain(job: Job, records_path: str) -> Outcome:
    try:
        return _run_here(job, records_path)
    except Exception as error:  # ours: it must not look like the program's end
        text = f"internal error: {type(error).__name__}: {error}"
        if os.environ.get("PAGEWALK_DEBUG"):
            text += "\n" + "".join(traceback.format_exception(error))
        return Outcome(job.label, error=text)


def _run_here(job: Job, records_path: str) -> Outcome:
    """The run itself."""
    from emu.machine import CheckFailed, Deadlock, Machine, NotRunnable
    from kernel.abi.signal import signal_name

    outcome = Outcome(job.label)
    config = replace(job.config, record_stats=True)
    gc.freeze()
    gc.enable()
    collectors: dict[str, Collector] = {}
    machine: Machine | None = None
    try:
        machine = Machine(config)
        collectors = {name: _collector(name, machine) for name in job.collectors}
        _limit_time(job, machine)
        with _recorded(machine, job.argv, records_path, outcome) if job.wants_story else nullcontext():
            machine.spawn(list(job.argv))
            outcome.exit_status = machine.run()
    except NotRunnable as error:
        outcome.not_runnable, outcome.error = error.status, error.message
        return outcome
    except (CheckFailed, Deadlock) as error:
        outcome.error = str(error)
    except _TimedOut as timeout:
        outcome.timed_out = str(timeout)
        outcome.error = _timeout_text(job, outcome.timed_out)
    except (ValueError, OSError) as error:
        if machine is not None:
            raise
        outcome.error = str(error)  # a machine that cannot be built
        return outcome
    assert machine is not None and machine.init is not None
    signo = machine.init.exit_code & 0x7F
    if signo and outcome.exit_status is not None:
        outcome.signal = signal_name(signo)
    outcome.stats = machine.stats()
    outcome.unimplemented = machine.unimplemented
    outcome.injected = machine.kernel.fail.injected
    outcome.files = _files(machine)
    outcome.collected = {name: collector.finish() for name, collector in collectors.items()}
    return outcome


def _collector(name: str, machine: Machine) -> Collector:
    module, _, attribute = name.partition(":")
    collector: Collector = getattr(import_module(module), attribute)(machine)
    return collector


def _limit_time(job: Job, machine: Machine) -> None:
    """Stop the run between two quanta when its time is up."""
    if job.virtual_timeout_ns is None and job.wall_timeout_s is None:
        return
    clock = machine.kernel.clock
    start_ns, start_s = clock.now_ns(), time.monotonic()

    def look(_machine: Machine) -> None:
        if job.virtual_timeout_ns is not None and clock.now_ns() - start_ns > job.virtual_timeout_ns:
            raise _TimedOut("virtual")
        if job.wall_timeout_s is not None and time.monotonic() - start_s > job.wall_timeout_s:
            raise _TimedOut("wall")

    machine.on_quantum = look


def _timeout_text(job: Job, which: str) -> str:
    if which == "wall":
        return f"did not end within {job.wall_timeout_s:g} seconds"
    assert job.virtual_timeout_ns is not None
    return f"did not end within {job.virtual_timeout_ns / 1e9:g} seconds of its own time"


def _files(machine: Machine) -> dict[str, str]:
    from kernel.fs.changes import changed_files
    from kernel.fs.overlay import OverlaySuper
    from kernel.mm.types import PAGE_SIZE

    sb = machine.kernel.vfs.root.dentry.d_sb
    if not isinstance(sb, OverlaySuper):
        return {}
    found: dict[str, str] = {}
    for path, inode in changed_files(sb).items():
        name = os.fsdecode(path)
        if inode is None:
            found[name] = "deleted"
            continue
        digest, left = hashlib.sha256(), inode.i_size
        for pgoff in range(0, -(-inode.i_size // PAGE_SIZE), _PAGES_AT_A_TIME):
            data = inode.readpages(pgoff, min(_PAGES_AT_A_TIME, -(-left // PAGE_SIZE)))
            digest.update(data[:left])
            left -= len(data)
        found[name] = digest.hexdigest()
    return found


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


def read_stdin() -> bytes | None:
    """All of our standard input, for every run to have; None when it is a terminal."""
    try:
        return None if sys.stdin is None or os.isatty(0) else sys.stdin.buffer.read()
    except OSError:
        return None
