"""maps, pt, page and rmap over memory that the tests arrange page by page."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema
import pytest

from emu.inspect.maps import MapsOptions, MapsView
from emu.inspect.page import BadPage, Found, PageView
from emu.inspect.pt import PtOptions, PtView, State
from emu.inspect.rmap import RmapView
from kernel.mm.area import split_vma
from kernel.mm.memory import change_protection
from kernel.mm.task_mmu import maps_text, smaps_text
from kernel.mm.types import PAGE_SIZE, VM_READ, VM_SHARED, VM_WRITE
from kernel.profile import PROFILES
from tests.inspect.scene import World
from tests.kernel.fakes import RW, FakeFile, FakeInode, map_anon, map_file

A = 0x10_0000
SCHEMA = json.loads(resources.files("emu.inspect").joinpath("schema/inspect-1.json").read_text())


def at(page: int) -> int:
    return A + page * PAGE_SIZE


def valid(view: Any) -> dict[str, Any]:
    """The JSON of ``view``, checked against the schema, as it comes back from a file."""
    found: dict[str, Any] = json.loads(json.dumps(view.as_json()))
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    return found


def maps(world: World, **options: Any) -> MapsView:
    return MapsView(world.scene(), MapsOptions(**options))


# ---- maps -----------------------------------------------------------------------------------------------------------


def test_plain_maps_are_the_kernel_s_text() -> None:
    world = World()
    map_anon(world.mm, at(0), 2)
    map_anon(world.mm, at(4), 1, VM_READ)
    world.write(at(0))
    assert "".join(line + "\n" for line in maps(world).lines()) == maps_text(world.mm)
    assert "".join(line + "\n" for line in maps(world, smaps=True).lines()) == smaps_text(world.mm)


def test_an_address_is_marked_among_its_neighbours() -> None:
    world = World()
    for page in (0, 2, 4, 6):
        map_anon(world.mm, at(page), 1)
    lines = maps(world, where=f"{at(4) + 17:x}", nr_before=1, nr_after=1).lines()
    assert [line[:3] for line in lines] == ["   ", "=> ", "   "]
    assert [line[3:11] for line in lines] == [f"{at(page):08x}" for page in (2, 4, 6)]
    assert [row.is_hit for row in maps(world, where=f"{at(4):#x}").rows] == [True]


def test_an_address_in_no_area_is_no_hit() -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    view = maps(world, where=f"{at(1):#x}")
    assert not view.has_hit and not view.rows


def test_holes_have_their_size() -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    map_anon(world.mm, at(3), 1)
    lines = maps(world, gaps=True).lines()
    assert lines[2] == f"{at(1):08x}-{at(3):08x} ----  hole of 2 pages"
    assert [row.hole_before for row in maps(world).rows] == [at(0), 2 * PAGE_SIZE]


def test_smaps_counters_in_bytes() -> None:
    world = World()
    map_anon(world.mm, at(0), 4)
    world.write(at(0))
    world.write(at(1))
    smaps = valid(maps(world, smaps=True))["areas"][0]["smaps"]
    assert smaps["resident_bytes"] == smaps["anonymous_bytes"] == smaps["pss_bytes"] == 2 * PAGE_SIZE
    assert smaps["swap_bytes"] == 0


class TestVerdicts:
    """Why two areas that touch are two: every rule, in the words of the kernel's own counters."""

    def reason(self, world: World) -> str | None:
        (area,) = [row for row in valid(maps(world))["areas"] if row["verdict"] is not None]
        found: str | None = area["verdict"]["reason"]
        assert area["verdict"]["joins"] == (found is None)
        return found

    def test_nothing_keeps_them_apart(self) -> None:
        world = World()
        map_anon(world.mm, at(0), 1)
        map_anon(world.mm, at(1), 1)
        assert self.reason(world) is None

    def test_flags(self) -> None:
        world = World()
        map_anon(world.mm, at(0), 1)
        map_anon(world.mm, at(1), 1, VM_READ)
        assert self.reason(world) == "flags"
        assert "flags differ: VM_WRITE" in "\n".join(maps(world, explain=True).lines())

    def test_files(self) -> None:
        world = World()
        map_anon(world.mm, at(0), 1)
        map_file(world.mm, at(1), 1, FakeFile(FakeInode(world.kernel, b"x")))
        world.kernel.vfs.path_text = lambda path, task=None: b"/data"
        FakeFile.f_path = None  # type: ignore[attr-defined]
        assert self.reason(world) == "file"

    def test_page_offsets(self) -> None:
        world = World()
        map_anon(world.mm, at(0), 1)
        map_anon(world.mm, at(1), 1).vm_pgoff = 7
        assert self.reason(world) == "pgoff"

    def test_first_written_apart(self) -> None:
        world = World("2.6.6-rmap39")
        lower, upper = map_anon(world.mm, at(0), 1), map_anon(world.mm, at(1), 1)
        world.write(at(0))
        world.write(at(1))
        assert lower.anon_vma is not upper.anon_vma
        assert self.reason(world) == "anon_vma"
        assert "first written apart (#1 and #2)" in "\n".join(maps(world, explain=True).lines())

    def test_asking_counts_nothing(self) -> None:
        world = World()
        map_anon(world.mm, at(0), 1)
        map_anon(world.mm, at(1), 1, VM_READ)
        before = dict(world.kernel.vm_stat.refused)
        maps(world, explain=True)
        assert dict(world.kernel.vm_stat.refused) == before

    @pytest.mark.parametrize("profile", PROFILES)
    def test_the_verdict_is_what_a_merge_would_find(self, profile: str) -> None:
        """can_join decides for mprotect; the view must say the same."""
        from kernel.mm.merge import can_join

        world = World(profile)
        map_anon(world.mm, at(0), 2)
        map_anon(world.mm, at(2), 2)
        map_anon(world.mm, at(4), 1, VM_READ)
        world.write(at(0))
        world.write(at(3))
        world.fork()
        split_vma(world.mm, world.mm.areas.find_exact(at(0)), at(1), False)  # type: ignore[arg-type]
        areas = list(world.mm.areas)
        rows = maps(world).rows
        for lower, upper, row in zip(areas[:-1], areas[1:], rows[1:], strict=True):
            assert row.verdict is not None
            assert can_join(world.mm, lower, upper) == (not row.verdict.reason)


