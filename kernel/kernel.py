"""The kernel: one object that owns what all parts share.

Models the globals of Linux (``init_task``, ``init_mm``'s kernel half, ``vm_committed_as``, ``sysctl`` ...).  Made by
``emu/machine.py`` over a processor, or by tests over :class:`~kernel.hardware.NullHardware`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernel.clock import Clock
from kernel.fault_inject import FailPoints
from kernel.mm.accounting import VmStat
from kernel.mm.page import MemMap
from kernel.mm.vmscan import setup_reclaim
from kernel.mm.what_if import AS_THE_RULES_SAY, WhatIf
from kernel.profile import Profile, make_policy
from kernel.sysctl import Sysctl
from kernel.task.fork import create_init_task
from kernel.task.futex import FutexTable
from kernel.task.pid import PidTable
from kernel.task.sched import Scheduler
from kernel.task.timers import Timers
from kernel.vdso import Vdso

if TYPE_CHECKING:
    from kernel.abi.signal import SigInfo
    from kernel.fs.tty import Console
    from kernel.fs.vfs import Vfs
    from kernel.hardware import Hardware
    from kernel.mm.lru import Lru
    from kernel.mm.oom import OomKiller
    from kernel.mm.swapfile import SwapSystem
    from kernel.mm.types import MmStruct
    from kernel.mm.vmscan import Reclaim
    from kernel.mm.vmstat import VmEvents
    from kernel.task.task import Task
    from mmu.physmem import PhysMem


@dataclass
class KernelConfig:
    """What a kernel is made of, apart from its hardware."""

    profile: Profile
    seed: int = 0
    aslr: bool = False
    reserved_frames: range = range(0)
    """Frames that belong to the processor."""
    pml4_template: dict[int, int] = field(default_factory=dict)
    """Supervisor entries that every root page table gets: slot -> entry."""
    what_if: WhatIf = AS_THE_RULES_SAY


class Kernel:
    """The state that belongs to no task.

    Invariant: ``current`` is the task on whose behalf kernel code runs; None between two tasks.
    """

    def __init__(self, physmem: PhysMem, hw: Hardware, clock: Clock, config: KernelConfig) -> None:
        self.physmem = physmem
        self.hw = hw
        self.clock = clock
        self.profile = config.profile
        self.what_if = config.what_if
        self.seed = config.seed
        self.aslr = config.aslr
        self.rng = random.Random(config.seed)
        """Every random byte that a guest sees comes from here."""
        self.sysctl = Sysctl(randomize_va_space=2 if config.aslr else 0)
        self.pml4_template = dict(config.pml4_template)
        self.log_lines: list[str] = []
        """The kernel log (dmesg)."""
        self.log_sink: Callable[[str], None] | None = None
        """Also told every log line."""
        self.fail = FailPoints()
        self.pages = MemMap(physmem, hw, config.reserved_frames)
        self.sysctl.min_free_kbytes = self.pages.watermark_min * 4
        self.vm_stat = VmStat()
        self.total_swap_pages = 0
        self.notes_first_writes = False
        """Areas remember who wrote to them first (for ``mm:merge_refused``)."""
        self.check_every = 0
        """--check: run the invariant checks after every so many entries; 0 never."""
        self.ptrace_signal: Callable[[Task, SigInfo], SigInfo | None] | None = None
        """A debugger: asked before a signal takes effect; answers with what is to be delivered instead, or None."""
        self.current: Task | None = None
        self._last_mm_id = 0
        self.policy = make_policy(self, config.profile)
        self.vmstat: VmEvents
        self.lru: Lru
        self.swap: SwapSystem
        self.oom: OomKiller
        self.reclaim: Reclaim
        setup_reclaim(self)
        self.timers = Timers()
        self.futexes = FutexTable()
        self.pids = PidTable()
        self.tasks = self.pids.tasks
        self.sched = Scheduler(self)
        self.vdso = Vdso(self)
        self.init_task = create_init_task(self)
        self.vfs: Vfs
        self.console: Console

    def next_mm_id(self) -> int:
        self._last_mm_id += 1
        return self._last_mm_id

    def log(self, line: str) -> None:
        """printk."""
        self.log_lines.append(line)
        if self.log_sink is not None:
            self.log_sink(line)

    def all_mms(self) -> list[MmStruct]:
        """Every address space that a task has, in the order of the tasks' numbers."""
        found: dict[MmStruct, None] = {}
        for task in self.tasks.values():
            if task.mm is not None:
                found[task.mm] = None
        return list(found)
