"""One HTML file with everything in it: pictures, tables, style, script and plotly's own library.

It is opened from a disk without a network, and a content security policy in it forbids to ask for one.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from emu.report import tables
from emu.report.figures import pages_text, space_figure
from emu.report.story import Space, Story, When

MAX_SPACES = 12
"""Address spaces of one run that are drawn: those with the most in them."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'none'; form-action 'none'; base-uri 'none'"
)


class PlotlyMissing(Exception):
    """The plotting library is not installed."""

    def __init__(self) -> None:
        super().__init__("a report needs the package plotly: pip install plotly")


def plotly_script() -> str:
    """plotly.js, out of the Python package."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise PlotlyMissing from error
    return str(get_plotlyjs())


def report_page(stories: Sequence[Story], comparison: Mapping[str, Any] | None = None) -> str:
    """The report of one run, or of several side by side (at least one).

    ``comparison`` is what ``compare --json`` prints.
    """
    builder = _Page(stories, comparison)
    body = builder.body()
    return page(builder.title, body, builder.figures)


def page(title: str, body: str, figures: Mapping[str, Any], style: str = "") -> str:
    """A whole file: ``body`` with our style and ``style``, script, and plotly's library if there are figures."""
    # No user's text may end a script; "<\/" is the same string in JSON.
    data = json.dumps(figures, ensure_ascii=True, separators=(",", ":")).replace("</", "<\\/")
    library = f"<script>{plotly_script()}</script>\n" if figures else ""
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{_asset('report.css')}{style}</style></head>",
            f"<body>{body}",
            f'<script type="application/json" id="figures">{data}</script>',
            f"{library}<script>{_asset('report.js')}</script>",
            "</body></html>\n",
        )
    )


def _asset(name: str) -> str:
    return resources.files("emu.report").joinpath("assets", name).read_text(encoding="utf-8")


class _Page:
    def __init__(self, stories: Sequence[Story], comparison: Mapping[str, Any] | None) -> None:
        self._stories = stories
        self._comparison = comparison
        self.figures: dict[str, Any] = {}
        lasts = [story.last for story in stories]
        self._longest = When(max(last.ns for last in lasts), max(last.n for last in lasts))
        command = shlex.join(stories[0].header.get("argv", []))
        self.title = f"{command} · pagewalk" if command else "pagewalk"
        self._command = command

    def body(self) -> str:
        sections = [
            ("spaces", "Address space over time", self._spaces),
            ("sites", "Hottest fault sites", lambda story, _: tables.sites(story) + tables.kinds(story)),
            ("areas", "Areas at the end", self._areas),
            ("mremap", "mremap calls", lambda story, _: tables.mremaps(story)),
            ("apart", "Areas that stayed apart", lambda story, _: tables.refusals(story)),
            ("failures", "System calls that failed", lambda story, _: tables.failures(story)),
        ]
        parts = [self._header(sections), '<main id="main">']
        if self._comparison is not None:
            rows = tables.kernels(self._comparison["kernels"], self._comparison["reference"])
            parts.append(_section("kernels", "Kernels", self._agreement() + rows))
        parts.append(self._sides("overview", "The run", lambda story, _: tables.overview(story) + _missing(story)))
        parts += [self._sides(*section) for section in sections]
        parts.append("</main>")
        parts.append(self._footer())
        return "\n".join(parts)

    def _header(self, sections: Sequence[tuple[str, str, Any]]) -> str:
        links = [("overview", "The run"), *((key, title) for key, title, _ in sections)]
        if self._comparison is not None:
            links.insert(0, ("kernels", "Kernels"))
        items = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title in links)
        return (
            '<a class="skip" href="#main">Skip to the report</a>'
            f"<header><p>pagewalk report</p><h1><code>{escape(self._command or '?')}</code></h1>"
            f'<nav aria-label="Sections"><ul>{items}</ul></nav></header>'
        )

    def _sides(self, key: str, title: str, make: Callable[[Story, int], str]) -> str:
        """A section with one part for each run, side by side."""
        if len(self._stories) == 1:
            return _section(key, title, make(self._stories[0], 0))
        parts = [
            f"<article><h3>{escape(story.kernel)}</h3>{make(story, i)}</article>"
            for i, story in enumerate(self._stories)
        ]
        return _section(key, title, f'<div class="sides">{"".join(parts)}</div>')

    def _agreement(self) -> str:
        assert self._comparison is not None
        if self._comparison["agree"]:
            return '<p class="good">✓ The program behaves the same on all kernels.</p>'
        return '<p class="bad">✗ The program does not behave the same on all kernels.</p>'

    # ---- address spaces ------------------------------------------------------------------------------------------

    def _spaces(self, story: Story, number: int) -> str:
        spaces = _chosen(story)
        if not spaces:
            return '<p class="empty">The trace has no records of address spaces.</p>'
        parts = []
        for i, space in enumerate(spaces):
            key = f"figure-{number}-{space.mm}"
            figure = space_figure(space, story.last, self._longest)
            figure["group"] = f"space-{i}"
            self.figures[key] = figure
            parts.append(_figure(space, key, figure["hidden_bands"], is_open=i == 0))
        left = len(story.spaces) - len(spaces)
        if left:
            parts.append(f'<p class="note">{left} more address spaces with less in them are not drawn.</p>')
        return "".join(parts)

    @staticmethod
    def _areas(story: Story, _number: int) -> str:
        spaces = _chosen(story)
        parts = []
        for i, space in enumerate(spaces):
            content = tables.areas_at_end(space)
            if i:
                content = f"<details><summary>{escape(space.title)}</summary>{content}</details>"
            parts.append(content)
        return "".join(parts) or '<p class="empty">No areas were recorded.</p>'

    def _footer(self) -> str:
        header = self._stories[0].header
        return (
            f"<footer><p>pagewalk {escape(str(header.get('version', '')))}. Time is virtual, from the first record "
            "on: it follows the instructions executed, and is the same in every run. Holes of the address space are "
            "drawn narrow, and every part of it has its own scale.</p></footer>"
        )


