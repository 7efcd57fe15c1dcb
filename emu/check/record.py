"""The collector: inside each run, every mremap with its caller, its areas, its boundaries and what came after.

A collector of ``emu/jobs.py``: made before the program is loaded, asked for its findings after the run.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from emu.check.callers import Callers
from emu.check.footprint import MAX_BOUNDARIES, boundaries, footprint
from emu.check.history import History, memory_call_text
from emu.check.model import Call, Chain, Footprint, Refusal, Run, TaskEnd
from emu.check.window import Window
from emu.trace.printer import error_text
from emu.trace.records import Recorder
from kernel.abi.errno import errno_name
from kernel.abi.signal import signal_name
from kernel.entry import SYS_ENTER, SYS_EXIT
from kernel.mm.fault import PAGE_FAULT_USER
from kernel.mm.mremap import MREMAP_FIXED
from kernel.task.exec import SCHED_PROCESS_EXEC
from kernel.task.exit import SCHED_PROCESS_EXIT
from kernel.task.fork import SCHED_PROCESS_FORK
from kernel.trace import Probes

if TYPE_CHECKING:
    from emu.machine import Machine
    from emu.trace.calls import Call as PrintedCall
    from kernel.mm.types import MmStruct
    from kernel.task.task import Task
    from kernel.trace import Tracepoint

COLLECTOR = "emu.check.record:MremapCollector"
"""What a job names it."""

MAX_CALLS = 10_000
"""More calls than that are counted only."""
MAX_FOOTPRINTS = 2_000
"""Calls whose areas are kept, of those that succeed; failed ones' always are."""
MAX_TOLD_IN_FULL = 200
"""Calls over several areas; of later ones only the first boundary is told."""
MAX_REFUSALS = 100
"""Other memory calls that fail."""
_PROGRAM = "1"


