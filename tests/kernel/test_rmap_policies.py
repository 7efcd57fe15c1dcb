"""What each policy keeps, whom it proposes, what it costs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from kernel.abi.mman import Madv
from kernel.mm.exit import mmput
from kernel.mm.fault import touch
from kernel.mm.fork import dup_mm
from kernel.mm.madvise import do_madvise
from kernel.mm.merge import VMA_MERGE
from kernel.mm.mprotect import do_mprotect
from kernel.mm.munmap import do_munmap
from kernel.mm.rmap.check import check_rmap
from kernel.mm.rmap.interval import IntervalIndex
from kernel.mm.rmap.policy import MERGE_REFUSED
from kernel.mm.rmap.scan import scan_all, scan_page
from kernel.mm.types import PAGE_SIZE, MmStruct, Vma
from kernel.trace import Tracepoint
from tests.kernel.fakes import check_kernel, make_kernel
from tests.kernel.script import Script
from tests.kernel.test_mmap import AT, FIXED, anon, make

PROFILES = ["2.6.6", "2.6.6-anonmm", "2.6.6-rmap39", "2.6.5-aa", "2.6.7", "one-anon-vma", "6.1", "6.18"]


def pfn_at(mm: MmStruct, vaddr: int) -> int:
    return mm.pt.get(vaddr) >> 12 & 0xFF_FFFF_FFFF


def write(mm: MmStruct, *pages: int) -> None:
    for page in pages:
        touch(mm, AT + page * PAGE_SIZE, write=True)


def proposals(kernel: Any, pfn: int) -> list[tuple[int, int]]:
    return [(proposal.mm.id, (proposal.vaddr - AT) // PAGE_SIZE) for proposal in kernel.policy.walk(pfn)]


@contextmanager
def listening(tracepoint: Tracepoint) -> Iterator[list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []

    def probe(source: Tracepoint, values: tuple[Any, ...]) -> None:
        records.append(dict(zip(source.fields, values, strict=True)))

    tracepoint.attach(probe)
    try:
        yield records
    finally:
        tracepoint.detach(probe)


# -- whom a walk proposes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_walk_finds_every_mapping(profile: str) -> None:
    kernel, mm = make(profile)
    anon(mm, 4, flags=FIXED, addr=AT)
    write(mm, 0, 1)
    children = [dup_mm(mm), dup_mm(mm)]
    kernel.mms += children
    write(children[0], 1, 2)
    shared, private = pfn_at(mm, AT), pfn_at(children[0], AT + PAGE_SIZE)
    assert sorted({mm_id for mm_id, _ in proposals(kernel, shared)}) == [m.id for m in kernel.mms]
    assert (children[0].id, 1) in proposals(kernel, private)
    assert {place.mm.id for place in scan_page(kernel, shared)} == {m.id for m in kernel.mms}
    assert check_rmap(kernel) == []


def test_lengths_of_walks() -> None:
    """A page private to one of k children: 1 entry for pte_chains and chains, k + 1 where a family shares."""
    nr_children = 5
    visited = {}
    for profile in PROFILES:
        kernel, mm = make(profile)
        anon(mm, 4, flags=FIXED, addr=AT)
        write(mm, 0)
        children = [dup_mm(mm) for _ in range(nr_children)]
        kernel.mms += children
        for child in children:
            write(child, 1)
        kernel.policy.counters.nr_visited = 0
        list(kernel.policy.walk(pfn_at(children[2], AT + PAGE_SIZE)))
        visited[profile] = kernel.policy.counters.nr_visited
    assert visited["2.6.6"] == visited["6.1"] == visited["6.18"] == 1
    for profile in ("2.6.6-rmap39", "2.6.5-aa", "2.6.7", "one-anon-vma", "2.6.6-anonmm"):
        assert visited[profile] == nr_children + 1


def test_newest_area_is_walked_first() -> None:
    kernel, mm = make("2.6.7")
    anon(mm, 1, flags=FIXED, addr=AT)
    write(mm, 0)
    child = dup_mm(mm)
    kernel.mms.append(child)
    assert proposals(kernel, pfn_at(mm, AT)) == [(child.id, 0), (mm.id, 0)]


def test_memory_costs() -> None:
    for profile, one, after_fork in [
        ("2.6.6", (0, 0), (2, 128)),
        ("2.6.6-anonmm", (1, 48), (2, 96)),
        ("2.6.7", (1, 48), (1, 72)),
        ("one-anon-vma", (1, 48), (1, 72)),
        ("6.18", (2, 160), (5, 384)),
    ]:
        kernel, mm = make(profile)
        anon(mm, 2, flags=FIXED, addr=AT)
        write(mm, 0, 1)
        cost = kernel.policy.memory_cost()
        assert (cost.nr_objects, cost.nr_bytes) == one, profile
        child = dup_mm(mm)
        kernel.mms.append(child)
        cost = kernel.policy.memory_cost()
        assert (cost.nr_objects, cost.nr_bytes) == after_fork, profile
        for m in (child, mm):
            kernel.mms.remove(m)
            mmput(m)
        assert kernel.policy.memory_cost().nr_objects == 0, profile


# -- particular to one policy ------------------------------------------------------------------------------------------


def test_pte_chains_collapse_when_walked() -> None:
    kernel, mm = make("2.6.6")
    anon(mm, 1, flags=FIXED, addr=AT)
    write(mm, 0)
    pfn = pfn_at(mm, AT)
    child = dup_mm(mm)
    kernel.mms.append(child)
    assert len(kernel.policy.slots(pfn)) == 2 and kernel.policy.memory_cost().nr_objects == 1
    kernel.mms.remove(child)
    mmput(child)
    assert kernel.policy.memory_cost().nr_objects == 1, "a chain of one slot"
    list(kernel.policy.walk(pfn))
    assert kernel.policy.memory_cost().nr_objects == 0 and len(kernel.policy.slots(pfn)) == 1


def test_pte_chains_in_bulk() -> None:
    kernel, _ = make("2.6.6")
    policy = kernel.policy
    pfns = np.arange(10, 400)
    for copy in range(3):
        policy.dup_rmaps(pfns, pfns * 8 + copy + 1)
    assert policy.slots(10) == [83, 82, 81]
    policy.remove_rmaps(pfns, pfns * 8 + 2)
    assert policy.slots(399) == [399 * 8 + 3, 399 * 8 + 1]
    policy.remove_rmaps(pfns, pfns * 8 + 1)
    policy.remove_rmaps(pfns, pfns * 8 + 3)
    assert policy.mapped_pfns() == [] and policy.violations() == []


def test_anonmm_family() -> None:
    kernel, mm = make("2.6.6-anonmm")
    anon(mm, 2, flags=FIXED, addr=AT)
    write(mm, 0)
    child = dup_mm(mm)
    grandchild = dup_mm(child)
    kernel.mms += [child, grandchild]
    family = mm.rmap.members()
    assert [member.mm for member in family] == [mm, child, grandchild]
    pfn = pfn_at(grandchild, AT)
    kernel.mms.remove(mm)
    mmput(mm)
    assert [member.mm for member in child.rmap.members()] == [None, child, grandchild], "the head outlives its mm"
    assert proposals(kernel, pfn)[0] == (child.id, 0)
    assert kernel.pages.mapping[pfn] is child.rmap, "the page has found a living owner"
    assert check_rmap(kernel) == []


def test_chain_reuse_is_bounded() -> None:
    """A process that forks, ends and leaves its child to do the same: chains do not grow without end (3.19)."""
    kernel, mm = make("6.18")
    anon(mm, 1, flags=FIXED, addr=AT)
    write(mm, 0)
    for _ in range(20):
        child = dup_mm(mm)
        kernel.mms.append(child)
        write(child, 0)
        kernel.mms.remove(mm)
        mmput(mm)
        mm = child
        assert check_rmap(kernel) == []
    vma = mm.areas.first
    assert vma is not None and len(vma.anon_vma_chain) <= 3
    assert kernel.policy.nr_anon_vmas <= 3


@pytest.mark.parametrize("bugs", [(), ("chain-reuse",)])
def test_chain_reuse_bug_breaks_equal_chains(bugs: tuple[str, ...]) -> None:
    """One degree for children and areas (3.19 to 5.19): an anon_vma that still has an area is reused by another.

    Two areas then share it whose chains differ; they merge, and the pages of one are lost to the reverse map.
    """
    kernel = make_kernel(512, "6.18", **({"bugs": bugs} if bugs else {}))  # type: ignore[arg-type]
    mm = Script(kernel).mm

    def fork(parent: MmStruct) -> MmStruct:
        kernel.mms.append(dup_mm(parent))
        return kernel.mms[-1]  # type: ignore[no-any-return]

    def leave(mm: MmStruct) -> None:
        kernel.mms.remove(mm)
        mmput(mm)

    anon(mm, 4, flags=FIXED, addr=AT)
    write(mm, 0)  # the root anon_vma A
    child = fork(mm)  # B
    third = fork(child)  # D, child of B
    leave(child)
    fourth = fork(third)  # reuses B
    leave(third)  # D has no areas of its own any more
    for page in (1, 3):
        do_mprotect(fourth, AT + page * PAGE_SIZE, PAGE_SIZE, 1)
    fifth = fork(fourth)  # page 0 reuses D; with the bug page 1 too; the others get new ones
    leave(fourth)
    do_mprotect(fifth, AT + 3 * PAGE_SIZE, PAGE_SIZE, 3)
    write(fifth, 2, 3)
    do_mprotect(fifth, AT + 3 * PAGE_SIZE, PAGE_SIZE, 1)
    do_munmap(fifth, AT, 2 * PAGE_SIZE)
    last = fork(fifth)  # page 2 reuses D; with the bug page 3 too
    assert check_rmap(kernel) == [] or bugs
    do_mprotect(last, AT + 3 * PAGE_SIZE, PAGE_SIZE, 3)
    assert len(last.areas) == (1 if bugs else 2)
    broken = {violation.invariant for violation in check_rmap(kernel)}
    assert ("rmap-complete" in broken) is bool(bugs)


# -- telling why -----------------------------------------------------------------------------------------------------


def test_refused_merges_are_counted_and_told() -> None:
    kernel, mm = make("2.6.7")
    with listening(MERGE_REFUSED) as refused, listening(VMA_MERGE) as merged:
        anon(mm, 4, flags=FIXED, addr=AT)
        do_mprotect(mm, AT + PAGE_SIZE, PAGE_SIZE, 1)
        write(mm, 0, 2)
        do_mprotect(mm, AT + PAGE_SIZE, PAGE_SIZE, 3)
    last = refused[-1]
    assert last["reason"] == "anon_vma"
    assert (last["near"].vm_start - AT) // PAGE_SIZE == 2
    assert last["near_anon_vma"] is last["near"].anon_vma
    assert last["near_first_write"].vaddr == AT + 2 * PAGE_SIZE
    assert [record["case"] for record in merged] == ["7"]
    assert kernel.vm_stat.refused["anon_vma"] == 1 and kernel.vm_stat.merged["7"] == 1
    anon(mm, 1, prot=1, flags=FIXED, addr=AT + 4 * PAGE_SIZE)
    assert kernel.vm_stat.refused["flags"] >= 1
    assert mm.areas.first is not None and mm.areas.first.first_write is not None


def test_first_writes_are_not_kept_unless_asked() -> None:
    kernel, mm = make("2.6.7")
    anon(mm, 1, flags=FIXED, addr=AT)
    write(mm, 0)
    assert mm.areas.first is not None and mm.areas.first.first_write is None
    kernel.notes_first_writes = True
    anon(mm, 1, flags=FIXED, addr=AT + 8 * PAGE_SIZE)
    write(mm, 8)
    assert mm.areas.last is not None and mm.areas.last.first_write.vaddr == AT + 8 * PAGE_SIZE


# -- many steps --------------------------------------------------------------------------------------------------------


def test_interval_index() -> None:
    class Link:
        def __init__(self, first: int, nr_pages: int) -> None:
            owner: Any = None
            self.vma = Vma(owner, first << 12, (first + nr_pages) << 12, 3, first)

    rng = random.Random(3)
    index: IntervalIndex[Link] = IntervalIndex()
    links: list[Link] = []
    for _ in range(400):
        if links and rng.random() < 0.3:
            index.remove(links.pop(rng.randrange(len(links))))
        else:
            links.append(Link(rng.randrange(500), rng.choice([1, 2, 5, 80])))
            index.add(links[-1])
        if links and rng.random() < 0.2:
            vma = rng.choice(links).vma
            vma.vm_end += PAGE_SIZE
            index.range_changed()
        page = rng.randrange(600)
        expected = [k for k in index if k.vma.vm_pgoff <= page < k.vma.vm_pgoff + k.vma.nr_pages]
        expected.sort(key=lambda k: k.vma.vm_pgoff)
        assert list(index.containing(page)) == expected


def random_script(rng: random.Random) -> list[str]:
    """Operations on a dozen pages; forks nest two deep."""
    ops: list[str] = []
    depth = 0
    for _ in range(40):
        page, nr_pages = rng.randrange(12), rng.randint(1, 4)
        prot = rng.choice(["rw", "rw", "rwx", "r", "rx", "-"])
        moved = rng.choice([page, 40 + page % 4])
        target = rng.choice([rng.randrange(12), 40 + rng.randrange(4)])
        flags = rng.choice(["MF", "MF", "MF", "MFD", "F"])
        kind = rng.choices(
            ["m", "w", "p", "u", "l", "k", "v", "grow", "a", "fork", "end"], [20, 25, 20, 4, 3, 3, 12, 3, 4, 4, 4]
        )[0]
        if kind == "m":
            ops.append(f"m:{page}:{nr_pages}:{prot}{rng.choice(['', '', ':N'])}")
        elif kind == "w":
            ops.append(f"w:{page}")
        elif kind == "p":
            ops.append(f"p:{page}:{nr_pages}:{prot}")
        elif kind in "ulk":
            ops.append(f"{kind}:{page}:{nr_pages}")
        elif kind == "v":
            ops.append(f"v:{moved}:{nr_pages}:{rng.choice([nr_pages, nr_pages, 1, 5])}:{flags}:{target}")
        elif kind == "grow":
            ops.append(f"v:{page}:{nr_pages}:{nr_pages + 2}:-")
        elif kind == "a":
            advice = rng.choice([Madv.MADV_DONTNEED, Madv.MADV_DONTFORK, Madv.MADV_DOFORK, Madv.MADV_WIPEONFORK])
            ops.append(f"a:{page}:{nr_pages}:{int(advice)}")
        elif kind == "fork" and depth < 2:
            ops.append("f{")
            depth += 1
        elif kind == "end" and depth:
            ops.append("f}")
            depth -= 1
    return ops + ["f}"] * depth


@pytest.mark.parametrize("profile", PROFILES)
def test_invariants_after_every_step(profile: str) -> None:
    rng = random.Random(len(profile))

    def check(kernel: Any) -> None:
        assert check_rmap(kernel) == []
        check_kernel(kernel)

    for _ in range(12):
        runner = Script(make_kernel(256, profile))
        runner.after_step = check
        script = random_script(rng)
        runner.run(script)


@pytest.mark.parametrize("rmap", ["pte_chain", "anonmm", "anon_vma", "anon_vma-share", "anon_vma_chain"])
def test_data_does_not_depend_on_the_policy(rmap: str) -> None:
    """Policies decide what merges, never what memory holds."""
    rng = random.Random(9)
    for _ in range(15):
        script = random_script(rng)
        answers = set()
        for profile, parts in (("6.18", {}), ("6.18", {"rmap": rmap})):
            runner = Script(make_kernel(256, profile, **parts))
            runner.run([op for op in script if not op.startswith("v")])
            answers.add(runner.data())
        assert len(answers) == 1


def test_merging_never_moves_data() -> None:
    kernel, mm = make("2.6.7")
    anon(mm, 8, flags=FIXED, addr=AT)
    write(mm, *range(8))
    before = {place.vaddr: pfn for pfn, places in scan_all([mm]).items() for place in places}
    for page in range(8):
        do_mprotect(mm, AT + page * PAGE_SIZE, PAGE_SIZE, 1)
    do_mprotect(mm, AT, 8 * PAGE_SIZE, 3)
    do_madvise(mm, AT, PAGE_SIZE, Madv.MADV_RANDOM)
    assert {place.vaddr: pfn for pfn, places in scan_all([mm]).items() for place in places} == before
    assert check_rmap(kernel) == []
