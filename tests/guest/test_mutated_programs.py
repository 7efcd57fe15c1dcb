"""hello with bytes of its headers changed at random: refused, killed or run exactly as the host's kernel does it."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.guest.harness import IMAGES, Result, native, pagewalk

HEADERS = 64 + 5 * 56
"""The ELF header and the program headers of hello."""
INTERESTING = (0, 1, 2, 3, 5, 7, 0x10, 0x40, 0x7F, 0x80, 0xFF)


def mutant(seed: int) -> bytes:
    rnd = random.Random(seed)
    content = bytearray((IMAGES / "hello").read_bytes())
    for _ in range(rnd.choice((1, 1, 1, 2, 3))):
        at = rnd.randrange(HEADERS)
        content[at] = rnd.choice(INTERESTING) if rnd.random() < 0.6 else rnd.randrange(256)
    if rnd.random() < 0.1:
        del content[rnd.randrange(len(content)) :]
    return bytes(content)


def on_the_host(path: Path) -> Result:
    try:
        return native([str(path)], cwd=path.parent)
    except OSError:
        return Result(126, "", "")
    except subprocess.SubprocessError as error:  # killed inside execve, before Python's report came through
        return Result(139, "", str(error))


def check(seed: int, path: Path) -> None:
    path.write_bytes(mutant(seed))
    path.chmod(0o755)
    expected = on_the_host(path)
    got = pagewalk([str(path)], ("-q",), cwd=path.parent)
    assert (got.status, got.stdout) == (expected.status, expected.stdout), f"seed {seed}: {got}"
    assert "internal error" not in got.stderr


@pytest.mark.parametrize("first", range(0, 24, 6))
def test_mutants(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 6):
        check(seed, tmp_path / "mutant")


@pytest.mark.proof
@pytest.mark.parametrize("first", range(1000, 1500, 50))
def test_more_mutants(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 50):
        check(seed, tmp_path / "mutant")
