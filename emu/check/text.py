"""The report on a terminal: the table of verdicts, then a block for each way in which a call fails.

Written to be read like a compiler's diagnostics: what is wrong, where, what it is about, why, what came of it, what
would help.  Lines are wrapped on a terminal only; in a file each stays whole, so that it can be searched.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from emu.check.aftermath import Deed, Did
from emu.check.finding import Finding, OtherRefusal, Otherwise, Where, other_refusals, otherwise
from emu.check.model import AreaState, Boundary, Call, FirstWrite, Footprint, Frame
from emu.check.report import Report, Sweep
from emu.check.rescue import Rescue, Result, Way
from emu.check.verdict import Judged, Noise, Odd, Trial, Verdict
from emu.sweep import Coping, SweepRow, summary

_LABEL = 8
"""Columns of the words before the colon of a block."""
MAX_AREAS = 6
MAX_SITES = 20


class Style(Enum):
    """As an ANSI sequence."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    GOOD = "32"
    BAD = "1;31"
    ODD = "33"
    DOUBT = "35"
    PLACE = "36"


@dataclass
class Line:
    """One line: spans of text, and where a line that is too long goes on."""

    spans: list[tuple[str, Style]] = field(default_factory=list)
    hang: int = 0
    """Columns of indentation of what does not fit."""

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.spans)


def line(*parts: str | tuple[str, Style], hang: int = 0) -> Line:
    return Line([(part, Style.PLAIN) if isinstance(part, str) else part for part in parts], hang)


_VERDICT_STYLES = {
    Verdict.SAFE: Style.GOOD,
    Verdict.COPES: Style.ODD,
    Verdict.BREAKS: Style.BAD,
    Verdict.UNKNOWN: Style.DOUBT,
}


def report_lines(report: Report) -> Iterator[Line]:
    yield from _headline(report)
    for name in (None, *(question.name for question in report.questions)):
        yield line()
        yield from _table(report, name)
    for finding in report.findings:
        yield line()
        style = Style.DIM if finding.is_everywhere else Style.BAD
        yield line((finding.error, style), (f": {finding_title(finding)}", Style.BOLD), hang=2)
        yield from finding_lines(report, finding)
    for refusal in other_refusals(report.judged):
        yield line()
        yield from _other_refusal(report, refusal)
    for one in otherwise(report.judged):
        yield line()
        yield from _otherwise(report, one)
    if report.sweep is not None:
        yield line()
        yield from _sweep(report.sweep)
    yield from _rest(report)


# ---- the verdict --------------------------------------------------------------------------------------------------


def _headline(report: Report) -> Iterator[Line]:
    verdict = Verdict(report.verdict)
    command = shlex.join(report.argv)
    yield line((verdict.value, _VERDICT_STYLES[verdict]), f": {command}", hang=2)
    yield line(summary_text(report), hang=2)


def summary_text(report: Report) -> str:
    if not report.calls_mremap and report.verdict == "safe":
        return "the program never calls mremap"
    runs = report.judged
    what = "kernels" if not report.questions else "runs"
    if len(runs) == 1:
        what = what.removesuffix("s")
    counts = [
        f"{text} {count} of {len(runs)} {what}"
        for verdict, text in (
            (Verdict.BREAKS, "breaks on"),
            (Verdict.UNKNOWN, "cannot be judged on"),
            (Verdict.COPES, "copes on"),
        )
        if (count := sum(judged.verdict is verdict for judged in runs))
    ]
    if counts:
        text = ", ".join(counts) + f"; compared with {report.reference.kernel}"
    elif len(runs) == 1:
        text = f"runs on {report.reference.kernel} alone, so there is nothing to compare with"
    else:
        text = f"every mremap goes the same way on all {len(runs)} {what}, and so does the program"
    return text if report.sweep is None else f"{text}; {_sweep_text(report.sweep)}"


def _sweep_text(sweep: Sweep) -> str:
    bad = len([row for row in sweep.rows if not row.copes])
    if not bad:
        return f"it copes with each of {len(sweep.rows)} failures"
    return f"it does not cope with {bad} of {len(sweep.rows)} failures"


def _table(report: Report, question: str | None) -> Iterator[Line]:
    if report.questions:
        yield line(("without limits" if question is None else f"with {question_text(report, question)}", Style.BOLD))
    rows = [
        (judged.trial.kernel, judged.verdict.value, _mremap_text(judged), *what_happened(report, judged))
        for judged in report.of_question(question)
    ]
    head = ("kernel", "verdict", "mremap", "what happened")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(3)]
    hang = sum(widths) + 6
    yield line(("  ".join(f"{cell:<{width}}" for cell, width in zip(head, widths, strict=False)) + "  ", Style.DIM),
               (head[3], Style.DIM))  # fmt: skip
    for kernel, verdict, mremap, *happened in rows:
        style = _VERDICT_STYLES[Verdict(verdict)]
        first = line(
            f"{kernel:<{widths[0]}}  ",
            (f"{verdict:<{widths[1]}}", style),
            f"  {mremap:<{widths[2]}}  {happened[0] if happened else ''}",
            hang=hang,
        )
        yield first
        for more in happened[1:]:
            yield line(" " * hang + more, hang=hang)


