"""When to look at a machine: at a program's end, after its N-th fault or system call, at a symbol.

The habits are gdb's (``break``, ``catch syscall``) and perf's (events by number).  A :class:`Watch` waits for one
moment; when it comes, it calls ``look`` inside the event itself, so that what is seen is the state of that very
instant, and then ends the run with :class:`Reached`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from emu.inspect.symbol_watch import SymbolWatch
from kernel.entry import SYS_EXIT
from kernel.mm.fault import PAGE_FAULT_USER
from kernel.syscalls.names import syscall_name
from kernel.task.exit import SCHED_PROCESS_EXIT
from kernel.trace import Probe, Tracepoint

if TYPE_CHECKING:
    from emu.machine import Machine
    from kernel.mm.types import MmStruct
    from kernel.task.task import Task

T = TypeVar("T")

_NUMBERED = re.compile(r"(fault|syscall):([1-9]\d*)")


class Reached(Exception):
    """The moment has come and was looked at: the run is over."""


class NotReached(Exception):
    """The program ended before the moment came; the text says how far it got."""


class Event(Enum):
    EXIT = "exit"
    FAULT = "fault"
    SYSCALL = "syscall"
    SYMBOL = "sym"


@dataclass(frozen=True)
class Moment:
    """``exit``, ``fault:N``, ``syscall:N`` or ``sym:NAME``."""

    event: Event
    number: int = 0
    symbol: str = ""

    @classmethod
    def parse(cls, text: str) -> Moment:
        """ValueError when ``text`` is no moment."""
        if text == "exit":
            return cls(Event.EXIT)
        match = _NUMBERED.fullmatch(text)
        if match is not None:
            return cls(Event(match[1]), int(match[2]))
        kind, _, name = text.partition(":")
        if kind == "sym" and name:
            return cls(Event.SYMBOL, symbol=name)
        raise ValueError(f"{text!r} is no moment; write exit, fault:N, syscall:N (N from 1) or sym:NAME")

    def __str__(self) -> str:
        if self.event is Event.EXIT:
            return "exit"
        return f"{self.event.value}:{self.symbol or self.number}"


@dataclass(frozen=True)
class Scene:
    """What there is to look at when the moment has come."""

    machine: Machine
    task: Task
    """Whose moment it is: the task that faulted or called, or the first process."""
    mm: MmStruct
    moment: Moment
    what: str
    """The event in words."""
    address: int | None = None
    """The address of the fault; of the symbol."""

    def mms(self) -> list[MmStruct]:
        """All address spaces, the one that exec is making included."""
        return list(dict.fromkeys([*self.machine.kernel.all_mms(), self.mm]))

    def as_json(self) -> dict[str, Any]:
        """The head of every view's JSON."""
        return {
            "at": str(self.moment),
            "event": self.what,
            "pid": self.task.pid,
            "comm": self.task.comm,
            "mm": self.mm.id,
            "kernel": self.machine.kernel.profile.title,
        }


class Watch(Generic[T]):
    """Waits for ``moment`` in ``machine`` and keeps what ``look`` makes of it.

    Must be made before the program is spawned: starting it makes faults and calls too.  ``pid`` asks for the address
    space of another task than the event's own.
    """

    def __init__(self, machine: Machine, moment: Moment, look: Callable[[Scene], T], pid: int | None = None) -> None:
        self._machine = machine
        self._moment = moment
        self._look = look
        self._pid = pid
        self._seen: list[T] = []
        self._nr_faults = 0
        self._nr_syscalls = 0
        self._probes: list[tuple[Tracepoint, Probe]] = []
        self._symbols: SymbolWatch | None = None
        self._attach(SCHED_PROCESS_EXIT, self._on_exit)
        if moment.event is Event.FAULT:
            self._attach(PAGE_FAULT_USER, self._on_fault)
        elif moment.event is Event.SYSCALL:
            self._attach(SYS_EXIT, self._on_syscall)
        elif moment.event is Event.SYMBOL:
            self._symbols = SymbolWatch(machine, moment.symbol, self._on_symbol)

    def _attach(self, tracepoint: Tracepoint, probe: Probe) -> None:
        tracepoint.attach(probe)
        self._probes.append((tracepoint, probe))

    def detach(self) -> None:
        """Stop waiting."""
        for tracepoint, probe in self._probes:
            tracepoint.detach(probe)
        self._probes.clear()
        if self._symbols is not None:
            self._symbols.detach()

    def run(self, argv: list[str]) -> T:
        """Run ``argv`` up to the moment; what ``look`` made of it.  Raises NotReached, and what spawn and run raise."""
        try:
            self._machine.spawn(argv)
            self._machine.run()
        except Reached:
            return self._seen[0]
        finally:
            self.detach()
        raise NotReached(self._how_far())

    def _how_far(self) -> str:
        if self._moment.event is Event.FAULT:
            return f"the program ended after {_count(self._nr_faults, 'fault')}; --at {self._moment} never came"
        if self._moment.event is Event.SYSCALL:
            calls = _count(self._nr_syscalls, "system call")
            return f"the program ended after {calls}; --at {self._moment} never came"
        assert self._symbols is not None, "every program exits"
        was_mapped = self._symbols.nr_places > 0
        why = "was never executed" if was_mapped else "is no function in what the program mapped to execute"
        return f"{self._moment.symbol} {why}"

    # ---- the events ----------------------------------------------------------------------------------------------

    def _on_fault(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, vaddr, vma = values[0], values[1], values[8]
        self._nr_faults += 1
        if self._nr_faults == self._moment.number and task is not None:
            # exec writes to an address space that is not its task's yet
            mm = vma.vm_mm if vma is not None else task.mm
            self._reach(task, f"after fault {self._nr_faults}", vaddr, mm)

    def _on_syscall(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, number, spec = values[0], values[1], values[2]
        self._nr_syscalls += 1
        if self._nr_syscalls == self._moment.number:
            name = spec.name if spec is not None else syscall_name(number)
            self._reach(task, f"after system call {self._nr_syscalls} ({name})")

    def _on_symbol(self, task: Task, address: int) -> None:
        self._reach(task, f"at {self._moment.symbol}", address)

    def _on_exit(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, _code, group_dead = values
        is_next = self._moment.event is Event.SYSCALL and self._nr_syscalls + 1 == self._moment.number
        if is_next and task.syscall_nr >= 0 and task.mm is not None:
            # exit does not return: look while its task still has an address space
            name = syscall_name(task.syscall_nr)
            self._reach(task, f"in system call {self._moment.number} ({name}, which does not return)")
        if self._moment.event is Event.EXIT and group_dead and self._is_first(task):
            self._reach(task, "before the address space of the first process goes")

    def _is_first(self, task: Task) -> bool:
        init = self._machine.init
        return init is not None and task.mm is not None and task.tgid == init.tgid

    def _reach(self, task: Task, what: str, address: int | None = None, mm: MmStruct | None = None) -> None:
        if self._pid is not None:
            chosen = self._machine.kernel.tasks.get(self._pid)
            if chosen is None or chosen.mm is None:
                raise NotReached(f"{what}, there is no process {self._pid} with an address space")
            task, mm = chosen, chosen.mm
        mm = mm or task.mm
        if mm is None:
            raise NotReached(f"{what}, pid {task.pid} has no address space any more")
        self._seen.append(self._look(Scene(self._machine, task, mm, self._moment, what, address)))
        raise Reached


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
