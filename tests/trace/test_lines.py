"""Source lines of all faults of user code, against addr2line, which reads the same DWARF with code of its own."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.pagewalk import ROOT, pagewalk

PATTERN = Path(__file__).parent / "programs/pattern.c"


def user_faults(program: Path, *args: str) -> list[dict[str, Any]]:
    """Faults of instructions that lie in the program itself."""
    done = pagewalk("trace", "-q", "--format", "jsonl", "--env", "LD_BIND_NOW=1", "--", program, *args)
    records = [json.loads(line) for line in done.stderr.splitlines()]
    faults = [record for record in records if record["type"] == "fault" and record["syscall"] is None]
    return [fault for fault in faults if fault["code"]["module"] == str(program)]


def load_address(program: Path, faults: list[dict[str, Any]]) -> int:
    """Where a position-independent program was put: the entry point is the first instruction of it that faults."""
    header = subprocess.run(["readelf", "-h", str(program)], capture_output=True, text=True, check=True).stdout
    if re.search(r"Type:\s+EXEC", header):
        return 0
    entry = re.search(r"Entry point address:\s+(0x[0-9a-f]+)", header)
    assert entry is not None
    return int(faults[0]["code"]["ip"], 16) - int(entry[1], 16)


def said_by_addr2line(program: Path, addresses: list[int]) -> list[str]:
    command = ["addr2line", "-e", str(program), *map(hex, addresses)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.partition(" (")[0] for line in lines]


def ours(fault: dict[str, Any]) -> str:
    code = fault["code"]
    return "??:0" if code["file"] is None else f"{code['file']}:{code['line']}"


@pytest.fixture(scope="module", params=["shipped", "-O0 -pie", "-O2 -pie", "-O2 -static", "-O3 -static-pie"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "shipped":
        return ROOT / "images/faults"
    target = tmp_path_factory.mktemp("lines") / "pattern"
    subprocess.run(["gcc", "-g", *request.param.split(), "-o", str(target), str(PATTERN)], check=True)
    return target


@pytest.fixture(scope="module")
def faults(program: Path) -> list[dict[str, Any]]:
    return user_faults(program, "/tmp/file-of-the-guest")


def test_every_line_is_what_addr2line_says(program: Path, faults: list[dict[str, Any]]) -> None:
    base = load_address(program, faults)
    assert len(faults) > 20
    said = said_by_addr2line(program, [int(fault["code"]["ip"], 16) - base for fault in faults])
    lines = ["??:0" if line.endswith((":?", ":0")) else line for line in said]  # it may know a file without a line
    assert [Path(ours(fault)).name for fault in faults] == [Path(line).name for line in lines]
    assert sum(line != "??:0" for line in lines) > 20
    if program.name == "pattern":
        assert [ours(fault) for fault in faults] == lines
    else:
        assert "??:0" not in lines
