"""Which instructions have been executed: the basic blocks that the processor has begun, in order, and where it was
interrupted.

A hook on every instruction would change what is watched: it makes the engine compute the flags before each of them, and
a fault's retry calls it again.  But the engine counts basic blocks anyway (``native.py``, ``tick``), and between the
start of a block and its end nothing can happen but an exception, whose RIP is exact.  So the tick, while somebody
watches, also notes the block's address and length in a buffer: seven instructions of host code for each block, no
change of what is translated, counted or flushed, and a run with a watch is the same run.

A block that follows itself (a loop of one block, a repeated string instruction) is noted once, with a number of times.

Told to ``on_blocks`` are: everything before a system call is served, before a page fault is served, and when the
processor has stopped for anything else; and from time to time in between, when the buffer is full.

Deliberate difference: a block is known by its address and length, not by its bytes; who reads the bytes later sees what
the program has stored there meanwhile.  A block that changes itself ends, for us, where the engine had to begin anew.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from emu.cpu.engine import EngineError
from emu.cpu.stop import Stop, StopReason
from mmu.paging import PF_INSTR

if TYPE_CHECKING:
    from emu.cpu.cpu import Cpu

BUFFER_BLOCKS = 65_536

_FullCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)


class Block(NamedTuple):
    """A basic block, executed ``times`` times in a row."""

    address: int
    nr_bytes: int
    times: int


class Interruption(NamedTuple):
    """An exception: of the last block, what stands before ``ip`` has been executed, and no more."""

    ip: int


OnBlocks = Callable[[list[Block], "Interruption | None"], None]


class _Entry(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint64), ("nr_bytes", ctypes.c_uint32), ("times", ctypes.c_uint32))


ENTRY_BYTES = ctypes.sizeof(_Entry)


_ENTRY = struct.Struct("<QII")


class BlockBuffer(ctypes.Structure):
    """What the stub works on.  ``first`` never matches a block: the stub compares with the entry before ``next``."""

    _fields_ = (
        ("next", ctypes.c_uint64),
        ("limit", ctypes.c_uint64),
        ("on_full", ctypes.c_uint64),
        ("first", _Entry),
        ("entries", _Entry * BUFFER_BLOCKS),
    )

    def __init__(self, on_full: int) -> None:
        super().__init__()
        self.start = ctypes.addressof(self) + BlockBuffer.entries.offset
        self.next = self.start
        self.limit = self.start + ENTRY_BYTES * BUFFER_BLOCKS
        self.on_full = on_full

    @property
    def nr_entries(self) -> int:
        return int(self.next - self.start) // ENTRY_BYTES

    def take(self, at_most: int) -> list[Block]:
        """The last entries; the buffer is then empty."""
        nr_entries = self.nr_entries
        first, end = max(0, nr_entries - at_most), nr_entries
        offset = BlockBuffer.entries.offset
        entries = memoryview(self).cast("B")[offset + ENTRY_BYTES * first : offset + ENTRY_BYTES * end]
        self.next = self.start
        return list(map(Block._make, _ENTRY.iter_unpack(entries)))


class InsnWatch:
    """Made by :meth:`Cpu.watch_instructions`; of the blocks since it has spoken last, it tells the last ``at_most``.

    Invariant: while the engine does not run, and while a handler of the kernel runs, the buffer is empty.
    """

    def __init__(self, cpu: Cpu, on_blocks: OnBlocks, at_most: int = BUFFER_BLOCKS) -> None:
        stubs = cpu.stubs
        if stubs is None:
            raise EngineError("watching instructions needs executable memory on an x86-64 host")
        self._cpu = cpu
        self._on_blocks = on_blocks
        self._at_most = min(at_most, BUFFER_BLOCKS)
        self._callback = _FullCallback(self._on_full)
        self._buffer = BlockBuffer(ctypes.cast(self._callback, ctypes.c_void_p).value or 0)
        self._on_syscall, self._on_page_fault = cpu.on_syscall, cpu.on_page_fault
        cpu.on_syscall, cpu.on_page_fault = self._serve_syscall, self._serve_page_fault
        stubs.note_blocks(ctypes.addressof(self._buffer))

    def close(self) -> None:
        """Watch no more.  The processor must be stopped."""
        cpu = self._cpu
        if cpu.stubs is not None:
            cpu.stubs.note_blocks(None)
        cpu.on_syscall, cpu.on_page_fault = self._on_syscall, self._on_page_fault
        cpu.insns = None

    # ---- when to tell --------------------------------------------------------------------------------------------

    def _serve_syscall(self, *args: int) -> int | None:
        self._on_blocks(self._buffer.take(self._at_most), None)
        return self._on_syscall(*args)

    def _serve_page_fault(self, vaddr: int, error_code: int, ip: int) -> bool:
        # A fetch faults before its block begins: the blocks so far are whole.
        self._on_blocks(self._buffer.take(self._at_most), None if error_code & PF_INSTR else Interruption(ip))
        return self._on_page_fault(vaddr, error_code, ip)

    def after_run(self, stop: Stop, ip: int) -> None:
        """The processor has stopped; ``ip`` is its RIP."""
        blocks = self._buffer.take(self._at_most)
        if blocks:
            self._on_blocks(blocks, Interruption(ip) if stop.reason is StopReason.EXCEPTION else None)

    def _on_full(self, _engine: int, _address: int, _size: int, _data: int) -> None:
        """In the hook of the block that has filled the buffer, which has not been executed yet."""
        try:
            *done, begun = self._buffer.take(self._at_most + 1)
            entry = self._buffer.entries[0]
            entry.address, entry.nr_bytes, entry.times = begun
            self._buffer.next += ENTRY_BYTES
            self._on_blocks(done, None)
        except BaseException as error:
            self._cpu._keep_error(error)
