"""Files that are no programs, or broken ones: one line that says what is wrong, the right status, never a traceback."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.guest.harness import IMAGES, PAGEWALK, Result, native, pagewalk

NOT_RUNNABLE, NOT_FOUND = 126, 127
EXIT_5 = bytes.fromhex("b8e7000000bf050000000f05")  # exit_group(5)
BASE = 0x400000


@dataclass(frozen=True)
class Segment:
    """A program header."""

    kind: int = 1
    flags: int = 5
    offset: int = 0
    vaddr: int = BASE
    filesz: int = 0x1000
    memsz: int = 0x1000
    align: int = 0x1000


@dataclass(frozen=True)
class Elf:
    """A whole ELF file: correct, unless a test says otherwise.  The code is at 0x200 of the file."""

    magic: bytes = b"\x7fELF"
    bits: int = 2
    order: int = 1
    kind: int = 2
    machine: int = 62
    entry: int = BASE + 0x200
    phoff: int = 64
    phentsize: int = 56
    phnum: int | None = None
    segments: tuple[Segment, ...] = field(default=(Segment(),))
    code: bytes = EXIT_5
    interp: bytes | None = None
    length: int = 0x1000

    def to_bytes(self) -> bytes:
        segments = list(self.segments)
        if self.interp is not None:
            segments.append(Segment(kind=3, offset=0x300, filesz=len(self.interp), memsz=len(self.interp), align=1))
        ident = self.magic + bytes([self.bits, self.order, 1]) + bytes(9)
        phnum = len(segments) if self.phnum is None else self.phnum
        header = ident + struct.pack(  # as elf(5) lists the fields
            "<HHIQQQIHHHHHH",
            self.kind,
            self.machine,
            1,
            self.entry,
            self.phoff,
            0,
            0,
            64,
            self.phentsize,
            phnum,
            0,
            0,
            0,
        )
        for s in segments:
            header += struct.pack("<IIQQQQQQ", s.kind, s.flags, s.offset, s.vaddr, s.vaddr, s.filesz, s.memsz, s.align)
        content = header.ljust(0x200, b"\0") + self.code
        if self.interp is not None:
            content = content.ljust(0x300, b"\0") + self.interp
        return content.ljust(self.length, b"\0")[: self.length]


def start(path: Path, *args: str) -> Result:
    return pagewalk([str(path), *args], cwd=path.parent, timeout_seconds=30)


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "program"
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def one_line(result: Result, status: int) -> str:
    assert result.status == status, result
    assert result.stdout == ""
    assert result.stderr.startswith("pagewalk: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "internal error" not in result.stderr
    reasons = re.findall(r"\([^()]*\)", result.stderr)
    assert len(set(reasons)) == len(reasons), result.stderr
    return result.stderr


def test_the_correct_file_runs(tmp_path: Path) -> None:
    assert start(write(tmp_path, Elf().to_bytes())) == Result(5, "", "")


def test_no_such_file(tmp_path: Path) -> None:
    assert "no-such-program" in one_line(start(tmp_path / "no-such-program"), NOT_FOUND)
    assert "no-such-program" in one_line(pagewalk(["no-such-program"]), NOT_FOUND)


@pytest.mark.parametrize(
    ("elf", "word"),
    [
        (Elf(magic=b"\x7fELG"), ""),
        (Elf(bits=1), "32"),
        (Elf(order=2), "endian"),
        (Elf(machine=183), "machine"),
        (Elf(machine=3), "machine"),
        (Elf(kind=1), ""),
        (Elf(kind=4), ""),
        (Elf(phoff=0x100000), ""),
        (Elf(phoff=2**63), ""),
        (Elf(phentsize=32), ""),
        (Elf(phnum=0), ""),
        (Elf(phnum=1000), ""),
        (Elf(segments=()), ""),
        (Elf(interp=b"/no/such/interpreter\0"), "/no/such/interpreter"),
        (Elf(interp=b"/no/such/interpreter"), ""),
        (Elf(interp=b"/\0"), ""),
        (Elf(interp=b"\0"), ""),
        (Elf(length=4), ""),
        (Elf(length=40), ""),
        (Elf(length=63), ""),
        (Elf(length=64), ""),
        (Elf(length=100), ""),
        (Elf(segments=(Segment(filesz=0x2000, memsz=0x1000),)), ""),
        (Elf(entry=2**63), "entry"),
        (Elf(segments=(Segment(vaddr=BASE + 1),)), ""),
        (Elf(segments=(Segment(vaddr=0x7FFF_FFFF_F000),)), ""),
        (Elf(segments=(Segment(vaddr=0xFFFF_8000_0000_0000),)), ""),
        (Elf(segments=(Segment(memsz=2**63),)), ""),
        (Elf(segments=(Segment(memsz=2**46),)), ""),
        (Elf(segments=(Segment(filesz=2**62, memsz=2**62),)), ""),
    ],
)
def test_broken_headers(elf: Elf, word: str, tmp_path: Path) -> None:
    """What Linux refuses with ENOEXEC, EINVAL, ENOMEM, ENOENT or by killing: not runnable, with a reason."""
    result = start(write(tmp_path, elf.to_bytes()))
    if result.status in (128 + 9, 128 + 11):
        return  # Linux, too, kills a program whose segments do not fit, once the old image is gone
    assert word.lower() in one_line(result, NOT_RUNNABLE).lower()


@pytest.mark.parametrize(
    ("elf", "status"),
    [
        (Elf(entry=0), 139),
        (Elf(entry=0x7FFF_0000_0000), 139),
        (Elf(segments=(Segment(flags=6),)), 139),
        (Elf(segments=(Segment(flags=0),)), 139),
        (Elf(segments=(Segment(offset=0x10000),)), 135),
        (Elf(code=b"\x0f\x0b"), 132),
        (Elf(code=b"\xf4"), 139),
        (Elf(code=b"\xcc"), 133),
        (Elf(code=b"\xf7\xf1"), 136),
        (Elf(segments=(Segment(), Segment(vaddr=BASE + 0x1000, memsz=0x800000, flags=6, filesz=0))), 5),
        (Elf(segments=(Segment(), Segment(flags=5))), 5),
        (Elf(kind=3, segments=(Segment(vaddr=0),), entry=0x200), 5),
    ],
)
def test_programs_that_fail_once_they_run(elf: Elf, status: int, tmp_path: Path) -> None:
    result = start(write(tmp_path, elf.to_bytes()))
    assert (result.status, result.stdout) == (status, ""), result


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (lambda path: path.mkdir(), NOT_RUNNABLE),
        (lambda path: path.write_text("plain text\n"), NOT_RUNNABLE),
        (lambda path: path.write_bytes(b""), NOT_RUNNABLE),
        (lambda path: path.write_bytes(bytes(10000)), NOT_RUNNABLE),
        (lambda path: path.write_text("#!/no/such/interpreter\n"), NOT_RUNNABLE),
        (lambda path: path.write_text("#!\n"), NOT_RUNNABLE),
        (lambda path: path.write_text(f"#!{path}\n"), NOT_RUNNABLE),
        (lambda path: path.symlink_to("nowhere"), NOT_FOUND),
        (lambda path: path.symlink_to("program"), NOT_RUNNABLE),
        (lambda path: path.symlink_to("/dev/null"), NOT_RUNNABLE),
    ],
)
def test_files_that_are_no_programs(make: Callable[[Path], object], status: int, tmp_path: Path) -> None:
    path = tmp_path / "program"
    make(path)
    if path.is_file() and not path.is_symlink():
        path.chmod(0o755)
    one_line(start(path), status)


def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path, Elf().to_bytes())
    path.chmod(0o644)
    assert "ermission" in one_line(start(path), NOT_RUNNABLE)


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    """A program started from a directory that somebody removed starts in /."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD"; exec "$@"'
    result = native(["/bin/sh", "-c", script, "sh", *PAGEWALK, "run", "--", "/bin/pwd"], cwd=gone)
    assert result == Result(0, "/\n", "")


def test_a_script_runs_its_interpreter(tmp_path: Path) -> None:
    path = write(tmp_path, f"#!{IMAGES / 'p1'} 3\n".encode())
    result = start(path)
    assert (result.status, result.stdout, result.stderr) == (2, "", "usage: p1 [pages [down]]\n")


def test_no_interpreter_inside_the_root(tmp_path: Path) -> None:
    """--root hides the host's files: a dynamic program without its interpreter cannot run."""
    inside = tmp_path / "bin"
    inside.mkdir()
    program = inside / "program"
    program.write_bytes(replace(Elf(), interp=b"/lib64/ld-linux-x86-64.so.2\0").to_bytes())
    program.chmod(0o755)
    result = pagewalk(["/bin/program"], ("--root", str(tmp_path)), cwd=tmp_path)
    assert "/lib64/ld-linux-x86-64.so.2" in one_line(result, NOT_RUNNABLE)
