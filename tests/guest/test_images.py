"""The shipped programs: they are what ``userland/`` says, and do the same natively and under pagewalk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.harness import IMAGES, ROOT, Case, compare, pagewalk, require
from userland.build import check, digest, programs, read_manifest

MODERN = ("--kernel", "6.18")


def test_manifest() -> None:
    _, digests = read_manifest()
    assert digests == {name: digest(IMAGES / name) for name in digests}
    assert set(digests) == {source.stem for source in programs()}
    assert all(os.access(IMAGES / name, os.X_OK) for name in digests)


def test_images_are_built_from_the_sources() -> None:
    require(["gcc", "ld"])
    command = [sys.executable, str(ROOT / "userland/build.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == 3:
        pytest.skip(result.stderr.strip())
    assert result.returncode == 0, result.stderr


def test_images_hold_what_a_trace_shows() -> None:
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    for source in programs():
        image = IMAGES / source.stem
        with image.open("rb") as file:
            elf = ELFFile(file)
            assert elf.header.e_type == "ET_EXEC"
            assert elf.get_section_by_name(".interp") is None, f"{image} is not static"
            table = elf.get_section_by_name(".symtab")
            assert isinstance(table, SymbolTableSection)
            names = {symbol.name for symbol in table.iter_symbols()}
            assert "_start" in names
            if source.suffix == ".c":
                assert "main" in names
                assert elf.has_dwarf_info(), f"{image} has no line numbers"
        assert str(ROOT).encode() not in image.read_bytes(), f"{image} names this machine"


def image(name: str, *args: str, options: tuple[str, ...] = ()) -> Case:
    return Case(" ".join([name, *args]), (str(IMAGES / name), *args), options=options)


SAME = [
    *map(image, ["hello", "faults", "segv", "exceptions", "badptr", "spin2", "sigalrm", "bench_compute"]),
    image("p1", options=MODERN),
    image("p1", "500", "down", options=MODERN),
    image("p2", options=MODERN),
    image("p1", "x"),
    image("p1", "3", "sideways"),
    image("forkbomb", "40"),
    image("eatmem", "20"),
    image("eatmem", "5", "brk"),
    image("eatmem", "5", "shared"),
    image("mem_fill", "8"),
    image("mem_fork", "4"),
    image("mem_remap", "4"),
    image("mem_file", "2"),
    image("mem_shared", "4"),
    image("mem_protect", "4"),
    image("bench_getppid", "1000"),
    image("bench_read", "200", "5000"),
    image("bench_read", "200", "3000", "pipe"),
    image("bench_fault", "200", "3"),
    image("bench_fork", "5", "64"),
    image("bench_mprotect", "200"),
    image("bench_areas", "300", "100"),
    image("bench_areas", "300", "100", "fault"),
    *(image("bench_compute", variant) for variant in ("sha256", "sieve", "copy", "integer", "random")),
]


@pytest.mark.parametrize("case", SAME, ids=lambda case: case.name)
def test_same_as_native(case: Case, tmp_path: Path) -> None:
    compare(case, tmp_path / "work")


def test_wild_pointers_to_every_system_call(tmp_path: Path) -> None:
    result = pagewalk([str(IMAGES / "wild")], ("-q",), cwd=tmp_path)
    assert (result.status, result.stdout, result.stderr) == (0, "survived 454 system calls\n", "")


def test_fork_without_end_is_refused() -> None:
    result = pagewalk([str(IMAGES / "forkbomb")], ("-q", "--ram", "16M"))
    assert result.status in (0, 137), result
    if result.status == 0:
        assert result.stdout in ("refused: EAGAIN\nall reaped: yes\n", "refused: ENOMEM\nall reaped: yes\n")


@pytest.mark.parametrize("how", ["", "brk", "shared"])
def test_eating_all_memory_ends(how: str) -> None:
    result = pagewalk([str(IMAGES / "eatmem"), "100000", *([how] if how else [])], ("-q", "--ram", "16M"))
    assert result.status == 137 or result.stdout.startswith("refused"), result


def test_check_reports_a_stale_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import userland.build as build

    require(["gcc", "ld"])
    hello = build.USERLAND / "hello.S"
    monkeypatch.setattr(build, "programs", lambda: [hello])
    monkeypatch.setattr(build, "MANIFEST", tmp_path / "manifest")
    build.build(hello, tmp_path / "hello", tmp_path)
    build.write_manifest({"hello": digest(tmp_path / "hello")})
    assert check() == 0
    build.write_manifest({"hello": "0" * 64})
    assert check() == 1
    build.write_manifest({"hello": digest(tmp_path / "hello"), "gone": "0" * 64})
    assert check() == 1
