"""``pagewalk pt``: the page tables of an address space, as the processor walks them.

Neighbouring entries that say the same (state, permissions, accessed, dirty, area) are one line; ``--frames`` begins a
new one wherever the frames or swap slots are not in a row; ``--raw`` shows every entry with its bits, ``--level`` the
tables above.  QEMU's ``info mem`` and ``info tlb`` are the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from emu.inspect.columns import align, count_text, size_text
from emu.trace.locate import Locator, short_name
from kernel.mm.pagetable import PTE_PRESENT, PTE_PROTNONE, PTE_SPECIAL, is_swap_pte, pte_to_swp_entry
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, TASK_SIZE
from mmu.paging import PTE_A, PTE_D, PTE_NX, PTE_P, PTE_PCD, PTE_PFN_MASK, PTE_PS, PTE_PWT, PTE_U, PTE_W

if TYPE_CHECKING:
    from emu.inspect.moment import Scene
    from kernel.mm.types import MmStruct, Vma

_LEAF = 1
_ROOT = 4
_USER_SLOTS = 256
"""Entries of the root that belong to the user; the processor's own are above."""

_BITS = (
    (PTE_P, "P"), (PTE_W, "W"), (PTE_U, "U"), (PTE_PWT, "PWT"), (PTE_PCD, "PCD"), (PTE_A, "A"), (PTE_D, "D"),
    (PTE_PS, "PS"), (PTE_PROTNONE, "PROTNONE"), (PTE_SPECIAL, "SPECIAL"), (PTE_NX, "NX"),
)  # fmt: skip


class State(Enum):
    """What an entry of the last level is."""

    PAGE = "page"
    ZERO = "zero"
    """The page of zeros that all share."""
    SPECIAL = "special"
    """A frame that is not counted: device memory."""
    PROT_NONE = "prot-none"
    """A page that stays while nobody may use it."""
    SWAP = "swap"


@dataclass(frozen=True)
class PtOptions:
    first: int = 0
    last: int = TASK_SIZE
    """Exclusive."""
    level: int = _LEAF
    frames: bool = False
    raw: bool = False


@dataclass(frozen=True)
class Entry:
    """One entry of a table."""

    vaddr: int
    value: int
    paddr: int
    """Where the entry itself lies."""


@dataclass
class PtRow:
    """One or more entries of the last level that go together."""

    start: int
    nr_pages: int
    state: State
    frame: int
    """The first frame, or the first slot on swap."""
    step: int | None
    """From one frame to the next: 1, -1, 0 (all the same), or None: in no order."""
    swap_type: int | None
    perms: str
    accessed: bool
    dirty: bool
    area: str | None

    @property
    def end(self) -> int:
        return self.start + (self.nr_pages << PAGE_SHIFT)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "start": f"{self.start:#x}",
            "end": f"{self.end:#x}",
            "pages": self.nr_pages,
            "state": self.state.value,
            "perms": self.perms,
            "accessed": self.accessed,
            "dirty": self.dirty,
            "area": self.area,
        }
        if self.state is State.SWAP:
            return found | {"swap_type": self.swap_type, "slot": self.frame, "slot_step": self.step}
        return found | {"pfn": self.frame, "pfn_step": self.step}

    def frames_text(self) -> str:
        """``0x12-0x15``, ``0x12 ...``, ``zero page``, ``swap 0:17``."""
        if self.state is State.ZERO:
            return "zero page"
        if self.step is None:
            return f"swap {self.swap_type}:{self.frame} ..." if self.state is State.SWAP else f"{self.frame:#x} ..."
        last = self.frame + self.step * (self.nr_pages - 1)
        if self.state is State.SWAP:
            slots = f"{self.frame}" if last == self.frame else f"{self.frame}-{last}"
            return f"swap {self.swap_type}:{slots}"
        return f"{self.frame:#x}" if last == self.frame else f"{self.frame:#x}-{last:#x}"


class PtView:
    """The page tables of one mm at one moment."""

    def __init__(self, scene: Scene, options: PtOptions) -> None:
        self._head = scene.as_json()
        self._options = options
        self._fault = scene.address
        mm = scene.mm
        self._nr_tables = mm.pt.nr_tables + 1
        self._root = mm.pt.cr3
        locator = Locator(scene.kernel)
        entries = list(_entries(mm, options))
        self._names = _Names(mm, locator)
        self._is_raw = options.raw or options.level > _LEAF
        self.rows = [] if self._is_raw else list(_rows(mm, entries, self._names, options.frames))
        self.entries = [_entry_json(mm, e, options.level, self._names) for e in entries] if self._is_raw else []

    def as_json(self) -> dict[str, Any]:
        head = {
            "type": "pt",
            "schema": 1,
            **self._head,
            "cr3": f"{self._root:#x}",
            "tables": self._nr_tables,
            "level": self._options.level,
        }
        if self._is_raw:
            return head | {"entries": self.entries}
        return head | {"ranges": [row.as_json() for row in self.rows]}

    def lines(self) -> list[str]:
        title = f"cr3 {self._root:#x}, {count_text(self._nr_tables, 'table')}"
        if self._is_raw:
            header = ["  address", "entry at", "value", "bits", "target", "area"]
            return [title, *align(header, [self._entry_cells(found) for found in self.entries])]
        header = ["  range", "size", "frame", "perms", "A", "D", "state", "area"]
        return [title, *align(header, [self._cells(row) for row in self.rows])]

    def _cells(self, row: PtRow) -> list[str]:
        return [
            f"{self._mark(row.start, row.end)}{row.start:#x}-{row.end:#x}",
            size_text(row.nr_pages << PAGE_SHIFT),
            row.frames_text(),
            row.perms,
            "A" if row.accessed else "-",
            "D" if row.dirty else "-",
            row.state.value,
            row.area or "-",
        ]

    def _entry_cells(self, found: dict[str, Any]) -> list[str]:
        start = int(found["address"], 16)
        end = start + (PAGE_SIZE << 9 * (self._options.level - 1))
        return [
            f"{self._mark(start, end)}{start:#x}",
            found["entry_at"],
            f"{int(found['value'], 16):#018x}",
            " ".join(found["bits"]) or "-",
            found["target"],
            found["area"] or "-",
        ]

    def _mark(self, start: int, end: int) -> str:
        """A star for where the moment's own fault was."""
        return "* " if self._fault is not None and start <= self._fault < end else "  "


