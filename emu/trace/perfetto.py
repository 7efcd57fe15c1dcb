"""Records as Chrome trace JSON, which Perfetto (ui.perfetto.dev, trace_processor) and chrome://tracing read.

    one process for each process, one track for each task
        slices      system calls and page faults, nested where the kernel itself faulted for a call
        instants    signals, exits, and every other event
        counters    rss, swap, page tables
    a process "machine"
        cpu         which task ran
        swap        requests to swap, with arrows from the one that wrote a page to the one that read it back, and to
                    the fault that wanted it
        counters    free frames, used swap

The events are sorted by time, slices of one track nest and never overlap, ids are integers: the format's rules, which
its readers enforce more or less.  Times are virtual, in microseconds; a time is written so that a reader which
multiplies by 1000 and cuts off (trace_processor does) has the exact nanosecond.

The kernel's virtual time passes when it is entered (``kernel/clock.py``) and then stands still; here what happens in a
call is spread over that charge, in order, so that it can be seen.  No slice is empty and none touches the next:
speedscope, which computes with floating-point numbers, needs that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

from emu.trace.changes import changed_text, cost_text
from kernel.clock import NS_PER_FAULT, NS_PER_SYSCALL

DEFAULT_EVENTS = ("faults", "syscalls", "swap", "sched", "signal", "counters")
LARGE_BYTES = 200 << 20
"""Perfetto's user interface has trouble with more."""

MACHINE_PID = 1 << 23
"""Above every pid that a guest can have."""
_CPU_TID, _SWAP_TID = MACHINE_PID + 1, MACHINE_PID + 2

_COUNTERS = (
    ("rss", (("anon KiB", "rss_anon"), ("file KiB", "rss_file"), ("shmem KiB", "rss_shmem"))),
    ("swap", (("KiB", "swap"),)),
    ("page tables", (("KiB", "page_tables"),)),
)
"""Name, and the parts: the reader shows "rss anon KiB"."""
_MACHINE_COUNTERS = (("free", "free"), ("used swap", "swap_used"))

# At one time: names, then slices (outer ones first), then what lies in them.
_META, _SLICE, _INSIDE = 0, 1, 2


class _Event(NamedTuple):
    """Sorts as it must be written."""

    ts_ns: int
    rank: int
    outer_first: int
    number: int
    fields: dict[str, Any]


