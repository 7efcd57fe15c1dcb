"""Signal frames, sigreturn, alternate stacks and restarts, as the x86-64 ABI and sigaction(2) have them."""

from __future__ import annotations

import struct

import pytest

from kernel.abi.errno import Errno
from kernel.abi.signal import SIGSEGV, SIGUSR1, SIGUSR2, sigmask
from kernel.hardware import Reg
from kernel.task.sigframe import FRAME_SIZE, MAX_FRAME_SIZE
from kernel.task.signal import force_sig_fault
from kernel.task.task import Task
from tests.task.harness import ASLEEP, CODE, DATA, GONE, RESTORER, STACK, Sim, registers

HANDLER = 0x40_0800
SA_SIGINFO, SA_ONSTACK, SA_RESTART, SA_NODEFER, SA_RESETHAND = 4, 0x0800_0000, 0x1000_0000, 0x4000_0000, 0x8000_0000
UC = 8
MCONTEXT = UC + 40
SIGMASK = MCONTEXT + 256
INFO = SIGMASK + 8
ALT = DATA + 0x1_0000


@pytest.fixture
def sim() -> Sim:
    return Sim()


def raise_usr1(sim: Sim, flags: int = SA_SIGINFO, mask: int = 0) -> tuple[Task, object]:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER, flags, mask)
    return task, sim.call(task, "kill", task.pid, SIGUSR1)


def test_sizes() -> None:
    assert FRAME_SIZE == 440
    assert MAX_FRAME_SIZE >= FRAME_SIZE + 512 + 64


def test_the_handler_gets_its_three_arguments_and_an_aligned_stack(sim: Sim) -> None:
    task, result = raise_usr1(sim)
    regs = task.regs
    sp = regs.read(Reg.RSP)
    assert result is GONE and regs.read(Reg.RIP) == HANDLER
    assert sp % 16 == 8 and sp < STACK - 128
    assert regs.read(Reg.RDI) == SIGUSR1
    assert regs.read(Reg.RSI) == sp + INFO
    assert regs.read(Reg.RDX) == sp + UC
    assert regs.read(Reg.RAX) == 0
    assert sim.u64(task, sp) == RESTORER


def test_siginfo_says_who_sent_it(sim: Sim) -> None:
    task, _ = raise_usr1(sim)
    signo, errno, code, pid, uid = struct.unpack("<iii4xiI", sim.peek(task, task.regs.read(Reg.RSI), 24))
    assert (signo, errno, code, pid, uid) == (SIGUSR1, 0, 0, task.pid, 0)


def test_sigcontext_holds_all_registers_in_the_abis_order(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER, SA_SIGINFO)
    order = "R8 R9 R10 R11 R12 R13 R14 R15 RDI RSI RBP RBX RDX RAX RCX RSP RIP".split()
    for number, name in enumerate(order):
        if name not in ("RSP", "RIP"):
            task.regs.write(Reg[name], 0x1000 + number)
    task.regs.write(Reg.EFLAGS, 0x246)
    task.error_code, task.trap_nr, task.cr2 = 6, 14, 0xABC000
    force_sig_fault(task, SIGUSR1, 1, 0x77)
    sim.take_signals(task)
    sp = task.regs.read(Reg.RSP)
    words = struct.unpack("<17Q", sim.peek(task, sp + MCONTEXT, 17 * 8))
    for number, name in enumerate(order):
        expected = {"RSP": STACK, "RIP": CODE}.get(name, 0x1000 + number)
        assert words[number] == expected, name
    eflags, cs, _gs, _fs, ss = struct.unpack("<Q4H", sim.peek(task, sp + MCONTEXT + 136, 16))
    assert (eflags, cs, ss) == (0x246, 0x33, 0x2B)
    err, trapno, oldmask, cr2, fpstate = struct.unpack("<5Q", sim.peek(task, sp + MCONTEXT + 152, 40))
    assert (err, trapno, oldmask, cr2) == (6, 14, 0, 0xABC000)
    assert fpstate % 64 == 0 and sp + FRAME_SIZE <= fpstate <= STACK - 128 - 512


def test_uc_flags_and_stack(sim: Sim) -> None:
    task, _ = raise_usr1(sim)
    uc = task.regs.read(Reg.RDX)
    flags, link = struct.unpack("<QQ", sim.peek(task, uc, 16))
    assert (flags, link) == (6, 0)
    assert struct.unpack("<QiIQ", sim.peek(task, uc + 16, 24)) == (0, 2, 0, 0)


