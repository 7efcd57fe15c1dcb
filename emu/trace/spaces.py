"""What happened to address spaces: their areas and their counters, whenever they have changed.

Two kinds of records that no single tracepoint gives:

    areas       which areas of an address space are new or changed, and which are gone
    counters    its resident, swapped and page-table pages, with the machine's free frames and used swap

A change is told right after the record of what caused it: a fault, a system call, fork, exec, exit, a pass of reclaim.
The tracepoints ``mmap:*`` only say which areas must be looked at again, so that an address space of 65,000 areas
costs no more than what has changed in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emu.trace.locate import Locator, permissions
from kernel.entry import SYS_EXIT
from kernel.mm.area import VMA_STORE, VMA_UNLINK
from kernel.mm.exit import EXIT_MMAP
from kernel.mm.fault import PAGE_FAULT_USER
from kernel.mm.rmap.policy import ANON_VMA_PREPARE
from kernel.mm.types import PAGE_SHIFT, MmStruct, Vma
from kernel.mm.vmscan import RECLAIM_END
from kernel.task.exec import SCHED_PROCESS_EXEC
from kernel.task.exit import SCHED_PROCESS_EXIT
from kernel.task.fork import SCHED_PROCESS_FORK
from kernel.trace import Probes, Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.task.task import Task

CATEGORIES = ("areas", "counters")

COUNTERS = ("rss_anon", "rss_file", "rss_shmem", "swap", "page_tables", "areas")
"""Fields of a counters record: pages, but for ``areas``."""

Record = dict[str, Any]
Write = Callable[[Record], None]


class _Space:
    """What was last told of one address space."""

    __slots__ = ("changed", "counters", "known", "mm", "owner", "removed")

    def __init__(self, mm: MmStruct, owner: Task | None) -> None:
        self.mm = mm
        self.owner = owner
        self.known: dict[Vma, tuple[Any, ...]] = {}
        self.changed: dict[Vma, None] = {}
        self.removed: dict[Vma, None] = {}
        self.counters: tuple[int, ...] = (0,) * len(COUNTERS)


class SpaceTracker:
    """Follows all address spaces of a machine, and writes records through ``write``.

    Must be attached after the probes that write the causes, so that causes come first.
    """

    def __init__(self, kernel: Kernel, categories: frozenset[str], write: Write) -> None:
        self._kernel = kernel
        self._tells_areas = "areas" in categories
        self._tells_counters = "counters" in categories
        self._write = write
        self._locator = Locator(kernel)
        self._spaces: dict[MmStruct, _Space] = {}
        self._probes = Probes()

    def attach(self) -> None:
        on = self._probes.attach
        on(PAGE_FAULT_USER, self._after_fault)
        on(SYS_EXIT, self._after_anything)
        on(RECLAIM_END, self._after_anything)
        on(SCHED_PROCESS_EXIT, self._after_anything)
        on(SCHED_PROCESS_FORK, self._after_fork)
        on(SCHED_PROCESS_EXEC, self._after_exec)
        on(EXIT_MMAP, self._at_end)
        if self._tells_areas:
            on(VMA_STORE, self._on_store)
            on(VMA_UNLINK, self._on_unlink)
            on(ANON_VMA_PREPARE, self._on_prepare)

    def detach(self) -> None:
        self._probes.detach_all()

    def _space(self, mm: MmStruct) -> _Space:
        space = self._spaces.get(mm)
        if space is None:
            space = self._spaces[mm] = _Space(mm, self._kernel.current)
        return space

    # ---- what must be looked at again ----------------------------------------------------------------------------

    def _on_store(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        mm, vma = values
        space = self._space(mm)
        space.changed[vma] = None
        space.removed.pop(vma, None)

    def _on_unlink(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        mm, vma = values
        space = self._space(mm)
        space.changed.pop(vma, None)
        space.removed[vma] = None

    def _on_prepare(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        vma = values[0]
        self._space(vma.vm_mm).changed[vma] = None

    # ---- when to look --------------------------------------------------------------------------------------------

    def _after_fault(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        vma = values[8]
        if vma is not None:
            self._tell(self._space(vma.vm_mm))

    def _after_anything(self, _point: Tracepoint, _values: tuple[Any, ...]) -> None:
        for space in list(self._spaces.values()):
            self._tell(space)

    def _after_fork(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        parent, child = values[0], values[1]
        if child.mm is not None and child.mm is not parent.mm:
            space = self._space(child.mm)
            space.owner = child
            self._tell(space)

    def _after_exec(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task = values[0]
        space = self._space(task.mm)
        space.owner = task
        self._tell(space)

    def _at_end(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        """The address space goes, with everything in it."""
        space = self._spaces.pop(values[0], None)
        if space is None:
            return
        if self._tells_areas:
            self._write(self._head("areas", space) | {"removed": [], "added": [], "gone": True})
        if self._tells_counters and any(space.counters):
            self._write_counters(space, (0,) * len(COUNTERS))

    # ---- telling -------------------------------------------------------------------------------------------------

    def _tell(self, space: _Space) -> None:
        if space.changed or space.removed:
            self._tell_areas(space)
        if self._tells_counters:
            mm = space.mm
            counters = (mm.rss_anon, mm.rss_file, mm.rss_shmem, mm.swap_pages, mm.pt.nr_tables, mm.map_count)
            if counters != space.counters:
                self._write_counters(space, counters)

    def _tell_areas(self, space: _Space) -> None:
        known = space.known
        gone = {known.pop(vma)[0] for vma in space.removed if vma in known}
        added = []
        for vma in space.changed:
            now = self._describe(vma)
            before = known.get(vma)
            if now == before:
                continue
            if before is not None and before[0] != now[0]:
                gone.add(before[0])
            known[vma] = now
            added.append(now)
        space.changed.clear()
        space.removed.clear()
        added.sort()
        gone.difference_update(now[0] for now in added)
        if added or gone:
            self._write(
                self._head("areas", space)
                | {
                    "removed": [f"{start:#x}" for start in sorted(gone)],
                    "added": [_area_record(now) for now in added],
                    "gone": False,
                }
            )

    def _describe(self, vma: Vma) -> tuple[Any, ...]:
        return (
            vma.vm_start,
            vma.vm_end,
            permissions(vma),
            vma.vm_pgoff << PAGE_SHIFT,
            self._locator.area_name(vma),
            -1 if vma.anon_vma is None else vma.anon_vma.id,
        )

    def _write_counters(self, space: _Space, counters: tuple[int, ...]) -> None:
        space.counters = counters
        kernel = self._kernel
        self._write(
            self._head("counters", space)
            | dict(zip(COUNTERS, counters, strict=True))
            | {"free": kernel.pages.nr_free, "swap_used": kernel.swap.used_pages}
        )

    @staticmethod
    def _head(kind: str, space: _Space) -> Record:
        """As of any record (``records.py``), but for the owner of the address space, not for who changed it."""
        owner = space.owner
        record: Record = {"type": kind, "n": 0, "ts_ns": 0}
        if owner is None:
            record |= {"pid": 0, "tgid": 0, "comm": "kernel"}
        else:
            record |= {"pid": owner.tgid, "tgid": owner.tgid, "comm": owner.comm}
        return record | {"mm": space.mm.id}


def _area_record(now: tuple[Any, ...]) -> Record:
    start, end, perms, offset, name, anon_vma = now
    return {
        "start": f"{start:#x}",
        "end": f"{end:#x}",
        "perms": perms,
        "offset": f"{offset & (1 << 64) - 1:#x}",
        "name": name,
        "anon_vma": None if anon_vma < 0 else anon_vma,
    }
