"""``check_mremap``: the runs, in the order in which what they tell is needed.

First the program under every kernel, with and without the limits in question.  Then, if anything differs, the
reference kernel once more with other random numbers, and every run in which a call failed under the rules that might
have saved it.  Runs by equal rules are made once.  At last, if it is asked for, a failure at each mremap of the
reference in turn (emu/sweep.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from emu.check.align import align
from emu.check.finding import Finding, findings, own_failures
from emu.check.model import Call, Run
from emu.check.record import COLLECTOR
from emu.check.report import Report, Sweep
from emu.check.rescue import Rescue, Result, Way, changed, rules_key
from emu.check.rescue import judge as judge_rescue
from emu.check.verdict import Judged, Noise, Trial, behaves_alike, choose_reference, judge, noise_between
from emu.jobs import Job, Outcome, run_jobs
from emu.limits import NO_LIMITS, Question
from emu.sweep import sweep_jobs, sweep_timeout_ns, tabulate

if TYPE_CHECKING:
    from emu.machine import MachineConfig

Progress = Callable[[int, int], None]
"""Runs made so far, runs to make so far as is known."""
MakeRuns = Callable[[Sequence[Job], Callable[[int], None]], list[Outcome]]
"""``run_jobs``, or the same on a cluster."""


@dataclass(frozen=True)
class Patience:
    """How long one run may take."""

    virtual_ns: int | None = None
    wall_s: float | None = None


def check_mremap(
    config: MachineConfig,
    argv: Sequence[str],
    *,
    kernels: Sequence[str],
    questions: Sequence[Question] = (),
    stdin: bytes | None = None,
    patience: Patience | None = None,
    ways: Sequence[Way] = tuple(Way),
    sweep_errors: Sequence[str] = (),
    make_runs: MakeRuns = run_jobs,
    on_progress: Progress | None = None,
) -> Report:
    """Would ``argv`` break where mremap refuses, in the machine ``config``, with and without the limits in question?

    ValueError for options that contradict each other, and for limits of ``config`` itself: the answer compares with a
    machine that has none.  ``ways`` are tried for every call that fails (rescue.py),
    ``sweep_errors`` at every call of the reference.
    """
    if not config.limits.is_empty or config.fail:
        raise ValueError("limits and failures to inject are questions, not a part of the machine")
    runner = _Runner(tuple(argv), stdin, patience or Patience(), make_runs, on_progress)
    asked: list[tuple[str, Question | None, MachineConfig]] = []
    for question in (None, *questions):
        limits = NO_LIMITS if question is None else question.limits
        asked += [(kernel, question, replace(config, kernel=kernel, limits=limits)) for kernel in kernels]
    runner.run(machine for _, _, machine in asked)
    trials = [
        Trial(kernel, None if question is None else question.name, *runner.made(machine))
        for kernel, question, machine in asked
    ]
    reference = choose_reference([trial for trial in trials if trial.question is None], _by_age())
    configs = {trial.title: machine for trial, (_, _, machine) in zip(trials, asked, strict=True)}
    noise = _noise(runner, configs[reference.title], reference, trials)
    judged = [judge(trial, reference, noise) for trial in trials]
    reference_judged = next(one for one in judged if one.trial is reference)
    own = own_failures([one for one in judged if one.trial.question is None], reference_judged)
    found = findings(judged) + own
    _find_rescues(runner, found, configs, ways, lambda outcome: behaves_alike(outcome, reference.outcome, noise))
    sweep = runner.sweep(configs[reference.title], reference, sweep_errors)
    return Report(tuple(argv), list(questions), reference, noise, judged, found, sweep)


def _by_age() -> list[str]:
    from kernel.profile import PROFILES

    return list(PROFILES)


class _Runner:
    """Makes runs in parallel, each machine's once."""

    def __init__(
        self,
        argv: tuple[str, ...],
        stdin: bytes | None,
        patience: Patience,
        make_runs: MakeRuns,
        on_progress: Progress | None,
    ) -> None:
        self._argv = argv
        self._stdin = stdin
        self._patience = patience
        self._make_runs = make_runs
        self._on_progress = on_progress
        self._nr_done = 0
        self._made: dict[Any, tuple[Outcome, Run]] = {}

    def run(self, machines: Iterable[MachineConfig]) -> None:
        """Make the runs of those machines that were not made before."""
        wanted = {rules_key(machine): machine for machine in machines}
        new = [(key, machine) for key, machine in wanted.items() if key not in self._made]
        outcomes = self._make([self._job(machine) for _, machine in new])
        for (key, _), outcome in zip(new, outcomes, strict=True):
            data = outcome.collected.get(COLLECTOR)
            self._made[key] = outcome, Run() if data is None else Run.from_json(data)

    def sweep(self, machine: MachineConfig, reference: Trial, errors: Sequence[str]) -> Sweep | None:
        """Each mremap of the reference fails in turn, with each of ``errors``; None if there are none."""
        if not errors or reference.outcome.error is not None:
            return None
        virtual_ns = self._patience.virtual_ns
        jobs = [
            job
            for error in errors
            for job in sweep_jobs(
                machine,
                self._argv,
                reference.run.nr_calls,
                error,
                stdin=self._stdin,
                virtual_timeout_ns=sweep_timeout_ns(reference.outcome) if virtual_ns is None else virtual_ns,
                wall_timeout_s=self._patience.wall_s,
            )
        ]
        return Sweep(reference, tabulate(reference.outcome, self._make(jobs)))

    def _make(self, jobs: Sequence[Job]) -> list[Outcome]:
        if not jobs:
            return []
        nr_before = self._nr_done

        def on_done(nr_done: int) -> None:
            if self._on_progress is not None:
                self._on_progress(nr_before + nr_done, nr_before + len(jobs))

        outcomes = self._make_runs(jobs, on_done)
        self._nr_done += len(jobs)
        return outcomes

    def made(self, machine: MachineConfig) -> tuple[Outcome, Run]:
        return self._made[rules_key(machine)]

    def _job(self, machine: MachineConfig) -> Job:
        return Job(
            label=machine.kernel,
            config=machine,
            argv=self._argv,
            stdin=self._stdin,
            collectors=(COLLECTOR,),
            virtual_timeout_ns=self._patience.virtual_ns,
            wall_timeout_s=self._patience.wall_s,
        )


