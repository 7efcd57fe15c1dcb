"""prctl(2), arch_prctl(2), personality(2).

Models ``prctl`` of ``kernel/sys.c``, ``cap_task_prctl`` of ``security/commoncap.c``, ``do_arch_prctl_64`` of
``arch/x86/kernel/process_64.c``, ``kernel/exec_domain.c``.  Options of other architectures answer EINVAL, as on x86.
"""

from __future__ import annotations

from collections.abc import Callable

from kernel.abi.capability import (
    CAP_LAST_CAP,
    SECBIT_KEEP_CAPS,
    SECBIT_NO_CAP_AMBIENT_RAISE,
    SECURE_ALL_BITS,
    SECURE_ALL_LOCKS,
    Cap,
)
from kernel.abi.errno import Errno, KernelError
from kernel.abi.personality import PER_QUERY, Personality
from kernel.abi.prctl import (
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_IS_SET,
    PR_CAP_AMBIENT_LOWER,
    PR_CAP_AMBIENT_RAISE,
    PR_MCE_KILL_DEFAULT,
    PR_SET_VMA_ANON_NAME,
    PR_SPEC_NOT_AFFECTED,
    PR_TIMING_STATISTICAL,
    PR_TSC_ENABLE,
    ArchPrctl,
    PrctlOption,
)
from kernel.fs.uio import user_mm
from kernel.hardware import Reg
from kernel.mm.madvise import set_anon_vma_name
from kernel.mm.types import TASK_SIZE
from kernel.mm.usercopy import copy_to_user, put_user_u32, put_user_u64, strncpy_from_user
from kernel.syscalls.table import Support, ULong, syscall
from kernel.task.cred import SUID_DUMP_DISABLE, SUID_DUMP_USER, commit_creds, require
from kernel.task.task import COMM_LEN, Task

ANON_VMA_NAME_MAX_LEN = 80
_ULONG_MAX = (1 << 64) - 1

Args = tuple[int, int, int, int]


def _inval(why: str) -> KernelError:
    return KernelError(Errno.EINVAL, why)


def _no_more(*args: int) -> None:
    if any(args):
        raise _inval("unused arguments must be 0")


def _set_pdeathsig(task: Task, args: Args) -> int:
    if not 0 <= args[0] <= 64:
        raise _inval("no such signal")
    task.pdeath_signal = args[0]
    return 0


def _get_pdeathsig(task: Task, args: Args) -> int:
    put_user_u32(user_mm(task), args[0], task.pdeath_signal)
    return 0


def _get_dumpable(task: Task, args: Args) -> int:
    return user_mm(task).dumpable


def _set_dumpable(task: Task, args: Args) -> int:
    if args[0] not in (SUID_DUMP_DISABLE, SUID_DUMP_USER):
        raise _inval("neither 0 nor 1")
    user_mm(task).dumpable = args[0]
    return 0


def _get_keepcaps(task: Task, args: Args) -> int:
    return int(task.creds.securebits & SECBIT_KEEP_CAPS != 0)


def _set_keepcaps(task: Task, args: Args) -> int:
    if args[0] > 1:
        raise _inval("neither 0 nor 1")
    if task.creds.securebits & SECBIT_KEEP_CAPS << 1:
        raise KernelError(Errno.EPERM, "SECBIT_KEEP_CAPS_LOCKED")
    new = task.creds.copy()
    new.securebits = new.securebits & ~SECBIT_KEEP_CAPS | (SECBIT_KEEP_CAPS if args[0] else 0)
    commit_creds(task, new)
    return 0


def _get_timing(task: Task, args: Args) -> int:
    return PR_TIMING_STATISTICAL


def _set_timing(task: Task, args: Args) -> int:
    if args[0] != PR_TIMING_STATISTICAL:
        raise _inval("only PR_TIMING_STATISTICAL")
    return 0


def _set_name(task: Task, args: Args) -> int:
    task.comm = strncpy_from_user(user_mm(task), args[0], COMM_LEN - 1).decode("latin-1")
    return 0


def _get_name(task: Task, args: Args) -> int:
    copy_to_user(user_mm(task), args[0], task.comm.encode("latin-1")[: COMM_LEN - 1].ljust(COMM_LEN, b"\0"))
    return 0


