"""--fail: which time a point fails."""

from __future__ import annotations

import pytest

from kernel.abi.errno import Errno
from kernel.fault_inject import FailPoints


def failing(spec: str, point: str, nr_times: int = 12) -> list[int]:
    points = FailPoints([spec])
    return [i for i in range(1, nr_times + 1) if points.should_fail(point)]


@pytest.mark.parametrize(
    ("spec", "point", "times"),
    [
        ("alloc:3", "alloc", [3]),
        ("alloc:10..", "alloc", [10, 11, 12]),
        ("swap-io:2..4", "swap-io", [2, 3, 4]),
        ("swap-io:every5", "swap-io", [5, 10]),
        ("mremap:EFAULT@3", "mremap", [3]),
        ("mmap:ENOMEM@11..", "mmap", [11, 12]),
        ("alloc:3", "swap-io", []),
    ],
)
def test_times(spec: str, point: str, times: list[int]) -> None:
    assert failing(spec, point) == times


def test_every_time() -> None:
    assert failing("brk:ENOMEM@every", "brk", 3) == [1, 2, 3]


def test_errors_and_report() -> None:
    points = FailPoints(["mremap:EFAULT@2", "mremap:ENOMEM@4", "alloc:1"])
    assert [points.error_at("mremap") for _ in range(4)] == [0, Errno.EFAULT, 0, Errno.ENOMEM]
    assert points.error_at("alloc") == Errno.ENOMEM
    assert points.report() == ["mremap: EFAULT at time 2", "mremap: ENOMEM at time 4", "alloc: ENOMEM at time 1"]
    assert points.counts == {"mremap": 4, "alloc": 1}
    assert points.watches("mremap") and not points.watches("mmap")


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "alloc",
        "alloc:",
        "alloc:x",
        "alloc:0",
        "alloc:5..3",
        "alloc:every0",
        "mremap:3",
        "mremap:EWHAT@3",
        "a b:E@1",
    ],
)
def test_mistakes_are_explained(spec: str) -> None:
    with pytest.raises(ValueError, match="--fail"):
        FailPoints([spec])
