"""What is known of one run, as it comes out of the run's process: plain data, JSON on the way.

Addresses are numbers here; they become "0x..." strings in what users see (``emu/check/schema/check-1.json``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Frame:
    """One function on the stack of a task."""

    function: str | None
    offset: int
    """Of the instruction from the function's start, in bytes."""
    module: str | None
    """Path of the object, or name of the area."""
    file: str | None
    line: int | None
    address: int
    insn: str | None = None
    """Of the innermost frame only."""

    @property
    def object_name(self) -> str:
        return "?" if self.module is None else self.module.rsplit("/", 1)[-1]

    @property
    def source(self) -> str | None:
        """``p1.c:42``."""
        return None if self.file is None else f"{self.file.rsplit('/', 1)[-1]}:{self.line}"

    @property
    def text(self) -> str:
        """``main (p1) p1.c:42``; without source lines ``main+0x1c (p1)``."""
        if self.function is None:
            return f"{self.address:#x} ({self.object_name})"
        if self.source is not None:
            return f"{self.function} ({self.object_name}) {self.source}"
        at = f"+{self.offset:#x}" if self.offset else ""
        return f"{self.function}{at} ({self.object_name})"

    @property
    def key(self) -> str:
        """The same place in every run, wherever its object was loaded; without any symbol, its address."""
        if self.function is None:
            return f"{self.object_name}!{self.address:#x}"
        if self.source is not None:
            return f"{self.object_name}!{self.function}@{self.file}:{self.line}"
        return f"{self.object_name}!{self.function}+{self.offset:#x}"


@dataclass(frozen=True)
class Chain:
    """The functions that a task was in, the innermost first."""

    frames: tuple[Frame, ...] = ()
    site_index: int | None = None
    """Of the frame to ask: the innermost of the program itself, failing that the innermost outside the C library's
    wrapper."""

    @property
    def site(self) -> Frame | None:
        return None if self.site_index is None else self.frames[self.site_index]


@dataclass(frozen=True)
class AreaState:
    """An area under the range of a call, at one moment."""

    start: int
    end: int
    perms: str
    flags: list[str]
    pgoff: int
    name: str
    anon_vma: int | None

    @property
    def nr_pages(self) -> int:
        return (self.end - self.start) >> 12


@dataclass(frozen=True)
class FirstWrite:
    """What made an anon_vma."""

    anon_vma: int
    pid: int
    address: int | None
    chain: Chain
    """Of the instruction that wrote; empty for a write of the kernel's own (exec, fork)."""
    how: str
    """``write``, ``exec`` or ``fork``."""


@dataclass(frozen=True)
class MemoryEvent:
    """A call that made, changed or moved areas."""

    nr: int
    """Of all the program's memory calls."""
    pid: int
    name: str
    text: str
    chain: Chain


@dataclass(frozen=True)
class Boundary:
    """A place inside the range where one area ends."""

    address: int
    lower: AreaState
    upper: AreaState | None
    """None: a hole begins here."""
    reason: str
    """``hole``, ``flags``, ``file``, ``pgoff``, ``anon_vma``, ``special``, ``close``, ``policy``, ``anon_name``, or
    ``unjoined``: no rule keeps the two apart, but no call has joined them."""
    text: str
    """The rule in words."""
    first_writes: list[FirstWrite] = field(default_factory=list)
    events: list[MemoryEvent] = field(default_factory=list)


@dataclass(frozen=True)
class Footprint:
    """What lay under a range of addresses."""

    start: int
    end: int
    areas: list[AreaState]
    """In order; the first and the last few when there are very many."""
    nr_areas: int
    nr_pages_with_data: int
    """Anonymous pages, resident or swapped out."""


@dataclass(frozen=True)
class NextCall:
    """A system call that the process made after a failure."""

    name: str
    text: str
    result: str
    error: str | None
    pid: int


@dataclass(frozen=True)
class Copy:
    """Pages of the old range that were found again, byte for byte, in memory mapped after the failure."""

    address: int
    len_bytes: int
    nr_copied: int
    nr_compared: int
    """Pages of the old range that held data."""


@dataclass
class After:
    """What the task did after one failed call, up to its next mremap, its end, or a limit."""

    calls: list[NextCall] = field(default_factory=list)
    nr_calls: int = 0
    retried: str | None = None
    """An mremap of the same memory, as strace prints it, with its result."""
    retry_error: str | None = None
    mapped: str | None = None
    """An mmap, or growth of the heap, for at least the new size."""
    copy: Copy | None = None
    unmapped: str | None = None
    """A munmap of the old range."""
    said: str | None = None
    """The first write to standard error."""


