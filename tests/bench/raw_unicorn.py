"""A static program on Unicorn alone: no kernel, no page faults, the few system calls that the bench programs make.

    python -m tests.bench.raw_unicorn flat|best|best+|tick PROG ARGS...

flat   physical memory, every region with all permissions: what most programs built on Unicorn do
best   page tables that map text without write and data without execute permission: stores take the engine's fast path
best+  the same, and the engine does not test for a stop request after every load and store (it then cannot be stopped
       from outside; pagewalk stops it by its block counter instead)
tick   best with a native counter at every basic block: what pagewalk's clock costs

Only for measuring; nothing of pagewalk's is used but the patch that makes the difference between best and best+.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import unicorn as uc
import unicorn.x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

PAGE = 4096
RAM_BYTES = 128 << 20
HEAP_BASE = 16 << 20
STACK_TOP = 12 << 20
GAP_BYTES = 3 * PAGE
"""Between allocations.  Without it two 1 MiB buffers lie 256 pages apart, use the same entries of the engine's TLB,
and a copy between them is five times slower: a fault of this runner's layout, which must not count against
Unicorn."""
TABLES_BASE = RAM_BYTES - (1 << 20)
_P, _W, _NX = 1, 2, 1 << 63


class RawMachine:
    def __init__(self, program: bytes, argv: list[bytes], mode: str) -> None:
        self.engine = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        self.engine.mem_map(0, RAM_BYTES, uc.UC_PROT_ALL)
        self.heap = HEAP_BASE
        self.status = 0
        self.text: list[tuple[int, int]] = []
        self.entry = self._load(program)
        if mode != "flat":
            self._switch_paging_on()
        if mode == "best+":
            self._leave_exit_checks_out()
        if mode == "tick":
            self._count_blocks()
        self._push_arguments(argv)
        self.engine.hook_add(uc.UC_HOOK_INSN, self._syscall, None, 1, 0, x86.UC_X86_INS_SYSCALL)

    def _leave_exit_checks_out(self) -> None:
        from emu.cpu.quirks import set_fast_memory

        handle = cast(Any, self.engine._uch)
        view = SimpleNamespace(handle=handle.value, context_bytes=uclib.uc_context_size(handle))
        if not set_fast_memory(cast(Any, view)):
            sys.exit("the engine's flag was not found")

    def _count_blocks(self) -> None:
        """``sub qword [rcx], 1; ret`` as block hook; rcx is the hook's user data."""
        self._code = mmap.mmap(-1, PAGE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._code.write(bytes.fromhex("48832901c3"))
        self._counter = ctypes.c_int64(1 << 62)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        status = uclib.uc_hook_add(
            self.engine._uch, ctypes.byref(ctypes.c_size_t()), ctypes.c_int(uc.UC_HOOK_BLOCK), ctypes.c_void_p(address),
            ctypes.c_void_p(ctypes.addressof(self._counter)), ctypes.c_uint64(1), ctypes.c_uint64(0),
        )  # fmt: skip
        if status:
            sys.exit(f"uc_hook_add: {status}")

    def _load(self, program: bytes) -> int:
        entry, phoff = struct.unpack_from("<QQ", program, 24)
        count = struct.unpack_from("<H", program, 56)[0]
        for index in range(count):
            kind, flags, offset, vaddr, _, filesz, memsz = struct.unpack_from("<IIQQQQQ", program, phoff + 56 * index)
            if kind == 1:
                self.engine.mem_write(vaddr, program[offset : offset + filesz])
                if flags & 1:
                    self.text.append((vaddr & -PAGE, (vaddr + memsz + PAGE - 1) & -PAGE))
        return int(entry)

    def _switch_paging_on(self) -> None:
        """Identity mapping of all RAM by 4 KiB pages."""
        nr_pages = RAM_BYTES // PAGE
        pml4, pdpt, directory, leaf = (TABLES_BASE + i * PAGE for i in range(4))
        entries = [self._leaf(page * PAGE) for page in range(nr_pages)]
        self.engine.mem_write(pml4, struct.pack("<Q", pdpt | _P | _W))
        self.engine.mem_write(pdpt, struct.pack("<Q", directory | _P | _W))
        tables = [leaf + i * PAGE for i in range(nr_pages // 512)]
        self.engine.mem_write(directory, struct.pack(f"<{len(tables)}Q", *(table | _P | _W for table in tables)))
        self.engine.mem_write(leaf, struct.pack(f"<{nr_pages}Q", *entries))
        self.engine.msr_write(0xC0000080, 1 << 8 | 1 << 10 | 1 << 11)  # EFER: LME, LMA, NXE
        self.engine.reg_write(x86.UC_X86_REG_CR4, self.engine.reg_read(x86.UC_X86_REG_CR4) | 1 << 5)
        self.engine.reg_write(x86.UC_X86_REG_CR3, pml4)
        self.engine.reg_write(x86.UC_X86_REG_CR0, self.engine.reg_read(x86.UC_X86_REG_CR0) | 1 << 31 | 1)

    def _leaf(self, address: int) -> int:
        is_text = any(start <= address < end for start, end in self.text)
        return address | _P if is_text else address | _P | _W | _NX

    def _push_arguments(self, argv: list[bytes]) -> None:
        at = STACK_TOP
        pointers = []
        for text in argv:
            at -= len(text) + 1
            self.engine.mem_write(at, text + b"\0")
            pointers.append(at)
        words = [len(argv), *pointers, 0, 0, 0, 0]
        at = (at & -16) - 16 * ((len(words) + 1) // 2)
        self.engine.mem_write(at, struct.pack(f"<{len(words)}Q", *words))
        self.engine.reg_write(x86.UC_X86_REG_RSP, at)

    def _syscall(self, engine: Any, _data: Any) -> None:
        nr, a0, a1, a2 = (
            engine.reg_read(reg)
            for reg in (x86.UC_X86_REG_RAX, x86.UC_X86_REG_RDI, x86.UC_X86_REG_RSI, x86.UC_X86_REG_RDX)
        )
        result = 0
        if nr == 1:
            sys.stdout.buffer.write(bytes(engine.mem_read(a1, a2)))
            result = a2
        elif nr == 9:
            result = self.heap
            self.heap += ((a1 + PAGE - 1) & -PAGE) + GAP_BYTES
            assert self.heap < TABLES_BASE, "the program needs more memory than this runner has"
        elif nr in (60, 231):
            self.status = a0 & 0xFF
            engine.emu_stop()
        elif nr not in (11, 28):  # munmap, madvise: nothing to do
            result = -38 & (1 << 64) - 1
        engine.reg_write(x86.UC_X86_REG_RAX, result)

    def run(self) -> int:
        self.engine.ctl_exits_enabled(True)
        self.engine.ctl_set_exits([])
        self.engine.emu_start(self.entry, 0)
        sys.stdout.flush()
        return self.status


def main() -> int:
    mode, path, *args = sys.argv[1:]
    if mode not in ("flat", "best", "best+", "tick"):
        sys.exit(f"no mode {mode!r}")
    return RawMachine(Path(path).read_bytes(), [path.encode(), *(arg.encode() for arg in args)], mode).run()


if __name__ == "__main__":
    sys.exit(main())
