"""What an address means: the area it lies in, and for code the symbol, the source line and the instruction."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emu.disasm import MAX_INSN_BYTES, disassemble
from emu.symbols import Image, SourceLine, Symbol, Symbolizer
from emu.trace.peek import peek_code, peek_exactly, peek_file
from kernel.abi.errno import KernelError
from kernel.abi.stat import S_IFMT, S_IFREG
from kernel.mm.types import PAGE_SHIFT, VM_GROWSDOWN, VM_SHARED, MmStruct, Vma

if TYPE_CHECKING:
    from kernel.fs.file import File
    from kernel.fs.inode import Inode
    from kernel.kernel import Kernel

_TARGET = re.compile(r"(?:^(?:call|j\w+) |  # )(0x[0-9a-f]+)$")
_SPECIAL_IMAGE_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """An address in its area."""

    name: str
    """A path, or ``[heap]``, ``[stack]``, ``[vdso]``, ``[anon:NAME]``, ``anon``."""
    start: int
    end: int
    perms: str
    offset: int
    """In the file for a file mapping; from the area's end, below zero, for one that grows down; else from its start."""

    def __str__(self) -> str:
        return f"{short_name(self.name)}{'-' if self.offset < 0 else '+'}{abs(self.offset):#x}"


@dataclass(frozen=True, slots=True)
class CodePlace:
    """An instruction."""

    address: int
    module: str | None
    """The path of the mapped object, or the area's name; None when nothing is mapped there."""
    symbol: Symbol | None
    source: SourceLine | None
    insn: str | None

    @property
    def symbol_text(self) -> str:
        """``main+0x1c (hello)``."""
        if self.module is None:
            return "-"
        module = short_name(self.module)
        return f"{self.symbol} ({module})" if self.symbol is not None else f"({module})"


def code_record(place: CodePlace) -> dict[str, Any]:
    """As traces give it."""
    return {
        "ip": f"{place.address:#x}",
        "module": place.module,
        "symbol": None if place.symbol is None else place.symbol.name,
        "offset": None if place.symbol is None else f"{place.symbol.offset:#x}",
        "file": None if place.source is None else place.source.path,
        "line": None if place.source is None else place.source.line,
        "insn": place.insn,
        "text": place.symbol_text,
    }


def short_name(name: str) -> str:
    """A path's last part; devices in full (/dev/zero is what shared anonymous memory maps)."""
    name = name.removesuffix(" (deleted)")
    return name if name.startswith("/dev/") else posixpath.basename(name) or name


