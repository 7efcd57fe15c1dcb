"""Arguments of calls on processes, time and memory whose meaning depends on other arguments."""

from __future__ import annotations

from emu.trace import layout, structs_tasks
from emu.trace.calls import Call, signal_text
from emu.trace.peek import peek, peek_exactly
from emu.trace.quote import flags_text, pointer, quote_hex
from kernel.abi.clone import CSIGNAL, CloneFlags
from kernel.abi.sched import MembarrierCmd
from kernel.hardware import Reg


def argv(call: Call, value: int) -> str:
    return layout.string_array(call.mm, value)


def envp(call: Call, value: int) -> str:
    if not value:
        return "NULL"
    count = layout.count_pointers(call.mm, value)
    return pointer(value) if count is None else f"{value:#x} /* {count} var{'' if count == 1 else 's'} */"


def random_bytes(call: Call, value: int) -> str:
    if call.failed or not call.ret:
        return pointer(value)
    data = peek(call.mm, value, min(call.ret, 32))
    return quote_hex(data, ellipsis=call.ret > 32)


def residency(call: Call, value: int) -> str:
    """mincore's vector."""
    nr_pages = (call.args[1] + 4095) >> 12
    data = None if call.failed else peek_exactly(call.mm, value, min(nr_pages, 32))
    if data is None:
        return pointer(value)
    return f"[{', '.join(str(byte & 1) for byte in data)}{', ...' if nr_pages > 32 else ''}]"


_CLONE_TID = CloneFlags.CLONE_CHILD_SETTID | CloneFlags.CLONE_CHILD_CLEARTID


def clone(call: Call) -> list[str]:
    """strace's order is not that of the registers, and each argument has its name."""
    flags, stack, parent_tid, child_tid, tls = call.args[:5]
    signal = flags & CSIGNAL
    names = flags_text(CloneFlags, flags & ~CSIGNAL & 0xFFFFFFFF) if flags & ~CSIGNAL else ""
    shown = "|".join(filter(None, [names, signal_text(signal) if signal else ""])) or "0"
    parts = [f"child_stack={pointer(stack)}", f"flags={shown}"]
    if flags & CloneFlags.CLONE_PARENT_SETTID:
        text = None if call.failed else layout.int_at(call.mm, parent_tid)
        parts.append(f"parent_tid={text or pointer(parent_tid)}")
    if flags & CloneFlags.CLONE_SETTLS:
        parts.append(f"tls={pointer(tls)}")
    if flags & _CLONE_TID:
        parts.append(f"child_tidptr={pointer(child_tid)}")
    return parts


def wait_rusage(call: Call, value: int) -> str:
    text = structs_tasks.rusage(call.mm, value) if value and call.ret and not call.failed else None
    return text or pointer(value)


def saved_mask(call: Call) -> list[str]:
    """rt_sigreturn has no arguments; the stack holds the frame."""
    stack = call.task.regs.read(Reg.RSP)
    return [f"{{mask={structs_tasks.sigset(call.mm, stack + 296) or '?'}}}"]


def sleep_rest(call: Call, value: int) -> str:
    """The time left is written only when a signal ends the sleep."""
    text = structs_tasks.timespec(call.mm, value) if value and call.failed and call.error not in (14, 22) else None
    return text or pointer(value)


_FUTEX_OPERATIONS = """FUTEX_WAIT FUTEX_WAKE FUTEX_FD FUTEX_REQUEUE FUTEX_CMP_REQUEUE FUTEX_WAKE_OP FUTEX_LOCK_PI
    FUTEX_UNLOCK_PI FUTEX_TRYLOCK_PI FUTEX_WAIT_BITSET FUTEX_WAKE_BITSET FUTEX_WAIT_REQUEUE_PI FUTEX_CMP_REQUEUE_PI
    FUTEX_LOCK_PI2""".split()


