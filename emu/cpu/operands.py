"""Which bytes of memory an instruction is about to read and write: what debug registers compare addresses with.

By capstone, which is loaded when a watched page is touched for the first time.  One repetition of a string instruction
counts, because the processor traps after each.

Deliberate differences: what ``enter`` with levels, ``xlatb`` and far transfers read is not told apart; the caller also
compares the bytes themselves for writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from emu.disasm import with_operands
from kernel.hardware import Reg

_U64 = 0xFFFF_FFFF_FFFF_FFFF
_READ, _WRITE = 1, 2
_BIT_TESTS = frozenset(("bt", "bts", "btr", "btc"))
_NO_ACCESS = frozenset(("lea", "nop", "prefetcht0", "prefetcht1", "prefetcht2", "prefetchnta", "prefetchw", "clflush"))
_PUSHES = frozenset(("push", "call", "pushf", "pushfq", "enter"))
_POPS = frozenset(("pop", "ret", "popf", "popfq"))
_MASKED_STORES = frozenset(("maskmovdqu", "maskmovq"))


class MemoryAccess(NamedTuple):
    """``length`` bytes at ``address``."""

    address: int
    length: int
    reads: bool
    writes: bool

    def overlaps(self, start: int, end: int) -> bool:
        return self.address < end and start < self.address + self.length


def _register(name: str, read: Callable[[Reg], int]) -> int:
    """The value of a register by its name in an address: 64 or 32 bits wide, or a segment's base."""
    if name == "fs":
        return read(Reg.FS_BASE)
    if name == "gs":
        return read(Reg.GS_BASE)
    if name in ("cs", "ds", "es", "ss", "riz", "eiz"):
        return 0
    if name.endswith("d") and name[0] == "r":
        return read(Reg[name[:-1].upper()]) & 0xFFFF_FFFF
    if name.startswith("e"):
        return read(Reg["R" + name[1:].upper()]) & 0xFFFF_FFFF
    return read(Reg[name.upper()])


def _effective_address(insn: Any, memory: Any, read: Callable[[Reg], int]) -> int:
    address = int(memory.disp)
    width = _U64
    for register, scale in ((memory.base, 1), (memory.index, memory.scale)):
        if not register:
            continue
        name = insn.reg_name(register)
        if name in ("rip", "eip"):
            address += read(Reg.RIP) + insn.size
            continue
        if insn.addr_size == 4:
            width = 0xFFFF_FFFF
        address += _register(name, read) * scale
    address &= width
    if memory.segment:
        address += _register(insn.reg_name(memory.segment), read)
    return address & _U64


def _bit_offset(insn: Any, size: int, read: Callable[[Reg], int]) -> int:
    """How far from its operand a bit test with the bit's number in a register reaches, in bytes."""
    source = insn.operands[1]
    if source.type != 1:  # X86_OP_REG
        return 0
    names = {8: insn.reg_name(source.reg)}
    if size != 8:
        return 0 if size == 2 else _signed(_register(insn.reg_name(source.reg), read), 32) // 32 * 4
    return _signed(_register(names[8], read), 64) // 64 * 8


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def memory_accesses(code: bytes, read: Callable[[Reg], int]) -> list[MemoryAccess] | None:
    """What the instruction ``code`` would access with these registers; None: it is not known."""
    insn = with_operands(code)
    if insn is None:
        return None
    mnemonic = insn.mnemonic.rsplit(" ", 1)[-1]
    found: list[MemoryAccess] = []
    if mnemonic in _NO_ACCESS:
        return found
    for operand in insn.operands:
        if operand.type != 3:  # X86_OP_MEM
            continue
        address = _effective_address(insn, operand.mem, read)
        if mnemonic in _BIT_TESTS:
            address = address + _bit_offset(insn, operand.size, read) & _U64
        access = operand.access or _READ | _WRITE
        found.append(MemoryAccess(address, operand.size, bool(access & _READ), bool(access & _WRITE)))
    stack = read(Reg.RSP)
    width = 2 if code[0] == 0x66 else 8
    if mnemonic in _PUSHES:
        found.append(MemoryAccess(stack - width & _U64, width, False, True))
    elif mnemonic in _POPS:
        found.append(MemoryAccess(stack, width, True, False))
    elif mnemonic == "leave":
        found.append(MemoryAccess(read(Reg.RBP), 8, True, False))
    elif mnemonic in _MASKED_STORES:
        found.append(MemoryAccess(read(Reg.RDI), 16, False, True))
    return found
