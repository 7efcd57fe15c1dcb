"""The board: a processor, a kernel, host files and a terminal put together, and the loop that runs them.

Nothing here is Linux's: this is what the boot loader, the firmware and the idle task are to a real kernel.
"""

from __future__ import annotations

import signal as host_signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from emu.config import MachineConfig
from emu.cpu.cpu import Cpu
from emu.cpu.stop import StopReason
from emu.errors import CheckFailed, Deadlock
from kernel.clock import BOOT_NS, Clock, HostClock
from kernel.entry import Entry
from kernel.kernel import Kernel, KernelConfig
from kernel.profile import resolve_profile
from kernel.task.exit import wait_status
from kernel.task.task import TIF_NEED_RESCHED, TaskState
from kernel.trace import on_behalf_of
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


class Board:
    """One machine without a keyboard: it is built, and it runs.  :class:`emu.machine.Machine` is what people use."""

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
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
        self._apply_limits(config)
        self._mount(config)
        self.entry = Entry(kernel)
        self.cpu.on_syscall = self.entry.on_syscall
        self.cpu.on_page_fault = self.entry.on_page_fault
        self.recorder: Recorder | None = None
        self._history: History | None = None
        with on_behalf_of(kernel):
            if config.check:
                self._switch_checks_on(config.check)
            if config.record_stats:
                from emu.stats import Recorder

                self.recorder = Recorder(self)
        self.init: Task | None = None
        """The program that was spawned first: its end is the machine's."""
        self.on_quantum: Callable[[Any], None] | None = None
        """Called with the machine between quanta (progress displays)."""
        self.debugger: Debugger | None = None
        """Runs the tasks instead of us while somebody debugs."""
        self.alarm_ns: int | None = None
        """When :attr:`on_alarm` is to be called, once; nothing else changes by that, not even whose turn it is."""
        self.on_alarm: Callable[[], None] = _nobody
        self.pending_error: BaseException | None = None
        """Raised by somebody's callback in the middle of an event; comes out between two instructions."""
        self._interrupted = False

    def _blocks(self) -> int:
        return self.cpu.blocks

    def _apply_limits(self, config: MachineConfig) -> None:
        kernel = self.kernel
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

    # ---- running ------------------------------------------------------------------------------------------------

    @contextmanager
    def powered(self) -> Iterator[None]:
        """The terminal and Ctrl-C belong to the guest while it runs."""
        previous = _on_sigint(self._note_interrupt)
        try:
            self.console.start()
            with on_behalf_of(self.kernel):
                yield
        finally:
            self.console.stop()
            _restore_sigint(previous)
            self.kernel.vfs.sync()

    def run_to_end(self) -> int:
        """Run until the first program has ended; its exit status, or 128 + the signal that killed it."""
        assert self.init is not None
        process = self.init.signal
        while process.nr_live:  # the first thread may have gone before the others, or been replaced by execve
            self.step()
        self._run_orphans()
        return self.exit_status()

    @property
    def has_ended(self) -> bool:
        """Is the first program gone?"""
        return self.init is not None and not self.init.signal.nr_live

    def exit_status(self) -> int:
        """The first program's, once it has ended."""
        assert self.init is not None
        code = wait_status(self.init.signal.group_leader)
        return 128 + (code & 0x7F) if code & 0x7F else code >> 8 & 0xFF

    def _run_orphans(self) -> None:
        """What the program left behind goes on until it sleeps for good, for one second of virtual time at the most."""
        deadline_ns = self.kernel.clock.now_ns() + ORPHAN_NS
        while self.tasks and self.kernel.clock.now_ns() < deadline_ns:
            next_ns = self.kernel.timers.next_deadline_ns()
            if self.kernel.sched.nr_running == 0 and (next_ns is None or next_ns > deadline_ns):
                return
            self.step()

    @property
    def tasks(self) -> list[Task]:
        """The tasks that live, by number; the kernel's own is not among them."""
        init_task = self.kernel.init_task
        return [task for task in self.kernel.tasks.values() if task is not init_task and not _is_dead(task)]

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
        self._ring_if_due()
        self.raise_pending()
        if self.on_quantum is not None:
            self.on_quantum(self)

    def _run_task(self, task: Task) -> None:
        kernel, cpu, entry = self.kernel, self.cpu, self.entry
        kernel.current = task
        end = cpu.blocks + self.quantum()
        try:
            while entry.continue_task(task):
                self._ring_if_due()
                left = end - cpu.blocks
                if left <= 0 or task.exit_work & TIF_NEED_RESCHED or self.pending_error is not None:
                    return
                assert task.mm is not None
                blocks = left if self.alarm_ns is None else min(left, kernel.clock.blocks_until(self.alarm_ns))
                stop = cpu.run(task.regs, task.mm.pt.cr3, blocks)
                if stop.reason is StopReason.EXCEPTION:
                    entry.on_exception(stop.vector, stop.error_code)
                elif stop.reason is StopReason.QUANTUM and blocks == left:
                    return
        finally:
            kernel.current = None

    def _ring_if_due(self) -> None:
        if self.alarm_ns is not None and self.kernel.clock.now_ns() >= self.alarm_ns:
            self.alarm_ns = None
            self.on_alarm()

    def keep_error(self, error: BaseException) -> None:
        """A callback has failed within an event: the kernel finishes what it does, then ``error`` is raised."""
        if self.pending_error is None:
            self.pending_error = error
        if self.cpu.running:
            self.cpu.request_stop()

    def raise_pending(self) -> None:
        if self.pending_error is not None:
            error, self.pending_error = self.pending_error, None
            raise error

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
        if self.alarm_ns is not None:
            next_ns = self.alarm_ns if next_ns is None else min(next_ns, self.alarm_ns)
        if self.console.is_waited_for:
            timeout_ns = None if next_ns is None else max(0, next_ns - kernel.clock.now_ns())
            if self.console.poll_host(timeout_ns):
                return
        elif next_ns is not None and kernel.clock.is_host:
            time.sleep(max(0, next_ns - kernel.clock.now_ns()) / 1e9)
        if next_ns is not None:
            kernel.clock.advance_to(next_ns)
        elif not self.console.is_waited_for and not self._interrupted:
            sleepers = ", ".join(f"{task.comm} (pid {task.pid})" for task in self.tasks)
            raise Deadlock(f"every task sleeps and nothing can wake one: {sleepers}")

    @property
    def is_interrupted(self) -> bool:
        """Ctrl-C has come and was not served yet."""
        return self._interrupted

    def _note_interrupt(self) -> None:
        self._interrupted = True

    def close(self) -> None:
        """Give the engine and the host's files back; the machine cannot run any more."""
        if self.recorder is not None:
            self.recorder.detach()
        if self._history is not None:
            self._history.detach()
        if self.config.swap is not None:
            self.swap_device.close()
        self.kernel.vfs.shutdown()
        self.host_tree.close()
        self.cpu.close()


def _nobody() -> None:
    """Nobody has set an alarm."""


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