def _noise(runner: _Runner, machine: MachineConfig, reference: Trial, trials: list[Trial]) -> Noise:
    """Does the reference behave otherwise with other random numbers?  Asked only when it matters."""
    if all(trial.outcome.behaviour == reference.outcome.behaviour for trial in trials):
        return Noise.NONE
    other = replace(machine, seed=machine.seed + 1)
    runner.run([other])
    return noise_between(reference.outcome, runner.made(other)[0])


def _find_rescues(
    runner: _Runner,
    found: list[Finding],
    configs: dict[str, MachineConfig],
    ways: Sequence[Way],
    behaves: Callable[[Outcome], bool],
) -> None:
    """Fill in what every way does for the first call of every finding, in every run where it was made."""
    wheres = [where for finding in found if not finding.is_injected for where in finding.wheres]
    tries: dict[str, dict[Way, MachineConfig | str]] = {}
    for where in wheres:
        title = where.judged.trial.title
        if title not in tries:
            tries[title] = {way: _changed_or_why(configs[title], way) for way in ways}
    runner.run(machine for ways in tries.values() for machine in ways.values() if not isinstance(machine, str))
    for where in wheres:
        title = where.judged.trial.title
        for way, machine in tries[title].items():
            where.rescues.append(_rescue(runner, way, machine, configs[title], where.judged, where.calls[0], behaves))


def _changed_or_why(machine: MachineConfig, way: Way) -> MachineConfig | str:
    """The machine with that way's rules, or why there is none."""
    try:
        new = changed(machine, way)
        rules_key(new)
        return new
    except ValueError as error:
        return str(error)


def _rescue(
    runner: _Runner,
    way: Way,
    machine: MachineConfig | str,
    before: MachineConfig,
    judged: Judged,
    call: Call,
    behaves: Callable[[Outcome], bool],
) -> Rescue:
    if isinstance(machine, str):
        return Rescue(way, Result.CONTRADICTS, reason=machine)
    if rules_key(machine) == rules_key(before):
        return Rescue(way, Result.SAME_RULES)
    outcome, run = runner.made(machine)
    pairs = align(judged.trial.run, run)
    return judge_rescue(way, call, run, pairs, behaves(outcome))
