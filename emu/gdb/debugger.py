"""Running tasks under a debugger's orders, and knowing why they stop.

What ptrace is to gdbserver.  All-stop: whenever something is to be told, the whole machine stands still, virtual time
included, while the ``reporter`` (the stub) talks to gdb; it returns when gdb lets threads go.

A forked child belongs to the debugger until gdb detaches from it (if gdb has asked for fork events; otherwise it runs
free from the start).  Threads without an order are held back.

Deliberate differences from ptrace: a signal that the program ignores is not told, because it is never queued; SIGKILL
is told by the exit only; a thread that sleeps in a system call keeps sleeping while it is looked at, and its registers
look as if the call had been interrupted to be restarted; only writing to them does interrupt it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from emu.cpu.debug import DebugUnit, Trap, TrapKind, WatchKind, Watchpoint
from emu.cpu.stop import StopReason
from emu.gdb.registers import RegisterView
from emu.gdb.signals import to_gdb
from kernel.abi.clone import CLONE_THREAD, CLONE_VFORK
from kernel.abi.errno import ERESTARTSYS
from kernel.abi.signal import SI_USER, SIG_DFL, SIG_IGN, SIGINT, SIGKILL, SIGSEGV, SIGTRAP, SigInfo
from kernel.hardware import Reg
from kernel.task.exec import SCHED_PROCESS_EXEC
from kernel.task.exit import SCHED_PROCESS_EXIT, wait_status
from kernel.task.fork import SCHED_PROCESS_FORK
from kernel.task.signal import send_signal
from kernel.task.task import TIF_NEED_RESCHED, TIF_SIGPENDING, Task, TaskState
from kernel.task.waitqueue import WakeReason
from kernel.trace import Probes, Tracepoint

if TYPE_CHECKING:
    from emu.machine import Machine

_WATCH_FIELDS = {WatchKind.WRITE: b"watch", WatchKind.READ: b"rwatch", WatchKind.ACCESS: b"awatch"}
_IDLE_SLICE_NS = 50_000_000
"""While the program waits for the user's input, gdb is looked at this often."""
_ERESTARTSYS = -ERESTARTSYS & 0xFFFF_FFFF_FFFF_FFFF


class Order(Enum):
    """What a thread may do until the next stop."""

    HOLD = "hold"
    RUN = "run"
    STEP = "step"


class Thread:
    """The debugger's notes on one task."""

    __slots__ = ("mid_block", "order", "passed", "signal", "step_done", "step_range", "task", "vfork_waits")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.order = Order.HOLD
        self.step_range = range(0)
        """Steps that end in here are not told."""
        self.step_done = False
        """The step has ended in the kernel; to be told when the task is back in user mode."""
        self.signal = 0
        """What gdb wants delivered, a Linux signal."""
        self.passed: SigInfo | None = None
        """A signal that gdb itself has sent: not told again."""
        self.mid_block = False
        """See :attr:`DebugUnit.mid_block`."""
        self.vfork_waits = False


@dataclass
class Process:
    """A process that is being debugged."""

    tgid: int
    leader: Task
    is_child: bool = False
    breakpoints: dict[int, set[int]] = field(default_factory=dict)
    """Address -> kinds (the numbers of Z packets: 0 software, 1 hardware)."""
    watchpoints: dict[Watchpoint, None] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """One stop, or the end of a process."""

    pid: int
    task: Task
    signal: int = SIGTRAP
    """A Linux signal; for an end by a signal, that one."""
    details: bytes = b""
    """``name:value;`` pairs of the stop reply."""
    exit_status: int | None = None
    """The status word of wait(2) when the process has ended."""
    info: SigInfo | None = None
    in_delivery: bool = False
    """The signal waits for gdb to say whether the program gets it."""