def futex(call: Call) -> list[str]:
    address, raw_operation, value, timeout, address2, value3 = call.args
    number = raw_operation & 0x7F
    if number >= len(_FUTEX_OPERATIONS):
        return [
            pointer(address),
            f"{raw_operation & 0xFFFFFFFF:#x} /* FUTEX_??? */",
            *(f"{v:#x}" for v in call.args[2:]),
        ]
    name = _FUTEX_OPERATIONS[number]
    operation = (
        name + ("_PRIVATE" if raw_operation & 128 else "") + ("|FUTEX_CLOCK_REALTIME" if raw_operation & 256 else "")
    )
    count, mask = str(value & 0xFFFFFFFF), f"{value3 & 0xFFFFFFFF:#x}"
    if value3 & 0xFFFFFFFF == 0xFFFFFFFF:
        mask = "FUTEX_BITSET_MATCH_ANY"
    until = (structs_tasks.timespec(call.mm, timeout) if timeout else None) or pointer(timeout)
    head = [pointer(address), operation]
    if name == "FUTEX_WAIT":
        return [*head, count, until]
    if name == "FUTEX_WAKE":
        return [*head, count]
    if name == "FUTEX_WAIT_BITSET":
        return [*head, count, until, mask]
    if name == "FUTEX_WAKE_BITSET":
        return [*head, count, mask]
    if name in ("FUTEX_LOCK_PI", "FUTEX_LOCK_PI2"):
        return [*head, until]
    if name in ("FUTEX_UNLOCK_PI", "FUTEX_TRYLOCK_PI"):
        return head
    second = [count, str(timeout & 0xFFFFFFFF), pointer(address2)]
    if name == "FUTEX_REQUEUE":
        return [*head, *second]
    return [*head, *second, f"{value3 & 0xFFFFFFFF:#x}" if name == "FUTEX_WAKE_OP" else str(value3 & 0xFFFFFFFF)]


_ARCH = {0x1001: "ARCH_SET_GS", 0x1002: "ARCH_SET_FS", 0x1003: "ARCH_GET_FS", 0x1004: "ARCH_GET_GS",
         0x1011: "ARCH_GET_CPUID", 0x1012: "ARCH_SET_CPUID", 0x3001: "ARCH_CET_STATUS"}  # fmt: skip


def arch_operation(call: Call, value: int) -> str:
    return _ARCH.get(value & 0xFFFFFFFF) or f"{value & 0xFFFFFFFF:#x} /* ARCH_??? */"


def arch_argument(call: Call, value: int) -> str:
    if call.args[0] in (0x1003, 0x1004) and not call.failed:
        return layout.pointer_at(call.mm, value) or pointer(value)
    return f"{value:#x}"


_PR_SET_VMA, _PR_SET_NAME, _PR_GET_NAME = 0x53564D41, 15, 16
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4
_DUMPABLE = ("SUID_DUMP_DISABLE", "SUID_DUMP_USER", "SUID_DUMP_ROOT")


def prctl(call: Call) -> list[str]:
    option, *rest = call.args[:5]
    first = call.texts[0] or str(option)
    if option == _PR_SET_NAME:
        return [first, layout.string_text(call.mm, rest[0], 16)]
    if option == _PR_GET_NAME:
        return [first, pointer(rest[0]) if call.failed else layout.string_text(call.mm, rest[0], 16)]
    if option == _PR_SET_VMA:
        return [first, "PR_SET_VMA_ANON_NAME", f"{rest[1]:#x}", str(rest[2]), layout.string_text(call.mm, rest[3], 80)]
    if option == 1:
        return [first, signal_text(rest[0])]
    if option == 2:
        return [first, (None if call.failed else layout.int_at(call.mm, rest[0])) or pointer(rest[0])]
    if option == _PR_SET_DUMPABLE and rest[0] < len(_DUMPABLE):
        return [first, _DUMPABLE[rest[0]]]
    if option == 38:
        return [first, *map(str, rest)]
    if option in (3, 7, 21, 27, 30):
        return [first]
    if option in (4, 8, 23, 24, 28, 29):
        return [first, str(rest[0])]
    return [first, *(f"{value:#x}" for value in rest)]


def affinity_out(call: Call, value: int) -> str:
    data = None if call.failed or not call.ret else peek_exactly(call.mm, value, call.ret)
    if data is None:
        return pointer(value)
    bits = int.from_bytes(data, "little")
    return f"[{' '.join(str(cpu) for cpu in range(bits.bit_length()) if bits >> cpu & 1)}]"


def prctl_note(call: Call) -> str:
    if call.args[0] == _PR_GET_DUMPABLE and call.ret is not None and 0 <= call.ret < len(_DUMPABLE):
        return _DUMPABLE[call.ret]
    return ""


def membarrier_result(call: Call) -> str:
    """MEMBARRIER_CMD_QUERY answers with a set of commands."""
    ret = call.ret or 0
    return f"{ret:#x} ({flags_text(MembarrierCmd, ret)})" if not call.args[0] and ret else str(ret)
