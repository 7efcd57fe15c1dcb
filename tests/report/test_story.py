"""From records to what a report tells."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from emu.report.story import BadTrace, When, read_story
from tests.report.traces import Script, recorded, story_of

A, B, C = 0x1000, 0x3000, 0x5000


def test_an_area_lives_until_it_changes() -> None:
    script = Script()
    script.areas((A, B, "rw-p", None))
    script.areas((A, C, "rw-p", 3))
    script.gone()
    first, second = script.story().spaces[1].bands
    assert (first.start, first.end, first.anon_vma) == (A, B, None)
    assert (first.born, first.died) == (When(0, 1), When(1000, 2))
    assert (second.end, second.anon_vma, second.born, second.died) == (C, 3, When(1000, 2), When(2000, 3))


def test_what_is_removed_dies_and_what_stays_stays() -> None:
    script = Script()
    script.areas((A, B, "rw-p", None), (B, C, "r--p", None))
    script.areas(removed=[A])
    script.fault(B)
    story = script.story()
    assert [(band.start, band.died.n) for band in story.spaces[1].bands] == [(A, 2), (B, 3)]
    assert [band.start for band in story.spaces[1].at_end] == [B]
    assert not story.spaces[1].is_gone


def test_the_areas_at_the_end_are_those_before_it_went() -> None:
    script = Script()
    script.areas((B, C, "rw-p", None), (A, B, "r--p", None))
    script.gone()
    space = script.story().spaces[1]
    assert space.is_gone and [band.start for band in space.at_end] == [A, B]


def test_faults_are_counted_by_kind_and_by_source_line() -> None:
    script = Script()
    script.fault(A, "cow", line=10)
    script.fault(B, "anonymous", line=10)
    script.fault(C, "anonymous", line=20)
    story = script.story()
    assert story.kinds == {"anonymous": 2, "cow": 1}
    assert {site.source: site.total for site in story.sites.values()} == {"prog.c:10": 2, "prog.c:20": 1}


def test_faults_without_dwarf_go_by_instruction() -> None:
    script = Script()
    script.fault(A, line=None)
    assert [site.source for site in script.story().sites.values()] == ["0x401000"]


def test_faults_belong_to_their_address_space() -> None:
    script = Script()
    script.fault(A, mm=1)
    script.fault(A, mm=2)
    script.fault(B, mm=2)
    assert {mm: len(space.faults) for mm, space in script.story().spaces.items()} == {1: 1, 2: 2}


def test_mremap_calls_have_verdicts() -> None:
    script = Script()
    script.mremap(None)
    script.mremap("EFAULT", "range spans areas")
    story = script.story()
    assert [(call.error, call.reason) for call in story.mremaps] == [(None, None), ("EFAULT", "range spans areas")]
    assert story.failed_calls == {("mremap", "EFAULT", "range spans areas"): 1}


def test_a_trace_without_some_records_says_which() -> None:
    assert Script(events=["faults"]).story().missing == [
        "mremap calls", "merges and refusals", "areas over time", "memory over time",
    ]  # fmt: skip
    assert Script().story().missing == []


def test_the_kernel_is_named_with_its_overrides() -> None:
    story = Script(kernel="6.1", rmap="anonmm", bugs=["mremap-twin"]).story()
    assert story.kernel == "6.1 --rmap anonmm --bug mremap-twin"


def test_after_exec_events_belong_to_the_new_address_space() -> None:
    """The old one goes after the new one has come."""
    script = Script()
    script.areas((A, B, "rw-p", None), mm=1)
    script.areas((A, B, "rw-p", None), mm=2)
    script.gone(mm=1)
    script.counters(anon=0, mm=1, areas=0)
    script.event("mm:vma_split", vma="x", addr=hex(A))
    assert [len(space.marks) for space in script.story().spaces.values()] == [0, 1]


class TestOfRealRuns:
    """The story of a real trace against the trace itself."""

    def test_the_areas_at_the_end_are_those_of_maps(self) -> None:
        from tests.cli.pagewalk import pagewalk

        maps = pagewalk("maps", "--", "images/faults").stderr.splitlines()
        space = story_of(recorded("--", "images/faults")).spaces[1]
        assert [f"{band.start:08x}-{band.end:08x} {band.perms}" for band in space.at_end] == [
            " ".join(line.split()[:2]) for line in maps
        ]

    def test_counters_are_those_of_the_areas(self) -> None:
        records = recorded("--", "images/faults")
        alive: dict[int, dict[str, Any]] = {}
        checked = 0
        for record in records:
            if record["type"] == "areas":
                areas = alive.setdefault(record["mm"], {})
                if record["gone"]:
                    areas.clear()
                for start in record["removed"]:
                    del areas[start]
                areas.update({area["start"]: area for area in record["added"]})
            elif record["type"] == "counters" and record["areas"]:
                assert record["areas"] == len(alive[record["mm"]]), record
                checked += 1
        assert checked > 20

    def test_areas_never_overlap(self) -> None:
        for args in (("--", "images/faults"), ("--kernel", "2.6.6-rmap39", "--", "images/p1")):
            for space in story_of(recorded(*args)).spaces.values():
                for band in space.bands:
                    clash = [
                        other
                        for other in space.bands
                        if other is not band
                        and other.start < band.end
                        and band.start < other.end
                        and other.born.n < band.died.n
                        and band.born.n < other.died.n
                    ]
                    assert not clash, (band, clash)

    def test_every_fault_lies_in_an_area_that_lives(self) -> None:
        for space in story_of(recorded("--", "images/faults")).spaces.values():
            for fault in space.faults:
                assert any(
                    band.start <= fault.address < band.end and band.born.n - 10 <= fault.when.n <= band.died.n
                    for band in space.bands
                ), fault

    def test_merges_and_refusals(self) -> None:
        joined = story_of(recorded("--kernel", "2.6.7", "--", "images/p1"))
        apart = story_of(recorded("--kernel", "2.6.6-rmap39", "--", "images/p1"))
        assert joined.merges.total() == 15 and apart.merges.total() == 0
        assert sum(r.record["reason"] == "anon_vma" for r in apart.refusals.values()) == 15
        assert sum(mark.what == "merge" for mark in joined.spaces[1].marks) == 15
        assert [call.error for call in apart.mremaps] == ["EFAULT"]
        assert [call.error for call in joined.mremaps] == [None]

    def test_swap(self) -> None:
        story = story_of(recorded("--ram", "4M", "--swap", "64M", "--", "images/mem_fill", "8", "1"))
        assert story.pages_out > 1000 and story.pages_in > 1000 and story.nr_major > 100
        assert max(sample.swap for sample in story.spaces[1].samples) > 500


# ---- files ----------------------------------------------------------------------------------------------------------


def as_file(records: list[dict[str, Any]]) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(record).encode() + b"\n" for record in records))


def test_a_trace_that_was_cut_short_is_told_as_far_as_it_goes() -> None:
    script = Script()
    script.fault(A)
    stream = io.BytesIO(as_file(script.records).getvalue() + b'{"type":"fault","n":')
    story = read_story(stream)
    assert story.kinds == {"anonymous": 1} and story.end is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"hello\n", "line 1 is no JSON"),
        (b"[]\n", "does not begin with the header"),
        (b'{"type":"fault"}\n', "does not begin with the header"),
        (b'{"type":"header","tool":"pagewalk","schema":9}\n', "it has schema 9"),
        (b'{"type":"header","tool":"pagewalk","schema":1}\n{"a":1}\n', "line 2 is no record"),
        (b'{"type":"header","tool":"pagewalk","schema":1}\n{oops}\n{}\n', "line 2 is no JSON"),
    ],
)
def test_what_is_no_trace_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(BadTrace, match=message):
        read_story(io.BytesIO(content))