def _get_seccomp(task: Task, args: Args) -> int:
    return 0


def _capbset_read(task: Task, args: Args) -> int:
    if args[0] > CAP_LAST_CAP:
        raise _inval("no such capability")
    return task.creds.cap_bset >> args[0] & 1


def _capbset_drop(task: Task, args: Args) -> int:
    require(task, Cap.CAP_SETPCAP)
    if args[0] > CAP_LAST_CAP:
        raise _inval("no such capability")
    new = task.creds.copy()
    new.cap_bset &= ~(1 << args[0])
    commit_creds(task, new)
    return 0


def _get_tsc(task: Task, args: Args) -> int:
    put_user_u32(user_mm(task), args[0], PR_TSC_ENABLE)
    return 0


def _set_tsc(task: Task, args: Args) -> int:
    if args[0] != PR_TSC_ENABLE:
        raise _inval("rdtsc cannot be forbidden")
    return 0


def _get_securebits(task: Task, args: Args) -> int:
    return task.creds.securebits


def _set_securebits(task: Task, args: Args) -> int:
    old, bits = task.creds, args[0]
    locked = (old.securebits & SECURE_ALL_LOCKS) >> 1
    if (
        locked & (old.securebits ^ bits)
        or old.securebits & SECURE_ALL_LOCKS & ~bits
        or bits & ~(SECURE_ALL_BITS | SECURE_ALL_LOCKS)
    ):
        raise KernelError(Errno.EPERM, "a locked or unknown bit")
    require(task, Cap.CAP_SETPCAP)
    new = old.copy()
    new.securebits = bits
    commit_creds(task, new)
    return 0


def _set_timerslack(task: Task, args: Args) -> int:
    slack = args[0] - (1 << 64) if args[0] >> 63 else args[0]
    task.timer_slack_ns = slack if slack > 0 else task.default_timer_slack_ns
    return 0


def _get_timerslack(task: Task, args: Args) -> int:
    return min(task.timer_slack_ns, _ULONG_MAX >> 1)


def _perf_events(task: Task, args: Args) -> int:
    return 0


def _mce_kill(task: Task, args: Args) -> int:
    _no_more(*args[2:])
    if args[0] not in (0, 1) or (args[0] == 1 and args[1] > 2) or (args[0] == 0 and args[1]):
        raise _inval("unknown machine-check policy")
    return 0


def _mce_kill_get(task: Task, args: Args) -> int:
    _no_more(*args)
    return PR_MCE_KILL_DEFAULT


def _set_child_subreaper(task: Task, args: Args) -> int:
    signal = task.signal
    signal.is_child_subreaper = args[0] != 0
    if args[0]:
        _propagate_subreaper(task)
    return 0


def _propagate_subreaper(task: Task) -> None:
    """All descendants learn that there is a subreaper above them."""
    todo = [child for thread in task.signal.threads for child in thread.children]
    while todo:
        child = todo.pop()
        if not child.signal.has_child_subreaper:
            child.signal.has_child_subreaper = True
            todo.extend(grandchild for thread in child.signal.threads for grandchild in thread.children)


def _get_child_subreaper(task: Task, args: Args) -> int:
    put_user_u32(user_mm(task), args[0], int(task.signal.is_child_subreaper))
    return 0


def _set_no_new_privs(task: Task, args: Args) -> int:
    if args != (1, 0, 0, 0):
        raise _inval("only 1, 0, 0, 0")
    task.no_new_privs = True
    return 0


def _get_no_new_privs(task: Task, args: Args) -> int:
    _no_more(*args)
    return int(task.no_new_privs)


def _get_tid_address(task: Task, args: Args) -> int:
    put_user_u64(user_mm(task), args[0], task.clear_child_tid)
    return 0


def _set_thp_disable(task: Task, args: Args) -> int:
    _no_more(*args[1:])
    task.thp_disable = args[0] != 0
    return 0


def _get_thp_disable(task: Task, args: Args) -> int:
    _no_more(*args)
    return int(task.thp_disable)


