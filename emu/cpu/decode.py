"""Which instructions read a memory operand in order to write it.

A real processor checks such an operand for writing at once: ``inc [m]`` on an absent page faults once, with the write
bit set in the error code.  The engine loads first and stores later, so it would report a read, and then fault a second
time; a kernel would map the zero page only to copy it.  ``cpu.py`` asks this module about every instruction that faults
for reading, and reports a write where the processor would.

Models the opcode maps of the Intel SDM, volume 2, appendix A, for 64-bit code.
"""

from __future__ import annotations

from mmu import walker
from mmu.physmem import PhysMem

MAX_INSTRUCTION_BYTES = 15

# Legacy prefixes: operand and address size, segments, lock, repne, rep.
_PREFIXES = frozenset(b"\x66\x67\x26\x2e\x36\x3e\x64\x65\xf0\xf2\xf3")

# ModRM.reg values with which an opcode reads and writes its memory operand.
_ALWAYS = frozenset(range(8))
_ONE_BYTE: dict[int, frozenset[int]] = {
    # add or adc sbb and sub xor, register into memory; not cmp
    **{base + width: _ALWAYS for base in range(0x00, 0x38, 8) for width in (0, 1)},
    **{opcode: frozenset(range(7)) for opcode in (0x80, 0x81, 0x83)},  # the same with an immediate
    **dict.fromkeys((134, 135), _ALWAYS),  # xchg
    **dict.fromkeys((192, 193, 208, 209, 210, 211), _ALWAYS),  # shifts
    **{opcode: frozenset((2, 3)) for opcode in (0xF6, 0xF7)},  # not neg
    **{opcode: frozenset((0, 1)) for opcode in (0xFE, 0xFF)},  # inc dec
}
_TWO_BYTE: dict[int, frozenset[int]] = {
    **dict.fromkeys((164, 165, 172, 173), _ALWAYS),  # shld shrd
    **dict.fromkeys((171, 179, 187), _ALWAYS),  # bts btr btc
    0xBA: frozenset((5, 6, 7)),  # bts btr btc with an immediate
    **dict.fromkeys((176, 177, 192, 193), _ALWAYS),  # cmpxchg xadd
    0xC7: frozenset((1,)),  # cmpxchg8b cmpxchg16b
}


def reads_before_it_writes(code: bytes) -> bool:
    """Whether the instruction at the start of ``code`` (which may be cut short) reads and writes a memory operand."""
    index, length = 0, len(code)
    while index < length and code[index] in _PREFIXES:
        index += 1
    if index < length and code[index] & 0xF0 == 0x40:  # REX
        index += 1
    if index < length and code[index] == 0x0F:
        index += 1
        opcodes = _TWO_BYTE
    else:
        opcodes = _ONE_BYTE
    if index + 1 >= length:
        return False
    regs = opcodes.get(code[index])
    modrm = code[index + 1]
    return regs is not None and modrm < 0xC0 and modrm >> 3 & 7 in regs


_MAX_KNOWN_INSTRUCTIONS = 10_000


class FaultingInstructions:
    """Answers for the instruction at RIP: remembers where pages of code are, and instructions by their bytes."""

    __slots__ = ("_known", "_pages", "_physmem")

    def __init__(self, physmem: PhysMem) -> None:
        self._physmem = physmem
        self._pages: dict[int, int] = {}
        """Page of RIP -> physical address; as good as the TLB."""
        self._known: dict[bytes, bool] = {}

    def forget_pages(self) -> None:
        """To be called whenever the TLB is flushed."""
        self._pages.clear()

    def reads_before_it_writes(self, cr3: int, rip: int) -> bool:
        """Of an instruction that has just faulted for reading, so that its own page is there."""
        base = self._pages.get(rip >> 12)
        if base is None:
            try:
                base = walker.walk(self._physmem, cr3, rip, walker.EXECUTE, 3, set_ad=False).paddr & -4096
            except walker.PageFault:
                return False
            self._pages[rip >> 12] = base
        start = base + (rip & 0xFFF)
        code = bytes(self._physmem.mem[start : min(start + MAX_INSTRUCTION_BYTES, base + 4096)])
        answer = self._known.get(code)
        if answer is None:
            if len(self._known) >= _MAX_KNOWN_INSTRUCTIONS:
                self._known.clear()
            answer = self._known[code] = reads_before_it_writes(code)
        return answer
