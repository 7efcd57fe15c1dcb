"""Records of areas and counters: replayed, they are the address space, whatever was done to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kernel.profile import PROFILES
from tests.cli.pagewalk import pagewalk

SCRIPTS = {
    "cut and joined": "m:0:8:rw W:0:8 p:2:2:r p:4:2:- p:2:4:rw u:1:1 u:5:2",
    "moved": "m:0:4:rw W:0:4 m:16:2:rw v:0:4:8:M v:16:2:2:MF:32 m:64:1:r v:64:1:1:M",
    "left behind": "m:0:4:rw W:0:4 v:0:4:4:MD m:32:2:rw W:32:2 v:32:1:1:MFD:40",
    "advised and locked": "m:0:6:rw W:0:6 a:1:2:sequential l:3:1 k:3:1 a:1:2:normal a:0:2:dontfork",
    "forked": "m:0:4:rw W:0:4 f{ W:1:1 u:0:1 p:2:1:r f} p:0:4:r",
    "grown": "m:0:2:rwG W:0:2 b:4 b:2 m:16:2:rw:F W:16:2 m:20:2:rw:SF m:8:2:rw:S W:8:2",
}


def replayed(records: list[dict[str, Any]], mm: int) -> list[tuple[str, str, str, int | None]]:
    """The areas of ``mm`` when it went."""
    areas: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["type"] != "areas" or record["mm"] != mm:
            continue
        if record["gone"]:
            break
        for start in record["removed"]:
            del areas[start]
        areas.update({area["start"]: area for area in record["added"]})
    found = sorted(areas.values(), key=lambda area: int(area["start"], 16))
    return [(area["start"], area["end"], area["perms"], area["anon_vma"]) for area in found]


@pytest.mark.parametrize("kernel", ["2.6.7", "6.18"])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_the_last_state_is_what_maps_shows(script: str, kernel: str) -> None:
    program = ("--kernel", kernel, "--", "images/vmscript", *script.split())
    trace = pagewalk("trace", "-e", "areas", "--format", "jsonl", *program)
    assert trace.returncode == 0, trace.stderr
    records = [json.loads(line) for line in trace.stderr.splitlines()]
    maps = json.loads(pagewalk("maps", "--json", *program).stderr)
    assert replayed(records, maps["mm"]) == [
        (area["start"], area["end"], area["perms"], area["anon_vma"]) for area in maps["areas"]
    ]


@pytest.mark.parametrize("kernel", PROFILES)
def test_every_record_changes_something(kernel: str) -> None:
    """Nothing is told twice, nothing is removed that was not there; numbers of areas are those of the counters."""
    script = f"{SCRIPTS['cut and joined']} {SCRIPTS['moved'].replace('m:0', 'm:100').replace('v:0', 'v:100')}"
    program = ("--kernel", kernel, "--", "images/vmscript", *script.split())
    done = pagewalk("trace", "-e", "areas,counters", "--format", "jsonl", *program)
    alive: dict[str, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for record in map(json.loads, done.stderr.splitlines()):
        if record["type"] == "areas" and not record["gone"]:
            assert record["removed"] or record["added"]
            for start in record["removed"]:
                del alive[start]
            for area in record["added"]:
                assert alive.get(area["start"]) != area
                alive[area["start"]] = area
        elif record["type"] == "counters":
            state = {key: record[key] for key in ("rss_anon", "rss_file", "rss_shmem", "swap", "page_tables", "areas")}
            assert state != last
            last = state
            assert record["areas"] in (len(alive), 0)
    assert last and not any(last.values())


def test_the_first_state_comes_after_its_cause() -> None:
    done = pagewalk("trace", "-e", "syscalls,areas", "--format", "jsonl", "--", "images/vmscript", "m:0:3:rw", "u:1:1")
    records = [json.loads(line) for line in done.stderr.splitlines()]
    for i, record in enumerate(records):
        if record["type"] == "syscall" and record["name"] in ("mmap", "munmap") and record["error"] is None:
            assert records[i + 1]["type"] == "areas", record


def test_text_has_a_line_for_each_change() -> None:
    done = pagewalk("trace", "-e", "areas,counters", "--", "images/vmscript", "m:0:3:rw", "W:0:3", "u:1:1")
    lines = done.stderr.splitlines()
    assert "[pid     2] mm #1 + 200000000-200003000 rw-p anon" in lines
    assert any(line.startswith("[pid     2] mm #1 + 200000000-200003000 rw-p anon  anon_vma #") for line in lines)
    assert any(line.startswith("[pid     2] mm #1 + 200000000-200001000 rw-p anon  anon_vma #") for line in lines)
    assert "[pid     2] mm #1 gone" in lines
    assert any(line.startswith("[pid     2] mm #1 rss_anon=") for line in lines)
