"""Numbers of Unicorn's C interface (``unicorn.h``, ``x86.h``), as of the pinned version 2.1.4.

They are written down here, and the shared library is loaded without its Python package, because importing that
package takes longer than starting the whole machine.  ``tests/cpu/test_unicorn_abi.py`` compares every number
with the package's own constants.
"""

from __future__ import annotations

PINNED_VERSION = (2, 1, 4)

ARCH_X86 = 4
MODE_64 = 8
CPU_X86_EPYC_ROME = 37
PROT_ALL = 7

ERR_OK = 0
ERR_INSN_INVALID = 10
ERR_EXCEPTION = 21

HOOK_INTR = 1
HOOK_INSN = 2
HOOK_CODE = 4
HOOK_BLOCK = 8
HOOK_INSN_INVALID = 16384

CTL_IO_WRITE = 1
CTL_IO_READ = 2
CTL_UC_USE_EXITS = 4
CTL_CPU_MODEL = 7
CTL_TB_REMOVE_CACHE = 9
CTL_TB_FLUSH = 10
CTL_TLB_FLUSH = 11
CTL_TCG_BUFFER_SIZE = 13


def ctl_code(control: int, nr_args: int, io: int) -> int:
    """The second argument of ``uc_ctl`` (the UC_CTL macro)."""
    return control | nr_args << 26 | io << 30


INS_CPUID = 113
INS_IN = 218
INS_OUT = 500
INS_RDTSC = 608
INS_RDTSCP = 609
INS_SYSCALL = 699
INS_SYSENTER = 700

REG_CS = 11
REG_EFLAGS = 25
REG_FPSW = 31
REG_RAX = 35
REG_RBP = 36
REG_RBX = 37
REG_RCX = 38
REG_RDI = 39
REG_RDX = 40
REG_RIP = 41
REG_RSI = 43
REG_RSP = 44
REG_SS = 49
REG_CR0 = 50
REG_CR2 = 52
REG_CR3 = 53
REG_CR4 = 54
REG_R8 = 106
REG_ST0 = 114
REG_XMM0 = 122
REG_GDTR = 243
REG_TR = 245
REG_FPCW = 246
REG_FPTAG = 247
REG_MSR = 248
REG_MXCSR = 249
REG_FS_BASE = 250
REG_GS_BASE = 251
REG_RFLAGS = 253
REG_FIP = 254
REG_FDP = 256
REG_FOP = 258

GPR_IDS = (
    REG_RAX,
    REG_RCX,
    REG_RDX,
    REG_RBX,
    REG_RSP,
    REG_RBP,
    REG_RSI,
    REG_RDI,
    *range(REG_R8, REG_R8 + 8),
)
"""The general registers in the order of their machine encoding, which is also the order in the engine's state."""
