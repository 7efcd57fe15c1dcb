"""ELF programs: static, position independent, and with a dynamic loader.

Models ``load_elf_binary`` and its helpers of ``fs/binfmt_elf.c`` (6.18), ``arch/x86/include/asm/elf.h``,
``arch/x86/mm/mmap.c``.  Manual: execve(2), elf(5).

Without ASLR (the default) addresses are Linux's with ADDR_NO_RANDOMIZE: PIE at 0x555555554000, the loader and libraries
below 0x7ffff7fff000, the stack below 0x7ffffffff000; with it, the seed decides.

Deliberate difference: everything is mapped into the new address space before the old one is given up; what
Linux finds out after its point of no return is an :class:`ExecFatal` here, and kills with SIGSEGV as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernel.abi.auxv import CLK_TCK, HWCAP, HWCAP2_FSGSBASE, Auxv
from kernel.abi.elf import (
    EHDR_SIZE,
    ELFMAG,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    PF_R,
    PF_W,
    PF_X,
    PHDR,
    PHDR_SIZE,
    PT_GNU_STACK,
    PT_INTERP,
    PT_LOAD,
    Ehdr,
    Phdr,
    parse_ehdr,
    why_not_native,
)
from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import PATH_MAX
from kernel.abi.mman import Map
from kernel.abi.personality import ADDR_NO_RANDOMIZE
from kernel.abi.rseq import RSEQ_ALIGN, RSEQ_FEATURE_SIZE
from kernel.fs.file import File, fput
from kernel.fs.regular import MAX_LFS_FILESIZE
from kernel.mm.brk import do_brk
from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, do_mmap
from kernel.mm.munmap import do_munmap
from kernel.mm.types import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, TASK_SIZE, VM_EXEC, MmStruct
from kernel.mm.usercopy import clear_user
from kernel.task.bprm import STACK_TOP, Bprm, StackBuilder
from kernel.task.sigframe import MAX_FRAME_SIZE

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.task.task import Task

ELF_ET_DYN_BASE = 0x5555_5555_4AAA
"""Two thirds of the address space."""
_MAP_PRIVATE, _MAP_FIXED = int(Map.MAP_PRIVATE), int(Map.MAP_FIXED)
_MAP_FIXED_NOREPLACE = int(Map.MAP_FIXED_NOREPLACE)
MMAP_RND_PAGES = 1 << 28
STACK_RND_PAGES = 1 << 22
BRK_RND_BYTES = 0x200_0000


class ExecFatal(KernelError):
    """execve has failed after its point of no return: the process dies of SIGSEGV."""


@dataclass(slots=True)
class ElfFile:
    """A program or its loader, headers read and checked."""

    file: File
    ehdr: Ehdr
    phdrs: list[Phdr]

    @property
    def loads(self) -> list[Phdr]:
        return [phdr for phdr in self.phdrs if phdr.p_type == PT_LOAD]


@dataclass(slots=True)
class Loaded:
    """What :func:`load_elf_binary` leaves for execve to switch to."""

    mm: MmStruct
    entry: int
    stack_pointer: int


class Layout:
    """Where things go, drawn from the seed when addresses are randomized."""

    def __init__(self, task: Task) -> None:
        kernel = task.kernel
        sysctl = kernel.sysctl
        self.randomize = bool(sysctl.randomize_va_space) and not task.personality & ADDR_NO_RANDOMIZE
        self.randomize_brk = self.randomize and sysctl.randomize_va_space > 1
        self._rng = kernel.rng

    def pages(self, nr_pages: int) -> int:
        """A random number of bytes below ``nr_pages`` pages, page aligned; 0 without ASLR."""
        return self._rng.randrange(nr_pages) << PAGE_SHIFT if self.randomize else 0

    def stack_offset(self) -> int:
        return self._rng.randrange(8192) if self.randomize else 0

    def brk_offset(self) -> int:
        return self._rng.randrange(BRK_RND_BYTES) & PAGE_MASK if self.randomize_brk else 0


# ---- reading -------------------------------------------------------------------------------------


def read_elf(file: File, errno: int) -> ElfFile:
    """Headers of a program (``errno`` ENOEXEC) or of a loader (ELIBBAD)."""
    head = file.pread(0, EHDR_SIZE)
    why = why_not_native(head)
    if why is not None:
        raise KernelError(errno, why)
    ehdr = parse_ehdr(head)
    if ehdr.e_ident[:4] != ELFMAG or ehdr.e_machine != EM_X86_64:
        raise KernelError(errno, "not for x86-64")
    if file.f_mapping is None:
        raise KernelError(errno, "a file that cannot be mapped")
    if ehdr.e_phentsize != PHDR_SIZE:
        raise KernelError(errno, f"program headers of {ehdr.e_phentsize} bytes instead of {PHDR_SIZE}")
    size = ehdr.e_phnum * PHDR_SIZE
    if not 0 < size <= 65536:
        raise KernelError(errno, f"{ehdr.e_phnum} program headers")
    table = file.pread(ehdr.e_phoff, size) if ehdr.e_phoff < 1 << 62 else b""
    if len(table) != size:
        raise KernelError(errno, "truncated: the program headers lie beyond the end of the file")
    return ElfFile(file, ehdr, [Phdr(*fields) for fields in PHDR.iter_unpack(table)])


def open_interpreter(bprm: Bprm, program: ElfFile) -> ElfFile | None:
    """The dynamic loader that PT_INTERP names, opened; None for static programs."""
    interp = next((phdr for phdr in program.phdrs if phdr.p_type == PT_INTERP), None)
    if interp is None:
        return None
    if not 2 <= interp.p_filesz <= PATH_MAX:
        raise KernelError(Errno.ENOEXEC, "PT_INTERP has a bad length")
    name = program.file.pread(interp.p_offset, interp.p_filesz) if interp.p_offset < 1 << 62 else b""
    if len(name) != interp.p_filesz:
        raise KernelError(Errno.EIO, "truncated: PT_INTERP lies beyond the end of the file")
    if name[-1]:
        raise KernelError(Errno.ENOEXEC, "PT_INTERP is not NUL-terminated")
    path = name.split(b"\0", 1)[0]
    kernel = bprm.task.kernel
    try:
        file: File = kernel.vfs.open_exec(bprm.task, path)
    except KernelError as error:
        raise KernelError(error.errno, f"loader {path.decode(errors='replace')}: {error.reason or error}") from None
    try:
        head = file.pread(0, EHDR_SIZE)
        if len(head) < EHDR_SIZE:
            raise KernelError(Errno.EIO, f"loader {path.decode(errors='replace')} is truncated")
        return read_elf(file, Errno.ELIBBAD)
    except KernelError:
        fput(file)
        raise


# ---- mapping -------------------------------------------------------------------------------------


def _bad_addr(addr: int) -> bool:
    return not 0 <= addr < TASK_SIZE


def _prot(p_flags: int) -> int:
    return (1 if p_flags & PF_R else 0) | (2 if p_flags & PF_W else 0) | (4 if p_flags & PF_X else 0)


def total_mapping_size(loads: list[Phdr]) -> int:
    """From the first page to the last byte of all PT_LOAD segments; 0 if there are none."""
    if not loads:
        return 0
    low = min(phdr.p_vaddr & PAGE_MASK for phdr in loads)
    return max(phdr.p_vaddr + phdr.p_memsz for phdr in loads) - low


def _maximum_alignment(loads: list[Phdr]) -> int:
    alignment = 0
    for phdr in loads:
        p_align = phdr.p_align
        if p_align and not p_align & (p_align - 1):
            alignment = max(alignment, p_align)
    return (alignment + PAGE_SIZE - 1) & PAGE_MASK


def _elf_map(mm: MmStruct, file: File, addr: int, phdr: Phdr, prot: int, flags: int, total_size: int) -> int:
    """Map the file part of a segment, with room for all segments if ``total_size`` says how much that is."""
    in_page = phdr.p_vaddr & ~PAGE_MASK
    size = (phdr.p_filesz + in_page + PAGE_SIZE - 1) & PAGE_MASK
    offset = phdr.p_offset - in_page
    if offset & ~PAGE_MASK or offset < 0:
        raise KernelError(Errno.EINVAL, "offset and address of a segment differ modulo the page size")
    if offset + size > MAX_LFS_FILESIZE:
        raise KernelError(Errno.EOVERFLOW, "a segment lies beyond the largest file")
    if _bad_addr(addr) or size > TASK_SIZE:
        raise KernelError(Errno.ENOMEM, "a segment lies outside user memory")
    addr &= PAGE_MASK
    pgoff = offset >> PAGE_SHIFT
    if not total_size:
        return do_mmap(mm, MmapRequest(addr, size, prot, flags, file, pgoff))
    total_size = (total_size + PAGE_SIZE - 1) & PAGE_MASK
    addr = do_mmap(mm, MmapRequest(addr, total_size, prot, flags, file, pgoff))
    if total_size > size:
        do_munmap(mm, addr + size, total_size - size)
    return addr


def _elf_load(mm: MmStruct, file: File, addr: int, phdr: Phdr, prot: int, flags: int, total_size: int) -> int:
    """One segment: its part of the file, the zeros to the end of the last page, anonymous memory for the rest."""
    in_page = phdr.p_vaddr & ~PAGE_MASK
    if phdr.p_filesz:
        map_addr = _elf_map(mm, file, addr, phdr, prot, flags, total_size)
        zero_start = map_addr + in_page + phdr.p_filesz
        if phdr.p_memsz > phdr.p_filesz:
            _pad_zero(mm, zero_start, prot)
    else:
        map_addr = zero_start = addr & PAGE_MASK
    zero_end = map_addr + in_page + phdr.p_memsz
    if phdr.p_memsz > phdr.p_filesz:
        zero_start = (zero_start + PAGE_SIZE - 1) & PAGE_MASK
        zero_end = (zero_end + PAGE_SIZE - 1) & PAGE_MASK
        if zero_end > TASK_SIZE or zero_start < 0:
            raise KernelError(Errno.ENOMEM, "a segment does not fit user memory")
        if zero_end > zero_start:
            do_brk(mm, zero_start, zero_end - zero_start, VM_EXEC if prot & 4 else 0)
    return map_addr


def _pad_zero(mm: MmStruct, start: int, prot: int) -> None:
    """Clear from ``start`` to the end of its page; a segment that may not be written stays as the file has it."""
    nr_bytes = -start & (PAGE_SIZE - 1)
    if not nr_bytes:
        return
    try:
        clear_user(mm, start, nr_bytes)
    except KernelError:
        if prot & 2:
            raise


def _check_segment(phdr: Phdr, errno: int) -> None:
    if (
        _bad_addr(phdr.p_vaddr)
        or phdr.p_filesz > phdr.p_memsz
        or phdr.p_memsz > TASK_SIZE
        or TASK_SIZE - phdr.p_memsz < phdr.p_vaddr
    ):
        raise KernelError(errno, "a segment does not fit user memory, or is larger in the file than in memory")


def _map_program(mm: MmStruct, program: ElfFile, layout: Layout, has_interp: bool) -> int:
    """Map all segments of the program itself; returns the load bias.  Sets the mm's code, data and brk fields."""
    loads = program.loads
    is_dyn = program.ehdr.e_type == ET_DYN
    bias = 0
    end_of_all = start_data = end_code = end_data = 0
    start_code = TASK_SIZE
    for index, phdr in enumerate(loads):
        flags = _MAP_PRIVATE
        total_size = 0
        if index:
            flags |= _MAP_FIXED
        elif not is_dyn:
            flags |= _MAP_FIXED_NOREPLACE
        else:
            total_size = total_mapping_size(loads)
            if not total_size:
                raise KernelError(Errno.EINVAL, "nothing to load")
            bias, flags = _pick_bias(mm, program, layout, has_interp, total_size)
        addr = bias + phdr.p_vaddr
        mapped = _elf_load(mm, program.file, addr, phdr, _prot(phdr.p_flags), flags, total_size)
        if not index and is_dyn:
            bias += mapped - (addr & PAGE_MASK)
        _check_segment(phdr, Errno.EINVAL)
        if phdr.p_flags & PF_X:
            start_code = min(start_code, phdr.p_vaddr)
            end_code = max(end_code, phdr.p_vaddr + phdr.p_filesz)
        start_data = max(start_data, phdr.p_vaddr)
        end_data = max(end_data, phdr.p_vaddr + phdr.p_filesz)
        end_of_all = max(end_of_all, phdr.p_vaddr + phdr.p_memsz)
    mm.start_code, mm.end_code = start_code + bias, end_code + bias
    mm.start_data, mm.end_data = start_data + bias, end_data + bias
    mm.start_brk = mm.brk = (end_of_all + bias + PAGE_SIZE - 1) & PAGE_MASK
    return bias


