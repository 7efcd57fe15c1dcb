"""What is wrong, by call site: the same failure under several kernels and limits is one finding.

Two failures are the same when the same place of the program got the same errno by the same rule at the same kind of
boundary, made by the same places of the program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from emu.check.aftermath import Deed, next_deeds
from emu.check.align import site_key
from emu.check.model import Boundary, Call, Frame, Refusal, Run
from emu.check.rescue import Rescue
from emu.check.verdict import Judged, Odd


@dataclass
class Where:
    """One run in which a finding was made."""

    judged: Judged
    calls: list[Call]
    """Those that failed in this way, in order."""
    partner: Call | None
    """The same call on the reference."""
    rescues: list[Rescue] = field(default_factory=list)
    """Of the first call."""


@dataclass
class Finding:
    """One way in which one call site fails."""

    error: str
    reason: str
    wheres: list[Where] = field(default_factory=list)
    is_everywhere: bool = False
    """It fails on every kernel alike without limits: the program's own business, and no verdict."""

    @property
    def call(self) -> Call:
        """An example: the first one of the first run."""
        return self.wheres[0].calls[0]

    @property
    def site(self) -> Frame | None:
        return self.call.site

    @property
    def boundary(self) -> Boundary | None:
        """The place at which the call was refused: where the area of its first address ends."""
        return self.call.boundaries[0] if self.call.boundaries else None

    @property
    def deeds(self) -> list[Deed]:
        return next_deeds(self.call)

    @property
    def is_injected(self) -> bool:
        return self.reason.startswith("made to fail")


@dataclass
class OtherRefusal:
    """Another memory call that fails where it does not on the reference."""

    example: Refusal
    wheres: list[Judged]


def other_refusals(judged: Iterable[Judged]) -> list[OtherRefusal]:
    found: dict[tuple[str, ...], OtherRefusal] = {}
    for one in judged:
        for refusal in one.refusals:
            same = found.setdefault((*refusal.key, _kind(refusal.reason)), OtherRefusal(refusal, []))
            if one not in same.wheres:
                same.wheres.append(one)
    return list(found.values())


@dataclass
class Otherwise:
    """Calls of one place that did not fail and yet went otherwise than on the reference."""

    odd: Odd
    call: Call
    partner: Call | None
    wheres: list[Judged]
    nr_calls: int = 0
    """At most, in one run."""


def otherwise(judged: Iterable[Judged]) -> list[Otherwise]:
    """What moved or stayed, was not made, or worked here alone; calls that were made here alone are left out."""
    found: dict[tuple[str, str], Otherwise] = {}
    for one in judged:
        counts: Counter[tuple[str, str]] = Counter()
        for odd in one.odd_calls:
            if odd.odd in (Odd.FAILS, Odd.EXTRA):
                continue
            key = odd.odd.value, site_key(odd.call)
            counts[key] += 1
            same = found.setdefault(key, Otherwise(odd.odd, odd.call, odd.partner, []))
            if one not in same.wheres:
                same.wheres.append(one)
        for key, count in counts.items():
            found[key].nr_calls = max(found[key].nr_calls, count)
    return list(found.values())


def _kind(reason: str) -> str:
    """The rule that refused, whichever call of the run it was."""
    return "made to fail" if reason.startswith("made to fail") else reason


@dataclass
class Site:
    """One place of the program that calls mremap, over all runs."""

    key: str
    frame: Frame | None
    nr_calls: int = 0
    """On the reference."""
    findings: list[Finding] = field(default_factory=list)


def findings(judged: Iterable[Judged]) -> list[Finding]:
    """In the order of the calls, then of the runs."""
    found: dict[tuple[str, ...], Finding] = {}
    for one in judged:
        wheres: dict[tuple[str, ...], Where] = {}
        for odd in one.failures:
            call = odd.call
            key = _key(call)
            if key in wheres:
                wheres[key].calls.append(call)
                continue
            where = wheres[key] = Where(one, [call], odd.partner if odd.odd is Odd.FAILS else None)
            finding = found.setdefault(key, Finding(call.error or "?", call.reason or ""))
            finding.wheres.append(where)
    return list(found.values())


def _key(call: Call) -> tuple[str, ...]:
    boundary = call.boundaries[0] if call.boundaries else None
    made_by = []
    if boundary is not None and call.reason == "range spans areas":
        places = [write.chain.site for write in boundary.first_writes]
        made_by = [boundary.reason, *(place.key if place is not None else "?" for place in places)]
    return (site_key(call), call.error or "?", _kind(call.reason or ""), *made_by)


def sites(reference: Run, found: Iterable[Finding]) -> list[Site]:
    """Every place that called mremap on the reference or failed elsewhere, in the order of their first calls."""
    by_key: dict[str, Site] = {}
    for call in reference.calls:
        site = by_key.setdefault(site_key(call), Site(site_key(call), call.site))
        site.nr_calls += 1
    for finding in found:
        key = site_key(finding.call)
        by_key.setdefault(key, Site(key, finding.site)).findings.append(finding)
    return list(by_key.values())


def own_failures(judged: list[Judged], reference: Judged) -> list[Finding]:
    """What fails on every kernel alike, as the reference had it."""
    everywhere = [call for call in reference.trial.run.calls if call.failed]
    for one in judged:
        failed = {(nr, one.trial.run.calls[own - 1].error) for own, nr in one.pairs.items()}
        everywhere = [call for call in everywhere if (call.nr, call.error) in failed]
    found: dict[tuple[str, ...], Finding] = {}
    for call in everywhere:
        finding = found.get(_key(call))
        if finding is None:
            where = Where(reference, [call], None)
            found[_key(call)] = Finding(call.error or "?", call.reason or "", [where], is_everywhere=True)
        else:
            finding.wheres[0].calls.append(call)
    return list(found.values())
