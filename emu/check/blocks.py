"""What went otherwise, a block each: a call that fails, another memory call, calls that moved or were not made.

Written to be read like a compiler's diagnostics: what is wrong, where, what it is about, why, what came of it, what
would help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emu.check.aftermath import Deed, Did
from emu.check.finding import Finding, OtherRefusal, Otherwise, Where, other_refusals, otherwise
from emu.check.lines import Line, Style, labelled, line, more
from emu.check.model import AreaState, Boundary, Call, FirstWrite, Footprint, Frame
from emu.check.report import Report
from emu.check.rescue import Rescue, Result, Way
from emu.check.verdict import Judged, Odd, Trial

MAX_AREAS = 6


@dataclass
class Block:
    """One thing that went otherwise."""

    word: str
    """An errno, or what the calls did."""
    title: str
    lines: list[Line]
    style: Style
    finding: Finding | None = None

    @property
    def head(self) -> Line:
        return line((self.word, self.style), (f": {self.title}", Style.BOLD), hang=2)


def blocks(report: Report) -> Iterator[Block]:
    for finding in report.findings:
        title = f"mremap in {_place(finding.site)}: {_reason(finding)}"
        style = Style.DIM if finding.is_everywhere else Style.BAD
        yield Block(finding.error, title, list(_finding(report, finding)), style, finding)
    for refusal in other_refusals(report.judged):
        example = refusal.example
        title = f"{example.name} in {_place(example.chain.site)}: {example.reason or 'refused'}"
        yield Block(example.error, title, list(_other_refusal(report, refusal)), Style.BAD)
    for one in otherwise(report.judged):
        calls = "" if one.nr_calls == 1 else f" ({one.nr_calls} calls)"
        title = f"mremap in {_place(one.call.site)}{calls}"
        yield Block(_ODD_TITLES[one.odd], title, list(_otherwise(report, one)), Style.ODD)


def _place(frame: Frame | None) -> str:
    return "an unknown place" if frame is None else frame.text


def _finding(report: Report, finding: Finding) -> Iterator[Line]:
    call = finding.call
    frames = call.chain.frames
    stack = [frame.text for frame in frames if not _is_start(frame)]
    if len(stack) > 1:
        yield labelled("stack", " <- ".join(stack))
    yield labelled("call", (call.text, Style.PLACE))
    yield from _where_text(report, finding)
    yield from _areas(report, finding)
    yield from _then(finding)
    yield from _rescues(finding)


def _reason(finding: Finding) -> str:
    before = finding.call.before
    if finding.reason == "range spans areas" and before is not None:
        areas = "1 area" if before.nr_areas == 1 else f"{before.nr_areas} areas"
        return f"the range spans {areas}" + (" and a hole" if _has_hole(finding) else "")
    return finding.reason or "refused"


def _has_hole(finding: Finding) -> bool:
    return any(boundary.reason == "hole" for boundary in finding.call.boundaries)


def _where_text(report: Report, finding: Finding) -> Iterator[Line]:
    counts = {len(where.calls) for where in finding.wheres}
    times = "" if counts == {1} else f", {max(counts)} calls" if len(counts) == 1 else f", up to {max(counts)} calls"
    if finding.is_everywhere:
        yield labelled("fails", f"on every kernel alike{times}: the program's own business")
        return
    label = "fails"
    for text in _trials_text(report, [where.judged.trial for where in finding.wheres]):
        yield labelled(label, text + times)
        label = ""
    label = "works"
    for text in _trials_text(report, report.works_on(finding)):
        yield labelled(label, text)
        label = ""


def _other_refusal(report: Report, refusal: OtherRefusal) -> Iterator[Line]:
    yield labelled("call", (refusal.example.text, Style.PLACE))
    yield from _fails_on(report, refusal.wheres)
    yield from _outcomes(refusal.wheres)


def _fails_on(report: Report, wheres: list[Judged]) -> Iterator[Line]:
    label = "on"
    for text in _trials_text(report, [judged.trial for judged in wheres]):
        yield labelled(label, text)
        label = ""


_ODD_TITLES = {
    Odd.MOVED: "moved or stayed otherwise",
    Odd.MISSING: "not called",
    Odd.WORKS: "works here alone",
}


def _otherwise(report: Report, one: Otherwise) -> Iterator[Line]:
    kernel = report.reference.kernel
    if one.odd is Odd.MISSING:
        yield labelled("call", (one.call.text, Style.PLACE), f" on {kernel}")
    else:
        yield labelled("call", (one.call.text, Style.PLACE))
        if one.partner is not None:
            yield labelled("", (one.partner.text, Style.PLACE), f" on {kernel}")
    yield from _fails_on(report, one.wheres)
    yield from _outcomes(one.wheres)


def _trials_text(report: Report, trials: list[Trial]) -> Iterator[str]:
    """Runs, a line for each question."""
    for name in (None, *(question.name for question in report.questions)):
        kernels = [trial.kernel for trial in trials if trial.question == name]
        if not kernels:
            continue
        everywhere = len(kernels) > 1 and len(kernels) == len(report.of_question(name))
        text = "every kernel" if everywhere else ", ".join(kernels)
        if not report.questions:
            yield text
        else:
            yield f"{'without limits' if name is None else f'with {name}'}: {text}"


def _areas(report: Report, finding: Finding) -> Iterator[Line]:
    call, where = finding.call, finding.wheres[0]
    if call.before is None or finding.is_injected or finding.error == "EINVAL":
        return  # EINVAL is about the arguments
    yield labelled("areas", f"under {_range(call.before.start, call.before.end)} on {where.judged.trial.title}:")
    edges = {boundary.address: boundary for boundary in call.boundaries}
    width = max((len(_area_text(area)) for area in call.before.areas), default=0)
    shown = call.before.areas[:MAX_AREAS]
    if not shown:
        yield more("  nothing is mapped there")
    for area in shown:
        yield more(f"  {_area_text(area):<{width}}")
        boundary = edges.get(area.end)
        if boundary is not None:
            yield more((f"  ^ {_boundary_text(boundary)}", Style.BAD))
    left = call.before.nr_areas - len(shown)
    if left > 0:
        yield more((f"  and {left} more, {_more_boundaries(call)}", Style.DIM))
    yield from _history(finding)
    yield from _areas_of_reference(report, finding)


def _more_boundaries(call: Call) -> str:
    reasons = {boundary.reason for boundary in call.boundaries}
    return "apart for the same reason" if len(reasons) == 1 else "apart for several reasons"


def _range(start: int, end: int) -> str:
    return f"{start:#x}-{end:#x}"


def _area_text(area: AreaState) -> str:
    pages = "1 page" if area.nr_pages == 1 else f"{area.nr_pages} pages"
    anon = "" if area.anon_vma is None else f"  anon_vma #{area.anon_vma}"
    name = "" if area.name == "anon" else f"  {area.name}"
    return f"{_range(area.start, area.end)} {area.perms}  {pages}{anon}{name}"


def _boundary_text(boundary: Boundary) -> str:
    return f"boundary at {boundary.address:#x}: {boundary.text}"


def _history(finding: Finding) -> Iterator[Line]:
    """What made the first boundary."""
    boundary = finding.boundary
    if boundary is None or boundary.reason == "hole":
        return
    label = "made by"
    for write in boundary.first_writes:
        yield labelled(label, _first_write_text(write))
        label = ""
    if boundary.first_writes:
        return
    for event in boundary.events:
        site = event.chain.site
        yield labelled(label, f"{event.text} in {site.text if site is not None else '?'}")
        label = ""


def _first_write_text(write: FirstWrite) -> str:
    name = f"anon_vma #{write.anon_vma}"
    if write.how == "fork":
        return f"{name}: made by fork"
    at = "" if write.address is None else f" to {write.address:#x}"
    if write.how == "exec":
        return f"{name}: first write{at} by exec"
    site, frames = write.chain.site, write.chain.frames
    where = "?" if site is None else site.text
    insn = f": {frames[0].insn}" if frames and frames[0].insn else ""
    through = "" if not frames or site is frames[0] else f" through {frames[0].text}"
    index = write.chain.site_index
    callers = [] if index is None else [frame for frame in frames[index + 1 :] if not _is_start(frame)]
    caller = f" <- {callers[0].text}" if callers else ""
    return f"{name}: first write{at} in {where}{through}{insn}{caller}"


def _is_start(frame: Frame) -> bool:
    """What runs before main says nothing."""
    return frame.function is not None and frame.function.lstrip("_").startswith(("start", "libc_start"))


def _areas_of_reference(report: Report, finding: Finding) -> Iterator[Line]:
    partner = finding.wheres[0].partner
    if partner is None or partner.before is None:
        return
    before: Footprint = partner.before
    kernel = report.reference.kernel
    if before.nr_areas == 1 and finding.call.nr_boundaries:
        yield labelled("", f"on {kernel} the range lies in one area: {_area_text(before.areas[0])}")
    elif before.nr_areas > 1 and not partner.failed:
        yield labelled("", f"on {kernel} the range spans {before.nr_areas} areas too, and the call works")


def _then(finding: Finding) -> Iterator[Line]:
    label = "then"
    for deed in finding.deeds:
        yield labelled(label, (deed.did.value, _deed_style(deed)), f": {deed.evidence}")
        label = ""
    after = finding.call.aftermath
    if not finding.deeds and after is not None and after.calls:
        nexts = ", ".join(call.text for call in after.calls[:3])
        yield labelled(label, nexts + (", ..." if after.nr_calls > 3 else ""))
    if not finding.is_everywhere:
        yield from _outcomes([where.judged for where in finding.wheres])


def _outcomes(wheres: list[Judged]) -> Iterator[Line]:
    """What became of the program, a line for each different thing."""
    known: dict[Deed, list[str]] = {}
    for judged in wheres:
        if judged.trial.outcome.error is not None:
            deeds = [Deed(Did.WENT_ON, judged.trial.outcome.error)]
        else:
            deeds = judged.deeds or [Deed(Did.WENT_ON, "the program behaves as on the reference")]
        for deed in deeds:
            known.setdefault(deed, []).append(judged.trial.title)
    label = "outcome"
    for deed, titles in known.items():
        on = "" if len(titles) == len(wheres) else f"  (on {', '.join(titles)})"
        if deed.did is Did.WENT_ON:
            yield labelled(label, f"{deed.evidence}{on}")
        else:
            yield labelled(label, (deed.did.value, _deed_style(deed)), f": {deed.evidence}{on}")
        label = ""


def _deed_style(deed: Deed) -> Style:
    if deed.did in (Did.CRASHED, Did.LOST_DATA, Did.DIFFERENT_OUTPUT):
        return Style.BAD
    return Style.ODD if deed.did in (Did.REPORTED, Did.GAVE_UP) else Style.GOOD


def _rescues(finding: Finding) -> Iterator[Line]:
    """What each way does; a line for each different answer."""
    if finding.is_injected:
        yield labelled("saved by", "no other rules: the failure was made on request")
        return
    label = "saved by"
    tried = [rescue for where in finding.wheres for rescue in where.rescues]
    if tried and all(
        rescue.result is Result.SAME_RULES or (rescue.result, rescue.error) == (Result.FAILS, finding.error)
        for rescue in tried
    ):
        yield labelled(label, ("no ", Style.DIM), f"  rules of the {len(Way)} that were tried: still {finding.error}")
        return
    width = max(len(way.title) for way in Way)
    for way in Way:
        answers: dict[str, list[str]] = {}
        saves: dict[str, bool] = {}
        for where in finding.wheres:
            rescue = next((rescue for rescue in where.rescues if rescue.way is way), None)
            if rescue is None:
                continue
            text = _rescue_text(rescue, finding, where)
            answers.setdefault(text, []).append(where.judged.trial.title)
            saves[text] = rescue.result is Result.WORKS
        for text, titles in answers.items():
            mark, style = ("yes", Style.GOOD) if saves[text] else ("no ", Style.DIM)
            on = "" if len(answers) == 1 else f"  (on {', '.join(titles)})"
            yield labelled(label, (mark, style), f"  {way.title:<{width}}  {text}{on}")
            label = ""


def _rescue_text(rescue: Rescue, finding: Finding, where: Where) -> str:
    """A way that is the kernel's own has failed, as the call has; said so only where that is all there is to say."""
    results = {one.result for other in finding.wheres for one in other.rescues if one.way is rescue.way}
    if rescue.result is not Result.SAME_RULES or results == {Result.SAME_RULES}:
        return rescue.text
    call = where.calls[0]
    return Rescue(rescue.way, Result.FAILS, call.error, call.reason).text
