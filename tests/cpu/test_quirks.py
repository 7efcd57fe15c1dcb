"""What start-up finds out about the engine, and what it says when it does not find it."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import subprocess
import sys
from typing import Any

import pytest

from emu.cpu import Cpu, EngineError, FastMemory, Sse42, Tick, engine, native, probe, quirks
from emu.cpu import unicorn_abi as abi
from kernel.hardware import Reg
from mmu.physmem import PhysMem
from tests.cpu.harness import DATA, UD2, Box


def test_import_does_not_load_unicorn() -> None:
    code = "import sys, emu.cpu; print('unicorn' in sys.modules, 'rich' in sys.modules, 'capstone' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False"] * 3


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_library", None)
    monkeypatch.setattr(abi, "PINNED_VERSION", (2, 0, 1))
    with pytest.raises(EngineError, match=r"Unicorn 2\.1\.4 is installed.*what 2\.0\.1 does.*unicorn==2\.0\.1"):
        engine.load_library()


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_library", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EngineError, match="pip install unicorn"):
        engine.load_library()


@pytest.mark.parametrize("answer", [b"", bytes(0x10000)])
def test_an_engine_whose_state_is_not_found_is_refused(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    real = probe.read_own_memory

    def blind(address: int, nr_bytes: int) -> bytes:
        return real(address, nr_bytes) if nr_bytes == probe.ENGINE_SCAN_BYTES else answer

    monkeypatch.setattr(probe, "read_own_memory", blind)
    with pytest.raises(EngineError, match=r"registers were not found.*pip install"):
        Cpu(PhysMem(64))


def test_unknown_features_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quirks, "_FEATURE_SCAN_BYTES", 8)
    with pytest.raises(EngineError, match="feature words"):
        Cpu(PhysMem(64))


def test_reading_memory_that_is_not_there() -> None:
    assert probe.read_own_memory(8, 100) == b""
    assert probe.read_own_memory((1 << 64) - 8, 100) == b""
    text = ctypes.create_string_buffer(b"here it is")
    assert probe.read_own_memory(ctypes.addressof(text), 10) == b"here it is"


def test_fast_memory_flag_that_is_not_recognised_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Cpu(PhysMem(64)).fast_memory is FastMemory.ON
    monkeypatch.setenv("PAGEWALK_FAST_MEMORY", "off")
    assert Cpu(PhysMem(64)).fast_memory is FastMemory.OFF
    assert Cpu(PhysMem(64), fast_memory=FastMemory.OFF).fast_memory is FastMemory.OFF
    real = probe.read_own_memory
    for spoil in (lambda image: image.replace(b"\xff\x0f\0\0", b"\xfe\x0f\0\0"), lambda image: image + image):
        monkeypatch.setattr(quirks, "read_own_memory", lambda address, n, spoil=spoil: spoil(real(address, n)))
        cpu = Cpu.__new__(Cpu)
        ram = PhysMem(64)
        cpu.engine = engine.Engine(ram.address, ram.size)
        assert not quirks.set_fast_memory(cpu.engine)
        cpu.engine.close()


def test_refused_executable_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise PermissionError("no executable memory here")

    monkeypatch.setattr(native.mmap, "mmap", refuse)
    assert native.make_stubs() is None
    monkeypatch.undo()
    assert mmap.PROT_EXEC
    assert native.make_stubs() is not None


def test_another_kind_of_host_has_no_stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.platform, "machine", lambda: "aarch64")
    assert native.make_stubs() is None
    cpu = Cpu(PhysMem(64))
    assert cpu.tick is Tick.KERNEL_ENTRIES
    cpu.close()


def test_page_flush_and_gauge_are_found() -> None:
    cpu = Cpu(PhysMem(64))
    assert cpu._flush_page is not None
    assert cpu._tlb is not None
    assert not cpu._tlb.wants_flush
    cpu.close()


def test_missing_page_flush_falls_back_to_the_whole_tlb() -> None:
    box = Box()
    box.cpu._flush_page = None
    regs = box.load(b"\x8b\x07" + UD2)
    regs.write(Reg.RDI, DATA)
    box.run(regs)
    box.space.set_pte(DATA, 0)
    box.cpu.flush_tlb_page(DATA)
    regs.write(Reg.RIP, regs.read(Reg.RIP) - 2)
    assert box.run(regs).vector == 14
    box.cpu.close()


def cpuid(box: Box, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    regs = box.load(b"\x0f\xa2" + UD2)
    regs.write(Reg.RAX, leaf)
    regs.write(Reg.RCX, subleaf)
    box.run(regs)
    return regs.read(Reg.RAX), regs.read(Reg.RBX), regs.read(Reg.RCX), regs.read(Reg.RDX)


def test_what_the_processor_says_it_is(box: Box) -> None:
    assert cpuid(box, 0)[1:] == (0x68747541, 0x444D4163, 0x69746E65)  # AuthenticAMD
    _, _, ecx1, edx1 = cpuid(box, 1)
    _, ebx7, ecx7, _ = cpuid(box, 7)
    _, _, _, edx8 = cpuid(box, 0x8000_0001)
    have = {"SSE3": 0, "PCLMUL": 1, "SSSE3": 9, "CX16": 13, "SSE4.1": 19, "MOVBE": 22, "POPCNT": 23, "AES": 25}
    lack = {"MONITOR": 3, "FMA": 12, "SSE4.2": 20, "XSAVE": 26, "OSXSAVE": 27, "AVX": 28, "F16C": 29, "RDRAND": 30}
    assert all(ecx1 >> bit & 1 for bit in have.values())
    assert not any(ecx1 >> bit & 1 for bit in lack.values())
    assert edx1 >> 25 & 3 == 3, "SSE and SSE2"
    assert ebx7 & 1, "FSGSBASE"
    assert not ebx7 & 1 << 9, "ERMS would make glibc copy byte by byte"
    assert not ebx7 & (1 << 5 | 1 << 16 | 1 << 18), "AVX2, AVX512F, RDSEED"
    assert not ecx7 & 1 << 22, "RDPID"
    assert edx8 >> 29 & 1, "long mode"
    assert edx8 >> 11 & 1, "syscall"


def test_sse42_can_be_offered() -> None:
    box = Box(sse42=Sse42.OFFERED)
    assert cpuid(box, 1)[2] >> 20 & 1
    regs = box.load(bytes.fromhex("f2480f38f1c1") + UD2)  # crc32 rax, rcx
    regs.write(Reg.RCX, 0x1122334455667788)
    box.run(regs)
    assert regs.read(Reg.RAX) != 0
    box.cpu.close()


def test_known_bug_without_the_cure() -> None:
    """Why old_exception is reset: without it, the second fault arrives as a double fault (unicorn issue 1883)."""
    box = Box()
    regs = box.load(b"\x8b\x07" + UD2)
    regs.write(Reg.RDI, 0x70_0000_0000)
    box.run(regs)
    box.cpu._i[box.cpu.state.old_exception // 4] = 14
    assert box.run(regs).vector == 8
    assert box.run(regs).vector == 14
    box.cpu.close()


def test_error_texts() -> None:
    cpu = Cpu(PhysMem(64))
    assert "UC_ERR_INSN_INVALID" in cpu.engine.error_text(abi.ERR_INSN_INVALID)
    cpu.close()
    cpu.close()  # twice does no harm


def test_what_an_engine_has_left_in_the_heap_does_not_confuse_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory behind the state may hold another copy of the feature words."""
    read = quirks.read_own_memory
    monkeypatch.setattr(quirks, "read_own_memory", lambda address, nr_bytes: read(address, nr_bytes // 2) * 2)
    box = Box(fast_memory=FastMemory.OFF)
    regs = box.load(bytes.fromhex("b801000000 31c9 0fa2".replace(" ", "")) + UD2)
    box.run(regs)
    assert not regs.read(Reg.RCX) & (1 << 20 | 1 << 30), "SSE4.2 and RDRAND are hidden"
    box.cpu.close()