def test_floating_point_state_is_saved_reset_and_restored(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER)
    image = bytearray(task.regs.fp_state())
    image[160:176] = bytes(range(16))
    task.regs.set_fp_state(bytes(image))
    sim.call(task, "kill", task.pid, SIGUSR1)
    assert task.regs.fp_state()[160:176] == bytes(16)
    fpstate = sim.u64(task, task.regs.read(Reg.RSP) + MCONTEXT + 184)
    assert sim.peek(task, fpstate, 512) == bytes(image)
    sim.sigreturn(task)
    assert task.regs.fp_state() == bytes(image)


def test_sigreturn_restores_everything(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER, mask=sigmask(SIGUSR2))
    before = registers(task).read_all()
    sim.call(task, "kill", task.pid, SIGUSR1)
    assert task.blocked == sigmask(SIGUSR1) | sigmask(SIGUSR2)
    sim.sigreturn(task)
    after = registers(task).read_all()
    before[Reg.RAX] = 0  # kill's result
    before[Reg.CS], before[Reg.SS] = 0x33, 0x2B
    assert after == before
    assert task.blocked == 0


def test_the_handler_may_change_the_context(sim: Sim) -> None:
    task, _ = raise_usr1(sim)
    sp = task.regs.read(Reg.RSP)
    sim.poke(task, sp + MCONTEXT + 13 * 8, struct.pack("<Q", 0x1234))
    sim.poke(task, sp + MCONTEXT + 16 * 8, struct.pack("<Q", CODE + 0x40))
    sim.poke(task, sp + SIGMASK, struct.pack("<Q", sigmask(SIGUSR2) | sigmask(9)))
    sim.sigreturn(task)
    assert task.regs.read(Reg.RAX) == 0x1234
    assert task.regs.read(Reg.RIP) == CODE + 0x40
    assert task.blocked == sigmask(SIGUSR2)


def test_sigreturn_lets_only_user_flags_through(sim: Sim) -> None:
    task, _ = raise_usr1(sim)
    sp = task.regs.read(Reg.RSP)
    sim.poke(task, sp + MCONTEXT + 17 * 8, struct.pack("<Q", 0xFFFF_FFFF))
    sim.sigreturn(task)
    eflags = task.regs.read(Reg.EFLAGS)
    assert eflags & 0x3000 == 0 and eflags & 0x4000 == 0  # IOPL, NT
    assert eflags & 0x200 and eflags & 0x1


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (MCONTEXT + 144, struct.pack("<H", 0x10)),  # a kernel code segment becomes 0x13: not ours
        (MCONTEXT + 184, struct.pack("<Q", 0x7FFF_FFFF_0000)),  # floating-point state that is not mapped
        (MCONTEXT + 184, struct.pack("<Q", DATA + 8)),  # ... or not aligned
        (MCONTEXT + 16 * 8, struct.pack("<Q", 0x8000_0000_0000)),  # an instruction pointer that is no user address
    ],
)
def test_a_bad_frame_is_answered_with_sigsegv(sim: Sim, offset: int, value: bytes) -> None:
    task, _ = raise_usr1(sim)
    sim.poke(task, task.regs.read(Reg.RSP) + offset, value)
    sim.sigreturn(task)
    assert task.exiting and task.exit_code & 0x7F == SIGSEGV


def test_reserved_mxcsr_bits_are_refused(sim: Sim) -> None:
    task, _ = raise_usr1(sim)
    fpstate = sim.u64(task, task.regs.read(Reg.RSP) + MCONTEXT + 184)
    sim.poke(task, fpstate + 24, struct.pack("<I", 0x8000_1F80))
    sim.sigreturn(task)
    assert task.exit_code & 0x7F == SIGSEGV


def test_no_floating_point_pointer_means_initial_state(sim: Sim) -> None:
    task, _ = raise_usr1(sim)
    sim.poke(task, task.regs.read(Reg.RSP) + MCONTEXT + 184, bytes(8))
    sim.sigreturn(task)
    assert not task.exiting


def test_nodefer_and_resethand(sim: Sim) -> None:
    task, _ = raise_usr1(sim, SA_NODEFER | SA_RESETHAND)
    assert task.blocked == 0
    assert task.sighand.action[SIGUSR1 - 1].handler == 0


def test_without_restorer_or_stack_the_process_dies(sim: Sim) -> None:
    task = sim.process()
    sim.poke(task, DATA, struct.pack("<QQQQ", HANDLER, 0, 0, 0))
    sim.call(task, "rt_sigaction", SIGUSR1, DATA, 0, 8)
    sim.call(task, "kill", task.pid, SIGUSR1)
    assert task.exit_code & 0x7F == SIGSEGV
    other = sim.process()
    sim.handle(other, SIGUSR1, HANDLER)
    other.regs.write(Reg.RSP, 0x10)
    sim.call(other, "kill", other.pid, SIGUSR1)
    assert other.exit_code & 0x7F == SIGSEGV


