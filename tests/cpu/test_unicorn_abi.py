"""The numbers that are written down must be the package's own."""

from __future__ import annotations

import pytest
import unicorn
from unicorn import unicorn_const, x86_const

from emu.cpu import unicorn_abi as abi

NAMES = sorted(name for name in vars(abi) if name.isupper() and name not in ("PINNED_VERSION", "GPR_IDS"))


@pytest.mark.parametrize("name", NAMES)
def test_constant(name: str) -> None:
    theirs = {**vars(unicorn_const), **vars(x86_const)}
    candidates = [f"UC_{name}", f"UC_X86_{name}", f"UC_{name.removesuffix('_X86')}_X86"]
    if name.startswith("CPU_X86"):
        candidates = [f"UC_{name}"]
    assert getattr(abi, name) in [theirs[c] for c in candidates if c in theirs]


def test_order_of_general_registers() -> None:
    names = "RAX RCX RDX RBX RSP RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15".split()
    assert tuple(getattr(x86_const, f"UC_X86_REG_{name}") for name in names) == abi.GPR_IDS


def test_ctl_code() -> None:
    assert abi.ctl_code(abi.CTL_TLB_FLUSH, 0, abi.CTL_IO_WRITE) == 11 | 1 << 30


def test_pinned_version_is_the_installed_one() -> None:
    assert unicorn.uc_version()[:2] == abi.PINNED_VERSION[:2]
    assert unicorn.__version__ == ".".join(map(str, abi.PINNED_VERSION))
