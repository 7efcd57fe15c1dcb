"""Addresses as symbols and source lines: ELF symbol tables, separate debug files, DWARF line programs.

The habits are those of perf(1) and gdb: ``symbol+0xoffset``, C++ names demangled, ``file.c:line`` when there is DWARF.
Works on file offsets, so position-independent objects need no load address: the area of a mapping gives the offset.
Symbols come from ``.symtab`` and ``.dynsym`` of the object and of its separate debug file (``.gnu_debuglink`` with
its checksum, or the build id, below ``/usr/lib/debug`` as gdb looks); procedure-linkage entries are named
``function@plt`` from the jump slot that they load.

Everything is read on first use and kept.  Files are read through a callable, so that a file which exists only in the
guest's upper layer has symbols too.
"""

from __future__ import annotations

import bisect
import io
import itertools
import posixpath
import re
import struct
import zlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from emu.dwarf import SECTIONS, UnitIndex

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

ReadFile = Callable[[str], bytes | None]
"""A guest path to the file's content; None when there is no such file."""

_SYM = struct.Struct("<IBBHQQ")  # Elf64_Sym
_STT_NOTYPE, _STT_OBJECT, _STT_FUNC, _STT_GNU_IFUNC = 0, 1, 2, 10
_SYMBOL_TYPES = (_STT_NOTYPE, _STT_OBJECT, _STT_FUNC, _STT_GNU_IFUNC)
_BINDING_RANK = {1: 0, 10: 0, 2: 1, 0: 2}  # global, unique, weak, local
_SHF_ALLOC = 0x2
_SHN_LORESERVE = 0xFF00
_JUMP = re.compile(rb"\xff\x25(....)", re.DOTALL)  # jmp [rip + disp32]


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str
    offset: int
    """From the start of the symbol, in bytes."""

    def __str__(self) -> str:
        return f"{self.name}+{self.offset:#x}" if self.offset else self.name


@dataclass(frozen=True, slots=True)
class SourceLine:
    path: str
    """As the compiler recorded it, made absolute with the compilation directory."""
    line: int

    def __str__(self) -> str:
        return f"{posixpath.basename(self.path)}:{self.line}"


@dataclass(frozen=True, slots=True)
class Inlined:
    """A function whose code the compiler put into its caller's."""

    name: str
    call: SourceLine
    """Where it is called."""


@lru_cache(maxsize=65_536)
def demangle(name: str) -> str:
    """``name`` as C++ would write it; unchanged when it is no mangled name or no demangler is installed."""
    if not name.startswith("_Z"):
        return name
    try:
        import cxxfilt  # needs the C++ runtime library of the host

        return str(cxxfilt.demangle(name))
    except Exception:  # the library raises several unrelated types, for a name or for a missing libstdc++
        return name


