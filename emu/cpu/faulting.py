"""What must be put right at an exception, because the engine had begun the instruction in its own way.

**Intent.**  A real processor checks an operand that it reads and writes for writing at once: ``inc [m]`` on an absent
page faults once, with the write bit set in the error code.  The engine loads first and stores later, so it would report
a read and then fault a second time; a kernel would map the zero page only to copy it.  A read fault of such an
instruction is reported as a write.

**Lost flags.**  The engine keeps the flags as an operation and its operands (QEMU's ``cc_op``, ``cc_dst``, ``cc_src``)
and turns them into RFLAGS bits in ``cc_src`` when an instruction needs them in that form.  ``rcl m``, ``rcr m`` and
``setcc m`` do that *before* their memory access.  If the access faults, the engine restores ``cc_op`` as it was before
the instruction, next to a ``cc_src`` that already holds bits: the flags are wrong after the fault, and ``setcc`` stores
a wrong answer.  The cure is to say that ``cc_src`` holds bits (``CC_OP_EFLAGS``) exactly when the translator has made
it so; :meth:`FaultingInstructions.lost_flags` follows its decisions (``gen_prepare_cc`` in target/i386/translate.c).

Not cured: ``rcl m`` and ``rcr m`` on a page that may be read but not written (copy on write) have also replaced the
carry when their store faults.
"""

from __future__ import annotations

from emu.cpu.decode import (
    MAX_INSTRUCTION_BYTES,
    FlagsEffect,
    Instruction,
    decode,
    flags_effect,
    is_rotate_through_carry,
    reads_before_it_writes,
    setcc_condition,
)
from mmu import walker
from mmu.physmem import PhysMem

# Values of QEMU's enum CCOp.
CC_OP_EFLAGS = 1
CC_OP_SUB = range(14, 18)
CC_OP_WITH_OVERFLOW_APART = range(47, 51)
"""ADOX ADCOX CLR POPCNT: OF is known, or stands in a place of its own."""

PLAIN = 0
"""Nothing needs to be put right."""
READ_MODIFY_WRITE = 1
FLAGS_FIRST = 2
"""Turns the flags into bits before its memory access."""

# Condition codes without their lowest bit, which negates.
_COND_O, _COND_B, _COND_Z, _COND_BE, _COND_S, _COND_P, _COND_L, _COND_LE = range(0, 16, 2)
_COMPARED_DIRECTLY = frozenset((_COND_BE, _COND_L, _COND_LE))
"""After a subtraction these are made from its operands."""

_MAX_KNOWN_INSTRUCTIONS = 10_000


def classify(instruction: Instruction) -> int:
    """READ_MODIFY_WRITE and FLAGS_FIRST bits of an instruction."""
    kind = READ_MODIFY_WRITE if reads_before_it_writes(instruction) else PLAIN
    if instruction.has_memory_operand and (is_rotate_through_carry(instruction) or setcc_condition(instruction) >= 0):
        kind |= FLAGS_FIRST
    return kind


class FaultingInstructions:
    """Answers about the instruction at RIP, quickly: remembers where pages of code are, and instructions by bytes."""

    __slots__ = ("_known", "_pages", "_physmem")

    def __init__(self, physmem: PhysMem) -> None:
        self._physmem = physmem
        self._pages: dict[int, int] = {}
        """Page of RIP -> physical address; as good as the TLB."""
        self._known: dict[bytes, int] = {}

    def forget_pages(self) -> None:
        """To be called whenever the TLB is flushed."""
        self._pages.clear()

    def _code(self, cr3: int, rip: int, nr_bytes: int) -> bytes:
        """Code at ``rip``, up to the end of the page."""
        base = self._pages.get(rip >> 12)
        if base is None:
            try:
                base = walker.walk(self._physmem, cr3, rip, walker.EXECUTE, 3, set_ad=False).paddr & -4096
            except walker.PageFault:
                return b""
            self._pages[rip >> 12] = base
        start = base + (rip & 0xFFF)
        return bytes(self._physmem.mem[start : min(start + nr_bytes, base + 4096)])

    def kind(self, cr3: int, rip: int) -> int:
        """:func:`classify` of the instruction that has just faulted (so that its own page is there)."""
        code = self._code(cr3, rip, MAX_INSTRUCTION_BYTES)
        kind = self._known.get(code)
        if kind is None:
            if len(self._known) >= _MAX_KNOWN_INSTRUCTIONS:
                self._known.clear()
            kind = self._known[code] = classify(decode(code))
        return kind

    def lost_flags(self, cr3: int, rip: int, block_start: int, cc_op: int) -> bool:
        """Whether the FLAGS_FIRST instruction at ``rip`` has overwritten ``cc_src``, given the ``cc_op`` restored."""
        if cc_op == CC_OP_EFLAGS:
            return False  # they were bits already
        instruction = decode(self._code(cr3, rip, MAX_INSTRUCTION_BYTES))
        condition = setcc_condition(instruction) & ~1
        if is_rotate_through_carry(instruction) or condition == _COND_P:
            return True
        if condition == _COND_B:
            return False
        if condition in _COMPARED_DIRECTLY and cc_op not in CC_OP_SUB:
            return True
        if condition == _COND_O and cc_op not in CC_OP_WITH_OVERFLOW_APART:
            return True
        return not self._flags_known(cr3, block_start, rip)

    def _flags_known(self, cr3: int, block_start: int, rip: int) -> bool:
        """Whether the translator knew at ``rip`` where the flags come from; at the start of a block it does not."""
        known, place = False, block_start
        while place < rip:
            instruction = decode(self._code(cr3, place, MAX_INSTRUCTION_BYTES))
            if not instruction.length:
                return True
            effect = flags_effect(instruction)
            if effect is not FlagsEffect.NONE:
                known = effect is FlagsEffect.KNOWN
            place += instruction.length
        return known
