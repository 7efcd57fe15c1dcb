"""The machine around the kernel: Unicorn, host files, the terminal, the command line, traces, reports.

What a Python program needs is here by name; each name is loaded when it is first used.

    from emu import Machine, When
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emu.config import MachineConfig
    from emu.errors import BadAddress, CheckFailed, Deadlock, MachineError, NoSuchTask, NotNow, NotRunnable
    from emu.events import When
    from emu.inspect.moment import Event, Moment, Stopped
    from emu.limits import Limits
    from emu.machine import Machine
    from emu.version import __version__

_HOMES = {
    "Machine": "emu.machine",
    "MachineConfig": "emu.config",
    "Limits": "emu.limits",
    "When": "emu.events",
    "Stopped": "emu.inspect.moment",
    "Moment": "emu.inspect.moment",
    "Event": "emu.inspect.moment",
    "MachineError": "emu.errors",
    "NotRunnable": "emu.errors",
    "CheckFailed": "emu.errors",
    "Deadlock": "emu.errors",
    "NoSuchTask": "emu.errors",
    "BadAddress": "emu.errors",
    "NotNow": "emu.errors",
    "__version__": "emu.version",
}

__all__ = [
    "BadAddress",
    "CheckFailed",
    "Deadlock",
    "Event",
    "Limits",
    "Machine",
    "MachineConfig",
    "MachineError",
    "Moment",
    "NoSuchTask",
    "NotNow",
    "NotRunnable",
    "Stopped",
    "When",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
