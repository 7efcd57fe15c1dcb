"""Everything about Unicorn 2.1.4 that is not in its manual, in one place.

1.  **The processor's state in host memory.**  Reading a register through the API costs more than a whole system call
    should.  The state (QEMU's ``CPUX86State``) is one block that ``uc_context_save`` copies: it is looked for by
    sixteen magic register values, and checked by writing through the API and reading from memory (``probe.py``).
2.  **No register shows the error code** of a page fault, or whether a vector came from ``int n``; both stand in the
    state.  Their places are found by provoking faults whose error codes are known (``probe.py``).
3.  **``old_exception`` is never cleared** (unicorn issue 1883): the second page fault arrives as a double fault, the
    third ends the run in silence.  It is set to -1 on every exception; found like the error code.
4.  **A stop is tested for after every load and store**, which is slow, and tears read-modify-write instructions when
    the stop comes from another thread.  The test is left out of code that is translated while ``no_exit_request`` is
    set (:class:`FastMemory`).
5.  **The processor model offers what is wrong or cannot be repeated:** SSE4.2's string instructions give wrong results
    (unicorn issue 1874), RDRAND and RDSEED give the host's random numbers, XSAVE would want a larger signal frame than
    fxsave's.  These feature bits are cleared where both ``cpuid`` and the decoder look: the processor does not have the
    instructions, and they raise #UD.
6.  **``in`` and ``out`` do not fault in user mode,** and a stop in their hook comes too late (``native.py``).
7.  **The host's stores into code are not noticed,** and only a present, user-accessible, executable virtual address can
    be invalidated, outside a run (``Cpu.invalidate_code``).
8.  **The TLB grows only when it is flushed** while more than 70 % full, and starts with 256 entries: random reads over
    64 MiB are ten times slower at that size.  Its counters are found by filling it (:class:`TlbGauge`).
9.  **The interface flushes the whole TLB only,** which costs more the larger it has grown.  The engine's function for
    one page is exported all the same (:func:`find_page_flush`).
10. **Read-modify-write instructions fault as reads** (``faulting.py``).
11. **``icebp`` is taken for an undefined instruction,** and a software interrupt whose gate is closed to user code for
    the exception of that number (``Cpu``).
12. **An address to stop at is looked up in the page tables** at the end of a run, which can fault: exits are switched
    on, and none is given (``engine.py``).
13. **``rcl``, ``rcr`` and ``setcc`` on memory lose the flags when they fault** (``faulting.py``).
14. **``cmpxchg8b`` and ``cmpxchg16b`` leave operands among the flags,** which would reach RFLAGS as TF, DF or AC at the
    next stop.  They are cleared at every stop and system call (``Cpu._stop``, ``native.py``).

Known and not cured: ``cmpxchg16b`` sets CF, PF, AF, SF and OF to anything; VEX.128 forms of SSE instructions execute as
SSE (CPUID does not offer AVX); misaligned ``movaps`` does not fault; a jump to a non-canonical address faults at the
target, not at the jump; a misaligned read across two pages, the first of which is absent, reports an address up to 7
bytes too low.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from enum import Enum

from emu.cpu.engine import Engine, EngineError
from emu.cpu.layout import WINDOW_VADDR
from emu.cpu.probe import ADVICE, ENGINE_SCAN_BYTES, RingProbe, StateLayout, read_own_memory


class FastMemory(Enum):
    """Whether loads and stores are translated without the test for a stop (quirk 4)."""

    ON = "on"
    OFF = "off"

    @staticmethod
    def from_environment() -> FastMemory:
        """``PAGEWALK_FAST_MEMORY=off`` rules the trick out when a result is doubted."""
        return FastMemory.OFF if os.environ.get("PAGEWALK_FAST_MEMORY") == "off" else FastMemory.ON


class Sse42(Enum):
    """Whether SSE4.2 is offered although some of its string instructions give wrong results (quirk 5)."""

    HIDDEN = "hidden"
    OFFERED = "offered"


# 4: the test for a stop after every load and store -------------------------------------------------------------------


def set_fast_memory(engine: Engine) -> bool:
    """Set ``no_exit_request``; must be done before anything is translated.  False: not found, nothing changed.

    The flag is one byte in the engine's structure.  It stands behind the page size, its mask (and twice the size
    again), two ints, the size of a context without its header, ``next_pc`` (0), and the flags ``hook_insert`` and
    ``first_tb``.
    """
    image = read_own_memory(engine.handle, ENGINE_SCAN_BYTES)
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


def hide_features(probe: RingProbe, state: StateLayout, sse42: Sse42) -> None:
    """Clear feature bits in the engine's own table, which ``cpuid`` and the decoder use.

    The table (64-bit words: leaf 1 EDX, leaf 1 ECX, leaf 7 EBX, ...) stands behind the part of the state that contexts
    copy.
    """
    _, _, ecx1, edx1 = probe.cpuid(1)
    _, ebx7, _, _ = probe.cpuid(7)
    table_address = probe.state_address + state.state_bytes
    table = read_own_memory(table_address, _FEATURE_SCAN_BYTES)
    pattern = struct.pack("<3Q", edx1, ecx1, ebx7)
    # The first place: behind it the heap may hold what an engine that is gone has left there.
    position = table.find(pattern)
    if position < 0:
        raise EngineError(
            f"the processor's feature words were not found in {len(table)} bytes; {ADVICE}",
        )
    hidden = _ECX_MONITOR | _ECX_XSAVE | _ECX_RDRAND | (_ECX_SSE42 if sse42 is Sse42.HIDDEN else 0)
    word = ctypes.c_uint64.from_address(table_address + position + 8)
    word.value &= ~hidden
    if probe.cpuid(1)[2] != ecx1 & ~hidden:
        raise EngineError(f"cpuid does not follow the processor's feature words; {ADVICE}")


# 8: the size of the TLB ---------------------------------------------------------------------------------------------

_TLB_SCAN_BYTES = 0x1000
_TLB_FIRST_ENTRIES = 256
_TLB_ENTRY_SHIFTS = (5, 6)
"""An entry of the engine's TLB has 32 or 64 bytes; its size mask is (entries - 1) << shift."""


