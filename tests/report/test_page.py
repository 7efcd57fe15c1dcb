"""The page: self-contained, escaped, the same every time; the verbs that write it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from emu.report import html
from emu.report.html import MAX_SPACES, report_page
from tests.cli.pagewalk import pagewalk, refused
from tests.report.traces import Script, recorded, story_of


@pytest.fixture(autouse=True)
def _without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five megabytes that say nothing about pages made here (the verbs run in processes of their own)."""
    monkeypatch.setattr(html, "plotly_script", lambda: "/* plotly.js */")


class Outline(HTMLParser):
    """Elements with their attributes, and what is not well nested."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> in {self._open}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def hand_made() -> Script:
    script = Script()
    script.areas((0x1000, 0x3000, "rw-p", 3))
    script.counters(anon=1)
    script.fault(0x1000)
    script.mremap("EFAULT", "range spans areas")
    script.gone()
    return script


def test_the_page_is_well_formed_and_asks_for_nothing() -> None:
    outline = Outline(report_page([hand_made().story()]))
    for tag, attributes in outline.elements:
        for name in ("src", "href", "action", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    (policy,) = [m["content"] for m in outline.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and "default-src 'none'" in policy and "connect-src 'none'" in policy


def test_ids_are_unique_and_links_lead_somewhere() -> None:
    outline = Outline(report_page([hand_made().story(), hand_made().story()]))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in outline.all("a"):
        href = attributes["href"]
        assert href is not None and href.removeprefix("#") in ids


def test_everything_can_be_reached_by_keyboard() -> None:
    outline = Outline(report_page([hand_made().story()]))
    figures = [a for a in outline.all("div") if a.get("class") == "figure"]
    assert figures and all(a["tabindex"] == "0" and a["aria-label"] for a in figures)
    assert all(a["aria-label"] for a in outline.all("button"))
    assert outline.all("a")[0]["class"] == "skip"


def test_the_tables_need_no_script() -> None:
    text = " ".join(Outline(report_page([hand_made().story()])).text)
    for expected in ("prog.c:1", "1000-3000", "#3", "mremap(0x1000, 4096, 8192, MREMAP_MAYMOVE)", "range spans areas"):
        assert expected in text


def test_the_figures_are_json_for_the_script() -> None:
    page = report_page([hand_made().story()])
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert list(json.loads(data)) == ["figure-0-1"]


def test_a_guest_cannot_put_markup_into_the_page() -> None:
    evil = "</script><script>alert(1)</script><img src=x>"
    script = Script(argv=[evil], kernel=evil)
    script.areas((0x1000, 0x3000, "rw-p", None))
    script.records[-1]["comm"] = evil
    script.records[-1]["added"][0]["name"] = evil
    script.fault(0x1000, insn=evil)
    script.records[-1]["code"]["text"] = evil
    script.mremap("EFAULT", evil)
    script.event("mm:vma_split", vma=evil, addr="0x2000")
    page = report_page([script.story()])
    assert "<script>alert" not in page and "<img" not in page
    assert len(Outline(page).all("script")) == 3


def test_the_same_records_give_the_same_bytes() -> None:
    records = recorded("--", "images/faults")
    assert report_page([story_of(records)]) == report_page([story_of(records)])


def test_a_trace_of_faults_alone_still_makes_a_page() -> None:
    script = Script(events=["faults"])
    script.fault(0x1000)
    text = " ".join(Outline(report_page([script.story(status=None)])).text)
    assert "The trace has no records of mremap calls, merges and refusals, areas over time, memory over time" in text
    assert "the run was cut short" in text


def test_an_empty_trace_makes_a_page() -> None:
    assert "The trace has no records of address spaces." in report_page([Script().story()])


def test_of_very_many_processes_the_busy_ones_are_drawn() -> None:
    script = Script()
    for mm in range(1, 31):
        script.areas((0x1000, 0x3000, "rw-p", mm), mm=mm)
        for _ in range(mm):
            script.fault(0x1000, mm=mm)
    page = report_page([script.story()])
    drawn = [attributes["id"] for attributes in Outline(page).all("div") if attributes.get("class") == "figure"]
    assert drawn == ["figure-0-1", *(f"figure-0-{mm}" for mm in range(30 - MAX_SPACES + 2, 31))]
    assert f"{30 - MAX_SPACES} more address spaces" in page


def test_a_long_table_is_cut_and_says_so() -> None:
    script = Script()
    script.areas(*((0x10000 + i * 0x2000, 0x11000 + i * 0x2000, "rw-p", None) for i in range(700)))
    script.gone()
    assert "The first 500 of 700." in report_page([script.story()])


# ---- the verbs ------------------------------------------------------------------------------------------------------


def test_a_run_and_its_trace_make_the_same_report(tmp_path: Path) -> None:
    by_run, by_trace, trace = tmp_path / "run.html", tmp_path / "trace.html", tmp_path / "trace.jsonl"
    done = pagewalk("run", "--report", by_run, "--", "images/faults")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("zero page ")
    pagewalk("trace", "-e", "all", "--format", "jsonl", "-o", trace, "--", "images/faults")
    assert pagewalk("report", trace, "-o", by_trace).returncode == 0
    assert by_run.read_bytes() == by_trace.read_bytes()
    assert "plotly.js" in by_run.read_text()


def test_the_status_of_a_run_is_the_program_s(tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    done = pagewalk("run", "--report", target, "--", "images/segv")
    assert done.returncode == pagewalk("run", "--", "images/segv").returncode
    assert target.exists()


def test_kernels_side_by_side(tmp_path: Path) -> None:
    target = tmp_path / "out.html"
    done = pagewalk("compare", "--kernels", "2.6.6-rmap39,2.6.7", "--report", target, "--", "images/p1")
    assert done.returncode == 1 and "differs" in done.stdout
    text = target.read_text()
    assert 'id="figure-0-1"' in text and 'id="figure-1-1"' in text
    assert "The program does not behave the same on all kernels." in text
    first = target.read_bytes()
    pagewalk("compare", "--kernels", "2.6.6-rmap39,2.6.7", "--report", target, "--", "images/p1")
    assert target.read_bytes() == first


def test_errors(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.jsonl"
    assert refused("report", missing, "-o", tmp_path / "a.html") == f"{missing}: No such file or directory"
    missing.write_text("hello\n")
    assert "is no JSON" in refused("report", missing, "-o", tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()
    place = tmp_path / "no" / "where.html"
    assert refused("run", "--report", place, "--", "images/hello") == f"--report: {place}: No such file or directory"
    assert "images/nothing" in refused("run", "--report", tmp_path / "b.html", "--", "images/nothing", status=127)
    assert not (tmp_path / "b.html").exists()


def test_without_plotly_there_is_one_clear_line(tmp_path: Path) -> None:
    """A directory before the others on sys.path in which plotly cannot be imported."""
    (tmp_path / "plotly").mkdir()
    (tmp_path / "plotly" / "__init__.py").write_text("raise ImportError('not here')\n")
    environment: dict[str, Any] = {"PYTHONPATH": str(tmp_path)}
    done = pagewalk("run", "--report", tmp_path / "out.html", "--", "images/hello", env=environment)
    assert done.returncode == 125 and done.stdout == ""
    assert done.stderr == "pagewalk: a report needs the package plotly: pip install plotly\n"