def question_text(report: Report, name: str) -> str:
    limits = next(question.limits for question in report.questions if question.name == name)
    described = limits.describe()
    return name if name == described else f"{name}: {described}"


def _mremap_text(judged: Judged) -> str:
    run = judged.trial.run
    parts = [f"{run.nr_ok} ok"] if run.nr_ok else []
    parts += [f"{count} {name}" for name, count in run.nr_failed.items()]
    return ", ".join(parts) or "-"


def what_happened(report: Report, judged: Judged) -> list[str]:
    if judged.verdict is Verdict.UNKNOWN:
        return judged.reasons
    if judged.trial is report.reference:
        return ["the reference"]
    if judged.verdict is Verdict.SAFE:
        return [f"as on {report.reference.kernel}"] if judged.trial.run.nr_calls else ["mremap is never called"]
    if judged.verdict is Verdict.COPES:
        return [f"{_odd_text(judged)}; it behaves as on {report.reference.kernel} all the same"]
    if judged.trial.outcome.error is not None:
        return [judged.trial.outcome.error]
    worst = min(judged.deeds, key=lambda deed: _SEVERITY.index(deed.did), default=None)
    return judged.reasons[:1] if worst is None else [_deed_text(worst)]


_SEVERITY = (Did.CRASHED, Did.LOST_DATA, Did.REPORTED, Did.DIFFERENT_OUTPUT, Did.GAVE_UP, Did.RETRIED, Did.FELL_BACK,
             Did.WENT_ON)  # fmt: skip


def _odd_text(judged: Judged) -> str:
    texts = {
        Odd.FAILS: "failed",
        Odd.WORKS: "worked that fail there",
        Odd.MOVED: "moved or stayed otherwise",
        Odd.EXTRA: "more",
        Odd.MISSING: "not made",
    }
    parts = []
    for odd, text in texts.items():
        count = sum(one.odd is odd for one in judged.odd_calls)
        if count:
            parts.append(f"{count} {'call' if count == 1 else 'calls'} {text}")
    if judged.refusals:
        count = len(judged.refusals)
        parts.append(f"{count} other memory {'call' if count == 1 else 'calls'} failed")
    if not parts and judged.trial.outcome.injected:
        parts.append("failures were made")
    return ", ".join(parts)


def _deed_text(deed: Deed) -> str:
    return f"{deed.did.value}: {deed.evidence}"


# ---- a failure ------------------------------------------------------------------------------------------------------


def _labelled(label: str, *parts: str | tuple[str, Style]) -> Line:
    return line((f"  {label:<{_LABEL}} ", Style.DIM), *parts, hang=_LABEL + 5)


def _more(*parts: str | tuple[str, Style]) -> Line:
    return line(" " * (_LABEL + 3), *parts, hang=_LABEL + 5)


def finding_title(finding: Finding) -> str:
    site = "an unknown place" if finding.site is None else finding.site.text
    return f"mremap in {site}: {_reason(finding)}"


def finding_lines(report: Report, finding: Finding) -> Iterator[Line]:
    """All about one failure, below its title."""
    call = finding.call
    frames = call.chain.frames
    stack = [frame.text for frame in frames if not _is_start(frame)]
    if len(stack) > 1:
        yield _labelled("stack", " <- ".join(stack))
    yield _labelled("call", (call.text, Style.PLACE))
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
        yield _labelled("fails", f"on every kernel alike{times}: the program's own business")
        return
    label = "fails"
    for text in _trials_text(report, [where.judged.trial for where in finding.wheres]):
        yield _labelled(label, text + times)
        label = ""
    label = "works"
    for text in _trials_text(report, report.works_on(finding)):
        yield _labelled(label, text)
        label = ""


def _other_refusal(report: Report, refusal: OtherRefusal) -> Iterator[Line]:
    example = refusal.example
    site = "an unknown place" if example.chain.site is None else example.chain.site.text
    reason = example.reason or "refused"
    yield line((example.error, Style.BAD), (f": {example.name} in {site}: {reason}", Style.BOLD), hang=2)
    yield _labelled("call", (example.text, Style.PLACE))
    yield from _fails_on(report, refusal.wheres)
    yield from _outcomes(refusal.wheres)


