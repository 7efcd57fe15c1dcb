"""The machine: a processor, a kernel, host files and a terminal put together, and the loop that runs them.

    machine = Machine(MachineConfig(kernel="2.6.7", ram_bytes=64 << 20))
    machine.spawn(["/bin/ls", "-l"])
    status = machine.run()

Nothing here is Linux's: this is what the boot loader, the firmware and the idle task are to a real kernel.
"""

from __future__ import annotations

import signal as host_signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emu.cpu.cpu import Cpu
from emu.cpu.stop import StopReason
from emu.limits import MAX_RAM_BYTES, MIN_RAM_BYTES, NO_LIMITS, Limits
from kernel.clock import BOOT_NS, Clock, HostClock
from kernel.entry import Entry
from kernel.fault_inject import parse_fail
from kernel.kernel import Kernel, KernelConfig
from kernel.profile import DEFAULT_KERNEL, resolve_profile
from kernel.task.exit import wait_status
from kernel.task.task import TIF_NEED_RESCHED, TaskState
from mmu.physmem import PhysMem

if TYPE_CHECKING:
    from emu.gdb.debugger import Debugger
    from emu.stats import Recorder
    from kernel.mm.rmap.history import History
    from kernel.task.task import Task

PAGE_SIZE = 4096
QUANTUM_BLOCKS = 100_000
"""Basic blocks that a task may run while others wait: 1 ms of virtual time."""
LONE_QUANTUM_BLOCKS = 2_000_000
"""The same when no other task is waiting; timers and Ctrl-C are looked at in between."""
ORPHAN_NS = 1_000_000_000
"""How much longer (virtual time) what the program left behind may run after it has exited."""
SLOW_CHECK_EVERY = 16
"""Of --check's checks so many have the rules of areas and policies too; those of memory are in all."""


