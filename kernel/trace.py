"""Tracepoints: named places where the kernel can say what happened, free when nobody listens.

Models ``include/linux/tracepoint.h``.  The only allowed use at a hot place is::

    if FAULT.on:
        FAULT.emit(task, vaddr, ...)

so that an unused tracepoint costs one attribute test.  Records are tuples in the order of ``fields``;
all renderings (text, JSON lines, Perfetto) are made from the same records in ``emu/trace``.
Tracepoints are declared next to the code that they describe.

They belong to the process, as Linux's belong to the one kernel there is; but here one process may have several kernels.
Who runs a kernel does it :func:`on_behalf_of` it, and a probe attached on behalf of a kernel hears that one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Probe = Callable[["Tracepoint", tuple[Any, ...]], None]

_registry: dict[str, Tracepoint] = {}
_kernels: list[object] = []
"""Kernels that are being worked on, the innermost last."""


@contextmanager
def on_behalf_of(kernel: object) -> Iterator[None]:
    """What is told in here is ``kernel``'s; probes attached in here hear nothing else."""
    _kernels.append(kernel)
    try:
        yield
    finally:
        _kernels.pop()


class Tracepoint:
    """One event type.  ``name`` is ``subsystem:event``; ``fields`` names the values given to :meth:`emit`."""

    __slots__ = ("fields", "groups", "name", "on", "probes")

    def __init__(self, name: str, fields: str) -> None:
        if name in _registry:
            raise ValueError(f"tracepoint {name} declared twice")
        self.name = name
        self.fields = tuple(fields.split())
        self.probes: list[tuple[Probe, object | None]] = []
        """With the kernel that each belongs to; None: all."""
        self.on = False
        self.groups: list[AnyOf] = []
        _registry[name] = self

    def emit(self, *values: Any) -> None:
        """Give one record (``values`` in the order of ``fields``) to every probe."""
        for probe, kernel in self.probes:
            if kernel is None or not _kernels or kernel is _kernels[-1]:
                probe(self, values)

    def attach(self, probe: Probe) -> None:
        self.probes.append((probe, _kernels[-1] if _kernels else None))
        self._switch()

    def detach(self, probe: Probe) -> None:
        self.probes.remove(next(entry for entry in self.probes if entry[0] == probe))
        self._switch()

    def _switch(self) -> None:
        self.on = bool(self.probes)
        for group in self.groups:
            group.on = any(point.on for point in group.points)

    def __repr__(self) -> str:
        return f"Tracepoint({self.name}: {' '.join(self.fields)})"


class Probes:
    """The probes of somebody who listens to several tracepoints for a while."""

    __slots__ = ("_attached",)

    def __init__(self) -> None:
        self._attached: list[tuple[Tracepoint, Probe]] = []

    def attach(self, point: Tracepoint, probe: Probe) -> None:
        point.attach(probe)
        self._attached.append((point, probe))

    def detach_all(self) -> None:
        """Harmless when repeated."""
        for point, probe in self._attached:
            point.detach(probe)
        self._attached.clear()


class AnyOf:
    """On while one of several tracepoints is: one test for a place that has to do with all of them."""

    __slots__ = ("on", "points")

    def __init__(self, *points: Tracepoint) -> None:
        self.points = points
        self.on = False
        for point in points:
            point.groups.append(self)


def tracepoints(prefix: str = "") -> list[Tracepoint]:
    """All declared tracepoints whose name starts with ``prefix``, in the order of their names."""
    return [_registry[name] for name in sorted(_registry) if name.startswith(prefix)]
