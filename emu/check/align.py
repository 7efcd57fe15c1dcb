"""Which mremap of one run is the same as which of another.

Tasks are matched by the order of forks, calls within a task by their place in the program and their arguments, without
changing their order: what one run repeats, retries or leaves out has no partner.

The best line-up is found by dynamic programming (Needleman and Wunsch 1970) over what differs; equal calls at the
beginning and the end are taken first, so that two runs that do the same cost nothing.  Where too many calls differ for
that, the n-th call of each place is matched with the n-th of the same place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from emu.check.model import Call, Run

MAX_CELLS = 1_000_000
"""Of the table of the best line-ups; beyond it, calls are matched by number."""

_SAME_SITE, _SAME_FLAGS, _SAME_LENGTHS, _SAME_ADDRESS = 8, 2, 4, 1
Pairs = dict[int, int]
"""Numbers of calls (:attr:`Call.nr`): of this run, of the other."""


def align(ours: Run, theirs: Run) -> Pairs:
    """For each call of ``ours`` that has one, its partner in ``theirs``."""
    pairs: Pairs = {}
    left, right = _by_task(ours), _by_task(theirs)
    for task, calls in left.items():
        pairs.update(_align_task(calls, right.get(task, [])))
    return pairs


def _by_task(run: Run) -> dict[str, list[Call]]:
    tasks: defaultdict[str, list[Call]] = defaultdict(list)
    for call in run.calls:
        tasks[call.task].append(call)
    return tasks


def _align_task(ours: Sequence[Call], theirs: Sequence[Call]) -> Pairs:
    first = 0
    while first < min(len(ours), len(theirs)) and _is_equal(ours[first], theirs[first]):
        first += 1
    last = 0
    while last < min(len(ours), len(theirs)) - first and _is_equal(ours[-1 - last], theirs[-1 - last]):
        last += 1
    pairs = {ours[i].nr: theirs[i].nr for i in range(first)}
    pairs |= {ours[-1 - i].nr: theirs[-1 - i].nr for i in range(last)}
    middle, other = ours[first : len(ours) - last], theirs[first : len(theirs) - last]
    if len(middle) * len(other) > MAX_CELLS:
        return pairs | _by_number(middle, other)
    return pairs | _best(middle, other)


def _is_equal(mine: Call, other: Call) -> bool:
    return _likeness(mine, other) == _SAME_SITE + _SAME_FLAGS + _SAME_LENGTHS + _SAME_ADDRESS


def _likeness(mine: Call, other: Call) -> int:
    """0: never the same call; else the more, the likelier."""
    if site_key(mine) != site_key(other):
        return 0
    score = _SAME_SITE
    if mine.flags == other.flags:
        score += _SAME_FLAGS
    if (mine.old_len, mine.new_len) == (other.old_len, other.new_len):
        score += _SAME_LENGTHS
    if mine.addr == other.addr:
        score += _SAME_ADDRESS
    return score


def site_key(call: Call) -> str:
    """The place in the program, the same in every run."""
    return "?" if call.site is None else call.site.key


def _best(ours: Sequence[Call], theirs: Sequence[Call]) -> Pairs:
    """The line-up with the greatest likeness; of equal ones that with the earliest partners."""
    nr_rows, nr_columns = len(ours), len(theirs)
    # best[i][j]: of ours[i:] and theirs[j:]
    best = [[0] * (nr_columns + 1) for _ in range(nr_rows + 1)]
    for i in range(nr_rows - 1, -1, -1):
        row, below = best[i], best[i + 1]
        for j in range(nr_columns - 1, -1, -1):
            score = _likeness(ours[i], theirs[j])
            matched = score + below[j + 1] if score else 0
            row[j] = max(matched, below[j], row[j + 1])
    pairs: Pairs = {}
    i = j = 0
    while i < nr_rows and j < nr_columns:
        score = _likeness(ours[i], theirs[j])
        if score and best[i][j] == score + best[i + 1][j + 1]:
            pairs[ours[i].nr] = theirs[j].nr
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _by_number(ours: Sequence[Call], theirs: Sequence[Call]) -> Pairs:
    waiting: defaultdict[str, list[Call]] = defaultdict(list)
    for call in reversed(theirs):
        waiting[site_key(call)].append(call)
    pairs: Pairs = {}
    for call in ours:
        partners = waiting[site_key(call)]
        if partners:
            pairs[call.nr] = partners.pop().nr
    return pairs