def test_a_handler_outside_user_memory_kills(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, 0xFFFF_8000_0000_0000)
    sim.call(task, "kill", task.pid, SIGUSR1)
    assert task.exit_code & 0x7F == SIGSEGV


# ---- the alternate stack -------------------------------------------------------------------------


def set_altstack(sim: Sim, task: Task, sp: int = ALT, flags: int = 0, size: int = 0x4000) -> int:
    sim.poke(task, DATA, struct.pack("<QiIQ", sp, flags, 0, size))
    return int(sim.call(task, "sigaltstack", DATA, 0))


def get_altstack(sim: Sim, task: Task) -> tuple[int, int, int]:
    assert sim.call(task, "sigaltstack", 0, DATA + 64) == 0
    sp, flags, _, size = struct.unpack("<QiIQ", sim.peek(task, DATA + 64, 24))
    return sp, flags, size


def test_sigaltstack_reads_writes_and_refuses(sim: Sim) -> None:
    task = sim.process()
    assert get_altstack(sim, task) == (0, 2, 0)
    assert set_altstack(sim, task) == 0
    assert get_altstack(sim, task) == (ALT, 0, 0x4000)
    assert set_altstack(sim, task, size=2047) == -Errno.ENOMEM
    assert set_altstack(sim, task, flags=8) == -Errno.EINVAL
    assert set_altstack(sim, task, flags=2) == 0
    assert get_altstack(sim, task) == (0, 2, 0)


def test_onstack_switches_and_nests(sim: Sim) -> None:
    task = sim.process()
    set_altstack(sim, task)
    sim.handle(task, SIGUSR1, HANDLER, SA_ONSTACK)
    sim.handle(task, SIGUSR2, HANDLER, SA_ONSTACK)
    sim.call(task, "kill", task.pid, SIGUSR1)
    first = task.regs.read(Reg.RSP)
    assert ALT < first < ALT + 0x4000
    assert get_altstack(sim, task) == (ALT, 1, 0x4000)
    assert set_altstack(sim, task) == -Errno.EPERM
    task.regs.write(Reg.RIP, CODE)
    sim.call(task, "kill", task.pid, SIGUSR2)
    assert ALT < task.regs.read(Reg.RSP) < first - 128
    sim.sigreturn(task)
    assert task.regs.read(Reg.RSP) == first


def test_an_alternate_stack_that_is_full_kills(sim: Sim) -> None:
    task = sim.process()
    set_altstack(sim, task, size=2048)
    sim.handle(task, SIGUSR1, HANDLER, SA_ONSTACK | SA_NODEFER)
    sim.call(task, "kill", task.pid, SIGUSR1)
    task.regs.write(Reg.RIP, CODE)
    sim.call(task, "kill", task.pid, SIGUSR1)
    assert task.exit_code & 0x7F == SIGSEGV


def test_autodisarm(sim: Sim) -> None:
    task = sim.process()
    assert set_altstack(sim, task, flags=-(1 << 31)) == 0
    assert get_altstack(sim, task) == (ALT, -(1 << 31), 0x4000)
    sim.handle(task, SIGUSR1, HANDLER, SA_ONSTACK)
    sim.call(task, "kill", task.pid, SIGUSR1)
    assert ALT < task.regs.read(Reg.RSP) < ALT + 0x4000
    assert get_altstack(sim, task) == (0, 2, 0)
    sim.sigreturn(task)
    assert get_altstack(sim, task) == (ALT, -(1 << 31), 0x4000)


# ---- restarting ----------------------------------------------------------------------------------


def interrupted_read(sim: Sim, flags: int) -> Task:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER, flags)
    assert sim.call(task, "pipe", DATA + 512) == 0
    fd = sim.u32(task, DATA + 512)
    assert sim.call(task, "read", fd, DATA, 1) is ASLEEP
    sender = sim.process()
    sim.call(sender, "kill", task.pid, SIGUSR1)
    sim.settle()
    assert task.regs.read(Reg.RIP) == HANDLER
    return task


def test_sa_restart_restarts_a_read(sim: Sim) -> None:
    task = interrupted_read(sim, SA_RESTART)
    sim.sigreturn(task)
    assert task.regs.read(Reg.RIP) == CODE - 2
    assert task.regs.read(Reg.RAX) == 0


def test_without_sa_restart_a_read_ends_with_eintr(sim: Sim) -> None:
    task = interrupted_read(sim, 0)
    sim.sigreturn(task)
    assert task.regs.read(Reg.RIP) == CODE
    assert sim.result(task) == -Errno.EINTR


