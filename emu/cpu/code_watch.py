"""Addresses of code at which somebody wants to be told, before the instruction there is executed.

For those who look at a program at a certain function (``--at sym:NAME``).  An engine hook on that one address: nothing
else runs slower, and the program cannot see it (no breakpoint instruction is put into its memory).

A watch must be set before the address is executed for the first time: blocks that are translated already do not call.
Code that is mapped anew has never been executed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.cpu import unicorn_abi as abi

if TYPE_CHECKING:
    from emu.cpu.cpu import Cpu

_CodeCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)


class CodeWatch:
    """Calls ``on_execute(address)`` in the engine's callback; what it raises comes out of :meth:`Cpu.run`."""

    def __init__(self, cpu: Cpu, on_execute: Callable[[int], None]) -> None:
        self._cpu = cpu
        self._on_execute = on_execute
        self._callback = _CodeCallback(self._on_code)
        self._hooks: dict[int, int] = {}

    def add(self, address: int) -> None:
        """Watch ``address``, in every address space."""
        if address not in self._hooks:
            engine = self._cpu.engine
            self._hooks[address] = engine.add_hook(abi.HOOK_CODE, self._callback, begin=address, end=address)

    def close(self) -> None:
        """Stop watching."""
        while self._hooks:
            self._cpu.engine.delete_hook(self._hooks.popitem()[1])

    def _on_code(self, _engine: int, address: int, _size: int, _data: int) -> None:
        try:
            self._on_execute(address)
            if self._cpu._work_queued:
                self._cpu._finish_callback()
        except BaseException as error:
            self._cpu._keep_error(error)
