"""``pagewalk rmap``: the objects of the reverse map, what hangs on them, and who descends from whom.

One graph for every policy.  Its nodes:

    anon_vma      an anon_vma (parent: the one it was forked from, anon_vma_chain only)
    anonmm        one address space's object (parent: the head of its exec family)
    page          pte_chains only: a page that several entries map, with its slots
    area          an area that the object leads to, in the order in which a walk visits them

``lines`` draws it as a tree, ``dot`` as Graphviz input.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emu.inspect.columns import count_text
from emu.inspect.identity import mm_text, object_name, users_of
from emu.trace.explain import permission_text
from emu.trace.locate import Locator, short_name
from kernel.mm.page import PG_anon
from kernel.mm.rmap.anon_vma_chain import ChainAnonVma
from kernel.mm.rmap.anonmm import Anonmm
from kernel.mm.rmap.pte_chain import PteChainPolicy

if TYPE_CHECKING:
    from emu.inspect.moment import Scene
    from kernel.kernel import Kernel
    from kernel.mm.types import Vma

MAX_CHAINS_SHOWN = 64
"""pte_chains: longer lists are cut, and say so."""


@dataclass(frozen=True)
class AreaNode:
    """An area, as an object knows it."""

    mm_id: int
    start: int
    end: int
    perms: str
    name: str
    is_home: bool
    """New pages of the area belong to this object (else it may only map pages that were there before fork)."""

    def as_json(self) -> dict[str, Any]:
        return {
            "mm": self.mm_id,
            "start": f"{self.start:#x}",
            "end": f"{self.end:#x}",
            "perms": self.perms,
            "name": self.name,
            "home": self.is_home,
        }


@dataclass
class ObjectNode:
    """An anon_vma, an anonmm or, with pte_chains, a shared page."""

    kind: str
    number: int
    parent: int | None
    nr_pages: int
    """Pages that name this object, those in memory."""
    note: str = ""
    areas: list[AreaNode] = field(default_factory=list)
    slots: list[tuple[int, int]] = field(default_factory=list)
    """pte_chains: (mm, address) of each slot, the newest first."""

    @property
    def name(self) -> str:
        return f"pfn {self.number:#x}" if self.kind == "page" else f"{self.kind} #{self.number}"

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "kind": self.kind,
            "number": self.number,
            "parent": self.parent,
            "pages": self.nr_pages,
            "note": self.note or None,
        }
        if self.kind == "page":
            return found | {"slots": [{"mm": mm, "address": f"{address:#x}"} for mm, address in self.slots]}
        return found | {"areas": [area.as_json() for area in self.areas]}


class RmapView:
    """The reverse map of all address spaces of the machine at one moment."""

    def __init__(self, scene: Scene) -> None:
        self._head = scene.as_json()
        self._kernel = kernel = scene.kernel
        self._locator = Locator(kernel)
        users = users_of(kernel)
        self._mms = mms = scene.mms()
        self._mm_texts = {mm.id: mm_text(mm.id, users) for mm in mms}
        cost = kernel.policy.memory_cost()
        self._cost = (cost.nr_objects, cost.nr_bytes)
        self._nr_without = sum(1 for mm in mms for vma in mm.areas if vma.anon_vma is None)
        self.nr_hidden = 0
        self.objects = self._pte_chains() if isinstance(kernel.policy, PteChainPolicy) else self._objects()

    # ---- anon_vmas and anonmms -----------------------------------------------------------------------------------

    def _objects(self) -> list[ObjectNode]:
        counts, found = _pages_by_object(self._kernel)
        for mm in self._mms:
            if isinstance(mm.rmap, Anonmm):
                found[mm.rmap.id] = mm.rmap
            for vma in mm.areas:
                for thing in _objects_of(vma):
                    found[thing.id] = thing
        for thing in list(found.values()):
            for ancestor in _ancestors(thing):
                found.setdefault(ancestor.id, ancestor)
        return [self._node(found[number], counts[number]) for number in sorted(found)]

    def _node(self, thing: Any, nr_pages: int) -> ObjectNode:
        if isinstance(thing, Anonmm):
            parent = thing.head.id if thing.head is not None else None
            note = self._mm_texts.get(thing.id, "its mm is gone") if thing.mm is not None else "its mm is gone"
            return ObjectNode("anonmm", thing.id, parent, nr_pages, note)
        node = ObjectNode("anon_vma", thing.id, None, nr_pages)
        if isinstance(thing, ChainAnonVma):
            node.parent = thing.parent.id if thing.parent is not thing else None
            node.note = f"num_children {thing.num_children}, num_active_vmas {thing.num_active_vmas}"
        node.areas = [self._area(vma, thing) for vma in self._kernel.policy.vmas_of(thing)]
        return node

    def _area(self, vma: Vma, thing: Any) -> AreaNode:
        return AreaNode(
            vma.vm_mm.id,
            vma.vm_start,
            vma.vm_end,
            permission_text(vma.vm_flags),
            short_name(self._locator.area_name(vma)),
            vma.anon_vma is thing,
        )

    # ---- pte_chains ----------------------------------------------------------------------------------------------

    def _pte_chains(self) -> list[ObjectNode]:
        kernel, policy = self._kernel, self._kernel.policy
        assert isinstance(policy, PteChainPolicy)
        nodes = []
        shared = [pfn for pfn in policy.mapped_pfns() if len(policy.slots(pfn)) > 1]
        for pfn in shared[:MAX_CHAINS_SHOWN]:
            kind = "anonymous" if kernel.pages.flags[pfn] & PG_anon else "file page"
            node = ObjectNode("page", pfn, None, 1, kind)
            for index in policy.slots(pfn):
                table = index >> 9
                node.slots.append((kernel.pages.mapping[table].id, kernel.pages.index[table] + ((index & 511) << 12)))
            nodes.append(node)
        self.nr_hidden = len(shared) - len(nodes)
        return nodes

    # ---- output --------------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        return {
            "type": "rmap",
            "schema": 1,
            **self._head,
            "policy": self._kernel.profile.rmap,
            "objects_total": self._cost[0],
            "bytes_total": self._cost[1],
            "mms": [{"mm": number, "text": text} for number, text in sorted(self._mm_texts.items())],
            "objects": [node.as_json() for node in self.objects],
            "hidden": self.nr_hidden,
        }

    def lines(self) -> list[str]:
        nr_objects, nr_bytes = self._cost
        lines = [f"{self._kernel.profile.rmap}: {count_text(nr_objects, 'object')}, {nr_bytes:,} bytes"]
        lines += [self._mm_texts[number] for number in sorted(self._mm_texts)]
        children: dict[int | None, list[ObjectNode]] = {}
        for node in self.objects:
            children.setdefault(node.parent, []).append(node)
        for node in children.get(None, []):
            lines.append("")
            self._draw(node, children, lines, "", "")
        if self.nr_hidden:
            lines += ["", f"and {count_text(self.nr_hidden, 'more shared page')}"]
        if not self.objects:
            lines += ["", "no page is shared" if self._kernel.policy.per_pte else "no anonymous memory was written yet"]
        if self._kernel.policy.needs_anon_vma:
            lines += ["", f"{count_text(self._nr_without, 'area')} without an anon_vma"]
        return lines

    def _draw(
        self, node: ObjectNode, children: dict[int | None, list[ObjectNode]], lines: list[str], first: str, rest: str
    ) -> None:
        """``node`` and what is below it; ``first`` is the margin of its own line, ``rest`` of those below."""
        note = f"  ({node.note})" if node.note else ""
        pages = f"  {count_text(node.nr_pages, 'page')}" if node.kind != "page" else ""
        lines.append(f"{first}{node.name}{pages}{note}")
        below = children.get(node.number, []) if node.kind != "page" else []
        texts = [self._area_text(area) for area in node.areas]
        texts += [f"{self._mm_name(mm)}  {address:#x}" for mm, address in node.slots]
        for i, text in enumerate(texts):
            is_last = i == len(texts) - 1 and not below
            lines.append(f"{rest}{'└─ ' if is_last else '├─ '}{text}")
        for i, child in enumerate(below):
            turn, down = ("└─ ", "   ") if i == len(below) - 1 else ("├─ ", "│  ")
            self._draw(child, children, lines, rest + turn, rest + down)

    def _area_text(self, area: AreaNode) -> str:
        inherited = "" if area.is_home else "  (inherited)"
        return f"{self._mm_name(area.mm_id)}  {area.start:x}-{area.end:x} {area.perms} {area.name}{inherited}"

    def _mm_name(self, mm_id: int) -> str:
        return self._mm_texts.get(mm_id, f"mm #{mm_id}")

    def dot(self) -> list[str]:
        """Graphviz: objects as ellipses, areas as boxes in one cluster for each address space."""
        lines = [
            "digraph rmap {",
            f"  label={_quoted(self._kernel.profile.rmap + ': ' + self._head['event'])};",
            "  rankdir=LR; fontname=monospace;",
            "  node [fontname=monospace, fontsize=10]; edge [fontname=monospace, fontsize=9];",
        ]
        boxes: dict[int, dict[str, str]] = {}
        edges = []
        for node in self.objects:
            key = f"{node.kind}{node.number}"
            label = f"{node.name}\n{count_text(node.nr_pages, 'page')}" + (f"\n{node.note}" if node.note else "")
            lines.append(f"  {key} [label={_quoted(label)}, shape=ellipse];")
            if node.parent is not None:
                edges.append(f"  {node.kind}{node.parent} -> {key} [style=bold, arrowhead=empty];")
            for area in node.areas:
                box = f"area{area.mm_id}_{area.start:x}"
                text = f"{area.start:x}-{area.end:x}\n{area.perms} {area.name}"
                boxes.setdefault(area.mm_id, {})[box] = text
                edges.append(f"  {key} -> {box}{'' if area.is_home else ' [style=dashed]'};")
            for mm, address in node.slots:
                box = f"pte{mm}_{address:x}"
                boxes.setdefault(mm, {})[box] = f"{address:#x}"
                edges.append(f"  {key} -> {box};")
        for mm_id in sorted(boxes):
            lines.append(f"  subgraph cluster_mm{mm_id} {{ label={_quoted(self._mm_name(mm_id))};")
            lines += [f"    {box} [label={_quoted(text)}, shape=box];" for box, text in sorted(boxes[mm_id].items())]
            lines.append("  }")
        return [*lines, *edges, "}"]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _objects_of(vma: Vma) -> list[Any]:
    """Every object that leads to ``vma``."""
    if vma.anon_vma_chain is not None:
        return [link.anon_vma for link in vma.anon_vma_chain]
    return [] if vma.anon_vma is None else [vma.anon_vma]


def _ancestors(thing: Any) -> list[Any]:
    """The objects that ``thing`` descends from: a tree needs them even when nothing hangs on them any more."""
    if isinstance(thing, Anonmm):
        return [] if thing.head is None else [thing.head]
    found = []
    while isinstance(thing, ChainAnonVma) and thing.parent is not thing:
        thing = thing.parent
        found.append(thing)
    return found


def _pages_by_object(kernel: Kernel) -> tuple[Counter[int], dict[int, Any]]:
    """How many anonymous pages name each object, and the objects that are named."""
    pages = kernel.pages
    counts: Counter[int] = Counter()
    found: dict[int, Any] = {}
    for pfn in (pages.flags_np & PG_anon).nonzero()[0].tolist():
        thing = pages.mapping[pfn]
        if object_name(thing) is not None:
            counts[thing.id] += 1
            found[thing.id] = thing
    return counts, found
