"""Finds, at start-up, where the engine keeps what its interface does not show (quirks 1 to 3 of ``quirks.py``).

Nothing is assumed: every place is found by values that are known beforehand, must be the only one, and is checked.  A
difference raises :class:`EngineError`, because an engine that we do not know must not be patched.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass

from emu.cpu import layout
from emu.cpu import unicorn_abi as abi
from emu.cpu.engine import Engine, EngineError, IntrCallback
from mmu.paging import PF_INSTR, PF_PROT, PF_USER, PF_WRITE

ADVICE = "this build of Unicorn is not the one that pagewalk knows: pip install --force-reinstall unicorn==2.1.4"

ENGINE_SCAN_BYTES = 4096
"""How much of the engine's own structure is looked at."""
_PROCESSOR_SCAN_BYTES = 0x10000
_PROCESSOR_POINTER_HINT = 0x1B8

CC_OP_SUBL, CC_OP_ADDL = 16, 8
"""Of QEMU's ``enum CCOp``: where the flags come from."""


@dataclass(frozen=True)
class StateLayout:
    """Byte offsets in the engine's state.  The sixteen general registers stand at 0, in encoding order."""

    header_bytes: int
    """Bytes of a saved context before its copy of the state."""
    state_bytes: int
    rip: int
    rflags: int
    cs: int
    ss: int
    fs_base: int
    gs_base: int
    cr2: int
    cr3: int
    error_code: int
    is_int: int
    """``exception_is_int``: the last vector came from an ``int`` instruction."""
    old_exception: int
    cc_src: int
    """The second operand of the operation that the flags come from, or their bits."""
    cc_op: int
    """That operation (QEMU's ``enum CCOp``); CC_OP_EFLAGS: ``cc_src`` holds the bits."""


def read_own_memory(address: int, nr_bytes: int) -> bytes:
    """Host memory, which may turn out not to be mapped (then less, or nothing, is returned).

    It goes through a pipe, page by page: the host's kernel reports a bad address where we should crash.
    """
    write = ctypes.PyDLL(None).write
    write.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    write.restype = ctypes.c_ssize_t
    reader, writer = os.pipe()
    seen = b""
    try:
        while len(seen) < nr_bytes:
            place = address + len(seen)
            nr_written = write(writer, place, min(4096 - place % 4096, nr_bytes - len(seen)))
            if nr_written <= 0:
                break
            seen += os.read(reader, nr_written)
    finally:
        os.close(reader)
        os.close(writer)
    return seen


def find_state(engine: Engine) -> tuple[int, int]:
    """The host addresses of the engine's state and of the processor object (``CPUState``) around it.

    The engine's own structure points to its processor object, which contains the state: the only place with these
    sixteen values in a row.
    """
    magic = [0xA5C3_0000_0000_0000 | 0x0101_0101_0101 * (number + 1) for number in range(16)]
    for reg_id, value in zip(abi.GPR_IDS, magic, strict=True):
        engine.reg_write(reg_id, value)
    state, processor = _search_registers(engine, struct.pack("<16Q", *magic))
    rax = ctypes.c_uint64.from_address(state)
    engine.reg_write(abi.REG_RAX, 0x1234_5678_9ABC_DEF0)
    seen = rax.value
    rax.value = 0
    if seen != 0x1234_5678_9ABC_DEF0 or engine.reg_read(abi.REG_RAX) != 0:
        raise EngineError(f"the engine's memory does not follow its registers; {ADVICE}")
    for reg_id in abi.GPR_IDS:
        engine.reg_write(reg_id, 0)
    return state, processor