class _Names:
    """Names of areas, looked up once each."""

    def __init__(self, mm: MmStruct, locator: Locator) -> None:
        self._mm = mm
        self._locator = locator
        self._vma: Vma | None = None
        self._name: str | None = None

    def area(self, vaddr: int) -> Vma | None:
        vma = self._vma
        if vma is None or not vma.vm_start <= vaddr < vma.vm_end:
            self._vma = vma = self._mm.areas.find_exact(vaddr)
            self._name = None if vma is None else short_name(self._locator.area_name(vma))
        return vma

    def name(self, vaddr: int) -> str | None:
        self.area(vaddr)
        return self._name


# ---- reading the tables ---------------------------------------------------------------------------------------------


def _entries(mm: MmStruct, options: PtOptions) -> Iterator[Entry]:
    """The entries of one level that are not zero, from the root down, as the hardware finds them."""
    yield from _table(mm, mm.pt.root_pfn, _ROOT, 0, options)


def _table(mm: MmStruct, pfn: int, level: int, base: int, options: PtOptions) -> Iterator[Entry]:
    span_shift = PAGE_SHIFT + 9 * (level - 1)
    nr_slots = _USER_SLOTS if level == _ROOT else 512
    words = mm.kernel.physmem.words[pfn, :nr_slots]
    for slot in words.nonzero()[0].tolist():
        vaddr = base + (slot << span_shift)
        if vaddr >= options.last or vaddr + (1 << span_shift) <= options.first:
            continue
        value = int(words[slot])
        if level == options.level:
            yield Entry(vaddr, value, (pfn << PAGE_SHIFT) + slot * 8)
        else:
            yield from _table(mm, (value & PTE_PFN_MASK) >> PAGE_SHIFT, level - 1, vaddr, options)


def state_of(mm: MmStruct, pte: int) -> State:
    if is_swap_pte(pte):
        return State.SWAP
    if pte & PTE_SPECIAL:
        pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
        return State.ZERO if pfn == mm.kernel.pages.zero_pfn else State.SPECIAL
    return State.PAGE if pte & PTE_P else State.PROT_NONE


def perms_of(pte: int) -> str:
    """What the processor would allow user code: ``r-x``."""
    if not pte & PTE_P:
        return "---"
    return "r" + ("w" if pte & PTE_W else "-") + ("-" if pte & PTE_NX else "x")


def _rows(mm: MmStruct, entries: Sequence[Entry], names: _Names, break_at_frames: bool) -> Iterator[PtRow]:
    row: PtRow | None = None
    row_key: object = None
    for entry in entries:
        pte = entry.value
        state = state_of(mm, pte)
        frame, swap_type = (pte & PTE_PFN_MASK) >> PAGE_SHIFT, None
        if state is State.SWAP:
            swap_type, frame = pte_to_swp_entry(pte)
        vma = names.area(entry.vaddr)
        is_present = bool(pte & PTE_PRESENT)
        accessed, dirty = is_present and bool(pte & PTE_A), is_present and bool(pte & PTE_D)
        key = (state, swap_type, perms_of(pte), accessed, dirty, vma)
        if row is not None and key == row_key and entry.vaddr == row.end:
            if _continues(row, frame):
                row.nr_pages += 1
                continue
            if not break_at_frames:
                row.nr_pages += 1
                row.step = None
                continue
        if row is not None:
            yield row
        row_key = key
        row = PtRow(entry.vaddr, 1, state, frame, 0, swap_type, perms_of(pte), accessed, dirty, names.name(entry.vaddr))
    if row is not None:
        yield row


def _continues(row: PtRow, frame: int) -> bool:
    """Does ``frame`` come next?  The second one of a row fixes its step."""
    if row.nr_pages == 1:
        step = frame - row.frame
        if step not in (1, -1) and not (step == 0 and row.state is State.ZERO):
            return False
        row.step = step
        return True
    return row.step is not None and frame == row.frame + row.step * row.nr_pages


def _entry_json(mm: MmStruct, entry: Entry, level: int, names: _Names) -> dict[str, Any]:
    value = entry.value
    is_swap = level == _LEAF and is_swap_pte(value)
    if is_swap:
        swap_type, slot = pte_to_swp_entry(value)
        target, bits = f"swap {swap_type}:{slot}", []
    else:
        pfn = (value & PTE_PFN_MASK) >> PAGE_SHIFT
        bits = [name for bit, name in _BITS if value & bit]
        target = f"pfn {pfn:#x}"
        if level > _LEAF:
            used = int((mm.kernel.physmem.words[pfn] != 0).sum())
            target += f", a table with {used} used entries" if used != 1 else ", a table with 1 used entry"
    return {
        "address": f"{entry.vaddr:#x}",
        "entry_at": f"{entry.paddr:#x}",
        "value": f"{value:#x}",
        "bits": bits,
        "target": target,
        "area": names.name(entry.vaddr) if level == _LEAF else None,
    }