def _pick_bias(mm: MmStruct, program: ElfFile, layout: Layout, has_interp: bool, total_size: int) -> tuple[int, int]:
    """Where a position-independent program goes: programs at two thirds of memory, loaders where mmap puts them."""
    loads = program.loads
    first = loads[0]
    alignment = _maximum_alignment(loads)
    flags = _MAP_PRIVATE
    if has_interp:
        base = ELF_ET_DYN_BASE + layout.pages(MMAP_RND_PAGES)
        if alignment:
            base &= ~(alignment - 1)
        flags |= _MAP_FIXED_NOREPLACE
    elif alignment > PAGE_SIZE:
        # Find out where it would go, and go to the aligned address below.
        found = _elf_load(mm, program.file, 0, first, _prot(first.p_flags), flags, total_size)
        do_munmap(mm, found, (total_size + PAGE_SIZE - 1) & PAGE_MASK)
        base = found & ~(alignment - 1)
        flags |= _MAP_FIXED_NOREPLACE
    else:
        base = 0
    return (base - first.p_vaddr) & PAGE_MASK, flags


def _map_interpreter(mm: MmStruct, interp: ElfFile) -> int:
    """Map the dynamic loader; returns its load address."""
    loads = interp.loads
    if interp.ehdr.e_type not in (ET_EXEC, ET_DYN):
        raise KernelError(Errno.ELIBBAD, "the loader is no program")
    total_size = total_mapping_size(loads)
    if not total_size:
        raise KernelError(Errno.EINVAL, "the loader has nothing to load")
    load_addr = -loads[0].p_vaddr
    placed = False
    for phdr in loads:
        flags = _MAP_PRIVATE
        if interp.ehdr.e_type == ET_EXEC:
            load_addr = 0
        if interp.ehdr.e_type == ET_EXEC or placed:
            flags |= _MAP_FIXED
        mapped = _elf_load(mm, interp.file, load_addr + phdr.p_vaddr, phdr, _prot(phdr.p_flags), flags, total_size)
        total_size = 0
        if not placed and interp.ehdr.e_type == ET_DYN:
            load_addr = mapped - (phdr.p_vaddr & PAGE_MASK)
            placed = True
        _check_segment(phdr, Errno.ENOMEM)
    return load_addr


