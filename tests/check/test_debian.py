"""Programs of Debian that call mremap, with the workloads of docs/mremap-software: what docs/mremap-software.md says.

Each must print what it prints natively and make the same calls with the same answers, also when calls are refused:
``strace -e inject`` refuses them natively, ``--fail`` here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.check.oracle import guest_mremaps, native_mremaps
from tests.check.test_programs import KERNELS, OLD_MREMAP
from tests.guest.harness import NOT_INSTALLED, ROOT, fresh, pagewalk, require

WORKLOADS = ROOT / "docs/mremap-software"


def nothing(_work: Path) -> None:
    """No preparation."""


def compiled(source: str) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        program = source.removesuffix(".c")
        subprocess.run(["gcc", "-g", "-O1", "-o", program, str(WORKLOADS / source)], check=True, cwd=work)

    return prepare


def apt_state(work: Path) -> None:
    subprocess.run(["sh", str(WORKLOADS / "apt-state.sh"), str(work)], check=True)


def records(work: Path) -> None:
    dump = subprocess.run(["sh", str(WORKLOADS / "records.sh")], check=True, capture_output=True).stdout
    (work / "records").write_bytes(dump)


def environment(work: Path) -> None:
    records(work)
    subprocess.run(["mdb_load", "-n", "-f", "records", "data.mdb"], check=True, cwd=work)


@dataclass(frozen=True)
class Software:
    name: str
    argv: tuple[str, ...]
    prepare: Callable[[Path], None] = nothing
    stdin_file: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    """``{work}`` stands for the working directory."""
    copes: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    """On all other kernels it is safe."""
    boundary: str | None = None
    survives_refusal: bool = True
    """Does it come to the same end when its first call, or every call, gets ENOMEM?"""
    needs: tuple[str, ...] = ()
    """If not the program itself."""

    def verdict(self, kernel: str) -> str:
        return "breaks" if kernel in self.breaks else "copes" if kernel in self.copes else "safe"

    @property
    def stdin(self) -> str:
        return "" if self.stdin_file is None else (WORKLOADS / self.stdin_file).read_text()

    def start(self, work: Path) -> dict[str, Any]:
        """A fresh directory, and what every way of running a program is told."""
        require(self.needs or self.argv[:1])
        fresh(work, self.prepare)
        env = {name: value.format(work=work) for name, value in self.env}
        return {"cwd": work, "stdin": self.stdin, "env": env}


SOFTWARE = [
    Software("realloc", ("./realloc",), compiled("realloc.c"), needs=("gcc",)),
    Software("locked", ("./locked",), compiled("locked.c"), copes=OLD_MREMAP, boundary="unjoined", needs=("gcc",)),
    Software("sqlite3", ("sqlite3", "words.db"), stdin_file="database.sql"),
    Software("python3", ("/usr/bin/python3", "-IS", str(WORKLOADS / "resize.py")), survives_refusal=False),
    Software(
        "python3 advise",
        ("/usr/bin/python3", "-IS", str(WORKLOADS / "advise.py")),
        breaks=OLD_MREMAP,
        boundary="unjoined",
        survives_refusal=False,
    ),
    Software("luajit", ("luajit", str(WORKLOADS / "grow.lua"))),
    Software("perl", ("perl", str(WORKLOADS / "string.pl"))),
    Software(
        "apt-cache",
        ("apt-cache", "gencaches"),
        apt_state,
        env=(("APT_CONFIG", "{work}/apt.conf"),),
        survives_refusal=False,
    ),
    Software("mdb_load", ("mdb_load", "-n", "-f", "records", "data.mdb"), records),
]
each = pytest.mark.parametrize("software", SOFTWARE, ids=lambda software: software.name)


@each
def test_same_as_native(software: Software, tmp_path: Path) -> None:
    """Linux 6.18 here and the host's kernel: the same output, the same calls, the same errors."""
    expected, calls = native_mremaps(software.argv, tmp_path, **software.start(tmp_path / "work"))
    assert expected.status == 0
    assert calls
    how = software.start(tmp_path / "work")
    assert guest_mremaps(software.argv, tmp_path, ("--kernel", "6.18"), **how) == (expected, calls)


@pytest.mark.parametrize(
    "kernels", [("2.6.6-rmap39", "6.1", "6.18"), pytest.param(KERNELS, marks=pytest.mark.proof)], ids=len
)
@each
def test_verdicts(software: Software, kernels: tuple[str, ...], tmp_path: Path) -> None:
    options = ("mremap", "--json", "--no-rescue", "--kernels", ",".join(kernels))
    result = pagewalk(software.argv, options, verb="check", **software.start(tmp_path / "work"))
    report: dict[str, Any] = json.loads(result.stdout)
    assert {run["kernel"]: run["verdict"] for run in report["runs"]} == {k: software.verdict(k) for k in kernels}
    assert result.status == (1 if software.breaks else 0)
    for finding in report["findings"]:
        assert (finding["error"], finding["reason"]) == ("EFAULT", "range spans areas")
        assert finding["boundary"]["reason"] == software.boundary
    if software.name == "locked":
        [line] = _lines_with("locked.c", "/* grows */")
        assert [finding["site"]["line"] for finding in report["findings"]] == [line]


