"""``sym:NAME``: when does the first process next execute that function?

Whatever is mapped executable, now or later, has its symbols looked through, and every address that carries the name is
watched (``emu/cpu/code_watch.py``): so functions of shared libraries, of what dlopen brings and of what exec starts are
found without knowing where they will lie.  The watch fires before the function's first instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emu.trace.locate import Locator
from kernel.mm.area import VMA_STORE
from kernel.mm.pagetable import PTE_PRESENT
from kernel.mm.types import PAGE_SHIFT, VM_EXEC
from kernel.trace import Tracepoint
from mmu.paging import PTE_PFN_MASK

if TYPE_CHECKING:
    from emu.board import Board
    from kernel.fs.inode import Inode
    from kernel.mm.types import Vma
    from kernel.task.task import Task


class SymbolWatch:
    """Watches ``name`` on ``board``; calls ``on_reached(task, address)`` in the first process, at every execution."""

    def __init__(self, board: Board, name: str, on_reached: Callable[[Task, int], None]) -> None:
        self._board = board
        self._name = name
        self._on_reached = on_reached
        self._locator = Locator(board.kernel)
        self._watch = board.cpu.watch_code()
        self._watch.start(self._on_execute)
        self._places: dict[int, Inode] = {}
        self._here = (board.cpu.blocks, board.cpu.words[board.cpu.rip_word])
        """Where the machine stands now: an instruction that has been reached is not reached again."""
        VMA_STORE.attach(self._on_store)
        for mm in board.kernel.all_mms():
            for vma in mm.areas:
                self._look_through(vma)

    @property
    def nr_places(self) -> int:
        """Addresses that carry the name."""
        return len(self._places)

    def detach(self) -> None:
        VMA_STORE.detach(self._on_store)
        self._watch.stop()

    def _on_store(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        self._look_through(values[1])

    def _look_through(self, vma: Vma) -> None:
        if vma.vm_file is None or not vma.vm_flags & VM_EXEC:
            return
        for address in self._locator.symbol_addresses(vma, self._name):
            self._places[address] = vma.vm_file.f_inode
            is_new = self._watch.add(address)
            pte = vma.vm_mm.pt.get(address)
            if is_new and pte & PTE_PRESENT:  # it may have been executed before it was watched
                self._board.cpu.invalidate_code((pte & PTE_PFN_MASK) >> PAGE_SHIFT)

    def _on_execute(self, address: int) -> None:
        kernel, init = self._board.kernel, self._board.init
        task = kernel.current
        if task is None or task.mm is None or init is None or task.tgid != init.tgid:
            return
        if (self._board.cpu.blocks, address) == self._here:
            return
        vma = task.mm.areas.find_exact(address)
        if vma is not None and vma.vm_file is not None and vma.vm_file.f_inode is self._places[address]:
            self._on_reached(task, address)
