"""The processor's debug facilities: breakpoints on instructions, watchpoints on data, single step.

What DR0-DR7 and the trap flag are to a real processor, without their limits in number.  Nothing of it is to be seen by
the program: no breakpoint instruction in its memory, no trap flag in what it saves.

* **Breakpoints** are engine hooks on single addresses.  The hook is native code: it asks Python, and if the answer is
  "stop" it raises #DB before the instruction, as a real processor does.  The same address stops in every address space;
  ``on_breakpoint`` decides.  A hook stays after its breakpoint has gone (debuggers remove and insert all of them at
  every stop), because adding one costs all translations.
* **A step** sets TF.  The instruction runs to its end, page faults and a system call included; TF is taken out of what
  the instruction has stored of it (``pushf``, R11 after ``syscall``).
* **Watchpoints**: accesses to watched pages fault (``guard.py``); the instruction is then decoded
  (``operands.py``), executed by a step with the page open, and the program goes on unless it has touched watched bytes.

Blocks are counted as if nobody had looked: the engine begins a new block after each of our stops, which is taken off
the count again, so that the virtual clock does not notice a debugger.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from emu.cpu import unicorn_abi as abi
from emu.cpu.decode import MAX_INSTRUCTION_BYTES, Instruction, Map, decode
from emu.cpu.engine import EngineError
from emu.cpu.faulting import FLAGS_FIRST, READ_MODIFY_WRITE
from emu.cpu.guard import PageGuard, WatchKind, Watchpoint
from emu.cpu.operands import MemoryAccess, memory_accesses
from emu.cpu.stop import Stop, StopReason, Vector
from kernel.hardware import Reg, Registers
from mmu import walker
from mmu.paging import PF_INSTR, PF_WRITE

if TYPE_CHECKING:
    from emu.cpu.cpu import Cpu

_TF = 0x100
_R11 = 11
_VECTOR_DB, _VECTOR_PF = int(Vector.DEBUG), int(Vector.PAGE_FAULT)
_CodeCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)

_PUSHF, _POPF, _IRET = 0x9C, 0x9D, 0xCF
_ENDS_BLOCK_1 = frozenset((*range(0x70, 0x80), *range(0xE0, 0xE4), 0xC2, 0xC3, 0xCB, 0xCC, 0xCD, 0xE8, 0xE9, 0xEB, 0xF4,
                           _POPF, _IRET))  # fmt: skip
_STRING_1 = frozenset((*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)))
_REPEATS = frozenset((0xF2, 0xF3))


class TrapKind(Enum):
    BREAKPOINT = "breakpoint"
    """RIP is the instruction, which has not been executed."""
    STEP = "step"
    WATCH = "watch"
    """RIP is after the instruction that made the access (for one that repeats: it may be the same)."""


class Trap(NamedTuple):
    """Why :meth:`DebugUnit.run` answered ``StopReason.DEBUG``."""

    kind: TrapKind
    watchpoint: Watchpoint | None = None


class DebugUnit:
    """Debug facilities of one processor; made by :meth:`Cpu.enable_debug`.

    ``on_breakpoint(address)`` is asked in the engine's callback whether to stop.

    Invariants: ``_stepping`` and ``_replaying`` are set only while the engine runs, and TF is ours exactly when one of
    them is and ``_guest_tf`` is not; the guard is open whenever the engine does not run.
    """

    def __init__(self, cpu: Cpu, on_breakpoint: Callable[[int], bool]) -> None:
        stubs = cpu.stubs
        if stubs is None:
            raise EngineError("debugging needs executable memory on an x86-64 host")
        self._cpu = cpu
        self._on_breakpoint = on_breakpoint
        self._callback = _CodeCallback(self._on_code)
        self._hook = stubs.breakpoint(
            ctypes.cast(self._callback, ctypes.c_void_p).value or 0,
            cpu.engine.function_address("raise_exception_err_ra_x86_64"),
            cpu.state_address,
            _VECTOR_DB,
        )
        self._hooked: set[int] = set()
        self._breakpoints: frozenset[int] = frozenset()
        self._watchpoints: tuple[Watchpoint, ...] = ()
        self._guard = PageGuard(cpu.physmem, self._flush_page)
        self._registers: Registers | None = None
        self._cr3 = 0
        self._stepping = self._replaying = self._guest_tf = False
        self._trap: Trap | None = None
        self._insn = decode(b"")
        self._insn_rip = 0
        self._code = b""
        self._suspects: list[tuple[Watchpoint, bytes]] = []
        self._accesses: list[MemoryAccess] = []
        self.mid_block = False
        """After a stop: the engine will begin a block here where an undisturbed run would not."""

    # ---- what to stop at -----------------------------------------------------------------------------------------

    def set_breakpoints(self, addresses: Iterable[int]) -> None:
        """Stop before the instructions at these addresses, and at no others.  The processor must be stopped."""
        self._breakpoints = frozenset(addresses)
        new = sorted(self._breakpoints - self._hooked)
        for address in new:
            self._cpu.engine.add_hook(abi.HOOK_CODE, self._hook, begin=address, end=address)
            self._hooked.add(address)
        if new:
            self._cpu.engine.forget_all_code()

    def set_watchpoints(self, watchpoints: Iterable[Watchpoint]) -> None:
        """Stop after accesses to these bytes, in the address space that runs.  The processor must be stopped."""
        self._watchpoints = tuple(watchpoints)
        self._guard.watch(self._watchpoints)

    # ---- running -------------------------------------------------------------------------------------------------

    def run(
        self, registers: Registers, cr3: int, nr_blocks: int, *, step: bool, mid_block: bool
    ) -> tuple[Stop, Trap | None]:
        """:meth:`Cpu.run`, which may also end with ``StopReason.DEBUG`` and a trap.

        ``step`` executes one instruction; ``mid_block`` is what the attribute said when these registers last stopped.
        """
        cpu = self._cpu
        self._registers, self._cr3, self._trap = registers, cr3, None
        flags = registers.read(Reg.EFLAGS)
        self._guest_tf = bool(flags & _TF)
        self._stepping = step
        self.mid_block = False
        if mid_block:
            self._discount_block()
        if step:
            self._look_at_instruction(registers.read(Reg.RIP))
            registers.write(Reg.EFLAGS, flags | _TF)
        on_syscall = cpu.on_syscall
        if self._watchpoints:
            self._guard.close(cr3)
            cpu.on_syscall = self._guarded_syscall(on_syscall)
        try:
            stop = cpu.run(registers, cr3, nr_blocks)
        finally:
            cpu.on_syscall = on_syscall
            self._guard.open()
            if self._stepping or self._replaying:
                self._take_out_tf(registers)
            self._stepping = self._replaying = False
            self._registers = None
        return stop, self._trap if stop.reason is StopReason.DEBUG else None

    def _guarded_syscall(self, serve: Callable[..., int | None]) -> Callable[..., int | None]:
        def serve_open(*args: int) -> int | None:
            self._guard.open()
            result = serve(*args)
            if not self._replaying:
                self._guard.close(self._cr3)
            return result

        return serve_open

    # ---- the processor's insides -----------------------------------------------------------------------------------

    def _flush_page(self, vaddr: int) -> None:
        self._cpu.flush_tlb_page(vaddr)

    def _finish_work(self) -> None:
        if self._cpu._work_queued:
            self._cpu._finish_callback()

    def _discount_block(self) -> None:
        """The block that begins next is the rest of one that has been counted."""
        if self._cpu.running:
            self._cpu.count[0] += 1
        else:
            self._cpu._blocks_before -= 1

    def _set_trap_flag(self, on: bool) -> None:
        words, rflags = self._cpu.words, self._cpu.state.rflags // 8
        words[rflags] = words[rflags] | _TF if on else words[rflags] & ~_TF

    # ---- the trap flag -------------------------------------------------------------------------------------------

    def _look_at_instruction(self, rip: int) -> None:
        """Remember the instruction that is about to be executed alone."""
        self._code = self._peek(rip, MAX_INSTRUCTION_BYTES)
        self._insn, self._insn_rip = decode(self._code), rip

    def _peek(self, vaddr: int, nr_bytes: int) -> bytes:
        """Memory as far as it is present, past all protection."""
        data = b""
        while len(data) < nr_bytes:
            try:
                place = walker.walk(self._cpu.physmem, self._cr3, vaddr + len(data), walker.READ, 0, set_ad=False)
            except walker.PageFault:
                break
            length = min(nr_bytes - len(data), 4096 - (place.paddr & 4095))
            data += self._cpu.physmem.read(place.paddr, length)
        return data

    def _take_out_tf(self, registers: Registers) -> None:
        """After the processor has stopped with TF set by us: nobody may see it."""
        if self._guest_tf:
            return
        done = self._trap is not None or registers.read(Reg.RIP) != self._insn_rip
        is_plain = self._insn.map is Map.ONE_BYTE
        if not (done and is_plain and self._insn.opcode in (_POPF, _IRET)):  # those have set the program's own
            registers.write(Reg.EFLAGS, registers.read(Reg.EFLAGS) & ~_TF)
        if done:
            self._hide_saved_tf()

    def _hide_saved_tf(self) -> None:
        """Take TF out of where the instruction has put it."""
        cpu, insn = self._cpu, self._insn
        if insn.map is Map.MAP_0F and insn.opcode == 0x05:
            cpu.words[_R11] &= ~_TF
        elif insn.map is Map.ONE_BYTE and insn.opcode == _PUSHF:
            assert self._registers is not None
            vaddr = self._registers.read(Reg.RSP) + 1
            place = walker.walk(cpu.physmem, self._cr3, vaddr, walker.READ, 0, set_ad=False)
            cpu.physmem.mem[place.paddr] &= ~(_TF >> 8)

    # ---- callbacks -----------------------------------------------------------------------------------------------

    def _on_code(self, _engine: int, address: int, _size: int, _data: int) -> int:
        try:
            if address in self._breakpoints and self._registers is not None and self._on_breakpoint(address):
                self._trap = Trap(TrapKind.BREAKPOINT)
                return 1
        except BaseException as error:
            self._cpu._keep_error(error)
        return 0

    def takes_interrupt(self, vector: int) -> bool:
        """Inside the processor's callback for exceptions: True when nobody else has to hear of this one."""
        if self._registers is None:
            return False
        if vector == _VECTOR_PF and self._watchpoints:
            self._page_fault()
            return True
        if vector != _VECTOR_DB:
            return False
        cpu = self._cpu
        if self._trap is not None:
            self.mid_block = True  # this block has been counted, also where it begins
        elif self._replaying:
            self._end_replay()
        elif self._stepping:
            self._trap = Trap(TrapKind.STEP)
            self.mid_block = not ends_block(self._insn, self._code)
        else:
            return False
        if self._trap is not None:
            cpu.stop_for(StopReason.DEBUG)
        return True

    # ---- watchpoints ---------------------------------------------------------------------------------------------

    def _page_fault(self) -> None:
        cpu = self._cpu
        vaddr, error_code = cpu.words[cpu._cr2_word], cpu._i[cpu._error_code_int]
        if self._guard.denies(vaddr, error_code):
            self._begin_replay(vaddr, error_code)
            return
        self._guard.open()
        cpu._page_fault()
        if not self._replaying:
            self._guard.close(self._cr3)
        self._finish_work()

    def _begin_replay(self, vaddr: int, error_code: int) -> None:
        """Let the instruction have the page, once."""
        cpu = self._cpu
        registers = self._registers
        assert registers is not None
        rip = cpu.words[cpu.rip_word]
        kind = 0 if error_code & PF_INSTR else cpu._instructions.kind(self._cr3, rip)
        if kind & FLAGS_FIRST:
            cpu._recover_flags(rip)
        self._guard.open()
        self._look_at_instruction(rip)
        self._accesses = []
        if not error_code & PF_INSTR:
            writes = bool(error_code & PF_WRITE or kind & READ_MODIFY_WRITE)
            accesses = memory_accesses(self._code, registers.read) or [MemoryAccess(vaddr, 1, not writes, writes)]
            # capstone takes some stores of SSE registers for reads; the fault knows better
            reads = not error_code & PF_WRITE
            self._accesses = [
                access._replace(reads=reads, writes=True) if writes and access.overlaps(vaddr, vaddr + 1) else access
                for access in accesses
            ]
        self._suspects = [(point, self._peek(point.address, point.length)) for point in self._watchpoints]
        self._replaying = True
        self._discount_block()  # the engine begins a block to do the instruction again
        self._set_trap_flag(True)

    def _end_replay(self) -> None:
        """The instruction has been executed: was it one of those?"""
        self._replaying = False
        hit = next((point for point, before in self._suspects if self._is_hit(point, before)), None)
        self._suspects = []
        ends = ends_block(self._insn, self._code)
        if hit is not None:
            self._trap = Trap(TrapKind.WATCH, hit)
        elif self._stepping:
            self._trap = Trap(TrapKind.STEP)
        if self._trap is not None:
            self._replaying = True  # TF is still to be taken out
            self.mid_block = not ends
            return
        if not self._guest_tf:
            popped = self._insn.map is Map.ONE_BYTE and self._insn.opcode in (_POPF, _IRET)
            if not popped:
                self._set_trap_flag(False)
            self._hide_saved_tf()
        if not ends:
            self._discount_block()
        self._guard.close(self._cr3)
        self._finish_work()

    def _is_hit(self, point: Watchpoint, before: bytes) -> bool:
        for access in self._accesses:
            if not access.overlaps(point.address, point.end):
                continue
            if point.kind is WatchKind.ACCESS or (access.reads if point.kind is WatchKind.READ else access.writes):
                return True
        return point.kind is not WatchKind.READ and self._peek(point.address, point.length) != before


def ends_block(insn: Instruction, code: bytes) -> bool:
    """Whether the engine ends a block of translated code after this instruction."""
    if insn.map is Map.MAP_0F:
        return insn.opcode == 0x05 or insn.opcode & 0xF0 == 0x80
    if insn.map is not Map.ONE_BYTE:
        return False
    if insn.opcode in _STRING_1:
        return any(byte in _REPEATS for byte in code[: insn.length - 1])
    return insn.opcode in _ENDS_BLOCK_1 or (insn.opcode == 0xFF and insn.reg in (2, 3, 4, 5))


__all__ = ["DebugUnit", "Trap", "TrapKind", "WatchKind", "Watchpoint", "ends_block"]
