"""The processor: Unicorn behind :class:`kernel.hardware.Hardware`.  The only place that knows of Unicorn.

Importing this package is cheap; Unicorn's library is loaded when the first :class:`Cpu` is made.
"""

from __future__ import annotations

from emu.cpu.cpu import Cpu, Tick
from emu.cpu.engine import EngineError
from emu.cpu.quirks import FastMemory, Sse42
from emu.cpu.stop import Stop, StopReason, Vector

__all__ = ["Cpu", "EngineError", "FastMemory", "Sse42", "Stop", "StopReason", "Tick", "Vector"]
