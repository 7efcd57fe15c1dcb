"""What a trace tells, by address space: which areas lived from when to when, faults, merges, counters, calls.

Made from the records of ``emu/trace`` (schema 1), live or from a file.  A trace that lacks some of them still makes a
story with less in it; :attr:`Story.missing` says what to ask for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from emu.trace.explain import refusal_lines

NEEDED_EVENTS = ("faults", "syscalls", "mm", "rmap", "swap", "sched", "signal", "areas", "counters")
"""What a full report is made from."""

_WHAT_FOR = {
    "faults": "page faults",
    "syscalls": "mremap calls",
    "mm": "merges and refusals",
    "areas": "areas over time",
    "counters": "memory over time",
}


class BadTrace(Exception):
    """The file is no trace that a report can be made from."""


@dataclass(frozen=True, slots=True)
class When:
    """A point of a trace."""

    ns: int
    """Virtual time since the first record."""
    n: int
    """Number of the record."""


@dataclass(slots=True)
class Band:
    """One area, unchanged from ``born`` to ``died``."""

    start: int
    end: int
    perms: str
    offset: int
    name: str
    anon_vma: int | None
    born: When
    died: When


@dataclass(frozen=True, slots=True)
class Fault:
    when: When
    number: int
    pid: int
    address: int
    kind: str
    """As the trace names it; ``bad`` became a signal."""
    result: str
    access: str
    area: str
    code: str
    source: str
    insn: str
    frame: str

    @property
    def is_major(self) -> bool:
        return self.result == "MAJOR"


@dataclass(frozen=True, slots=True)
class Mark:
    """A merge, a refusal or a split, at an address."""

    when: When
    what: str
    """``merge``, ``refusal`` or ``split``."""
    address: int
    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters of an address space, in pages."""

    when: When
    anon: int
    file: int
    shmem: int
    swap: int
    page_tables: int
    areas: int
    free: int


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that a report shows."""

    when: When
    pid: int
    text: str
    result: str
    error: str | None
    reason: str | None


@dataclass
class Site:
    """A place in the program that faults."""

    source: str
    symbol: str
    insn: str
    kinds: Counter[str] = field(default_factory=Counter)
    nr_major: int = 0

    @property
    def total(self) -> int:
        return self.kinds.total()


@dataclass
class Space:
    """One address space."""

    mm: int
    pid: int
    comm: str
    bands: list[Band] = field(default_factory=list)
    """In the order of their births; those that live to the end have died then."""
    at_end: list[Band] = field(default_factory=list)
    """The areas just before it went, by address."""
    faults: list[Fault] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    is_gone: bool = False

    @property
    def title(self) -> str:
        return f"{self.comm or 'exec'}, pid {self.pid}, mm #{self.mm}"

    @property
    def weight(self) -> int:
        """How much there is to see."""
        return len(self.faults) + len(self.bands) + len(self.marks)


@dataclass
class Refusal:
    """Two areas that stayed apart, with how often that was found."""

    record: Mapping[str, Any]
    count: int = 1


class Story:
    """Takes the records of one trace in order (:meth:`add`), then :meth:`finish`."""

    def __init__(self) -> None:
        self.header: dict[str, Any] = {}
        self.end: dict[str, Any] | None = None
        self.spaces: dict[int, Space] = {}
        self.sites: dict[tuple[str, str], Site] = {}
        self.kinds: Counter[str] = Counter()
        self.nr_major = 0
        self.mremaps: list[Call] = []
        self.failed_calls: Counter[tuple[str, str, str]] = Counter()
        """(name, errno, reason)."""
        self.merges: Counter[str] = Counter()
        self.refusals: dict[tuple[Any, ...], Refusal] = {}
        self.nr_splits = 0
        self.nr_syscalls = 0
        self.signals: list[Call] = []
        self.pages_out = 0
        self.pages_in = 0
        self.last = When(0, 0)
        self._origin_ns: int | None = None
        self._nr_passed_over = 0
        self._live: dict[int, dict[int, Band]] = {}
        self._mm_of: dict[int, int] = {}

    @property
    def kernel(self) -> str:
        """The kernel with its overrides, as the command line would have them."""
        words = [str(self.header.get("kernel", "?"))]
        for name in ("rmap", "mremap"):
            if self.header.get(name):
                words.append(f"--{name} {self.header[name]}")
        words += [f"--bug {bug}" for bug in self.header.get("bugs", [])]
        return " ".join(words)

    @property
    def missing(self) -> list[str]:
        """What the trace has no records of, in words."""
        asked = self.header.get("events", [])
        return [what for name, what in _WHAT_FOR.items() if name not in asked]

    # ---- records in ----------------------------------------------------------------------------------------------

    def add(self, record: Mapping[str, Any]) -> None:
        kind = record["type"]
        if kind == "header":
            self.header = dict(record)
            return
        if kind == "end":
            self.end = dict(record)
            return
        if kind == "insn" or (kind == "event" and record["event"].startswith("tlb:")):
            self._nr_passed_over += 1  # so that a report is the same whatever else its trace holds
            return
        if self._origin_ns is None:
            self._origin_ns = record["ts_ns"]
        when = self.last = When(record["ts_ns"] - self._origin_ns, record["n"] - self._nr_passed_over)
        if kind == "areas":
            self._areas(record, when)
        elif kind == "counters":
            self._counters(record, when)
        elif kind == "fault":
            self._fault(record, when)
        elif kind == "syscall":
            self._syscall(record, when)
        elif kind == "signal":
            self.signals.append(Call(when, record["pid"], record["signal"], record["info"], None, None))
        elif kind == "event":
            self._event(record, when)

    def finish(self) -> Story:
        """The trace is over: what lives has lived to the end."""
        for mm, live in self._live.items():
            if live:
                self._close(mm, list(live.values()), self.last)
                self.spaces[mm].at_end = sorted(live.values(), key=lambda band: band.start)
        self._live.clear()
        return self

    def _space(self, mm: int, record: Mapping[str, Any]) -> Space:
        space = self.spaces.get(mm)
        if space is None:
            space = self.spaces[mm] = Space(mm, record["tgid"], record["comm"])
        return space

    def _space_of(self, record: Mapping[str, Any], mm: Any) -> Space | None:
        """Address space ``mm`` if that is a number, else that of the record's process; None before it has one."""
        number = mm if isinstance(mm, int) else self._mm_of.get(record["tgid"])
        return None if number is None else self._space(number, record)

    def _areas(self, record: Mapping[str, Any], when: When) -> None:
        mm = record["mm"]
        space = self._space(mm, record)
        space.comm, space.pid = record["comm"] or space.comm, record["tgid"] or space.pid
        live = self._live.setdefault(mm, {})
        if record["gone"]:
            space.at_end = sorted(live.values(), key=lambda band: band.start)
            space.is_gone = True
            self._close(mm, space.at_end, when)
            self._live[mm] = {}
            return
        self._mm_of[record["tgid"]] = mm
        gone = [live.pop(start) for text in record["removed"] if (start := int(text, 16)) in live]
        for area in record["added"]:
            start = int(area["start"], 16)
            if start in live:
                gone.append(live.pop(start))
            live[start] = Band(
                start,
                int(area["end"], 16),
                area["perms"],
                int(area["offset"], 16),
                area["name"],
                area["anon_vma"],
                when,
                when,
            )
        self._close(mm, gone, when)

    def _close(self, mm: int, bands: Iterable[Band], when: When) -> None:
        for band in bands:
            band.died = when
            self.spaces[mm].bands.append(band)

    def _counters(self, record: Mapping[str, Any], when: When) -> None:
        space = self._space(record["mm"], record)
        space.samples.append(
            Sample(
                when,
                record["rss_anon"],
                record["rss_file"],
                record["rss_shmem"],
                record["swap"],
                record["page_tables"],
                record["areas"],
                record["free"],
            )
        )

    def _fault(self, record: Mapping[str, Any], when: When) -> None:
        code, area = record["code"], record["area"]
        source = "" if code["file"] is None else f"{_last_part(code['file'])}:{code['line']}"
        insn = f"in {record['syscall']}()" if record["syscall"] is not None else code["insn"] or ""
        fault = Fault(
            when,
            record["fault_nr"],
            record["pid"],
            int(record["address"], 16),
            record["kind"],
            record["result"],
            record["access"],
            "no area" if area is None else area["text"],
            code["text"],
            source,
            insn,
            _frame_text(record),
        )
        self.kinds[fault.kind] += 1
        self.nr_major += fault.is_major
        space = self._space_of(record, record.get("mm"))
        if space is not None:
            space.faults.append(fault)
        if record["syscall"] is not None:
            key, symbol = (f"in {record['syscall']}()", ""), "the kernel, for a system call"
        else:
            key, symbol = (source or code["ip"], code["text"]), code["text"]
        site = self.sites.get(key)
        if site is None:
            site = self.sites[key] = Site(key[0], symbol, insn)
        site.kinds[fault.kind] += 1
        site.nr_major += fault.is_major

    def _syscall(self, record: Mapping[str, Any], when: When) -> None:
        self.nr_syscalls += 1
        if record["error"] is not None:
            self.failed_calls[record["name"], record["error"], record["reason"] or ""] += 1
        if record["name"] == "mremap":
            text = f"mremap({', '.join(arg['text'] for arg in record['args'])})"
            result = record["result_text"]
            self.mremaps.append(Call(when, record["pid"], text, result, record["error"], record["reason"]))

    def _event(self, record: Mapping[str, Any], when: When) -> None:
        name, fields = record["event"], record["fields"]
        space = self._space_of(record, fields.get("mm"))
        if name == "mm:vma_merge":
            self.merges[fields["case"]] += 1
            text = f"merge, case {fields['case']}: now {fields['vma']}"
            _mark(space, Mark(when, "merge", int(fields["start"], 16), text))
        elif name == "mm:merge_refused":
            lower, upper = fields["lower"], fields["upper"]
            key = (lower["start"], lower["end"], upper["start"], upper["end"], fields["reason"])
            known = self.refusals.get(key)
            if known is None:
                self.refusals[key] = Refusal(fields)
            else:
                known.count += 1
            text = refusal_lines(fields)[0].removeprefix("stay apart: ")
            _mark(space, Mark(when, "refusal", int(upper["start"], 16), text))
        elif name == "mm:vma_split":
            self.nr_splits += 1
            _mark(space, Mark(when, "split", int(fields["addr"], 16), f"split at {fields['addr']}"))
        elif name == "swap:write":
            self.pages_out += fields["nr_pages"]
        elif name == "swap:read":
            self.pages_in += fields["nr_pages"]


