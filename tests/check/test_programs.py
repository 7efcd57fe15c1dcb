"""The programs of ``userland/remap_*.c``: each does natively what it does here, and has the verdict that was foreseen.

The verdicts were worked out from the rules of the kernels (the head of each source says how) before the tool was asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.check.oracle import guest_mremaps, native_mremaps
from tests.guest.harness import IMAGES, ROOT, Result, pagewalk

KERNELS = ("2.6.6", "2.6.6-anonmm", "2.6.6-rmap39", "2.6.5-aa", "2.6.7", "one-anon-vma", "6.1", "6.18")
OLD_MREMAP = KERNELS[:6]


@dataclass(frozen=True)
class Program:
    name: str
    args: tuple[str, ...] = ()
    copes: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    """On all other kernels it is safe."""
    refused_everywhere: bool = False
    """The call fails on every kernel alike: the program's own affair, and safe."""
    call: str = "the call"
    """The comment on the line of the call that fails."""
    function: str = "main"
    error: str = "EFAULT"
    reason: str = "range spans areas"
    boundary: str | None = None
    saved_by: frozenset[str] | None = None
    """Changes of the rules that make the call work wherever it fails and is not made by these rules already; None: not
    asked, to save time."""

    @property
    def argv(self) -> list[str]:
        return [str(IMAGES / self.name), *self.args]

    @property
    def source(self) -> str:
        return f"userland/{self.name}.c"

    def line_of(self, comment: str) -> int:
        lines = (ROOT / self.source).read_text().splitlines()
        [found] = [number for number, line in enumerate(lines, 1) if f"/* {comment} */" in line]
        return found

    def verdict(self, kernel: str) -> str:
        return "breaks" if kernel in self.breaks else "copes" if kernel in self.copes else "safe"


PROGRAMS = [
    Program("remap_realloc"),
    Program(
        "remap_arena",
        copes=("2.6.6-rmap39", "2.6.5-aa", "2.6.7", "6.1", "6.18"),
        function="grow",
        boundary="anon_vma",
        saved_by=frozenset(("anonmm", "split-at-boundary")),
    ),
    Program("remap_ring"),
    Program("remap_db"),
    Program("remap_semispace"),
    Program(
        "remap_compact",
        copes=OLD_MREMAP,
        function="lift_out",
        error="EINVAL",
        reason="flag other than MREMAP_MAYMOVE and MREMAP_FIXED",
    ),
    Program("remap_guard"),
    Program(
        "remap_guard",
        ("whole",),
        refused_everywhere=True,
        call="the whole",
        function="grow_whole",
        boundary="flags",
    ),
    Program(
        "remap_merged",
        breaks=("2.6.6-rmap39",),
        boundary="anon_vma",
        saved_by=frozenset(("rmap40-sharing", "anonmm", "split-at-boundary")),
    ),
    Program(
        "remap_jit",
        breaks=("2.6.6-rmap39", "2.6.5-aa"),
        function="grow",
        boundary="anon_vma",
        saved_by=frozenset(("rmap40-sharing", "anonmm", "split-at-boundary")),
    ),
    Program(
        "remap_toomuch",
        breaks=tuple(kernel for kernel in KERNELS if kernel not in ("2.6.6", "2.6.6-anonmm")),
        boundary="pgoff",
        saved_by=frozenset(("anonmm", "split-at-boundary")),
    ),
    Program("remap_multi", breaks=KERNELS[:7], boundary="flags", saved_by=frozenset(("multi-area-mremap",))),
    Program("remap_multi", ("pieces",), copes=KERNELS[:7], boundary="flags"),
]
by_name = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: " ".join((program.name, *program.args)))


def check(argv: list[str], *options: str) -> tuple[Result, dict[str, Any]]:
    result = pagewalk(argv, ("mremap", "--json", *options), verb="check")
    assert result.stderr == ""
    report: dict[str, Any] = json.loads(result.stdout)
    return result, report


@by_name
def test_verdicts(program: Program) -> None:
    result, report = check(program.argv, *(["--no-rescue"] if program.saved_by is None else []))
    assert {run["kernel"]: run["verdict"] for run in report["runs"]} == {k: program.verdict(k) for k in KERNELS}
    assert report["verdict"] == ("breaks" if program.breaks else "safe")
    assert result.status == (1 if program.breaks else 0)
    assert all(not run["unimplemented"] and run["error"] is None for run in report["runs"])

    if program.refused_everywhere:
        assert [(finding["everywhere"], finding["works_on"]) for finding in report["findings"]] == [(True, [])]
    else:
        failing = {run["kernel"] for finding in report["findings"] for run in finding["fails_on"]}
        assert failing == {*program.copes, *program.breaks}
    for finding in report["findings"]:
        site = finding["site"]
        assert (site["file"], site["line"]) == (program.source, program.line_of(program.call))
        assert site["function"] == program.function
        assert (finding["error"], finding["reason"]) == (program.error, program.reason)
        assert (finding["boundary"] and finding["boundary"]["reason"]) == program.boundary
        for where in finding["fails_on"]:
            tried = {rescue["way"]: rescue["result"] for rescue in where["rescues"]}
            in_force = {way for way, found in tried.items() if found == "in force already"}
            works = {way for way, found in tried.items() if found == "works"}
            assert works == (program.saved_by or set()) - in_force


@by_name
def test_same_as_native(program: Program, tmp_path: Path) -> None:
    """Linux 6.18 here and the host's kernel: the same output, the same calls, the same errors."""
    expected, calls = native_mremaps(program.argv, tmp_path, cwd=tmp_path)
    assert calls
    assert guest_mremaps(program.argv, tmp_path, ("--kernel", "6.18"), cwd=tmp_path) == (expected, calls)


@pytest.mark.parametrize("limit", ["always_move", "never_grow_in_place", "no_move_after_fork"])
def test_programs_that_only_need_memory_survive_other_habits_of_mremap(limit: str) -> None:
    result, report = check([str(IMAGES / "remap_realloc")], "--kernels", "2.6.7", "--limit", limit)
    assert (result.status, report["verdict"]) == (0, "safe")


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("remap_realloc", "copes"),
        ("remap_arena", "copes"),
        ("remap_db", "copes"),
        ("remap_ring", "breaks"),
        ("remap_semispace", "breaks"),
        ("remap_compact", "breaks"),
        ("remap_guard", "breaks"),
        ("remap_merged", "breaks"),
        ("remap_jit", "breaks"),
    ],
)
def test_a_refused_call(name: str, verdict: str) -> None:
    """No memory for the first call: who has another way?"""
    options = ("--no-rescue", "--kernels", "one-anon-vma", "--fail", "mremap:ENOMEM@1")
    result, report = check([str(IMAGES / name)], *options)
    assert {run["verdict"] for run in report["runs"] if run["injected"]} == {verdict}
    assert result.status == (1 if verdict == "breaks" else 0)
