"""What would have let a refused call succeed: found by running the program again under other rules.

Four ways are tried, one at a time, in the machine in which the call failed.  A way that asks for the rules of a run
that was made already is answered by that run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from emu.check.align import Pairs
from emu.check.model import Call, Run

if TYPE_CHECKING:
    from emu.machine import MachineConfig


class Way(Enum):
    """A change of rules, with what it is in words."""

    SHARING = "rmap40-sharing"
    ANONMM = "anonmm"
    MULTI_AREA = "multi-area-mremap"
    SPLIT = "split-at-boundary"

    @property
    def title(self) -> str:
        return _TITLES[self]

    @property
    def option(self) -> str:
        """The same on the command line."""
        return _OPTIONS[self]


_TITLES = {
    Way.SHARING: "sharing anon_vmas at the first write (rmap 40)",
    Way.ANONMM: "anonmm: no anon_vmas at all",
    Way.MULTI_AREA: "the mremap of 6.17, which moves many areas",
    Way.SPLIT: "splitting the call at the boundary",
}
_OPTIONS = {
    Way.SHARING: "--rmap anon_vma-share",
    Way.ANONMM: "--rmap anonmm",
    Way.MULTI_AREA: "--mremap 6.17",
    Way.SPLIT: "--limit split_spanning",
}


def changed(config: MachineConfig, way: Way) -> MachineConfig:
    """``config`` with that way's rules.  ValueError when the rest of it contradicts them."""
    if way is Way.SHARING:
        return replace(config, rmap="anon_vma-share")
    if way is Way.ANONMM:
        return replace(config, rmap="anonmm")
    if way is Way.MULTI_AREA:
        return replace(config, mremap="6.17", limits=replace(config.limits, mremap=None))
    return replace(config, limits=replace(config.limits, split_spanning=True))


def rules_key(config: MachineConfig) -> tuple[Any, ...]:
    """Equal for machines that differ in nothing but the names of their kernels."""
    from kernel.profile import resolve_profile

    mremap = config.limits.mremap or config.mremap
    profile = resolve_profile(config.kernel, config.rmap, mremap, config.bugs)
    rules = replace(profile, name="", description="", provenance="")
    rest = replace(config, kernel="2.6.7", rmap=None, mremap=None, bugs=(), limits=replace(config.limits, mremap=None))
    return repr(rules), repr(rest)


class Result(Enum):
    WORKS = "works"
    FAILS = "fails"
    NOT_REACHED = "not reached"
    SAME_RULES = "in force already"
    CONTRADICTS = "cannot be tried"


@dataclass(frozen=True)
class Rescue:
    """What one way did for one call."""

    way: Way
    result: Result
    error: str | None = None
    """errno of a call that failed still."""
    reason: str | None = None
    """The rule that refused it; or why the way cannot be tried."""
    same_behaviour: bool | None = None
    """Did the program then behave as on the reference?  None: it was not run."""

    def as_json(self) -> dict[str, Any]:
        return {
            "way": self.way.value,
            "title": self.way.title,
            "option": self.way.option,
            "result": self.result.value,
            "error": self.error,
            "reason": self.reason,
            "same_behaviour": self.same_behaviour,
        }

    @property
    def text(self) -> str:
        if self.result is Result.WORKS:
            if self.same_behaviour:
                return "the call works, and the program behaves as on the reference"
            return "the call works, but the program still behaves differently"
        if self.result is Result.FAILS:
            return f"still {self.error} ({self.reason})" if self.reason else f"still {self.error}"
        if self.result is Result.NOT_REACHED:
            return "the program does not come to this call"
        if self.result is Result.SAME_RULES:
            return "does not help: these are the kernel's rules already"
        return f"cannot be tried: {self.reason}"


def judge(way: Way, call: Call, run: Run, pairs: Pairs, same_behaviour: bool) -> Rescue:
    """What became of ``call`` in ``run``, to which ``pairs`` leads."""
    partner = pairs.get(call.nr)
    if partner is None:
        return Rescue(way, Result.NOT_REACHED, same_behaviour=same_behaviour)
    other = _call_nr(run.calls, partner)
    if other.error is None:
        return Rescue(way, Result.WORKS, same_behaviour=same_behaviour)
    return Rescue(way, Result.FAILS, other.error, other.reason, same_behaviour)


def _call_nr(calls: Sequence[Call], nr: int) -> Call:
    return calls[nr - 1]