# ---- the whole -----------------------------------------------------------------------------------


def load_elf_binary(bprm: Bprm, program: ElfFile, interp: ElfFile | None, mm: MmStruct) -> Loaded:
    """Build the new address space.  Raises :class:`ExecFatal`; the caller takes ``mm`` down."""
    try:
        return _build(bprm, program, interp, mm)
    except KernelError as error:
        raise ExecFatal(error.errno, error.reason) from error


def _build(bprm: Bprm, program: ElfFile, interp: ElfFile | None, mm: MmStruct) -> Loaded:
    task = bprm.task
    kernel: Kernel = task.kernel
    layout = Layout(task)
    stack_flags = [phdr.p_flags for phdr in program.phdrs if phdr.p_type == PT_GNU_STACK]
    executable_stack = bool(stack_flags and stack_flags[-1] & PF_X)
    arch_pick_mmap_layout(mm, layout.pages(MMAP_RND_PAGES))
    stack_top = STACK_TOP - layout.pages(STACK_RND_PAGES)
    builder = bprm.setup_arg_pages(mm, stack_top, executable_stack)
    bias = _map_program(mm, program, layout, interp is not None)
    entry = program.ehdr.e_entry + bias
    base = 0
    start = entry
    if interp is not None:
        base = _map_interpreter(mm, interp)
        start = base + interp.ehdr.e_entry
    if _bad_addr(start):
        raise KernelError(Errno.EINVAL, "the entry point lies outside user memory")
    kernel.vdso.map_into(mm)
    _place_brk(mm, program, interp, layout)
    auxv = _auxv(bprm, program, mm, bias, base, entry)
    sp = builder.create_elf_tables(auxv, kernel.rng.randbytes(16), layout.stack_offset())
    mm.exe_file = program.file.get()
    return Loaded(mm, start, sp)