def test_the_first_write_is_named() -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    world.kernel.current = world.task
    world.write(at(0))
    world.kernel.current = None
    assert maps(world, explain=True).rows[0].first_write == f"first written at {at(0):#x} by exec"


def test_chains_are_shown_with_their_ancestors() -> None:
    world = World("6.1")
    map_anon(world.mm, at(0), 1)
    world.write(at(0))
    child = world.fork()
    view = MapsView(world.scene(child), MapsOptions(explain=True))
    assert view.rows[0].anon_vma == 2 and view.rows[0].chain == [1, 2]
    assert view.lines()[0].endswith("anon_vma #2 (chain #1 #2)")


# ---- page tables ----------------------------------------------------------------------------------------------------


def pt(world: World, **options: Any) -> PtView:
    return PtView(world.scene(), PtOptions(**options))


def test_neighbours_that_say_the_same_are_one_line() -> None:
    world = World()
    map_anon(world.mm, at(0), 8)
    for page in (0, 1, 2, 5):
        world.write(at(page))
    world.read(at(6))
    world.read(at(7))
    rows = pt(world).rows
    assert [(row.start, row.nr_pages, row.state, row.perms, row.dirty) for row in rows] == [
        (at(0), 3, State.PAGE, "rw-", True),
        (at(5), 1, State.PAGE, "rw-", True),
        (at(6), 2, State.ZERO, "r--", False),
    ]
    assert rows[0].step == 1
    assert rows[0].frames_text() == f"{rows[0].frame:#x}-{rows[0].frame + 2:#x}"
    assert rows[2].frames_text() == "zero page"
    valid(pt(world))


def test_frames_in_no_order() -> None:
    world = World()
    map_anon(world.mm, at(0), 4)
    for page in (0, 2, 1, 3):
        world.write(at(page))
    (row,) = pt(world).rows
    assert row.nr_pages == 4 and row.step is None and row.frames_text().endswith(" ...")
    assert [r.nr_pages for r in pt(world, frames=True).rows] == [1, 2, 1]
    assert valid(pt(world))["ranges"][0]["pfn_step"] is None


def test_falling_frames_are_a_row_too() -> None:
    world = World()
    map_anon(world.mm, at(0), 3)
    for page in (2, 1, 0):
        world.write(at(page))
    (row,) = pt(world).rows
    assert row.step == -1
    assert row.frames_text() == f"{row.frame:#x}-{row.frame - 2:#x}"


