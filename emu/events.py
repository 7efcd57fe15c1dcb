"""What happens in a machine, told to callbacks: the records that traces are made of (``emu/trace``).

A name is one of

    faults, syscalls, mm, rmap, ...     a category, as in ``pagewalk trace -e``; ``all``
    fault, syscall, exit                one type of record
    rmap:miss, mm:vma_merge, ...        one tracepoint

A callback gets each record right when it happens, in the middle of what the kernel does: it may look at everything
(:class:`emu.Machine`'s queries), and must not change anything.  What it raises comes out of :meth:`Machine.run` as soon
as the kernel has finished what it was doing, and the machine can go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from emu.trace.records import Record, Recorder
from emu.trace.session import TraceSession, known_categories
from kernel.syscalls.names import syscall_name
from kernel.trace import Probes, Tracepoint, on_behalf_of, tracepoints

if TYPE_CHECKING:
    from emu.board import Board
    from emu.inspect.moment import Stopped

Callback = Callable[[Record], None]

_RECORD_TYPES = {"fault": "faults", "syscall": "syscalls", "exit": "syscalls"}
"""Types of records that have a name of their own, and the category that brings them."""
_TYPED_TRACEPOINTS = {
    "exceptions:page_fault_user": ("faults", "fault"),
    "syscalls:sys_exit": ("syscalls", "syscall"),
    "signal:signal_deliver": ("signal", "signal"),
    "sched:sched_process_exit": ("syscalls", "exit"),
}
"""Tracepoints whose records are not plain events: their category and their type."""


@dataclass(frozen=True)
class When:
    """Something to wait for: the first record of these names for which ``condition`` holds.

    >>> When("faults", where=lambda record: record["kind"] == "cow").names
    ('faults',)
    """

    names: tuple[str, ...]
    condition: Callable[[Record], bool]

    def __init__(self, *names: str, where: Callable[[Record], bool] | None = None) -> None:
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "condition", where or (lambda _record: True))


class WhenWatch:
    """Waits for ``when`` on ``board`` and calls ``on_reach`` inside the event."""

    def __init__(self, board: Board, when: When, on_reach: Callable[[Stopped], None]) -> None:
        self._board = board
        self._when = when
        self._on_reach = on_reach
        self._subscription = Subscription(board, when.names, self._on_record)

    def detach(self) -> None:
        self._subscription.close()

    def how_far(self) -> str:
        return f"the program ended; no such event came ({', '.join(self._when.names)})"

    def _on_record(self, record: Record) -> None:
        from emu.inspect.moment import Event, Moment, Stopped

        if not self._when.condition(record):
            return
        kernel = self._board.kernel
        task = kernel.tasks.get(record["pid"]) or kernel.current
        mm = None if task is None else task.mm
        address = int(record["address"], 16) if record["type"] == "fault" else None
        is_between = record["type"] == "syscall" or (record["type"] == "fault" and record["syscall"] is None)
        self._on_reach(
            Stopped(Moment(Event.RECORD), _in_words(record), task, mm, address, record, in_kernel=not is_between)
        )


def _in_words(record: Record) -> str:
    """The event that ``record`` tells of."""
    kind = record["type"]
    if kind == "fault":
        return f"after fault {record['fault_nr']}"
    if kind == "syscall":
        return f"after {record['name']}"
    return f"at {record.get('event') or kind}"


class Subscription:
    """A callback that is called; :meth:`close`, or the end of a ``with``, ends that."""

    def __init__(self, board: Board, names: tuple[str, ...], callback: Callback) -> None:
        """ValueError for a name that is none."""
        self.names = names
        self._board = board
        self._callback: Callback | None = callback
        self._recorder = Recorder(board.kernel)
        self._probes = Probes()
        self._sessions: list[TraceSession] = []
        self._nr_told = 0
        chosen = [_choose(name) for name in _expanded(names)]
        with on_behalf_of(board.kernel):
            self._attach(chosen)

    def _attach(self, chosen: list[Tracepoint | tuple[str, frozenset[str]]]) -> None:
        board = self._board
        for choice in chosen:
            if isinstance(choice, Tracepoint):
                self._probes.attach(choice, self._on_tracepoint)
        by_types: dict[frozenset[str], list[str]] = {}
        for choice in chosen:
            if not isinstance(choice, Tracepoint):
                by_types.setdefault(choice[1], []).append(choice[0])
        for types, categories in by_types.items():
            session = TraceSession(board.kernel, categories, _Sink(self, types))
            session.start((), {})
            self._sessions.append(session)

    def __repr__(self) -> str:
        return f"<Subscription {' '.join(self.names)}{'' if self.is_open else ' (closed)'}>"

    @property
    def is_open(self) -> bool:
        return self._callback is not None

    def close(self) -> None:
        """The callback is not called any more.  Harmless when repeated."""
        self._callback = None
        self._probes.detach_all()
        while self._sessions:
            self._sessions.pop().finish(None)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- from the tracepoint to the callback ---------------------------------------------------------------------

    def _on_tracepoint(self, point: Tracepoint, values: tuple[Any, ...]) -> None:
        fields = dict(zip(point.fields, values, strict=True))
        if "spec" in fields:  # syscalls:sys_enter
            spec = fields.pop("spec")
            fields["name"] = spec.name if spec is not None else syscall_name(fields["nr"])
        self.tell(self._recorder.event(point.name, fields))

    def tell(self, record: Record) -> None:
        board, callback = self._board, self._callback
        if callback is None or board.pending_error is not None:
            return
        self._nr_told += 1
        record["n"] = self._nr_told
        record["ts_ns"] = board.kernel.clock.now_ns()
        if record["type"] == "fault":
            record["fault_nr"] = board.kernel.vmstat.pgfault
        try:
            callback(record)
        except Exception as error:
            board.keep_error(error)


class _Sink:
    """Where a trace session puts its records: those of ``types`` (empty: all) go to the subscription."""

    def __init__(self, subscription: Subscription, types: frozenset[str]) -> None:
        self._subscription = subscription
        self._types = types

    def header(self, record: Mapping[str, Any]) -> None:
        """A callback needs none."""

    def write(self, record: Mapping[str, Any]) -> None:
        if not self._types or record["type"] in self._types:
            self._subscription.tell(dict(record))

    def end(self, record: Mapping[str, Any]) -> None:
        """A callback needs none."""


class Recording(list[Record]):
    """The records of :meth:`Machine.record`, as a list that grows while the machine runs."""

    def __init__(self) -> None:
        super().__init__()
        self.subscription: Subscription | None = None

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is added any more."""
        if self.subscription is not None:
            self.subscription.close()


def _expanded(names: tuple[str, ...]) -> list[str]:
    """The names, once each; ``all`` is every category."""
    return list(dict.fromkeys(known_categories() if "all" in names else names))


def _choose(name: str) -> Tracepoint | tuple[str, frozenset[str]]:
    """The tracepoint, or the category and its types of records (empty: all), that ``name`` means."""
    if name in _TYPED_TRACEPOINTS:
        category, kind = _TYPED_TRACEPOINTS[name]
        return category, frozenset({kind})
    if name in _RECORD_TYPES:
        return _RECORD_TYPES[name], frozenset({name})
    if name in known_categories():
        return name, frozenset()
    with suppress(StopIteration):
        return next(point for point in tracepoints(name) if point.name == name)
    raise ValueError(f"no events {name!r}; there are {', '.join(event_names())}")


def event_names() -> list[str]:
    """Every name that :class:`Subscription` understands."""
    return ["all", *known_categories(), *_RECORD_TYPES, *(point.name for point in tracepoints())]
