"""What the kernel asks of the processor: two protocols, and nothing about how they are met.

``emu/cpu`` implements them over Unicorn; tests implement them with plain Python objects
(:class:`NullHardware`, :class:`PlainRegisters`), so that ``kernel`` runs without an emulator.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol


class Reg(IntEnum):
    """Registers in the order of ``struct user_regs_struct`` (<sys/user.h>), without ``orig_rax``."""

    R15 = 0
    R14 = 1
    R13 = 2
    R12 = 3
    RBP = 4
    RBX = 5
    R11 = 6
    R10 = 7
    R9 = 8
    R8 = 9
    RAX = 10
    RCX = 11
    RDX = 12
    RSI = 13
    RDI = 14
    RIP = 15
    CS = 16
    EFLAGS = 17
    RSP = 18
    SS = 19
    FS_BASE = 20
    GS_BASE = 21


NR_REGS = len(Reg)


class Registers(Protocol):
    """The register file of one task.  Valid inside callbacks for the running task and at any time for others.

    ``write`` of RIP, RSP or EFLAGS, ``fp_state``, ``set_fp_state`` and ``clone`` are allowed only while
    the task is stopped (outside the emulator); system calls that need them are declared ``stopped=True``.
    """

    def read(self, reg: Reg) -> int: ...
    def write(self, reg: Reg, value: int) -> None: ...
    def read_all(self) -> list[int]:
        """All registers, indexed by :class:`Reg`."""
        ...

    def write_all(self, values: list[int]) -> None: ...
    def fp_state(self) -> bytes:
        """The 512 bytes that ``fxsave64`` would store."""
        ...

    def set_fp_state(self, fxsave: bytes) -> None: ...
    def clone(self) -> Registers:
        """A copy for a forked task, floating point included."""
        ...

    def reset(self) -> None:
        """The state at program entry (execve): all zero, FPU in its initial state, MXCSR 0x1f80."""
        ...


class Hardware(Protocol):
    """The processor as memory management sees it."""

    def flush_tlb(self) -> None:
        """Ask that no stale translation is used by the guest after now.  Cheap: queued, done once before
        the guest runs again.  Needed for every PTE change but not-present -> present and more permission."""
        ...

    def flush_tlb_page(self, vaddr: int) -> None:
        """Like :meth:`flush_tlb`, for the page at ``vaddr`` alone: much cheaper for a program with a large working set.
        The right call after copy-on-write, swap-out or a change of protection of a few pages (Linux: up to 33)."""
        ...

    def invalidate_code(self, pfn: int) -> None:
        """Ask that instructions translated from frame ``pfn`` are forgotten (queued like a TLB flush)."""
        ...

    def new_registers(self) -> Registers: ...


class PlainRegisters:
    """A register file without a processor, for tests of the kernel alone."""

    __slots__ = ("fxsave", "values")

    def __init__(self) -> None:
        self.reset()

    def read(self, reg: Reg) -> int:
        return self.values[reg]

    def write(self, reg: Reg, value: int) -> None:
        self.values[reg] = value & 0xFFFF_FFFF_FFFF_FFFF

    def read_all(self) -> list[int]:
        return list(self.values)

    def write_all(self, values: list[int]) -> None:
        self.values = list(values)

    def fp_state(self) -> bytes:
        return self.fxsave

    def set_fp_state(self, fxsave: bytes) -> None:
        self.fxsave = bytes(fxsave)

    def clone(self) -> PlainRegisters:
        copy = PlainRegisters()
        copy.values = list(self.values)
        copy.fxsave = self.fxsave
        return copy

    def reset(self) -> None:
        self.values = [0] * NR_REGS
        self.values[Reg.EFLAGS] = 0x202
        # fxsave image after fninit and with the default MXCSR
        image = bytearray(512)
        image[0:2] = (0x37F).to_bytes(2, "little")
        image[24:28] = (0x1F80).to_bytes(4, "little")
        image[28:32] = (0xFFFF).to_bytes(4, "little")
        self.fxsave = bytes(image)


class NullHardware:
    """No processor: counts what it is asked.  ``--check`` and tests read the counters."""

    def __init__(self) -> None:
        self.nr_flushes = 0
        self.stale_code: list[int] = []

    def flush_tlb(self) -> None:
        self.nr_flushes += 1

    def flush_tlb_page(self, vaddr: int) -> None:
        self.nr_flushes += 1

    def invalidate_code(self, pfn: int) -> None:
        self.stale_code.append(pfn)

    def new_registers(self) -> Registers:
        return PlainRegisters()
