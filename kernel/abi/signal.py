"""Signals as the guest sees them: numbers, flags and structures.

Models ``include/uapi/asm-generic/siginfo.h``, ``arch/x86/include/uapi/asm/signal.h`` and ``kernel/signal.c``'s tables
of default actions (``sig_kernel_ignore`` and friends).  A signal set is a plain int: bit ``sig - 1``.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kernel.task.posix_timers import PosixTimer

_NSIG = 64
SIGRTMIN = 32
"""The kernel's first real-time signal (the C library keeps 32 and 33 for itself)."""


class Signal(IntEnum):
    """The classic signals; 32..64 are the real-time signals."""

    SIGHUP = 1
    SIGINT = 2
    SIGQUIT = 3
    SIGILL = 4
    SIGTRAP = 5
    SIGABRT = 6
    SIGBUS = 7
    SIGFPE = 8
    SIGKILL = 9
    SIGUSR1 = 10
    SIGSEGV = 11
    SIGUSR2 = 12
    SIGPIPE = 13
    SIGALRM = 14
    SIGTERM = 15
    SIGSTKFLT = 16
    SIGCHLD = 17
    SIGCONT = 18
    SIGSTOP = 19
    SIGTSTP = 20
    SIGTTIN = 21
    SIGTTOU = 22
    SIGURG = 23
    SIGXCPU = 24
    SIGXFSZ = 25
    SIGVTALRM = 26
    SIGPROF = 27
    SIGWINCH = 28
    SIGIO = 29
    SIGPWR = 30
    SIGSYS = 31


(
    SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE,
    SIGALRM, SIGTERM, SIGSTKFLT, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXCPU, SIGXFSZ,
    SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR, SIGSYS,
) = range(1, 32)  # fmt: skip


def sigmask(sig: int) -> int:
    """The set that holds only ``sig``."""
    return 1 << (sig - 1)


def sigset(*sigs: int) -> int:
    mask = 0
    for sig in sigs:
        mask |= 1 << (sig - 1)
    return mask


ALL_SIGNALS: Final = (1 << _NSIG) - 1
SIG_KERNEL_ONLY_MASK: Final = sigset(SIGKILL, SIGSTOP)
SIG_KERNEL_STOP_MASK: Final = sigset(SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU)
SIG_KERNEL_COREDUMP_MASK: Final = sigset(
    SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS, SIGXCPU, SIGXFSZ
)
SIG_KERNEL_IGNORE_MASK: Final = sigset(SIGCONT, SIGCHLD, SIGWINCH, SIGURG)
SYNCHRONOUS_MASK: Final = sigset(SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS)
"""Dequeued before all others, so that a fault's handler runs at the faulting instruction."""


class SigHow(IntEnum):
    """First argument of sigprocmask(2)."""

    SIG_BLOCK = 0
    SIG_UNBLOCK = 1
    SIG_SETMASK = 2


SIG_DFL = 0
SIG_IGN = 1


class SigactionFlags(IntFlag):
    """``sa_flags`` of sigaction(2)."""

    SA_NOCLDSTOP = 0x1
    SA_NOCLDWAIT = 0x2
    SA_SIGINFO = 0x4
    SA_UNSUPPORTED = 0x400
    SA_EXPOSE_TAGBITS = 0x800
    SA_RESTORER = 0x0400_0000
    SA_ONSTACK = 0x0800_0000
    SA_RESTART = 0x1000_0000
    SA_NODEFER = 0x4000_0000
    SA_RESETHAND = 0x8000_0000


SA_NOCLDSTOP = 0x1
SA_NOCLDWAIT = 0x2
SA_SIGINFO = 0x4
SA_UNSUPPORTED = 0x400
SA_RESTORER = 0x0400_0000
SA_ONSTACK = 0x0800_0000
SA_RESTART = 0x1000_0000
SA_NODEFER = 0x4000_0000
SA_RESETHAND = 0x8000_0000
UAPI_SA_FLAGS = (
    SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND | SA_RESTORER
)
"""The flags that survive in what sigaction(2) reads back (SA_EXPOSE_TAGBITS exists on arm64 only)."""

