"""Symbols and lines of programs compiled here, against what the tools of binutils say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from emu.disasm import disassemble
from emu.symbols import Image, Symbolizer, demangle

SOURCE = """\
#include <stdio.h>
static int square(int x) {
    return x * x;
}
int main(void) {
    volatile int y = 3;
    printf("%d\\n", square(y));
    return 0;
}
"""
CXX_SOURCE = "namespace geo { struct Box { int area(int a, const char *b); }; int Box::area(int a, const char *) " \
             "{ return a; } }\nint main() { geo::Box box; return box.area(0, nullptr); }\n"  # fmt: skip


def read_host(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def compiled(folder: Path, *flags: str, compiler: str = "gcc", source: str = SOURCE) -> Path:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed (CI installs it)")
    path = folder / ("prog.c" if compiler == "gcc" else "prog.cc")
    path.write_text(source)
    target = folder / "prog"
    subprocess.run([compiler, "-O0", *flags, str(path), "-o", str(target)], check=True)
    return target


def image_of(path: Path) -> Image:
    image = Symbolizer(read_host).image(str(path))
    assert image is not None
    return image


def address_of(path: Path, name: str) -> int:
    listing = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[0], 16) for line in listing.splitlines() if line.split()[-1] == name)


@pytest.mark.parametrize("flags", [("-g",), ("-g", "-static"), ("-g", "-gdwarf-4"), ("-g", "-static-pie")])
def test_functions_and_lines(tmp_path: Path, flags: tuple[str, ...]) -> None:
    prog = compiled(tmp_path, *flags)
    image = image_of(prog)
    square = address_of(prog, "square")
    assert str(image.symbol_at(square)) == "square"
    assert str(image.symbol_at(square + 4)) == "square+0x4"
    assert str(image.line_at(square)) == "prog.c:2"
    assert str(image.line_at(address_of(prog, "main"))) == "prog.c:5"
    line = image.line_at(square)
    assert line is not None and line.path == str(tmp_path / "prog.c")


def test_every_line_is_what_addr2line_says(tmp_path: Path) -> None:
    prog = compiled(tmp_path, "-g", "-O2")
    image = image_of(prog)
    start = address_of(prog, "main")
    addresses = [start + i for i in range(24)]
    said = subprocess.run(
        ["addr2line", "-e", str(prog), *map(hex, addresses)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    ours = [str(image.line_at(address) or "??:0") for address in addresses]
    assert ours == [Path(line.split(" (")[0]).name.replace("??:?", "??:0") for line in said]


def test_separate_debug_file(tmp_path: Path) -> None:
    prog = compiled(tmp_path, "-g")
    square = address_of(prog, "square")
    debug = tmp_path / ".debug" / "prog.debug"
    debug.parent.mkdir()
    subprocess.run(["objcopy", "--only-keep-debug", str(prog), str(debug)], check=True)
    subprocess.run(["strip", str(prog)], check=True)
    subprocess.run(["objcopy", f"--add-gnu-debuglink={debug}", str(prog)], check=True)
    image = image_of(prog)
    assert str(image.symbol_at(square + 1)) == "square+0x1"
    assert str(image.line_at(square)) == "prog.c:2"
    debug.write_bytes(debug.read_bytes() + b"x")  # the checksum no longer fits
    assert str(image_of(prog).symbol_at(square)).startswith(".text")


def test_procedure_linkage_entries_have_names(tmp_path: Path) -> None:
    prog = compiled(tmp_path)
    listing = subprocess.run(["objdump", "-d", str(prog)], capture_output=True, text=True, check=True).stdout
    entry = next(line for line in listing.splitlines() if "<printf@plt>:" in line)
    assert str(image_of(prog).symbol_at(int(entry.split()[0], 16) + 6)) == "printf@plt+0x6"


def test_cxx_names(tmp_path: Path) -> None:
    prog = compiled(tmp_path, compiler="g++", source=CXX_SOURCE)
    address = address_of(prog, "_ZN3geo3Box4areaEiPKc")
    assert str(image_of(prog).symbol_at(address + 2)) == "geo::Box::area(int, char const*)+0x2"
    assert demangle("main") == "main"
    assert demangle("_Z") == "_Z"


def test_file_offsets_are_mapped_by_the_segments(tmp_path: Path) -> None:
    prog = compiled(tmp_path)
    image = image_of(prog)
    data = prog.read_bytes()
    phoff, phnum = int.from_bytes(data[32:40], "little"), int.from_bytes(data[56:58], "little")
    for index in range(phnum):
        entry = data[phoff + 56 * index : phoff + 56 * (index + 1)]
        kind, offset, vaddr = (int.from_bytes(entry[a:b], "little") for a, b in ((0, 4), (8, 16), (16, 24)))
        if kind == 1:
            assert image.address_of(offset) == vaddr
    assert image.address_of(1 << 40) is None


@pytest.mark.parametrize("damage", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01\x01" + b"\xff" * 100])
def test_what_is_no_elf_file_has_no_symbols(damage: bytes) -> None:
    assert Symbolizer(lambda path: damage).image("/x") is None


def test_truncated_files_do_no_harm(tmp_path: Path) -> None:
    data = compiled(tmp_path, "-g").read_bytes()
    for size in range(64, len(data), len(data) // 40):
        image = Symbolizer(lambda path, size=size: data[:size]).image("/x")  # type: ignore[misc]
        if image is not None:
            image.symbol_at(0x1140)
            image.line_at(0x1140)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("488907", "mov qword ptr [rdi], rax"),
        ("0f05", "syscall"),
        ("488b05c92e0000", "mov rax, qword ptr [rip + 0x2ec9]  # 0x403ed0"),
        ("e8fbffffff", "call 0x401000"),
        ("ffff", None),
        ("", None),
    ],
)
def test_disassembly(code: str, text: str | None) -> None:
    assert disassemble(bytes.fromhex(code), 0x401000) == text


def test_a_stripped_static_program_has_sections_only(tmp_path: Path) -> None:
    image = image_of(compiled(tmp_path, "-static", "-s"))
    symbol = image.symbol_at(image._elf.header["e_entry"])
    assert symbol is not None and symbol.name == ".text" and image.offsets_of("main") == []


def test_where_a_name_lies_in_the_file(tmp_path: Path) -> None:
    image = image_of(compiled(tmp_path))
    (offset,) = image.offsets_of("main")
    address = image.address_of(offset)
    assert address is not None and str(image.symbol_at(address)) == "main"
    assert image.offsets_of("no such thing") == []


def test_a_debug_file_is_found_by_its_build_id(tmp_path: Path) -> None:
    prog = compiled(tmp_path, "-g", "-pie", "-Wl,--build-id=0x0123456789abcdef")
    square = address_of(prog, "square")
    debug = tmp_path / "debug"
    subprocess.run(["objcopy", "--only-keep-debug", str(prog), str(debug)], check=True)
    subprocess.run(["strip", str(prog)], check=True)
    files = {str(prog): prog, "/usr/lib/debug/.build-id/01/23456789abcdef.debug": debug}
    image = Symbolizer(lambda path: files[path].read_bytes() if path in files else None).image(str(prog))
    assert image is not None
    assert (str(image.symbol_at(square + 1)), str(image.line_at(square))) == ("square+0x1", "prog.c:2")


def test_a_stripped_dynamic_program_has_the_names_it_exports(tmp_path: Path) -> None:
    prog = compiled(tmp_path, "-rdynamic", "-s")
    listing = subprocess.run(["nm", "-D", str(prog)], capture_output=True, text=True, check=True).stdout
    main = next(int(line.split()[0], 16) for line in listing.splitlines() if line.endswith(" T main"))
    image = image_of(prog)
    assert str(image.symbol_at(main + 3)) == "main+0x3" and image.line_at(main) is None


def test_debug_information_that_dwz_has_packed(tmp_path: Path) -> None:
    if shutil.which("dwz") is None:
        pytest.skip("dwz is not installed (CI installs it)")
    prog = compiled(tmp_path, "-g", "-pie")
    subprocess.run(["dwz", str(prog)], check=True)
    assert str(image_of(prog).line_at(address_of(prog, "square"))) == "prog.c:2"