def test_a_page_kept_behind_prot_none() -> None:
    world = World()
    vma = map_anon(world.mm, at(0), 1)
    world.write(at(0))
    vma.vm_flags &= ~(VM_READ | VM_WRITE)
    change_protection(vma, at(0), at(1))
    (row,) = pt(world).rows
    assert row.state is State.PROT_NONE and row.perms == "---"


def test_ranges_and_the_mark_of_the_fault() -> None:
    world = World()
    map_anon(world.mm, at(0), 4)
    for page in range(4):
        world.write(at(page))
    rows = pt(world, first=at(1), last=at(3)).rows
    assert [(row.start, row.end) for row in rows] == [(at(1), at(3))]
    lines = PtView(world.scene(address=at(2) + 5), PtOptions(frames=True, raw=True)).lines()
    assert [line[:2] for line in lines[2:]] == ["  ", "  ", "* ", "  "]


def test_raw_entries_are_the_words_in_memory() -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    world.write(at(0))
    (entry,) = valid(pt(world, raw=True))["entries"]
    index = int(entry["entry_at"], 16) // 8
    assert world.kernel.physmem.q[index] == int(entry["value"], 16) == world.mm.pt.get(at(0))
    assert entry["bits"] == ["P", "W", "U", "A", "D", "NX"]


@pytest.mark.parametrize(("level", "expected"), [(2, 0x0), (3, 0x0), (4, 0x0)])
def test_upper_levels(level: int, expected: int) -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    world.write(at(0))
    view = valid(pt(world, level=level))
    (entry,) = view["entries"]
    assert int(entry["address"], 16) == expected and "a table with 1 used entry" in entry["target"]
    assert view["tables"] == 4


def test_the_processor_s_own_entries_are_not_shown() -> None:
    assert valid(pt(World(), level=4))["entries"] == []


# ---- one page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_shared_page_is_found_by_policy_and_scan(profile: str) -> None:
    world = World(profile)
    map_anon(world.mm, at(0), 2)
    world.write(at(1))
    child = world.fork()
    view = PageView(world.scene(), f"{at(1) + 5:#x}")
    found = valid(view)
    assert found["refcount"] == found["mapcount"] == 2 and found["agree"]
    assert "anon" in found["flags"] and found["references"] == {"page_tables": 2}
    assert {(row.mm_id, row.vaddr, row.found) for row in view.rows} == {
        (world.mm.id, at(1), Found.BOTH),
        (child.id, at(1), Found.BOTH),
    }


def test_a_mapping_that_the_policy_lost_stands_out() -> None:
    world = World()
    vma = map_anon(world.mm, at(0), 1)
    world.write(at(0))
    vma.anon_vma.vmas.clear()
    view = PageView(world.scene(), f"{at(0):#x}")
    assert [row.found for row in view.rows] == [Found.SCAN_ONLY]
    assert not valid(view)["agree"]
    assert "scan only  <== MISSED by the policy" in view.lines()[-1]


def test_a_stale_proposal_is_no_miss() -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    world.write(at(0))
    child = world.fork()
    world.write(at(0), child)  # copied: the parent's page is proposed at the child's address in vain
    view = PageView(world.scene(), f"{at(0):#x}")
    assert {(row.mm_id, row.found) for row in view.rows} == {
        (world.mm.id, Found.BOTH),
        (child.id, Found.POLICY_ONLY),
    }
    assert valid(view)["agree"]


def test_a_page_by_its_frame() -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    world.write(at(0))
    pfn = valid(PageView(world.scene(), f"{at(0):#x}"))["pfn"]
    assert (
        valid(PageView(world.scene(), f"pfn:{pfn}"))["mappings"]
        == valid(PageView(world.scene(), f"pfn:{pfn:#x}"))["mappings"]
    )


def test_a_page_of_the_page_cache() -> None:
    world = World()
    FakeFile.f_path = None  # type: ignore[attr-defined]
    world.kernel.vfs.path_text = lambda path, task=None: b"/data/file"
    map_file(world.mm, at(0), 2, FakeFile(FakeInode(world.kernel, b"x" * 8192)), RW | VM_SHARED, 0)
    world.read(at(1))
    found = valid(PageView(world.scene(), f"{at(1):#x}"))
    assert found["owner"] == "file /data/file" and found["index"] == "page offset 0x1"
    assert found["references"] == {"page_tables": 1, "page_cache": 1}
    assert [row["found_by"] for row in found["mappings"]] == ["both"]


