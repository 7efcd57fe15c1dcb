"""Random system calls with half-right arguments: the guest may fail, pagewalk may not.

``images/fuzz`` forks children that call at random; each may end as it likes.  pagewalk must come to the end, the host's
files must be as they were, and the same seed must give the same run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.harness import IMAGES, Result, native, pagewalk, snapshot

LEFT_BEHIND = ("/tmp/fuzz-a", "/tmp/fuzz-b", "/tmp/fuzz-dir", "/tmp/link", "/dev/shm/x")
"""Paths that the program uses: none may appear on the host."""


def fuzz(work: Path, seed: int, children: int, calls: int, *options: str) -> Result:
    argv = [str(IMAGES / "fuzz"), "--in-an-emulator", str(seed), str(children), str(calls)]
    return pagewalk(argv, ("-q", "--ram", "16M", *options), cwd=work, timeout_seconds=600)


def survives(work: Path, seed: int, children: int, calls: int, *options: str) -> None:
    (work / "file").write_text("untouched\n")
    before = snapshot(work), [Path(path).exists() for path in LEFT_BEHIND]
    result = fuzz(work, seed, children, calls, *options)
    assert result == Result(0, f"survived {children} children\n", ""), f"seed {seed}"
    assert (snapshot(work), [Path(path).exists() for path in LEFT_BEHIND]) == before


@pytest.mark.parametrize("seed", range(1, 6))
def test_random_calls(seed: int, tmp_path: Path) -> None:
    survives(tmp_path, seed, 20, 60)


def test_random_calls_recounted(tmp_path: Path) -> None:
    survives(tmp_path, 7, 6, 40, "--check")


@pytest.mark.parametrize("kernel", ["2.6.6", "2.6.6-anonmm", "6.18"])
def test_random_calls_on_other_kernels(kernel: str, tmp_path: Path) -> None:
    survives(tmp_path, 8, 10, 40, "--kernel", kernel, "--swap", "4M")


def test_the_same_seed_is_the_same_run(tmp_path: Path) -> None:
    stats = [tmp_path / "first.json", tmp_path / "second.json"]
    for path in stats:
        assert fuzz(tmp_path, 9, 15, 60, f"--stats={path}").status == 0
    assert stats[0].read_bytes() == stats[1].read_bytes()


def test_it_does_nothing_natively() -> None:
    result = native([str(IMAGES / "fuzz"), "1"])
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: fuzz --in-an-emulator")


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(1000, 1040))
def test_more_random_calls(seed: int, tmp_path: Path) -> None:
    survives(tmp_path, seed, 40, 80, "--check" if seed % 8 == 0 else "--swap=4M")
