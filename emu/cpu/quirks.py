"""Everything about Unicorn 2.1.4 that is not in its manual, in one place: found by probing at start-up, never assumed.

1.  **The processor's state in host memory.**  Reading a register through the API costs more than a whole system call
    should.  The state (QEMU's ``CPUX86State``) is one block that ``uc_context_save`` copies: it is looked for by sixteen
    magic register values, and checked by writing through the API and reading from memory.
2.  **No register shows the error code** of a page fault or whether a vector came from ``int n``; both stand in the state.
    Their places are found by provoking faults whose error codes are known.
3.  **``old_exception`` is never cleared** (unicorn issue 1883): the second page fault arrives as a double fault, the third
    ends the run in silence.  It must be set to -1 on every exception; found like the error code.
4.  **A stop is tested for after every load and store**, which is slow, and tears read-modify-write instructions when the
    stop comes from elsewhere.  The test is left out of code translated while ``no_exit_request`` is set (:class:`FastMemory`).
5.  **The processor model offers what is wrong or not repeatable:** SSE4.2's string instructions give wrong results
    (unicorn issue 1874), RDRAND and RDSEED give the host's random numbers, XSAVE would want a bigger signal frame than
    fxsave's.  These feature bits are cleared in the state, where ``cpuid`` and the decoder both look: the processor does not
    have the instructions, and they raise #UD.
6.  **``in`` and ``out`` do not fault in user mode** and a stop in their hook comes too late: see :mod:`emu.cpu.native`.
7.  **Stores by the host into code are not noticed** (see ``Cpu.invalidate_code``), and only a virtual, present, user-accessible,
    executable address can be invalidated.
8.  **The TLB grows only when it is flushed** while more than 70 % full, and starts with 256 entries: random reads over 64 MiB are
    ten times slower at that size.  Its counters are found by filling it (:class:`TlbGauge`).
9.  **The interface flushes the whole TLB only**, which costs more the larger it has grown.  The function for one page is exported
    all the same (:func:`find_page_flush`).

Known and not cured: VEX.128 forms of SSE instructions execute as SSE (CPUID does not offer AVX); misaligned ``movaps`` does
not fault; a jump to a non-canonical address faults at the target, not at the jump.

Any difference from what is expected raises :class:`EngineError`: nothing is patched in an engine that we do not know.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from emu.cpu import layout
from emu.cpu import unicorn_abi as abi
from emu.cpu.engine import Engine, EngineError, IntrCallback
from mmu.paging import PF_INSTR, PF_PROT, PF_USER, PF_WRITE

_ADVICE = "this build of Unicorn is not the one that pagewalk knows: pip install --force-reinstall unicorn==2.1.4"


class FastMemory(Enum):
    """Whether loads and stores are translated without the test for a stop (quirk 4)."""

    ON = "on"
    OFF = "off"


class Sse42(Enum):
    """Whether SSE4.2 is offered although some of its string instructions give wrong results (quirk 5)."""

    HIDDEN = "hidden"
    OFFERED = "offered"


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


# 1: the state in host memory ------------------------------------------------------------------------------------


def _read_own_memory(address: int, nr_bytes: int) -> bytes:
    """Host memory, which may turn out not to be mapped (then less, or nothing, is returned)."""
    try:
        fd = os.open("/proc/self/mem", os.O_RDONLY)
    except OSError as error:
        raise EngineError(f"cannot look at the engine's state: /proc/self/mem: {error.strerror}") from error
    try:
        return os.pread(fd, nr_bytes, address)
    except (OSError, OverflowError):
        return b""
    finally:
        os.close(fd)


_ENGINE_SCAN_BYTES = 4096
_CPU_SCAN_BYTES = 0x10000
_CPU_POINTER_HINT = 0x1B8


def find_state(engine: Engine) -> tuple[int, int]:
    """The host addresses of the engine's state and of the processor object (``CPUState``) around it.

    The engine's own structure points to its processor object, which contains the state: the only place there with these
    sixteen values in a row.
    """
    magic = [0xA5C3_0000_0000_0000 | 0x0101_0101_0101 * (number + 1) for number in range(16)]
    for reg_id, value in zip(abi.GPR_IDS, magic, strict=True):
        engine.reg_write(reg_id, value)
    pattern = struct.pack("<16Q", *magic)
    words = struct.unpack(f"<{_ENGINE_SCAN_BYTES // 8}Q", _read_own_memory(engine.handle, _ENGINE_SCAN_BYTES))
    candidates = [words[_CPU_POINTER_HINT // 8], *words]
    found = processor = 0
    for pointer in candidates:
        if not 0x10000 <= pointer < 1 << 47 or pointer % 8:
            continue
        position = _read_own_memory(pointer, _CPU_SCAN_BYTES).find(pattern)
        if position >= 0:
            found, processor = pointer + position, pointer
            break
    if not found:
        raise EngineError(f"the registers were not found in the engine's memory; {_ADVICE}")
    probe = ctypes.c_uint64.from_address(found)
    engine.reg_write(abi.REG_RAX, 0x1234_5678_9ABC_DEF0)
    seen = probe.value
    probe.value = 0
    if seen != 0x1234_5678_9ABC_DEF0 or engine.reg_read(abi.REG_RAX) != 0:
        raise EngineError(f"the engine's memory does not follow its registers; {_ADVICE}")
    for reg_id in abi.GPR_IDS:
        engine.reg_write(reg_id, 0)
    return found, processor


# 2 and 3: error code, kind of exception, old_exception -------------------------------------------------------------


class RingProbe:
    """Runs the stub page's probe code in ring 3 and keeps a copy of the state at each exception.

    To be made while the engine is in ring 0 with paging on: every probe starts from there, by ``iretq``.
    """

    _UNMAPPED = 0x0000_1234_5678_9000
    ADDRESSES = (_UNMAPPED, _UNMAPPED + 8, _UNMAPPED + 16, layout.STACK_VADDR, layout.STACK_VADDR + 8)
    """What CR2 is at each of the five page faults."""

    def __init__(self, engine: Engine, kernel: layout.KernelLayout, state_address: int) -> None:
        self._engine = engine
        self._kernel = kernel
        self.state_address = state_address
        self.cr3 = kernel.boot_cr3
        self._seen: list[tuple[int, bytes]] = []
        self._context = ctypes.create_string_buffer(engine.empty_context(), engine.context_bytes)
        self._state = memoryview((ctypes.c_char * engine.context_bytes).from_address(state_address)).cast("B")
        engine.context_save(ctypes.addressof(self._context))

    def _on_interrupt(self, _engine: int, vector: int, _data: int) -> None:
        self._seen.append((vector, bytes(self._state)))
        self._engine.stop()

    def faults(self) -> list[tuple[int, bytes]]:
        """(vector, state) of: fetch, read and write of an unmapped page, read and write of a supervisor page, int3."""
        engine, kernel = self._engine, self._kernel
        hook = engine.add_hook(abi.HOOK_INTR, IntrCallback(self._on_interrupt))
        kernel.map_window([kernel.frames[layout.STUB]])
        code = layout.WINDOW_VADDR
        for rip, rbx in (
            (self.ADDRESSES[0], 0),
            (code + layout.PROBE_READ, self.ADDRESSES[1]),
            (code + layout.PROBE_WRITE, self.ADDRESSES[2]),
            (code + layout.PROBE_READ, self.ADDRESSES[3]),
            (code + layout.PROBE_WRITE, self.ADDRESSES[4]),
            (code + layout.PROBE_INT3, 0),
        ):
            self._enter(rip, rbx, 0)
        engine.delete_hook(hook)
        return self._seen

    def _enter(self, rip: int, rbx: int, rax: int) -> None:
        engine = self._engine
        engine.context_restore(ctypes.addressof(self._context))
        engine.reg_write(abi.REG_RBX, rbx)
        engine.reg_write(abi.REG_RAX, rax)
        engine.reg_write(abi.REG_RSP, self._kernel.push_user_frame(rip, 0x202, 0))
        engine.start(layout.STUB_VADDR + layout.IRETQ)

    def touch(self, nr_pages: int) -> None:
        """Read ``nr_pages`` pages of the window, after its first."""
        self._kernel.map_window([self._kernel.frames[layout.STUB]] * (nr_pages + 1))
        hook = self._engine.add_hook(abi.HOOK_INTR, IntrCallback(self._on_interrupt))
        self._enter(layout.WINDOW_VADDR + layout.PROBE_TOUCH, layout.WINDOW_VADDR + 4096, nr_pages)
        self._engine.delete_hook(hook)
        self._kernel.clear_window(nr_pages + 1)

    def cpuid(self, leaf: int) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of a leaf, subleaf 0, as the engine answers by itself."""
        hook = self._engine.add_hook(abi.HOOK_INTR, IntrCallback(self._on_interrupt))
        self._enter(layout.WINDOW_VADDR + layout.PROBE_CPUID, 0, leaf)
        self._engine.delete_hook(hook)
        rax, rcx, rdx, rbx = struct.unpack_from("<4Q", self._seen[-1][1])
        return rax & 0xFFFF_FFFF, rbx & 0xFFFF_FFFF, rcx & 0xFFFF_FFFF, rdx & 0xFFFF_FFFF


