"""The report as one HTML file: kernels against call sites, the areas under each call that fails, why, what would help.

Nothing in it needs a script but the sorting of tables, and nothing a network; the frame of the page is that of all
reports (emu/report/html.py).  Nothing is said by colour alone: verdicts are words, anon_vmas have their numbers.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

from emu.check.align import site_key
from emu.check.blocks import Block, blocks
from emu.check.finding import Finding
from emu.check.lines import Line, Style
from emu.check.model import AreaState, Boundary, Call, Footprint, Frame
from emu.check.report import Report, Sweep
from emu.check.text import question_text, summary_text, what_happened
from emu.check.verdict import Judged
from emu.report.axis import HEIGHT, AddressAxis
from emu.report.figures import anon_vma_color
from emu.report.html import page
from emu.report.tables import Cell, code, number, table, text
from emu.sweep import Coping
from emu.version import __version__

MAX_SITES = 12
"""Columns of the matrix: places with something to tell come first."""


def check_page(report: Report) -> str:
    """The whole file."""
    command = shlex.join(report.argv)
    parts = [
        _header(report, command),
        '<main id="main">',
        _section("kernels", "Verdicts", _verdicts(report)),
        _section("sites", "Kernels and call sites", _matrix(report)),
        _section("findings", "What fails", _findings(report)),
    ]
    if report.sweep is not None:
        parts.append(_section("sweep", "A failure at each call in turn", _sweep(report.sweep)))
    parts.append(_section("calls", "Calls of the reference", _calls(report)))
    parts.append(f"</main><footer><p>pagewalk {escape(__version__)}. Every statement comes from a run.</p></footer>")
    style = resources.files("emu.check").joinpath("assets", "check.css").read_text(encoding="utf-8")
    return page(f"check mremap: {command} · pagewalk", "\n".join(parts), {}, style)


def _header(report: Report, command: str) -> str:
    links = [("kernels", "Verdicts"), ("sites", "Call sites"), ("findings", "What fails")]
    links += [("sweep", "Sweep")] if report.sweep is not None else []
    links.append(("calls", "Calls"))
    items = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title in links)
    return (
        '<a class="skip" href="#main">Skip to the report</a>'
        f"<header><p>pagewalk check mremap</p><h1><code>{escape(command)}</code> {_badge(report.verdict)}</h1>"
        f"<div>{escape(summary_text(report))}</div>"
        f'<nav aria-label="Sections"><ul>{items}</ul></nav></header>'
    )


def _badge(verdict: str) -> str:
    return f'<span class="verdict {verdict}">{verdict}</span>'


def _section(key: str, title: str, content: str) -> str:
    heading = f'<h2 id="{key}-title">{escape(title)}</h2>'
    return f'<section id="{key}" aria-labelledby="{key}-title">{heading}{content}</section>'


# ---- verdicts, matrix -----------------------------------------------------------------------------------------------


def _questions(report: Report) -> list[tuple[str | None, str]]:
    """(name, heading) of the runs without limits and of every question."""
    named = [(name, f"with {question_text(report, name)}") for name, _ in report.questions]
    return [(None, "without limits"), *named]


def _verdicts(report: Report) -> str:
    parts = []
    for name, heading in _questions(report):
        rows = [_verdict_row(report, judged) for judged in report.of_question(name)]
        headers = ["kernel", "verdict", "mremap ok", "failed", "exit", "what happened"]
        parts.append(table(heading, headers, rows, "No kernel ran."))
    return "".join(parts)


def _verdict_row(report: Report, judged: Judged) -> list[Cell]:
    outcome, run = judged.trial.outcome, judged.trial.run
    status = outcome.signal or ("-" if outcome.exit_status is None else str(outcome.exit_status))
    failed = ", ".join(f"{count} {name}" for name, count in run.nr_failed.items()) or "-"
    return [
        text(judged.trial.kernel),
        Cell(_badge(judged.verdict.value), judged.verdict.value),
        number(run.nr_ok),
        text(failed),
        text(status),
        text("; ".join(what_happened(report, judged))),
    ]


def _matrix(report: Report) -> str:
    """A row for each run, a column for each place that calls mremap."""
    sites = sorted(report.sites, key=lambda site: not site.findings)[:MAX_SITES]
    if not sites:
        return '<p class="empty">The program never calls mremap.</p>'
    heads = "".join(
        f'<th scope="col"><code>{escape(_place(site.frame))}</code></th>' for site in sites
    )
    rows = []
    for judged in report.judged:
        cells = "".join(_matrix_cell(judged, site.key) for site in sites)
        head = f'<th scope="row">{escape(judged.trial.title)}</th><td>{_badge(judged.verdict.value)}</td>'
        rows.append(f"<tr>{head}{cells}</tr>")
    more = len(report.sites) - len(sites)
    note = f'<p class="note">{more} more places are not shown.</p>' if more else ""
    return (
        '<div class="scroll"><table class="matrix"><caption>Calls that worked and failed, by place</caption>'
        f'<thead><tr><th scope="col">run</th><th scope="col">verdict</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}"
    )


def _matrix_cell(judged: Judged, key: str) -> str:
    calls = [call for call in judged.trial.run.calls if site_key(call) == key]
    if not calls:
        return "<td>not called</td>"
    errors: dict[str, int] = {}
    for call in calls:
        if call.error is not None:
            errors[call.error] = errors.get(call.error, 0) + 1
    nr_ok = len(calls) - sum(errors.values())
    parts = [f"✓ {nr_ok}"] if nr_ok else []
    parts += [f"✗ {count} {name}" for name, count in errors.items()]
    return f'<td class="{"failed" if errors else "worked"}">{escape(", ".join(parts))}</td>'


def _place(frame: Frame | None) -> str:
    return "an unknown place" if frame is None else frame.text


# ---- what fails -----------------------------------------------------------------------------------------------------


def _findings(report: Report) -> str:
    return "".join(_block(report, block) for block in blocks(report)) or '<p class="good">No call fails.</p>'


def _block(report: Report, block: Block) -> str:
    lines = "\n".join(_html_line(line) for line in block.lines)
    lanes = "" if block.finding is None else _lanes(report, block.finding)
    return f'<div class="finding"><h3>{escape(block.head.text)}</h3>{lanes}<pre>{lines}</pre></div>'


_CLASSES = {Style.GOOD: "good", Style.BAD: "bad", Style.DIM: "note", Style.ODD: "copes"}


def _html_line(line: Line) -> str:
    return "".join(
        f'<span class="{_CLASSES[style]}">{escape(words)}</span>' if style in _CLASSES else escape(words)
        for words, style in line.spans
    )


def _lanes(report: Report, finding: Finding) -> str:
    """The areas under the call, a lane for each different picture; the reference's last."""
    lanes: list[tuple[list[str], Footprint, Sequence[Boundary]]] = []
    for where in finding.wheres:
        _add_lane(lanes, where.judged.trial.title, where.calls[0])
    partner = finding.wheres[0].partner
    if partner is not None:
        _add_lane(lanes, f"{report.reference.title} (reference)", partner)
    if finding.is_injected or not lanes:
        return ""
    start = min(found.start for _, found, _ in lanes)
    end = max(found.end for _, found, _ in lanes)
    axis = AddressAxis([(start, end)])
    rows = "".join(_lane(axis, *lane) for lane in lanes)
    scale = f'<div class="scale"><span>{start:#x}</span><span>{end:#x}</span></div>'
    return f'<div class="lanes">{rows}{scale}</div>'