class Debugger:
    """``reporter(report)`` tells gdb and returns when the program may go on; ``poll`` says whether gdb wants a stop."""

    def __init__(self, machine: Machine, reporter: Callable[[Report], None], poll: Callable[[], bool]) -> None:
        self.machine = machine
        self.kernel = machine.kernel
        self._tell = reporter
        self._poll = poll
        self.unit: DebugUnit = machine.cpu.enable_debug(self._on_breakpoint)
        self.processes: dict[int, Process] = {}
        self.threads: dict[Task, Thread] = {}
        self.pass_signals: frozenset[int] = frozenset()
        self.follows_forks = self.follows_vforks = self.tells_exec = False
        self._events: deque[Report] = deque()
        self._last: Task | None = None
        self._begun = False
        self._probes = Probes()
        self._probes.attach(SCHED_PROCESS_FORK, self._on_fork)
        self._probes.attach(SCHED_PROCESS_EXEC, self._on_exec)
        self._probes.attach(SCHED_PROCESS_EXIT, self._on_exit)
        self.kernel.ptrace_signal = self._on_signal

    def close(self) -> None:
        """Let everything run undebugged."""
        self._probes.detach_all()
        self.kernel.ptrace_signal = None
        self.unit.set_breakpoints(())
        self.unit.set_watchpoints(())
        self.machine.debugger = None

    # ---- who is debugged -----------------------------------------------------------------------------------------

    def attach(self, leader: Task, inherits: Process | None = None) -> Process:
        process = Process(leader.tgid, leader, is_child=inherits is not None)
        if inherits is not None:
            process.breakpoints = {address: set(kinds) for address, kinds in inherits.breakpoints.items()}
        self.processes[leader.tgid] = process
        for task in leader.signal.threads:
            self.threads[task] = Thread(task)
        return process

    def detach(self, tgid: int) -> bool:
        """The process runs free; False: it was not ours."""
        process = self.processes.pop(tgid, None)
        if process is None:
            return False
        for task in [task for task in self.threads if task.tgid == tgid]:
            self._inject(self.threads.pop(task))
        self._set_breakpoints()
        return True

    def kill(self, tgid: int) -> bool:
        process = self.processes.get(tgid)
        if process is None:
            return False
        self.detach(tgid)
        leader = next(iter(process.leader.signal.threads), process.leader)
        send_signal(leader, SigInfo(SIGKILL, SI_USER))
        return True

    def threads_of(self, tgid: int) -> list[Task]:
        return [task for task in self.threads if task.tgid == tgid and not task.exiting]

    # ---- orders --------------------------------------------------------------------------------------------------

    def order(self, task: Task, order: Order, signal: int = 0, step_range: range = range(0)) -> None:
        thread = self.threads[task]
        thread.order, thread.signal, thread.step_range = order, signal, step_range

    def hold_all(self) -> None:
        for thread in self.threads.values():
            thread.order, thread.signal, thread.step_done = Order.HOLD, 0, False

    def _inject(self, thread: Thread) -> None:
        """gdb continues a thread with a signal that it was not stopped for."""
        if thread.signal and not thread.task.exiting:
            info = SigInfo(thread.signal, SI_USER)
            thread.passed = info
            thread.signal = 0
            send_signal(thread.task, info, group=False)

    def add_breakpoint(self, process: Process, address: int, kind: int) -> None:
        process.breakpoints.setdefault(address, set()).add(kind)
        self._set_breakpoints()

    def remove_breakpoint(self, process: Process, address: int, kind: int) -> None:
        kinds = process.breakpoints.get(address)
        if kinds is not None:
            kinds.discard(kind)
            if not kinds:
                del process.breakpoints[address]
        self._set_breakpoints()

    def _set_breakpoints(self) -> None:
        self._breakpoints_changed = True

    _breakpoints_changed = False

    def _on_breakpoint(self, address: int) -> bool:
        task = self.kernel.current
        process = self.processes.get(task.tgid) if task is not None else None
        return process is not None and address in process.breakpoints

    # ---- registers -----------------------------------------------------------------------------------------------

    def view(self, task: Task, *, writes: bool = False) -> RegisterView:
        """The registers of a thread; to write them ends its sleep first."""
        if writes:
            self._end_sleep(task)

        def set_orig_rax(value: int) -> None:
            task.syscall_nr = value
            if value >= 0:
                task.exit_work |= TIF_SIGPENDING  # where a call is restarted

        in_call = task.continuation is not None or (
            task.syscall_nr >= 0 and -517 < _signed(task.regs.read(Reg.RAX)) < -511 and bool(task.exit_work)
        )
        registers: Any = _Sleeping(task.regs) if task.continuation is not None else task.regs
        return RegisterView(registers, task.syscall_nr if in_call else -1, set_orig_rax)

    def _end_sleep(self, task: Task) -> None:
        """Interrupt the system call that ``task`` sleeps in, so that its registers are its own again."""
        if task.continuation is None:
            return
        task.wake(WakeReason.SIGNAL)
        previous, self.kernel.current = self.kernel.current, task
        try:
            self.machine.entry.interrupt_call(task)
        finally:
            self.kernel.current = previous

    # ---- running -------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One turn of the machine's loop."""
        if not self._begun:
            self._begun = True
            leader = next(iter(self.processes.values())).leader
            self._stop(Report(leader.tgid, leader))
        elif self._poll():
            self._stop_for_interrupt(b"")
        if self.machine.debugger is not self:
            return
        task = self._pick_next()
        if task is not None:
            self._run_task(task)
        else:
            self._idle()

    def _may_run(self, task: Task) -> bool:
        thread = self.threads.get(task)
        return thread is None or thread.order is not Order.HOLD

    def _pick_next(self) -> Task | None:
        """The scheduler's choice, but for those that are held back, who keep their places."""
        sched = self.kernel.sched
        current = sched.current
        for task in sched.runnable:
            if self._may_run(task):
                sched.runnable.remove(task)
                sched.runnable.appendleft(task)
                return sched.pick_next()
        if current is not None and current.state is TaskState.RUNNING and self._may_run(current):
            current.exit_work &= ~TIF_NEED_RESCHED
            return current
        return None

    def _run_task(self, task: Task) -> None:
        machine, kernel, cpu = self.machine, self.kernel, self.machine.cpu
        kernel.current = task
        end = cpu.blocks + machine.quantum()
        try:
            while True:
                may_run = machine.entry.continue_task(task)
                if self._events:
                    self._tell_events()
                    continue
                if not may_run:
                    return
                if machine.debugger is not self or not self._may_run(task):
                    return
                left = end - cpu.blocks
                if left <= 0 or task.exit_work & TIF_NEED_RESCHED:
                    return
                thread = self.threads.get(task)
                if thread is not None and thread.vfork_waits:
                    thread.vfork_waits = False
                    self._stop(Report(task.tgid, task, details=b"vforkdone:;"))
                elif thread is not None and thread.step_done:
                    self._end_step(thread)
                elif not self._run_processor(task, thread, left):
                    return
        finally:
            kernel.current = None

    def _run_processor(self, task: Task, thread: Thread | None, left: int) -> bool:
        """False: the task's turn is over."""
        assert task.mm is not None
        cpu, cr3 = self.machine.cpu, task.mm.pt.cr3
        if thread is None:
            stop, trap = cpu.run(task.regs, cr3, left), None
        else:
            self._set_debug_registers(self.processes[task.tgid])
            step = thread.order is Order.STEP
            stop, trap = self.unit.run(task.regs, cr3, left, step=step, mid_block=thread.mid_block)
            thread.mid_block = self.unit.mid_block
            thread.step_done = step and stop.reason is StopReason.SYSCALL
        if trap is not None and thread is not None:
            self._tell_trap(thread, trap)
        elif stop.reason is StopReason.EXCEPTION:
            self.machine.entry.on_exception(stop.vector, stop.error_code)
        return stop.reason is not StopReason.QUANTUM

    def _set_debug_registers(self, process: Process) -> None:
        if self._breakpoints_changed:
            self._breakpoints_changed = False
            self.unit.set_breakpoints(address for p in self.processes.values() for address in p.breakpoints)
        self.unit.set_watchpoints(process.watchpoints)

    def _idle(self) -> None:
        """Nobody may run: as :meth:`Machine.idle`, with an eye on gdb."""
        machine, kernel = self.machine, self.kernel
        now_ns, next_ns = kernel.clock.now_ns(), kernel.timers.next_deadline_ns()
        waits = machine.console.is_waited_for or (next_ns is not None and kernel.clock.is_host)
        if not waits:
            if next_ns is not None:
                kernel.clock.advance_to(next_ns)
            else:
                self._stop_for_interrupt(b"pagewalk: every thread that may run sleeps and nothing can wake one\n")
            return
        until_ns = _IDLE_SLICE_NS if next_ns is None else max(0, next_ns - now_ns)
        if not machine.console.poll_host(min(until_ns, _IDLE_SLICE_NS)) and next_ns is not None:
            if until_ns <= _IDLE_SLICE_NS:
                kernel.clock.advance_to(next_ns)
            elif not kernel.clock.is_host:
                kernel.clock.advance_to(now_ns + _IDLE_SLICE_NS)

    # ---- stops ---------------------------------------------------------------------------------------------------

    def _stop(self, report: Report) -> None:
        """Tell gdb, and wait until it lets somebody go."""
        for thread in self.threads.values():
            thread.step_done = False
        self._last = report.task
        previous, self.kernel.current = self.kernel.current, report.task
        try:
            self._tell(report)
        finally:
            self.kernel.current = previous
        if not report.in_delivery:
            for thread in list(self.threads.values()):
                self._inject(thread)
        else:
            for task, thread in list(self.threads.items()):
                if task is not report.task:
                    self._inject(thread)
        if not self.processes:
            self.close()

    def _stop_for_interrupt(self, message: bytes) -> None:
        candidates = [self._last] if self._last in self.threads else []
        candidates += [task for task in self.threads if not task.exiting]
        if not candidates:
            return
        task = candidates[0]
        assert task is not None
        details = b"" if not message else b"console:" + message.hex().encode() + b";"
        self._stop(Report(task.tgid, task, SIGINT, details))

    def _tell_events(self) -> None:
        while self._events:
            report = self._events.popleft()
            if report.exit_status is not None:
                self.processes.pop(report.pid, None)
                for task in [task for task in self.threads if task.tgid == report.pid]:
                    del self.threads[task]
            elif report.task not in self.threads:
                continue
            self._stop(report)

    def _tell_trap(self, thread: Thread, trap: Trap) -> None:
        task = thread.task
        if trap.kind is TrapKind.STEP:
            self._end_step(thread)
        elif trap.kind is TrapKind.WATCH:
            assert trap.watchpoint is not None
            name = _WATCH_FIELDS[trap.watchpoint.kind]
            self._stop(Report(task.tgid, task, details=b"%s:%x;" % (name, trap.watchpoint.address)))
        else:
            kinds = self.processes[task.tgid].breakpoints.get(task.regs.read(Reg.RIP), set())
            self._stop(Report(task.tgid, task, details=b"hwbreak:;" if kinds == {1} else b"swbreak:;"))

    def _end_step(self, thread: Thread) -> None:
        thread.step_done = False
        if thread.task.regs.read(Reg.RIP) not in thread.step_range:
            self._stop(Report(thread.task.tgid, thread.task))

    # ---- what the kernel says --------------------------------------------------------------------------------------

    def _on_signal(self, task: Task, info: SigInfo) -> SigInfo | None:
        """A signal is about to take effect: what does gdb say?"""
        thread = self.threads.get(task)
        if thread is None:
            return info
        if thread.passed is info:
            thread.passed = None
            return info
        ip = task.regs.read(Reg.RIP)
        if info.signo == SIGSEGV and info.addr == ip and ip in self.processes[task.tgid].breakpoints:
            # A breakpoint where nothing can be executed: gdb has called functions return to the stack.
            self._stop(Report(task.tgid, task, details=b"swbreak:;"))
            return None
        if to_gdb(info.signo) not in self.pass_signals:
            self._stop(Report(task.tgid, task, info.signo, info=info, in_delivery=True))
            signal, thread.signal = thread.signal, 0
            if not signal and task in self.threads:
                return None
            if signal and signal != info.signo:
                info = SigInfo(signal, SI_USER)
        action = task.sighand.action[info.signo - 1]
        if thread.order is Order.STEP and action.handler not in (SIG_DFL, SIG_IGN):
            thread.step_done = True  # the first instruction of the handler is next
            thread.step_range = range(0)
        return info

    def _on_fork(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        parent, child, flags = values
        thread = self.threads.get(parent)
        if thread is None:
            return
        if flags & CLONE_THREAD:
            self.threads[child] = Thread(child)
            # A thread that is born while only its parent may move waits; while all run, it runs.
            others = [other for task, other in self.threads.items() if task.tgid == parent.tgid and task is not child]
            if thread.order is Order.RUN or any(other.order is Order.RUN for other in others):
                self.threads[child].order = Order.RUN
            return
        is_vfork = bool(flags & CLONE_VFORK)
        if not (self.follows_vforks if is_vfork else self.follows_forks):
            return
        self.attach(child, self.processes[parent.tgid])
        thread.vfork_waits = is_vfork
        name = b"vfork" if is_vfork else b"fork"
        details = b"%s:p%x.%x;" % (name, child.tgid, child.pid)
        self._events.append(Report(parent.tgid, parent, details=details))

    def _on_exec(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, _filename, _old_pid = values
        process = self.processes.get(task.tgid)
        if process is None:
            return
        process.leader = task
        process.breakpoints.clear()
        process.watchpoints.clear()
        self._set_breakpoints()
        thread = self.threads.setdefault(task, Thread(task))
        thread.mid_block = False
        if self.tells_exec:
            details = b"exec:%s;" % exec_file(task).hex().encode()
            self._events.append(Report(task.tgid, task, details=details))

    def _on_exit(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        task, _code, group_dead = values
        thread = self.threads.pop(task, None)
        if thread is not None and group_dead and task.tgid in self.processes:
            status = wait_status(task)
            self._events.append(Report(task.tgid, task, exit_status=status))


class _Sleeping:
    """The registers of a task in a system call that sleeps, as ptrace would show them."""

    def __init__(self, registers: Any) -> None:
        self._registers = registers

    def read(self, reg: Reg) -> int:
        return _ERESTARTSYS if reg is Reg.RAX else int(self._registers.read(reg))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registers, name)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def exec_file(task: Task) -> bytes:
    """The path of the program that a process runs; empty when it has ended."""
    mm = task.mm
    if mm is None or mm.exe_file is None:
        return b""
    return task.kernel.vfs.path_text(mm.exe_file.f_path, None)
