"""Tracepoints: named places where the kernel can say what happened, free when nobody listens.

Models ``include/linux/tracepoint.h``.  The only allowed use at a hot place is::

    if FAULT.on:
        FAULT.emit(task, vaddr, ...)

so that an unused tracepoint costs one attribute test.  Records are tuples in the order of ``fields``;
all renderings (text, JSON lines, Perfetto) are made from the same records in ``emu/trace``.
Tracepoints are declared next to the code that they describe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Probe = Callable[["Tracepoint", tuple[Any, ...]], None]

_registry: dict[str, Tracepoint] = {}


class Tracepoint:
    """One event type.  ``name`` is ``subsystem:event``; ``fields`` names the values given to :meth:`emit`."""

    __slots__ = ("fields", "name", "on", "probes")

    def __init__(self, name: str, fields: str) -> None:
        if name in _registry:
            raise ValueError(f"tracepoint {name} declared twice")
        self.name = name
        self.fields = tuple(fields.split())
        self.probes: list[Probe] = []
        self.on = False
        _registry[name] = self

    def emit(self, *values: Any) -> None:
        """Give one record (``values`` in the order of ``fields``) to every probe."""
        for probe in self.probes:
            probe(self, values)

    def attach(self, probe: Probe) -> None:
        self.probes.append(probe)
        self.on = True

    def detach(self, probe: Probe) -> None:
        self.probes.remove(probe)
        self.on = bool(self.probes)

    def __repr__(self) -> str:
        return f"Tracepoint({self.name}: {' '.join(self.fields)})"


def tracepoints(prefix: str = "") -> list[Tracepoint]:
    """All declared tracepoints whose name starts with ``prefix``, in the order of their names."""
    return [_registry[name] for name in sorted(_registry) if name.startswith(prefix)]
