"""Addresses of code at which somebody wants to be told, before the instruction there is executed.

For those who look at a program at a certain function (``--at sym:NAME``).  An engine hook on that one address: nothing
else runs slower, and the program cannot see it (no breakpoint instruction is put into its memory).  A hook stays when
nobody waits at its address any more, as adding one costs the translations of its page.

Whoever is told may change code, such as the code that is just about to run.  The engine tests for a stop too late
(quirk 4), so the hook is native (``native.py``): asked to begin anew, it raises #DB before the instruction, which is
taken for what it is in :meth:`takes_interrupt`.  The block that then begins has been counted already.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.cpu import unicorn_abi as abi
from emu.cpu.stop import Vector

if TYPE_CHECKING:
    from emu.cpu.cpu import Cpu

_CodeCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)


class CodeWatch:
    """One processor's watched addresses; made by :meth:`Cpu.watch_code`."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._callback = _CodeCallback(self._on_code)
        callback = ctypes.cast(self._callback, ctypes.c_void_p).value or 0
        raise_exception = cpu.engine.function_address("raise_exception_err_ra_x86_64")
        self._hook = None
        if cpu.stubs is not None:
            self._hook = cpu.stubs.breakpoint(callback, raise_exception, cpu.state_address, int(Vector.DEBUG))
        self._hooked: set[int] = set()
        self._watched: set[int] = set()
        self._on_execute: Callable[[int], None] = _nobody
        self._begins_anew = False

    def start(self, on_execute: Callable[[int], None]) -> None:
        """From now on ``on_execute(address)`` is called in the engine's callback; what it raises comes out of
        :meth:`Cpu.run`."""
        self._on_execute = on_execute

    def add(self, address: int) -> bool:
        """Watch ``address``, in every address space; True: what is translated there already would not tell."""
        self._watched.add(address)
        if address in self._hooked:
            return False
        self._hooked.add(address)
        # Without native code what is told cannot begin anew, and code that it changes is seen at the next jump.
        hook = self._callback if self._hook is None else self._hook
        self._cpu.engine.add_hook(abi.HOOK_CODE, hook, begin=address, end=address)
        return True

    def stop(self) -> None:
        """Nobody waits any more."""
        self._watched.clear()
        self._on_execute = _nobody

    def takes_interrupt(self, vector: int) -> bool:
        """Inside the processor's callback for exceptions: True when it is ours."""
        if not self._begins_anew or vector != Vector.DEBUG:
            return False
        self._begins_anew = False
        self._cpu.count[0] += 1
        self._cpu._finish_callback()
        return True

    def _on_code(self, _engine: int, address: int, _size: int, _data: int) -> int:
        cpu = self._cpu
        try:
            if address in self._watched:
                self._on_execute(address)
                if cpu.has_stale_code and self._hook is not None:
                    self._begins_anew = True
                elif cpu._work_queued:
                    cpu._finish_callback()
        except BaseException as error:
            cpu._keep_error(error)
        return int(self._begins_anew)


def _nobody(_address: int) -> None:
    """Nobody waits."""
