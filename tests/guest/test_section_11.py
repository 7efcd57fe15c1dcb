"""The programs that tell the policies apart (RMAP.md section 11), as a real program under every kernel.

All of them run in one ``vmscript`` per kernel, each in a forked child, which starts with an empty arena.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from tests.guest.harness import IMAGES, pagewalk

KERNELS = ["2.6.6", "2.6.6-anonmm", "2.6.6-rmap39", "2.6.5-aa", "2.6.7", "one-anon-vma", "6.1", "6.18"]
"""In the order of the table's columns: A B C D E F G1 G2."""

N = 12
"""How many pages P1 uses."""


def p1(pages: Sequence[int]) -> str:
    return " ".join(f"m:{i}:1:rw w:{i} p:{i}:1:r" for i in pages)


PROGRAMS: dict[str, tuple[str, list[int]]] = {
    "P1": (p1(range(N)), [1, 1, N, 1, 1, 1, 1, 1]),
    "P1 down": (p1(range(N - 1, -1, -1)), [1, 1, N, 1, 1, 1, 1, 1]),
    "P2": (
        "m:0:2:r m:2:2:rw " + " ".join(f"p:{i}:1:rw w:{i} p:{i}:1:r" for i in range(4)),
        [1, 1, 2, 2, 1, 1, 1, 1],
    ),
    "P3": ("m:0:1:rw m:1:1:rwx w:0 w:1 p:1:1:rw", [1, 1, 2, 2, 1, 1, 1, 1]),
    "P4": ("m:0:2:rw p:1:1:rwx w:0 w:1 p:1:1:rw", [1, 1, 2, 2, 1, 1, 1, 1]),
    "P5": ("m:0:4:rw p:1:1:r w:0 w:2 p:1:1:rw", [1, 1, 2, 2, 2, 1, 2, 2]),
    "P5b": ("m:0:4:rw w:1 p:1:1:r w:0 w:2 p:1:1:rw", [1] * 8),
    "P6": ("m:0:1:rw w:0 m:2:1:rw w:2 m:1:1:rw", [1, 1, 2, 2, 2, 1, 2, 2]),
    "P6b": ("m:0:3:rw w:0 u:1:1 w:2 m:1:1:rw", [1] * 8),
    "P8": ("m:0:3:rw w:0 w:1 w:2 v:1:1:1:MF:50 v:50:1:1:MF:1", [1] * 8),
    "P8b": ("m:0:1:rw w:0 m:60:1:rw w:60 v:60:1:1:MF:1", [1, 1, 2, 2, 2, 2, 2, 2]),
    "P8c": ("m:0:1:rw w:0 m:60:1:rw v:60:1:1:MF:1", [1] * 8),
    "P9": ("m:0:1:rw w:0 f{ p:0:1:r m:1:1:rw w:1 p:1:1:r M f}", [1, 1, 2, 1, 1, 1, 2, 2]),
    "P10": ("m:0:1:rw m:1:1:rwx w:1 p:1:1:rw", [1, 1, 1, 1, 1, 1, 2, 1]),
    "P12": ("m:0:1:rw:N m:1:1:rw w:0 w:1", [2] * 8),
    "P13": ("m:0:1:rw m:1:1:rwx m:2:1:rw m:3:1:rwx w:0 w:1 w:2 w:3 p:0:4:rw", [2, 1, 4, 4, 1, 1, 1, 1]),
    "P14": ("m:0:3:rw:F p:1:1:r p:1:1:rw", [3, 1, 1, 1, 1, 1, 1, 1]),
}

SHAPES = {
    ("P2", "2.6.6-rmap39"): "0+1r--p 1+3r--p",
    ("P2", "2.6.5-aa"): "0+1r--p 1+3r--p",
    ("P5", "2.6.7"): "0+2rw-p 2+2rw-p",
    ("P6", "2.6.7"): "0+2rw-p 2+1rw-p",
}