class Image:
    """One ELF file: its symbols by link-time address, its lines, and the way from file offsets to addresses."""

    def __init__(self, data: bytes, path: str, read_file: ReadFile) -> None:
        """Raises ``elftools.common.exceptions.ELFError`` (or a struct error) when ``data`` is not a usable ELF file."""
        from elftools.elf.elffile import ELFFile

        self.path = path
        self._data = data
        self._read_file = read_file
        self._elf: ELFFile = ELFFile(io.BytesIO(data))
        self._segments: list[tuple[int, int, int]] = [
            (segment["p_offset"], segment["p_filesz"], segment["p_vaddr"])
            for segment in self._elf.iter_segments("PT_LOAD")
        ]
        self._lines: dict[int, _LineTable] = {}
        self._functions: dict[int, _Functions] = {}

    def address_of(self, file_offset: int) -> int | None:
        """The link-time address of a byte of the file, None when no segment loads it."""
        for offset, size, vaddr in self._segments:
            if offset <= file_offset < offset + size:
                return vaddr + file_offset - offset
        return None

    def section(self, name: str) -> tuple[int, bytes] | None:
        """The link-time address and the content of a section, decompressed."""
        section = self._elf.get_section_by_name(name)
        if section is None or section["sh_type"] == "SHT_NOBITS":
            return None
        return section["sh_addr"], section.data()

    # ---- symbols -------------------------------------------------------------------------------

    def symbol_at(self, address: int) -> Symbol | None:
        """The symbol that covers ``address``; a section's name when there is no symbol."""
        starts, ends, names = self._symbols
        index = bisect.bisect_right(starts, address) - 1
        if index >= 0 and address < ends[index]:
            name, at, suffix = names[index].partition("@plt")
            return Symbol(demangle(name) + at + suffix, address - starts[index])
        for start, end, name in self._sections:
            if start <= address < end:
                return Symbol(name, address - start)
        return None

    def offsets_of(self, name: str) -> list[int]:
        """File offsets of what is called ``name`` (as the symbol table spells it, or demangled), in order."""
        addresses = {
            address
            for address, _, (*_, symbol) in self._all_symbols()
            if symbol == name or (symbol.startswith("_Z") and demangle(symbol) == name)
        }
        offsets = []
        for address in sorted(addresses):
            for offset, size, vaddr in self._segments:
                if vaddr <= address < vaddr + size:
                    offsets.append(offset + address - vaddr)
        return offsets

    @cached_property
    def _sections(self) -> list[tuple[int, int, str]]:
        return sorted(
            (section["sh_addr"], section["sh_addr"] + section["sh_size"], section.name)
            for section in self._elf.iter_sections()
            if section["sh_flags"] & _SHF_ALLOC and section["sh_size"]
        )

    @cached_property
    def _symbols(self) -> tuple[list[int], list[int], list[str]]:
        """Starts (sorted, distinct), ends and names of all symbols."""
        best: dict[int, tuple[tuple[int, int, int, str], int]] = {}  # start -> (rank, size)
        for start, size, rank in self._all_symbols():
            known = best.get(start)
            if known is None or rank < known[0]:
                best[start] = (rank, size)
        starts = sorted(best)
        ends = []
        for start, following in itertools.pairwise([*starts, 1 << 64]):
            size = best[start][1]
            ends.append(start + size if size else min(following, self._section_end(start)))
        return starts, ends, [best[start][0][3] for start in starts]

    def _section_end(self, address: int) -> int:
        return next((end for start, end, _ in self._sections if start <= address < end), address + 1)

    def _all_symbols(self) -> Iterator[tuple[int, int, tuple[int, int, int, str]]]:
        """(address, size, rank) of every symbol; the lowest rank names the address, its last part is the name."""
        for elf in filter(None, (self._elf, self._debug_elf)):
            for section in elf.iter_sections():
                if section["sh_type"] in ("SHT_SYMTAB", "SHT_DYNSYM"):
                    yield from _read_symbols(section, elf.get_section(section["sh_link"]).data())
        yield from self._plt_symbols()

    def _plt_symbols(self) -> Iterator[tuple[int, int, tuple[int, int, int, str]]]:
        slots = dict(self._jump_slots())
        for name in (".plt", ".plt.sec", ".plt.got"):
            section = self._elf.get_section_by_name(name)
            if section is None or not slots:
                continue
            code, base = section.data(), section["sh_addr"]
            for match in _JUMP.finditer(code):
                target = base + match.end() + int.from_bytes(match[1], "little", signed=True)
                if target in slots:
                    yield base + (match.start() & ~0xF), 16, (3, 0, 0, f"{slots[target]}@plt")

    def _jump_slots(self) -> Iterator[tuple[int, str]]:
        """(address of a GOT entry, the function that it points to)."""
        from elftools.elf.relocation import RelocationSection
        from elftools.elf.sections import SymbolTableSection

        for section in self._elf.iter_sections():
            if not isinstance(section, RelocationSection):
                continue
            symbols = self._elf.get_section(section["sh_link"])
            if not isinstance(symbols, SymbolTableSection):
                continue
            for relocation in section.iter_relocations():
                if relocation["r_info_sym"] and relocation["r_info_type"] in (6, 7):  # GLOB_DAT, JUMP_SLOT
                    yield relocation["r_offset"], symbols.get_symbol(relocation["r_info_sym"]).name

    # ---- separate debug files --------------------------------------------------------------------

    @cached_property
    def _debug_elf(self) -> ELFFile | None:
        from elftools.elf.elffile import ELFFile

        for path, checksum in self._debug_paths():
            data = self._read_file(path)
            if data is not None and (checksum is None or zlib.crc32(data) == checksum):
                try:
                    return ELFFile(io.BytesIO(data))
                except Exception:  # a broken debug file is as good as none
                    continue
        return None

    def _debug_paths(self) -> Iterator[tuple[str, int | None]]:
        """Where gdb would look: (path, checksum that the file must have)."""
        note = self._elf.get_section_by_name(".note.gnu.build-id")
        if note is not None:
            build_id = note.data()[16:].hex()
            yield f"/usr/lib/debug/.build-id/{build_id[:2]}/{build_id[2:]}.debug", None
        link = self._elf.get_section_by_name(".gnu_debuglink")
        if link is not None:
            data = link.data()
            name = data.split(b"\0", 1)[0].decode("utf-8", "replace")
            checksum = int.from_bytes(data[-4:], "little")
            directory = posixpath.dirname(self.path)
            for folder in (directory, f"{directory}/.debug", f"/usr/lib/debug{directory}"):
                yield posixpath.join(folder, name), checksum

    # ---- source lines ----------------------------------------------------------------------------

    def line_at(self, address: int) -> SourceLine | None:
        """The source line of the instruction at ``address``, None without DWARF."""
        try:
            offset = self._units.find(address)
            if offset is None:
                return None
            table = self._lines.get(offset)
            if table is None:
                table = self._lines[offset] = _LineTable(self._units.dwarf, offset)
            return table.find(address)
        except Exception:  # damaged DWARF, or parts of it in a file that dwz made: no line
            return None

    def inlined_at(self, address: int) -> list[Inlined]:
        """The functions that the compiler put in line at ``address``, the innermost first; nothing without DWARF."""
        try:
            offset = self._units.find(address)
            if offset is None or self.line_at(address) is None:
                return []
            functions = self._functions.get(offset)
            if functions is None:
                functions = self._functions[offset] = _Functions(self._units, offset)
            return functions.inlined_at(address, self._lines[offset])
        except Exception:  # as line_at()
            return []

    @cached_property
    def _units(self) -> _Units:
        elves = (self._elf, self._debug_elf)
        return _Units(next((elf for elf in elves if elf and elf.get_section_by_name(".debug_info")), None))