def test_tables_zero_page_and_free_frames() -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    world.read(at(0))
    kernel = world.kernel
    assert "page table of mm #1" in valid(PageView(world.scene(), f"pfn:{world.mm.pt.root_pfn}"))["owner"]
    assert valid(PageView(world.scene(), f"pfn:{kernel.pages.zero_pfn}"))["owner"] == "the kernel: the page of zeros"
    assert valid(PageView(world.scene(), f"{at(0):#x}"))["state"] == "zero"
    assert valid(PageView(world.scene(), "pfn:2000"))["owner"] == "nobody: free"


def test_nothing_mapped_there() -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    found = valid(PageView(world.scene(), f"{at(0):#x}"))
    assert found["state"] is None and found["area"] == "anon" and "pfn" not in found
    assert "none: nothing is mapped there" in PageView(world.scene(), f"{at(0):#x}").lines()[-1]
    assert PageView(world.scene(), f"{at(7):#x}").lines()[0].endswith("no area")


@pytest.mark.parametrize("spec", ["main", "pfn:x", "pfn:0x1000000", "", "pfn:-1"])
def test_what_is_no_page_is_refused(spec: str) -> None:
    with pytest.raises(BadPage):
        PageView(World().scene(), spec)


def test_looking_at_a_page_counts_nothing() -> None:
    world = World()
    map_anon(world.mm, at(0), 1)
    world.write(at(0))
    before = dict(vars(world.kernel.policy.counters))
    PageView(world.scene(), f"{at(0):#x}")
    assert vars(world.kernel.policy.counters) == before


# ---- the reverse map ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_every_anonymous_page_hangs_on_an_object(profile: str) -> None:
    world = World(profile)
    map_anon(world.mm, at(0), 3)
    map_anon(world.mm, at(8), 1)
    for page in (0, 1, 8):
        world.write(at(page))
    child = world.fork()
    world.write(at(1), child)
    found = valid(RmapView(world.scene()))
    objects = found["objects"]
    if world.kernel.policy.per_pte:
        assert [len(node["slots"]) for node in objects] == [2, 2]
        return
    assert sum(node["pages"] for node in objects) == 4
    if world.kernel.policy.needs_anon_vma:
        homes = {(area["mm"], area["start"]) for node in objects for area in node["areas"] if area["home"]}
        assert homes == {(mm.id, hex(at(page))) for mm in (world.mm, child) for page in (0, 8)}


def test_the_tree_of_anon_vmas_after_fork() -> None:
    world = World("6.1")
    map_anon(world.mm, at(0), 1)
    world.write(at(0))
    child = world.fork()
    grandchild = world.fork(child)
    objects = valid(RmapView(world.scene()))["objects"]
    assert [(node["number"], node["parent"]) for node in objects] == [(1, None), (2, 1), (3, 2)]
    assert [[area["mm"] for area in node["areas"]] for node in objects] == [
        [world.mm.id, child.id, grandchild.id],
        [child.id, grandchild.id],
        [grandchild.id],
    ]
    lines = RmapView(world.scene()).lines()
    assert any(line.startswith("   └─ anon_vma #3") for line in lines)
    assert sum("(inherited)" in line for line in lines) == 3


def test_a_ring_of_anonmms() -> None:
    world = World("2.6.6-anonmm")
    map_anon(world.mm, at(0), 1)
    world.write(at(0))
    child = world.fork()
    objects = valid(RmapView(world.scene()))["objects"]
    assert [(node["kind"], node["number"], node["parent"], node["pages"]) for node in objects] == [
        ("anonmm", world.mm.id, None, 1),
        ("anonmm", child.id, world.mm.id, 0),
    ]


def test_dot_names_every_edge_once() -> None:
    world = World("6.1")
    map_anon(world.mm, at(0), 1)
    world.write(at(0))
    child = world.fork()
    lines = RmapView(world.scene()).dot()
    assert lines[0] == "digraph rmap {" and lines[-1] == "}"
    edges = [line.strip() for line in lines if "->" in line]
    assert edges == [
        f"anon_vma1 -> area{world.mm.id}_{at(0):x};",
        f"anon_vma1 -> area{child.id}_{at(0):x} [style=dashed];",
        "anon_vma1 -> anon_vma2 [style=bold, arrowhead=empty];",
        f"anon_vma2 -> area{child.id}_{at(0):x};",
    ]


def test_quotes_in_names_do_not_break_dot() -> None:
    world = World()
    map_anon(world.mm, at(0), 1).anon_name = 'a"b'
    world.write(at(0))
    text = "\n".join(RmapView(world.scene()).dot())
    assert r"[anon:a\"b]" in text