# A whole range of one area, of two that cannot merge, and one with a hole at its end; each followed by M.
ONE, TWO, HOLE = "m:0:4:rw w:0", "m:0:2:rw m:2:2:r w:0", "m:0:2:rw w:0"
REMAPS: dict[str, tuple[str, dict[str, str]]] = {
    "grow one": (f"{ONE} v:0:4:5:MF:100", {"2.6": "@100", "6.1": "@100", "6.17": "@100"}),
    "grow two": (f"{TWO} v:0:4:5:M", {"2.6": "EFAULT", "6.1": "EFAULT", "6.17": "EFAULT"}),
    "move one": (f"{ONE} v:0:4:4:MF:100", {"2.6": "@100", "6.1": "@100", "6.17": "@100"}),
    "move two": (f"{TWO} v:0:4:4:MF:100", {"2.6": "EFAULT", "6.1": "EFAULT", "6.17": "@100"}),
    "same place": (f"{TWO} v:0:4:4:M", {"2.6": "@0", "6.1": "@0", "6.17": "@0"}),
    "shrink": (f"{TWO} v:0:4:1:M", {"2.6": "@0", "6.1": "@0", "6.17": "@0"}),
    "shrink and move": (f"{TWO} v:0:4:1:MF:100", {"2.6": "@100", "6.1": "@100", "6.17": "@100"}),
    "grow in place": (f"{TWO} v:0:4:5:-", {"2.6": "EFAULT", "6.1": "EFAULT", "6.17": "EFAULT"}),
    "hole": (f"{HOLE} v:0:4:4:MF:100", {"2.6": "EFAULT", "6.1": "EFAULT", "6.17": "@100"}),
    "hole at the start": ("m:1:2:rw w:1 v:0:4:4:MF:100", {"2.6": "EFAULT", "6.1": "EFAULT", "6.17": "EFAULT"}),
}
RULES = {"6.1": "6.1", "6.18": "6.17"}


def run_all(kernel: str, scripts: list[str]) -> list[list[str]]:
    """The output of each script, run in a child of its own, with the areas at its end."""
    blocks = [f"f{{ {script} M u:9999:1 f}}" for script in scripts]
    result = pagewalk([str(IMAGES / "vmscript"), *blocks], ("--kernel", kernel))
    assert (result.status, result.stderr) == (0, ""), result
    outputs = re.split(r"u:9999:1 ok\nchild exit 0\n", result.stdout)
    assert len(outputs) == len(scripts) + 1
    return [output.splitlines() for output in outputs[:-1]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_areas(kernel: str) -> None:
    column = KERNELS.index(kernel)
    outputs = run_all(kernel, [script for script, _ in PROGRAMS.values()])
    counts = {}
    for name, lines in zip(PROGRAMS, outputs, strict=True):
        # P9's own areas line is its child's, which is printed before the parent's
        areas = next(line for line in (lines if name == "P9" else reversed(lines)) if line.startswith("areas"))
        counts[name] = len(areas.split()) - 1
        if (name, kernel) in SHAPES:
            assert areas == f"areas {SHAPES[name, kernel]}", name
    assert counts == {name: expected[column] for name, (_, expected) in PROGRAMS.items()}


@pytest.mark.parametrize("kernel", ["2.6.6", "2.6.7", "6.1", "6.18"])
def test_mremap_over_the_whole_range(kernel: str) -> None:
    rules = RULES.get(kernel, "2.6")
    outputs = run_all(kernel, [script for script, _ in REMAPS.values()])
    results = {name: lines[-2].split()[1] for name, lines in zip(REMAPS, outputs, strict=True)}
    assert results == {name: expected[rules] for name, (_, expected) in REMAPS.items()}


@pytest.mark.parametrize(
    ("kernel", "result"),
    [("2.6.6-rmap39", "EFAULT"), ("2.6.5-aa", "EFAULT"), ("2.6.7", "ok"), ("6.18", "ok")],
)
def test_the_story_of_the_patch(kernel: str, result: str) -> None:
    """Hugh's second program ends with an mremap that works only where all four pages became one area."""
    lines = pagewalk([str(IMAGES / "p2")], ("--kernel", kernel)).stdout.splitlines()
    assert lines[-2:] == [f"mremap of the whole range to one page more: {result}", "data 1 2 3 4"]


def test_the_first_program_with_many_pages() -> None:
    """One area where written areas merge, as many as pages where they do not."""
    one = pagewalk([str(IMAGES / "p1"), "2000"], ("--kernel", "2.6.7")).stdout
    many = pagewalk([str(IMAGES / "p1"), "2000"], ("--kernel", "2.6.6-rmap39")).stdout
    assert one.splitlines()[1] == "areas 1"
    assert many.splitlines()[1] == "areas 2000"
