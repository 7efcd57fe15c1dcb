"""Which unit holds an address: against pyelftools, which reads all of every unit, and against the address table."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from emu.dwarf import SECTIONS, UnitIndex
from tests.trace.test_symbols import address_of, compiled, image_of

ONE = "int one(int x) { return x + 1; }\n"
TWO = """\
int one(int);
__attribute__((cold, noinline)) int seldom(int x) { return x * 7; }
int main(int argc, char **argv) { return argc > 3 ? seldom(argc) : one(argc) - 2; }
"""


def program(folder: Path, *flags: str) -> Path:
    """Two units; the second has its code in several sections."""
    (folder / "one.c").write_text(ONE)
    return compiled(folder, "-g", "-O2", *flags, str(folder / "one.c"), source=TWO)


def sections(path: Path, without: str = "") -> dict[str, bytes]:
    with path.open("rb") as file:
        return {
            section.name: section.data()
            for section in ELFFile(file).iter_sections()
            if section.name in SECTIONS and section.name != without
        }


def code_by_pyelftools(path: Path) -> list[tuple[int, int, int]]:
    found = []
    with path.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        lists = dwarf.range_lists()
        for unit in dwarf.iter_CUs():
            attributes = unit.get_top_DIE().attributes
            if "DW_AT_ranges" in attributes:
                for entry in lists.get_range_list_at_offset(attributes["DW_AT_ranges"].value, unit):
                    found.append((entry.begin_offset, entry.end_offset, unit.cu_offset))
            else:
                low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
                end = high.value if high.form == "DW_FORM_addr" else low + high.value
                found.append((low, end, unit.cu_offset))
    return found


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("without", ["", ".debug_aranges"])
def test_units_by_address(tmp_path: Path, version: int, without: str) -> None:
    path = program(tmp_path, f"-gdwarf-{version}", "-ffunction-sections")
    index = UnitIndex(sections(path, without))
    ranges = code_by_pyelftools(path)
    assert len({unit for _, _, unit in ranges}) == 2 and len(ranges) > 2
    for low, high, unit in ranges:
        assert index.find(low) == index.find(high - 1) == unit
    assert index.find(min(low for low, _, _ in ranges) - 1) is None
    assert index.find(max(high for _, high, _ in ranges)) is None


def test_wide_offsets(tmp_path: Path) -> None:
    path = program(tmp_path, "-gdwarf64")
    assert UnitIndex(sections(path, ".debug_aranges")).find(address_of(path, "one")) is not None


def test_a_file_without_dwarf_has_no_units() -> None:
    assert UnitIndex({}).find(0x1000) is None


def test_a_damaged_unit_hides_no_other(tmp_path: Path) -> None:
    path = program(tmp_path)
    content = sections(path, ".debug_aranges")
    (offset,) = {unit for low, _, unit in code_by_pyelftools(path) if low == address_of(path, "main")}
    info = bytearray(content[".debug_info"])
    info[offset + 12] = 0x7F  # an abbreviation that does not exist
    index = UnitIndex(content | {".debug_info": bytes(info)})
    assert index.find(address_of(path, "main")) is None
    assert index.find(address_of(path, "one")) is not None


def test_any_cut_is_survived(tmp_path: Path) -> None:
    content = sections(program(tmp_path))
    for name, data in content.items():
        for length in range(0, len(data), max(1, len(data) // 20)):
            UnitIndex(content | {name: data[:length]}).find(0x1140)


def test_lines_without_an_address_table(tmp_path: Path) -> None:
    path = program(tmp_path)
    subprocess.run(["objcopy", "--remove-section=.debug_aranges", str(path)], check=True)
    assert str(image_of(path).line_at(address_of(path, "one"))) == "one.c:1"
    assert str(image_of(path).line_at(address_of(path, "main"))) == "prog.c:3"
