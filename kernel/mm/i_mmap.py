"""Who maps which pages of a file: ``i_mmap``, an interval tree by page offset.

Models ``mm/interval_tree.c`` (and, for the sharing of nodes, ``mm/prio_tree.c`` of 2.6: areas with the same range hang
on one node, so that fork adds a child's area to its parent's node at once).

A treap ordered by (first, last); each node knows the greatest ``last`` below it.  add and remove of a known range are
O(1), of a new range O(log n); a query is O(log n + hits).  Priorities come from a counter, so that the
shape, and everything else, is the same every run.
"""

from __future__ import annotations

from kernel.mm.types import PAGE_SHIFT, Vma


class _Node:
    """All areas that map exactly pages ``first .. last``."""

    __slots__ = ("first", "greatest", "last", "left", "priority", "right", "vmas")

    def __init__(self, first: int, last: int, priority: int) -> None:
        self.first = first
        self.last = last
        self.greatest = last
        self.priority = priority
        self.left: _Node | None = None
        self.right: _Node | None = None
        self.vmas: dict[Vma, None] = {}


def _update(node: _Node) -> None:
    greatest = node.last
    if node.left is not None and node.left.greatest > greatest:
        greatest = node.left.greatest
    if node.right is not None and node.right.greatest > greatest:
        greatest = node.right.greatest
    node.greatest = greatest


def _split(node: _Node | None, key: tuple[int, int]) -> tuple[_Node | None, _Node | None]:
    """Nodes below ``key``, and the others."""
    if node is None:
        return None, None
    if (node.first, node.last) < key:
        node.right, upper = _split(node.right, key)
        _update(node)
        return node, upper
    lower, node.left = _split(node.left, key)
    _update(node)
    return lower, node


def _join(lower: _Node | None, upper: _Node | None) -> _Node | None:
    if lower is None:
        return upper
    if upper is None:
        return lower
    if lower.priority > upper.priority:
        lower.right = _join(lower.right, upper)
        _update(lower)
        return lower
    upper.left = _join(lower, upper.left)
    _update(upper)
    return upper


def _range(vma: Vma) -> tuple[int, int]:
    first = vma.vm_pgoff
    return first, first + ((vma.vm_end - vma.vm_start) >> PAGE_SHIFT) - 1


class MappingTree:
    """The areas that map one file.

    An area's ``vm_start``, ``vm_end`` and ``vm_pgoff`` must not change while it is in here.
    """

    __slots__ = ("_nodes", "_root", "_seed", "nr_vmas")

    def __init__(self) -> None:
        self._root: _Node | None = None
        self._nodes: dict[tuple[int, int], _Node] = {}
        self._seed = 0
        self.nr_vmas = 0

    def __len__(self) -> int:
        return self.nr_vmas

    def add(self, vma: Vma) -> None:
        key = _range(vma)
        node = self._nodes.get(key)
        if node is None:
            # splitmix64's finisher over a counter
            self._seed += 1
            priority = self._seed * 0x9E37_79B9_7F4A_7C15 & 0xFFFF_FFFF_FFFF_FFFF
            priority = (priority ^ priority >> 30) * 0xBF58_476D_1CE4_E5B9 & 0xFFFF_FFFF_FFFF_FFFF
            node = self._nodes[key] = _Node(*key, priority)
            lower, upper = _split(self._root, key)
            self._root = _join(_join(lower, node), upper)
        if vma in node.vmas:
            raise AssertionError(f"{vma!r} is in i_mmap already")
        node.vmas[vma] = None
        self.nr_vmas += 1

    def remove(self, vma: Vma) -> None:
        """KeyError if ``vma`` is not here, or its range changed since :meth:`add`."""
        key = _range(vma)
        node = self._nodes[key]
        del node.vmas[vma]
        self.nr_vmas -= 1
        if not node.vmas:
            del self._nodes[key]
            lower, rest = _split(self._root, key)
            _, upper = _split(rest, (key[0], key[1] + 1))
            self._root = _join(lower, upper)

    def overlapping(self, first: int, last: int) -> list[Vma]:
        """All areas that map a page in ``first .. last``, by offset, then by age.  A list: the tree may change."""
        found: list[Vma] = []
        stack: list[_Node] = []
        node = self._root
        while stack or node is not None:
            while node is not None and node.greatest >= first:
                stack.append(node)
                node = node.left
            if not stack:
                break
            node = stack.pop()
            if node.first > last:
                break
            if node.last >= first:
                found.extend(node.vmas)
            node = node.right
        return found