class Locator:
    """Looks addresses up in the machine as it is now; keeps what does not change."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._symbolizer = Symbolizer(self._read_path)
        self._names: dict[tuple[Image, int], tuple[Symbol | None, SourceLine | None]] = {}

    # ---- areas ---------------------------------------------------------------------------------

    def place(self, vma: Vma, address: int) -> Place:
        if vma.vm_file is not None:
            offset = address - vma.vm_start + (vma.vm_pgoff << PAGE_SHIFT)
        elif vma.vm_flags & VM_GROWSDOWN:
            offset = address - vma.vm_end
        else:
            offset = address - vma.vm_start
        return Place(self.area_name(vma), vma.vm_start, vma.vm_end, permissions(vma), offset)

    def area_name(self, vma: Vma) -> str:
        """As /proc/PID/maps names it, ``anon`` where that shows nothing."""
        if vma.vm_file is not None:
            return self._path_of(vma.vm_file)
        if vma.vm_name is not None:
            return vma.vm_name
        mm = vma.vm_mm
        if vma.vm_start <= mm.brk and vma.vm_end >= mm.start_brk and mm.start_brk:
            return "[heap]"
        if vma.vm_start <= mm.start_stack <= vma.vm_end:
            return "[stack]"
        return f"[anon:{vma.anon_name}]" if vma.anon_name is not None else "anon"

    def _path_of(self, file: File) -> str:
        return self._kernel.vfs.path_text(file.f_path).decode("utf-8", "replace")

    # ---- code ----------------------------------------------------------------------------------

    def code(self, mm: MmStruct | None, ip: int) -> CodePlace:
        """The instruction at ``ip``."""
        insn = disassemble(peek_code(mm, ip, MAX_INSN_BYTES), ip)
        vma = mm.areas.find_exact(ip) if mm is not None else None
        if vma is None:
            return CodePlace(ip, None, None, None, insn)
        image, module = self._image(vma)
        if image is None:
            return CodePlace(ip, module, None, None, insn)
        symbol, source = self._lookup(image, vma, ip)
        if insn is not None:
            insn = self._with_target(insn, vma.vm_mm)
        return CodePlace(ip, module, symbol, source, insn)

    def image_at(self, mm: MmStruct, address: int) -> tuple[Image, int] | None:
        """The ELF image that has the code at ``address``, and the link-time address of that code."""
        vma = mm.areas.find_exact(address)
        image, _ = self._image(vma) if vma is not None else (None, "")
        if vma is None or image is None:
            return None
        linked = image.address_of(address - vma.vm_start + (vma.vm_pgoff << PAGE_SHIFT))
        return None if linked is None else (image, linked)

    def symbol_addresses(self, vma: Vma, name: str) -> list[int]:
        """Where in ``vma``, a file's area, the symbols called ``name`` lie."""
        image, _ = self._image(vma)
        offsets = [] if image is None else image.offsets_of(name)
        addresses = [vma.vm_start + offset - (vma.vm_pgoff << PAGE_SHIFT) for offset in offsets]
        return [address for address in addresses if vma.vm_start <= address < vma.vm_end]

    def _with_target(self, insn: str, mm: MmStruct) -> str:
        """``call 0x401a5f <fork_flushed>``, as objdump writes it."""
        match = _TARGET.search(insn)
        if match is None:
            return insn
        address = int(match[1], 16)
        vma = mm.areas.find_exact(address)
        image, _ = self._image(vma) if vma is not None else (None, "")
        symbol = self._lookup(image, vma, address)[0] if image is not None and vma is not None else None
        return insn if symbol is None else f"{insn} <{symbol}>"

    def _lookup(self, image: Image, vma: Vma, address: int) -> tuple[Symbol | None, SourceLine | None]:
        file_offset = address - vma.vm_start + (vma.vm_pgoff << PAGE_SHIFT)
        key = (image, file_offset)
        found = self._names.get(key)
        if found is None:
            linked = image.address_of(file_offset)
            found = (None, None) if linked is None else (image.symbol_at(linked), image.line_at(linked))
            self._names[key] = found
        return found

    def _image(self, vma: Vma) -> tuple[Image | None, str]:
        """The ELF image mapped by ``vma``, and its name."""
        name = self.area_name(vma)
        if vma.vm_file is not None:
            inode = vma.vm_file.f_inode
            return self._symbolizer.image(
                name, (inode, inode.i_size, inode.i_mtime), lambda: self._content(inode)
            ), name
        if vma.vm_ops is not None and vma.vm_end - vma.vm_start <= _SPECIAL_IMAGE_MAX_BYTES:
            length = vma.vm_end - vma.vm_start
            return self._symbolizer.image(name, name, lambda: peek_exactly(vma.vm_mm, vma.vm_start, length)), name
        return None, name

    def _content(self, inode: Inode) -> bytes | None:
        return peek_file(self._kernel, inode) if inode.i_mode & S_IFMT == S_IFREG else None

    def _read_path(self, path: str) -> bytes | None:
        """A file of the guest's tree (separate debug files)."""
        try:
            inode = self._kernel.vfs.lookup(None, path.encode()).dentry.d_inode
        except KernelError:
            return None
        return self._content(inode)


def permissions(vma: Vma) -> str:
    """``rw-p``."""
    bits = "".join(char if vma.vm_flags & bit else "-" for char, bit in (("r", 1), ("w", 2), ("x", 4)))
    return bits + ("s" if vma.vm_flags & VM_SHARED else "p")