def _place_brk(mm: MmStruct, program: ElfFile, interp: ElfFile | None, layout: Layout) -> None:
    """A loader or static PIE sits where mmap grows: its heap goes where other programs are."""
    if program.ehdr.e_type == ET_DYN and interp is None:
        mm.start_brk = mm.brk = (ELF_ET_DYN_BASE + PAGE_SIZE - 1) & PAGE_MASK
    offset = layout.brk_offset()
    mm.start_brk = mm.brk = mm.brk + offset


def _auxv(bprm: Bprm, program: ElfFile, mm: MmStruct, bias: int, base: int, entry: int) -> list[tuple[int, int]]:
    ehdr = program.ehdr
    creds = bprm.creds
    phdr_addr = 0
    for phdr in program.loads:
        if phdr.p_offset <= ehdr.e_phoff < phdr.p_offset + phdr.p_filesz:
            phdr_addr = ehdr.e_phoff - phdr.p_offset + phdr.p_vaddr
    return [
        (Auxv.AT_SYSINFO_EHDR, mm.vdso_base),
        (Auxv.AT_MINSIGSTKSZ, MAX_FRAME_SIZE),
        (Auxv.AT_HWCAP, HWCAP),
        (Auxv.AT_PAGESZ, PAGE_SIZE),
        (Auxv.AT_CLKTCK, CLK_TCK),
        (Auxv.AT_PHDR, phdr_addr + bias),
        (Auxv.AT_PHENT, PHDR_SIZE),
        (Auxv.AT_PHNUM, ehdr.e_phnum),
        (Auxv.AT_BASE, base),
        (Auxv.AT_FLAGS, 0),
        (Auxv.AT_ENTRY, entry),
        (Auxv.AT_UID, creds.uid),
        (Auxv.AT_EUID, creds.euid),
        (Auxv.AT_GID, creds.gid),
        (Auxv.AT_EGID, creds.egid),
        (Auxv.AT_SECURE, int(bprm.secure)),
        (Auxv.AT_RANDOM, 0),
        (Auxv.AT_HWCAP2, HWCAP2_FSGSBASE),
        (Auxv.AT_EXECFN, 0),
        (Auxv.AT_PLATFORM, 0),
        (Auxv.AT_RSEQ_FEATURE_SIZE, RSEQ_FEATURE_SIZE),
        (Auxv.AT_RSEQ_ALIGN, RSEQ_ALIGN),
    ]


__all__ = ["ElfFile", "ExecFatal", "Loaded", "StackBuilder", "load_elf_binary", "open_interpreter", "read_elf"]
