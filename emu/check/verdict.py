"""The verdict of each run: did mremap go as on the reference, and does the program behave the same?

    safe      every mremap went as on the reference, and the program behaves the same
    copes     some went otherwise, and the program behaves the same
    breaks    some went otherwise, and the program behaves differently
    unknown   the run says nothing; the reasons say why

What "behaves" means: exit status, signal, standard output, standard error, the files that the program left.  Where two
runs of the reference that differ in their random numbers alone print different things, only the exit status and the
signal count.

With limits two more things count as otherwise: another memory call that fails, and a failure that was made on request.
And since the limits are then all that differs, a program that ends differently breaks, whatever call it was.

A run breaks even if it also met a system call that pagewalk does not implement: the reference met it too, or else the
difference is real.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from emu.check.aftermath import Deed, Did, next_deeds, run_deeds
from emu.check.align import Pairs, align
from emu.check.model import Call, Refusal, Run
from emu.differences import Difference, differences

if TYPE_CHECKING:
    from emu.jobs import Outcome


class Verdict(Enum):
    SAFE = "safe"
    COPES = "copes"
    BREAKS = "breaks"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Trial:
    """One run: which kernel, which question."""

    kernel: str
    question: str | None
    """The name of the limits; None: without limits."""
    outcome: Outcome
    run: Run

    @property
    def title(self) -> str:
        return self.kernel if self.question is None else f"{self.kernel} [{self.question}]"


class Odd(Enum):
    """How a call can go otherwise than on the reference."""

    FAILS = "fails"
    """It failed; there it succeeded, or failed with another error."""
    WORKS = "works"
    """It succeeded; there it failed."""
    MOVED = "moved"
    """It moved the memory; there it stayed.  Or the other way round."""
    EXTRA = "extra"
    """It was made here only."""
    MISSING = "missing"
    """It was made on the reference only."""


@dataclass(frozen=True)
class OddCall:
    odd: Odd
    call: Call
    """Of this run; of the reference for MISSING."""
    partner: Call | None


@dataclass
class Judged:
    """A trial with its verdict."""

    trial: Trial
    verdict: Verdict
    reasons: list[str]
    differences: list[Difference]
    deeds: list[Deed]
    odd_calls: list[OddCall]
    pairs: Pairs = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    """Other memory calls that failed here and not on the reference."""

    @property
    def failures(self) -> list[OddCall]:
        return [odd for odd in self.odd_calls if odd.odd is Odd.FAILS or (odd.odd is Odd.EXTRA and odd.call.failed)]


class Noise(Enum):
    """What is known of chance in what the program prints."""

    NONE = "none"
    OUTPUT = "output"
    """Two runs of the reference differ in what they print or write."""
    STATUS = "status"
    """They end differently."""


def noise_between(reference: Outcome, other: Outcome) -> Noise:
    if (reference.exit_status, reference.signal, reference.error) != (other.exit_status, other.signal, other.error):
        return Noise.STATUS
    return Noise.NONE if reference.behaviour == other.behaviour else Noise.OUTPUT


def judge(trial: Trial, reference: Trial, noise: Noise) -> Judged:
    pairs = align(trial.run, reference.run)
    odd_calls = _odd_calls(trial.run, reference.run, pairs)
    found = differences(trial.outcome, reference.outcome)
    has_calls = bool(trial.run.nr_calls or reference.run.nr_calls)
    refusals = _refusals(trial.run, reference.run)
    went_otherwise = bool(odd_calls)
    if trial.question is not None:
        ends_differently = _status(trial.outcome) != _status(reference.outcome)
        went_otherwise |= bool(refusals or trial.outcome.injected) or ends_differently
    verdict, reasons = _decide(trial.outcome, reference.outcome, found, went_otherwise, noise, has_calls)
    failed = [odd.call for odd in odd_calls if odd.call.failed and odd.odd is not Odd.MISSING]
    deeds = run_deeds(trial.outcome, trial.run, reference.outcome, reference.run)
    deeds += [deed for call in failed for deed in next_deeds(call) if deed.did is Did.LOST_DATA][:1]
    return Judged(trial, verdict, reasons, found, deeds, odd_calls, pairs, refusals)


def _status(outcome: Outcome) -> tuple[int | None, str | None]:
    return outcome.exit_status, outcome.signal


def _refusals(run: Run, reference: Run) -> list[Refusal]:
    left = Counter(refusal.key for refusal in reference.refusals)
    found = []
    for refusal in run.refusals:
        if left[refusal.key]:
            left[refusal.key] -= 1
        else:
            found.append(refusal)
    return found


def _decide(
    outcome: Outcome,
    reference: Outcome,
    found: list[Difference],
    went_otherwise: bool,
    noise: Noise,
    has_calls: bool,
) -> tuple[Verdict, list[str]]:
    if outcome.error is not None:
        return Verdict.UNKNOWN, [outcome.error]
    if reference.error is not None:
        return Verdict.UNKNOWN, [f"the reference run tells nothing: {reference.error}"]
    same_status = _status(outcome) == _status(reference)
    counts_output = noise is Noise.NONE
    differs = not same_status or (bool(found) and counts_output)
    if noise is Noise.STATUS and found:
        return Verdict.UNKNOWN, ["the program ends differently when nothing but its random numbers change"]
    if differs and went_otherwise:
        return Verdict.BREAKS, [difference.text for difference in found]
    unserved = _unserved(outcome)
    if unserved:
        return Verdict.UNKNOWN, unserved
    if differs and has_calls:
        return Verdict.UNKNOWN, [f"no mremap went otherwise, but {difference.text}" for difference in found[:1]]
    if found and not counts_output and went_otherwise:
        return Verdict.UNKNOWN, ["what the program prints depends on random numbers, and " + found[0].text]
    return (Verdict.COPES, []) if went_otherwise else (Verdict.SAFE, [])


def _unserved(outcome: Outcome) -> list[str]:
    found = sorted(outcome.unimplemented.items())
    return [f"system call {name} is not implemented (ENOSYS, made {_times(count)})" for name, count in found]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _odd_calls(run: Run, reference: Run, pairs: Pairs) -> list[OddCall]:
    found = []
    matched = set(pairs.values())
    for call in run.calls:
        number = pairs.get(call.nr)
        if number is None:
            found.append(OddCall(Odd.EXTRA, call, None))
            continue
        partner = reference.calls[number - 1]
        if call.failed and call.error != partner.error:
            found.append(OddCall(Odd.FAILS, call, partner))
        elif partner.failed and not call.failed:
            found.append(OddCall(Odd.WORKS, call, partner))
        elif _ended(call) and _ended(partner) and _moved(call) != _moved(partner):
            found.append(OddCall(Odd.MOVED, call, partner))
    found += [OddCall(Odd.MISSING, call, None) for call in reference.calls if call.nr not in matched]
    return found


def _ended(call: Call) -> bool:
    """A call that a task died in has neither failed nor succeeded."""
    return call.ret is not None and not call.failed


def _moved(call: Call) -> bool:
    return call.ret != call.addr


def behaves_alike(outcome: Outcome, reference: Outcome, noise: Noise) -> bool:
    """As far as it can be told when the output depends on chance."""
    if noise is Noise.NONE:
        return outcome.behaviour == reference.behaviour
    return outcome.error is None and _status(outcome) == _status(reference)


def overall(verdicts: list[Verdict]) -> Verdict:
    """``breaks`` if any does, else ``unknown`` if any is, else ``safe``."""
    if Verdict.BREAKS in verdicts:
        return Verdict.BREAKS
    return Verdict.UNKNOWN if Verdict.UNKNOWN in verdicts else Verdict.SAFE


def choose_reference(trials: list[Trial], kernels_by_age: list[str]) -> Trial:
    """The newest kernel on which no mremap failed, else that with the fewest failures.

    Runs that did not end come last.
    """

    def rank(trial: Trial) -> tuple[bool, int, int]:
        failures = sum(trial.run.nr_failed.values())
        return trial.outcome.error is not None, failures, -kernels_by_age.index(trial.kernel)

    return min(trials, key=rank)