def _fails_on(report: Report, wheres: list[Judged]) -> Iterator[Line]:
    label = "on"
    for text in _trials_text(report, [judged.trial for judged in wheres]):
        yield _labelled(label, text)
        label = ""


_ODD_TITLES = {
    Odd.MOVED: "moved or stayed otherwise",
    Odd.MISSING: "not called",
    Odd.WORKS: "works here alone",
}


def _otherwise(report: Report, one: Otherwise) -> Iterator[Line]:
    site = "an unknown place" if one.call.site is None else one.call.site.text
    title = _ODD_TITLES[one.odd]
    calls = "" if one.nr_calls == 1 else f" ({one.nr_calls} calls)"
    yield line((title, Style.ODD), (f": mremap in {site}{calls}", Style.BOLD), hang=2)
    kernel = report.reference.kernel
    if one.odd is Odd.MISSING:
        yield _labelled("call", (one.call.text, Style.PLACE), f" on {kernel}")
    else:
        yield _labelled("call", (one.call.text, Style.PLACE))
        if one.partner is not None:
            yield _labelled("", (one.partner.text, Style.PLACE), f" on {kernel}")
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
    if call.before is None or finding.is_injected:
        return
    yield _labelled("areas", f"under {_range(call.before.start, call.before.end)} on {where.judged.trial.title}:")
    edges = {boundary.address: boundary for boundary in call.boundaries}
    width = max((len(_area_text(area)) for area in call.before.areas), default=0)
    shown = call.before.areas[:MAX_AREAS]
    if not shown:
        yield _more("  nothing is mapped there")
    for area in shown:
        yield _more(f"  {_area_text(area):<{width}}")
        boundary = edges.get(area.end)
        if boundary is not None:
            yield _more((f"  ^ {_boundary_text(boundary)}", Style.BAD))
    left = call.before.nr_areas - len(shown)
    if left > 0:
        yield _more((f"  and {left} more, {_more_boundaries(call, len(shown))}", Style.DIM))
    yield from _history(finding)
    yield from _areas_of_reference(report, finding)


def _more_boundaries(call: Call, nr_shown: int) -> str:
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
        yield _labelled(label, _first_write_text(write))
        label = ""
    if boundary.first_writes:
        return
    for event in boundary.events:
        site = event.chain.site
        yield _labelled(label, f"{event.text} in {site.text if site is not None else '?'}")
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
        yield _labelled("", f"on {kernel} the range lies in one area: {_area_text(before.areas[0])}")
    elif before.nr_areas > 1 and not partner.failed:
        yield _labelled("", f"on {kernel} the range spans {before.nr_areas} areas too, and the call works")


def _then(finding: Finding) -> Iterator[Line]:
    label = "then"
    for deed in finding.deeds:
        yield _labelled(label, (deed.did.value, _deed_style(deed)), f": {deed.evidence}")
        label = ""
    after = finding.call.aftermath
    if not finding.deeds and after is not None and after.calls:
        nexts = ", ".join(call.text for call in after.calls[:3])
        yield _labelled(label, nexts + (", ..." if after.nr_calls > 3 else ""))
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
            yield _labelled(label, f"{deed.evidence}{on}")
        else:
            yield _labelled(label, (deed.did.value, _deed_style(deed)), f": {deed.evidence}{on}")
        label = ""


def _deed_style(deed: Deed) -> Style:
    if deed.did in (Did.CRASHED, Did.LOST_DATA, Did.DIFFERENT_OUTPUT):
        return Style.BAD
    return Style.ODD if deed.did in (Did.REPORTED, Did.GAVE_UP) else Style.GOOD


def _rescues(finding: Finding) -> Iterator[Line]:
    """What each way does; a line for each different answer."""
    if finding.is_injected:
        yield _labelled("saved by", "no other rules: the failure was made on request")
        return
    label = "saved by"
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
            yield _labelled(label, (mark, style), f"  {way.title:<{width}}  {text}{on}")
            label = ""


def _rescue_text(rescue: Rescue, finding: Finding, where: Where) -> str:
    """A way that is the kernel's own has failed, as the call has; said so only where that is all there is to say."""
    results = {one.result for other in finding.wheres for one in other.rescues if one.way is rescue.way}
    if rescue.result is not Result.SAME_RULES or results == {Result.SAME_RULES}:
        return rescue.text
    call = where.calls[0]
    return Rescue(rescue.way, Result.FAILS, call.error, call.reason).text


# ---- a failure at each call in turn ---------------------------------------------------------------------------------


