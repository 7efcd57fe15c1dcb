"""hello with bytes of its headers changed at random: refused, killed or run exactly as the host's kernel does it.

A shell starts many of them, natively and under pagewalk; its messages and their exit statuses must agree.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.guest.harness import IMAGES, Case, compare

HEADERS = 64 + 5 * 56
"""The ELF header and the program headers of hello."""
ELF_CLASS = 4
"""Linux looks at the machine only; we refuse a file of the wrong class."""
HUGE = {64 + n * 56 + 40 + byte for n in range(5) for byte in (3, 4)}
"""Bytes of sizes in memory that would ask for gigabytes: whether there is room depends on the machine."""
POSITIONS = sorted(set(range(HEADERS)) - {ELF_CLASS} - HUGE)
INTERESTING = (0, 1, 2, 3, 5, 7, 0x10, 0x40, 0x7F, 0x80, 0xFF)


def mutant(seed: int) -> bytes:
    rnd = random.Random(seed)
    content = bytearray((IMAGES / "hello").read_bytes())
    for _ in range(rnd.choice((1, 1, 1, 2, 3))):
        at = rnd.choice(POSITIONS)
        content[at] = rnd.choice(INTERESTING) if rnd.random() < 0.6 else rnd.randrange(256)
    if rnd.random() < 0.1:
        del content[rnd.randrange(len(content)) :]
    return bytes(content)


def case(seeds: range) -> Case:
    def prepare(work: Path) -> None:
        for seed in seeds:
            path = work / f"mutant-{seed:04d}"
            path.write_bytes(mutant(seed))
            path.chmod(0o755)

    script = 'for m in mutant-*; do echo "$m"; ./$m 2>&1; echo "status $?"; done'
    return Case(f"mutants {seeds}", ("/bin/dash", "-c", script), prepare=prepare, timeout_seconds=300)


@pytest.mark.parametrize("first", range(0, 150, 50))
def test_mutants(first: int, tmp_path: Path) -> None:
    compare(case(range(first, first + 50)), tmp_path / "work")


@pytest.mark.proof
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_more_mutants(first: int, tmp_path: Path) -> None:
    compare(case(range(first, first + 100)), tmp_path / "work")
