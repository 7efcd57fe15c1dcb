"""What a program did after mremap had failed: first the task that called, then the program as a whole.

Each answer comes with what showed it.  The rules, one for each :class:`Did`, all of which may hold at once:

    retried           the task called mremap for the same memory again, before any other mremap
    fell back         it mapped memory for at least the new size (mmap or brk), and the old pages were found there
                      again or the old range was unmapped
    gave up           it unmapped the old range and had mapped nothing in its stead
    reported          it wrote to standard error what the reference run did not write, or the program's exit status is
                      another than the reference's and not 0
    different output  standard output differs from the reference's; or standard error, when the exit status is the same
    crashed           the program, or one of its tasks, was killed by a signal that did not kill it on the reference
    lost data         the call that failed had unmapped pages with data; or a file that the program left differs
                      though its exit status is the reference's
    went on           none of these
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from emu.differences import What, differences, exit_text

if TYPE_CHECKING:
    from emu.check.model import Call, Run, TaskEnd
    from emu.jobs import Outcome


class Did(Enum):
    RETRIED = "retried"
    FELL_BACK = "fell back"
    GAVE_UP = "gave up"
    REPORTED = "reported"
    DIFFERENT_OUTPUT = "different output"
    CRASHED = "crashed"
    LOST_DATA = "lost data"
    WENT_ON = "went on"


@dataclass(frozen=True)
class Deed:
    """One thing that was done, and what showed it."""

    did: Did
    evidence: str

    def as_json(self) -> dict[str, str]:
        return {"did": self.did.value, "evidence": self.evidence}


def next_deeds(call: Call) -> list[Deed]:
    """What the task did after ``call`` had failed, as far as its calls tell."""
    deeds = [Deed(Did.LOST_DATA, text) for text in _destroyed(call)]
    after = call.aftermath
    if after is None:
        return deeds
    if after.retried is not None:
        outcome = "which worked" if after.retry_error is None else f"which failed too ({after.retry_error})"
        deeds.append(Deed(Did.RETRIED, f"{after.retried}, {outcome}"))
    if after.mapped is not None and (after.copy is not None or after.unmapped is not None):
        deeds.append(Deed(Did.FELL_BACK, _fallback_text(call)))
    elif after.unmapped is not None:
        deeds.append(Deed(Did.GAVE_UP, after.unmapped))
    if after.said is not None:
        deeds.append(Deed(Did.REPORTED, after.said))
    return deeds


def _destroyed(call: Call) -> Iterator[str]:
    for gone in call.destroyed:
        if gone.nr_pages_with_data:
            pages = "1 page" if gone.nr_pages_with_data == 1 else f"{gone.nr_pages_with_data} pages"
            where = f"{gone.start:#x}-{gone.end:#x}"
            yield f"{pages} with data at {where} had been unmapped before the call was refused"


def _fallback_text(call: Call) -> str:
    after = call.aftermath
    assert after is not None and after.mapped is not None
    parts = [after.mapped]
    if after.copy is not None:
        parts.append(f"{after.copy.nr_copied} of {after.copy.nr_compared} pages copied there")
    if after.unmapped is not None:
        parts.append(after.unmapped)
    return ", then ".join(parts)


# ---- the program as a whole -----------------------------------------------------------------------------------------


def run_deeds(outcome: Outcome, run: Run, reference: Outcome, reference_run: Run) -> list[Deed]:
    """What became of the program in a run where mremap had gone otherwise."""
    found = differences(outcome, reference)
    by_what: dict[What, str] = {}
    for difference in found:
        by_what.setdefault(difference.what, difference.text)
    same_exit = What.EXIT not in by_what
    deeds = []
    crash = _crash(run, reference_run)
    if crash is not None:
        deeds.append(Deed(Did.CRASHED, crash))
    elif outcome.signal is not None and outcome.signal != reference.signal:
        deeds.append(Deed(Did.CRASHED, exit_text(outcome)))
    if same_exit and What.FILE in by_what:
        deeds.append(Deed(Did.LOST_DATA, by_what[What.FILE]))
    if not same_exit and outcome.signal is None and outcome.exit_status:
        deeds.append(Deed(Did.REPORTED, by_what[What.EXIT]))
    elif What.STDERR in by_what and not same_exit:
        deeds.append(Deed(Did.REPORTED, by_what[What.STDERR]))
    if What.STDOUT in by_what:
        deeds.append(Deed(Did.DIFFERENT_OUTPUT, by_what[What.STDOUT]))
    elif What.STDERR in by_what and same_exit:
        deeds.append(Deed(Did.DIFFERENT_OUTPUT, by_what[What.STDERR]))
    return deeds


def _crash(run: Run, reference: Run) -> str | None:
    """The first task that a signal killed here and not there."""
    theirs = {end.task: end for end in reference.ends}
    for end in run.ends:
        other = theirs.get(end.task)
        if end.signal is not None and (other is None or other.signal != end.signal):
            return _crash_text(end)
    return None


def _crash_text(end: TaskEnd) -> str:
    text = f"{end.comm} (pid {end.pid}) was killed by {end.signal}"
    if end.fault_address is not None:
        text += f" at {end.fault_address:#x}"
    site = end.where.site
    return text if site is None else f"{text} in {site.text}"


def as_json(deeds: list[Deed]) -> list[dict[str, Any]]:
    return [deed.as_json() for deed in deeds]
