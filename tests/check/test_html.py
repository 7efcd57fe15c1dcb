"""The HTML report: well-formed, self-contained, escaped, the same every time; it tells what the text tells."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from emu.check.html import check_page
from emu.check.report import Report
from emu.check.run import check_mremap
from emu.limits import Limits, Question
from emu.machine import MachineConfig
from tests.cli.pagewalk import pagewalk, refused
from tests.report.test_page import Outline

KERNELS = ("2.6.6-rmap39", "6.18")


@cache
def report_of(*argv: str, sweep: bool = False) -> Report:
    return check_mremap(
        MachineConfig(env={"PATH": "/usr/bin:/bin"}),
        argv,
        kernels=KERNELS,
        questions=[Question("moving <b>", Limits(always_move=True))],
        ways=(),
        sweep_errors=("ENOMEM",) if sweep else (),
    )


@cache
def page_of(*argv: str, sweep: bool = False) -> str:
    return check_page(report_of(*argv, sweep=sweep))


def test_the_page_is_well_formed_and_asks_for_nothing() -> None:
    page = page_of("images/p1", "4", sweep=True)
    outline = Outline(page)
    for tag, attributes in outline.elements:
        for name in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    assert len(page) < 200_000, "no library of five megabytes"
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all((a["href"] or "")[1:] in ids for a in outline.all("a"))


def test_users_text_is_escaped() -> None:
    page = page_of("images/vmscript", "</script><img src=x onerror=alert(1)>", "m:0:1:rw", "v:0:1:2:M")
    outline = Outline(page)
    assert not outline.all("img")
    assert "moving <b>" in "".join(outline.text)


def test_what_is_told() -> None:
    outline = Outline(page_of("images/p1", "4"))
    told = "".join(outline.text)
    assert "first written apart (#3 and #4)" in told and "first write to 0x200001000" in told
    assert "EFAULT: mremap in main (p1) p1.c:" in told
    assert "✗ 1 EFAULT" in told and "✓ 1" in told


def test_areas_are_drawn_with_their_boundaries() -> None:
    """Four areas with three boundaries where they stay apart, one area on the reference; with limits just the same."""
    outline = Outline(page_of("images/p1", "4"))
    lanes = [attributes for _, attributes in outline.elements if attributes.get("class") == "lane"]
    assert [(lane["aria-label"] or "").partition(";")[0] for lane in lanes] == ["4 areas", "1 area"]
    assert len(outline.all("i")) == 5 and len(outline.all("u")) == 3


def test_programs_without_calls_and_without_failures() -> None:
    assert "The program never calls mremap." in "".join(Outline(page_of("images/hello")).text)
    assert "No call fails." in "".join(Outline(page_of("images/remap_ring")).text)


def test_the_same_every_time() -> None:
    again = check_page(report_of.__wrapped__("images/p1", "4"))
    assert again == page_of("images/p1", "4")


def test_command_line(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    done = pagewalk("check", "mremap", "--kernels", "6.18", "--report", target, "--", "images/p1", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    message = refused("check", "mremap", "--report", "/nonexistent/x.html", "--", "images/p1")
    assert message == "--report: /nonexistent/x.html: No such file or directory"