class PerfettoSink:
    """Collects the events and writes them, sorted, at the end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._events: list[_Event] = []
        self._header: dict[str, Any] = {}
        self._fault_ns = NS_PER_FAULT - 1
        """How long a fault is drawn: what it is charged, less the room before it."""
        self._call_ns = NS_PER_SYSCALL - 1
        self._comms: dict[tuple[int, int], str] = {}
        self._kernel_faults: dict[int, list[Mapping[str, Any]]] = {}
        """By task: faults of the kernel inside the call that is under way."""
        self._running: tuple[str, int] | None = None
        """Who runs, since when."""
        self._last_ns = 0
        self._swap_ns = 0
        """The swap track is drawn up to here."""
        self._written: dict[tuple[int, int], int] = {}
        """(swap area, slot) -> start of the slice of its last write."""
        self._reads: dict[int, set[int]] = {}
        """By task: the writes whose pages it has read back and that no fault has claimed yet."""
        self._nr_flows = 0
        self.nr_bytes = 0

    # ---- records in ----------------------------------------------------------------------------------------------

    def header(self, record: Mapping[str, Any]) -> None:
        self._header = {name: value for name, value in record.items() if name != "type"}
        if record.get("clock") == "host":
            self._fault_ns = self._call_ns = 1

    def write(self, record: Mapping[str, Any]) -> None:
        kind = record["type"]
        self._last_ns = max(self._last_ns, record["ts_ns"])
        self._name(record)
        if kind == "fault":
            self._fault(record)
        elif kind == "syscall":
            self._syscall(record)
        elif kind == "counters":
            self._counters(record)
        elif kind == "event" and record["event"] == "sched:sched_switch":
            self._switch(record)
        elif kind == "event" and record["event"] in ("swap:write", "swap:read"):
            self._swap(record)
        elif kind in ("event", "signal", "exit"):
            self._instant(record)

    def end(self, record: Mapping[str, Any]) -> None:
        for pid in list(self._kernel_faults):
            self._flush_kernel_faults(pid)
        self._close_running(self._last_ns)
        self._names()
        self._header["status"] = record["status"]
        self._put(b'{"displayTimeUnit":"ns","otherData":' + _json(self._header) + b',"traceEvents":[\n')
        first = True
        for event in sorted(self._events):
            self._put((b"" if first else b",\n") + _json(event.fields))
            first = False
        self._put(b"\n]}\n")
        self._stream.flush()

    def _put(self, data: bytes) -> None:
        self.nr_bytes += len(data)
        self._stream.write(data)

    # ---- events --------------------------------------------------------------------------------------------------

    def _add(self, rank: int, phase: str, name: str, ts_ns: int, pid: int, tid: int, **more: Any) -> None:
        duration = more.pop("dur_ns", None)
        fields: dict[str, Any] = {"ph": phase, "name": name, "ts": _microseconds(ts_ns), "pid": pid, "tid": tid}
        if duration is not None:
            fields["dur"] = _microseconds(duration)
        self._events.append(_Event(ts_ns, rank, -(duration or 0), len(self._events), fields | more))

    def _slice(self, name: str, start_ns: int, end_ns: int, pid: int, tid: int, cat: str, args: Any) -> None:
        self._add(_SLICE, "X", name, start_ns, pid, tid, dur_ns=end_ns - start_ns, cat=cat, args=args)

    def _fault(self, record: Mapping[str, Any]) -> None:
        if record["syscall"] is not None:
            self._kernel_faults.setdefault(record["pid"], []).append(record)
            return
        end_ns = record["ts_ns"]
        self._fault_slice(record, end_ns - self._fault_ns, end_ns)
        self._claim_reads(record, end_ns - self._fault_ns)

    def _fault_slice(self, record: Mapping[str, Any], start_ns: int, end_ns: int) -> None:
        major = " major" if record["result"] == "MAJOR" else ""
        code, area = record["code"], record["area"]
        args = {
            "number": record["fault_nr"],
            "access": record["access"],
            "address": record["address"],
            "area": None if area is None else area["text"],
            "result": record["result"],
            "code": code["text"],
            "source": None if code["file"] is None else f"{code['file']}:{code['line']}",
            "insn": code["insn"],
            "pfn": record["pfn"],
            "old_pfn": record["old_pfn"],
            "rule": record["rule"],
            "cost": record["cost"] and cost_text(record["cost"]),
        }
        changed = changed_text(record["changed"])
        if changed != "-":
            args["changed"] = changed
        if record.get("insns"):
            args["insns"] = [f"{code['ip']} {code['text']}: {code['insn'] or '(bad)'}" for code in record["insns"]]
        name = f"fault {record['kind']}{major}"
        args = {key: value for key, value in args.items() if value is not None}
        self._slice(name, start_ns, end_ns, record["tgid"], record["pid"], "fault", args)

    def _syscall(self, record: Mapping[str, Any]) -> None:
        entered_ns = record["start_ns"]
        start_ns, end_ns = entered_ns - self._call_ns, record["ts_ns"]
        args = {"args": ", ".join(arg["text"] for arg in record["args"]), "result": record["result_text"]}
        nr_faults = len(self._kernel_faults.get(record["pid"], ()))
        if nr_faults:
            args["faults"] = nr_faults
        self._slice(record["name"], start_ns, end_ns, record["tgid"], record["pid"], "syscall", args)
        self._spread(self._kernel_faults.pop(record["pid"], []), start_ns, end_ns)
        self._claim_reads(record, start_ns)

    def _spread(self, faults: list[Mapping[str, Any]], start_ns: int, end_ns: int) -> None:
        """The kernel's faults inside a call: one after the other, as many as there is room for."""
        step_ns = max(2, (end_ns - start_ns) // (len(faults) + 1))
        for i, fault in enumerate(faults, start=1):
            at_ns = start_ns + i * step_ns
            if at_ns + 1 >= end_ns:
                return
            self._fault_slice(fault, at_ns, at_ns + 1)

    def _flush_kernel_faults(self, pid: int) -> None:
        """Faults of the kernel in no call that is shown: exec of the first program, a call that a filter hides."""
        following_ns = self._last_ns
        for fault in reversed(self._kernel_faults.pop(pid, [])):
            following_ns = at_ns = max(min(fault["ts_ns"], following_ns) - 2, 0)
            self._fault_slice(fault, at_ns, at_ns + 1)

    def _instant(self, record: Mapping[str, Any]) -> None:
        head = ("type", "n", "ts_ns", "pid", "tgid", "comm", "event", "fields")
        args = {key: value for key, value in record.items() if key not in head and value is not None}
        args |= record.get("fields", {})
        name = record.get("event") or (record["signal"] if record["type"] == "signal" else "exit")
        if record["type"] == "exit":
            self._flush_kernel_faults(record["pid"])
        pid, tid = self._track(record)
        self._add(_INSIDE, "i", name, record["ts_ns"], pid, tid, s="t", cat=name.split(":")[0], args=args)

    def _counters(self, record: Mapping[str, Any]) -> None:
        ts_ns = record["ts_ns"]
        for name, parts in _COUNTERS:
            values = {part: record[field] * 4 for part, field in parts}
            self._add(_INSIDE, "C", name, ts_ns, record["tgid"], record["tgid"], args=values)
        for name, field in _MACHINE_COUNTERS:
            self._add(_INSIDE, "C", name, ts_ns, MACHINE_PID, MACHINE_PID, args={"KiB": record[field] * 4})

    # ---- the processor -------------------------------------------------------------------------------------------

    def _switch(self, record: Mapping[str, Any]) -> None:
        self._close_running(record["ts_ns"])
        following = record["fields"]["next"]
        self._running = None if following is None else (following, record["ts_ns"])

    def _close_running(self, now_ns: int) -> None:
        if self._running is not None:
            who, since_ns = self._running
            if since_ns + 1 < now_ns:
                self._slice(who, since_ns, now_ns - 1, MACHINE_PID, _CPU_TID, "sched", {})
            self._running = None

    # ---- swap ----------------------------------------------------------------------------------------------------

    def _swap(self, record: Mapping[str, Any]) -> None:
        fields = record["fields"]
        area, offset, nr_pages = fields["type"], fields["offset"], fields["nr_pages"]
        start_ns = max(record["ts_ns"] - self._call_ns, self._swap_ns)
        end_ns = start_ns + 1
        self._swap_ns = end_ns + 1
        is_write = record["event"] == "swap:write"
        name = f"{'write' if is_write else 'read'} {nr_pages} page{'s' if nr_pages != 1 else ''}"
        args = {"area": area, "slot": offset, "task": f"{record['comm']}/{record['pid']}"}
        self._slice(name, start_ns, end_ns, MACHINE_PID, _SWAP_TID, "swap", args)
        slots = [(area, slot) for slot in range(offset, offset + nr_pages)]
        if is_write:
            self._written.update(dict.fromkeys(slots, start_ns))
            return
        writes = {self._written[slot] for slot in slots if slot in self._written}
        for written_ns in sorted(writes):
            self._flow("swap", written_ns, start_ns, MACHINE_PID, _SWAP_TID)
        self._reads.setdefault(record["pid"], set()).update(writes)

    def _claim_reads(self, record: Mapping[str, Any], start_ns: int) -> None:
        """What the task has read since its last fault was for this one, which begins at ``start_ns``."""
        for written_ns in sorted(self._reads.pop(record["pid"], ())):
            if written_ns < start_ns:
                self._flow("swap-in", written_ns, start_ns, record["tgid"], record["pid"])

    def _flow(self, name: str, written_ns: int, ts_ns: int, pid: int, tid: int) -> None:
        """An arrow from the request that began at ``written_ns`` to the slice that begins at ``ts_ns``."""
        self._nr_flows += 1
        self._add(_INSIDE, "s", name, written_ns, MACHINE_PID, _SWAP_TID, cat="swap", id=self._nr_flows)
        self._add(_INSIDE, "f", name, ts_ns, pid, tid, cat="swap", id=self._nr_flows, bp="e")

    # ---- names ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _track(record: Mapping[str, Any]) -> tuple[int, int]:
        """Where a record is drawn: the kernel's own (pid 0) at the processor."""
        return (record["tgid"], record["pid"]) if record["pid"] else (MACHINE_PID, _CPU_TID)

    def _name(self, record: Mapping[str, Any]) -> None:
        if record["pid"] and record["comm"]:
            self._comms[record["tgid"], record["pid"]] = record["comm"]

    def _names(self) -> None:
        """Metadata: the names of processes and tracks (the last ones: exec renames)."""
        used = {(event.fields["pid"], event.fields["tid"]) for event in self._events}
        for pid in sorted({pid for pid, _ in used}):
            name = "machine" if pid == MACHINE_PID else self._comms.get((pid, pid), f"pid {pid}")
            self._add(_META, "M", "process_name", 0, pid, pid, args={"name": name})
        machine = {_CPU_TID: "cpu", _SWAP_TID: "swap", MACHINE_PID: "machine"}
        for pid, tid in sorted(used):
            name = machine.get(tid) or self._comms.get((pid, tid), f"task {tid}")
            self._add(_META, "M", "thread_name", 0, pid, tid, args={"name": name})


def _microseconds(ns: int) -> int | float:
    """As many microseconds, such that 1000 times that, cut off, is ``ns``."""
    whole, rest = divmod(ns, 1000)
    if not rest:
        return whole
    value = ns / 1000
    return value if int(value * 1000.0) == ns else math.nextafter(value, math.inf)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()
