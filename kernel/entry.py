"""From the processor into the kernel and back: system calls, page faults, exceptions.

Models ``arch/x86/entry/common.c``, ``kernel/entry/common.c``, ``arch/x86/kernel/traps.c`` and the entry half of
``arch/x86/mm/fault.c``.

A system call is served inside the processor's callback.  ``None`` as the callback's answer stops the processor; what
is then to be done (a call that needs the whole register file, a task that sleeps, a signal) is done by
:meth:`Entry.continue_task`, with the processor stopped.

Deliberate difference: there is no entry from kernel mode; the kernel is not itself paged.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import kernel.syscalls.all  # noqa: F401 - declares every system call
from kernel.abi import signal as sig
from kernel.abi.errno import Errno, KernelError
from kernel.clock import NS_PER_FAULT, NS_PER_SYSCALL
from kernel.hardware import Reg
from kernel.mm.fault import FaultResult, handle_mm_fault
from kernel.mm.types import TASK_SIZE
from kernel.syscalls.names import syscall_name
from kernel.syscalls.table import NR_SYSCALLS_64, TABLE_64, SyscallSpec, compile_entry
from kernel.task.deliver import exit_to_user_mode
from kernel.task.signal import force_sig, force_sig_fault
from kernel.task.task import TIF_EXITED, TIF_SIGPENDING, TIF_SYSCALL_TRACE, TaskState
from kernel.task.waitqueue import WakeReason
from kernel.trace import AnyOf, Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.task.task import Task
    from kernel.task.waitqueue import Sleep

SYS_ENTER = Tracepoint("syscalls:sys_enter", "task nr spec args")
SYS_EXIT = Tracepoint("syscalls:sys_exit", "task nr spec args ret error reason")
"""``ret`` is None for a call that does not come back (exit); ``error`` is the errno or 0, ``reason`` says which rule
refused."""

SYSCALLS = AnyOf(SYS_ENTER, SYS_EXIT)

_ENOSYS = -int(Errno.ENOSYS)

# Exception vectors: Intel SDM volume 3, table 6-1.
VECTOR_DE, VECTOR_DB, VECTOR_BP, VECTOR_OF, VECTOR_BR, VECTOR_UD = 0, 1, 3, 4, 5, 6
VECTOR_NP, VECTOR_SS, VECTOR_GP, VECTOR_PF, VECTOR_MF, VECTOR_AC, VECTOR_XM = 11, 12, 13, 14, 16, 17, 19
VECTOR_INT80 = 128


class Stopped:
    """What the entry of a ``stopped`` call answers inside the callback: do it with the processor stopped."""

    __slots__ = ("call", "raw")

    def __init__(self, call: Callable[..., Any], raw: tuple[int, ...]) -> None:
        self.call = call
        self.raw = raw


class Entry:
    """The doors of one kernel.

    Invariant: between two calls of :meth:`continue_task` at most one ``stopped`` call waits, the current task's.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.unimplemented: dict[str, int] = {}
        """System calls that nobody serves, by name, with how often they were made."""
        self.nr_syscalls = 0
        self.nr_faults = 0
        self.check: Callable[[], None] | None = None
        """--check: run after every ``kernel.check_every``-th entry."""
        self._until_check = 0
        self._calls: list[Callable[..., Any]] = [self._first_use(nr) for nr in range(NR_SYSCALLS_64)]
        self._waiting: Stopped | None = None
        self.calls_under_way: dict[Task, tuple[int, tuple[int, ...]]] = {}
        """Tasks inside a traced call: its number and arguments."""

    # ---- system calls, inside the callback ----------------------------------------------------------------------

    def on_syscall(self, nr: int, a0: int, a1: int, a2: int, a3: int, a4: int, a5: int) -> int | None:
        """Serve one ``syscall`` instruction: the value for RAX, or None to stop the processor."""
        kernel = self.kernel
        task = kernel.current
        assert task is not None
        self.nr_syscalls += 1
        kernel.clock.charged_ns += NS_PER_SYSCALL
        task.syscall_nr = nr
        if SYSCALLS.on:
            self._trace_enter(task, nr, (a0, a1, a2, a3, a4, a5))
        error: KernelError | None = None
        try:
            ret = self._calls[nr](task, a0, a1, a2, a3, a4, a5)
        except KernelError as raised:
            error = raised
            ret = -raised.errno
        except IndexError:
            if nr < NR_SYSCALLS_64:
                raise
            ret = self._not_implemented(nr)
        if ret.__class__ is not int:
            if ret is None:
                ret = 0
            elif ret.__class__ is Stopped:
                self._waiting = ret
                return None
            elif isinstance(ret, Generator):
                task.continuation = ret
                finished = self._drive(task, None)
                if finished is None:
                    return None
                ret, error = finished
            else:
                ret = int(ret)
        if -517 < ret < -511:
            task.exit_work |= TIF_SIGPENDING  # only signal delivery understands the restart codes
        if task.exit_work or kernel.reclaim.kswapd_wanted or kernel.check_every:
            return self._end_call(task, ret, error)
        return ret

    def _end_call(self, task: Task, ret: int, error: KernelError | None) -> int | None:
        """There is more to do at the end of a call than to return ``ret``: as :meth:`on_syscall`."""
        kernel = self.kernel
        if task.exit_work & TIF_SYSCALL_TRACE:
            self._trace_exit(task, ret, error)
        if kernel.reclaim.kswapd_wanted:
            kernel.reclaim.kswapd_tick()
        if kernel.check_every:
            self._count_check()
        if task.exit_work:
            task.regs.write(Reg.RAX, ret)
            return None
        return ret

    def _first_use(self, nr: int) -> Callable[..., Any]:
        """What stands in the call table until ``nr`` is made for the first time: annotations are dear to read."""

        def first_use(task: Task, *raw: int) -> Any:
            spec = TABLE_64[nr]
            name = syscall_name(nr)
            call = self._unserved(nr) if spec is None else compile_entry(spec)
            if self.kernel.fail.watches(name):
                call = self._failing(name, call)
            if spec is not None and spec.stopped:
                call = _stopper(call)
            self._calls[nr] = call
            return call(task, *raw)

        return first_use

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` with failures on request (``--fail mremap:EFAULT@3``): it is not run when it is to fail."""
        fail = self.kernel.fail

        def call_or_fail(task: Task, *raw: int) -> Any:
            errno = fail.error_at(name)
            if errno:
                raise KernelError(errno, f"made to fail: call {fail.counts[name]} of {name}")
            return call(task, *raw)

        return call_or_fail

    def _unserved(self, nr: int) -> Callable[..., int]:
        """What a number without a handler does."""
        return lambda task, *raw: self._not_implemented(nr)

    def _not_implemented(self, nr: int) -> int:
        name = syscall_name(nr)
        self.unimplemented[name] = self.unimplemented.get(name, 0) + 1
        return _ENOSYS

    def _drive(self, task: Task, reason: WakeReason | None) -> tuple[int, KernelError | None] | None:
        """Run the sleeping handler of ``task`` on until it ends (its value) or sleeps again (None)."""
        continuation = task.continuation
        assert continuation is not None
        park = self.kernel.sched.park
        try:
            # The first send must be None: the generator has not begun.
            sleep: Sleep = continuation.send(reason)  # type: ignore[arg-type]
            while True:
                refused = park(task, sleep)
                if refused is None:
                    return None
                sleep = continuation.send(refused)
        except StopIteration as end:
            task.continuation = None
            return (0 if end.value is None else int(end.value)), None
        except KernelError as error:
            task.continuation = None
            return -error.errno, error

    # ---- with the processor stopped -----------------------------------------------------------------------------

    def continue_task(self, task: Task) -> bool:
        """Do what is left to do before ``task`` may run user code.

        False: it may not (it sleeps, was stopped, is dead, or its turn is over).
        """
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None
            self._run_stopped(task, waiting)
        elif task.continuation is not None:
            if task.state is not TaskState.RUNNING:
                return False
            finished = self._drive(task, task.wake_reason)
            if finished is None:
                return False
            self._finish(task, *finished)
        if task.state is not TaskState.RUNNING:
            return False
        if task.exit_work:
            return exit_to_user_mode(task)
        task.syscall_nr = -1
        return True

    def interrupt_call(self, task: Task) -> None:
        """A debugger has woken ``task``, as a signal would: its sleeping call ends, or sleeps again if it must."""
        finished = self._drive(task, WakeReason.SIGNAL)
        if finished is not None:
            self._finish(task, *finished)

    def _run_stopped(self, task: Task, waiting: Stopped) -> None:
        error: KernelError | None = None
        try:
            ret = waiting.call(task, *waiting.raw)
        except KernelError as raised:
            error = raised
            ret = -raised.errno
        if isinstance(ret, Generator):
            task.continuation = ret
            finished = self._drive(task, None)
            if finished is None:
                return
            ret, error = finished
        self._finish(task, 0 if ret is None else int(ret), error)

    def _finish(self, task: Task, ret: int, error: KernelError | None) -> None:
        """A call served with the processor stopped has ended with ``ret``."""
        if task.exit_work & TIF_EXITED:
            self._trace_exit(task, None, None)
            return
        if task.syscall_nr >= 0:
            # rt_sigreturn and a successful execve have replaced all registers and set syscall_nr to -1.
            task.regs.write(Reg.RAX, ret)
            if -517 < ret < -511:
                task.exit_work |= TIF_SIGPENDING
        if task.exit_work & TIF_SYSCALL_TRACE:
            self._trace_exit(task, ret, error)
        if self.kernel.reclaim.kswapd_wanted:
            self.kernel.reclaim.kswapd_tick()
        if self.kernel.check_every:
            self._count_check()

    # ---- page faults and exceptions -----------------------------------------------------------------------------

    def on_page_fault(self, vaddr: int, error_code: int, ip: int) -> bool:
        """Serve one page fault of user code; False stops the processor with a signal sent."""
        kernel = self.kernel
        task = kernel.current
        assert task is not None and task.mm is not None
        self.nr_faults += 1
        kernel.clock.charged_ns += NS_PER_FAULT
        result = handle_mm_fault(task.mm, vaddr, error_code, ip)
        if kernel.reclaim.kswapd_wanted:
            kernel.reclaim.kswapd_tick()
        if kernel.check_every:
            self._count_check()
        if result <= 1:
            if result:
                task.maj_flt += 1
            else:
                task.min_flt += 1
            return not task.exit_work
        task.syscall_nr = -1
        self._bad_access(task, vaddr, error_code, result)
        return False

    def _bad_access(self, task: Task, vaddr: int, error_code: int, result: FaultResult) -> None:
        """``bad_area``, ``do_sigbus``, ``pagefault_out_of_memory``."""
        if not 0 <= vaddr < TASK_SIZE:
            # set_signal_archinfo: the kernel half looks mapped, so that nothing about it can be learnt
            error_code |= 1
        if result is FaultResult.OOM:
            from kernel.mm.oom import pagefault_out_of_memory

            pagefault_out_of_memory(self.kernel)
            return
        task.error_code, task.trap_nr, task.cr2 = error_code, VECTOR_PF, vaddr
        if result is FaultResult.SIGBUS_ADRERR:
            force_sig_fault(task, sig.SIGBUS, sig.BUS_ADRERR, vaddr)
        elif result is FaultResult.SIGSEGV_ACCERR:
            force_sig_fault(task, sig.SIGSEGV, sig.SEGV_ACCERR, vaddr)
        else:
            force_sig_fault(task, sig.SIGSEGV, sig.SEGV_MAPERR, vaddr)

    def on_exception(self, vector: int, error_code: int) -> None:
        """Another exception stopped the processor: the guest hears of it by a signal."""
        task = self.kernel.current
        assert task is not None
        task.syscall_nr = -1
        ip = task.regs.read(Reg.RIP)
        task.error_code, task.trap_nr = error_code, vector
        if vector == VECTOR_DE:
            force_sig_fault(task, sig.SIGFPE, sig.FPE_INTDIV, ip)
        elif vector == VECTOR_DB:
            force_sig_fault(task, sig.SIGTRAP, sig.TRAP_TRACE, ip)
        elif vector == VECTOR_BP:
            force_sig(task, sig.SIGTRAP)
        elif vector == VECTOR_UD:
            force_sig_fault(task, sig.SIGILL, sig.ILL_ILLOPN, ip)
        elif vector in (VECTOR_MF, VECTOR_XM):
            force_sig_fault(task, sig.SIGFPE, sig.FPE_FLTINV, ip)
        elif vector == VECTOR_AC:
            force_sig_fault(task, sig.SIGBUS, sig.BUS_ADRALN, 0)
        elif vector in (VECTOR_NP, VECTOR_SS):
            force_sig(task, sig.SIGBUS)
        elif vector == VECTOR_INT80:
            # A kernel without CONFIG_IA32_EMULATION has no gate there: #GP.
            task.error_code, task.trap_nr = VECTOR_INT80 * 8 + 2, VECTOR_GP
            task.regs.write(Reg.RIP, ip - 2)
            force_sig(task, sig.SIGSEGV)
        else:
            force_sig(task, sig.SIGSEGV)

    # ---- checks and traces --------------------------------------------------------------------------------------

    def _count_check(self) -> None:
        self._until_check -= 1
        if self._until_check <= 0:
            self._until_check = self.kernel.check_every
            if self.check is not None:
                self.check()

    def _trace_enter(self, task: Task, nr: int, args: tuple[int, ...]) -> None:
        self.calls_under_way[task] = (nr, args)
        task.exit_work |= TIF_SYSCALL_TRACE
        if SYS_ENTER.on:
            SYS_ENTER.emit(task, nr, _spec(nr), args)

    def _trace_exit(self, task: Task, ret: int | None, error: KernelError | None) -> None:
        task.exit_work &= ~TIF_SYSCALL_TRACE
        entered = self.calls_under_way.pop(task, None)
        if entered is None or not SYS_EXIT.on:
            return
        nr, args = entered
        errno = -ret if ret is not None and -4096 < ret < 0 else 0
        SYS_EXIT.emit(task, nr, _spec(nr), args, ret, errno, error.reason if error is not None else "")


def _spec(nr: int) -> SyscallSpec | None:
    return TABLE_64[nr] if nr < NR_SYSCALLS_64 else None


def _stopper(call: Callable[..., Any]) -> Callable[..., Any]:
    def stop(task: Task, *raw: int) -> Stopped:
        return Stopped(call, raw)

    return stop

