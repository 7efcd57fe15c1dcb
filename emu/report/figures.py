"""The pictures, as plotly figures: an address space over time above its memory over time.

Plain dictionaries in plotly's schema; nothing of plotly is imported.  Two things are left to the page's script
(``assets/report.js``): colours that begin with ``@`` stand for the theme's (light or dark), and every trace has its
places by record number beside those by time (``alt``), for the switch between the two.

Colours are Okabe and Ito's, which most colour-blind people can tell apart; nothing is said by colour alone: anon_vmas
have their number in the band and a pattern after the seventh, kinds of faults have shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, TypeVar

from emu.report.axis import AddressAxis
from emu.report.story import Band, Fault, Mark, Sample, Space, When

Trace = dict[str, Any]
D = TypeVar("D", Fault, Mark)

OKABE_ITO = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
_PATTERNS = ("", "/", "x", "-", "+", "\\", "|", ".")
_GREEN, _VERMILLION, _BLUE, _ORANGE, _SKY, _PURPLE = "#009E73", "#D55E00", "#0072B2", "#E69F00", "#56B4E9", "#CC79A7"

MAX_BANDS = 4000
MAX_DOTS = 1500
MAX_SAMPLES = 3000
_THIN = 4.0
"""Bands of less height (of the axis' 1000) have neither outline nor pattern: there would be nothing else to see."""
_GRID = (1200, 500)
"""Dots of one kind that fall into one cell of so many columns and rows are drawn as one."""

FAULT_SHAPES = {
    "anonymous": ("circle", "a new page"),
    "zero": ("circle-open", "the page of zeros"),
    "stack": ("triangle-down", "the stack grew"),
    "cow": ("diamond", "copied on write"),
    "file_cow": ("diamond-open", "copied from a file's page"),
    "reuse": ("cross", "made writable, not copied"),
    "file": ("square-open", "a file's page"),
    "shared": ("square", "shared memory"),
    "special": ("hexagon", "vdso, vvar"),
    "swap": ("star", "back from swap"),
    "spurious": ("asterisk-open", "nothing to do"),
    "bad": ("x", "became a signal"),
}
"""Kind -> shape and meaning."""

_MARKS = {
    "merge": ("bowtie", _GREEN, "merge"),
    "refusal": ("line-ew-open", _VERMILLION, "stay apart"),
    "split": ("line-ns-open", "@ink", "split"),
}

_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"))


def time_unit(ns: int) -> tuple[int, str]:
    """(nanoseconds, name) of the unit in which ``ns`` reads well."""
    return next(((size, name) for size, name in _UNITS if ns >= 3 * size), (1, "ns"))


def space_figure(space: Space, last: When, longest: When | None = None) -> dict[str, Any]:
    """One address space: its areas, faults and marks above, its memory below, one axis of time.

    ``last`` is the end of its run, ``longest`` that of the longest run beside it: all have the same scale.
    """
    longest = longest or last
    unit, unit_name = time_unit(longest.ns)
    axis = AddressAxis(
        [(band.start, band.end) for band in space.bands]
        + [(fault.address & -4096, (fault.address & -4096) + 4096) for fault in space.faults]
    )
    bands, nr_hidden = _most_visible(space.bands)
    pairs = [
        *_band_traces(bands, axis, unit),
        *_mark_traces(space.marks, axis, unit),
        *_fault_traces(space.faults, axis, unit),
        *_memory_traces(space.samples, last, unit),
    ]
    return {
        "data": [trace for trace, _ in pairs],
        "alt": [alternative for _, alternative in pairs],
        "layout": _layout(axis, bool(space.samples)),
        "axes": {
            "time": {"title": f"virtual time ({unit_name})", "range": _with_margin(longest.ns / unit)},
            "records": {"title": "number of the record", "range": _with_margin(longest.n)},
        },
        "hidden_bands": nr_hidden,
    }


# ---- areas ----------------------------------------------------------------------------------------------------------


def _most_visible(bands: Sequence[Band]) -> tuple[list[Band], int]:
    """The bands that are drawn, and how many are not: those of least size and life go first."""
    if len(bands) <= MAX_BANDS:
        return list(bands), 0
    order = sorted(
        range(len(bands)),
        key=lambda i: (-(bands[i].died.n - bands[i].born.n) * (bands[i].end - bands[i].start), i),
    )
    kept = sorted(order[:MAX_BANDS])
    return [bands[i] for i in kept], len(bands) - len(kept)


def anon_vma_color(number: int | None) -> tuple[str, str]:
    """(colour, pattern) of an anon_vma, the same on every page."""
    if number is None:
        return "@plain", ""
    return OKABE_ITO[(number - 1) % len(OKABE_ITO)], _PATTERNS[(number - 1) // len(OKABE_ITO) % len(_PATTERNS)]


_OPACITY = {"---": 0.18, "r--": 0.4, "r-x": 0.6}


def _band_traces(bands: Sequence[Band], axis: AddressAxis, unit: int) -> Iterable[tuple[Trace, Trace]]:
    for title, chosen in (
        ("areas without anon_vma", [band for band in bands if band.anon_vma is None]),
        ("areas by anon_vma (#)", [band for band in bands if band.anon_vma is not None]),
    ):
        if not chosen:
            continue
        looks = [anon_vma_color(band.anon_vma) for band in chosen]
        places = [(axis.place(band.start), axis.place(band.end)) for band in chosen]
        trace = {
            "type": "bar",
            "orientation": "h",
            "name": title,
            "base": [_round(band.born.ns / unit) for band in chosen],
            "x": [_round((band.died.ns - band.born.ns) / unit) for band in chosen],
            "y": [_round((low + high) / 2) for low, high in places],
            "width": [_round(max(high - low, 0.5)) for low, high in places],
            "marker": {
                "color": [color for color, _ in looks],
                "opacity": [_OPACITY.get(band.perms[:3], 0.8) for band in chosen],
                "line": {"width": [0.6 if high - low > _THIN else 0 for low, high in places], "color": "@ink"},
                "pattern": {
                    "shape": [
                        pattern if high - low > _THIN else ""
                        for (_, pattern), (low, high) in zip(looks, places, strict=True)
                    ],
                    "fillmode": "overlay",
                    "fgcolor": "@ink",
                    "size": 6,
                },
            },
            "text": [_band_label(band) for band in chosen],
            "textposition": "inside",
            "insidetextanchor": "start",
            "textangle": 0,
            "textfont": {"color": "@ink", "size": 11},
            "hovertext": [_band_hover(band) for band in chosen],
            "hoverinfo": "text",
            "cliponaxis": True,
        }
        alternative = {
            "base": [band.born.n for band in chosen],
            "x": [max(band.died.n - band.born.n, 1) for band in chosen],
        }
        yield trace, alternative


def _short(name: str) -> str:
    name = name.removesuffix(" (deleted)")
    return name if name.startswith("/dev/") else name.rsplit("/", 1)[-1] or name


def _band_label(band: Band) -> str:
    number = "" if band.anon_vma is None else f" #{band.anon_vma}"
    return escape(f"{_short(band.name)} {band.perms}{number}", quote=False)


def _band_hover(band: Band) -> str:
    anon_vma = "no anon_vma" if band.anon_vma is None else f"anon_vma #{band.anon_vma}"
    return "<br>".join(
        (
            f"<b>{escape(_short(band.name), quote=False)}</b>",
            f"{band.start:#x}-{band.end:#x}",
            f"{band.perms}  {pages_text((band.end - band.start) >> 12)}  {anon_vma}",
            f"from {ns_text(band.born.ns)} (record {band.born.n})",
            f"to {ns_text(band.died.ns)} (record {band.died.n})",
        )
    )


# ---- faults and marks -----------------------------------------------------------------------------------------------


def _fault_traces(faults: Sequence[Fault], axis: AddressAxis, unit: int) -> Iterable[tuple[Trace, Trace]]:
    present = {fault.kind for fault in faults}
    dense = len(faults) > MAX_DOTS
    for kind in [*FAULT_SHAPES, *sorted(present - set(FAULT_SHAPES))]:
        if kind not in present:
            continue
        shape, meaning = FAULT_SHAPES.get(kind, ("circle-x", kind))
        groups = _clusters([fault for fault in faults if fault.kind == kind], axis, dense)
        firsts = [group[0] for group in groups]
        color = _VERMILLION if kind == "bad" else "@ink"
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": f"{kind}: {meaning}",
            "x": [_round(fault.when.ns / unit) for fault in firsts],
            "y": [axis.place(fault.address) for fault in firsts],
            "marker": {
                "symbol": shape,
                "size": [_dot_size(group, dense) for group in groups],
                "color": ["@major" if fault.is_major and kind != "bad" else color for fault in firsts],
                "line": _dot_line(shape, color, dense),
            },
            "hovertext": [_fault_hover(group) for group in groups],
            "hoverinfo": "text",
        }
        yield trace, {"x": [fault.when.n for fault in firsts]}


def _dot_line(shape: str, color: str, dense: bool) -> dict[str, Any]:
    """Open shapes are drawn by their line; filled ones have a halo, unless they are so many that halos cover them."""
    if shape.endswith("-open"):
        return {"width": 1.6, "color": color}
    return {"width": 0 if dense else 0.8, "color": "@paper"}


def _dot_size(group: Sequence[Fault], dense: bool) -> int:
    return (4 if dense else 8) + min(len(group).bit_length() - 1, 6)


def _clusters(dots: Sequence[D], axis: AddressAxis, dense: bool) -> list[list[D]]:
    """Each dot alone; of very many, those that would cover each other together."""
    if not dense:
        return [[dot] for dot in dots]
    first, last = dots[0].when.ns, dots[-1].when.ns
    columns, rows = _GRID
    per_column = max((last - first) / columns, 1)
    cells: dict[tuple[int, int], list[D]] = {}
    for dot in dots:
        cell = int((dot.when.ns - first) / per_column), int(axis.place(dot.address) * rows / max(axis.height, 1))
        cells.setdefault(cell, []).append(dot)
    return list(cells.values())


def _fault_hover(group: Sequence[Fault]) -> str:
    fault = group[0]
    more = f"<br>and {len(group) - 1:,} more here, to fault #{group[-1].number}" if len(group) > 1 else ""
    source = f"  {fault.source}" if fault.source else ""
    lines = [
        f"<b>fault #{fault.number}</b>  {fault.kind}{', major' if fault.is_major else ''}  {fault.access}",
        f"{fault.address:#x}  {fault.area}",
        f"{fault.code}{source}",
        fault.insn,
        f"frame {fault.frame}" if fault.frame else fault.result,
        f"{ns_text(fault.when.ns)}  pid {fault.pid}",
    ]
    return "<br>".join(line if line.startswith("<b>") else escape(line, quote=False) for line in lines if line) + more


def _mark_traces(marks: Sequence[Mark], axis: AddressAxis, unit: int) -> Iterable[tuple[Trace, Trace]]:
    for what, (shape, color, title) in _MARKS.items():
        chosen = [mark for mark in marks if mark.what == what]
        if not chosen:
            continue
        groups = _clusters(chosen, axis, len(chosen) > MAX_DOTS)
        firsts = [group[0] for group in groups]
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": title,
            "x": [_round(mark.when.ns / unit) for mark in firsts],
            "y": [axis.place(mark.address) for mark in firsts],
            "marker": {"symbol": shape, "size": 11, "color": color, "line": {"width": 2.4, "color": color}},
            "hovertext": [_mark_hover(title, group) for group in groups],
            "hoverinfo": "text",
        }
        yield trace, {"x": [mark.when.n for mark in firsts]}