def _add_lane(
    lanes: list[tuple[list[str], Footprint, Sequence[Boundary]]], title: str, call: Call
) -> None:
    if call.before is None:
        return
    for titles, found, boundaries in lanes:
        if found == call.before and boundaries == call.boundaries:
            titles.append(title)
            return
    lanes.append(([title], call.before, call.boundaries))


def _lane(axis: AddressAxis, titles: list[str], found: Footprint, boundaries: Sequence[Boundary]) -> str:
    areas = "".join(_area(axis, area, found) for area in found.areas)
    marks = "".join(
        f'<u style="left:{_percent(axis, boundary.address)}" title="{escape(boundary.text)}"></u>'
        for boundary in boundaries
    )
    told = f"{found.nr_areas} {'area' if found.nr_areas == 1 else 'areas'}"
    if boundaries:
        told += f"; boundary at {boundaries[0].address:#x}: {boundaries[0].text}"
    return (
        f"<b>{escape(', '.join(titles))}</b>"
        f'<div class="lane" role="img" aria-label="{escape(told)}">{areas}{marks}</div>'
    )


def _area(axis: AddressAxis, area: AreaState, found: Footprint) -> str:
    left, right = max(area.start, found.start), min(area.end, found.end)
    color, _pattern = anon_vma_color(area.anon_vma)
    color = "var(--plain)" if color.startswith("@") else color
    label = area.perms + ("" if area.anon_vma is None else f" #{area.anon_vma}")
    width = (axis.place(right) - axis.place(left)) / HEIGHT * 100
    title = f"{area.start:#x}-{area.end:#x} {label} {area.name}"
    return (
        f'<i style="left:{_percent(axis, left)};width:{width:.3f}%;background:{color}" title="{escape(title)}">'
        f"{escape(label)}</i>"
    )