class TlbGauge:
    """How full the engine's TLB for user mode is.  It doubles only when it is flushed while more than 70 % full."""

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


def find_tlb_gauge(probe: RingProbe) -> TlbGauge | None:
    """Find the TLB's counters, which stand before the state, by using 201 of its first 256 entries, or None."""
    start = probe.state_address - _TLB_SCAN_BYTES

    def words() -> tuple[int, ...]:
        return struct.unpack(f"<{_TLB_SCAN_BYTES // 8}Q", read_own_memory(start, _TLB_SCAN_BYTES))

    nr_pages = 200
    probe.engine.flush_tlb()
    empty = words()
    probe.touch(nr_pages)
    full = words()
    probe.engine.flush_tlb()
    grown = words()
    used = [i for i, seen in enumerate(zip(empty, full, grown, strict=True)) if seen == (0, nr_pages + 1, 0)]
    for shift in _TLB_ENTRY_SHIFTS:
        change = (_TLB_FIRST_ENTRIES - 1) << shift, (2 * _TLB_FIRST_ENTRIES - 1) << shift
        masks = [i for i, seen in enumerate(zip(full, grown, strict=True)) if seen == change]
        if len(masks) == 1 and len(used) == 1:
            return TlbGauge(start + 8 * used[0], start + 8 * masks[0], shift)
    return None


# 9: one page of the TLB -----------------------------------------------------------------------------------------------

PageFlush = Callable[[int, int], object]
"""``(processor, vaddr)``"""


def find_page_flush(probe: RingProbe, gauge: TlbGauge | None, processor: int) -> PageFlush | None:
    """The engine's own function that drops one page from the TLB.  None: not found.

    It is not part of the interface, so it is believed only after it has been seen to free exactly one entry.
    """
    try:
        function: PageFlush = probe.engine.private_function("tlb_flush_page_x86_64")
    except AttributeError:
        return None
    if gauge is None:
        return None
    nr_pages = 8
    probe.engine.flush_tlb()
    probe.touch(nr_pages)
    function(processor, WINDOW_VADDR + 3 * 4096)
    function(processor, WINDOW_VADDR + 100 * 4096)  # not in the TLB
    one_less = gauge.nr_used == nr_pages  # of nr_pages and the page of the code
    probe.engine.flush_tlb()
    return function if one_less else None
