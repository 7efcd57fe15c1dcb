"""Structures of processes, signals, limits and time, as strace prints them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from emu.trace.layout import fields, pair, plain, read_int, read_u64
from emu.trace.peek import peek_exactly
from emu.trace.quote import flags_text, pointer, quote
from kernel.abi.clone import CloneFlags
from kernel.abi.signal import SIGCHLD, SigactionFlags, si_code_name, signal_name

if TYPE_CHECKING:
    from kernel.mm.types import MmStruct

_RLIM_INFINITY = (1 << 64) - 1
timespec = plain("tv_sec tv_nsec", "<qq")
timeval = plain("tv_sec tv_usec", "<qq")
tms = plain("tms_utime tms_stime tms_cutime tms_cstime", "<qqqq")
timezone = plain("tz_minuteswest tz_dsttime", "<ii")
itimerval = pair("it_interval", "it_value", timeval)
itimerspec = pair("it_interval", "it_value", timespec)


def signal_set_text(mask: int) -> str:
    """``[INT CHLD]``; ``~[...]`` when most are set."""
    inverted = mask.bit_count() * 3 > 64 * 2
    if inverted:
        mask ^= (1 << 64) - 1
    names = [_short_signal(sig) for sig in range(1, 65) if mask >> (sig - 1) & 1]
    return f"{'~' if inverted else ''}[{' '.join(names)}]"


def _short_signal(sig: int) -> str:
    name = signal_name(sig).removeprefix("SIG")
    return "RTMIN" if name == "RT_0" else name


def sigset(mm: MmStruct | None, address: int) -> str | None:
    values = read_u64(mm, address)
    return None if values is None else signal_set_text(values[0])


_read_sigaction = fields("<QQQQ")


def sigaction(mm: MmStruct | None, address: int) -> str | None:
    values = _read_sigaction(mm, address)
    if values is None:
        return None
    handler, flags, restorer, mask = values
    handler_text = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler) or f"{handler:#x}"
    text = (
        f"sa_handler={handler_text}, sa_mask={signal_set_text(mask)}, "
        f"sa_flags={flags_text(SigactionFlags, flags & 0xFFFFFFFF)}"
    )
    if flags & SigactionFlags.SA_RESTORER:
        text += f", sa_restorer={pointer(restorer)}"
    return f"{{{text}}}"


_read_stack = fields("<QiIQ")


def stack_t(mm: MmStruct | None, address: int) -> str | None:
    values = _read_stack(mm, address)
    if values is None:
        return None
    names = [
        name for bit, name in ((1, "SS_ONSTACK"), (2, "SS_DISABLE"), (1 << 31, "SS_AUTODISARM")) if values[1] & bit
    ]
    return f"{{ss_sp={pointer(values[0])}, ss_flags={'|'.join(names) or 0}, ss_size={values[3]}}}"


_FAULT_SIGNALS = ("SIGILL", "SIGFPE", "SIGSEGV", "SIGBUS", "SIGTRAP")


def siginfo_text(signo: int, code: int, data: bytes) -> str:
    """``{si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL}`` from the 128 bytes of a siginfo_t."""
    name = signal_name(signo)
    text = f"si_signo={name}, si_code={si_code_name(signo, code)}"
    if 0 < code < 0x80 and name in _FAULT_SIGNALS:
        text += f", si_addr={pointer(struct.unpack_from('<Q', data, 16)[0])}"
    elif 0 < code < 0x80 and signo == SIGCHLD:
        pid, uid, status = struct.unpack_from("<iIi", data, 16)
        utime, stime = struct.unpack_from("<qq", data, 32)
        shown = status if code == 1 else signal_name(status & 0x7F)
        text += f", si_pid={pid}, si_uid={uid}, si_status={shown}, si_utime={utime}, si_stime={stime}"
    elif code == -2:
        timer, overrun, value = struct.unpack_from("<iiQ", data, 16)
        text += f", si_timerid={timer:#x}, si_overrun={overrun}, si_int={value & 0xFFFFFFFF}, si_ptr={pointer(value)}"
    elif code <= 0:
        pid, uid = struct.unpack_from("<iI", data, 16)
        text += f", si_pid={pid}, si_uid={uid}"
    return f"{{{text}}}"


def siginfo(mm: MmStruct | None, address: int) -> str | None:
    data = peek_exactly(mm, address, 128)
    if data is None:
        return None
    signo, _errno, code = struct.unpack_from("<iii", data)
    return siginfo_text(signo, code, data) if signo else "{}"


_read_rlimit = fields("<QQ")


def _limit_text(value: int) -> str:
    if value == _RLIM_INFINITY:
        return "RLIM64_INFINITY"
    return f"{value // 1024}*1024" if value > 1024 and value % 1024 == 0 else str(value)


def rlimit(mm: MmStruct | None, address: int) -> str | None:
    values = _read_rlimit(mm, address)
    return None if values is None else f"{{rlim_cur={_limit_text(values[0])}, rlim_max={_limit_text(values[1])}}}"


def rusage(mm: MmStruct | None, address: int) -> str | None:
    utime, stime = timeval(mm, address), timeval(mm, address + 16)
    return None if utime is None or stime is None else f"{{ru_utime={utime}, ru_stime={stime}, ...}}"


def utsname(mm: MmStruct | None, address: int) -> str | None:
    data = peek_exactly(mm, address, 390)
    if data is None:
        return None
    sysname, nodename = (data[at : at + 65].split(b"\0", 1)[0] for at in (0, 65))
    return f"{{sysname={quote(sysname)}, nodename={quote(nodename)}, ...}}"


_read_sysinfo = fields("<qQQQQQQQQQHxxxxxxQQI4x")


def sysinfo(mm: MmStruct | None, address: int) -> str | None:
    values = _read_sysinfo(mm, address)
    if values is None:
        return None
    names = "totalram freeram sharedram bufferram totalswap freeswap procs totalhigh freehigh mem_unit".split()
    rest = ", ".join(f"{name}={value}" for name, value in zip(names, values[4:], strict=True))
    return f"{{uptime={values[0]}, loads=[{values[1]}, {values[2]}, {values[3]}], {rest}}}"


def clone_args(mm: MmStruct | None, address: int) -> str | None:
    values = fields("<8Q")(mm, address)
    if values is None:
        return None
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls = values
    parts = [f"flags={flags_text(CloneFlags, flags)}"]
    if flags & CloneFlags.CLONE_PIDFD:
        parts.append(f"pidfd={pointer(pidfd)}")
    if flags & (CloneFlags.CLONE_CHILD_SETTID | CloneFlags.CLONE_CHILD_CLEARTID):
        parts.append(f"child_tid={pointer(child_tid)}")
    if flags & CloneFlags.CLONE_PARENT_SETTID:
        parts.append(f"parent_tid={pointer(parent_tid)}")
    parts.append(f"exit_signal={signal_name(exit_signal) if exit_signal else 0}")
    parts += [f"stack={pointer(stack)}", f"stack_size={stack_size:#x}" if stack_size else "stack_size=0"]
    if flags & CloneFlags.CLONE_SETTLS:
        parts.append(f"tls={pointer(tls)}")
    return f"{{{', '.join(parts)}}}"


_read_sigevent = fields("<Qiii")
_NOTIFY = ("SIGEV_SIGNAL", "SIGEV_NONE", "SIGEV_THREAD", "3", "SIGEV_THREAD_ID")


def sigevent(mm: MmStruct | None, address: int) -> str | None:
    values = _read_sigevent(mm, address)
    if values is None:
        return None
    value, signo, notify, tid = values
    text = f"sigev_value={{sival_int={value & 0xFFFFFFFF}, sival_ptr={pointer(value)}}}, "
    text += f"sigev_signo={signal_name(signo) if signo else 0}, "
    text += f"sigev_notify={_NOTIFY[notify] if 0 <= notify < len(_NOTIFY) else notify}"
    return f"{{{text}{f', sigev_notify_thread_id={tid}' if notify == 4 else ''}}}"


def wait_status(mm: MmStruct | None, address: int) -> str | None:
    """``[{WIFEXITED(s) && WEXITSTATUS(s) == 0}]``."""
    values = read_int(mm, address)
    if values is None:
        return None
    status = values[0] & 0xFFFFFFFF
    if status == 0xFFFF:
        text = "WIFCONTINUED(s)"
    elif status & 0xFF == 0x7F:
        text = f"WIFSTOPPED(s) && WSTOPSIG(s) == {signal_name(status >> 8 & 0xFF)}"
    elif status & 0x7F:
        core = " && WCOREDUMP(s)" if status & 0x80 else ""
        text = f"WIFSIGNALED(s) && WTERMSIG(s) == {signal_name(status & 0x7F)}{core}"
    else:
        text = f"WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}"
    return f"[{{{text}}}]"