_EXPECTED_FAULTS = (
    PF_USER | PF_INSTR,
    PF_USER,
    PF_USER | PF_WRITE,
    PF_USER | PF_PROT,
    PF_USER | PF_PROT | PF_WRITE,
)


def _only(places: list[int], what: str) -> int:
    if len(places) != 1:
        raise EngineError(f"{what}: found at {len(places)} places in the engine's state; {_ADVICE}")
    return places[0]


def probe_state_layout(engine: Engine, probe: RingProbe) -> StateLayout:
    """Find every field that ``cpu.py`` uses.  Leaves the engine in ring 3, right after ``int3``."""
    context = ctypes.create_string_buffer(engine.empty_context(), engine.context_bytes)
    engine.reg_write(abi.REG_RIP, rip_magic := 0x0000_4D41_4749_4331)
    engine.reg_write(abi.REG_FS_BASE, fs_magic := 0x0000_4D41_4749_4332)
    engine.reg_write(abi.REG_GS_BASE, gs_magic := 0x0000_4D41_4749_4333)
    engine.reg_write(abi.REG_RAX, rax_magic := 0x4D41_4749_4334_4335)
    engine.reg_write(abi.REG_RCX, rcx_magic := 0x4D41_4749_4336_4337)
    engine.reg_write(abi.REG_EFLAGS, flags_magic := 0x20_0246)
    engine.context_save(ctypes.addressof(context))
    for reg_id in (abi.REG_FS_BASE, abi.REG_GS_BASE, abi.REG_RAX, abi.REG_RCX):
        engine.reg_write(reg_id, 0)
    header_bytes = context.raw.find(struct.pack("<2Q", rax_magic, rcx_magic))
    if header_bytes < 0:
        raise EngineError(f"a saved context does not hold the registers; {_ADVICE}")
    saved = context.raw[header_bytes:]
    state_bytes = len(saved)
    words = struct.unpack(f"<{state_bytes // 8}Q", saved)

    def place_of(value: int, what: str) -> int:
        return 8 * _only([index for index, word in enumerate(words) if word == value], what)

    rip, fs_base, gs_base = place_of(rip_magic, "RIP"), place_of(fs_magic, "FS base"), place_of(gs_magic, "GS base")
    rflags = place_of(flags_magic, "RFLAGS")
    segment_bytes = gs_base - fs_base  # the segments stand in the order ES CS SS DS FS GS

    pristine = struct.unpack(f"<{state_bytes // 4}i", saved)
    seen = probe.faults()
    if [vector for vector, _ in seen] != [14] * 5 + [3]:
        raise EngineError(f"probe faults ended with vectors {[vector for vector, _ in seen]}; {_ADVICE}")
    ints = [struct.unpack_from(f"<{state_bytes // 4}i", image) for _, image in seen]
    faults, int3 = ints[:5], ints[5]
    columns = range(state_bytes // 4)
    error_code = 4 * _only(
        [i for i in columns if all(f[i] == want for f, want in zip(faults, _EXPECTED_FAULTS, strict=True))], "error code"
    )
    old_exception = 4 * _only(
        [i for i in columns if pristine[i] == -1 == int3[i] and all(f[i] == 14 for f in faults)], "old_exception"
    )
    is_int = error_code + 4
    if any(f[is_int // 4] for f in faults) or int3[is_int // 4] != 1:
        raise EngineError(f"exception_is_int does not stand after the error code; {_ADVICE}")
    quads = [struct.unpack_from(f"<{state_bytes // 8}Q", image) for _, image in seen[:5]]
    cr2 = 8 * _only(
        [i for i in range(state_bytes // 8) if all(q[i] == want for q, want in zip(quads, probe.ADDRESSES, strict=True))],
        "CR2",
    )
    cr3 = cr2 + 8
    if struct.unpack_from("<Q", saved, cr3)[0] != probe.cr3:
        raise EngineError(f"CR3 does not stand after CR2; {_ADVICE}")
    found = StateLayout(
        header_bytes=header_bytes,
        state_bytes=state_bytes,
        rip=rip,
        rflags=rflags,
        cs=fs_base - 8 - 3 * segment_bytes,
        ss=fs_base - 8 - 2 * segment_bytes,
        fs_base=fs_base,
        gs_base=gs_base,
        cr2=cr2,
        cr3=cr3,
        error_code=error_code,
        is_int=is_int,
        old_exception=old_exception,
    )
    selectors = [struct.unpack_from("<I", seen[-1][1], place)[0] for place in (found.cs, found.ss)]
    if selectors != [layout.USER_CS, layout.USER_DS]:
        raise EngineError(f"the engine did not enter ring 3 (CS, SS = {selectors}); {_ADVICE}")
    return found


# 4: the test for a stop after every load and store -------------------------------------------------------------------


def set_fast_memory(engine: Engine) -> bool:
    """Set ``no_exit_request``; must be done before anything is translated.  False: not found, nothing changed.

    The flag is one byte in the engine's structure: it stands behind the page size, its mask (twice the size again), two
    ints, the size of a context without its header, ``next_pc`` (0), and the flags ``hook_insert`` and ``first_tb``.
    """
    image = _read_own_memory(engine.handle, _ENGINE_SCAN_BYTES)
    pattern = struct.pack("<IIQQ", 4096, 4095, 4096, 4096)
    position = image.find(pattern)
    if position < 0 or image.find(pattern, position + 1) >= 0:
        return False
    start = position + len(pattern)
    _, _, context_size, next_pc, hook_insert, first_tb, flag, init_done = struct.unpack_from("<iiQQ4B", image, start)
    header_bytes = engine.context_bytes - context_size
    if not 0 < header_bytes <= 64 or next_pc or hook_insert or first_tb > 1 or flag or init_done != 1:
        return False
    ctypes.c_uint8.from_address(engine.handle + start + 26).value = 1
    return True


# 5: features -----------------------------------------------------------------------------------------------------

_ECX_MONITOR, _ECX_SSE42, _ECX_XSAVE, _ECX_RDRAND = 1 << 3, 1 << 20, 1 << 26, 1 << 30
_FEATURE_SCAN_BYTES = 0x1000


def hide_features(probe: RingProbe, found: StateLayout, sse42: Sse42) -> None:
    """Clear feature bits in the engine's own table, which ``cpuid`` and the decoder use.

    The table (64-bit words: leaf 1 EDX, leaf 1 ECX, leaf 7 EBX, ...) stands behind the part of the state that contexts copy.
    """
    _, _, ecx1, edx1 = probe.cpuid(1)
    _, ebx7, _, _ = probe.cpuid(7)
    table_address = probe.state_address + found.state_bytes
    table = _read_own_memory(table_address, _FEATURE_SCAN_BYTES)
    pattern = struct.pack("<3Q", edx1, ecx1, ebx7)
    position = table.find(pattern)
    if position < 0 or table.find(pattern, position + 1) >= 0:
        raise EngineError(f"the processor's feature words were not found; {_ADVICE}")
    hidden = _ECX_MONITOR | _ECX_XSAVE | _ECX_RDRAND | (_ECX_SSE42 if sse42 is Sse42.HIDDEN else 0)
    word = ctypes.c_uint64.from_address(table_address + position + 8)
    word.value &= ~hidden
    _, _, ecx1_now, _ = probe.cpuid(1)
    if ecx1_now != ecx1 & ~hidden:
        raise EngineError(f"cpuid does not follow the processor's feature words; {_ADVICE}")


# 8: the size of the TLB ---------------------------------------------------------------------------------------------

_TLB_SCAN_BYTES = 0x1000
_TLB_FIRST_ENTRIES = 256
_TLB_ENTRY_SHIFTS = (5, 6)
"""An entry of the engine's TLB has 32 or 64 bytes; its size mask is (entries - 1) << shift."""


class TlbGauge:
    """How full the engine's TLB for user mode is.  It grows only when it is flushed while more than 70 % full."""

    __slots__ = ("_mask", "_mask_shift", "_used")

    def __init__(self, used_address: int, mask_address: int, mask_shift: int) -> None:
        self._used = _live_word(used_address)
        self._mask = _live_word(mask_address)
        self._mask_shift = mask_shift

    @property
    def nr_entries(self) -> int:
        return (self._mask[0] >> self._mask_shift) + 1

    @property
    def nr_used(self) -> int:
        return self._used[0]

    @property
    def wants_flush(self) -> bool:
        """A flush now would double the TLB."""
        return self._used[0] * 100 > 70 * ((self._mask[0] >> self._mask_shift) + 1)


def _live_word(address: int) -> memoryview:
    return memoryview(ctypes.c_uint64.from_address(address)).cast("B").cast("Q")


def find_tlb_gauge(engine: Engine, probe: RingProbe) -> TlbGauge | None:
    """Find the TLB's counters, which stand before the state, by using 201 entries of the first 256.  None: not found."""
    start = probe.state_address - _TLB_SCAN_BYTES

    def words() -> tuple[int, ...]:
        return struct.unpack(f"<{_TLB_SCAN_BYTES // 8}Q", _read_own_memory(start, _TLB_SCAN_BYTES))

    engine.flush_tlb()
    empty = words()
    probe.touch(nr_pages := 200)
    full = words()
    engine.flush_tlb()
    grown = words()
    used = [
        i for i, (e, f, g) in enumerate(zip(empty, full, grown, strict=True)) if (e, f, g) == (0, nr_pages + 1, 0)
    ]
    for shift in _TLB_ENTRY_SHIFTS:
        before, after = (_TLB_FIRST_ENTRIES - 1) << shift, (2 * _TLB_FIRST_ENTRIES - 1) << shift
        masks = [i for i, (f, g) in enumerate(zip(full, grown, strict=True)) if (f, g) == (before, after)]
        if len(masks) == 1 and len(used) == 1:
            return TlbGauge(start + 8 * used[0], start + 8 * masks[0], shift)
    return None


def find_page_flush(
    engine: Engine, probe: RingProbe, gauge: TlbGauge | None, processor: int
) -> Callable[[int, int], object] | None:
    """The engine's own function that drops one page from the TLB: ``(processor, vaddr)``.

    It is not part of the interface, so it is believed only after it has been seen to free exactly one entry.
    """
    try:
        function = engine.lib.tlb_flush_page_x86_64
    except AttributeError:
        return None
    if gauge is None:
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_uint64)
    function.restype = None
    engine.flush_tlb()
    probe.touch(nr_pages := 8)
    function(processor, layout.WINDOW_VADDR + 3 * 4096)
    function(processor, layout.WINDOW_VADDR + 100 * 4096)  # not in the TLB
    one_less = gauge.nr_used == nr_pages
    engine.flush_tlb()
    return function if one_less else None
