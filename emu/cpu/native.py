"""A few bytes of host machine code for what Python is too slow, or unable, to do inside the engine.

Four stubs, for x86-64 hosts with the System V calling convention:

``tick``      the block hook: count a counter down, and stop the engine at the start of the block at which it passes
zero
``fault``     the hook of ``in`` and ``out``: raise #GP as a real processor does in user mode (it leaves by
              ``longjmp``, which may not cross Python's frames)
``breakpoint``  the hook of one instruction: ask Python, and raise #DB before the instruction if it says so
``syscall``   the system-call hook: set RCX and R11 as the instruction does, then call the Python callback

Where executable memory is refused, or on another kind of host, :func:`make_stubs` returns None and ``cpu.py`` makes do
without them.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
from typing import NamedTuple

PAGE = 4096
RFLAGS_ARITHMETIC = 0x8D5
"""CF PF AF ZF SF OF: the flags that the engine keeps in its own form."""


_TICK_RETURN = 10
"""Where the tick returns, in bytes from its start."""
_RETURN = b"\xc3\x90\x90\x90\x90"


class FlagsPlace(NamedTuple):
    """Host addresses of the engine's ``cc_op`` and ``cc_src``."""

    cc_op: int
    cc_src: int


class TickBlock(ctypes.Structure):
    """What the tick stub works on.  Not in the page of the code: the host's processor would think that the code
    changes."""

    _fields_ = (
        ("counter", ctypes.c_int64),
        ("block_start", ctypes.c_uint64),
        ("cc_op", ctypes.c_uint64),
        ("cc_src", ctypes.c_uint64),
        ("none", ctypes.c_uint64),
    )

    def __init__(self) -> None:
        super().__init__()
        self.counter = 1 << 62
        # Until the places are known: a word that is not CC_OP_EFLAGS.
        self.cc_op = self.cc_src = ctypes.addressof(self) + TickBlock.none.offset

    def set_flags_place(self, flags: FlagsPlace) -> None:
        self.cc_op, self.cc_src = flags


def _clean_flags(flags: FlagsPlace) -> bytes:
    """If ``cc_src`` holds the flags as bits, clear what is no flag (quirk 14).  Uses rax."""
    return (
        b"\x48\xb8"
        + struct.pack("<Q", flags.cc_op)  # mov rax, &cc_op
        + b"\x83\x38\x01"  # cmp dword [rax], CC_OP_EFLAGS
        b"\x75\x11"  # jne done
        b"\x48\xb8"
        + struct.pack("<Q", flags.cc_src)  # mov rax, &cc_src
        + b"\x48\x81\x20"
        + struct.pack("<I", RFLAGS_ARITHMETIC)  # and qword [rax], CF PF AF ZF SF OF
    )  # done:


def _raise_exception(raise_function: int, env: int, vector: int) -> bytes:
    """``raise_function(env, vector, 0, 0)``, which does not come back."""
    return (
        b"\x48\xbf"
        + struct.pack("<Q", env)  # mov rdi, env
        + b"\xbe"
        + struct.pack("<I", vector)  # mov esi, vector
        + b"\x31\xd2"  # xor edx, edx
        b"\x31\xc9"  # xor ecx, ecx
        b"\x48\xb8"
        + struct.pack("<Q", raise_function)  # mov rax, raise_exception_err_ra
        + b"\xff\xe0"  # jmp rax
    )


