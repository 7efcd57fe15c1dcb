"""One instruction as text, by capstone.  The only module that imports capstone, and only when first asked.

Intel syntax, as ``objdump -M intel`` and the processor manuals write it; a rip-relative operand is followed by the
address it means, as objdump does it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

MAX_INSN_BYTES = 15
"""The longest x86 instruction."""

_RIP_RELATIVE = re.compile(r"\[rip (?P<sign>[+-]) (?P<offset>0x[0-9a-f]+|\d+)\]")


@lru_cache(maxsize=1)
def _engine() -> Any:
    import capstone

    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


@lru_cache(maxsize=65_536)
def disassemble(code: bytes, address: int) -> str | None:
    """The first instruction of ``code``, which lies at ``address``; None when the bytes are no instruction."""
    for _, size, mnemonic, operands in _engine().disasm_lite(code, address, 1):
        text = f"{mnemonic} {operands}".rstrip()
        match = _RIP_RELATIVE.search(text)
        if match:
            offset = int(match["offset"], 0)
            target = address + size + (offset if match["sign"] == "+" else -offset)
            text += f"  # {target:#x}"
        return text
    return None


def instruction_lengths(code: bytes) -> list[int]:
    """The lengths of the instructions that ``code`` consists of; what is none, at the end, counts as one."""
    lengths = [size for _, size, _, _ in _engine().disasm_lite(code, 0)]
    rest = len(code) - sum(lengths)
    return [*lengths, rest] if rest else lengths


@lru_cache(maxsize=1)
def _detail_engine() -> Any:
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    return engine


@lru_cache(maxsize=4096)
def with_operands(code: bytes) -> Any:
    """capstone's own record of the first instruction of ``code``, operands included; None: it is none."""
    return next(iter(_detail_engine().disasm(code, 0, 1)), None)
