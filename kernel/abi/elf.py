"""ELF headers as the program loader reads them.  Models ``include/uapi/linux/elf.h`` and ``elf-em.h``."""

from __future__ import annotations

import struct
from typing import NamedTuple

ELFMAG = b"\x7fELF"
ELFCLASS32, ELFCLASS64 = 1, 2
ELFDATA2LSB, ELFDATA2MSB = 1, 2
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
EM_386, EM_X86_64 = 3, 62
PT_LOAD, PT_INTERP = 1, 3
PT_GNU_STACK = 0x6474_E551
PF_X, PF_W, PF_R = 1, 2, 4
PN_XNUM = 0xFFFF

EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
PHDR = struct.Struct("<IIQQQQQQ")
EHDR_SIZE = EHDR.size
PHDR_SIZE = PHDR.size

MACHINE_NAMES = {
    2: "SPARC", 3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC 64", 22: "IBM S/390", 40: "ARM", 42: "SuperH",
    43: "SPARC v9", 50: "Itanium", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 247: "BPF", 258: "LoongArch",
}  # fmt: skip
TYPE_NAMES = {0: "none", 1: "relocatable object", 2: "executable", 3: "shared object", 4: "core dump"}


class Ehdr(NamedTuple):
    """``Elf64_Ehdr``."""

    e_ident: bytes
    e_type: int
    e_machine: int
    e_version: int
    e_entry: int
    e_phoff: int
    e_shoff: int
    e_flags: int
    e_ehsize: int
    e_phentsize: int
    e_phnum: int
    e_shentsize: int
    e_shnum: int
    e_shstrndx: int


class Phdr(NamedTuple):
    """``Elf64_Phdr``."""

    p_type: int
    p_flags: int
    p_offset: int
    p_vaddr: int
    p_paddr: int
    p_filesz: int
    p_memsz: int
    p_align: int


def parse_ehdr(data: bytes) -> Ehdr:
    """The header at the start of ``data``, which is padded with zeros if it is short."""
    return Ehdr(*EHDR.unpack(data[:EHDR_SIZE].ljust(EHDR_SIZE, b"\0")))


def why_not_native(data: bytes) -> str | None:
    """Why a file that begins with ``data`` is no program for x86-64; None if it may be one."""
    if not data:
        return "empty file"
    if data[:4] != ELFMAG:
        return "not an ELF file and no #! script"
    if len(data) < EHDR_SIZE:
        return "truncated ELF header"
    e_type, e_machine = struct.unpack_from("<HH", data, 16)
    if data[5] == ELFDATA2MSB:
        e_type, e_machine = struct.unpack_from(">HH", data, 16)
        return f"big-endian ELF for {MACHINE_NAMES.get(e_machine, f'machine {e_machine}')}"
    if e_machine != EM_X86_64:
        return f"ELF for {MACHINE_NAMES.get(e_machine, f'machine {e_machine}')}, not x86-64"
    if data[4] != ELFCLASS64:
        return "32-bit ELF for x86-64 (x32)"
    if e_type not in (ET_EXEC, ET_DYN):
        return f"ELF {TYPE_NAMES.get(e_type, f'type {e_type}')}, not an executable"
    return None