def _read_symbols(section: Any, names: bytes) -> Iterator[tuple[int, int, tuple[int, int, int, str]]]:
    """A symbol table by hand: a quarter of a second less than pyelftools' objects for a large program."""
    data = section.data()
    for name_at, info, _other, shndx, value, size in _SYM.iter_unpack(data[: len(data) - len(data) % _SYM.size]):
        if info & 0xF not in _SYMBOL_TYPES or not value or not 0 < shndx < _SHN_LORESERVE:
            continue
        name = names[name_at : names.index(b"\0", name_at)].decode("utf-8", "replace")
        if name:
            notype = 1 if info & 0xF == _STT_NOTYPE else 0
            underscores = len(name) - len(name.lstrip("_"))
            yield value, size, (notype, _BINDING_RANK.get(info >> 4, 3), underscores, name)


class _Units:
    """Compilation units by address."""

    def __init__(self, elf: ELFFile | None) -> None:
        self._elf = elf
        found = [] if elf is None else [section for section in elf.iter_sections() if section.name in SECTIONS]
        self._index = UnitIndex({section.name: section.data() for section in found})

    @cached_property
    def dwarf(self) -> Any:
        """pyelftools' view."""
        assert self._elf is not None
        return self._elf.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)

    def find(self, address: int) -> int | None:
        """The offset in ``.debug_info`` of the unit whose code holds ``address``."""
        return self._index.find(address)


def _code_ranges(die: Any, range_lists: Any) -> Iterator[tuple[int, int]]:
    """The code of a unit, a function or a block."""
    low, high = die.attributes.get("DW_AT_low_pc"), die.attributes.get("DW_AT_high_pc")
    if low is not None and high is not None:
        yield low.value, high.value if high.form == "DW_FORM_addr" else low.value + high.value
    elif "DW_AT_ranges" in die.attributes and range_lists is not None:
        base_of = low if low is not None else die.cu.get_top_DIE().attributes.get("DW_AT_low_pc")
        base = base_of.value if base_of is not None else 0
        for entry in range_lists.get_range_list_at_offset(die.attributes["DW_AT_ranges"].value, die.cu):
            if hasattr(entry, "begin_offset"):
                shift = 0 if getattr(entry, "is_absolute", False) else base
                yield entry.begin_offset + shift, entry.end_offset + shift
            else:
                base = entry.base_address


_BLOCKS = ("DW_TAG_inlined_subroutine", "DW_TAG_lexical_block")
_SCOPES = ("DW_TAG_namespace", "DW_TAG_class_type", "DW_TAG_structure_type")


