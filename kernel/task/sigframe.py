"""The signal frame on the user's stack: built before a handler runs, read back by rt_sigreturn(2).

Models ``arch/x86/kernel/signal.c``, ``signal_64.c`` and ``arch/x86/kernel/fpu/signal.c`` for 64-bit programs:
``struct rt_sigframe`` is ``pretcode``, ``struct ucontext``, ``siginfo_t``, at a stack pointer that is 8 modulo 16;
above it, at a multiple of 64, the floating-point state; above that the red zone of 128 bytes.

Deliberate differences: the floating-point state is the 512 bytes of fxsave (a processor without XSAVE: no
UC_FP_XSTATE, no magic numbers); a return to a 32-bit code segment is refused with SIGSEGV.
"""

from __future__ import annotations

import struct

from kernel.abi.errno import Errno, KernelError
from kernel.abi.signal import (
    MINSIGSTKSZ,
    SA_ONSTACK,
    SA_RESTORER,
    SA_SIGINFO,
    SIGINFO_SIZE,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_FLAG_BITS,
    SS_ONSTACK,
    STACK_T,
    SigInfo,
)
from kernel.hardware import Reg
from kernel.mm.types import TASK_SIZE
from kernel.mm.usercopy import copy_from_user, copy_to_user
from kernel.task.task import SigAction, Task

FXSAVE_SIZE = 512
RED_ZONE = 128
USER_CS = 0x33
USER_DS = 0x2B

UC_SIGCONTEXT_SS = 2
UC_STRICT_RESTORE_SS = 4

SIGCONTEXT = struct.Struct("<18Q4H4QQ64x")
"""r8-r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags; cs, gs, fs, ss; err, trapno, oldmask, cr2; fpstate."""
_UC_HEAD = struct.Struct("<QQ")
SIGCONTEXT_OFFSET = _UC_HEAD.size + STACK_T.size
SIGMASK_OFFSET = SIGCONTEXT_OFFSET + SIGCONTEXT.size
UCONTEXT_SIZE = SIGMASK_OFFSET + 8
FRAME_SIZE = 8 + UCONTEXT_SIZE + SIGINFO_SIZE
"""440 bytes, ``sizeof(struct rt_sigframe)``."""
MAX_FRAME_SIZE = (FRAME_SIZE + 15 + FXSAVE_SIZE + 63 + 15) & ~15
"""AT_MINSIGSTKSZ: the most that a frame can take."""

_GPR_ORDER = (
    Reg.R8, Reg.R9, Reg.R10, Reg.R11, Reg.R12, Reg.R13, Reg.R14, Reg.R15, Reg.RDI, Reg.RSI, Reg.RBP, Reg.RBX,
    Reg.RDX, Reg.RAX, Reg.RCX, Reg.RSP, Reg.RIP,
)  # fmt: skip

# EFLAGS (arch/x86/include/uapi/asm/processor-flags.h)
EFLAGS_TF = 0x100
EFLAGS_DF = 0x400
EFLAGS_RF = 0x1_0000
FIX_EFLAGS = 0x4_0000 | 0x800 | 0x400 | 0x100 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1 | EFLAGS_RF
"""AC OF DF TF SF ZF AF PF CF RF: what a program may change."""

MXCSR_MASK = 0xFFFF


def fpu_init_state() -> bytes:
    """The fxsave image after ``fninit`` with the default MXCSR."""
    image = bytearray(FXSAVE_SIZE)
    struct.pack_into("<H", image, 0, 0x37F)
    struct.pack_into("<II", image, 24, 0x1F80, MXCSR_MASK)
    return bytes(image)


FPU_INIT_STATE = fpu_init_state()


# ---- the alternate stack -------------------------------------------------------------------------


def on_sig_stack_range(task: Task, sp: int) -> bool:
    """Does ``sp`` lie in the alternate stack (whose lowest address is not part of it)?"""
    return task.sas_ss_sp < sp <= task.sas_ss_sp + task.sas_ss_size


def on_sig_stack(task: Task, sp: int) -> bool:
    """on_sig_stack(): SS_AUTODISARM takes the protection of a stack in use away."""
    return not task.sas_ss_flags & SS_AUTODISARM and on_sig_stack_range(task, sp)


def sas_ss_flags(task: Task, sp: int) -> int:
    if not task.sas_ss_size:
        return SS_DISABLE
    return SS_ONSTACK if on_sig_stack(task, sp) else 0


def sas_ss_reset(task: Task) -> None:
    task.sas_ss_sp = 0
    task.sas_ss_size = 0
    task.sas_ss_flags = SS_DISABLE


def set_altstack(task: Task, ss_sp: int, ss_flags: int, ss_size: int, sp: int) -> int:
    """The setting half of do_sigaltstack(); returns 0 or an errno."""
    if on_sig_stack(task, sp):
        return int(Errno.EPERM)
    mode = ss_flags & ~SS_FLAG_BITS
    if mode not in (SS_DISABLE, SS_ONSTACK, 0):
        return int(Errno.EINVAL)
    if mode == SS_DISABLE:
        ss_sp = ss_size = 0
    elif ss_size < MINSIGSTKSZ:
        return int(Errno.ENOMEM)
    task.sas_ss_sp, task.sas_ss_size, task.sas_ss_flags = ss_sp, ss_size, ss_flags
    return 0


