"""Tracing costs less than three percent when nobody asked for it, counted in bytecodes: the same in every run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.off_is_free import LIMIT_PERCENT, ROWS, bytecodes, copy_tree


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("trees")
    assert copy_tree(directory / "with", strip=False) == 0
    assert copy_tree(directory / "without", strip=True) > 40
    return directory / "with", directory / "without"


@pytest.mark.parametrize("row", ["getppid", "first touch", "hello"])
def test_tracepoints_that_are_off(row: str, trees: tuple[Path, Path]) -> None:
    argv, _ = ROWS[row]
    with_points, without = (bytecodes(tree, argv) for tree in trees)
    assert without < with_points < without * (1 + LIMIT_PERCENT / 100)
