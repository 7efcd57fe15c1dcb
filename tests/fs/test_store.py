"""The pages of a file in memory: what fallocate takes, gives back and refuses."""

from __future__ import annotations

from kernel.fs.store import FileStore, Space


def test_allocation_is_all_or_nothing() -> None:
    space = Space(100)
    store = FileStore(space)
    assert store.reserve(0, 9) == 10
    assert store.allocate(5, 1 << 40) == 0, "more than there is: nothing is taken, at once"
    assert (space.used, store.nr_pages) == (10, 10)
    assert store.allocate(5, 99) == 95
    assert (space.used, store.nr_pages) == (100, 100)
    assert store.allocate(100, 100) == 0


def test_allocated_pages_are_no_data_until_written() -> None:
    store = FileStore(Space(100))
    store.reserve(0, 3)
    assert store.allocate(2, 6) == 5
    assert [store.is_data(pgoff) for pgoff in range(8)] == [True] * 4 + [False] * 4
    assert store.allocate(5, 6) == 2, "twice is no matter"
    assert not store.is_data(5)
    store.reserve(5, 5)
    assert store.is_data(5)
