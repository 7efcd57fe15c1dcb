"""What happened lately to pages and areas: the last part of a ``--check`` report.

While it is attached every event of memory management is kept for a while, as it was when it happened (areas change
and go).  :meth:`History.about` finds those that touched the pages, addresses and areas that a violation names.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from kernel.mm.types import PAGE_SHIFT, MmStruct, Vma
from kernel.trace import Probes, Tracepoint, tracepoints

_WATCHED = ("exceptions:page_fault_user", "mm:vma_", "mmap:", "rmap:", "swap:", "oom:", "syscalls:sys_enter")
_HEX_FIELDS = frozenset(("vaddr", "addr", "start", "end", "ip", "pfn", "old_pfn", "error_code"))
_PFN = re.compile(r"\bpfn (0x[0-9a-f]+)")
_ADDRESS = re.compile(r"(?:\bat|\bmm \d+) (0x[0-9a-f]+)")
_AREA = re.compile(r"<Vma ([0-9a-f]+)-([0-9a-f]+)")


class Event(NamedTuple):
    """One record: what it is about, and how it reads."""

    number: int
    pfns: frozenset[int]
    pages: frozenset[int]
    """Page numbers of addresses."""
    areas: tuple[tuple[int, int], ...]
    text: str


class History:
    """The last ``nr_events`` events of memory management."""

    def __init__(self, nr_events: int = 20_000) -> None:
        self._events: deque[Event] = deque(maxlen=nr_events)
        self._number = 0
        self._probes = Probes()

    def attach(self) -> None:
        for prefix in _WATCHED:
            for tracepoint in tracepoints(prefix):
                self._probes.attach(tracepoint, self._record)

    def detach(self) -> None:
        self._probes.detach_all()

    def _record(self, tracepoint: Tracepoint, values: tuple[Any, ...]) -> None:
        self._number += 1
        pfns, pages, areas, words = [], [], [], [tracepoint.name]
        for field, value in zip(tracepoint.fields, values, strict=True):
            if value is None:
                continue
            if isinstance(value, Vma):
                areas.append((value.vm_start, value.vm_end))
            elif field in ("pfn", "old_pfn"):
                pfns.append(value)
            elif field in ("vaddr", "addr"):
                pages.append(value >> PAGE_SHIFT)
            words.append(f"{field}={_show(field, value)}")
        event = Event(self._number, frozenset(pfns), frozenset(pages), tuple(areas), " ".join(words))
        self._events.append(event)

    def about(self, detail: str, nr_lines: int = 8) -> list[str]:
        """The latest events that touched what ``detail`` (the text of a violation) names, the oldest first.

        At most ``nr_lines`` of its pages and addresses, and as many of its areas.
        """
        pfns = {int(found, 16) for found in _PFN.findall(detail)}
        pages = {int(found, 16) >> PAGE_SHIFT for found in _ADDRESS.findall(detail)}
        areas = [(int(start, 16), int(end, 16)) for start, end in _AREA.findall(detail)]
        of_pages: list[Event] = []
        of_areas: list[Event] = []
        for event in reversed(self._events):
            if event.pfns & pfns or event.pages & pages:
                of_pages.append(event)
            elif not event.pages and _overlap(event.areas, areas):
                of_areas.append(event)
        latest = sorted(of_pages[:nr_lines] + of_areas[:nr_lines])
        return [f"#{event.number} {event.text}" for event in latest]


def _overlap(some: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> bool:
    return any(start < stop and begin < end for start, end in some for begin, stop in others)


def _show(field: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and field in _HEX_FIELDS:
        return f"{value:#x}"
    if isinstance(value, MmStruct):
        return f"mm {value.id}"
    if field in ("task", "parent", "child"):
        return str(value.pid) if value is not None else "-"
    if field == "spec":
        return str(getattr(value, "name", value))
    return str(value) if not isinstance(value, tuple) else "(" + ", ".join(_show("addr", item) for item in value) + ")"


def report(violations: list[Any], history: History | None) -> str:
    """The text of a ``--check`` failure: each violation, and what last happened to what it names."""
    lines: list[str] = []
    for violation in violations:
        lines.append(str(violation))
        if history is not None:
            lines += [f"    {line}" for line in history.about(violation.detail)]
    return "\n".join(lines)
