"""Words and quotes against what strace 6.1 prints for the same values."""

from __future__ import annotations

import pytest

from emu.trace.quote import enum_text, flags_text, pointer, quote, quote_hex
from kernel.abi.fcntl import AccessMode, AtFlags, OpenFlags, Whence
from kernel.abi.mman import Madv, Map, Mremap, Prot
from kernel.abi.signal import SigactionFlags
from kernel.abi.wait import WaitOptions


@pytest.mark.parametrize(
    ("data", "ellipsis", "text"),
    [
        (b"", False, '""'),
        (b"hello\n", False, '"hello\\n"'),
        (b'a"b\\', False, '"a\\"b\\\\"'),
        (b"\x7fELF\x02\x01\x01\x00", True, '"\\177ELF\\2\\1\\1\\0"...'),
        (b"\x019\x017", False, '"\\19\\0017"'),
        (b"\xff\t\r\v\f", False, '"\\377\\t\\r\\v\\f"'),
    ],
)
def test_quote(data: bytes, ellipsis: bool, text: str) -> None:
    assert quote(data, ellipsis) == text


def test_random_bytes_are_hexadecimal() -> None:
    assert quote_hex(b"\x20\xc9") == '"\\x20\\xc9"'


def test_pointer() -> None:
    assert pointer(0) == "NULL"
    assert pointer(0x7FFE_231E_3FCC) == "0x7ffe231e3fcc"


@pytest.mark.parametrize(
    ("enum", "value", "text"),
    [
        (Prot, 0, "PROT_NONE"),
        (Prot, 3, "PROT_READ|PROT_WRITE"),
        (Prot, 0x1000007, "PROT_READ|PROT_WRITE|PROT_EXEC|PROT_GROWSDOWN"),
        (Prot, 0x60, "0x60 /* PROT_??? */"),
        (Map, 0x22, "MAP_PRIVATE|MAP_ANONYMOUS"),
        (Map, 0x812, "MAP_PRIVATE|MAP_FIXED|MAP_DENYWRITE"),
        (Map, 0x61, "MAP_SHARED|MAP_ANONYMOUS|MAP_32BIT"),
        (Map, 0x3A122, "MAP_PRIVATE|MAP_ANONYMOUS|MAP_POPULATE|MAP_NONBLOCK|MAP_GROWSDOWN|MAP_LOCKED|MAP_STACK"),
        (Map, 0x813, "MAP_SHARED_VALIDATE|MAP_FIXED|MAP_DENYWRITE"),
        (Map, 0x2A, "0xa /* MAP_??? */|MAP_ANONYMOUS"),
        (Map, 0x100020, "MAP_FILE|MAP_ANONYMOUS|MAP_FIXED_NOREPLACE"),
        (Mremap, 5, "MREMAP_MAYMOVE|MREMAP_DONTUNMAP"),
        (Mremap, 0, "0"),
        (Mremap, 8, "0x8 /* MREMAP_??? */"),
        (Mremap, 15, "MREMAP_MAYMOVE|MREMAP_FIXED|MREMAP_DONTUNMAP|0x8"),
        (OpenFlags, 0, "O_RDONLY"),
        (OpenFlags, 0o2000000, "O_RDONLY|O_CLOEXEC"),
        (OpenFlags, 0o2204000, "O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY"),
        (OpenFlags, 0o20200002, "O_RDWR|O_TMPFILE"),
        (OpenFlags, 0o4010000, "O_RDONLY|O_SYNC"),
        (OpenFlags, 0x80000000, "O_RDONLY|0x80000000"),
        (OpenFlags, 0x7FFFFFFF, "O_ACCMODE|O_CREAT|O_EXCL|O_NOCTTY|O_TRUNC|O_APPEND|O_NONBLOCK|O_SYNC|O_DIRECT|"
         "O_LARGEFILE|O_NOFOLLOW|O_NOATIME|O_CLOEXEC|O_PATH|O_TMPFILE|FASYNC|0x7f80003c"),
        (AccessMode, 0, "F_OK"),
        (AccessMode, 7, "R_OK|W_OK|X_OK"),
        (AtFlags, 0x1100, "AT_SYMLINK_NOFOLLOW|AT_EMPTY_PATH"),
        (WaitOptions, 0x40000003, "WNOHANG|WSTOPPED|__WALL"),
        (SigactionFlags, 0x14000004, "SA_RESTORER|SA_RESTART|SA_SIGINFO"),
    ],
)  # fmt: skip
def test_flags(enum: type, value: int, text: str) -> None:
    assert flags_text(enum, value) == text


def test_enums() -> None:
    assert enum_text(Whence, 2) == "SEEK_END"
    assert enum_text(Whence, 77) == "0x4d /* SEEK_??? */"
    assert enum_text(Madv, 4) == "MADV_DONTNEED"
    assert enum_text(Madv, 99) == "0x63 /* MADV_??? */"
    assert enum_text(Madv, -1) == "0xffffffff /* MADV_??? */"
