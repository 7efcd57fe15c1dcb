"""A program that touches memory in a known order: number, order, kinds, addresses, lines and costs of all its faults,
worked out by hand from what mmap(2), fork(2), mprotect(2), madvise(2) and mremap(2) say."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.cli.pagewalk import pagewalk

SOURCE = Path(__file__).parent / "programs/pattern.c"
ARENA, PAGE = 0x2_0000_0000, 4096


class Expected(NamedTuple):
    number: int
    """Of the touch."""
    access: str
    kind: str
    address: int
    """From the arena on."""
    changed: Mapping[str, Any] = MappingProxyType({})
    cost: Mapping[str, int] = MappingProxyType({})


MADE = {"anon_vma": "made"}
ZEROED, COPIED = {"zeroed": 1}, {"copied": 1}
COPY = {"copied": True}

EXPECTED = [
    Expected(1, "read", "zero", 0, {"page_tables": 3}),
    Expected(2, "write", "cow", 1, MADE, ZEROED),  # the zero page: nothing to copy
    Expected(3, "write", "anonymous", PAGE, {}, ZEROED),
    Expected(4, "write", "anonymous", 2 * PAGE + 4094, {}, ZEROED),
    Expected(4, "write", "anonymous", 3 * PAGE, {}, ZEROED),
    Expected(5, "write", "cow", PAGE, COPY, COPIED),
    Expected(6, "write", "reuse", PAGE),  # the child had its own copy
    Expected(7, "write", "reuse", 0),  # the child is gone
    Expected(8, "read", "zero", 4 * PAGE),
    Expected(9, "write", "cow", 4 * PAGE, {}, ZEROED),
    Expected(11, "read", "zero", PAGE),
    Expected(12, "write", "cow", PAGE, {}, ZEROED),
    Expected(13, "write", "anonymous", PAGE, {}, ZEROED),
    Expected(14, "write", "anonymous", 18 * PAGE, {}, ZEROED),
    Expected(15, "read", "file", 32 * PAGE, {"around": 3}),  # the file's pages are in the page cache: just written
    Expected(16, "write", "file_cow", 33 * PAGE, MADE | COPY, COPIED),
    Expected(17, "write", "file_cow", 48 * PAGE + 7, MADE | COPY, COPIED),
    Expected(18, "read", "shared", 66 * PAGE, {"around": 3}),
    Expected(19, "write", "shared", 66 * PAGE),
    Expected(20, "write", "shared", 67 * PAGE),
    Expected(21, "write", "shared", 80 * PAGE, {}, ZEROED),
    Expected(22, "read", "shared", 81 * PAGE, {}, ZEROED),
    Expected(26, "write", "bad", 96 * PAGE),
]
STACK = (23, 24, 25)


@pytest.fixture(scope="module", params=[("-O0", "-pie"), ("-O2", "-static-pie"), ("-O2", "-gdwarf-4", "-pie")])
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All faults of the program's own instructions that are touches."""
    folder = tmp_path_factory.mktemp("pattern")
    program = folder / "pattern"
    subprocess.run(["gcc", "-g", *request.param, "-o", str(program), str(SOURCE)], check=True)
    done = pagewalk("trace", "-q", "--format", "jsonl", "--", program, folder / "file")
    assert done.returncode == 128 + 11
    assert not (folder / "file").exists()  # it was made in memory
    records = [json.loads(line) for line in done.stderr.splitlines()]
    return [record for record in records if record["type"] == "fault" and touch_of(record) is not None]


LINES = {
    number: int(marker[1])
    for number, line in enumerate(SOURCE.read_text().splitlines(), 1)
    if (marker := re.search(r"/\* (\d+)(?:,| \*/)", line))
}
"""Line -> number of the touch."""


def touch_of(fault: dict[str, Any]) -> int | None:
    """By address, not by line: the lines are what is to be proved."""
    address = int(fault["address"], 16)
    is_ours = fault["syscall"] is None and (fault["code"]["file"] or "").endswith("pattern.c")
    if fault["syscall"] is None and ARENA <= address < ARENA + 128 * PAGE:
        return LINES.get(fault["code"]["line"], 0)
    return LINES.get(fault["code"]["line"]) if is_ours and fault["area"]["name"] == "[stack]" else None


def test_number_order_kinds_addresses_and_lines(faults: list[dict[str, Any]]) -> None:
    got = [
        (touch_of(fault), fault["access"], fault["kind"], int(fault["address"], 16) - ARENA)
        for fault in faults
        if touch_of(fault) not in STACK
    ]
    assert got == [expected[:4] for expected in EXPECTED]
    assert {fault["code"]["file"] for fault in faults} == {str(SOURCE)}


def test_what_they_change_and_cost(faults: list[dict[str, Any]]) -> None:
    for fault, expected in zip([f for f in faults if touch_of(f) not in STACK], EXPECTED, strict=True):
        changed = {name: value for name, value in fault["changed"].items() if value}
        if "anon_vma" in changed:
            changed["anon_vma"] = changed["anon_vma"]["how"]
        if "copied" in changed:
            assert changed["copied"] == {"from": fault["old_pfn"], "to": fault["pfn"]}
            changed["copied"] = True
        assert changed == expected.changed, expected
        cost = dict(fault["cost"])
        assert cost.pop("ns") == 1000
        assert {name: value for name, value in cost.items() if value} == expected.cost, expected


def test_who_faults(faults: list[dict[str, Any]]) -> None:
    assert {touch_of(fault): fault["pid"] for fault in faults if fault["pid"] != 2} == {5: 3}


def test_frames(faults: list[dict[str, Any]]) -> None:
    by_touch = {touch_of(fault): fault for fault in faults}
    assert by_touch[6]["pfn"] == by_touch[6]["old_pfn"] == by_touch[3]["pfn"]
    assert by_touch[5]["old_pfn"] == by_touch[3]["pfn"] != by_touch[5]["pfn"]
    assert by_touch[1]["pfn"] == by_touch[2]["old_pfn"] == by_touch[8]["pfn"]  # the zero page
    assert by_touch[19]["pfn"] == by_touch[18]["pfn"]


def test_the_stack_grows_to_the_page_that_is_touched(faults: list[dict[str, Any]]) -> None:
    first, second, between = (fault for fault in faults if touch_of(fault) in STACK)
    for fault in (first, second):
        assert fault["kind"] == "stack" and fault["cost"]["zeroed"] == 1
        page = int(fault["address"], 16) & -PAGE
        assert fault["changed"]["area"]["start"] == fault["area"]["start"] == hex(page)
        assert fault["changed"]["area"]["end"] == fault["area"]["end"]
    # what exec makes: 128 KiB below the page in which the strings begin
    assert int(first["changed"]["area"]["end"], 16) - int(first["changed"]["area"]["old_start"], 16) == 33 * PAGE
    assert second["changed"]["area"]["old_start"] == first["area"]["start"]
    assert int(first["address"], 16) - int(second["address"], 16) == 10 * 1024
    assert between["kind"] == "anonymous" and between["changed"]["area"] is None


def test_every_fault_says_its_rule(faults: list[dict[str, Any]]) -> None:
    rules = {fault["kind"]: fault["rule"] for fault in faults}
    assert len(set(rules.values())) == len(rules)
    assert rules["bad"] == "the area does not allow this access"
    assert "zero page" in rules["zero"]