def _sweep(sweep: Sweep) -> Iterator[Line]:
    """The table: calls of one place that end alike are one line."""
    yield line((f"each mremap made to fail in turn, on {sweep.reference.kernel}", Style.BOLD))
    rows: list[tuple[str, str, str, SweepRow]] = []
    groups: list[list[SweepRow]] = []
    for row in sweep.rows:
        last = groups[-1][-1] if groups else None
        if last is not None and _is_alike(sweep, last, row):
            groups[-1].append(row)
        else:
            groups.append([row])
    for group in groups:
        first, last = group[0], group[-1]
        site = sweep.site_of(first)
        number = str(first.call) if len(group) == 1 else f"{first.call}-{last.call}"
        rows.append((number, first.error, "?" if site is None else site.text, first))
    head = ("call", "error", "place")
    widths = [max(len(row[i]) for row in [head, *[row[:3] for row in rows]]) for i in range(3)]
    titles = "  ".join(f"{cell:<{width}}" for cell, width in zip(head, widths, strict=True))
    yield line((f"{titles}  outcome", Style.DIM))
    hang = sum(widths) + 6
    for *cells, row in rows:
        start = "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        detail = f": {row.detail}" if row.detail else ""
        signal = f" {row.signal}" if row.signal is not None else ""
        yield line(f"{start}  ", (row.coping.value + signal, _coping_style(row)), detail, hang=hang)
    counts = ", ".join(f"{count} {what}" for what, count in summary(sweep.rows).items())
    yield line(counts or "the program never calls mremap", hang=2)


def _is_alike(sweep: Sweep, one: SweepRow, other: SweepRow) -> bool:
    return (one.error, one.text, sweep.site_of(one)) == (other.error, other.text, sweep.site_of(other))


def _coping_style(row: SweepRow) -> Style:
    if row.copes:
        return Style.GOOD if row.coping is Coping.SAME_OUTPUT else Style.ODD
    return Style.BAD if row.coping in (Coping.CRASHED, Coping.DIFFERENT_OUTPUT, Coping.DIFFERENT_FILES) else Style.DOUBT


# ---- the rest -------------------------------------------------------------------------------------------------------


def _rest(report: Report) -> Iterator[Line]:
    notes = list(_notes(report))
    if notes:
        yield line()
        yield from notes


def _notes(report: Report) -> Iterator[Line]:
    good = report.unaffected_sites
    for site in good[:MAX_SITES]:
        place = "an unknown place" if site.frame is None else site.frame.text
        calls = "1 call" if site.nr_calls == 1 else f"{site.nr_calls} calls"
        yield line(("goes the same everywhere", Style.GOOD), f": {place}, {calls}", hang=2)
    if len(good) > MAX_SITES:
        yield line(f"and {len(good) - MAX_SITES} places more")
    for spec in report.idle_failures:
        yield line(("note", Style.DOUBT), f": {spec} made nothing fail: the program does not come to that", hang=2)
    if report.noise is Noise.OUTPUT:
        yield line(("note", Style.DOUBT), ": what the program prints or writes depends on random numbers; "
                   "only exit statuses and signals were compared", hang=2)  # fmt: skip
    for name, count in _count(
        name for judged in report.judged for name in sorted(judged.trial.outcome.unimplemented)
    ).items():
        yield line(("note", Style.DOUBT), f": system call {name} is not implemented (ENOSYS) in {count} runs", hang=2)


def _count(texts: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return counts


# ---- output ---------------------------------------------------------------------------------------------------------


def render(lines: Iterable[Line], *, width: int | None, color: bool) -> Iterator[str]:
    """Lines of text; wrapped at words to ``width`` columns, if there is one."""
    for one in lines:
        for spans in _wrap(one, width) if width is not None else [one.spans]:
            text = "".join(_paint(text, style) if color else text for text, style in spans)
            yield text.rstrip() if not color else text


def _paint(text: str, style: Style) -> str:
    return f"\x1b[{style.value}m{text}\x1b[0m" if style.value and text else text


def _wrap(one: Line, width: int) -> list[list[tuple[str, Style]]]:
    from rich.cells import cell_len

    if cell_len(one.text) <= width:
        return [one.spans]
    rows: list[list[tuple[str, Style]]] = [[]]
    column, room = 0, width
    for text, style in one.spans:
        for word in _words(text):
            size = cell_len(word)
            if column + len(word.rstrip()) > room and column > one.hang:
                rows.append([(" " * one.hang, Style.PLAIN)])
                column = one.hang
                word = word.lstrip()
                size = cell_len(word)
            rows[-1].append((word, style))
            column += size
    return rows


def _words(text: str) -> Iterator[str]:
    """Words with the blanks before them."""
    start = 0
    for index in range(1, len(text)):
        if text[index] == " " and text[index - 1] != " ":
            yield text[start:index]
            start = index
    if text:
        yield text[start:]
