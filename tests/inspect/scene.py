"""A scene without a processor: the fake kernel with processes whose memory the tests arrange."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from emu.inspect.moment import Moment, Scene
from kernel.hardware import PlainRegisters
from kernel.mm.fault import FaultResult, touch
from kernel.mm.types import MmStruct
from tests.kernel.fakes import fork_mm, make_kernel, make_mm


class World:
    """A kernel with one process; :meth:`fork` adds more."""

    def __init__(self, profile: str = "2.6.7") -> None:
        self.kernel = make_kernel(profile=profile)
        self.kernel.notes_first_writes = True
        self.mm = make_mm(self.kernel)
        self.task = self._task(self.mm)

    def _task(self, mm: MmStruct) -> Any:
        pid = len(self.kernel.tasks) + 2
        task = SimpleNamespace(pid=pid, tgid=pid, comm="prog", mm=mm, regs=PlainRegisters(), kernel=self.kernel)
        self.kernel.tasks[pid] = task
        return task

    def fork(self, mm: MmStruct | None = None) -> MmStruct:
        child = fork_mm(mm or self.mm)
        self._task(child)
        return child

    def write(self, address: int, mm: MmStruct | None = None) -> None:
        assert touch(mm or self.mm, address, write=True) <= FaultResult.MAJOR

    def read(self, address: int, mm: MmStruct | None = None) -> None:
        assert touch(mm or self.mm, address) <= FaultResult.MAJOR

    def scene(self, mm: MmStruct | None = None, address: int | None = None) -> Scene:
        return Scene(self.kernel, self.task, mm or self.mm, Moment.parse("exit"), "a test", address)
