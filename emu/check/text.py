"""The report on a terminal: the table of verdicts, a block for each thing that went otherwise, the sweep, notes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from emu.check.aftermath import Deed, Did, next_deeds
from emu.check.blocks import blocks
from emu.check.lines import Line, Style, line
from emu.check.report import Report, Sweep
from emu.check.verdict import Judged, Noise, Odd, Verdict
from emu.sweep import Coping, SweepRow, summary

MAX_SITES = 20


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
    for block in blocks(report):
        yield line()
        yield block.head
        yield from block.lines
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
    if bad:
        return f"it does not cope with {bad} of {len(sweep.rows)} failures"
    reported = len([row for row in sweep.rows if row.coping is Coping.REPORTS])
    if reported == len(sweep.rows):
        return f"it reports each of {reported} failures"
    also = f", {reported} of them by reporting an error" if reported else ""
    return f"it copes with each of {len(sweep.rows)} failures{also}"


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
        Odd.EXTRA: "made here only",
        Odd.MISSING: "not made",
    }
    parts = []
    for odd, text in texts.items():
        count = sum(one.odd is odd for one in judged.odd_calls)
        if count:
            did = _did_text(judged) if odd is Odd.FAILS else ""
            parts.append(f"{count} {'call' if count == 1 else 'calls'} {text}{did}")
    if judged.refusals:
        count = len(judged.refusals)
        parts.append(f"{count} other memory {'call' if count == 1 else 'calls'} failed")
    if not parts and judged.trial.outcome.injected:
        parts.append("failures were made")
    return ", ".join(parts)


def _did_text(judged: Judged) -> str:
    """What the tasks did after their calls had failed, in a word each."""
    dids = dict.fromkeys(deed.did.value for odd in judged.failures for deed in next_deeds(odd.call))
    return f" ({', '.join(dids)})" if dids else ""


def _deed_text(deed: Deed) -> str:
    return f"{deed.did.value}: {deed.evidence}"


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
