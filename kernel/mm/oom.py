"""When nothing can be freed: the OOM killer.

Models ``mm/oom_kill.c`` of 6.18: ``out_of_memory``, ``select_bad_process``, ``oom_badness``, ``oom_kill_process`` and
the reaper; ``proc_oom_score`` of ``fs/proc/base.c``.  Manual: proc(5), oom_score, oom_score_adj.

The victim gets SIGKILL.  If it is another process than the one that runs, its private memory is taken away at once
(Linux's oom_reaper does that a moment later); if it is the running one, its allocations may use the reserve below the
min watermark until it dies on its way back to user mode.

Deliberate differences: no memory cgroups, cpusets or panic_on_oom; with no killable process Linux panics, here the
allocation fails; a page fault that ran out of memory calls the killer again, as Linux did until 5.16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.signal import SIGKILL
from kernel.mm.memory import zap_page_range
from kernel.mm.types import PAGE_SHIFT, VM_PFNMAP, VM_SHARED, MmStruct
from kernel.mm.vmstat import PageCounts
from kernel.task.signal import fatal_signal_pending, send_sig
from kernel.task.task import SIGNAL_GROUP_EXIT, SIGNAL_UNKILLABLE, TIF_NEED_RESCHED, Task
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel

OOM_MARK_VICTIM = Tracepoint("oom:mark_victim", "task points")
OOM_REAP = Tracepoint("oom:reap", "task nr_pages")

OOM_SCORE_ADJ_MIN = -1000
_GFP = "gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0"
_KB_SHIFT = PAGE_SHIFT - 10


class OomKiller:
    """The killer and its memory of whom it has dealt with."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._reaped: set[int] = set()
        """mm ids whose memory was taken already (MMF_OOM_SKIP)."""
        self.nr_kills = 0

    def out_of_memory(self) -> bool:
        """Free memory by killing; False if there was nobody to kill."""
        kernel = self.kernel
        current = kernel.current
        if current is not None and _is_dying(current):
            return True  # it will free its memory soon; until then it may use the reserve
        victim, points = self._select()
        if victim is None:
            self._dump_header(current)
            kernel.log("Out of memory and no killable processes...")
            return False
        self._kill(victim, points, current)
        return True

    def badness(self, task: Task) -> int | None:
        """``oom_badness``: the pages that a death would free, moved by oom_score_adj; None: not to be killed."""
        mm = _mm_of(task)
        adj = task.signal.oom_score_adj
        if mm is None or adj == OOM_SCORE_ADJ_MIN or mm.id in self._reaped:
            return None
        if task is self.kernel.init_task or task.signal.flags & SIGNAL_UNKILLABLE or task.vfork_done is not None:
            return None
        return mm.rss + mm.swap_pages + mm.pt.nr_tables + adj * (self._total_pages() // 1000)

    def mrelease(self, task: Task) -> None:
        """process_mrelease(2).  KernelError: ESRCH (no memory any more), EINVAL (not dying)."""
        mm = _mm_of(task)
        if mm is None:
            raise KernelError(Errno.ESRCH, "process has no memory")
        if mm.id in self._reaped:
            return
        if not all(_is_dying(other) for other in self._processes() if _mm_of(other) is mm):
            raise KernelError(Errno.EINVAL, "process is not about to die")
        self._reap(task, mm)

    def oom_score(self, task: Task) -> int:
        """/proc/PID/oom_score: 0 to about 2000, 666 for a process without memory."""
        badness = self.badness(task)
        if badness is None:
            return 0
        scaled = int(badness * 1000 / self._total_pages())
        return int((1000 + scaled) * 2 / 3)

    def _total_pages(self) -> int:
        return self.kernel.pages.nr_usable + self.kernel.swap.total_swap_pages

    # ---- whom ---------------------------------------------------------------------------------------------------

    def _processes(self) -> list[Task]:
        return [task for task in self.kernel.tasks.values() if task.group_leader is task]

    def _select(self) -> tuple[Task | None, int]:
        """``select_bad_process``: the first of those with the most points."""
        current = self.kernel.current
        if self.kernel.sysctl.oom_kill_allocating_task and current is not None:
            points = self.badness(current.group_leader)
            if points is not None:
                return current.group_leader, points
        chosen, best = None, 0
        for task in self._processes():
            points = self.badness(task)
            if points is not None and (chosen is None or points > best):
                chosen, best = task, points
        return chosen, best

    # ---- kill ---------------------------------------------------------------------------------------------------

    def _kill(self, victim: Task, points: int, current: Task | None) -> None:
        kernel = self.kernel
        mm = _mm_of(victim)
        assert mm is not None
        self._dump_header(current)
        self._dump_tasks()
        who = current if current is not None else victim
        kernel.log(
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
            f"task_memcg=/,task={victim.comm},pid={victim.pid},uid={victim.creds.uid}"
        )
        kernel.log(
            f"Out of memory: Killed process {victim.pid} ({victim.comm}) total-vm:{_kb(mm.total_vm)}kB, "
            f"anon-rss:{_kb(mm.rss_anon)}kB, file-rss:{_kb(mm.rss_file)}kB, shmem-rss:{_kb(mm.rss_shmem)}kB, "
            f"UID:{victim.creds.uid} pgtables:{_kb(mm.pt.nr_tables)}kB oom_score_adj:{victim.signal.oom_score_adj}"
        )
        if OOM_MARK_VICTIM.on:
            OOM_MARK_VICTIM.emit(victim, points)
        self.nr_kills += 1
        kernel.vmstat.oom_kill += 1
        can_reap = current is None or current.mm is not mm
        for task in self._processes():
            if task is victim or _mm_of(task) is mm:
                if task.signal.flags & SIGNAL_UNKILLABLE or task is kernel.init_task:
                    can_reap = False  # shares the memory and lives on
                else:
                    send_sig(task, SIGKILL, group=True)
        self._reaped.add(mm.id)
        if can_reap:
            self._reap(victim, mm)
            kernel.log(
                f"oom_reaper: reaped process {victim.pid} ({victim.comm}), now anon-rss:{_kb(mm.rss_anon)}kB, "
                f"file-rss:{_kb(mm.rss_file)}kB, shmem-rss:{_kb(mm.rss_shmem)}kB"
            )
            if current is not None:
                who.exit_work |= TIF_NEED_RESCHED  # let the victim go

    def _reap(self, victim: Task, mm: MmStruct) -> None:
        """``__oom_reap_task_mm``: what nobody but the victim can want."""
        nr_pages = 0
        for vma in mm.areas:
            if not vma.vm_flags & VM_PFNMAP and (vma.vm_file is None or not vma.vm_flags & VM_SHARED):
                nr_pages += zap_page_range(vma, vma.vm_start, vma.vm_end)
        if OOM_REAP.on:
            OOM_REAP.emit(victim, nr_pages)

    # ---- what the log says --------------------------------------------------------------------------------------

    def _dump_header(self, current: Task | None) -> None:
        kernel = self.kernel
        comm, adj = (current.comm, current.signal.oom_score_adj) if current is not None else ("swapper", 0)
        counts = PageCounts(kernel)
        pages, swap = kernel.pages, kernel.swap
        kernel.log(f"{comm} invoked oom-killer: {_GFP}, oom_score_adj={adj}")
        kernel.log("Mem-Info:")
        kernel.log(f"active_anon:{counts.active_anon} inactive_anon:{counts.inactive_anon} isolated_anon:0")
        kernel.log(f" active_file:{counts.active_file} inactive_file:{counts.inactive_file} isolated_file:0")
        kernel.log(f" unevictable:{counts.mlocked} dirty:{counts.file_dirty} writeback:0")
        kernel.log(f" mapped:{counts.mapped_file} shmem:{counts.shmem} pagetables:{counts.page_tables}")
        kernel.log(f" free:{pages.nr_free}")
        kernel.log(f"{counts.file_pages} total pagecache pages")
        kernel.log(f"{counts.swapcache} pages in swap cache")
        kernel.log(f"Free swap  = {_kb(swap.nr_swap_pages)}kB")
        kernel.log(f"Total swap = {_kb(swap.total_swap_pages)}kB")
        kernel.log(f"{pages.nr_frames} pages RAM")
        kernel.log(f"{pages.nr_frames - pages.nr_usable} pages reserved")

    def _dump_tasks(self) -> None:
        log = self.kernel.log
        log("Tasks state (memory values in pages):")
        log(
            "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents "
            "oom_score_adj name"
        )
        for task in self._processes():
            mm = _mm_of(task)
            if mm is None:
                continue
            log(
                f"[{task.pid:7}] {task.creds.uid:5} {task.tgid:5} {mm.total_vm:8} {mm.rss:8} {mm.rss_anon:8} "
                f"{mm.rss_file:8} {mm.rss_shmem:9} {mm.pt.nr_tables << PAGE_SHIFT:8} {mm.swap_pages:8}         "
                f"{task.signal.oom_score_adj:5} {task.comm}"
            )


def _kb(nr_pages: int) -> int:
    return nr_pages << _KB_SHIFT


def _mm_of(task: Task) -> MmStruct | None:
    """``find_lock_task_mm``: the process's mm, even if its leader has exited."""
    return next((thread.mm for thread in task.signal.threads if thread.mm is not None), None)


def _is_dying(task: Task) -> bool:
    """``task_will_free_mem``."""
    return task.exiting or bool(task.signal.flags & SIGNAL_GROUP_EXIT) or fatal_signal_pending(task)


def pagefault_out_of_memory(kernel: Kernel) -> None:
    """A page fault of the running task found no memory, not even after reclaim."""
    current = kernel.current
    assert current is not None
    if not _is_dying(current) and not kernel.oom.out_of_memory():
        send_sig(current, SIGKILL, group=True)
    current.exit_work |= TIF_NEED_RESCHED