@dataclass
class Call:
    """One mremap."""

    nr: int
    """Of all mremap calls of the run, as ``--fail mremap:ERROR@N`` counts."""
    task: str
    """The task by the order of forks: ``1`` is the program, ``1.2`` its second child or thread."""
    pid: int
    comm: str
    addr: int
    old_len: int
    new_len: int
    flags: int
    new_addr: int
    args: str
    """As strace prints them."""
    chain: Chain
    ret: int | None = None
    error: str | None = None
    reason: str | None = None
    result: str = "?"
    """As strace prints it."""
    before: Footprint | None = None
    after: Footprint | None = None
    boundaries: list[Boundary] = field(default_factory=list)
    """The first ones; :attr:`nr_boundaries` says how many there are."""
    nr_boundaries: int = 0
    destroyed: list[Footprint] = field(default_factory=list)
    """What a call that failed had unmapped already."""
    aftermath: After | None = None

    @property
    def text(self) -> str:
        return f"mremap({self.args}) = {self.result}"

    @property
    def site(self) -> Frame | None:
        return self.chain.site

    @property
    def failed(self) -> bool:
        return self.error is not None


@dataclass(frozen=True)
class Refusal:
    """Another memory call that failed: mmap, mprotect, madvise, mlock ..."""

    name: str
    text: str
    """With its result, as strace prints it."""
    error: str
    reason: str
    chain: Chain

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same call in another run."""
        site = self.chain.site
        return self.name, self.error, "?" if site is None else site.key


@dataclass(frozen=True)
class TaskEnd:
    """How a task ended."""

    task: str
    pid: int
    comm: str
    exit_status: int | None
    signal: str | None
    where: Chain = Chain()
    """Of a fatal signal."""
    fault_address: int | None = None


@dataclass
class Run:
    """All that a collector has found."""

    calls: list[Call] = field(default_factory=list)
    nr_calls: int = 0
    """Those that were counted only included."""
    nr_ok: int = 0
    nr_failed: dict[str, int] = field(default_factory=dict)
    """By errno."""
    refusals: list[Refusal] = field(default_factory=list)
    """The first ones of other memory calls."""
    ends: list[TaskEnd] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        chains: dict[Chain, int] = {}
        calls = []
        for call in self.calls:
            item = dict(vars(call))
            item["chain"] = chains.setdefault(call.chain, len(chains))
            for name in ("before", "after", "aftermath"):
                item[name] = None if item[name] is None else asdict(item[name])
            for name in ("boundaries", "destroyed"):
                item[name] = [asdict(part) for part in item[name]]
            calls.append(item)
        return {
            "calls": calls,
            "chains": [asdict(chain) for chain in chains],
            "nr_calls": self.nr_calls,
            "nr_ok": self.nr_ok,
            "nr_failed": self.nr_failed,
            "refusals": [asdict(refusal) for refusal in self.refusals],
            "ends": [asdict(end) for end in self.ends],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Run:
        chains = [_chain(item) for item in data["chains"]]
        return cls(
            calls=[_call(item, chains[item["chain"]]) for item in data["calls"]],
            nr_calls=data["nr_calls"],
            nr_ok=data["nr_ok"],
            nr_failed=dict(data["nr_failed"]),
            refusals=[Refusal(**item | {"chain": _chain(item["chain"])}) for item in data["refusals"]],
            ends=[TaskEnd(**item | {"where": _chain(item["where"])}) for item in data["ends"]],
        )


def _chain(item: dict[str, Any]) -> Chain:
    return Chain(tuple(Frame(**frame) for frame in item["frames"]), item["site_index"])


def _footprint(item: dict[str, Any] | None) -> Footprint | None:
    return None if item is None else Footprint(**item | {"areas": [AreaState(**area) for area in item["areas"]]})


def _boundary(item: dict[str, Any]) -> Boundary:
    upper = item["upper"]
    return Boundary(
        **item
        | {
            "lower": AreaState(**item["lower"]),
            "upper": None if upper is None else AreaState(**upper),
            "first_writes": [FirstWrite(**w | {"chain": _chain(w["chain"])}) for w in item["first_writes"]],
            "events": [MemoryEvent(**e | {"chain": _chain(e["chain"])}) for e in item["events"]],
        }
    )


def _after(item: dict[str, Any] | None) -> After | None:
    if item is None:
        return None
    copy = item["copy"]
    return After(
        **item | {"calls": [NextCall(**call) for call in item["calls"]], "copy": None if copy is None else Copy(**copy)}
    )


def _call(item: dict[str, Any], chain: Chain) -> Call:
    return Call(
        **item
        | {
            "chain": chain,
            "before": _footprint(item["before"]),
            "after": _footprint(item["after"]),
            "boundaries": [_boundary(boundary) for boundary in item["boundaries"]],
            "destroyed": [Footprint(**d | {"areas": [AreaState(**a) for a in d["areas"]]}) for d in item["destroyed"]],
            "aftermath": _after(item["aftermath"]),
        }
    )