class _Functions:
    """The functions of one unit that have code, with what was put in line in them."""

    def __init__(self, units: _Units, unit_offset: int) -> None:
        self._range_lists = units.dwarf.range_lists()
        self._found: list[tuple[int, int, Any]] = []
        self._collect(units.dwarf.get_CU_at(unit_offset).get_top_DIE())

    def _collect(self, scope: Any) -> None:
        for die in scope.iter_children():
            if die.tag == "DW_TAG_subprogram":
                self._found += [(start, end, die) for start, end in _code_ranges(die, self._range_lists)]
            elif die.tag in _SCOPES:
                self._collect(die)

    def inlined_at(self, address: int, lines: _LineTable) -> list[Inlined]:
        die = next((die for start, end, die in self._found if start <= address < end), None)
        found: list[Inlined] = []
        while die is not None:
            die = next((child for child in die.iter_children() if self._holds(child, address)), None)
            if die is not None and die.tag == "DW_TAG_inlined_subroutine":
                file, line = die.attributes["DW_AT_call_file"].value, die.attributes["DW_AT_call_line"].value
                found.insert(0, Inlined(_function_name(die), lines.source(file, line)))
        return found

    def _holds(self, die: Any, address: int) -> bool:
        return die.tag in _BLOCKS and any(
            start <= address < end for start, end in _code_ranges(die, self._range_lists)
        )


def _function_name(die: Any) -> str:
    """Of a function that only refers to its declaration, that one's."""
    for name in ("DW_AT_linkage_name", "DW_AT_name"):
        if name in die.attributes:
            return demangle(_text(die.attributes[name].value))
    for name in ("DW_AT_abstract_origin", "DW_AT_specification"):
        if name in die.attributes:
            return _function_name(die.get_DIE_from_attribute(name))
    return "?"


class _LineTable:
    """The line program of one unit, run once: rows sorted by address."""

    def __init__(self, dwarf: Any, unit_offset: int) -> None:
        unit = dwarf.get_CU_at(unit_offset)
        attributes = unit.get_top_DIE().attributes
        self._directory = _text(attributes["DW_AT_comp_dir"].value) if "DW_AT_comp_dir" in attributes else ""
        rows: list[tuple[int, int, int]] = []  # address, file index (-1: end of a sequence), line
        program = dwarf.line_program_for_CU(unit)
        if program is not None:
            for entry in program.get_entries():
                state = entry.state
                if state is not None:
                    rows.append((state.address, -1 if state.end_sequence else state.file, state.line))
            self._header = program.header
        # At one address the end of one sequence comes before the start of the next; of several rows the last holds.
        rows.sort(key=lambda row: (row[0], row[1] >= 0))
        self._rows = rows
        self._addresses = [row[0] for row in rows]

    def find(self, address: int) -> SourceLine | None:
        index = bisect.bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        _, file, line = self._rows[index]
        return None if file < 0 or not line else self.source(file, line)

    def source(self, file: int, line: int) -> SourceLine:
        """``file`` is an index of the unit's table of files."""
        return SourceLine(self._path(file), line)

    def _path(self, index: int) -> str:
        header = self._header
        first = 0 if header.version >= 5 else 1  # DWARF 5 counts files and directories from 0
        if not first <= index < len(header.file_entry) + first:
            return "?"
        entry = header.file_entry[index - first]
        directories = header.include_directory
        directory = ""
        if entry.dir_index or header.version >= 5:
            directory = _text(directories[entry.dir_index - first])
        return posixpath.normpath(posixpath.join(self._directory, directory, _text(entry.name)))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class Symbolizer:
    """The images of all files that were asked about."""

    def __init__(self, read_file: ReadFile) -> None:
        self._read_file = read_file
        self._images: dict[Hashable, Image | None] = {}

    def image(self, path: str, key: Hashable = None, load: Callable[[], bytes | None] | None = None) -> Image | None:
        """The ELF file ``path``, or None.  ``key`` tells apart files that had the same path at different times;
        ``load`` gives the content when it is not what the path names now (deleted files, the vDSO)."""
        key = path if key is None else key
        if key not in self._images:
            self._images[key] = self._open(path, load() if load is not None else self._read_file(path))
        return self._images[key]

    def _open(self, path: str, data: bytes | None) -> Image | None:
        if data is None or data[:4] != b"\x7fELF":
            return None
        try:
            return Image(data, path, self._read_file)
        except Exception:  # pyelftools raises many types for damaged files; such a file just has no symbols
            return None
