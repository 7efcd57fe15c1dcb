"""Why the processor came back from :meth:`emu.cpu.Cpu.run`."""

from __future__ import annotations

from enum import IntEnum


class StopReason(IntEnum):
    QUANTUM = 0
    """The given number of blocks has been executed; RIP is the start of the next block."""
    SYSCALL = 1
    """``on_syscall`` returned None; RIP is after the ``syscall`` instruction."""
    PAGE_FAULT = 2
    """``on_page_fault`` returned False; RIP is the faulting instruction."""
    EXCEPTION = 3
    """Another exception or a software interrupt; see :attr:`Stop.vector`."""
    REQUESTED = 4
    """:meth:`emu.cpu.Cpu.request_stop` was called."""
    DEBUG = 5
    """A breakpoint, watchpoint or single step of the debug unit; the program knows nothing of it."""


class Vector(IntEnum):
    """Exception vectors (Intel SDM volume 3, table 6-1) that user code can cause here."""

    DIVIDE_ERROR = 0
    DEBUG = 1
    BREAKPOINT = 3
    OVERFLOW = 4
    INVALID_OPCODE = 6
    SEGMENT_NOT_PRESENT = 11
    STACK_SEGMENT = 12
    GENERAL_PROTECTION = 13
    PAGE_FAULT = 14
    X87 = 16
    ALIGNMENT_CHECK = 17
    SIMD = 19
    INT80 = 128


class Stop:
    """The result of one run.  ``vector`` and ``error_code`` are 0 and ``vaddr`` (CR2) is 0 where they do not apply.

    RIP is the faulting instruction, and the next one for the traps: ``int3`` (3), ``int 4`` (4), ``int 0x80`` (128),
    single step and ``icebp`` (1).
    """

    __slots__ = ("error_code", "reason", "vaddr", "vector")

    def __init__(self, reason: StopReason, vector: int = 0, error_code: int = 0, vaddr: int = 0) -> None:
        self.reason = reason
        self.vector = vector
        self.error_code = error_code
        self.vaddr = vaddr

    def __repr__(self) -> str:
        if self.reason in (StopReason.EXCEPTION, StopReason.PAGE_FAULT):
            detail = f", vector={self.vector}, error_code={self.error_code:#x}, vaddr={self.vaddr:#x}"
            return f"Stop({self.reason.name}{detail})"
        return f"Stop({self.reason.name})"
