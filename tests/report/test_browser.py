"""Reports in headless Chromium: they load without a word and without a network, and can be moved about in.

No test here waits for a time: every wait is for a state of the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.pagewalk import pagewalk
from tests.report import browser as chromium
from tests.report.browser import Browser

READY = "[...document.querySelectorAll('details[open] > .figure')].every((e) => e.dataset.ready)"
FIGURE = "document.querySelector('.figure')"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    why = chromium.missing()
    if why is not None:
        pytest.skip(why)
    with chromium.browser() as found:
        found.run("return 1")
        found.console()
        found.requests()
        yield found


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the reports of a run with fork, of one under memory pressure, and of a comparison."""
    directory = tmp_path_factory.mktemp("reports")
    pagewalk("run", "-q", "--report", directory / "run.html", "--", "images/faults")
    swap = ("--ram", "4M", "--swap", "64M", "--", "images/mem_fill", "8", "1")
    pagewalk("run", "-q", "--report", directory / "swap.html", *swap)
    pagewalk("compare", "--kernels", "2.6.6-rmap39,2.6.7", "--report", directory / "kernels.html", "--", "images/p1")
    return directory


def opened(window: Browser, page: Path, scheme: str = "light") -> Browser:
    window.emulate(scheme)
    window.open(page)
    window.wait(READY)
    return window


def time_range(window: Browser, number: int = 0) -> list[float]:
    found: list[float] = window.run(
        "return document.querySelectorAll('.figure')[arguments[0]]._fullLayout.xaxis.range.map(Number)", number
    )
    return found


def detail(window: Browser) -> str:
    return str(window.run("return document.querySelector('output').textContent"))