def _mark_hover(title: str, group: Sequence[Mark]) -> str:
    mark = group[0]
    more = f"<br>and {len(group) - 1:,} more here" if len(group) > 1 else ""
    return f"<b>{title}</b><br>{escape(mark.text, quote=False)}<br>{ns_text(mark.when.ns)}{more}"


# ---- memory ---------------------------------------------------------------------------------------------------------

_MEMORY = (
    # field, title, colour, stacked, dash
    ("anon", "anonymous", _ORANGE, True, "solid"),
    ("file", "file", _SKY, True, "solid"),
    ("shmem", "shared", _GREEN, True, "solid"),
    ("swap", "on swap", _PURPLE, False, "dash"),
    ("page_tables", "page tables", "@ink", False, "dot"),
    ("free", "free frames", _BLUE, False, "dashdot"),
)


def _memory_traces(samples: Sequence[Sample], last: When, unit: int) -> Iterable[tuple[Trace, Trace]]:
    chosen = _thinned(samples)
    if not chosen:
        return
    whens = [sample.when for sample in chosen]
    if whens[-1].ns < last.ns:
        whens.append(last)
        chosen.append(chosen[-1])
    for name, title, color, stacked, dash in _MEMORY:
        values = [getattr(sample, name) * 4 for sample in chosen]
        if not any(values):
            continue
        trace: Trace = {
            "type": "scatter",
            "mode": "lines",
            "name": title,
            "x": [_round(when.ns / unit) for when in whens],
            "y": values,
            "yaxis": "y2",
            "line": {"shape": "hv", "width": 1.5, "color": color, "dash": dash},
            "hovertemplate": f"{title}: %{{y:,}} KiB<extra></extra>",
            "legend": "legend2",
        }
        if stacked:
            trace |= {"stackgroup": "resident"}
        if name == "free":
            trace |= {"visible": "legendonly"}
        yield trace, {"x": [when.n for when in whens]}