# ---- building ------------------------------------------------------------------------------------


def frame_place(task: Task, action: SigAction, sp: int) -> tuple[int, int] | None:
    """get_sigframe(): the addresses of frame and floating-point state; None when the stack is too small."""
    nested = on_sig_stack(task, sp)
    entering = False
    sp -= RED_ZONE
    if action.flags & SA_ONSTACK and sas_ss_flags(task, sp) == 0:
        sp = task.sas_ss_sp + task.sas_ss_size
        entering = True
    fpstate = (sp - FXSAVE_SIZE) & ~63
    frame = ((fpstate - FRAME_SIZE) & ~15) - 8
    if frame < 0 or ((nested or entering) and not on_sig_stack_range(task, frame)):
        return None
    return frame, fpstate


def setup_rt_frame(task: Task, info: SigInfo, action: SigAction, oldmask: int) -> bool:
    """Write the frame and point the registers at the handler.  False: it could not be written."""
    regs = task.regs
    values = regs.read_all()
    place = frame_place(task, action, values[Reg.RSP])
    if place is None or not action.flags & SA_RESTORER:
        return False
    frame, fpstate = place
    mm = task.mm
    assert mm is not None
    sigcontext = SIGCONTEXT.pack(
        *(values[reg] for reg in _GPR_ORDER), values[Reg.EFLAGS], USER_CS, 0, 0, USER_DS,
        task.error_code, task.trap_nr, oldmask, task.cr2, fpstate,
    )  # fmt: skip
    ucontext = (
        _UC_HEAD.pack(UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS, 0)
        + STACK_T.pack(task.sas_ss_sp, _signed32(task.sas_ss_flags), 0, task.sas_ss_size)
        + sigcontext
        + struct.pack("<Q", oldmask)
    )
    try:
        copy_to_user(mm, fpstate, regs.fp_state())
        copy_to_user(mm, frame, struct.pack("<Q", action.restorer) + ucontext)
        if action.flags & SA_SIGINFO:
            copy_to_user(mm, frame + 8 + UCONTEXT_SIZE, info.to_bytes())
    except KernelError:
        return False
    values[Reg.RDI] = info.signo
    values[Reg.RAX] = 0
    values[Reg.RSI] = frame + 8 + UCONTEXT_SIZE
    values[Reg.RDX] = frame + 8
    values[Reg.RIP] = action.handler
    values[Reg.RSP] = frame
    values[Reg.CS] = USER_CS
    values[Reg.SS] = USER_DS
    values[Reg.EFLAGS] &= ~(EFLAGS_DF | EFLAGS_RF | EFLAGS_TF)
    regs.write_all(values)
    regs.set_fp_state(FPU_INIT_STATE)
    return True


def _signed32(value: int) -> int:
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000


# ---- reading back --------------------------------------------------------------------------------


def restore_rt_frame(task: Task) -> int | None:
    """Undo what :func:`setup_rt_frame` did, from the frame that RSP says: registers, floating point, alternate stack.

    Returns the signal mask of the frame, or None when the frame is bad (the caller sends SIGSEGV).
    """
    regs = task.regs
    values = regs.read_all()
    frame = values[Reg.RSP] - 8
    mm = task.mm
    assert mm is not None
    try:
        data = copy_from_user(mm, frame + 8, UCONTEXT_SIZE)
        *gprs, eflags, cs, _gs, _fs, ss, _err, _trapno, _oldmask, _cr2, fpstate = SIGCONTEXT.unpack_from(
            data, SIGCONTEXT_OFFSET
        )
        if not _restore_fpu(task, fpstate):
            return None
    except KernelError:
        return None
    if (cs | 3) != USER_CS or (ss | 3) != USER_DS:
        return None
    for reg, value in zip(_GPR_ORDER, gprs, strict=True):
        values[reg] = value
    values[Reg.EFLAGS] = values[Reg.EFLAGS] & ~FIX_EFLAGS | eflags & FIX_EFLAGS
    values[Reg.CS] = USER_CS
    values[Reg.SS] = USER_DS
    regs.write_all(values)
    ss_sp, ss_flags, _, ss_size = STACK_T.unpack_from(data, _UC_HEAD.size)
    set_altstack(task, ss_sp, ss_flags & 0xFFFF_FFFF, ss_size, values[Reg.RSP])  # all its errors are ignored here
    (mask,) = struct.unpack_from("<Q", data, SIGMASK_OFFSET)
    return int(mask)


def _restore_fpu(task: Task, fpstate: int) -> bool:
    """fpu__restore_sig(): False when the image is not one that fxrstor takes."""
    if not fpstate:
        task.regs.set_fp_state(FPU_INIT_STATE)
        return True
    if fpstate & 15 or not 0 < fpstate <= TASK_SIZE - FXSAVE_SIZE:
        return False
    assert task.mm is not None
    image = copy_from_user(task.mm, fpstate, FXSAVE_SIZE)
    (mxcsr,) = struct.unpack_from("<I", image, 24)
    if mxcsr & ~MXCSR_MASK:
        return False
    task.regs.set_fp_state(image)
    return True