def _cap_ambient(task: Task, args: Args) -> int:
    operation, cap = args[0], args[1]
    _no_more(*args[2:])
    old = task.creds
    if operation == PR_CAP_AMBIENT_CLEAR_ALL:
        _no_more(cap)
        new = old.copy()
        new.cap_ambient = 0
        commit_creds(task, new)
        return 0
    if cap > CAP_LAST_CAP:
        raise _inval("no such capability")
    if operation == PR_CAP_AMBIENT_IS_SET:
        return old.cap_ambient >> cap & 1
    if operation not in (PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_LOWER):
        raise _inval("unknown operation")
    new = old.copy()
    if operation == PR_CAP_AMBIENT_RAISE:
        if not old.cap_permitted & old.cap_inheritable & 1 << cap or old.securebits & SECBIT_NO_CAP_AMBIENT_RAISE:
            raise KernelError(Errno.EPERM, "not both permitted and inheritable")
        new.cap_ambient |= 1 << cap
    else:
        new.cap_ambient &= ~(1 << cap)
    commit_creds(task, new)
    return 0


def _get_speculation_ctrl(task: Task, args: Args) -> int:
    _no_more(*args[1:])
    if args[0] > 2:
        raise KernelError(Errno.ENODEV, "unknown misfeature")
    return PR_SPEC_NOT_AFFECTED


def _set_speculation_ctrl(task: Task, args: Args) -> int:
    _no_more(*args[2:])
    if args[0] > 2:
        raise KernelError(Errno.ENODEV, "unknown misfeature")
    raise KernelError(Errno.ENXIO, "the processor is not affected")


def _set_io_flusher(task: Task, args: Args) -> int:
    require(task, Cap.CAP_SYS_RESOURCE)
    _no_more(*args[1:])
    if args[0] > 1:
        raise _inval("neither 0 nor 1")
    task.io_flusher = args[0] == 1
    return 0


def _get_io_flusher(task: Task, args: Args) -> int:
    require(task, Cap.CAP_SYS_RESOURCE)
    _no_more(*args)
    return int(task.io_flusher)


def _get_mdwe(task: Task, args: Args) -> int:
    _no_more(*args)
    return 0


def _get_auxv(task: Task, args: Args) -> int:
    _no_more(*args[2:])
    auxv = user_mm(task).saved_auxv
    copy_to_user(user_mm(task), args[0], auxv[: args[1]])
    return len(auxv)


def _set_vma(task: Task, args: Args) -> int:
    operation, address, length, name_address = args
    if operation != PR_SET_VMA_ANON_NAME:
        raise _inval("unknown attribute")
    name: str | None = None
    if name_address:
        raw = strncpy_from_user(user_mm(task), name_address, ANON_VMA_NAME_MAX_LEN)
        if len(raw) >= ANON_VMA_NAME_MAX_LEN:
            raise _inval("name longer than 79 bytes")
        if any(not 0x20 <= byte < 0x7F or byte in b"\\`$[]" for byte in raw):
            raise _inval("name with a character that is not allowed")
        name = raw.decode("ascii")
    set_anon_vma_name(user_mm(task), address, length, name)
    return 0


