"""The tables of a report: plain HTML that needs no script (with one, their columns can be sorted)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from emu.report.figures import FAULT_SHAPES, anon_vma_color, ns_text
from emu.report.story import Band, Call, Refusal, Space, Story
from emu.trace.explain import refusal_lines

MAX_SITES = 40
MAX_ROWS = 500
"""Longer tables are cut, and say so."""


@dataclass(frozen=True)
class Cell:
    """A cell that is more than text."""

    html: str
    key: str | None = None
    """What it is sorted by; None: its text."""
    is_number: bool = False


def text(value: str) -> Cell:
    return Cell(escape(value))


def code(value: str) -> Cell:
    return Cell(f"<code>{escape(value)}</code>" if value else "", value)


def number(value: int | float | None, digits: int = 0) -> Cell:
    if value is None:
        return Cell("-", "-1", True)
    return Cell(f"{value:,.{digits}f}", str(value), True)


def table(caption: str, headers: Sequence[str], rows: Sequence[Sequence[Cell]], empty: str) -> str:
    """A table with a caption; ``empty`` is said instead of a table without rows."""
    if not rows:
        return f'<p class="empty">{escape(empty)}</p>'
    is_number = [all(row[i].is_number for row in rows) for i in range(len(headers))]
    parts = [f'<div class="scroll"><table class="sortable"><caption>{escape(caption)}</caption><thead><tr>']
    for header, right in zip(headers, is_number, strict=True):
        parts.append(f'<th scope="col"{" class=num" if right else ""}>{escape(header)}</th>')
    parts.append("</tr></thead><tbody>")
    for row in rows[:MAX_ROWS]:
        parts.append("<tr>")
        for cell, right in zip(row, is_number, strict=True):
            key = "" if cell.key is None else f' data-key="{escape(cell.key)}"'
            parts.append(f"<td{' class=num' if right else ''}{key}>{cell.html}</td>")
        parts.append("</tr>\n")
    parts.append("</tbody></table></div>")
    if len(rows) > MAX_ROWS:
        parts.append(f'<p class="note">The first {MAX_ROWS} of {len(rows):,}.</p>')
    return "".join(parts)


def _bar(value: int, greatest: int) -> Cell:
    """A number with a bar behind it."""
    percent = 100 * value / greatest if greatest else 0
    return Cell(f'<span class="bar" style="--part:{percent:.1f}%">{value:,}</span>', str(value), True)


# ---- what the run came to -------------------------------------------------------------------------------------------


def overview(story: Story) -> str:
    """The run in a few numbers."""
    header = story.header
    cards: list[tuple[str, str, str]] = [
        ("page faults", f"{story.kinds.total():,}", f"{story.nr_major:,} major"),
        ("system calls", f"{story.nr_syscalls:,}", f"{sum(story.failed_calls.values()):,} failed"),
        ("merges", f"{story.merges.total():,}", f"{story.nr_splits:,} splits"),
        ("stay apart", f"{sum(r.count for r in story.refusals.values()):,}", f"{len(story.refusals):,} places"),
        ("most areas", f"{_peak(story, 'areas'):,}", "in one address space"),
        ("most resident", _kib(_peak_resident(story)), "in one address space"),
    ]
    if story.pages_out or story.pages_in:
        cards.append(("swapped out", f"{story.pages_out:,}", f"{story.pages_in:,} pages read back"))
    items = "".join(
        f"<li><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(note)}</small></li>"
        for name, value, note in cards
    )
    facts = [
        ("kernel", story.kernel),
        ("memory", _kib(header.get("ram_bytes", 0) >> 12)),
        ("swap", _swap_text(header.get("swap"))),
        ("virtual time", ns_text(story.last.ns)),
        ("exit", _exit_text(story)),
    ]
    terms = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{terms}</dl><ul class="cards">{items}</ul>'


def _swap_text(spec: str | None) -> str:
    """``SIZE`` or ``FILE:SIZE`` as the command line had it, in bytes."""
    if not spec:
        return "none"
    file, _, size = spec.rpartition(":")
    amount = _kib(int(size) >> 12) if size.isdecimal() else size
    return f"{amount} in {file}" if file else amount


def _exit_text(story: Story) -> str:
    if story.end is None or story.end.get("status") is None:
        return "the run was cut short"
    status = int(story.end["status"])
    return f"status {status}" if status < 128 else f"status {status} (signal {status - 128})"


def _peak(story: Story, name: str) -> int:
    return max((getattr(sample, name) for space in story.spaces.values() for sample in space.samples), default=0)


def _peak_resident(story: Story) -> int:
    samples = (sample for space in story.spaces.values() for sample in space.samples)
    return max((sample.anon + sample.file + sample.shmem for sample in samples), default=0)


def _kib(nr_pages: int) -> str:
    kib = nr_pages * 4
    return f"{kib / 1024:,.1f} MiB" if kib >= 10_240 else f"{kib:,} KiB"


def kinds(story: Story) -> str:
    greatest = max(story.kinds.values(), default=0)
    rows = [
        [text(kind), _bar(count, greatest), text(FAULT_SHAPES.get(kind, ("", ""))[1])]
        for kind, count in story.kinds.most_common()
    ]
    return table("Faults by kind", ["kind", "faults", "what was done"], rows, "No fault was recorded.")


def sites(story: Story) -> str:
    """The places that fault most, by source line where there is one."""
    found = sorted(story.sites.values(), key=lambda site: (-site.total, site.source, site.symbol))
    greatest = found[0].total if found else 0
    rows = [
        [
            code(site.source),
            code(site.symbol),
            _bar(site.total, greatest),
            number(site.nr_major),
            text(", ".join(f"{count:,} {kind}" for kind, count in sorted(site.kinds.items()))),
            code(site.insn),
        ]
        for site in found[:MAX_SITES]
    ]
    headers = ["source", "symbol", "faults", "major", "kinds", "instruction"]
    return table(f"The {min(len(found), MAX_SITES)} hottest of {len(found)}", headers, rows, "No fault was recorded.")


def areas_at_end(space: Space) -> str:
    rows = [
        [
            code(f"{band.start:x}-{band.end:x}"),
            code(band.perms),
            number((band.end - band.start) >> 12),
            _anon_vma(band),
            text(band.name),
        ]
        for band in space.at_end
    ]
    caption = f"{space.title}: {len(rows)} areas" + ("" if space.is_gone else " (still alive when the trace ended)")
    return table(caption, ["range", "perms", "pages", "anon_vma", "name"], rows, "No areas were recorded.")


def _anon_vma(band: Band) -> Cell:
    if band.anon_vma is None:
        return Cell("-", "0", True)
    color, _ = anon_vma_color(band.anon_vma)
    return Cell(f'<i class="swatch" style="background:{color}"></i>#{band.anon_vma}', str(band.anon_vma), True)


def mremaps(story: Story) -> str:
    rows = [_mremap_row(call) for call in story.mremaps]
    failed = sum(call.error is not None for call in story.mremaps)
    caption = f"{len(rows)} calls, {failed} refused"
    return table(caption, ["time", "pid", "call", "verdict"], rows, "The program did not call mremap.")


def _mremap_row(call: Call) -> list[Cell]:
    if call.error is None:
        verdict = f'<span class="good">✓ {escape(call.result)}</span>'
    else:
        verdict = f'<span class="bad">✗ {escape(call.error)}</span> {escape(call.reason or "")}'
    return [
        Cell(ns_text(call.when.ns), str(call.when.ns), True),
        number(call.pid),
        code(call.text),
        Cell(verdict, call.error or "ok"),
    ]


def refusals(story: Story) -> str:
    """Which areas stayed apart, each once, with the writes that made their anon_vmas."""
    found = sorted(story.refusals.values(), key=_interest)
    if not found:
        return '<p class="empty">Every two areas that touched were joined, or no call asked.</p>'
    items = "".join(_refusal_item(refusal) for refusal in found[:MAX_SITES])
    more = f'<p class="note">The first {MAX_SITES} of {len(found):,}.</p>' if len(found) > MAX_SITES else ""
    return f'<ul class="refusals">{items}</ul>{more}'


def _interest(refusal: Refusal) -> tuple[bool, int]:
    """Rules of history (who wrote where first, what was moved) before those that a programmer chose (flags, files)."""
    return refusal.record["reason"] not in ("anon_vma", "pgoff"), -refusal.count


def _refusal_item(refusal: Refusal) -> str:
    first, *rest = refusal_lines(refusal.record)
    times = f' <span class="count">{refusal.count:,} times</span>' if refusal.count > 1 else ""
    return (
        f"<li><details><summary><code>{escape(first.removeprefix('stay apart: '))}</code>{times}</summary>"
        f"<pre>{escape(chr(10).join(rest))}</pre></details></li>"
    )


def failures(story: Story) -> str:
    rows = [
        [code(name), code(errno), text(reason), number(count)]
        for (name, errno, reason), count in sorted(story.failed_calls.items(), key=lambda item: (-item[1], item[0]))
    ]
    return table("System calls that failed", ["call", "error", "why", "times"], rows, "No system call failed.")


# ---- several kernels ------------------------------------------------------------------------------------------------


def kernels(rows: Iterable[Mapping[str, Any]], reference: str) -> str:
    """One line a kernel (the rows of ``pagewalk compare --json``)."""
    lines = []
    for row in rows:
        same = row["output"] == "same"
        output = '<span class="good">✓ same</span>' if same else '<span class="bad">✗ differs</span>'
        refused = row["refused"]
        lines.append(
            [
                text(row["kernel"]),
                text("stopped" if row["error"] else row["signal"] or str(row["exit_status"])),
                Cell("the reference" if row["kernel"] == reference else output, row["output"]),
                number(row["areas_end"]),
                number(row["areas_peak"]),
                number(row["merges"]),
                number(sum(refused.values())),
                text(", ".join(f"{count} {why}" for why, count in sorted(refused.items())) or "-"),
                number(row["anon_vmas"]),
                number(row["list_length_mean"], 1),
                number(row["rmap_bytes"]),
                text(", ".join(f"{count} {name}" for name, count in row["mremap"].items()) or "-"),
                number(row["faults"]),
                number(row["copied_pages"]),
            ]
        )
    headers = [
        "kernel", "exit", "output", "areas at end", "most areas", "merges", "stay apart", "because of", "anon_vmas",
        "areas each", "rmap bytes", "mremap", "faults", "copied",
    ]  # fmt: skip
    return table("The same program under each kernel", headers, lines, "No kernel ran.")
