"""The hooks of a host without native stubs (``native.py``): everything in Python, and less exact.

Blocks cannot be counted, so a kernel entry stands for a number of them.  The engine stops for ``in`` and ``out`` only
at the end of their block: the registers are put back then, but what the rest of the block has stored stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.cpu import unicorn_abi as abi
from emu.cpu.engine import InCallback, InsnCallback, OutCallback
from emu.cpu.stop import StopReason
from mmu.paging import VECTOR_GP

if TYPE_CHECKING:
    from emu.cpu.cpu import Cpu

KERNEL_ENTRY_BLOCKS = 64
_RCX, _R11, _NR_GENERAL = 1, 11, 16


class PlainHooks:
    """Hooks of ``syscall``, ``in`` and ``out`` on ``cpu``."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self._registers_at_io: list[int] | None = None
        engine = cpu.engine
        engine.add_hook(abi.HOOK_INSN, InsnCallback(self._on_syscall), instruction=abi.INS_SYSCALL)
        engine.add_hook(abi.HOOK_INSN, InCallback(self._on_in), instruction=abi.INS_IN)
        engine.add_hook(abi.HOOK_INSN, OutCallback(self._on_out), instruction=abi.INS_OUT)

    def _on_syscall(self, engine: int, data: int) -> None:
        cpu = self._cpu
        cpu.clean_flags()
        cpu.words[_RCX] = cpu.words[cpu.rip_word] + 2
        cpu.words[_R11] = cpu.engine.reg_read(abi.REG_EFLAGS)
        self.count_kernel_entry()
        cpu.serve_syscall(engine, data)

    def count_kernel_entry(self) -> None:
        """Let some blocks pass; stop when the quantum is over."""
        cpu = self._cpu
        cpu.count[0] -= KERNEL_ENTRY_BLOCKS
        if cpu.count[0] < 0:
            cpu.clean_flags()
            cpu.engine.stop()

    def _on_in(self, _engine: int, _port: int, _size: int, _data: int) -> int:
        if self._registers_at_io is None:
            cpu = self._cpu
            self._registers_at_io = [*cpu.words[:_NR_GENERAL], cpu.words[cpu.rip_word]]
            cpu.stop_for(StopReason.EXCEPTION, VECTOR_GP)
        return 0

    def _on_out(self, engine: int, port: int, size: int, _value: int, data: int) -> None:
        self._on_in(engine, port, size, data)

    def undo_block_of_io(self) -> bool:
        """After a run: put the registers back to where ``in`` or ``out`` was; False when there was none."""
        saved, self._registers_at_io = self._registers_at_io, None
        if saved is None:
            return False
        cpu = self._cpu
        for word in range(_NR_GENERAL):
            cpu.words[word] = saved[word]
        cpu.words[cpu.rip_word] = saved[_NR_GENERAL]
        return True
