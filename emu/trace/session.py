"""A trace of one machine: which tracepoints are on, which records pass, where they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from emu.trace.calls import Call
from emu.trace.changes import FaultWatch
from emu.trace.insns import Insn, InsnRequest, InsnScope, InsnStream
from emu.trace.records import SCHEMA_VERSION, Record, Recorder
from emu.trace.spaces import CATEGORIES as SPACE_CATEGORIES
from emu.trace.spaces import SpaceTracker
from emu.version import __version__
from kernel.syscalls.table import BY_NAME
from kernel.trace import Probe, Probes, Tracepoint, tracepoints

if TYPE_CHECKING:
    from emu.machine import MachineConfig
    from kernel.kernel import Kernel
    from kernel.task.task import Task

CATEGORIES: dict[str, tuple[str, ...]] = {
    "faults": ("exceptions:",),
    "syscalls": ("syscalls:",),
    "mm": ("mm:",),
    "rmap": ("rmap:",),
    "swap": ("swap:", "vmscan:", "oom:"),
    "sched": ("sched:",),
    "signal": ("signal:",),
    "tlb": ("tlb:",),
}
"""What ``-e`` chooses, and the subsystems of its tracepoints."""

_WITH_SYSCALLS = ("signal:signal_deliver", "sched:sched_process_exit")
"""strace shows these among the calls."""


class Sink(Protocol):
    def header(self, record: Mapping[str, Any]) -> None: ...
    def write(self, record: Mapping[str, Any]) -> None: ...
    def end(self, record: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Filter:
    """Which records are shown; an empty condition holds always.  Faults are numbered whether shown or not."""

    pids: frozenset[int] = frozenset()
    address_ranges: tuple[tuple[int, int], ...] = ()
    """First and last address (exclusive); only faults have one."""
    kinds: frozenset[str] = frozenset()
    """Of faults, or ``major``, or ``bad``."""
    syscalls: frozenset[str] = frozenset()
    only_errors: bool = False
    """Calls that failed, faults that became signals."""

    def accepts(self, record: Mapping[str, Any]) -> bool:
        if self.pids and record["pid"] not in self.pids:
            return False
        if record["type"] == "fault":
            return self._accepts_fault(record)
        if record["type"] == "syscall":
            return self._accepts_syscall(record)
        return True

    def _accepts_fault(self, record: Mapping[str, Any]) -> bool:
        if self.kinds and record["kind"] not in self.kinds and record["result"].lower() not in self.kinds:
            return False
        if self.address_ranges:
            address = int(record["address"], 16)
            if not any(first <= address < last for first, last in self.address_ranges):
                return False
        return not self.only_errors or record["kind"] == "bad"

    def _accepts_syscall(self, record: Mapping[str, Any]) -> bool:
        if self.syscalls and record["name"] not in self.syscalls:
            return False
        return not self.only_errors or record["error"] is not None


def known_categories() -> list[str]:
    """The categories that have tracepoints in this kernel, and those that are told of address spaces."""
    return [name for name, prefixes in CATEGORIES.items() if any(map(tracepoints, prefixes))] + list(SPACE_CATEGORIES)


def syscalls_named(words: Iterable[str]) -> frozenset[str]:
    """Names and ``%class`` words as a set of names.  ValueError names a word that means nothing."""
    names: set[str] = set()
    for word in words:
        group = word.removeprefix("%")
        found = {spec.name for spec in BY_NAME.values() if spec.group == group} if word.startswith("%") else {word}
        if not found or not found <= BY_NAME.keys():
            groups = ", ".join(f"%{name}" for name in sorted({spec.group for spec in BY_NAME.values()}))
            raise ValueError(f"no system call {word!r}; classes are {groups}")
        names |= found
    return frozenset(names)


def machine_fields(config: MachineConfig) -> dict[str, Any]:
    """What the header of a trace says about the machine."""
    return {
        "kernel": config.kernel,
        "rmap": config.rmap,
        "mremap": config.mremap,
        "bugs": list(config.bugs),
        "ram_bytes": config.ram_bytes,
        "swap": config.swap,
        "seed": config.seed,
        "aslr": config.aslr,
        "clock": config.clock,
        "max_map_count": config.max_map_count,
        "fail": list(config.fail),
        "limits": config.limits.as_json(),
    }


class TraceSession:
    """Attached between :meth:`start` and :meth:`finish`."""

    def __init__(
        self,
        kernel: Kernel,
        categories: Sequence[str],
        sink: Sink,
        condition: Filter | None = None,
        insns: InsnRequest | None = None,
    ) -> None:
        self.kernel = kernel
        self.categories = list(categories)
        self.counts: Counter[str] = Counter()
        """Records by type, shown or not."""
        self._sink = sink
        self._filter = condition or Filter()
        self._recorder = Recorder(kernel)
        self._probes = Probes()
        self._faults = FaultWatch(kernel)
        self._insns_before_faults: InsnStream | None = None
        self._insns: InsnStream | None = None
        if insns is not None:
            is_all = insns.scope is InsnScope.ALL
            on_insn, nr_kept = (self._on_insn, 0) if is_all else (None, insns.nr_before_fault)
            self._insns = InsnStream(kernel, insns.cpu, self._recorder.locator, nr_kept, on_insn)
            self._insns_before_faults = None if is_all else self._insns
        self._tracker = SpaceTracker(kernel, frozenset(categories), self._write)
        self._pending: dict[Task, tuple[Call, int, int]] = {}  # calls under way: their numbers, when they began
        self._last_n = 0

    def start(self, argv: Sequence[str], machine: Mapping[str, Any]) -> None:
        """Write the header and switch the tracepoints on."""
        self._sink.header(
            {
                "type": "header",
                "schema": SCHEMA_VERSION,
                "tool": "pagewalk",
                "version": __version__,
                "argv": list(argv),
                "events": list(self.categories),
                **machine,
            }
        )
        for tracepoint in self._chosen():
            self._probes.attach(tracepoint, self._probe_for(tracepoint))
        if "faults" in self.categories:
            self._faults.attach()
        if self._insns is not None:
            self._insns.attach()
        if not set(SPACE_CATEGORIES).isdisjoint(self.categories):
            self._tracker.attach()

    def finish(self, status: int | None) -> None:
        """Switch the tracepoints off and write the end; ``status`` is the guest's, None when the run was cut short."""
        self._probes.detach_all()
        self._faults.detach()
        if self._insns is not None:
            self._insns.detach()
        self._tracker.detach()
        for task in list(self._pending):
            self._abandon(task, "? <unfinished ...>")
        self._sink.end({"type": "end", "status": status, "counts": dict(sorted(self.counts.items()))})

    def _chosen(self) -> list[Tracepoint]:
        prefixes = tuple(prefix for name in self.categories for prefix in CATEGORIES.get(name, ()))
        names = _WITH_SYSCALLS if "syscalls" in self.categories else ()
        return [point for point in tracepoints() if point.name.startswith(prefixes) or point.name in names]

    def _probe_for(self, tracepoint: Tracepoint) -> Probe:
        handler = _HANDLERS.get(tracepoint.name, TraceSession._on_event)
        names = tracepoint.fields

        def probe(point: Tracepoint, values: tuple[Any, ...]) -> None:
            handler(self, point, dict(zip(names, values, strict=True)))

        return probe

    # ---- tracepoints -----------------------------------------------------------------------------

    def _on_fault(self, point: Tracepoint, values: Mapping[str, Any]) -> None:
        record = self._recorder.fault(values, self.counts["fault"] + 1, self._faults.take(values))
        if self._insns_before_faults is not None:
            record["insns"] = self._insns_before_faults.before_fault(values["task"], values["ip"])
        self._write(record)

    def _on_insn(self, task: Task, insn: Insn, time_ns: int) -> None:
        self._write(self._recorder.insn(task, insn), time_ns)

    def _on_enter(self, point: Tracepoint, values: Mapping[str, Any]) -> None:
        self._pending[values["task"]] = (self._recorder.enter(values), values["nr"], self.kernel.clock.now_ns())

    def _on_exit(self, point: Tracepoint, values: Mapping[str, Any]) -> None:
        call, _, start_ns = self._pending.pop(values["task"], (None, 0, 0))
        if call is not None:
            self._write(self._recorder.syscall(call, values) | {"start_ns": start_ns})

    def _on_signal(self, point: Tracepoint, values: Mapping[str, Any]) -> None:
        self._write(self._recorder.signal(values))

    def _on_process_exit(self, point: Tracepoint, values: Mapping[str, Any]) -> None:
        self._abandon(values["task"])
        self._write(self._recorder.exit(values))

    def _on_event(self, point: Tracepoint, values: Mapping[str, Any]) -> None:
        self._write(self._recorder.event(point.name, values))

    # ---- writing ---------------------------------------------------------------------------------

    def _abandon(self, task: Task, result_text: str = "?") -> None:
        """The call that ``task`` is in will not return."""
        if task in self._pending:
            call, nr, start_ns = self._pending.pop(task)
            self._write(self._recorder.unfinished(call, nr, result_text) | {"start_ns": start_ns})

    def _write(self, record: Record, time_ns: int | None = None) -> None:
        """``time_ns`` None: now."""
        self.counts[record["type"]] += 1
        self._last_n += 1
        record["n"] = self._last_n
        record["ts_ns"] = self.kernel.clock.now_ns() if time_ns is None else time_ns
        if self._filter.accepts(record):
            self._sink.write(record)


_HANDLERS: Mapping[str, Callable[[TraceSession, Tracepoint, Mapping[str, Any]], None]] = {
    "exceptions:page_fault_user": TraceSession._on_fault,
    "syscalls:sys_enter": TraceSession._on_enter,
    "syscalls:sys_exit": TraceSession._on_exit,
    "signal:signal_deliver": TraceSession._on_signal,
    "sched:sched_process_exit": TraceSession._on_process_exit,
}