class NativeStubs:
    """One page of executable memory and the stubs in it."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._used = 0
        self._tick_return = 0

    def _place(self, code: bytes) -> int:
        address = self._start + self._used
        self._memory[self._used : self._used + len(code)] = code
        self._used += (len(code) + 15) & ~15
        return address

    def tick(self, stop_function: int) -> int:
        """A block hook; its user data is the address of a :class:`TickBlock`."""
        self._tick_return = self._used + _TICK_RETURN
        return self._place(
            b"\x48\x89\x71\x08"  # mov [rcx + 8], rsi: the block's address
            b"\x48\x83\x29\x01"  # sub qword [rcx], 1
            b"\x78\x05"  # js stop
            b"\xc3\x90\x90\x90\x90"  # ret, with room for a jump (note_blocks)
            b"\x48\x8b\x41\x10"  # stop: mov rax, [rcx + 16]: &cc_op
            b"\x83\x38\x01"  # cmp dword [rax], CC_OP_EFLAGS
            b"\x75\x0b"  # jne clean
            b"\x48\x8b\x41\x18"  # mov rax, [rcx + 24]: &cc_src
            b"\x48\x81\x20"
            + struct.pack("<I", RFLAGS_ARITHMETIC)  # and qword [rax], CF PF AF ZF SF OF
            + b"\x48\xb8"
            + struct.pack("<Q", stop_function)  # clean: mov rax, uc_emu_stop
            + b"\xff\xe0"  # jmp rax
        )

    def note_blocks(self, buffer: int | None) -> None:
        """Let the tick note every block that begins in a ``BlockBuffer`` (``insn_watch.py``); None: no longer.

        The engine must not run.
        """
        if buffer is None:
            self._memory[self._tick_return : self._tick_return + 5] = _RETURN
            return
        note = self._place(
            b"\x48\xb8"
            + struct.pack("<Q", buffer)  # mov rax, buffer
            + b"\x4c\x8b\x00"  # mov r8, [rax]: next
            b"\x49\x39\x70\xf0"  # cmp [r8 - 16], rsi: the last block's address
            b"\x75\x0c"  # jne new
            b"\x41\x39\x50\xf8"  # cmp [r8 - 8], edx: its length
            b"\x75\x06"  # jne new
            b"\x41\x83\x40\xfc\x01"  # add dword [r8 - 4], 1: once more
            b"\xc3"  # ret
            b"\x49\x89\x30"  # new: mov [r8], rsi
            b"\x41\x89\x50\x08"  # mov [r8 + 8], edx
            b"\x41\xc7\x40\x0c\x01\x00\x00\x00"  # mov dword [r8 + 12], 1
            b"\x49\x83\xc0\x10"  # add r8, 16
            b"\x4c\x89\x00"  # mov [rax], r8
            b"\x4c\x3b\x40\x08"  # cmp r8, [rax + 8]: limit
            b"\x74\x01"  # je full
            b"\xc3"  # ret
            b"\xff\x60\x10"  # full: jmp [rax + 16]: on_full, with the hook's own arguments
        )
        distance = note - (self._start + self._tick_return + 5)
        self._memory[self._tick_return : self._tick_return + 5] = b"\xe9" + struct.pack("<i", distance)

    def fault(self, raise_function: int, env: int, vector: int) -> int:
        """A hook that ends the instruction with an exception: ``raise_function(env, vector, 0, 0)``."""
        return self._place(_raise_exception(raise_function, env, vector))

    def breakpoint(self, callback: int, raise_function: int, env: int, vector: int) -> int:
        """A code hook: ``callback`` (of the same arguments) answers 0 to go on, else ``vector`` is raised."""
        return self._place(
            b"\x48\x83\xec\x08"  # sub rsp, 8
            b"\x48\xb8"
            + struct.pack("<Q", callback)  # mov rax, callback
            + b"\xff\xd0"  # call rax
            b"\x48\x83\xc4\x08"  # add rsp, 8
            b"\x85\xc0"  # test eax, eax
            b"\x75\x01"  # jnz raise
            b"\xc3"  # ret
            + _raise_exception(raise_function, env, vector)  # raise:
        )

    def syscall(
        self, read_function: int, rflags_id: int, rip: int, rcx: int, r11: int, flags: FlagsPlace, callback: int
    ) -> int:
        """A system-call hook.  ``rip``, ``rcx``, ``r11``: host addresses of the guest's registers."""
        return self._place(
            b"\x57\x56\x48\x83\xec\x08"  # push rdi; push rsi; sub rsp, 8
            + _clean_flags(flags)
            + b"\x48\xb8"
            + struct.pack("<Q", rip)  # mov rax, &RIP
            + b"\x48\x8b\x08"  # mov rcx, [rax]
            b"\x48\x83\xc1\x02"  # add rcx, 2
            b"\x48\xb8"
            + struct.pack("<Q", rcx)  # mov rax, &RCX
            + b"\x48\x89\x08"  # mov [rax], rcx
            b"\xbe"
            + struct.pack("<I", rflags_id)  # mov esi, UC_X86_REG_RFLAGS
            + b"\x48\xba"
            + struct.pack("<Q", r11)  # mov rdx, &R11
            + b"\x48\xb8"
            + struct.pack("<Q", read_function)  # mov rax, uc_reg_read
            + b"\xff\xd0"  # call rax
            b"\x48\x83\xc4\x08\x5e\x5f"  # add rsp, 8; pop rsi; pop rdi
            b"\x48\xb8"
            + struct.pack("<Q", callback)  # mov rax, callback
            + b"\xff\xe0"  # jmp rax
        )


def make_stubs() -> NativeStubs | None:
    """Executable memory, or None where this host has none for us."""
    if platform.machine() not in ("x86_64", "AMD64") or platform.system() == "Windows":
        return None
    try:
        memory = mmap.mmap(
            -1,
            PAGE,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
        )
    except OSError:
        return None
    return NativeStubs(memory)