def _thinned(samples: Sequence[Sample]) -> list[Sample]:
    """The last one of each of many equal stretches, if there are very many."""
    step = -(-len(samples) // MAX_SAMPLES)
    if step <= 1:
        return list(samples)
    return [samples[min(i + step, len(samples)) - 1] for i in range(0, len(samples), step)]


# ---- the whole ------------------------------------------------------------------------------------------------------


def _with_margin(last: float) -> list[float]:
    return [_round(-0.01 * last), _round(1.01 * last or 1)]


def _layout(axis: AddressAxis, has_memory: bool) -> dict[str, Any]:
    ticks = axis.ticks()
    grid: dict[str, Any] = {"gridcolor": "@grid", "zeroline": False, "linecolor": "@grid", "showline": True}
    layout: dict[str, Any] = {
        "barmode": "overlay",
        "bargap": 0,
        "hovermode": "closest",
        "dragmode": "zoom",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@ink"},
        "paper_bgcolor": "@paper",
        "plot_bgcolor": "@paper",
        "hoverlabel": {"align": "left", "bgcolor": "@card", "font": {"family": "ui-monospace, monospace", "size": 12}},
        "margin": {"l": 110, "r": 44, "t": 8, "b": 46},
        "modebar": {"orientation": "v", "bgcolor": "@paper", "color": "@soft", "activecolor": "@ink"},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        "uniformtext": {"mode": "hide", "minsize": 9},
        "xaxis": {**grid, "title": {"text": ""}, "anchor": "y2" if has_memory else "y"},
        "yaxis": {
            **grid,
            "domain": [0.31, 1] if has_memory else [0, 1],
            "tickvals": [place for place, _ in ticks],
            "ticktext": [text for _, text in ticks],
            "tickfont": {"family": "ui-monospace, monospace", "size": 10},
            "range": [-10, axis.height + 10],
        },
        "shapes": [
            {
                "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high,
                "fillcolor": "@hole", "line": {"width": 0}, "layer": "below",
            }
            for low, high in axis.holes()
        ],
    }  # fmt: skip
    if has_memory:
        layout["yaxis2"] = {
            **grid,
            "domain": [0, 0.21],
            "title": {"text": "KiB"},
            "rangemode": "tozero",
            "fixedrange": True,
            "hoverformat": ",",
        }
        layout["legend2"] = {**layout["legend"], "y": 0.215, "traceorder": "normal"}
    return layout


def _round(value: float) -> float:
    """Six digits after the point are less than a pixel of anything."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def ns_text(ns: int) -> str:
    unit, name = time_unit(ns)
    return f"{ns / unit:,.3f} {name}" if unit > 1 else f"{ns:,} ns"


def pages_text(nr_pages: int) -> str:
    return "1 page" if nr_pages == 1 else f"{nr_pages:,} pages"
