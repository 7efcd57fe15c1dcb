"""Lining calls up: what is the same call in two runs is for a reader to see, so the examples are small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emu.check.align import align
from emu.check.model import Call, Chain, Frame, Run


def call(nr: int, line: int, *, task: str = "1", lengths: tuple[int, int] = (4096, 8192), addr: int = 0x1000) -> Call:
    frame = Frame("main", 0, "/bin/prog", "prog.c", line, 0x400000)
    return Call(nr, task, 2, "prog", addr, *lengths, 1, 0, "", Chain((frame,), 0))


def run(*calls: Call) -> Run:
    return Run(list(calls), len(calls))


def test_equal_runs() -> None:
    calls = [call(1, 10), call(2, 20), call(3, 10)]
    assert align(run(*calls), run(*calls)) == {1: 1, 2: 2, 3: 3}


def test_a_retry_has_no_partner() -> None:
    """The call itself goes with the reference's, not the retry, which asks for less."""
    ours = run(call(1, 10, lengths=(4096, 8192)), call(2, 10, lengths=(4096, 6000)), call(3, 30))
    assert align(ours, run(call(1, 10), call(2, 30))) == {1: 1, 3: 2}


def test_a_call_left_out() -> None:
    assert align(run(call(1, 10), call(2, 30)), run(call(1, 10), call(2, 20), call(3, 30))) == {1: 1, 2: 3}


def test_order_is_kept() -> None:
    pairs = align(run(call(1, 10), call(2, 20)), run(call(1, 20), call(2, 10)))
    assert len(pairs) == 1


def test_other_addresses_and_lengths_are_still_the_same_place() -> None:
    ours = run(call(1, 10, addr=0x9000, lengths=(4096, 12288)), call(2, 20))
    assert align(ours, run(call(1, 10), call(2, 20))) == {1: 1, 2: 2}


def test_the_likelier_partner_wins() -> None:
    ours = run(call(1, 10, lengths=(8192, 16384)))
    theirs = run(call(1, 10, lengths=(4096, 8192)), call(2, 10, lengths=(8192, 16384)))
    assert align(ours, theirs) == {1: 2}


def test_tasks_are_apart() -> None:
    ours = run(call(1, 10, task="1.1"), call(2, 10, task="1"))
    assert align(ours, run(call(1, 10, task="1"), call(2, 10, task="1.1"))) == {1: 2, 2: 1}
    assert align(ours, run(call(1, 10, task="1.2"))) == {}


def test_too_many_calls_are_matched_by_number() -> None:
    """1500 different calls on either side: the n-th of each place goes with the n-th."""
    ours = run(*(call(n, 10 + n % 2, lengths=(4096, 4096 * n)) for n in range(1, 1501)))
    theirs = run(*(call(n, 10 + n % 2, lengths=(8192, 4096 * n)) for n in range(1, 1501)))
    assert align(ours, theirs) == {n: n for n in range(1, 1501)}


SITES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2)), max_size=8)


@given(SITES, SITES)
def test_pairs_keep_order_and_place(mine: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    ours = run(*(call(n, line, lengths=(4096, size)) for n, (line, size) in enumerate(mine, start=1)))
    theirs = run(*(call(n, line, lengths=(4096, size)) for n, (line, size) in enumerate(other, start=1)))
    pairs = sorted(align(ours, theirs).items())
    partners = [partner for _, partner in pairs]
    assert partners == sorted(set(partners))
    assert all(mine[left - 1][0] == other[right - 1][0] for left, right in pairs)
    has_common_place = bool({line for line, _ in mine} & {line for line, _ in other})
    assert bool(pairs) == has_common_place