def _lines_with(source: str, comment: str) -> list[int]:
    lines = (WORKLOADS / source).read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if comment in line]


@pytest.mark.parametrize(
    ("software", "when"),
    [(one, when) for one in SOFTWARE for when in ("1", "every") if when == "1" or one.survives_refusal],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_refused_calls(software: Software, when: str, tmp_path: Path) -> None:
    """No memory for the first call, or for any: the same end, message and further calls as natively."""
    inject = f"inject=mremap:error=ENOMEM:when={'1' if when == '1' else '1+'}"
    how = software.start(tmp_path / "work")
    expected, calls = native_mremaps(software.argv, tmp_path, ("-e", inject), **how)
    assert (expected.status == 0) is software.survives_refusal
    how = software.start(tmp_path / "work")
    options = ("--kernel", "6.18", "--fail", f"mremap:ENOMEM@{when}")
    assert guest_mremaps(software.argv, tmp_path, options, **how) == (expected, calls)


@each
def test_memory_that_always_moves(software: Software, tmp_path: Path) -> None:
    """Nobody keeps an address of before a call that could have moved."""
    expected, calls = native_mremaps(software.argv, tmp_path, **software.start(tmp_path / "work"))
    options = ("--kernel", "6.18", "--limit", "always_move")
    how = software.start(tmp_path / "work")
    assert guest_mremaps(software.argv, tmp_path, options, **how) == (expected, calls)


@pytest.mark.parametrize(
    "argv",
    [
        ("mdb_stat", "-n", "-a", "-e", "data.mdb"),
        ("mdb_dump", "-n", "-a", "data.mdb"),
        ("mdb_copy", "-n", "-c", "data.mdb", "copy.mdb"),
    ],
    ids=lambda argv: argv[0],
)
def test_lmdb_reads_without_mremap(argv: tuple[str, ...], tmp_path: Path) -> None:
    """lmdb maps the whole of its map size at once; only the buffer of mdb_load is moved, by realloc."""
    require(("mdb_load", argv[0]))
    work = tmp_path / "work"
    fresh(work, environment)
    expected, calls = native_mremaps(argv, tmp_path, cwd=work)
    assert (expected.status, calls) == (0, [])
    fresh(work, environment)
    assert guest_mremaps(argv, tmp_path, cwd=work) == (expected, [])


def test_lmdb_maps_anew_to_grow(tmp_path: Path) -> None:
    """mdb_env_set_mapsize of an open environment: munmap and mmap."""
    if not Path("/usr/lib/x86_64-linux-gnu/liblmdb.so.0").exists():
        pytest.skip(f"{NOT_INSTALLED}liblmdb.so.0")
    argv = ("/usr/bin/python3", "-IS", str(WORKLOADS / "mapsize.py"))
    work = tmp_path / "work"
    fresh(work, nothing)
    expected, calls = native_mremaps(argv, tmp_path, cwd=work)
    assert (expected.status, calls) == (0, [])
    assert expected.stdout.count("map made larger") == 2
    fresh(work, nothing)
    assert guest_mremaps(argv, tmp_path, cwd=work) == (expected, [])


def test_python_cannot_resize_what_is_advised_in_part(tmp_path: Path) -> None:
    argv = ("/usr/bin/python3", "-IS", str(WORKLOADS / "advise.py"), "keep")
    expected, calls = native_mremaps(argv, tmp_path, cwd=tmp_path)
    assert expected.status == 1
    assert expected.stderr.endswith("OSError: [Errno 14] Bad address\n")
    assert [call.error for call in calls] == ["EFAULT"]
    for kernel in ("2.6.7", "6.18"):
        assert guest_mremaps(argv, tmp_path, ("--kernel", kernel), cwd=tmp_path) == (expected, calls)


def test_a_database_without_memory_mapping_makes_no_calls(tmp_path: Path) -> None:
    """What sqlite3 does unless it is asked: it reads and writes."""
    software = next(software for software in SOFTWARE if software.name == "sqlite3")
    how = software.start(tmp_path / "work")
    how["stdin"] = "".join(line for line in how["stdin"].splitlines(keepends=True) if "mmap_size" not in line)
    result, calls = guest_mremaps(software.argv, tmp_path, **how)
    assert (result.status, calls) == (0, [])
    assert result.stdout.endswith("ok\n")
