"""Backtraces of running guests: the chains that the source of the program says."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emu.machine import Machine, MachineConfig
from emu.trace.locate import CodePlace, Locator
from emu.unwind import MAX_FRAMES, Unwinder
from kernel.trace import tracepoints

PROGRAMS = Path(__file__).parent / "programs"
IMAGES = Path(__file__).parents[2] / "images"
SOURCE = PROGRAMS / "chain.c"

VARIANTS = {
    "O0": ["-O0"],
    "O2 without frame pointers": ["-O2", "-fomit-frame-pointer"],
    "static": ["-O2", "-static"],
    "no pie": ["-O1", "-no-pie"],
    "debug_frame": ["-O2", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"],
}


@contextmanager
def at_calls(machine: Machine, found: dict[str, list[list[CodePlace]]]) -> Iterator[None]:
    """Take a backtrace at the entry of every system call, by name."""
    unwinder = Unwinder(Locator(machine.kernel))
    (point,) = (point for point in tracepoints("syscalls:") if point.name == "syscalls:sys_enter")

    def probe(_point: Any, values: tuple[Any, ...]) -> None:
        named = dict(zip(point.fields, values, strict=True))
        found.setdefault(named["spec"].name, []).append(unwinder.backtrace(named["task"]))

    point.attach(probe)
    try:
        yield
    finally:
        point.detach(probe)


def backtraces(*argv: str) -> dict[str, list[list[CodePlace]]]:
    found: dict[str, list[list[CodePlace]]] = {}
    machine = Machine(MachineConfig())
    with at_calls(machine, found):
        machine.spawn(list(argv))
        assert machine.run() == 0
    machine.close()
    return found


def names(frames: list[CodePlace]) -> list[str]:
    return [frame.symbol.name if frame.symbol is not None else "?" for frame in frames]


def line_of(mark: str) -> int:
    lines = SOURCE.read_text().splitlines()
    (found,) = (number for number, line in enumerate(lines, start=1) if f"/* line: {mark}" in line)
    return found


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def chains(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc")
    program = tmp_path_factory.mktemp("chain") / "chain"
    subprocess.run(
        ["gcc", "-g", "-fno-ipa-icf", *request.param, "-o", program, SOURCE], check=True, capture_output=True
    )
    return backtraces(str(program))


def test_callers_of_mremap(chains: dict[str, Any]) -> None:
    (frames,) = chains["mremap"]
    inner = names(frames)
    assert inner[1:3] == ["innermost", "with_alloca"]
    assert inner[0] in ("mremap", "__mremap")
    depth = inner.count("recursive")  # an optimising compiler may make a loop of it
    assert 1 <= depth <= 4
    assert inner[3 + depth] == "main"
    lines = {name: frame.source.line for name, frame in zip(inner, frames, strict=True) if frame.source is not None}
    assert lines["innermost"] == line_of("innermost") and lines["with_alloca"] == line_of("with_alloca")


def test_through_a_signal_to_what_it_interrupted(chains: dict[str, Any]) -> None:
    frames = next(frames for frames in chains["write"] if "on_ill" in names(frames))
    inner = names(frames)
    at = inner.index("on_ill")
    assert inner[at + 2 : at + 4] == ["interrupted", "main"], inner
    assert frames[at + 2].source is not None and frames[at + 2].source.line == line_of("interrupted")


def test_through_a_library(chains: dict[str, Any]) -> None:
    frames = next(frames for frames in chains["write"] if "compare" in names(frames))
    inner = names(frames)
    at = inner.index("compare")
    assert frames[at].source is not None and frames[at].source.line == line_of("compare")
    assert "main" in inner[at + 1 :], inner


def test_every_backtrace_of_a_dynamic_program_ends_at_a_start() -> None:
    """The loader's or the program's own entry, which has no caller; both are stripped here."""
    for name, calls in backtraces("/bin/ls", "/").items():
        for frames in calls:
            assert len(frames) == MAX_FRAMES or (frames[-1].module or "").endswith(("/ls", "/ld-linux-x86-64.so.2")), (
                name,
                names(frames),
            )


def test_shipped_programs_have_debug_frame_only() -> None:
    (frames,) = backtraces(str(IMAGES / "p1"))["mremap"]
    assert names(frames)[-2:] == ["main", "_start"] or names(frames)[-1] == "main"
