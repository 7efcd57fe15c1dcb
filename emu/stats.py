"""What a run came to: the numbers of ``--stats`` and of ``pagewalk compare``.

Counters that the kernel keeps anyway are read at the end.  What it does not keep (faults by kind, results of
``mremap``, what the address space looked like when the program ended) is taken from tracepoints, by a
:class:`Recorder` that is attached only when somebody asked for statistics.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import errno_name
from kernel.entry import SYS_EXIT
from kernel.mm.fault import PAGE_FAULT_USER, FaultResult
from kernel.task.exit import SCHED_PROCESS_EXIT
from kernel.trace import Probes

if TYPE_CHECKING:
    from emu.board import Board
    from kernel.mm.types import MmStruct
    from kernel.trace import Tracepoint

COPYING_KINDS = ("cow", "file_cow")


class Recorder:
    """Counts what only events tell, for one machine."""

    def __init__(self, machine: Board) -> None:
        self.machine = machine
        self.fault_kinds: Counter[str] = Counter()
        self.nr_major = 0
        self.mremap_results: Counter[str] = Counter()
        """``ok`` or an errno name."""
        self.at_end: dict[str, Any] = {}
        """The first program's address space when it ended."""
        self.peak_areas = 0
        self._probes = Probes()
        self._probes.attach(PAGE_FAULT_USER, self._on_fault)
        self._probes.attach(SYS_EXIT, self._on_syscall)
        self._probes.attach(SCHED_PROCESS_EXIT, self._on_exit)

    def detach(self) -> None:
        self._probes.detach_all()

    def _on_fault(self, _point: Tracepoint, record: tuple[Any, ...]) -> None:
        kind, result = record[4], record[5]
        self.fault_kinds[kind] += 1
        if result is FaultResult.MAJOR:
            self.nr_major += 1

    def _on_syscall(self, _point: Tracepoint, record: tuple[Any, ...]) -> None:
        spec, errno = record[2], record[5]
        if spec is not None and spec.name == "mremap":
            self.mremap_results[errno_name(errno) if errno else "ok"] += 1

    def _on_exit(self, _point: Tracepoint, record: tuple[Any, ...]) -> None:
        task, _code, group_dead = record
        if not group_dead or task.mm is None or task.kernel is not self.machine.kernel:
            return
        self.peak_areas = max(self.peak_areas, task.mm.hiwater_map_count)
        if self.machine.init is not None and task.tgid == self.machine.init.pid:
            self.at_end = address_space(task.mm)


def address_space(mm: MmStruct) -> dict[str, Any]:
    """Areas, resident pages and anon_vmas of ``mm`` now."""
    policy = mm.kernel.policy
    lengths = [len(policy.vmas_of(anon_vma)) for anon_vma in _anon_vmas(mm)]
    cost = policy.memory_cost()
    return {
        "areas": mm.map_count,
        "rss_pages": mm.rss,
        "swap_pages": mm.swap_pages,
        "page_tables": mm.pt.nr_tables,
        "anon_vmas": len(lengths),
        "list_length_mean": round(sum(lengths) / len(lengths), 2) if lengths else 0.0,
        "list_length_longest": max(lengths, default=0),
        "rmap_objects": cost.nr_objects,
        "rmap_bytes": cost.nr_bytes,
    }


def _anon_vmas(mm: MmStruct) -> list[Any]:
    """The distinct anon_vmas of the areas of ``mm``, in address order."""
    return list({id(vma.anon_vma): vma.anon_vma for vma in mm.areas if vma.anon_vma is not None}.values())


def collect(machine: Board) -> dict[str, Any]:
    """All counters of ``machine``, in groups.  Deterministic: no wall-clock time in it."""
    kernel, entry = machine.kernel, machine.entry
    init = machine.init
    stats: dict[str, Any] = {
        "kernel": kernel.profile.title,
        "exit": init.exit_code if init is not None else None,
        "time": {"virtual_ns": kernel.clock.now_ns(), "blocks": machine.cpu.blocks},
        "entries": {
            "syscalls": entry.nr_syscalls,
            "page_faults": entry.nr_faults,
            "task_switches": kernel.sched.nr_switches,
            "forks": kernel.pids.nr_forks,
        },
        "memory": {
            "ram_pages": kernel.pages.nr_usable,
            "free_pages": kernel.pages.nr_free,
            "committed_pages": kernel.vm_stat.committed_pages,
        },
        "areas": {
            "merges": dict(sorted(kernel.vm_stat.merged.items())),
            "refused": dict(sorted(kernel.vm_stat.refused.items())),
            "splits": kernel.vm_stat.nr_splits,
        },
        "policy": vars(kernel.policy.counters) | {"name": kernel.profile.rmap},
        **kernel.reclaim.stats(),
    }
    recorder = machine.recorder
    if recorder is not None:
        kinds = recorder.fault_kinds
        stats["faults"] = {
            "total": kinds.total(),
            "major": recorder.nr_major,
            "copied_pages": sum(kinds[kind] for kind in COPYING_KINDS) + kernel.policy.counters.nr_unshared,
            "kinds": dict(sorted(kinds.items())),
        }
        stats["mremap"] = dict(sorted(recorder.mremap_results.items()))
        stats["at_end"] = recorder.at_end
        stats["areas"]["peak"] = recorder.peak_areas
    if kernel.fail.nr_made:
        stats["injected_failures"] = dict(kernel.fail.nr_made)
    return stats