class NotRunnable(Exception):
    """The program cannot be started: ``status`` is 126 (not runnable) or 127 (not found), ``message`` one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class CheckFailed(Exception):
    """--check found broken invariants; the text is the report."""


class Deadlock(Exception):
    """Every task sleeps, and nothing is left that could wake one."""


@dataclass
class MachineConfig:
    """What a machine is made of.  ValueError when it cannot be built."""

    kernel: str = DEFAULT_KERNEL
    rmap: str | None = None
    mremap: str | None = None
    bugs: tuple[str, ...] = ()
    ram_bytes: int = 256 << 20
    swap: str | None = None
    """``SIZE`` for a temporary file, or ``FILE:SIZE``."""
    root: str = "/"
    writable: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    seed: int = 0
    aslr: bool = False
    clock: str = "virtual"
    max_map_count: int | None = None
    check: int = 0
    """Check all invariants after every so many system calls and faults; 0 never."""
    record_stats: bool = False
    """Also count what only events tell (emu/stats.py)."""
    fail: tuple[str, ...] = ()
    """Failures to inject: kernel/fault_inject.py."""
    limits: Limits = NO_LIMITS
    """What it is allowed; stronger than the fields of the same meaning, which are made to say the same."""

    def __post_init__(self) -> None:
        limits = self.limits
        self.ram_bytes = self.ram_bytes if limits.ram is None else limits.ram
        self.swap = self.swap if limits.swap is None else limits.swap if limits.swap != "0" else None
        self.mremap = limits.mremap or self.mremap
        self.max_map_count = limits.max_map_count or self.max_map_count
        self.fail = tuple(dict.fromkeys(self.fail + limits.fail))
        for spec in self.fail:
            parse_fail(spec)
        if not MIN_RAM_BYTES <= self.ram_bytes <= MAX_RAM_BYTES:
            raise ValueError(f"RAM of {self.ram_bytes} bytes: from 1M to 16G is possible")
        resolve_profile(self.kernel, self.rmap, self.mremap, self.bugs)


class Machine:
    """One machine.  ``kernel`` is open to look at; :meth:`spawn`, then :meth:`run`."""

    def __init__(self, config: MachineConfig | None = None) -> None:
        self.config = config = config or MachineConfig()
        profile = resolve_profile(config.kernel, config.rmap, config.mremap, config.bugs)
        self.physmem = PhysMem(config.ram_bytes // PAGE_SIZE)
        self.cpu = Cpu(self.physmem)
        clock: Clock
        if config.clock == "host":
            clock = HostClock(time.monotonic_ns, time.time_ns)
        else:
            clock = Clock(self._blocks)
            clock.charged_ns = BOOT_NS
        self.kernel = kernel = Kernel(
            self.physmem,
            self.cpu,
            clock,
            KernelConfig(
                profile=profile,
                seed=config.seed,
                aslr=config.aslr,
                reserved_frames=self.cpu.reserved_frames,
                pml4_template=self.cpu.kernel_pml4_entries,
                what_if=config.limits.what_if(),
            ),
        )
        if config.max_map_count is not None:
            kernel.sysctl.max_map_count = config.max_map_count
        if config.limits.overcommit_memory is not None:
            kernel.sysctl.overcommit_memory = config.limits.overcommit_memory
        if config.limits.overcommit_ratio is not None:
            kernel.sysctl.overcommit_ratio = config.limits.overcommit_ratio
        for spec in config.fail:
            kernel.fail.add(spec)
        if kernel.fail.watches("alloc"):
            kernel.pages.inject_failures(lambda: kernel.fail.should_fail("alloc"))
        self._mount(config)
        self.entry = Entry(kernel)
        self.cpu.on_syscall = self.entry.on_syscall
        self.cpu.on_page_fault = self.entry.on_page_fault
        self._history: History | None = None
        if config.check:
            self._switch_checks_on(config.check)
        self.init: Task | None = None
        """The program that was spawned first: its end is the machine's."""
        self.recorder: Recorder | None = None
        if config.record_stats:
            from emu.stats import Recorder

            self.recorder = Recorder(self)
        self.on_quantum: Callable[[Machine], None] | None = None
        """Called between quanta (progress displays)."""
        self.debugger: Debugger | None = None
        """Runs the tasks instead of us while somebody debugs."""
        self._interrupted = False

    def _blocks(self) -> int:
        return self.cpu.blocks

    def _mount(self, config: MachineConfig) -> None:
        from emu.console import HostConsole
        from emu.hosttree import OsHostTree
        from kernel.fs.mount_root import mount_root

        self.console = HostConsole()
        self.host_tree = OsHostTree(config.root, config.writable)
        mount_root(self.kernel, self.host_tree, self.console)
        if config.swap is not None:
            from emu.swapdev import attach_swap

            self.swap_device = attach_swap(self.kernel, config.swap)

    def _switch_checks_on(self, every: int) -> None:
        from kernel.mm.rmap.check import check_all
        from kernel.mm.rmap.check_memory import check_memory
        from kernel.mm.rmap.history import History, report

        self._history = history = History()
        history.attach()
        nr_checks = 0

        def check() -> None:
            nonlocal nr_checks
            violations = check_memory(self.kernel)
            if nr_checks % SLOW_CHECK_EVERY == 0:
                violations += check_all(self.kernel)
            nr_checks += 1
            if violations:
                raise CheckFailed(report(violations, history))

        self.kernel.check_every = every
        self.entry.check = check

    # ---- the program --------------------------------------------------------------------------------------------

    def spawn(self, argv: list[str], env: dict[str, str] | None = None, cwd: str | None = None) -> Task:
        """Load a program as a new process; ``argv[0]`` is looked up in PATH when it has no slash.

        Raises :class:`NotRunnable`.
        """
        from emu.spawn import spawn_program

        task = spawn_program(self, argv, self.config.env if env is None else env, cwd or self.config.cwd)
        if self.init is None:
            self.init = task
        return task

    @property
    def unimplemented(self) -> dict[str, int]:
        """System calls that the program made and nobody serves, with counts."""
        return self.entry.unimplemented

    # ---- running ------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run until the first program has ended; its exit status, or 128 + the signal that killed it."""
        assert self.init is not None, "spawn a program first"
        previous = _on_sigint(self._note_interrupt)
        try:
            self.console.start()
            process = self.init.signal
            while process.nr_live:  # the first thread may have gone before the others, or been replaced by execve
                self.step()
            self._run_orphans()
        finally:
            self.console.stop()
            _restore_sigint(previous)
            self.kernel.vfs.sync()
        code = wait_status(process.group_leader)
        return 128 + (code & 0x7F) if code & 0x7F else code >> 8 & 0xFF

    def _run_orphans(self) -> None:
        """What the program left behind goes on until it sleeps for good, for one second of virtual time at the most."""
        deadline_ns = self.kernel.clock.now_ns() + ORPHAN_NS
        while self._anything_alive() and self.kernel.clock.now_ns() < deadline_ns:
            next_ns = self.kernel.timers.next_deadline_ns()
            if self.kernel.sched.nr_running == 0 and (next_ns is None or next_ns > deadline_ns):
                return
            self.step()

    def _anything_alive(self) -> bool:
        init_task = self.kernel.init_task
        return any(task is not init_task and not _is_dead(task) for task in self.kernel.tasks.values())

    def step(self) -> None:
        """Run one task for one quantum, or idle until something happens."""
        kernel = self.kernel
        kernel.timers.run(kernel.clock.now_ns())
        if self._interrupted:
            self._interrupted = False
            self.console.interrupt()
        self.console.poll_host(0)
        if self.debugger is not None:
            self.debugger.step()
        else:
            task = kernel.sched.pick_next()
            if task is None:
                self.idle()
            else:
                self._run_task(task)
        if self.on_quantum is not None:
            self.on_quantum(self)

    def _run_task(self, task: Task) -> None:
        kernel, cpu, entry = self.kernel, self.cpu, self.entry
        kernel.current = task
        blocks = self.quantum()
        end = cpu.blocks + blocks
        try:
            while entry.continue_task(task):
                left = end - cpu.blocks
                if left <= 0 or task.exit_work & TIF_NEED_RESCHED:
                    return
                assert task.mm is not None
                stop = cpu.run(task.regs, task.mm.pt.cr3, left)
                if stop.reason is StopReason.EXCEPTION:
                    entry.on_exception(stop.vector, stop.error_code)
                elif stop.reason is StopReason.QUANTUM:
                    return
        finally:
            kernel.current = None

    def quantum(self) -> int:
        """How many blocks the next task may run: less when a timer is due earlier."""
        kernel = self.kernel
        blocks = QUANTUM_BLOCKS if kernel.sched.runnable else LONE_QUANTUM_BLOCKS
        next_ns = kernel.timers.next_deadline_ns()
        if next_ns is not None:
            blocks = min(blocks, kernel.clock.blocks_until(next_ns))
        return blocks

    def idle(self) -> None:
        """Every task sleeps: go to the next deadline, or wait for the user's input."""
        kernel = self.kernel
        next_ns = kernel.timers.next_deadline_ns()
        if self.console.is_waited_for:
            timeout_ns = None if next_ns is None else max(0, next_ns - kernel.clock.now_ns())
            if self.console.poll_host(timeout_ns):
                return
        elif next_ns is not None and kernel.clock.is_host:
            time.sleep(max(0, next_ns - kernel.clock.now_ns()) / 1e9)
        if next_ns is not None:
            kernel.clock.advance_to(next_ns)
        elif not self.console.is_waited_for and not self._interrupted:
            raise Deadlock("every task sleeps and nothing can wake one: " + self._who_sleeps())

    def _who_sleeps(self) -> str:
        init_task = self.kernel.init_task
        return ", ".join(
            f"{task.comm} (pid {task.pid})"
            for task in self.kernel.tasks.values()
            if task is not init_task and not _is_dead(task)
        )

    @property
    def is_interrupted(self) -> bool:
        """Ctrl-C has come and was not served yet."""
        return self._interrupted

    def _note_interrupt(self) -> None:
        self._interrupted = True

    # ---- reports ------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Counters of the run so far, in groups; the schema is in the manual."""
        from emu.stats import collect

        return collect(self)

    def close(self) -> None:
        """Give the engine and the host's files back; the machine cannot run any more."""
        if self.recorder is not None:
            self.recorder.detach()
        if self._history is not None:
            self._history.detach()
        if self.config.swap is not None:
            self.swap_device.close()
        self.cpu.close()


def _is_dead(task: Task) -> bool:
    return task.state in (TaskState.ZOMBIE, TaskState.DEAD)


def _on_sigint(note: Callable[[], None]) -> Any:
    """Ctrl-C at a terminal that the guest does not own: remembered, served between two quanta."""
    try:
        return host_signal.signal(host_signal.SIGINT, lambda _number, _frame: note())
    except ValueError:  # not the main thread
        return None


def _restore_sigint(previous: Any) -> None:
    if previous is not None:
        host_signal.signal(host_signal.SIGINT, previous)