# si_code
SI_USER = 0
SI_KERNEL = 0x80
SI_QUEUE = -1
SI_TIMER = -2
SI_MESGQ = -3
SI_ASYNCIO = -4
SI_SIGIO = -5
SI_TKILL = -6

ILL_ILLOPC = 1
ILL_ILLOPN = 2
FPE_INTDIV = 1
FPE_INTOVF = 2
FPE_FLTDIV = 3
FPE_FLTOVF = 4
FPE_FLTUND = 5
FPE_FLTRES = 6
FPE_FLTINV = 7
SEGV_MAPERR = 1
SEGV_ACCERR = 2
SEGV_BNDERR = 3
BUS_ADRALN = 1
BUS_ADRERR = 2
TRAP_BRKPT = 1
TRAP_TRACE = 2
CLD_EXITED = 1
CLD_KILLED = 2
CLD_DUMPED = 3
CLD_TRAPPED = 4
CLD_STOPPED = 5
CLD_CONTINUED = 6
POLL_IN = 1
POLL_OUT = 2
POLL_HUP = 6

SI_CODE_NAMES: dict[int, dict[int, str]] = {
    SIGILL: {1: "ILL_ILLOPC", 2: "ILL_ILLOPN"},
    SIGFPE: {
        1: "FPE_INTDIV", 2: "FPE_INTOVF", 3: "FPE_FLTDIV", 4: "FPE_FLTOVF", 5: "FPE_FLTUND", 6: "FPE_FLTRES",
        7: "FPE_FLTINV",
    },
    SIGSEGV: {1: "SEGV_MAPERR", 2: "SEGV_ACCERR", 3: "SEGV_BNDERR"},
    SIGBUS: {1: "BUS_ADRALN", 2: "BUS_ADRERR"},
    SIGTRAP: {1: "TRAP_BRKPT", 2: "TRAP_TRACE"},
    SIGCHLD: {
        1: "CLD_EXITED", 2: "CLD_KILLED", 3: "CLD_DUMPED", 4: "CLD_TRAPPED", 5: "CLD_STOPPED", 6: "CLD_CONTINUED",
    },
}  # fmt: skip
_SI_GENERIC = {
    SI_USER: "SI_USER", SI_KERNEL: "SI_KERNEL", SI_QUEUE: "SI_QUEUE", SI_TIMER: "SI_TIMER", SI_MESGQ: "SI_MESGQ",
    SI_ASYNCIO: "SI_ASYNCIO", SI_SIGIO: "SI_SIGIO", SI_TKILL: "SI_TKILL",
}  # fmt: skip


def si_code_name(sig: int, code: int) -> str:
    """``si_code`` in words, as strace prints it."""
    return _SI_GENERIC.get(code) or SI_CODE_NAMES.get(sig, {}).get(code) or str(code)


def signal_name(sig: int) -> str:
    """``SIGSEGV``, ``SIGRT_5`` ..., as strace names it."""
    if 1 <= sig < SIGRTMIN:
        return Signal(sig).name
    if SIGRTMIN <= sig <= _NSIG:
        return f"SIGRT_{sig - SIGRTMIN}"
    return f"signal {sig}"


# Structures

SIGSET_SIZE = 8
SIGINFO_SIZE = 128
SIGACTION = struct.Struct("<QQQQ")
"""``struct kernel_sigaction``: handler, flags, restorer, mask."""
STACK_T = struct.Struct("<QiIQ")
"""``stack_t``: ss_sp, ss_flags, padding, ss_size."""
SS_ONSTACK = 1
SS_DISABLE = 2
SS_AUTODISARM = 1 << 31
SS_FLAG_BITS = SS_AUTODISARM
MINSIGSTKSZ = 2048

