"""``sym:NAME``: when does the first process first execute that function?

Whenever a file is mapped executable its symbols are looked through, and every address that carries the name is watched
(``emu/cpu/code_watch.py``): so functions of shared libraries, of what dlopen brings and of what exec starts are found
without knowing where they will lie.  The watch fires before the function's first instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from emu.cpu.code_watch import CodeWatch
from emu.trace.locate import Locator
from kernel.mm.area import VMA_STORE
from kernel.mm.types import VM_EXEC
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from emu.machine import Machine
    from kernel.fs.inode import Inode
    from kernel.mm.types import Vma
    from kernel.task.task import Task


class SymbolWatch:
    """Watches ``name`` in ``machine``; calls ``on_reached(task, address)`` in the first process, at every execution."""

    def __init__(self, machine: Machine, name: str, on_reached: Callable[[Task, int], None]) -> None:
        self._machine = machine
        self._name = name
        self._on_reached = on_reached
        self._locator = Locator(machine.kernel)
        self._watch = CodeWatch(machine.cpu, self._on_execute)
        self._places: dict[int, Inode] = {}
        VMA_STORE.attach(self._on_store)

    @property
    def nr_places(self) -> int:
        """Addresses that carry the name."""
        return len(self._places)

    def detach(self) -> None:
        VMA_STORE.detach(self._on_store)
        self._watch.close()

    def _on_store(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        vma: Vma = values[1]
        if vma.vm_file is None or not vma.vm_flags & VM_EXEC:
            return
        for address in self._locator.symbol_addresses(vma, self._name):
            self._places[address] = vma.vm_file.f_inode
            self._watch.add(address)

    def _on_execute(self, address: int) -> None:
        kernel, init = self._machine.kernel, self._machine.init
        task = kernel.current
        if task is None or task.mm is None or init is None or task.tgid != init.tgid:
            return
        vma = task.mm.areas.find_exact(address)
        if vma is not None and vma.vm_file is not None and vma.vm_file.f_inode is self._places[address]:
            self._on_reached(task, address)
