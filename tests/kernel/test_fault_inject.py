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


def test_what_never_happened_is_told() -> None:
    points = FailPoints(["mremap:EFAULT@3", "brk:ENOMEM@2..", "mremap:EIO@1", "mremap:EPERM@1", "alloc:1"])
    for _ in range(2):
        points.error_at("mremap")
    assert points.unmade() == [
        "--fail mremap:EFAULT@3 never happened: mremap was called 2 times",
        "--fail brk:ENOMEM@2.. never happened: brk was never called",
        "--fail mremap:EPERM@1 never happened: another --fail mremap: came first",
        "--fail alloc:1 never happened: a page was never allocated",
    ]


def test_errors_and_report() -> None:
    points = FailPoints(["mremap:EFAULT@2", "mremap:ENOMEM@4", "alloc:1"])
    assert [points.error_at("mremap") for _ in range(4)] == [0, Errno.EFAULT, 0, Errno.ENOMEM]
    assert points.error_at("alloc") == Errno.ENOMEM
    assert points.injected == [("mremap", 2, Errno.EFAULT), ("mremap", 4, Errno.ENOMEM), ("alloc", 1, Errno.ENOMEM)]
    assert points.nr_made == {"mremap:EFAULT@2": 1, "mremap:ENOMEM@4": 1, "alloc:1": 1}
    assert points.unmade() == []
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
        "mremapp:EFAULT@3",
        "mremap:ENOMEM@",
        "mremap:ENOMEM@1...3",
        "mremap:ENOMEM@-1",
        "MREMAP:ENOMEM@1",
        "syscall_400:ENOMEM@1",
        "-:ENOMEM@1",
        "alloc:EIO@1",
        "swap-read:ENOMEM@1",
        "a b:E@1",
    ],
)
def test_mistakes_are_explained(spec: str) -> None:
    with pytest.raises(ValueError, match="--fail"):
        FailPoints([spec])
