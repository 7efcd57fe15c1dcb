"""The processor: runs user code in ring 3 over our page tables, and calls the kernel for everything else.

A system call and a page fault are served inside the engine's callback, so that the engine does not stop for them.  It
stops at exact places only: at the start of a block, after a ``syscall``, before a faulting instruction.  What the
kernel asks for at any time (a TLB flush, forgetting translated code) is queued and done before user code goes on;
forgetting code needs the engine stopped and is done between two runs of it, which :meth:`Cpu.run` hides.

Implements :class:`kernel.hardware.Hardware`.  What is peculiar to Unicorn is listed in ``quirks.py``.

Deliberate differences from a real processor: RIP after a jump to a non-canonical address is that address; RCX is too
low by the number of needless prefixes before a ``syscall``; there is no compatibility mode; VEX-encoded SSE runs as
SSE.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from emu.cpu import layout
from emu.cpu import unicorn_abi as abi
from emu.cpu.boot import boot
from emu.cpu.engine import (
    CODE_BUFFER_BYTES,
    Engine,
    EngineError,
    InsnCallback,
    IntrCallback,
    ValueInsnCallback,
)
from emu.cpu.faulting import CC_OP_EFLAGS, FLAGS_FIRST, READ_MODIFY_WRITE, FaultingInstructions
from emu.cpu.fxsave import FxsaveCodec
from emu.cpu.native import RFLAGS_ARITHMETIC, FlagsPlace, NativeStubs, TickBlock, make_stubs
from emu.cpu.plain import PlainHooks
from emu.cpu.quirks import FastMemory, Sse42, set_fast_memory
from emu.cpu.registers import CpuRegisters, register_words
from emu.cpu.stop import Stop, StopReason, Vector
from kernel.hardware import Registers
from kernel.trace import Tracepoint
from mmu import walker
from mmu.paging import PF_INSTR, PF_WRITE, VECTOR_GP
from mmu.physmem import PhysMem

if TYPE_CHECKING:
    from emu.cpu.code_watch import CodeWatch
    from emu.cpu.debug import DebugUnit
    from emu.cpu.insn_watch import InsnWatch, OnBlocks

_U64 = 0xFFFF_FFFF_FFFF_FFFF
_RAX, _RCX, _RDX, _R11 = 0, 1, 2, 11

SyscallHandler = Callable[[int, int, int, int, int, int, int], int | None]
PageFaultHandler = Callable[[int, int, int], bool]

# rax, rdx, rsi, rdi, r8, r9, r10 out of the sixteen general registers
_unpack_syscall = struct.Struct("<Q8xQ24xQQQQQ").unpack_from

_VECTOR_PF = int(Vector.PAGE_FAULT)
_OPEN_GATES = frozenset((Vector.BREAKPOINT, Vector.OVERFLOW, Vector.INT80))
"""Software interrupts that user code may raise (arch/x86/kernel/idt.c: the gates with DPL 3)."""
_ICEBP = 0xF1

TSC_CYCLES_PER_BLOCK = 16

# While the TLB grows, the engine is stopped this often (unseen by anybody) to ask whether a flush would let it grow.
_FIRST_SLICE_BLOCKS = 20_000
_LAST_SLICE_BLOCKS = 1 << 40
_FAULTS_PER_TLB_CHECK = 64


TLB_FLUSH = Tracepoint("tlb:tlb_flush", "reason pages addr")
"""As in ``trace/events/tlb.h``: ``pages`` is -1 for all.  What only lets the engine's TLB grow is no flush."""
_ALL_PAGES = -1


class Tick(Enum):
    """How a quantum is counted."""

    BLOCKS = "blocks"
    KERNEL_ENTRIES = "kernel entries"
    """This host refuses executable memory: a program that neither faults nor makes system calls is not pre-empted."""