def _mark(space: Space | None, mark: Mark) -> None:
    if space is not None:
        space.marks.append(mark)


def _last_part(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _frame_text(record: Mapping[str, Any]) -> str:
    new, old = record["pfn"], record["old_pfn"]
    if new is None:
        return ""
    return f"{new:#x}" if old is None or old == new else f"{old:#x} → {new:#x}"


class StorySink:
    """A sink of a :class:`~emu.trace.session.TraceSession` that makes a story."""

    def __init__(self) -> None:
        self.story = Story()

    def header(self, record: Mapping[str, Any]) -> None:
        self.story.add(record)

    def write(self, record: Mapping[str, Any]) -> None:
        self.story.add(record)

    def end(self, record: Mapping[str, Any]) -> None:
        self.story.add(record)
        self.story.finish()


def read_story(stream: BinaryIO) -> Story:
    """The story of a file of JSON lines.  Raises BadTrace."""
    story = Story()
    for number, line in enumerate(stream, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            if number > 1 and not line.endswith(b"\n"):
                break  # a run that was cut short: tell what there is
            raise BadTrace(f"line {number} is no JSON; write the trace with --format jsonl") from None
        if number == 1:
            _check_header(record)
        try:
            story.add(record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadTrace(f"line {number} is no record of a trace ({type(error).__name__}: {error})") from error
    if not story.header:
        raise BadTrace("it is empty")
    return story.finish()


def _check_header(record: Any) -> None:
    if not isinstance(record, dict) or record.get("type") != "header" or record.get("tool") != "pagewalk":
        raise BadTrace("it does not begin with the header of a trace; write it with pagewalk trace --format jsonl")
    if record.get("schema") != 1:
        raise BadTrace(f"it has schema {record.get('schema')}; this pagewalk reads schema 1")