def _percent(axis: AddressAxis, address: int) -> str:
    return f"{axis.place(address) / HEIGHT * 100:.3f}%"


# ---- sweep, calls ---------------------------------------------------------------------------------------------------

_COPING_CLASSES = {
    Coping.SAME_OUTPUT: "good",
    Coping.REPORTS: "copes",
    Coping.CRASHED: "bad",
    Coping.DIFFERENT_OUTPUT: "bad",
    Coping.DIFFERENT_FILES: "bad",
}


def _sweep(sweep: Sweep) -> str:
    kernel = escape(sweep.reference.kernel)
    parts = [f'<p class="note">On {kernel}: one run for each call, in which it alone fails.</p>']
    for error in dict.fromkeys(row.error for row in sweep.rows):
        cells = "".join(
            f'<span class="{_COPING_CLASSES.get(row.coping, "unknown")}" '
            f'title="{escape(f"call {row.call}: {row.text}")}">{row.call}</span>'
            for row in sweep.rows
            if row.error == error
        )
        parts.append(f'<h3>{escape(error)}</h3><div class="sweep">{cells}</div>')
    rows = [
        [number(row.call), text(row.error), code(_place(sweep.site_of(row))), text(row.coping.value), text(row.detail)]
        for row in sweep.rows
    ]
    parts.append(table("Outcomes", ["call", "error", "place", "outcome", "detail"], rows, "No call was made."))
    return "".join(parts)


def _calls(report: Report) -> str:
    calls = report.reference.run.calls
    others = [
        (judged, {reference: nr for nr, reference in judged.pairs.items()})
        for judged in report.judged
        if judged.trial is not report.reference
    ]
    rows = [
        [number(call.nr), code(call.text), code(_place(call.site)), text(_elsewhere(call, others))] for call in calls
    ]
    caption = f"{report.reference.run.nr_calls} calls on {report.reference.title}"
    return table(caption, ["nr", "call", "place", "elsewhere"], rows, "The program never calls mremap.")


def _elsewhere(call: Call, others: Sequence[tuple[Judged, Mapping[int, int]]]) -> str:
    """In which other runs the same call, found by the reference's number, failed or was not made."""
    found: dict[str, list[str]] = {}
    for judged, numbers in others:
        partner = numbers.get(call.nr)
        error = "not made" if partner is None else judged.trial.run.calls[partner - 1].error
        if error != call.error:
            found.setdefault(error or "works", []).append(judged.trial.title)
    return "; ".join(f"{what}: {', '.join(titles)}" for what, titles in found.items()) or "the same"
