"""What execve collects before it touches anything: the file, the strings, the stack they will make.

Models ``struct linux_binprm`` and ``copy_strings``, ``bprm_stack_limits``, ``setup_arg_pages`` of ``fs/exec.c`` and
``create_elf_tables`` of ``fs/binfmt_elf.c``.  Manual: execve(2), getauxval(3).

The stack from the top down: 8 zero bytes, the file name (AT_EXECFN), the environment strings, the arguments, padding,
the platform string, 16 random bytes, padding, auxv, envp, argv, argc.

Deliberate difference: the strings are kept as bytes until the new address space exists, and written once.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kernel.abi.auxv import PLATFORM, Auxv
from kernel.abi.errno import Errno, KernelError
from kernel.abi.resource import RLIMIT_STACK
from kernel.mm.mmap import insert_vm_struct
from kernel.mm.types import (
    PAGE_MASK,
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_READ,
    VM_WRITE,
    MmStruct,
    Vma,
)
from kernel.mm.usercopy import copy_to_user

if TYPE_CHECKING:
    from kernel.fs.file import File
    from kernel.task.cred import Cred
    from kernel.task.task import Task

MAX_ARG_STRLEN = 32 * PAGE_SIZE
"""The longest single argument, its NUL included."""
MAX_ARG_STRINGS = 0x7FFF_FFFF
ARG_MAX = 131_072
"""Strings may always take this much, however small the stack's limit."""
STK_LIM = 8 << 20
STACK_TOP = TASK_SIZE
STACK_EXPAND = 131_072
"""How much below the strings the new stack is mapped at once."""
BINPRM_BUF_SIZE = 256
VM_STACK_FLAGS = VM_GROWSDOWN | VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | VM_ACCOUNT


class Bprm:
    """``struct linux_binprm``: one execve in preparation."""

    def __init__(self, task: Task, filename: bytes, file: File, comm: bytes) -> None:
        self.task = task
        self.filename = filename
        """What AT_EXECFN shows."""
        self.interp = filename
        """The name of the file that is being looked at: the script's, then its interpreter's."""
        self.file = file
        self.comm = comm
        self.argv: list[bytes] = []
        self.envp: list[bytes] = []
        self.creds: Cred = task.creds
        self.secure = False
        self.would_dump = True
        """False: the program could not be read by its user, so its memory must not be either."""
        self.inaccessible = False
        """The name (/dev/fd/N/...) leads nowhere after exec, because N is closed: scripts cannot be run."""
        self._room = 0

    # ---- strings ---------------------------------------------------------------------------------

    def set_strings(self, argv: list[bytes], envp: list[bytes]) -> None:
        """E2BIG when they do not fit (a quarter of the stack limit, at most 6 MiB, at least 128 KiB)."""
        limit = max(min(STK_LIM // 4 * 3, self.task.rlimit(RLIMIT_STACK) // 4), ARG_MAX)
        pointers = (max(len(argv), 1) + len(envp)) * 8
        if limit <= pointers:
            raise KernelError(Errno.E2BIG, "too many arguments")
        self._room = limit - pointers
        self._take_room(self.filename)
        for string in envp:
            self._take_room(string)
        for string in argv:
            self._take_room(string)
        self.envp = envp
        self.argv = argv or [b""]

    def _take_room(self, string: bytes) -> None:
        if len(string) >= MAX_ARG_STRLEN:
            raise KernelError(Errno.E2BIG, "argument longer than MAX_ARG_STRLEN")
        self._room -= len(string) + 1
        if self._room < 0:
            raise KernelError(Errno.E2BIG, "arguments do not fit a quarter of RLIMIT_STACK")

    def prepend_args(self, strings: list[bytes]) -> None:
        """A script's interpreter: ``strings`` take the place of argv[0]."""
        for string in strings:
            self._take_room(string)
        self.argv = strings + self.argv[1:]

    def read(self, count: int = BINPRM_BUF_SIZE) -> bytes:
        """The first bytes of the file."""
        return self.file.pread(0, count)

    # ---- the stack -------------------------------------------------------------------------------

    def setup_arg_pages(self, mm: MmStruct, stack_top: int, executable: bool) -> StackBuilder:
        """Map the new stack below ``stack_top`` and put the strings there."""
        builder = StackBuilder(mm, stack_top)
        builder.push_string(self.filename)
        execfn = builder.p
        envp = builder.push_strings(self.envp)
        argv = builder.push_strings(self.argv)
        builder.execfn, builder.envp, builder.argv = execfn, envp, argv
        mm.arg_start = builder.p
        mm.arg_end = mm.env_start = envp[0] if envp else execfn
        mm.env_end = execfn
        size = stack_top - (builder.p & PAGE_MASK)
        limit = self.task.rlimit(RLIMIT_STACK) & PAGE_MASK
        size = max(size, min(size + STACK_EXPAND, limit))
        flags = VM_STACK_FLAGS | mm.def_flags | (VM_EXEC if executable else 0)
        insert_vm_struct(mm, Vma(mm, stack_top - size, stack_top, flags))
        return builder


class StackBuilder:
    """Fills the top of a stack from above; ``p`` is the lowest byte used so far."""

    def __init__(self, mm: MmStruct, stack_top: int) -> None:
        self.mm = mm
        self.top = stack_top
        self.p = stack_top - 8
        self.execfn = 0
        self.argv: list[int] = []
        self.envp: list[int] = []
        self._chunks: list[bytes] = [bytes(8)]

    def push(self, data: bytes) -> int:
        self.p -= len(data)
        self._chunks.append(data)
        return self.p

    def push_string(self, string: bytes) -> int:
        return self.push(string + b"\0")

    def push_strings(self, strings: list[bytes]) -> list[int]:
        """Push them so that they lie in memory in their order; returns their addresses."""
        return [self.push_string(string) for string in reversed(strings)][::-1]

    def align(self, alignment: int) -> None:
        self.push(bytes(self.p % alignment))

    def write(self) -> None:
        """Copy everything to user memory."""
        copy_to_user(self.mm, self.p, b"".join(reversed(self._chunks)))

    def create_elf_tables(self, auxv: list[tuple[int, int]], random_bytes: bytes, random_offset: int) -> int:
        """Everything below the strings; returns the stack pointer at entry, where argc stands.

        ``random_offset`` bytes (ASLR) are left out first.  AT_EXECFN, AT_RANDOM and AT_PLATFORM are filled in here.
        """
        self.push(bytes(random_offset))
        self.align(16)
        platform = self.push_string(PLATFORM)
        random = self.push(random_bytes)
        addresses = {Auxv.AT_RANDOM: random, Auxv.AT_EXECFN: self.execfn, Auxv.AT_PLATFORM: platform}
        vector = b"".join(
            struct.pack("<QQ", kind, addresses.get(Auxv(kind), value)) for kind, value in [*auxv, (Auxv.AT_NULL, 0)]
        )
        words = [len(self.argv), *self.argv, 0, *self.envp, 0]
        table = struct.pack(f"<{len(words)}Q", *words) + vector
        padding = (self.p - len(table)) % 16
        self.push(bytes(padding))
        self.push(table)
        self.mm.saved_auxv = vector
        self.mm.start_stack = self.p
        self.write()
        return self.p
