"""When to look at a machine: at a program's end, after its N-th fault or system call, at a symbol, at a time.

The habits are gdb's (``break``, ``catch syscall``) and perf's (events by number).  A :class:`Watch` waits for one
moment; when it comes, it says so inside the event itself, so that what is seen is the state of that very instant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from emu.inspect.symbol_watch import SymbolWatch
from kernel.clock import NS_PER_SEC
from kernel.entry import SYS_EXIT
from kernel.mm.fault import PAGE_FAULT_USER
from kernel.syscalls.names import syscall_name
from kernel.task.exit import SCHED_PROCESS_EXIT
from kernel.trace import Probes, Tracepoint

if TYPE_CHECKING:
    from emu.board import Board
    from kernel.kernel import Kernel
    from kernel.mm.types import MmStruct
    from kernel.task.task import Task

_NUMBERED = re.compile(r"(fault|syscall):([1-9]\d*)")
_TIME = re.compile(r"time:(\d+)(?:\.(\d{1,9}))?")


class Event(Enum):
    """Why a machine stands still; all but the last three can be waited for by ``--at``."""

    EXIT = "exit"
    FAULT = "fault"
    SYSCALL = "syscall"
    SYMBOL = "sym"
    TIME = "time"
    RECORD = "event"
    """Something that ``When`` describes."""
    END = "end"
    """The first program is gone."""
    START = "start"
    """Nothing has run yet."""


@dataclass(frozen=True)
class Moment:
    """``exit``, ``fault:N``, ``syscall:N``, ``sym:NAME`` or ``time:SECONDS``."""

    event: Event
    number: int = 0
    """Of the fault or call; nanoseconds of a time."""
    symbol: str = ""

    @classmethod
    def parse(cls, text: str) -> Moment:
        """ValueError when ``text`` is no moment."""
        if text == "exit":
            return cls(Event.EXIT)
        match = _NUMBERED.fullmatch(text)
        if match is not None:
            return cls(Event(match[1]), int(match[2]))
        match = _TIME.fullmatch(text)
        if match is not None:
            return cls(Event.TIME, int(match[1]) * NS_PER_SEC + int((match[2] or "").ljust(9, "0")))
        kind, _, name = text.partition(":")
        if kind == "sym" and name:
            return cls(Event.SYMBOL, symbol=name)
        raise ValueError(f"{text!r} is no moment; write exit, fault:N, syscall:N (N from 1), sym:NAME or time:SECONDS")

    def __str__(self) -> str:
        if self.event in (Event.FAULT, Event.SYSCALL):
            return f"{self.event.value}:{self.number}"
        if self.event is Event.SYMBOL:
            return f"sym:{self.symbol}"
        if self.event is Event.TIME:
            seconds, ns = divmod(self.number, NS_PER_SEC)
            return f"time:{seconds}" + f".{ns:09}".rstrip("0").rstrip(".")
        return self.event.value


@dataclass(frozen=True)
class Stopped:
    """Where a machine stands still, and why."""

    moment: Moment
    what: str
    """The same in words: ``after fault 7``."""
    task: Task | None = None
    """Whose moment it is: the task that faulted or called, or the first process."""
    mm: MmStruct | None = None
    address: int | None = None
    """Of the fault; of the symbol."""
    record: dict[str, Any] | None = None
    """What ``When`` waited for, as in a trace."""
    in_kernel: bool = False
    """In the middle of something that the kernel does: what would change memory must wait."""
    status: int | None = None
    """The exit status, if the program has ended."""

    @property
    def reason(self) -> Event:
        return self.moment.event

    def __str__(self) -> str:
        task = "" if self.task is None else f", {self.task.comm or 'exec'} (pid {self.task.pid})"
        address = "" if self.address is None else f", address {self.address:#x}"
        return f"{self.what}{task}{address}"

    def __repr__(self) -> str:
        return f"<Stopped {self}>"


@dataclass(frozen=True)
class Scene:
    """An address space to look at, at the moment that has come."""

    kernel: Kernel
    task: Task
    mm: MmStruct
    moment: Moment
    what: str
    """The event in words."""
    address: int | None = None
    """The address of the fault; of the symbol."""

    def mms(self) -> list[MmStruct]:
        """All address spaces, the one that exec is making included."""
        return list(dict.fromkeys([*self.kernel.all_mms(), self.mm]))

    def as_json(self) -> dict[str, Any]:
        """The head of every view's JSON."""
        return {
            "at": str(self.moment),
            "event": self.what,
            "pid": self.task.pid,
            "comm": self.task.comm,
            "mm": self.mm.id,
            "kernel": self.kernel.profile.title,
        }