SIGEV_SIGNAL = 0
SIGEV_NONE = 1
SIGEV_THREAD = 2
SIGEV_THREAD_ID = 4
SIGEVENT = struct.Struct("<Qiii44x")
"""``struct sigevent``: sigev_value, sigev_signo, sigev_notify, sigev_notify_thread_id."""

_HEAD = struct.Struct("<iiii")
_KILL = struct.Struct("<iiiiiI")
_RT = struct.Struct("<iiiiiIQ")
_TIMER = struct.Struct("<iiiiiiQ")
_CHLD = struct.Struct("<iiiiiIi4xqq")
_FAULT = struct.Struct("<iiiiQ")
_POLL = struct.Struct("<iiiiqi")


class SigInfo:
    """``kernel_siginfo_t``: why a signal was sent.  The guest sees the fields that ``(signo, code)`` selects."""

    __slots__ = (
        "addr", "band", "charged_uid", "code", "errno", "fd", "overrun", "pid", "raw", "signo", "status", "stime",
        "tid", "timer", "uid", "utime", "value",
    )  # fmt: skip

    def __init__(
        self, signo: int, code: int, *, pid: int = 0, uid: int = 0, value: int = 0, addr: int = 0, errno: int = 0
    ) -> None:
        self.signo = signo
        self.errno = errno
        self.code = code
        self.pid = pid
        self.uid = uid
        self.value = value
        self.addr = addr
        self.status = 0
        self.utime = 0
        """CPU time of a child in clock ticks (1/100 s), as ``stime``."""
        self.stime = 0
        self.tid = 0
        """POSIX timer id."""
        self.overrun = 0
        self.band = 0
        self.fd = 0
        self.timer: PosixTimer | None = None
        """The POSIX timer that owns this record; re-armed when the signal is dequeued."""
        self.charged_uid = -1
        """Whose RLIMIT_SIGPENDING this record counts against; -1: nobody's."""
        self.raw: bytes | None = None
        """All 128 bytes as user space gave them (rt_sigqueueinfo)."""

    def to_bytes(self) -> bytes:
        """``siginfo_t``, 128 bytes; the layout is chosen as ``siginfo_layout()`` does."""
        if self.raw is not None:
            return self.raw
        sig, code, head = self.signo, self.code, (self.signo, self.errno, self.code, 0)
        if 0 < code < SI_KERNEL:
            if sig in (SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP):
                data = _FAULT.pack(*head, self.addr)
            elif sig == SIGCHLD:
                data = _CHLD.pack(*head, self.pid, self.uid, self.status, self.utime, self.stime)
            else:
                data = _POLL.pack(*head, self.band, self.fd)
        elif code == SI_TIMER:
            data = _TIMER.pack(*head, self.tid, self.overrun, self.value)
        elif code == SI_SIGIO:
            data = _POLL.pack(*head, self.band, self.fd)
        elif code < 0:
            data = _RT.pack(*head, self.pid, self.uid, self.value)
        else:
            data = _KILL.pack(*head, self.pid, self.uid)
        return data.ljust(SIGINFO_SIZE, b"\0")

    @classmethod
    def from_user(cls, signo: int, data: bytes) -> SigInfo:
        """A record that user space made (rt_sigqueueinfo, pidfd_send_signal); si_signo is overwritten."""
        _, errno, code, _ = _HEAD.unpack_from(data)
        info = cls(signo, code, errno=errno)
        info.pid, info.uid, info.value = struct.unpack_from("<iIQ", data, 16)
        info.raw = struct.pack("<i", signo) + data[4:SIGINFO_SIZE]
        return info

    def __repr__(self) -> str:
        name, code = signal_name(self.signo), si_code_name(self.signo, self.code)
        return f"SigInfo({name}, {code}, pid={self.pid}, addr={self.addr:#x})"
