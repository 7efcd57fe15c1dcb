"""How areas came to be what they are: the calls that made, changed and moved them, and the first writes.

Kept while the program runs, because nobody knows yet which mremap will fail: a few numbers for each call and first
write, made into words when they are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emu.check.callers import MAX_FRAMES, Callers
from emu.check.model import Chain, FirstWrite, MemoryEvent
from emu.trace.calls import Call
from emu.trace.printer import CallPrinter
from kernel.mm.rmap.policy import ANON_VMA_PREPARE
from kernel.mm.types import (
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_RAND_READ,
    VM_SEALED,
    VM_SEQ_READ,
    VM_WIPEONFORK,
    MmStruct,
    Vma,
)
from kernel.syscalls.table import SyscallSpec
from kernel.task.fork import SCHED_PROCESS_FORK
from kernel.trace import Probes, Tracepoint

if TYPE_CHECKING:
    from kernel.task.task import Task

MAX_EVENTS = 20_000
"""Of one address space; older ones are forgotten."""
MAX_STACKS = 20_000
"""After so many stacks only the innermost function is noted."""
_MAX_TOLD = 4

_PROTECTION = VM_ACCESS_FLAGS | VM_ACCOUNT
_LOCKING = VM_LOCKED | VM_LOCKONFAULT
_ADVICE = (
    VM_SEQ_READ | VM_RAND_READ | VM_DONTCOPY | VM_WIPEONFORK | VM_DONTDUMP | VM_HUGEPAGE | VM_NOHUGEPAGE | VM_MERGEABLE
)
_ALL = -1
_CHANGES = {
    "mmap": _ALL, "brk": _ALL, "mremap": _LOCKING | VM_ACCOUNT, "mprotect": _PROTECTION, "pkey_mprotect": _PROTECTION,
    "mlock": _LOCKING, "mlock2": _LOCKING, "munlock": _LOCKING, "mlockall": _LOCKING, "munlockall": _LOCKING,
    "madvise": _ADVICE, "prctl": 0, "mseal": VM_SEALED, "munmap": 0,
}  # fmt: skip
"""Calls that are noted, and the flags of an area that each can change."""
_PLACING = ("mmap", "brk", "mremap")
_EVERYWHERE = (0, 1 << 47)
_PR_SET_VMA = 0x53564D41

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Event:
    nr: int
    pid: int
    spec: SyscallSpec
    args: tuple[int, ...]
    ret: int
    ranges: tuple[Range, ...]
    stack: tuple[int, ...]

    def overlaps(self, vma: Vma) -> bool:
        return any(start < vma.vm_end and vma.vm_start < end for start, end in self.ranges)

    def settles(self, vma: Vma, differing: int) -> bool:
        """Does nothing count any more that came before, because the area was new then or got all its flags?"""
        if self.spec.name in _PLACING:
            return True
        covers = any(start <= vma.vm_start and vma.vm_end <= end for start, end in self.ranges)
        return covers and bool(differing) and not differing & ~_CHANGES[self.spec.name]

    def has_edge(self, address: int) -> bool:
        return any(address in bounds for bounds in self.ranges)


@dataclass(frozen=True, slots=True)
class _Write:
    pid: int
    vaddr: int | None
    stack: tuple[int, ...]
    how: str


def memory_call_text(spec: SyscallSpec, args: tuple[int, ...]) -> str:
    """The call without its result, as strace prints it; for calls whose arguments are numbers."""
    call = Call(None, None, spec.name, spec.params, args, ret=0)
    printer = CallPrinter(spec)
    printer.enter(call)
    printer.leave(call)
    return f"{spec.name}({', '.join(text or '?' for text in call.texts)})"


class History:
    """Of all address spaces of one machine; attached while the program runs."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._events: dict[int, deque[_Event]] = {}
        self._parents: dict[int, tuple[int, int]] = {}  # mm -> the mm it was forked from, its last event then
        self._brks: dict[int, int] = {}
        self._first_writes: dict[int, _Write] = {}
        self._nr_events = 0
        self._nr_stacks = 0
        self._probes = Probes()

    def attach(self) -> None:
        self._probes.attach(ANON_VMA_PREPARE, self._on_prepare)
        self._probes.attach(SCHED_PROCESS_FORK, self._on_fork)

    def detach(self) -> None:
        self._probes.detach_all()

    # ---- noting --------------------------------------------------------------------------------------------------

    def note(self, task: Task, spec: SyscallSpec, args: tuple[int, ...], ret: int) -> None:
        """``task`` made a memory call, which succeeded."""
        mm = task.mm
        if mm is None or spec.name not in _CHANGES:
            return
        ranges = tuple((start & ~4095, end + 4095 & ~4095) for start, end in self._ranges(mm, spec.name, args, ret))
        if not ranges:
            return
        self._nr_events += 1
        events = self._events.setdefault(mm.id, deque(maxlen=MAX_EVENTS))
        events.append(_Event(self._nr_events, task.pid, spec, args, ret, ranges, self._stack(task)))

    def _ranges(self, mm: MmStruct, name: str, args: tuple[int, ...], ret: int) -> Iterable[Range]:
        if name == "mmap":
            return [(ret, ret + args[1])]
        if name == "brk":
            before = self._brks.get(mm.id, mm.start_brk)
            self._brks[mm.id] = ret
            return [(before, ret)] if before < ret else []
        if name == "mremap":
            return [(args[0], args[0] + args[1]), (ret, ret + args[2])]
        if name in ("mlockall", "munlockall"):
            return [_EVERYWHERE]
        if name == "prctl":
            return [(args[2], args[2] + args[3])] if args[0] == _PR_SET_VMA else []
        return [(args[0], args[0] + args[1])]

    def _stack(self, task: Task) -> tuple[int, ...]:
        self._nr_stacks += 1
        return self._callers.stack(task, MAX_FRAMES if self._nr_stacks <= MAX_STACKS else 1)

    def _on_prepare(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        vma, how, anon_vma = values
        if how != "new":
            return
        first = vma.first_write
        task, vaddr = first.task, first.vaddr
        if task is None or task.mm is not vma.vm_mm:
            made = _Write(0 if task is None else task.pid, vaddr, (), "exec")
        else:
            made = _Write(task.pid, vaddr, self._stack(task), "write")
        self._first_writes[anon_vma.id] = made

    def _on_fork(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        parent, child = values[0], values[1]
        if child.mm is None or parent.mm is None or child.mm is parent.mm:
            return
        self._parents[child.mm.id] = parent.mm.id, self._nr_events
        if parent.mm.id in self._brks:
            self._brks[child.mm.id] = self._brks[parent.mm.id]

    # ---- telling -------------------------------------------------------------------------------------------------

    def first_write(self, mm: MmStruct, anon_vma: int) -> FirstWrite:
        """What made that anon_vma of an area of ``mm``; nobody's write when fork gave it to a child's area."""
        made = self._first_writes.get(anon_vma)
        if made is None:
            return FirstWrite(anon_vma, 0, None, Chain(), "fork")
        return FirstWrite(anon_vma, made.pid, made.vaddr, self._callers.chain(mm, made.stack), made.how)

    def events_about(self, lower: Vma, upper: Vma, reason: str) -> list[MemoryEvent]:
        """The calls that made the boundary between two touching areas what it is, oldest first."""
        differing = lower.vm_flags ^ upper.vm_flags
        chosen: dict[int, _Event] = {}
        for side in (lower, upper):
            nr_chosen = 0
            for event in self._newest_first(lower.vm_mm.id):
                if event.overlaps(side) and _matters(event, lower.vm_end, reason, differing):
                    chosen[event.nr] = event
                    nr_chosen += 1
                    if nr_chosen == _MAX_TOLD // 2 or event.settles(side, differing):
                        break
        return [self._told(chosen[nr], lower.vm_mm) for nr in sorted(chosen)]

    def _told(self, event: _Event, mm: MmStruct) -> MemoryEvent:
        chain = self._callers.chain(mm, event.stack)
        return MemoryEvent(event.nr, event.pid, event.spec.name, memory_call_text(event.spec, event.args), chain)

    def _newest_first(self, mm_id: int) -> Iterable[_Event]:
        last = self._nr_events
        while True:
            yield from (event for event in reversed(self._events.get(mm_id, ())) if event.nr <= last)
            if mm_id not in self._parents:
                return
            mm_id, last = self._parents[mm_id]


def _matters(event: _Event, boundary: int, reason: str, differing: int) -> bool:
    name = event.spec.name
    if name == "munmap":
        return False
    if event.has_edge(boundary) or name in _PLACING:
        return True
    if reason in ("flags", "special"):
        return bool(_CHANGES[name] & differing)
    return reason == "anon_name" and name == "prctl"