class MremapCollector:
    """Watches one machine from its start to :meth:`finish`."""

    def __init__(self, machine: Machine) -> None:
        kernel = machine.kernel
        kernel.notes_first_writes = True
        self._run = Run()
        self._nr_spanning = 0
        self._failed: Counter[str] = Counter()
        self._recorder = Recorder(kernel)
        self._callers = Callers(kernel)
        self._history = History(self._callers)
        self._keys: dict[Task, str] = {}
        self._nr_children: Counter[Task] = Counter()
        self._pending: dict[Task, tuple[Call, PrintedCall]] = {}
        self._windows: dict[Task, Window] = {}
        self._faults: dict[Task, tuple[Chain, int]] = {}  # the last one that became a signal
        self._probes = Probes()
        for tracepoint, probe in (
            (SYS_ENTER, self._on_enter),
            (SYS_EXIT, self._on_exit),
            (SCHED_PROCESS_FORK, self._on_fork),
            (SCHED_PROCESS_EXEC, self._on_exec),
            (SCHED_PROCESS_EXIT, self._on_process_exit),
            (PAGE_FAULT_USER, self._on_fault),
        ):
            self._probes.attach(tracepoint, probe)
        self._history.attach()

    def finish(self) -> dict[str, Any]:
        self._probes.detach_all()
        self._history.detach()
        for task in list(self._windows):
            self._close_window(task)
        self._run.nr_failed = dict(sorted(self._failed.items()))
        return self._run.as_json()

    # ---- calls ---------------------------------------------------------------------------------------------------

    def _on_enter(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, _nr, spec, args = values
        if spec is None:
            return
        window = self._windows.get(task)
        if spec.name == "mremap":
            self._enter_mremap(task, spec, args)
        elif window is not None:
            window.enter(self._recorder.enter({"task": task, "spec": spec, "args": args}))

    def _on_exit(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, nr, spec, args, ret, error, reason = values
        if spec is None:
            return
        if spec.name == "mremap":
            self._exit_mremap(task, nr, spec, args, ret, error, reason)
        else:
            window = self._windows.get(task)
            if window is not None:
                self._tell_window(task, window, values)
        if ret is None or (spec.group != "memory" and spec.name != "prctl"):
            return
        if not error:
            self._history.note(task, spec, args, ret)
        elif spec.group == "memory" and spec.name != "mremap" and len(self._run.refusals) < MAX_REFUSALS:
            self._run.refusals.append(
                Refusal(
                    name=spec.name,
                    text=f"{memory_call_text(spec, args)} = {error_text(error, reason)}",
                    error=errno_name(error),
                    reason=reason,
                    chain=self._callers.chain(task.mm, self._callers.stack(task)),
                )
            )

    def _enter_mremap(self, task: Task, spec: Any, args: tuple[int, ...]) -> None:
        run = self._run
        run.nr_calls += 1
        if run.nr_calls > MAX_CALLS:
            return
        addr, old_len, new_len, flags, new_addr = args[:5]
        printed = self._recorder.enter({"task": task, "spec": spec, "args": args})
        call = Call(
            nr=run.nr_calls,
            task=self._key(task),
            pid=task.pid,
            comm=task.comm,
            addr=addr,
            old_len=old_len,
            new_len=new_len,
            flags=flags & 0xFFFF_FFFF_FFFF_FFFF,
            new_addr=new_addr,
            args=", ".join(text or "?" for text in printed.texts),
            chain=self._callers.chain(task.mm, self._callers.stack(task)),
        )
        run.calls.append(call)
        self._pending[task] = call, printed
        mm = task.mm
        if mm is None:
            return
        start, end = _old_range(call)
        call.before = footprint(mm, start, end, self._callers.locator)
        if call.before.nr_areas > 1 or _has_hole(call.before):
            self._nr_spanning += 1
            max_told = MAX_BOUNDARIES if self._nr_spanning <= MAX_TOLD_IN_FULL else 1
            call.boundaries, call.nr_boundaries = boundaries(
                mm, start, end, self._callers.locator, self._history, max_told
            )
        call.destroyed = [footprint(mm, low, high, self._callers.locator) for low, high in _at_stake(call)]

    def _exit_mremap(
        self, task: Task, nr: int, spec: Any, args: tuple[int, ...], ret: int | None, error: int, reason: str
    ) -> None:
        run = self._run
        if ret is not None:
            if error:
                self._failed[errno_name(error)] += 1
            else:
                run.nr_ok += 1
        call, printed = self._pending.pop(task, (None, None))
        window = self._windows.get(task)
        if call is None or printed is None:
            return
        record = self._recorder.syscall(
            printed,
            {"task": task, "nr": nr, "spec": spec, "args": args, "ret": ret, "error": error, "reason": reason},
        )
        call.ret, call.error, call.reason = ret, record["error"], record["reason"]
        call.result = record["result_text"]
        if window is not None:
            window.retry(call)
            self._close_window(task)
        mm = task.mm
        if mm is None:
            return
        if call.failed:
            call.destroyed = _destroyed(mm, call, self._callers)
            start, end = _old_range(call)
            call.after = footprint(mm, start, end, self._callers.locator)
            self._windows[task] = Window(call, mm)
            return
        call.destroyed = []
        if call.nr > MAX_FOOTPRINTS:
            call.before, call.boundaries = None, []
        elif ret is not None:
            call.after = footprint(mm, ret, ret + _whole_pages(call.new_len), self._callers.locator)

    # ---- what comes after a failure --------------------------------------------------------------------------------

    def _tell_window(self, task: Task, window: Window, values: tuple[Any, ...]) -> None:
        printed = window.pending
        if printed is None:
            return
        names = ("task", "nr", "spec", "args", "ret", "error", "reason")
        window.leave(self._recorder.syscall(printed, dict(zip(names, values, strict=True))), values[4])
        if window.is_full:
            self._close_window(task)

    def _close_window(self, task: Task) -> None:
        window = self._windows.pop(task, None)
        if window is not None:
            window.call.aftermath = window.close()

    # ---- tasks ---------------------------------------------------------------------------------------------------

    def _key(self, task: Task) -> str:
        return self._keys.setdefault(task, _PROGRAM)

    def _on_fork(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        parent, child = values[0], values[1]
        self._nr_children[parent] += 1
        self._keys[child] = f"{self._key(parent)}.{self._nr_children[parent]}"

    def _on_exec(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        self._key(values[0])
        self._close_window(values[0])

    def _on_process_exit(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, code, _group_dead = values
        window = self._windows.get(task)
        if window is not None and window.pending is not None:
            printed, window.pending = window.pending, None
            window.leave(self._recorder.unfinished(printed, task.syscall_nr, "?"), None)
        self._close_window(task)
        where, address = self._faults.pop(task, (Chain(), None))
        died = bool(code & 0x7F)
        self._run.ends.append(
            TaskEnd(
                task=self._key(task),
                pid=task.pid,
                comm=task.comm,
                exit_status=None if died else code >> 8 & 0xFF,
                signal=signal_name(code & 0x7F) if died else None,
                where=where if died else Chain(),
                fault_address=address if died else None,
            )
        )

    def _on_fault(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, vaddr, kind = values[0], values[1], values[4]
        if kind == "bad" and task is not None:
            self._faults[task] = self._callers.chain(task.mm, self._callers.stack(task)), vaddr


def _whole_pages(nr_bytes: int) -> int:
    return nr_bytes + 4095 & ~4095


def _old_range(call: Call) -> tuple[int, int]:
    """What the call is about; no more than there can be of an address space."""
    start = call.addr & ~4095
    end = start + max(_whole_pages(call.old_len), 4096)
    return start, end if start >= 1 << 47 else min(end, 1 << 47)


def _has_hole(found: Footprint) -> bool:
    """Does the range of a footprint with one area at the most reach beyond it?"""
    return not found.areas or found.areas[0].end < found.end


def _at_stake(call: Call) -> list[tuple[int, int]]:
    """What a refusal may find unmapped already: the target of MREMAP_FIXED, the tail of a range that shrinks."""
    old_len, new_len = _whole_pages(call.old_len), _whole_pages(call.new_len)
    ranges = []
    if call.flags & MREMAP_FIXED and not call.new_addr & 4095:
        ranges.append((call.new_addr, call.new_addr + new_len))
    if new_len < old_len and not call.addr & 4095:
        ranges.append((call.addr + new_len, call.addr + old_len))
    return [(start, end) for start, end in ranges if 0 <= start < end <= 1 << 47]


def _destroyed(mm: MmStruct, call: Call, callers: Callers) -> list[Footprint]:
    """Of what was at stake before the call, that which is gone after it."""
    gone = []
    for before in call.destroyed:
        now = footprint(mm, before.start, before.end, callers.locator)
        if _mapped_bytes(now) < _mapped_bytes(before) or now.nr_pages_with_data < before.nr_pages_with_data:
            gone.append(before)
    return gone


def _mapped_bytes(found: Footprint) -> int:
    return sum(min(area.end, found.end) - max(area.start, found.start) for area in found.areas)
