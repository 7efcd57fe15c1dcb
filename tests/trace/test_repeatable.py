"""Traces of forks, threads, signals and swapping: the same bytes in every run, and every record as the schema says."""

from __future__ import annotations

import functools
import json
import subprocess
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from tests.cli.pagewalk import ROOT, pagewalk

GUESTS = ROOT / "tests/guest/programs"
ALL = ("-q", "-e", "all", "--insns", "around-fault:3")
SWAPS = ("--ram", "1M", "--swap", "4M")
UNDER_PRESSURE = ("images/vmscript", "m:0:300:rw W:0:300 R:0:90 f{ W:100:50 f} m:400:9:rw:S W:400:9 u:0:100")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("programs")

    def build(name: str) -> Path:
        program = folder / name
        if not program.exists():
            source = GUESTS / f"{name}.c"
            subprocess.run(["gcc", "-O1", "-g", "-pthread", "-o", str(program), str(source)], check=True)
        return program

    return build


def command_of(what: str, built: Callable[[str], Path]) -> tuple[str, ...]:
    """Options and program."""
    if what in ("threads", "signals"):
        return ("--", str(built(what)))
    if what == "shell":
        return ("--", "/bin/sh", "-c", "for i in 1 2; do echo $i; done | cat; cat /nonexistent; exit 3")
    return {"swap": (*SWAPS, "--", *UNDER_PRESSURE), "fork": ("--", "images/faults"), "fault": ("--", "images/segv")}[
        what
    ]


WHAT = ("fork", "shell", "swap", "threads", "signals", "fault")
FORMS = [("jsonl", what) for what in WHAT] + [("text", "swap"), ("perfetto", "swap"), ("perfetto", "shell")]


class Run(NamedTuple):
    trace: bytes
    stdout: str
    stderr: str
    status: int


Runs = Callable[[str, str, int], Run]


@pytest.fixture(scope="module")
def runs(built: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """``(format, what, number)`` -> that run; made once."""
    target = tmp_path_factory.mktemp("traces") / "trace"

    @functools.cache
    def run(form: str, what: str, number: int) -> Run:
        done = pagewalk("trace", "--format", form, "-o", target, *ALL, *command_of(what, built))
        return Run(target.read_bytes(), done.stdout, done.stderr, done.returncode)

    return run


@pytest.mark.parametrize(("form", "what"), FORMS)
def test_two_runs_give_the_same_bytes(form: str, what: str, runs: Runs) -> None:
    first = runs(form, what, 1)
    assert runs(form, what, 2) == first
    assert len(first.trace) > 5_000


@pytest.fixture(scope="module")
def records(runs: Runs) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for what in WHAT:
        found += map(json.loads, runs("jsonl", what, 1).trace.splitlines())
    done = pagewalk("trace", "--format", "jsonl", "--insns", "all", "--", "images/hello")
    return found + [json.loads(line) for line in done.stderr.splitlines()]


def test_every_record_fits_the_schema(records: list[dict[str, Any]]) -> None:
    schema = json.loads(resources.files("emu.trace").joinpath("schema/trace-1.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validators = {
        kind: jsonschema.Draft202012Validator({**schema, "oneOf": [{"$ref": f"#/$defs/{kind}"}]})
        for kind in schema["$defs"]
    }
    for record in records:
        validators[record["type"]].validate(record)
    counts = Counter(record["type"] for record in records)
    assert {each["$ref"].rpartition("/")[2] for each in schema["oneOf"]} == counts.keys()
    assert sum(counts.values()) > 5_000


def test_no_field_is_missing_from_the_schema(records: list[dict[str, Any]]) -> None:
    """The schema allows fields that it does not name (readers must); ours are all named."""
    schema = json.loads(resources.files("emu.trace").joinpath("schema/trace-1.json").read_text())["$defs"]
    for record in records:
        named = set(schema[record["type"]]["properties"]) | set(schema["record"]["properties"])
        assert record.keys() <= named, record.keys() - named


def test_there_is_something_of_everything(records: list[dict[str, Any]]) -> None:
    kinds = {record["kind"] for record in records if record["type"] == "fault"}
    assert {"zero", "anonymous", "cow", "reuse", "file", "file_cow", "shared", "swap", "bad"} <= kinds
    subsystems = {record["event"].partition(":")[0] for record in records if record["type"] == "event"}
    assert {"mm", "rmap", "swap", "vmscan", "sched", "signal", "tlb"} <= subsystems
    swapped = [record for record in records if record.get("kind") == "swap"]
    assert any(record["cost"]["read_swap"] for record in swapped)
    assert {record["changed"]["swap_slot"]["freed"] for record in swapped} >= {False}
    assert any(record["cost"]["reclaimed"] for record in records if record["type"] == "fault")
    assert all(record["pfn"] is not None for record in swapped if record["result"] in ("MINOR", "MAJOR"))


def test_numbers_and_times_go_up(records: list[dict[str, Any]]) -> None:
    last = {"n": 0, "ts_ns": 0}
    for record in records:
        if record["type"] == "header":
            last = {"n": 0, "ts_ns": 0}
        elif record["type"] != "end":
            assert record["n"] == last["n"] + 1 and record["ts_ns"] >= last["ts_ns"]
            last = {"n": record["n"], "ts_ns": record["ts_ns"]}
