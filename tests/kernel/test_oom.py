"""The OOM killer: mm/oom_kill.c; proc(5) on oom_score and oom_score_adj.  Real tasks, no processor."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.abi.signal import SIGKILL
from kernel.clock import Clock
from kernel.hardware import NullHardware
from kernel.kernel import Kernel, KernelConfig
from kernel.mm.fault import FaultResult
from kernel.mm.fork import new_mm
from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, do_mmap
from kernel.mm.oom import pagefault_out_of_memory
from kernel.mm.rmap.check_memory import check_memory
from kernel.mm.types import PAGE_SIZE
from kernel.profile import resolve_profile
from kernel.task.fork import spawn_task
from kernel.task.signal import fatal_signal_pending, send_sig
from kernel.task.task import TIF_NEED_RESCHED, Task
from mmu.physmem import PhysMem
from tests.kernel.fakes import FakeFile, FakeInode, map_file
from tests.kernel.swapfakes import MemoryDevice, poke

BASE = 0x1000_0000


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel()


def make_kernel(ram_pages: int = 512, swap_pages: int = 0, fail: tuple[str, ...] = ()) -> Kernel:
    kernel = Kernel(PhysMem(ram_pages), NullHardware(), Clock(), KernelConfig(resolve_profile("6.18")))
    kernel.sysctl.overcommit_memory = 1
    for spec in fail:
        kernel.fail.add(spec)
    if swap_pages:
        kernel.swap.swapon_device(MemoryDevice(swap_pages), b"/dev/vda")
    if kernel.fail.watches("alloc"):
        kernel.pages.inject_failures(lambda: kernel.fail.should_fail("alloc"))
    return kernel


def make_task(kernel: Kernel, name: str, nr_pages: int = 0, adj: int = 0) -> Task:
    """A process with ``nr_pages`` of memory in use."""
    task = spawn_task(kernel)
    task.comm = name
    task.mm = new_mm(kernel)
    task.signal.oom_score_adj = adj
    arch_pick_mmap_layout(task.mm)
    do_mmap(task.mm, MmapRequest(BASE, 1000 * PAGE_SIZE, 3, 0x32))
    for i in range(nr_pages):
        assert poke(task.mm, BASE + i * PAGE_SIZE, i) <= FaultResult.MAJOR
    return task


def eat(kernel: Kernel, task: Task) -> int:
    """``task`` writes page after page until it must die or cannot go on; how many pages it has."""
    kernel.current = task
    assert task.mm is not None
    nr_pages = task.mm.rss
    while nr_pages < 1000 and not fatal_signal_pending(task):
        if poke(task.mm, BASE + nr_pages * PAGE_SIZE, 1) is FaultResult.OOM:
            pagefault_out_of_memory(kernel)
            break
        nr_pages += 1
    return nr_pages


def is_killed(task: Task) -> bool:
    return bool(task.pending.signal >> (SIGKILL - 1) & 1)


def test_the_greatest_process_is_chosen_and_its_memory_taken(kernel: Kernel) -> None:
    small, big = make_task(kernel, "small", 30), make_task(kernel, "big", 250)
    eater = make_task(kernel, "eater")
    eat(kernel, eater)
    assert big.mm is not None and small.mm is not None
    assert is_killed(big) and not is_killed(small)
    assert big.mm.rss_anon == 0, "reaped at once, so that the eater can go on"
    assert small.mm.rss_anon == 30
    # the eater goes on until it is the greatest itself
    assert is_killed(eater)
    assert kernel.oom.nr_kills == 2
    assert kernel.vmstat.oom_kill == 2
    assert not check_memory(kernel)


def test_the_victim_that_runs_is_not_reaped_under_its_feet(kernel: Kernel) -> None:
    eater = make_task(kernel, "eater")
    nr_pages = eat(kernel, eater)
    assert is_killed(eater)
    assert eater.mm is not None and eater.mm.rss_anon >= nr_pages > 300
    assert not check_memory(kernel)


def test_oom_score_adj_protects_and_exposes() -> None:
    kernel = make_kernel(4096)
    protected = make_task(kernel, "sshd", 200, adj=-1000)
    exposed = make_task(kernel, "browser", 20, adj=600)
    eater = make_task(kernel, "eater", 100)
    kernel.current = eater
    assert kernel.oom.out_of_memory()
    assert is_killed(exposed)
    assert not is_killed(protected) and not is_killed(eater)


def test_badness_counts_rss_swap_and_page_tables() -> None:
    kernel = make_kernel(1000, 1001)
    task = make_task(kernel, "task", 40)
    assert task.mm is not None
    kernel.reclaim.try_to_free_pages(20)
    assert task.mm.swap_pages > 0
    nr_tables = task.mm.pt.nr_tables
    assert kernel.oom.badness(task) == 40 + nr_tables
    total = kernel.pages.nr_usable + 1000
    task.signal.oom_score_adj = 100
    assert kernel.oom.badness(task) == 40 + nr_tables + 100 * (total // 1000)
    assert kernel.oom.badness(kernel.init_task) is None


def test_oom_score(kernel: Kernel) -> None:
    task = make_task(kernel, "task", 100)
    total = kernel.pages.nr_usable
    badness = kernel.oom.badness(task)
    assert badness is not None
    assert kernel.oom.oom_score(task) == (1000 + badness * 1000 // total) * 2 // 3
    task.signal.oom_score_adj = -1000
    assert kernel.oom.oom_score(task) == 0


def test_the_log_reads_like_linuxs(kernel: Kernel) -> None:
    big = make_task(kernel, "big", 100)
    eater = make_task(kernel, "eater", 10)
    kernel.current = eater
    kernel.oom.out_of_memory()
    log = kernel.log_lines
    assert log[0] == (
        "eater invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0"
    )
    assert "Mem-Info:" in log
    assert "Tasks state (memory values in pages):" in log
    table = [line for line in log if line.endswith(" big")]
    numbers = "1000      100      100        0         0    12288        0             0"
    assert table == [f"[{big.pid:7}]     0 {big.pid:5}     {numbers} big"]
    assert log[-3].startswith("oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,")
    assert log[-2] == (
        f"Out of memory: Killed process {big.pid} (big) total-vm:4000kB, anon-rss:400kB, file-rss:0kB, "
        "shmem-rss:0kB, UID:0 pgtables:12kB oom_score_adj:0"
    )
    assert log[-1] == f"oom_reaper: reaped process {big.pid} (big), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"


def test_shared_memory_is_not_reaped(kernel: Kernel) -> None:
    task = make_task(kernel, "task", 50)
    inode: Any = FakeInode(kernel, is_shmem=True)
    inode.i_size = 4 * PAGE_SIZE
    assert task.mm is not None
    map_file(task.mm, BASE * 2, 4, FakeFile(inode), 0xB)
    poke(task.mm, BASE * 2, 1)
    kernel.current = make_task(kernel, "other")
    kernel.oom.out_of_memory()
    assert (task.mm.rss_anon, task.mm.rss_shmem) == (0, 1)


def test_everybody_who_shares_the_memory_dies(kernel: Kernel) -> None:
    task, other = make_task(kernel, "task", 50), make_task(kernel, "other")
    assert task.mm is not None
    other.mm = task.mm  # clone(CLONE_VM) without CLONE_THREAD
    kernel.current = make_task(kernel, "eater")
    kernel.oom.out_of_memory()
    assert is_killed(task) and is_killed(other)


def test_who_is_dying_already_is_left_to_die(kernel: Kernel) -> None:
    eater = make_task(kernel, "eater", 50)
    other = make_task(kernel, "other", 100)
    kernel.current = other
    kernel.oom.out_of_memory()
    assert is_killed(other)
    assert kernel.oom.out_of_memory()
    assert not is_killed(eater)
    assert kernel.oom.nr_kills == 1
    kernel.current = eater
    kernel.oom.out_of_memory()
    assert is_killed(eater), "the first victim's memory has been taken: it cannot help any more"


def test_oom_kill_allocating_task(kernel: Kernel) -> None:
    kernel.sysctl.oom_kill_allocating_task = 1
    big, small = make_task(kernel, "big", 200), make_task(kernel, "small", 10)
    kernel.current = small
    kernel.oom.out_of_memory()
    assert is_killed(small) and not is_killed(big)


def test_nobody_to_kill(kernel: Kernel) -> None:
    make_task(kernel, "task", 10, adj=-1000)
    assert not kernel.oom.out_of_memory()
    assert kernel.log_lines[-1] == "Out of memory and no killable processes..."
    with pytest.raises(KernelError):
        while True:
            kernel.pages.alloc_page()


def test_process_mrelease(kernel: Kernel) -> None:
    task = make_task(kernel, "task", 50)
    with pytest.raises(KernelError) as failure:
        kernel.oom.mrelease(task)
    assert failure.value.errno == Errno.EINVAL, "not dying"
    send_sig(task, SIGKILL, group=True)
    kernel.oom.mrelease(task)
    assert task.mm is not None and task.mm.rss_anon == 0
    assert not check_memory(kernel)
    task.mm = None
    with pytest.raises(KernelError) as failure:
        kernel.oom.mrelease(task)
    assert failure.value.errno == Errno.ESRCH


def test_a_fault_without_memory_kills_and_yields(kernel: Kernel) -> None:
    big, eater = make_task(kernel, "big", 100), make_task(kernel, "eater", 10)
    kernel.current = eater
    pagefault_out_of_memory(kernel)
    assert is_killed(big) and not is_killed(eater)
    assert eater.exit_work & TIF_NEED_RESCHED, "the victim must get its turn"


def test_a_fault_with_nobody_to_kill_ends_the_process(kernel: Kernel) -> None:
    task = make_task(kernel, "task", 10, adj=-1000)
    kernel.current = task
    pagefault_out_of_memory(kernel)
    assert is_killed(task)


@pytest.mark.parametrize("nth", range(1, 12))
def test_every_allocation_of_a_fault_may_fail(nth: int) -> None:
    kernel = make_kernel(256, 100, (f"alloc:{nth + 30}",))
    task: Task | None = None
    try:
        task = make_task(kernel, "task")
    except KernelError:
        return
    kernel.current = task
    assert task.mm is not None
    results = [poke(task.mm, BASE + i * PAGE_SIZE * 512, i) for i in range(20)]
    assert results.count(FaultResult.OOM) <= 1
    assert not check_memory(kernel)