class Watch:
    """Waits for ``moment`` on ``board`` and calls ``on_reach`` inside the event.

    Faults and calls are numbered from the machine's start, those of loading programs included.
    """

    def __init__(self, board: Board, moment: Moment, on_reach: Callable[[Stopped], None]) -> None:
        self._board = board
        self._moment = moment
        self._on_reach = on_reach
        self._nr_syscalls = board.entry.nr_syscalls - sum(not task.exiting for task in board.entry.calls_under_way)
        self._probes = Probes()
        self._symbols: SymbolWatch | None = None
        if moment.event is Event.FAULT:
            self._refuse_past(board.kernel.vmstat.pgfault, "fault")
            self._probes.attach(PAGE_FAULT_USER, self._on_fault)
        elif moment.event is Event.SYSCALL:
            self._refuse_past(self._nr_syscalls, "system call")
            self._probes.attach(SYS_EXIT, self._on_syscall)
        elif moment.event is Event.SYMBOL:
            self._symbols = SymbolWatch(board, moment.symbol, self._on_symbol)
        elif moment.event is Event.TIME:
            if moment.number <= board.kernel.clock.now_ns():
                raise ValueError(f"{moment} is over: the machine's clock shows {board.kernel.clock.now_ns() / 1e9:.9f}")
            board.alarm_ns, board.on_alarm = moment.number, self._on_time
        if moment.event in (Event.EXIT, Event.SYSCALL):
            self._probes.attach(SCHED_PROCESS_EXIT, self._on_exit)

    def _refuse_past(self, nr_past: int, noun: str) -> None:
        if self._moment.number <= nr_past:
            raise ValueError(
                f"{self._moment} is over: the machine has seen {_count(nr_past, noun)}, those of loading its program "
                "included (run_program sees those too)"
            )

    def detach(self) -> None:
        """Stop waiting."""
        self._probes.detach_all()
        if self._symbols is not None:
            self._symbols.detach()
        if self._moment.event is Event.TIME:
            self._board.alarm_ns = None

    def how_far(self) -> str:
        """The program has ended, and the moment has not come: why."""
        if self._moment.event is Event.FAULT:
            how_far = f"after {_count(self._board.kernel.vmstat.pgfault, 'fault')}"
        elif self._moment.event is Event.SYSCALL:
            how_far = f"after {_count(self._nr_syscalls, 'system call')}"
        elif self._symbols is not None:
            was_mapped = self._symbols.nr_places > 0
            why = "was never executed" if was_mapped else "is no function in what the program mapped to execute"
            return f"{self._moment.symbol} {why}"
        else:
            how_far = f"at {self._board.kernel.clock.now_ns() / NS_PER_SEC:.9f} s"
        return f"the program ended {how_far}; {self._moment} never came"

    # ---- the events ----------------------------------------------------------------------------------------------

    def _on_fault(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        if self._board.kernel.vmstat.pgfault != self._moment.number:
            return
        task, vaddr, ip, vma = values[0], values[1], values[3], values[8]
        # exec writes to an address space that is not its task's yet
        mm = vma.vm_mm if vma is not None else task.mm
        what = f"after fault {self._moment.number}"
        self._on_reach(Stopped(self._moment, what, task, mm, vaddr, in_kernel=not ip))

    def _on_syscall(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, number, spec, ret = values[0], values[1], values[2], values[4]
        if ret is None:
            return  # told already, when the task ended
        self._nr_syscalls += 1
        if self._nr_syscalls == self._moment.number:
            name = spec.name if spec is not None else syscall_name(number)
            self._on_reach(Stopped(self._moment, f"after system call {self._nr_syscalls} ({name})", task, task.mm))

    def _on_symbol(self, task: Task, address: int) -> None:
        self._on_reach(Stopped(self._moment, f"at {self._moment.symbol}", task, task.mm, address))

    def _on_time(self) -> None:
        task = self._board.kernel.current or self._board.init
        self._on_reach(Stopped(self._moment, f"at {self._moment}", task, None if task is None else task.mm))

    def _on_exit(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, _code, group_dead = values
        if self._moment.event is Event.SYSCALL and task in self._board.entry.calls_under_way:
            # it does not return: look while its task still has an address space
            self._nr_syscalls += 1
            if self._nr_syscalls == self._moment.number:
                name = syscall_name(self._board.entry.calls_under_way[task][0])
                what = f"in system call {self._nr_syscalls} ({name}, which does not return)"
                self._on_reach(Stopped(self._moment, what, task, task.mm))
        if self._moment.event is Event.EXIT and group_dead and self._is_first(task):
            self._on_reach(Stopped(self._moment, "before the address space of the first process goes", task, task.mm))

    def _is_first(self, task: Task) -> bool:
        init = self._board.init
        return init is not None and task.mm is not None and task.tgid == init.tgid


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