class Cpu:
    """One processor.  ``on_syscall`` and ``on_page_fault`` must be set before :meth:`run`.

    Invariants: ``live`` is the register file that the engine holds (None at first); ``running`` is true exactly while
    the engine executes; ``_cr3`` is the table that the engine's TLB belongs to.  Blocks executed in all are
    ``_blocks_before`` and what the counter says of the current slice, ``_slice``; a quantum is one or more slices.
    """

    def __init__(
        self,
        physmem: PhysMem,
        *,
        fast_memory: FastMemory | None = None,
        sse42: Sse42 = Sse42.HIDDEN,
        tick: Tick = Tick.BLOCKS,
        code_buffer_bytes: int = CODE_BUFFER_BYTES,
    ) -> None:
        """``fast_memory`` None: as the environment says (``PAGEWALK_FAST_MEMORY``)."""
        self.physmem = physmem
        self.on_syscall: SyscallHandler = _no_syscall_handler
        self.on_page_fault: PageFaultHandler = _no_fault_handler
        self.on_rdtsc: Callable[[], int] | None = None
        """The time-stamp counter; None: it counts blocks."""
        self._kernel = layout.KernelLayout(physmem)
        self.reserved_frames = self._kernel.frames
        """Frames at the top of RAM that belong to the processor; the page allocator skips them."""
        self.kernel_pml4_entries = self._kernel.pml4_entries
        """What every root table needs: slot -> entry."""

        self.engine = Engine(physmem.address, physmem.size, code_buffer_bytes)
        wanted = FastMemory.from_environment() if fast_memory is None else fast_memory
        found = wanted is FastMemory.ON and set_fast_memory(self.engine)
        self.fast_memory = FastMemory.ON if found else FastMemory.OFF
        self._tick_block = TickBlock()
        self.count = memoryview(self._tick_block).cast("B").cast("q")
        """``count[0]``: blocks left of the slice; negative when it is over."""
        self.stubs = make_stubs() if tick is Tick.BLOCKS else None
        """Kept: the engine calls into their memory."""
        self.tick = Tick.KERNEL_ENTRIES if self.stubs is None else Tick.BLOCKS
        if self.stubs is not None:
            # Before anything is translated: a block translated without the hook would never count.
            tick_stub = self.stubs.tick(self.engine.function_address("uc_emu_stop"))
            self.engine.add_hook(abi.HOOK_BLOCK, tick_stub, user_data=ctypes.addressof(self._tick_block))

        self.fxsave = FxsaveCodec()
        booted = boot(self.engine, self._kernel, self.fxsave, sse42)
        self.state = booted.state
        self.register_words = register_words(booted.state)
        self.pristine_context = booted.pristine_context
        # The engine's state: what it holds of the registers of ``live``, and more.
        self._live_bytes, self.words, self._i = booted.live_bytes, booted.live_words, booted.live_ints
        # Indices into the words and ints of the engine's state.
        self.rip_word, self._cr3_word = booted.state.rip // 8, booted.state.cr3 // 8
        self._cr2_word, self._error_code_int = booted.state.cr2 // 8, booted.state.error_code // 4
        self._is_int_int, self._old_exception_int = booted.state.is_int // 4, booted.state.old_exception // 4
        self._cc_op_int, self._cc_src_word = booted.state.cc_op // 4, booted.state.cc_src // 8
        self._tlb, self._flush_page, self._processor = booted.tlb, booted.flush_page, booted.processor_address

        self.running = False
        self.live: CpuRegisters | None = None
        self._cr3 = -1
        self._slice = self.count[0] = 0
        self._next_slice = _FIRST_SLICE_BLOCKS
        self._blocks_before = 0
        self._nr_tsc_reads = 0
        # Why the engine is being stopped, if it is.
        self._reason: StopReason | None = None
        self._vector = 0
        self._error_code = 0
        self._vaddr = 0
        self._error: BaseException | None = None
        self._plain: PlainHooks | None = None
        # What the kernel has asked for and has not been done yet.
        self._work_queued = False
        self._flush_queued = False
        self._stale_code: list[int] = []
        self._faults_to_tlb_check = _FAULTS_PER_TLB_CHECK
        self._instructions = FaultingInstructions(physmem)
        self.code_watch: CodeWatch | None = None
        """Addresses at which somebody wants to be told; None until somebody does."""
        self.debug: DebugUnit | None = None
        """Breakpoints, watchpoints and single step; None until somebody debugs."""
        self.insns: InsnWatch | None = None
        """The record of executed instructions; None until somebody wants it."""
        self.state_address = booted.state_address
        """Host address of the engine's state."""
        self._add_hooks(booted.state_address)

    def _add_hooks(self, state_address: int) -> None:
        engine = self.engine
        engine.add_hook(abi.HOOK_INTR, IntrCallback(self._on_interrupt))
        engine.add_hook(abi.HOOK_INSN_INVALID, ValueInsnCallback(self._on_invalid_instruction))
        # System calls come first: the engine goes through all hooks on instructions in this order.
        if self.stubs is not None:
            self._add_native_hooks(self.stubs, state_address)
        else:
            self._plain = PlainHooks(self)
        engine.add_hook(abi.HOOK_INSN, ValueInsnCallback(self._on_rdtsc), instruction=abi.INS_RDTSC)
        engine.add_hook(abi.HOOK_INSN, ValueInsnCallback(self._on_rdtscp), instruction=abi.INS_RDTSCP)

    def _add_native_hooks(self, stubs: NativeStubs, state_address: int) -> None:
        engine = self.engine
        flags = FlagsPlace(state_address + self.state.cc_op, state_address + self.state.cc_src)
        self._tick_block.set_flags_place(flags)
        self._syscall_callback = InsnCallback(self.serve_syscall)
        syscall_stub = stubs.syscall(
            engine.function_address("uc_reg_read"),
            abi.REG_RFLAGS,
            rip=state_address + self.state.rip,
            rcx=state_address + 8 * _RCX,
            r11=state_address + 8 * _R11,
            flags=flags,
            callback=ctypes.cast(self._syscall_callback, ctypes.c_void_p).value or 0,
        )
        engine.add_hook(abi.HOOK_INSN, syscall_stub, instruction=abi.INS_SYSCALL)
        raise_exception = engine.function_address("raise_exception_err_ra_x86_64")
        fault_stub = stubs.fault(raise_exception, state_address, VECTOR_GP)
        engine.add_hook(abi.HOOK_INSN, fault_stub, instruction=abi.INS_IN)
        engine.add_hook(abi.HOOK_INSN, fault_stub, instruction=abi.INS_OUT)

    def close(self) -> None:
        """Free the engine.  Register files can still be read, but nothing runs any more."""
        if self.live is not None:
            self.engine.context_save(self.live.address)
            self.live.detach()
            self.live = None
        self.engine.close()

    def __del__(self) -> None:
        if hasattr(self, "_instructions"):
            self.close()

    # Hardware (kernel/hardware.py) -----------------------------------------------------------------------------------

    def flush_tlb(self) -> None:
        if TLB_FLUSH.on:
            TLB_FLUSH.emit("local mm shootdown", _ALL_PAGES, None)
        self._queue_flush()

    def _queue_flush(self) -> None:
        self._instructions.forget_pages()
        self._flush_queued = True
        self._work_queued = True

    def flush_tlb_page(self, vaddr: int) -> None:
        """Like :meth:`flush_tlb`, for the one page at ``vaddr``."""
        if TLB_FLUSH.on:
            TLB_FLUSH.emit("local shootdown", 1, vaddr)
        if self._flush_page is None:
            self._queue_flush()
        else:
            self._instructions.forget_pages()
            self._flush_page(self._processor, vaddr)

    def invalidate_code(self, pfn: int) -> None:
        self._stale_code.append(pfn)
        self._work_queued = True

    def new_registers(self) -> Registers:
        return CpuRegisters(self, self.pristine_context)

    def enable_debug(self, on_breakpoint: Callable[[int], bool]) -> DebugUnit:
        """Debug facilities (``debug.py``).  EngineError where this host cannot have them."""
        from emu.cpu.debug import DebugUnit

        self.debug = DebugUnit(self, on_breakpoint)
        return self.debug

    def watch_code(self) -> CodeWatch:
        """Say when certain addresses are executed (``code_watch.py``)."""
        from emu.cpu.code_watch import CodeWatch

        if self.code_watch is None:
            self.code_watch = CodeWatch(self)
        return self.code_watch

    @property
    def has_stale_code(self) -> bool:
        """Is code waiting to be forgotten, which needs the engine stopped?"""
        return bool(self._stale_code)

    def watch_instructions(self, on_blocks: OnBlocks, at_most: int | None = None) -> InsnWatch:
        """Say which blocks of instructions are executed (``insn_watch.py``), at each time the last ``at_most`` of them.

        The handlers must have been set before.  EngineError where this host cannot have it.
        """
        from emu.cpu.insn_watch import InsnWatch

        self.insns = InsnWatch(self, on_blocks) if at_most is None else InsnWatch(self, on_blocks, at_most)
        return self.insns

    # Running --------------------------------------------------------------------------------------------------------

    @property
    def blocks(self) -> int:
        """Blocks executed so far, the one that runs included; exact inside callbacks too."""
        count = self.count[0]
        return self._blocks_before + self._slice - (count if count > 0 else 0)

    def run(self, registers: Registers, cr3: int, nr_blocks: int) -> Stop:
        """Run user code with these registers and page tables for ``nr_blocks`` blocks, or until something stops it.

        Exceptions raised by the handlers come out here.
        """
        if self.running:
            raise RuntimeError("Cpu.run called from a callback")
        if registers is not self.live:
            self._load(registers)
        if cr3 != self._cr3:
            if TLB_FLUSH.on:
                TLB_FLUSH.emit("flush on task switch", _ALL_PAGES, None)
            self.engine.reg_write(abi.REG_CR3, cr3)  # flushes
            self._cr3 = cr3
            self._instructions.forget_pages()
            self._flush_queued = False
            self._next_slice = _FIRST_SLICE_BLOCKS
        else:
            self.words[self._cr3_word] = cr3  # a context may have brought an older one
        self._reason = None
        self.running = True
        try:
            status = self._run_quantum(max(nr_blocks, 1))
        finally:
            self.running = False
            self._end_slice()
        stop = self._make_stop(status)
        if self.insns is not None:
            self.insns.after_run(stop, self.words[self.rip_word])
        return stop

    def _end_slice(self) -> int:
        """Settle the count; returns how many blocks the slice had left."""
        count = self.count[0]
        left = count if count > 0 else 0
        self._blocks_before += self._slice - left
        self._slice = self.count[0] = 0
        return left

    def _run_quantum(self, nr_blocks: int) -> int:
        """Start the engine again and again until it stops for a reason that the caller must see."""
        start, handle = self.engine.lib.uc_emu_start, self.engine.handle
        q, rip_word, counter = self.words, self.rip_word, self.count
        left = nr_blocks
        while True:
            if self._work_queued:
                self._do_queued_work()
            if not self._slice:
                self._slice = counter[0] = min(left, self._next_slice)
                left -= self._slice
            status: int = start(handle, q[rip_word], 0, 0, 0)
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._plain is not None and self._plain.undo_block_of_io():
                return abi.ERR_OK
            if self._reason is not None or status != abi.ERR_OK:
                return status
            if counter[0] < 0:
                self._end_slice()
                self._let_tlb_grow()
                if not left:
                    return status
            elif not self._stale_code:
                raise EngineError(f"the engine stopped for no reason at RIP {q[rip_word]:#x}")

    def _make_stop(self, status: int) -> Stop:
        if status == abi.ERR_INSN_INVALID:
            return self._invalid_opcode()
        if status != abi.ERR_OK:
            raise EngineError(f"at RIP {self.words[self.rip_word]:#x}: {self.engine.error_text(status)}")
        reason = self._reason
        if reason is None:
            return Stop(StopReason.QUANTUM)
        if reason is StopReason.EXCEPTION or reason is StopReason.PAGE_FAULT:
            return Stop(reason, self._vector, self._error_code, self._vaddr)
        return Stop(reason)

    def _invalid_opcode(self) -> Stop:
        """#UD; but the engine takes ``icebp`` (F1) for one, too, which is a trap."""
        rip = self.words[self.rip_word]
        try:
            opcode = self.physmem.mem[walker.walk(self.physmem, self._cr3, rip, walker.READ, 3, set_ad=False).paddr]
        except walker.PageFault:
            opcode = 0
        if opcode == _ICEBP:
            self.words[self.rip_word] = rip + 1
            return Stop(StopReason.EXCEPTION, Vector.DEBUG)
        return Stop(StopReason.EXCEPTION, Vector.INVALID_OPCODE)

    def request_stop(self) -> None:
        """From a callback: stop at the next exact place."""
        if self._reason is None:
            self._reason = StopReason.REQUESTED
        self._stop()

    def _stop(self) -> None:
        """Inside a callback."""
        self.clean_flags()
        self.engine.stop()

    def clean_flags(self) -> None:
        """Before RFLAGS are made: what is no flag must not get into them (quirk 14)."""
        if self._i[self._cc_op_int] == CC_OP_EFLAGS:
            self.words[self._cc_src_word] &= RFLAGS_ARITHMETIC

    def _load(self, registers: Registers) -> None:
        if not isinstance(registers, CpuRegisters):
            raise TypeError("these registers were not made by this processor")
        if self.live is not None:
            self.engine.context_save(self.live.address)
            self.live.detach()
        self.engine.context_restore(registers.address)
        registers.attach(self.words)
        self.live = registers

    # Queued work ------------------------------------------------------------------------------------------------------

    def _do_queued_work(self) -> None:
        """Outside the engine: everything that was asked for."""
        self._work_queued = False
        if self._stale_code:
            self._forget_code()
        if self._flush_queued:
            self._flush()

    def _flush(self) -> None:
        self._flush_queued = False
        self.engine.flush_tlb()

    def _forget_code(self) -> None:
        """Drop the translations of stale frames, by way of the code window of the loaded address space."""
        stale = list(dict.fromkeys(self._stale_code))
        self._stale_code.clear()
        for start in range(0, len(stale), layout.WINDOW_PAGES):
            pfns = stale[start : start + layout.WINDOW_PAGES]
            self._kernel.map_window(pfns)
            for number in range(len(pfns)):
                self.engine.remove_code(layout.WINDOW_VADDR + (number << 12), 4096)
            self._kernel.clear_window(len(pfns))
            self.engine.flush_tlb()  # the window was in it
        self._flush_queued = False

    def _let_tlb_grow(self) -> None:
        """At the end of a slice: flush if that makes the TLB larger, and look again soon; else look less often."""
        if self._tlb is None or self._tlb.wants_flush:
            self._queue_flush()
            self._next_slice = _FIRST_SLICE_BLOCKS if self._tlb is not None else _LAST_SLICE_BLOCKS
        elif self._next_slice < _LAST_SLICE_BLOCKS:
            self._next_slice *= 2

    def _finish_callback(self) -> None:
        """Inside a callback: do what can be done here, stop the engine for the rest."""
        if self._stale_code:
            self._stop()
        else:
            self._work_queued = False
            if self._flush_queued:
                self._flush()

    # Callbacks ------------------------------------------------------------------------------------------------------

    def serve_syscall(self, _engine: int, _data: int) -> None:
        """RCX and R11 are set already."""
        try:
            nr, a2, a1, a0, a4, a5, a3 = _unpack_syscall(self._live_bytes)
            result = self.on_syscall(nr, a0, a1, a2, a3, a4, a5)
            if result is None:
                if self._reason is None:
                    self._reason = StopReason.SYSCALL
                self._stop()
            else:
                self.words[_RAX] = result & _U64
            if self._work_queued:
                self._finish_callback()
        except BaseException as error:
            self._keep_error(error)

    def _on_interrupt(self, _engine: int, vector: int, _data: int) -> None:
        try:
            ints = self._i
            ints[self._old_exception_int] = -1
            if not ints[self._is_int_int]:
                if self.code_watch is not None and self.code_watch.takes_interrupt(vector):
                    return
                if self.debug is not None and self.debug.takes_interrupt(vector):
                    return
            if vector == _VECTOR_PF and not ints[self._is_int_int]:
                self._page_fault()
            else:
                self._exception(vector, bool(ints[self._is_int_int]))
        except BaseException as error:
            self._keep_error(error)

    def _page_fault(self) -> None:
        q = self.words
        vaddr, rip, error_code = q[self._cr2_word], q[self.rip_word], self._i[self._error_code_int]
        if not error_code & PF_INSTR:
            kind = self._instructions.kind(self._cr3, rip)
            if kind:
                if kind & READ_MODIFY_WRITE:
                    error_code |= PF_WRITE
                if kind & FLAGS_FIRST:
                    self._recover_flags(rip)
        if self.on_page_fault(vaddr, error_code, rip):
            self._faults_to_tlb_check -= 1
            if not self._faults_to_tlb_check:
                self._faults_to_tlb_check = _FAULTS_PER_TLB_CHECK
                if self._tlb is not None and self._tlb.wants_flush:
                    self._queue_flush()
        else:
            self.stop_for(StopReason.PAGE_FAULT, _VECTOR_PF, error_code, vaddr)
        if self._work_queued:
            self._finish_callback()
        if self._plain is not None:
            self._plain.count_kernel_entry()

    def _on_invalid_instruction(self, _engine: int, _data: int) -> int:
        """The engine stops by itself after this."""
        self.clean_flags()
        return 0

    def _recover_flags(self, rip: int) -> None:
        """Lost flags; see ``faulting.py``."""
        cc_op = self._i[self._cc_op_int]
        if self._instructions.lost_flags(self._cr3, rip, self._tick_block.block_start, cc_op):
            self._i[self._cc_op_int] = CC_OP_EFLAGS

    def _exception(self, vector: int, is_int: bool) -> None:
        rip = self.words[self.rip_word]
        if not is_int:
            if vector != Vector.DEBUG and self._instructions.kind(self._cr3, rip) & FLAGS_FIRST:
                self._recover_flags(rip)  # after a trap the instruction at RIP has not begun
            self.stop_for(StopReason.EXCEPTION, vector, self._i[self._error_code_int])
        elif vector in _OPEN_GATES:
            self.stop_for(StopReason.EXCEPTION, vector)
        else:
            # #GP(selector of the gate, in the IDT) at the instruction, which has two bytes.
            self.words[self.rip_word] = rip - 2
            self.stop_for(StopReason.EXCEPTION, VECTOR_GP, vector * 8 + 2)

    def stop_for(self, reason: StopReason, vector: int = 0, error_code: int = 0, vaddr: int = 0) -> None:
        """Inside a callback: let :meth:`run` return with this reason."""
        self._vector, self._error_code, self._vaddr = vector, error_code, vaddr
        if self._reason is None or self._reason is StopReason.REQUESTED:
            self._reason = reason
        self._stop()

    def _keep_error(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._stop()

    def _on_rdtsc(self, _engine: int, _data: int) -> int:
        try:
            tsc = self._read_tsc()
            self.words[_RAX] = tsc & 0xFFFF_FFFF
            self.words[_RDX] = tsc >> 32 & 0xFFFF_FFFF
        except BaseException as error:
            self._keep_error(error)
        return 1

    def _on_rdtscp(self, engine: int, data: int) -> int:
        self.words[_RCX] = 0  # TSC_AUX: processor 0, node 0
        return self._on_rdtsc(engine, data)

    def _read_tsc(self) -> int:
        if self.on_rdtsc is not None:
            return self.on_rdtsc()
        self._nr_tsc_reads += 1  # two reads in one block must differ
        return self.blocks * TSC_CYCLES_PER_BLOCK + self._nr_tsc_reads


def _no_syscall_handler(nr: int, a0: int, a1: int, a2: int, a3: int, a4: int, a5: int) -> int | None:
    raise RuntimeError(f"system call {nr} with no on_syscall handler")


def _no_fault_handler(vaddr: int, error_code: int, rip: int) -> bool:
    raise RuntimeError(f"page fault at {vaddr:#x} (error {error_code:#x}, RIP {rip:#x}) with no on_page_fault handler")
