"""Backtraces of guest tasks: who called the code that a task stands in.

What ``strace -k``, ``perf trace --call-graph dwarf`` and gdb's ``backtrace`` show, by call frame information
(emu/cfi.py) from the files that are mapped.  The guest's memory is only peeked at: nothing is faulted in.

Deliberate differences: code without frame information ends the backtrace (no guessing by frame pointers); separate
debug files are not asked for ``.debug_frame``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.cfi import RETURN_ADDRESS, RSP, FrameTable, Row, Rule, Where, evaluate
from emu.dwarf import DwarfError
from emu.trace.peek import peek_exactly
from kernel.hardware import Reg

if TYPE_CHECKING:
    from emu.symbols import Image
    from emu.trace.locate import CodePlace, Locator
    from kernel.mm.types import MmStruct
    from kernel.task.task import Task

MAX_FRAMES = 32
_MASK64 = (1 << 64) - 1
_REGISTERS = (
    Reg.RAX, Reg.RDX, Reg.RCX, Reg.RBX, Reg.RSI, Reg.RDI, Reg.RBP, Reg.RSP,
    Reg.R8, Reg.R9, Reg.R10, Reg.R11, Reg.R12, Reg.R13, Reg.R14, Reg.R15, Reg.RIP,
)  # fmt: skip
"""By DWARF's numbers."""
_CALLEE_SAVED = frozenset((3, 6, RSP, 12, 13, 14, 15))
_SECTIONS = ((".eh_frame", True), (".debug_frame", False))


class Unwinder:
    """Unwinds tasks of one machine; keeps what it has read of files."""

    def __init__(self, locator: Locator) -> None:
        self._locator = locator
        self._tables: dict[Image, list[FrameTable]] = {}

    def backtrace(self, task: Task, max_frames: int = MAX_FRAMES) -> list[CodePlace]:
        """The frames of ``task``, innermost first: the instruction it stands at (in a system call: the one after
        ``syscall``, as gdb shows it), then for each caller the call instruction's last byte, so that symbols and
        lines are the call's."""
        mm = task.mm
        if mm is None:
            return []
        return [self._locator.code(mm, address) for address in self.addresses(task, max_frames)]

    def addresses(self, task: Task, max_frames: int = MAX_FRAMES) -> list[int]:
        """The same as bare addresses."""
        mm = task.mm
        if mm is None:
            return []
        values = task.regs.read_all()
        registers: dict[int, int] = {number: values[reg] for number, reg in enumerate(_REGISTERS)}
        lookup = ip = registers[RETURN_ADDRESS]
        found = [ip]
        while len(found) < max_frames:
            row = self._row(mm, lookup)
            if row is None:
                break
            caller = _caller(mm, row, registers)
            if caller is None or caller[RSP] <= registers[RSP]:
                break  # the outermost frame, or memory that makes no sense
            registers = caller
            ip = registers[RETURN_ADDRESS]
            # A return address may be the first byte of the next function; what a signal interrupted is exact.
            lookup = ip if row.is_signal_frame else ip - 1
            found.append(lookup)
        return found

    def _row(self, mm: MmStruct, address: int) -> Row | None:
        where = self._locator.image_at(mm, address)
        if where is None:
            return None
        image, linked = where
        tables = self._tables.get(image)
        if tables is None:
            tables = self._tables[image] = _read_tables(image)
        for table in tables:
            row = table.row_at(linked)
            if row is not None:
                return row
        return None


def _read_tables(image: Image) -> list[FrameTable]:
    tables = []
    for name, is_eh_frame in _SECTIONS:
        section = image.section(name)
        if section is not None:
            tables.append(FrameTable(section[1], section[0], is_eh_frame))
    return tables


def _caller(mm: MmStruct, row: Row, registers: dict[int, int]) -> dict[int, int] | None:
    """The registers of the calling frame, those that are known; None when it has none or cannot be read."""

    def register(number: int) -> int:
        if number not in registers:
            raise DwarfError(f"register {number} is not known")
        return registers[number]

    def load(address: int) -> int:
        data = peek_exactly(mm, address & _MASK64, 8)
        if data is None:
            raise DwarfError("saved register is not readable")
        return int.from_bytes(data, "little")

    def recover(rule: Rule, cfa: int) -> int:
        if rule.where is Where.OFFSET:
            return load(cfa + rule.value)
        if rule.where is Where.VAL_OFFSET:
            return cfa + rule.value & _MASK64
        if rule.where is Where.REGISTER:
            return register(rule.value)
        value = evaluate(rule.expression, register, load, cfa)
        return load(value) if rule.where is Where.EXPRESSION else value

    try:
        if row.cfa_expression is not None:
            cfa = evaluate(row.cfa_expression, register, load)
        else:
            cfa = register(row.cfa_register) + row.cfa_offset & _MASK64
        caller = {number: registers[number] for number in _CALLEE_SAVED if number in registers}
        caller[RSP] = cfa
        for number, rule in row.rules.items():
            if rule.where is Where.UNDEFINED:
                caller.pop(number, None)
            elif rule.where is Where.SAME:
                caller[number] = register(number)
            else:
                caller[number] = recover(rule, cfa)
    except DwarfError:
        return None
    return caller if caller.get(RETURN_ADDRESS) else None
