"""Call frame information: our tables against those that pyelftools decodes, on real objects."""

from __future__ import annotations

import glob
from typing import Any

import pytest
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile

from emu.cfi import FrameTable, Row, Where, evaluate
from emu.dwarf import DwarfError

OBJECTS = [
    "/bin/true",
    *glob.glob("/lib/x86_64-linux-gnu/libc.so.6"),
    *glob.glob("/usr/lib/x86_64-linux-gnu/libstdc++.so.6"),  # entries with a language-specific area
]
_NAMES = {
    "UNDEFINED": Where.UNDEFINED,
    "SAME_VALUE": Where.SAME,
    "OFFSET": Where.OFFSET,
    "VAL_OFFSET": Where.VAL_OFFSET,
    "REGISTER": Where.REGISTER,
    "EXPRESSION": Where.EXPRESSION,
    "VAL_EXPRESSION": Where.VAL_EXPRESSION,
}
DW_CFA_GNU_ARGS_SIZE = 0x2E
EVERY = 7
"""Of the entries so many are compared."""


@pytest.mark.parametrize("path", OBJECTS)
def test_rows_are_those_of_pyelftools(path: str) -> None:
    with open(path, "rb") as file:
        elf = ELFFile(file)
        section = elf.get_section_by_name(".eh_frame")
        table = FrameTable(section.data(), section["sh_addr"], is_eh_frame=True)
        entries = [entry for entry in elf.get_dwarf_info().EH_CFI_entries() if isinstance(entry, FDE)]
    compared = 0
    for entry in entries[::EVERY]:
        start, nr_bytes = entry.header["initial_location"], entry.header["address_range"]
        if any(instruction.opcode == DW_CFA_GNU_ARGS_SIZE for instruction in entry.instructions):
            continue  # pyelftools does not know it
        rows = [line for line in entry.get_decoded().table if start <= line["pc"] < start + nr_bytes]
        for line, following in zip(rows, [*rows[1:], None], strict=True):
            last = (following["pc"] if following is not None else start + nr_bytes) - 1
            for address in {line["pc"], last}:
                row = table.row_at(address)
                assert row is not None, hex(address)
                _assert_same(row, line, hex(address))
                compared += 1
    assert compared > 20


def _assert_same(row: Row, line: Any, where: str) -> None:
    cfa = line["cfa"]
    if cfa.expr is None:
        assert (row.cfa_register, row.cfa_offset, row.cfa_expression) == (cfa.reg, cfa.offset, None), where
    else:
        assert row.cfa_expression == bytes(cfa.expr), where
    theirs = {number: rule for number, rule in line.items() if isinstance(number, int)}
    assert row.rules.keys() == theirs.keys(), where
    for number, rule in theirs.items():
        ours = row.rules[number]
        assert ours.where is _NAMES[rule.type], where
        if ours.where in (Where.EXPRESSION, Where.VAL_EXPRESSION):
            assert ours.expression == bytes(rule.arg), where
        elif ours.where in (Where.OFFSET, Where.VAL_OFFSET, Where.REGISTER):
            assert ours.value == rule.arg, where


def test_addresses_without_information() -> None:
    with open("/bin/true", "rb") as file:
        section = ELFFile(file).get_section_by_name(".eh_frame")
        table = FrameTable(section.data(), section["sh_addr"], is_eh_frame=True)
    assert table.row_at(0) is None and table.row_at(1 << 60) is None


def test_expression_of_the_procedure_linkage_table() -> None:
    """rsp + 8 + ((rip & 15) >= 11) << 3: what the linker writes for .plt."""
    expression = bytes.fromhex("77088000" "3f1a3b2a332422")
    for rip, extra in ((0x1000, 0), (0x100A, 0), (0x100B, 8), (0x100F, 8)):
        values = {7: 0x7000, 16: rip}
        assert evaluate(expression, values.__getitem__, lambda address: 0) == 0x7008 + extra


def test_expressions_that_cannot_be_evaluated() -> None:
    for expression in (b"", b"\x22", b"\xff", b"\x08"):
        with pytest.raises(DwarfError):
            evaluate(expression, lambda number: 0, lambda address: 0)


def test_damaged_tables_are_no_information() -> None:
    with open("/bin/true", "rb") as file:
        section = ELFFile(file).get_section_by_name(".eh_frame")
        data, address = section.data(), section["sh_addr"]
    whole = FrameTable(data, address, is_eh_frame=True)
    starts = whole._starts
    for cut in range(1, 60, 7):
        table = FrameTable(data[: len(data) * cut // 60], address, is_eh_frame=True)
        for start in starts:
            table.row_at(start)
    for flip in range(0, len(data), 37):
        broken = data[:flip] + bytes([data[flip] ^ 0xFF]) + data[flip + 1 :]
        table = FrameTable(broken, address, is_eh_frame=True)
        for start in starts[:8]:
            table.row_at(start)


def test_a_language_specific_area_is_no_instruction() -> None:
    """Its last byte would be DW_CFA_def_cfa_offset, and would take the first instruction for its operand."""
    cie_body = b"\0\0\0\0" + b"\x01zLR\0" + b"\x01\x78\x10" + b"\x02\x00\x00" + b"\x0c\x07\x08\x90\x01"
    cie_body = cie_body.ljust(28, b"\0")
    cie = len(cie_body).to_bytes(4, "little") + cie_body
    area = b"\0" * 7 + b"\x0e"
    fde_body = (len(cie) + 4).to_bytes(4, "little") + (0x1000).to_bytes(8, "little") + (0x10).to_bytes(8, "little")
    fde_body += bytes([len(area)]) + area + b"\x0e\x20" + b"\0" * 5
    table = FrameTable(cie + len(fde_body).to_bytes(4, "little") + fde_body + bytes(4), 0, is_eh_frame=True)
    row = table.row_at(0x1008)
    assert row is not None and (row.cfa_register, row.cfa_offset) == (7, 0x20)
