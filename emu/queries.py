"""Looking at a machine that stands still, and what may be done to its memory then.

The views are those of ``pagewalk maps``, ``pt``, ``page`` and ``rmap`` (``emu/inspect``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.errors import BadAddress, NoSuchTask
from emu.inspect.moment import Scene, Stopped
from emu.inspect.page import PageView, PteRow
from emu.inspect.rmap import RmapView
from kernel.hardware import Reg
from kernel.mm.types import PAGE_SHIFT, TASK_SIZE
from mmu.paging import PTE_P, PTE_PFN_MASK

if TYPE_CHECKING:
    from emu.board import Board
    from kernel.task.task import Task

_MAX_PASSES = 3
"""A page that was used is passed over once, one that was used through two tables twice."""


def task_of(board: Board, pid: int | None, stopped: Stopped | None) -> Task:
    """The task ``pid``; None: the one that runs, whose moment it is, or the first process."""
    if pid is not None:
        task = board.kernel.tasks.get(pid)
        if task is None or task not in board.tasks:
            raise NoSuchTask(f"there is no process {pid}; there are {', '.join(str(task.pid) for task in board.tasks)}")
        return task
    here = board.kernel.current or (stopped.task if stopped is not None else None) or board.init
    if here is None:
        raise NoSuchTask("no program was started")
    return here


def scene_of(board: Board, pid: int | None, stopped: Stopped | None) -> Scene:
    """The address space of that task, with the event that the machine stands at."""
    from emu.inspect.moment import Event, Moment

    task = task_of(board, pid, stopped)
    is_own = stopped is not None and stopped.task is task and stopped.mm is not None
    mm = stopped.mm if stopped is not None and is_own else task.mm
    if mm is None:
        raise NoSuchTask(f"pid {task.pid} has no address space any more")
    if stopped is None:
        return Scene(board.kernel, task, mm, Moment(Event.RECORD), "in an event")
    return Scene(board.kernel, task, mm, stopped.moment, stopped.what, stopped.address if is_own else None)


class RmapQueries:
    """``machine.rmap``: the kernel's reverse map, asked."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def walk(self, pfn: int) -> list[PteRow]:
        """Every entry that maps the frame: what the policy proposes, and what reading all page tables finds."""
        return PageView(self._scene, f"pfn:{pfn:#x}").rows

    def graph(self) -> RmapView:
        """The objects of the reverse map and what hangs on them."""
        return RmapView(self._scene)


def page_out(scene: Scene, address: int) -> bool:
    """Try to reclaim the page at ``address``; has it gone?

    As reclaim does it when the page has come to the end of the inactive list, and again as long as it is passed over
    for having been used.
    """
    kernel, mm = scene.kernel, scene.mm
    pte = mm.pt.get(address) if 0 <= address < TASK_SIZE else 0
    if not pte & PTE_P:
        raise BadAddress(f"no page is mapped at {address:#x}")
    pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    for _ in range(_MAX_PASSES):
        kernel.lru.drain()
        if not kernel.lru.isolate_page(pfn):
            return False
        if kernel.reclaim.shrink_list([pfn]):
            return True
    return False


def registers_of(task: Task) -> dict[str, int]:
    """The registers of ``task`` by their names: ``rax``, ``rip``, ``eflags`` ..."""
    return {reg.name.lower(): value for reg, value in zip(Reg, task.regs.read_all(), strict=True)}