@pytest.mark.parametrize("name", ["run.html", "swap.html", "kernels.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_with_no_message_and_no_request(window: Browser, reports: Path, name: str, scheme: str) -> None:
    opened(window, reports / name, scheme)
    assert window.console() == []
    asked = [address for address in window.requests() if not address.startswith(("data:", "blob:"))]
    assert asked == [(reports / name).as_uri()]


def test_the_areas_and_faults_are_drawn(window: Browser, reports: Path) -> None:
    opened(window, reports / "run.html")
    bars = window.run(f"return {FIGURE}.querySelectorAll('.barlayer .point path').length")
    dots = window.run(f"return {FIGURE}.querySelectorAll('.scatterlayer .points path').length")
    figures = json.loads(window.run("return document.getElementById('figures').textContent"))
    drawn = [trace for trace in figures["figure-0-1"]["data"] if trace.get("visible") != "legendonly"]
    assert bars == sum(len(trace["x"]) for trace in drawn if trace["type"] == "bar")
    assert dots == sum(len(trace["x"]) for trace in drawn if trace.get("mode") == "markers")


def test_pointing_at_a_fault_tells_about_it(window: Browser, reports: Path) -> None:
    opened(window, reports / "run.html")
    x, y = window.run(
        f"const e = {FIGURE}, i = e.data.findIndex((t) => t.name.startsWith('cow')), t = e.data[i];"
        "e.scrollIntoView();"
        "const plot = e.querySelector('.nsewdrag').getBoundingClientRect(), l = e._fullLayout;"
        "return [plot.x + l.xaxis.d2p(t.x[0]), plot.y + l.yaxis.d2p(t.y[0])]"
    )
    window.point_at(x + 30, y + 30)
    window.point_at(x, y)
    window.wait("document.querySelector('output').textContent.includes('cow')")
    assert detail(window).startswith("fault #")
    assert "faults.c:" in detail(window)
    window.wait(f"{FIGURE}.querySelector('.hoverlayer .hovertext')")


def test_dragging_zooms_and_the_button_shows_everything_again(window: Browser, reports: Path) -> None:
    opened(window, reports / "run.html")
    before = time_range(window)
    x, y, width, height = window.run(
        f"{FIGURE}.scrollIntoView(); const r = {FIGURE}.querySelector('.nsewdrag').getBoundingClientRect();"
        "return [r.x, r.y, r.width, r.height]"
    )
    window.drag((x + width * 0.25, y + height * 0.25), (x + width * 0.5, y + height * 0.75))
    window.wait(f"{FIGURE}._fullLayout.xaxis.range[0] > 1")
    low, high = time_range(window)
    assert (high - low) / (before[1] - before[0]) == pytest.approx(0.25, abs=0.02)
    window.click("button[data-do=reset]")
    window.wait(f"{FIGURE}._fullLayout.xaxis.range[0] <= 0")
    assert time_range(window) == before


def test_keys_zoom_pan_and_step(window: Browser, reports: Path) -> None:
    opened(window, reports / "run.html")
    full = time_range(window)
    window.run(f"{FIGURE}.focus()")
    window.keys("+")
    window.wait(f"{FIGURE}._fullLayout.xaxis.range[0] > 0")
    low, high = time_range(window)
    assert high - low == pytest.approx((full[1] - full[0]) / 2)
    window.keys("\ue014")  # arrow right
    window.wait(f"{FIGURE}._fullLayout.xaxis.range[0] > {low}")
    window.keys("0")
    window.wait(f"{FIGURE}._fullLayout.xaxis.range[0] <= 0")
    assert time_range(window) == full
    told = []
    for _ in range(8):
        window.keys("n")
        told.append(detail(window))
    assert len(set(told)) == 8 and any(text.startswith("fault #1") for text in told)
    window.keys("p")
    assert detail(window) == told[-2]


def test_every_control_is_reached_with_tab(window: Browser, reports: Path) -> None:
    opened(window, reports / "run.html")
    window.run("document.body.tabIndex = -1; document.body.focus()")
    reached = set()
    for _ in range(40):
        window.keys("\ue004")
        reached.add(
            window.run("const e = document.activeElement; return e.dataset.do ?? e.id ?? e.tagName") or "something"
        )
    assert {"in", "out", "earlier", "later", "previous", "next", "reset", "axis", "figure-0-1"} <= reached


def test_the_axis_can_count_records(window: Browser, reports: Path) -> None:
    opened(window, reports / "run.html")
    window.click("input[data-do=axis]")
    window.wait(f"{FIGURE}._fullLayout.xaxis.title.text === 'number of the record'")
    last = window.run(
        "return JSON.parse(document.getElementById('figures').textContent)['figure-0-1'].axes.records.range[1]"
    )
    assert time_range(window)[1] == pytest.approx(last)
    window.click("input[data-do=axis]")
    window.wait(f"{FIGURE}._fullLayout.xaxis.title.text.startsWith('virtual time')")


def test_the_theme_follows_the_system_and_keeps_the_zoom(window: Browser, reports: Path) -> None:
    opened(window, reports / "run.html", "light")
    window.run(f"{FIGURE}.focus()")
    window.keys("+")
    window.wait(f"{FIGURE}._fullLayout.xaxis.range[0] > 0")
    zoomed, light = time_range(window), window.run(f"return {FIGURE}._fullLayout.font.color")
    window.emulate("dark")
    window.wait(f"{FIGURE}._fullLayout.font.color !== '{light}'")
    assert time_range(window) == zoomed
    paper = window.run("return getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(20, 23, 27)"


def test_other_processes_are_drawn_when_opened(window: Browser, reports: Path) -> None:
    opened(window, reports / "run.html")
    assert window.run("return document.querySelectorAll('.figure')[1].dataset.ready ?? null") is None
    window.run("document.querySelectorAll('details.space')[1].open = true")
    window.wait("document.querySelectorAll('.figure')[1].dataset.ready")
    assert window.console() == []


def test_kernels_are_zoomed_together(window: Browser, reports: Path) -> None:
    opened(window, reports / "kernels.html")
    assert time_range(window, 0) == time_range(window, 1)
    window.click("button[data-do=in]")
    window.wait("document.querySelectorAll('.figure')[1]._fullLayout.xaxis.range[0] > 0")
    assert time_range(window, 0) == pytest.approx(time_range(window, 1))


def test_tables_are_sorted_by_a_click(window: Browser, reports: Path) -> None:
    opened(window, reports / "run.html")
    column = (
        "[...document.querySelectorAll('#sites table')[0].tBodies[0].rows].map((r) => Number(r.cells[2].dataset.key))"
    )
    window.run("document.querySelectorAll('#sites th button')[2].click()")
    rising = window.run(f"return {column}")
    assert rising == sorted(rising) and len(set(rising)) > 2
    window.run("document.querySelectorAll('#sites th button')[2].click()")
    assert window.run(f"return {column}") == sorted(rising, reverse=True)


def test_without_scripts_the_tables_are_there(reports: Path) -> None:
    why = chromium.missing()
    if why is not None:
        pytest.skip(why)
    with chromium.browser() as window:
        window.switch_scripts_off()
        window.open(reports / "run.html")
        text = window.text("body")
        assert "The pictures need JavaScript; the tables below do not." in text
        assert "faults.c:" in text and "[stack]" in text


def test_a_picture_of_it_has_the_colours_of_the_bands(window: Browser, reports: Path) -> None:
    """The screen shows orange and green bands (anon_vmas #2 and #3), not an empty frame."""
    opened(window, reports / "run.html", "light")
    window.run(f"{FIGURE}.scrollIntoView()")
    shares = window.colour_shares(window.screenshot())

    def share(red: int, green: int, blue: int) -> float:
        """Of a colour of the palette, which is drawn at 80 % over white."""
        near = [round(part * 0.8 + 51) for part in (red, green, blue)]
        return sum(n for colour, n in shares.items() if all(abs(a - b) < 3 for a, b in zip(colour, near, strict=True)))

    assert share(0xE6, 0x9F, 0x00) > 0.03
    assert share(0x00, 0x9E, 0x73) > 0.005
