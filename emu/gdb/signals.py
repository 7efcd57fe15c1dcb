"""gdb's own numbers for signals (``include/gdb/signals.def``), which the protocol uses on every system."""

from __future__ import annotations

_NAMES = (
    "0 HUP INT QUIT ILL TRAP ABRT EMT FPE KILL BUS SEGV SYS PIPE ALRM TERM URG STOP TSTP CONT CHLD TTIN TTOU IO XCPU "
    "XFSZ VTALRM PROF WINCH LOST USR1 USR2 PWR"
).split()
_LINUX = (
    "0 HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
_GDB_REALTIME_33, _GDB_REALTIME_32, _GDB_REALTIME_64, _GDB_UNKNOWN = 45, 77, 78, 143

_TO_GDB = {number: _NAMES.index(name) for number, name in enumerate(_LINUX) if name in _NAMES}
_TO_GDB |= {number: _GDB_REALTIME_33 + number - 33 for number in range(33, 64)}
_TO_GDB |= {32: _GDB_REALTIME_32, 64: _GDB_REALTIME_64}
_FROM_GDB = {theirs: ours for ours, theirs in _TO_GDB.items()}


def to_gdb(signal: int) -> int:
    """gdb's number of a Linux signal."""
    return _TO_GDB.get(signal, _GDB_UNKNOWN)


def from_gdb(number: int) -> int:
    """The Linux signal of gdb's number; 0 when there is none."""
    return _FROM_GDB.get(number, 0)
