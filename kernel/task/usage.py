"""getrusage: what tasks have used, in the guest's structure.  Models ``getrusage`` of ``kernel/sys.c``."""

from __future__ import annotations

from kernel.abi.resource import RUSAGE, RusageWho
from kernel.abi.time import NS_PER_SEC, NS_PER_USEC
from kernel.mm.types import PAGE_SIZE
from kernel.task.exit import task_usage, thread_group_usage
from kernel.task.task import Task, Usage


def pack_rusage(usage: Usage) -> bytes:
    """``struct rusage``; maxrss is in KiB."""
    return RUSAGE.pack(
        usage.utime_ns // NS_PER_SEC,
        usage.utime_ns % NS_PER_SEC // NS_PER_USEC,
        usage.stime_ns // NS_PER_SEC,
        usage.stime_ns % NS_PER_SEC // NS_PER_USEC,
        usage.maxrss_pages * (PAGE_SIZE // 1024),
        0, 0, 0,
        usage.minflt,
        usage.majflt,
        0,
        usage.inblock,
        usage.oublock,
        0, 0, 0,
        usage.nvcsw,
        usage.nivcsw,
    )  # fmt: skip


def usage_of(task: Task, who: int) -> Usage:
    """What ``who`` (RUSAGE_*) has used."""
    signal = task.signal
    usage = Usage()
    if who == RusageWho.RUSAGE_CHILDREN:
        usage.add(signal.children_usage)
        return usage
    usage.add(task_usage(task) if who == RusageWho.RUSAGE_THREAD else thread_group_usage(task))
    mm = task.mm
    if mm is not None:
        usage.maxrss_pages = max(signal.dead_threads.maxrss_pages, mm.hiwater_rss, mm.rss)
    return usage