def test_pause_and_sigsuspend_are_never_restarted_after_a_handler(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER, SA_RESTART)
    assert sim.call(task, "pause") is ASLEEP
    sim.call(sim.process(), "kill", task.pid, SIGUSR1)
    sim.settle()
    sim.sigreturn(task)
    assert task.regs.read(Reg.RIP) == CODE and sim.result(task) == -Errno.EINTR


def test_sigsuspend_runs_the_handler_with_the_temporary_mask_and_returns_with_the_old_one(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER)
    sim.block(task, sigmask(SIGUSR1))
    sim.poke(task, DATA, struct.pack("<Q", sigmask(SIGUSR2)))
    assert sim.call(task, "rt_sigsuspend", DATA, 8) is ASLEEP
    sim.call(sim.process(), "kill", task.pid, SIGUSR1)
    sim.settle()
    assert task.regs.read(Reg.RIP) == HANDLER
    assert task.blocked == sigmask(SIGUSR1) | sigmask(SIGUSR2)
    sim.sigreturn(task)
    assert task.blocked == sigmask(SIGUSR1) and sim.result(task) == -Errno.EINTR


def test_sigsuspend_takes_what_waits_already(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER)
    sim.block(task, sigmask(SIGUSR1))
    sim.call(task, "kill", task.pid, SIGUSR1)
    sim.poke(task, DATA, bytes(8))
    assert sim.call(task, "rt_sigsuspend", DATA, 8) is GONE
    assert task.regs.read(Reg.RIP) == HANDLER


# ---- sigtimedwait, sigpending --------------------------------------------------------------------


def test_sigtimedwait(sim: Sim) -> None:
    task, sender = sim.process(), sim.process()
    sim.block(task, sigmask(SIGUSR1) | sigmask(SIGUSR2))
    sim.poke(task, DATA, struct.pack("<QQQ", sigmask(SIGUSR1), 0, 0))
    assert sim.call(task, "rt_sigtimedwait", DATA, 0, DATA + 8, 8) == -Errno.EAGAIN
    assert sim.call(task, "rt_sigtimedwait", DATA, 0, 0, 8) is ASLEEP
    sim.call(sender, "kill", task.pid, SIGUSR2)  # blocked, not waited for: no news
    sim.settle()
    assert task.continuation is not None
    sim.call(sender, "kill", task.pid, SIGUSR1)
    sim.settle()
    assert sim.result(task) == SIGUSR1
    assert task.blocked == sigmask(SIGUSR1) | sigmask(SIGUSR2) and task.real_blocked == 0


def test_sigtimedwait_times_out_and_is_interrupted(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGUSR1))
    sim.poke(task, DATA, struct.pack("<QQQ", sigmask(SIGUSR1), 1, 0))
    assert sim.call(task, "rt_sigtimedwait", DATA, 0, DATA + 8, 8) is ASLEEP
    sim.advance(2_000_000_000)
    assert sim.result(task) == -Errno.EAGAIN
    sim.handle(task, SIGUSR2, HANDLER)
    assert sim.call(task, "rt_sigtimedwait", DATA, 0, 0, 8) is ASLEEP
    sim.call(sim.process(), "kill", task.pid, SIGUSR2)
    sim.settle()
    sim.sigreturn(task)
    assert sim.result(task) == -Errno.EINTR


def test_sigpending_shows_blocked_signals_of_thread_and_process(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGUSR1) | sigmask(SIGUSR2))
    sim.call(task, "kill", task.pid, SIGUSR1)
    sim.call(task, "tkill", task.pid, SIGUSR2)
    assert sim.call(task, "rt_sigpending", DATA, 8) == 0
    assert sim.u64(task, DATA) == sigmask(SIGUSR1) | sigmask(SIGUSR2)
    assert sim.call(task, "rt_sigpending", DATA, 16) == -Errno.EINVAL


def test_sigaction_reads_back_what_was_set_without_unknown_flags(sim: Sim) -> None:
    task = sim.process()
    sim.poke(task, DATA, struct.pack("<QQQQ", HANDLER, 0x400 | 0x0400_0004, RESTORER, (1 << 64) - 1))
    assert sim.call(task, "rt_sigaction", 40, DATA, 0, 8) == 0
    assert sim.call(task, "rt_sigaction", 40, 0, DATA, 8) == 0
    handler, flags, restorer, mask = struct.unpack("<QQQQ", sim.peek(task, DATA, 32))
    assert (handler, flags, restorer) == (HANDLER, 0x0400_0004, RESTORER)
    assert mask == ((1 << 64) - 1) & ~(sigmask(9) | sigmask(19))
    assert sim.call(task, "rt_sigaction", 65, 0, 0, 8) == -Errno.EINVAL
    assert sim.call(task, "rt_sigaction", 40, 0, 0, 16) == -Errno.EINVAL