_OPTIONS: dict[int, Callable[[Task, Args], int]] = {
    PrctlOption.PR_SET_PDEATHSIG: _set_pdeathsig,
    PrctlOption.PR_GET_PDEATHSIG: _get_pdeathsig,
    PrctlOption.PR_GET_DUMPABLE: _get_dumpable,
    PrctlOption.PR_SET_DUMPABLE: _set_dumpable,
    PrctlOption.PR_GET_KEEPCAPS: _get_keepcaps,
    PrctlOption.PR_SET_KEEPCAPS: _set_keepcaps,
    PrctlOption.PR_GET_TIMING: _get_timing,
    PrctlOption.PR_SET_TIMING: _set_timing,
    PrctlOption.PR_SET_NAME: _set_name,
    PrctlOption.PR_GET_NAME: _get_name,
    PrctlOption.PR_GET_SECCOMP: _get_seccomp,
    PrctlOption.PR_CAPBSET_READ: _capbset_read,
    PrctlOption.PR_CAPBSET_DROP: _capbset_drop,
    PrctlOption.PR_GET_TSC: _get_tsc,
    PrctlOption.PR_SET_TSC: _set_tsc,
    PrctlOption.PR_GET_SECUREBITS: _get_securebits,
    PrctlOption.PR_SET_SECUREBITS: _set_securebits,
    PrctlOption.PR_SET_TIMERSLACK: _set_timerslack,
    PrctlOption.PR_GET_TIMERSLACK: _get_timerslack,
    PrctlOption.PR_TASK_PERF_EVENTS_DISABLE: _perf_events,
    PrctlOption.PR_TASK_PERF_EVENTS_ENABLE: _perf_events,
    PrctlOption.PR_MCE_KILL: _mce_kill,
    PrctlOption.PR_MCE_KILL_GET: _mce_kill_get,
    PrctlOption.PR_SET_CHILD_SUBREAPER: _set_child_subreaper,
    PrctlOption.PR_GET_CHILD_SUBREAPER: _get_child_subreaper,
    PrctlOption.PR_SET_NO_NEW_PRIVS: _set_no_new_privs,
    PrctlOption.PR_GET_NO_NEW_PRIVS: _get_no_new_privs,
    PrctlOption.PR_GET_TID_ADDRESS: _get_tid_address,
    PrctlOption.PR_SET_THP_DISABLE: _set_thp_disable,
    PrctlOption.PR_GET_THP_DISABLE: _get_thp_disable,
    PrctlOption.PR_CAP_AMBIENT: _cap_ambient,
    PrctlOption.PR_GET_SPECULATION_CTRL: _get_speculation_ctrl,
    PrctlOption.PR_SET_SPECULATION_CTRL: _set_speculation_ctrl,
    PrctlOption.PR_SET_IO_FLUSHER: _set_io_flusher,
    PrctlOption.PR_GET_IO_FLUSHER: _get_io_flusher,
    PrctlOption.PR_GET_MDWE: _get_mdwe,
    PrctlOption.PR_GET_AUXV: _get_auxv,
    PrctlOption.PR_SET_VMA: _set_vma,
}


@syscall(
    "prctl",
    x86_64=157,
    i386=172,
    group="process",
    support=Support.PARTIAL,
    note="EINVAL: seccomp filters, PR_SET_MM, PR_SET_MDWE, PR_SET_MEMORY_MERGE, PR_SCHED_CORE, user dispatch",
)
def sys_prctl(task: Task, option: PrctlOption, arg2: ULong, arg3: ULong, arg4: ULong, arg5: ULong) -> int:
    """Read and change properties of the process or thread."""
    serve = _OPTIONS.get(option)
    if serve is None:
        raise _inval(f"prctl option {int(option)} is not supported")
    return serve(task, (arg2, arg3, arg4, arg5))


@syscall("arch_prctl", x86_64=158, i386=384, group="process", support=Support.PARTIAL, note="no shadow stacks, no AMX")
def sys_arch_prctl(task: Task, option: ArchPrctl, arg2: ULong) -> int:
    """Read and set the bases of the FS and GS segments."""
    regs = task.regs
    if option in (ArchPrctl.ARCH_SET_FS, ArchPrctl.ARCH_SET_GS):
        if arg2 >= TASK_SIZE:
            raise KernelError(Errno.EPERM, "base is no user address")
        regs.write(Reg.FS_BASE if option == ArchPrctl.ARCH_SET_FS else Reg.GS_BASE, arg2)
        return 0
    if option in (ArchPrctl.ARCH_GET_FS, ArchPrctl.ARCH_GET_GS):
        base = regs.read(Reg.FS_BASE if option == ArchPrctl.ARCH_GET_FS else Reg.GS_BASE)
        put_user_u64(user_mm(task), arg2, base)
        return 0
    if option == ArchPrctl.ARCH_GET_CPUID:
        return 1
    if option == ArchPrctl.ARCH_SET_CPUID:
        raise KernelError(Errno.ENODEV, "cpuid cannot be made to fault")
    raise _inval(f"arch_prctl operation {int(option):#x} is not supported")


@syscall("personality", x86_64=135, i386=136, group="process")
def sys_personality(task: Task, persona: Personality) -> int:
    """Read and set the execution domain; ADDR_NO_RANDOMIZE and UNAME26 have effects."""
    old = task.personality
    if persona != PER_QUERY:
        task.personality = int(persona)
    return old