def _chosen(story: Story) -> list[Space]:
    """The first address space first, then those with the most in them, in the order of their numbers."""
    spaces = sorted(story.spaces.values(), key=lambda space: space.mm)
    if len(spaces) <= MAX_SPACES:
        return spaces
    heavy = sorted(spaces[1:], key=lambda space: (-space.weight, space.mm))[: MAX_SPACES - 1]
    return [spaces[0], *sorted(heavy, key=lambda space: space.mm)]


def _section(key: str, title: str, content: str) -> str:
    heading = f'<h2 id="{key}-title">{escape(title)}</h2>'
    return f'<section id="{key}" aria-labelledby="{key}-title">{heading}{content}</section>'


def _missing(story: Story) -> str:
    if not story.missing:
        return ""
    what = ", ".join(story.missing)
    return (
        f'<p class="note">The trace has no records of {escape(what)}; '
        "<code>pagewalk trace -e all --format jsonl -o FILE</code> records everything.</p>"
    )


_TOOLS = (
    ("in", "+", "Zoom in on time (+)"),
    ("out", "\N{MINUS SIGN}", "Zoom out (-)"),
    ("earlier", "◀", "Earlier (left arrow)"),
    ("later", "▶", "Later (right arrow)"),
    ("higher", "▲", "Higher addresses (up arrow)"),
    ("lower", "▼", "Lower addresses (down arrow)"),
    ("taller", "⇕", "Zoom in on addresses (shift +)"),
    ("reset", "⟲", "Show everything (0)"),
    ("previous", "|◀", "Previous event (p)"),
    ("next", "▶|", "Next event (n)"),
)


_LEGEND = (
    "Bands are areas: their colour and # name the anon_vma, paler ones cannot be written. Dots are faults: their shape "
    "says how they were served, blue ones read a page from a file or from swap (major)."
)


def _figure(space: Space, key: str, nr_hidden: int, *, is_open: bool) -> str:
    buttons = "".join(
        f'<button type="button" data-do="{name}" title="{title}" aria-label="{title}">{sign}</button>'
        for name, sign, title in _TOOLS
    )
    hidden = ""
    if nr_hidden:
        hidden = f'<p class="note">{nr_hidden:,} areas that were small or short-lived are not drawn.</p>'
    resident = max((sample.anon + sample.file + sample.shmem for sample in space.samples), default=0)
    summary = (
        f"{escape(space.title)} <small>{len(space.faults):,} faults, {len(space.at_end)} areas at the end, "
        f"{pages_text(resident)} resident at most</small>"
    )
    return (
        f'<details class="space"{" open" if is_open else ""}><summary>{summary}</summary>'
        f'<div class="tools" role="toolbar" aria-label="Move about in the picture">{buttons}'
        f'<label><input type="checkbox" data-do="axis"> by record number</label></div>'
        f'<div class="figure" id="{key}" tabindex="0" role="group" '
        f'aria-label="Areas, faults and memory of {escape(space.title)} over time. Arrow keys move, plus and minus '
        f'zoom, n and p step through events, 0 shows everything."></div>'
        f'<noscript><p class="note">The pictures need JavaScript; the tables below do not.</p></noscript>'
        f'<output class="detail" aria-live="polite" for="{key}">Point at something, or step with n and p.</output>'
        f'<p class="note">{_LEGEND}</p>{hidden}</details>'
    )