def _search_registers(engine: Engine, pattern: bytes) -> tuple[int, int]:
    words = struct.unpack(f"<{ENGINE_SCAN_BYTES // 8}Q", read_own_memory(engine.handle, ENGINE_SCAN_BYTES))
    for pointer in (words[_PROCESSOR_POINTER_HINT // 8], *words):
        if 0x10000 <= pointer < 1 << 47 and pointer % 8 == 0:
            position = read_own_memory(pointer, _PROCESSOR_SCAN_BYTES).find(pattern)
            if position >= 0:
                return pointer + position, pointer
    raise EngineError(f"the registers were not found in the engine's memory; {ADVICE}")


class RingProbe:
    """Runs the stub page's probe code in ring 3 and keeps a copy of the state at each exception.

    To be made while the engine is in ring 0 with paging on: every probe starts from there, by ``iretq``.
    """

    _UNMAPPED = 0x0000_1234_5678_9000
    FAULT_ADDRESSES = (_UNMAPPED, _UNMAPPED + 8, _UNMAPPED + 16, layout.STACK_VADDR, layout.STACK_VADDR + 8)
    """CR2 at each of the page faults that :meth:`exceptions` provokes."""
    FAULT_ERROR_CODES = (
        PF_USER | PF_INSTR,
        PF_USER,
        PF_USER | PF_WRITE,
        PF_USER | PF_PROT,
        PF_USER | PF_PROT | PF_WRITE,
    )

    def __init__(self, engine: Engine, kernel: layout.KernelLayout, state_address: int) -> None:
        self.engine = engine
        self.state_address = state_address
        self.cr3 = kernel.boot_cr3
        self._kernel = kernel
        self._seen: list[tuple[int, bytes]] = []
        self._state = memoryview((ctypes.c_char * engine.context_bytes).from_address(state_address)).cast("B")
        self.ring0_context = ctypes.create_string_buffer(engine.empty_context(), engine.context_bytes)
        engine.context_save(ctypes.addressof(self.ring0_context))

    def _on_interrupt(self, _engine: int, vector: int, _data: int) -> None:
        self._seen.append((vector, bytes(self._state)))
        self.engine.stop()

    def _run(self, rip: int, rbx: int = 0, rax: int = 0) -> tuple[int, bytes]:
        """(vector, state) of the exception with which user code at ``rip`` ends."""
        engine = self.engine
        engine.context_restore(ctypes.addressof(self.ring0_context))
        engine.reg_write(abi.REG_RBX, rbx)
        engine.reg_write(abi.REG_RAX, rax)
        engine.reg_write(abi.REG_RSP, self._kernel.push_user_frame(rip, 0x202, 0))
        self._seen.clear()
        hook = engine.add_hook(abi.HOOK_INTR, IntrCallback(self._on_interrupt))
        engine.start(layout.STUB_VADDR + layout.IRETQ)
        engine.delete_hook(hook)
        if not self._seen:
            raise EngineError(f"an exception in user mode is not reported; {ADVICE}")
        return self._seen[0]

    def _run_stub(self, offset: int, rbx: int = 0, rax: int = 0, nr_pages: int = 1) -> tuple[int, bytes]:
        """Run code of the stub page in ring 3, with ``nr_pages`` pages of the window mapped to that page."""
        self._kernel.map_window([self._kernel.frames[layout.STUB]] * nr_pages)
        result = self._run(layout.WINDOW_VADDR + offset, rbx, rax)
        self._kernel.clear_window(nr_pages)
        return result

    def exceptions(self) -> list[tuple[int, bytes]]:
        """(vector, state) of: fetch, read and write of an absent page, read and write of a supervisor page, int3."""
        fetch, read, write, read_kernel, write_kernel = self.FAULT_ADDRESSES
        return [
            self._run(fetch),
            self._run_stub(layout.PROBE_READ, read),
            self._run_stub(layout.PROBE_WRITE, write),
            self._run_stub(layout.PROBE_READ, read_kernel),
            self._run_stub(layout.PROBE_WRITE, write_kernel),
            self._run_stub(layout.PROBE_INT3),
        ]

    def flags(self) -> list[bytes]:
        """States right after a 32-bit subtraction and addition of PROBE_OPERAND."""
        return [self._run_stub(place, rax=0x11223344)[1] for place in (layout.PROBE_SUB, layout.PROBE_ADD)]

    def touch(self, nr_pages: int) -> None:
        """Read ``nr_pages`` pages of the window, after its first, which holds the code."""
        self._run_stub(layout.PROBE_TOUCH, layout.WINDOW_VADDR + 4096, nr_pages, nr_pages + 1)

    def cpuid(self, leaf: int) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of a leaf, subleaf 0."""
        _, state = self._run_stub(layout.PROBE_CPUID, rax=leaf)
        rax, rcx, rdx, rbx = struct.unpack_from("<4Q", state)
        return rax & 0xFFFF_FFFF, rbx & 0xFFFF_FFFF, rcx & 0xFFFF_FFFF, rdx & 0xFFFF_FFFF


def _only(places: list[int], what: str) -> int:
    if len(places) != 1:
        raise EngineError(f"{what}: found at {len(places)} places in the engine's state; {ADVICE}")
    return places[0]


def _saved_magic(engine: Engine) -> tuple[int, bytes, dict[str, int]]:
    """(header bytes, state) of a context saved while known values stood in the registers, and those values."""
    magic = {
        "rip": (abi.REG_RIP, 0x0000_4D41_4749_4331),
        "fs_base": (abi.REG_FS_BASE, 0x0000_4D41_4749_4332),
        "gs_base": (abi.REG_GS_BASE, 0x0000_4D41_4749_4333),
        "rflags": (abi.REG_EFLAGS, 0x20_0246),
        "rax": (abi.REG_RAX, 0x4D41_4749_4334_4335),
        "rcx": (abi.REG_RCX, 0x4D41_4749_4336_4337),
    }
    for reg_id, value in magic.values():
        engine.reg_write(reg_id, value)
    context = ctypes.create_string_buffer(engine.empty_context(), engine.context_bytes)
    engine.context_save(ctypes.addressof(context))
    header_bytes = context.raw.find(struct.pack("<2Q", magic["rax"][1], magic["rcx"][1]))
    if header_bytes < 0:
        raise EngineError(f"a saved context does not hold the registers; {ADVICE}")
    return header_bytes, context.raw[header_bytes:], {name: value for name, (_, value) in magic.items()}


def probe_state_layout(probe: RingProbe) -> StateLayout:
    """Find every field that ``cpu.py`` uses.  Leaves the engine in ring 3, right after ``int3``."""
    header_bytes, saved, magic = _saved_magic(probe.engine)
    nr_words = len(saved) // 8
    words = struct.unpack(f"<{nr_words}Q", saved)

    def place_of(name: str) -> int:
        return 8 * _only([index for index, word in enumerate(words) if word == magic[name]], name)

    fs_base, gs_base = place_of("fs_base"), place_of("gs_base")
    segment_bytes = gs_base - fs_base  # the segments stand in the order ES CS SS DS FS GS

    seen = probe.exceptions()
    vectors = [vector for vector, _ in seen]
    if vectors != [14, 14, 14, 14, 14, 3]:
        raise EngineError(f"probe exceptions have vectors {vectors}; {ADVICE}")
    pristine, *faults, int3 = (struct.unpack_from(f"<{2 * nr_words}i", s) for s in (saved, *(s for _, s in seen)))

    def column(values: tuple[int, ...], what: str) -> int:
        """The 32-bit field that had these values in the five faults."""
        return 4 * _only([i for i in range(2 * nr_words) if tuple(f[i] for f in faults) == values], what)

    error_code = column(probe.FAULT_ERROR_CODES, "the error code")
    is_int = error_code + 4
    if any(fault[is_int // 4] for fault in faults) or int3[is_int // 4] != 1:
        raise EngineError(f"exception_is_int does not stand after the error code; {ADVICE}")
    candidates = [i for i in range(2 * nr_words) if pristine[i] == -1 == int3[i] and all(f[i] == 14 for f in faults)]
    old_exception = 4 * _only(candidates, "old_exception")
    quads = [struct.unpack_from(f"<{nr_words}Q", state) for _, state in seen[:5]]
    cr2 = 8 * _only([i for i in range(nr_words) if tuple(q[i] for q in quads) == probe.FAULT_ADDRESSES], "CR2")
    cr3 = cr2 + 8
    if words[cr3 // 8] != probe.cr3:
        raise EngineError(f"CR3 does not stand after CR2; {ADVICE}")
    after_sub, after_add = probe.flags()
    operand = struct.pack("<Q", layout.PROBE_OPERAND)
    cc_src = 8 * _only(
        [i for i in range(nr_words) if after_sub[8 * i : 8 * i + 8] == operand == after_add[8 * i : 8 * i + 8]],
        "cc_src",
    )
    operations = [struct.unpack_from(f"<{2 * nr_words}i", state) for state in (after_sub, after_add)]
    cc_op = 4 * _only(
        [i for i in range(2 * nr_words) if tuple(o[i] for o in operations) == (CC_OP_SUBL, CC_OP_ADDL)], "cc_op"
    )
    found = StateLayout(
        header_bytes=header_bytes,
        state_bytes=len(saved),
        rip=place_of("rip"),
        rflags=place_of("rflags"),
        cs=fs_base - 8 - 3 * segment_bytes,
        ss=fs_base - 8 - 2 * segment_bytes,
        fs_base=fs_base,
        gs_base=gs_base,
        cr2=cr2,
        cr3=cr3,
        error_code=error_code,
        is_int=is_int,
        old_exception=old_exception,
        cc_src=cc_src,
        cc_op=cc_op,
    )
    selectors = [struct.unpack_from("<I", seen[-1][1], place)[0] for place in (found.cs, found.ss)]
    if selectors != [layout.USER_CS, layout.USER_DS]:
        raise EngineError(f"the engine did not enter ring 3 (CS, SS = {selectors}); {ADVICE}")
    return found
