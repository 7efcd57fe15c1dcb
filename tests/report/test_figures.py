"""The pictures: the axis without holes, plotly's schema, what is drawn where."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import plotly.graph_objects
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.report.axis import HEIGHT, MAX_PARTS, PAGE, AddressAxis
from emu.report.figures import FAULT_SHAPES, MAX_BANDS, MAX_DOTS, OKABE_ITO, anon_vma_color, space_figure, time_unit
from tests.report.traces import Script, recorded, story_of

pages = st.integers(min_value=1, max_value=(1 << 35) - 300)
ranges = st.lists(st.tuples(pages, st.integers(1, 300)).map(lambda r: (r[0] * PAGE, (r[0] + r[1]) * PAGE)), min_size=1)


# ---- the axis -------------------------------------------------------------------------------------------------------


@given(ranges)
def test_higher_addresses_lie_higher(used: list[tuple[int, int]]) -> None:
    axis = AddressAxis(used)
    edges = sorted({edge for pair in used for edge in pair})
    places = [axis.place(edge) for edge in edges]
    assert places == sorted(places)
    assert all(0 <= place <= HEIGHT + 1 for place in places)
    for start, end in used:
        assert axis.place(start) < axis.place(end)


@given(ranges)
def test_there_are_never_too_many_parts(used: list[tuple[int, int]]) -> None:
    axis = AddressAxis(used)
    assert 1 <= len(axis.parts) <= MAX_PARTS
    assert len(axis.holes()) == len(axis.parts) - 1


def test_a_page_can_be_seen_beside_a_gigabyte() -> None:
    axis = AddressAxis([(PAGE, 2 * PAGE), (1 << 40, (1 << 40) + (1 << 30))])
    small, large = axis.parts
    assert small.high - small.low >= 18
    assert large.high - large.low > 10 * (small.high - small.low)


def test_an_empty_axis_takes_any_address() -> None:
    assert AddressAxis([]).place(5) == 0


@pytest.mark.parametrize(
    ("ns", "unit"), [(0, "ns"), (2999, "ns"), (3000, "µs"), (3_000_000, "ms"), (3_000_000_000, "s")]
)
def test_units_of_time(ns: int, unit: str) -> None:
    assert time_unit(ns)[1] == unit


# ---- figures --------------------------------------------------------------------------------------------------------


def plotly_figure(figure: dict[str, Any]) -> plotly.graph_objects.Figure:
    """The figure as plotly understands it (it refuses what is not in its schema), with one theme's colours."""
    text = json.dumps({"data": figure["data"], "layout": figure["layout"]})
    for name in ("ink", "paper", "grid", "hole", "card", "plain", "major", "soft"):
        text = text.replace(f'"@{name}"', '"#123456"')
    assert '"@' not in text
    return plotly.graph_objects.Figure(json.loads(text))


@pytest.mark.parametrize(
    "args",
    [
        ("--", "images/faults"),
        ("--kernel", "2.6.6-rmap39", "--", "images/p1"),
        ("--ram", "4M", "--swap", "64M", "--", "images/mem_fill", "8", "1"),
    ],
)
def test_plotly_takes_every_figure(args: tuple[str, ...]) -> None:
    story = story_of(recorded(*args))
    for space in story.spaces.values():
        figure = space_figure(space, story.last)
        plotly_figure(figure)
        assert len(figure["alt"]) == len(figure["data"])
        for trace, alternative in zip(figure["data"], figure["alt"], strict=True):
            assert len(alternative["x"]) == len(trace["x"])


def traces_named(figure: dict[str, Any], start: str) -> list[dict[str, Any]]:
    return [trace for trace in figure["data"] if trace["name"].startswith(start)]


def test_a_band_lies_where_and_when_its_area_was() -> None:
    script = Script()
    script.areas((0x1000, 0x3000, "rw-p", 3))
    script.fault(0x1000)
    script.gone()
    story = script.story()
    figure = space_figure(story.spaces[1], story.last)
    (bar,) = traces_named(figure, "areas by anon_vma")
    assert (bar["base"], bar["x"]) == ([0], [2000])
    assert bar["y"][0] - bar["width"][0] / 2 == 0
    assert bar["text"] == ["anon rw-p #3"] and bar["marker"]["color"] == [OKABE_ITO[2]]
    assert "0x1000-0x3000" in bar["hovertext"][0] and "2 pages" in bar["hovertext"][0]
    (dots,) = traces_named(figure, "anonymous")[:1]
    assert (dots["x"], dots["y"]) == ([1000], [0])


def test_guest_names_cannot_be_markup() -> None:
    script = Script()
    script.areas((0x1000, 0x3000, "rw-p", None))
    script.records[-1]["added"][0]["name"] = "<img src=x onerror=alert(1)>"
    script.fault(0x1000, insn="<script>alert(2)</script>")
    story = script.story()
    assert "<img" not in json.dumps(space_figure(story.spaces[1], story.last))
    assert "<script" not in json.dumps(space_figure(story.spaces[1], story.last))


def test_anon_vmas_differ_in_more_than_colour_when_colours_run_out() -> None:
    looks = [anon_vma_color(number) for number in range(1, 57)]
    assert len(set(looks)) == 56
    assert {pattern for _, pattern in looks[:7]} == {""}


def test_every_kind_of_fault_has_a_shape_of_its_own() -> None:
    shapes = [shape for shape, _ in FAULT_SHAPES.values()]
    assert len(set(shapes)) == len(shapes)
    schema = json.loads(resources.files("emu.trace").joinpath("schema/trace-1.json").read_text())
    assert set(schema["$defs"]["fault"]["properties"]["kind"]["enum"]) == set(FAULT_SHAPES)


def test_very_many_faults_are_drawn_together_and_none_is_lost() -> None:
    script = Script()
    script.areas((0x100000, 0x200000, "rw-p", 1))
    for _ in range(MAX_DOTS + 500):
        script.fault(0x100000)
    story = script.story()
    (dots,) = traces_named(space_figure(story.spaces[1], story.last), "anonymous")[:1]
    assert len(dots["x"]) < MAX_DOTS
    hidden = sum(
        int(text.split("and ")[1].split(" more")[0].replace(",", "")) for text in dots["hovertext"] if " more" in text
    )
    assert len(dots["x"]) + hidden == MAX_DOTS + 500


def test_of_very_many_areas_the_large_ones_are_drawn() -> None:
    script = Script()
    small = [(0x10_0000 + i * 0x2000, 0x10_1000 + i * 0x2000, "rw-p", None) for i in range(MAX_BANDS + 10)]
    script.areas(*small)
    script.areas((1 << 40, (1 << 40) + (1 << 30), "rw-p", 1))
    script.gone()
    story = script.story()
    figure = space_figure(story.spaces[1], story.last)
    assert figure["hidden_bands"] == 11
    assert len(traces_named(figure, "areas by anon_vma")) == 1


def test_memory_is_in_kib_and_reaches_to_the_end() -> None:
    script = Script()
    script.areas((0x1000, 0x9000, "rw-p", 1))
    script.counters(anon=3)
    script.fault(0x1000)
    story = script.story()
    (line,) = [t for t in space_figure(story.spaces[1], story.last)["data"] if t.get("stackgroup") == "resident"]
    assert line["y"] == [12, 12] and line["x"] == [1000, 2000]
