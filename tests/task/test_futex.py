"""futex(2), futex2 and robust lists."""

from __future__ import annotations

import struct

import pytest

from kernel.abi.errno import Errno
from kernel.abi.signal import SIGUSR1
from kernel.clock import BOOT_REALTIME_NS
from kernel.hardware import Reg
from kernel.task.task import Task
from tests.task.harness import ASLEEP, CODE, DATA, Sim

(WAIT, WAKE, _FD, REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, _UNLOCK, _TRY, WAIT_BITSET, WAKE_BITSET) = range(11)
PRIVATE, REALTIME = 128, 256
WORD, WORD2 = DATA + 0x100, DATA + 0x200
HANDLER = 0x40_0800


@pytest.fixture
def sim() -> Sim:
    return Sim()


def threads(sim: Sim, nr: int) -> list[Task]:
    task = sim.process()
    return [task, *(sim.thread(task) for _ in range(nr - 1))]


def wait(sim: Sim, task: Task, val: int = 0, op: int = WAIT | PRIVATE, address: int = WORD, val3: int = 0) -> object:
    return sim.call(task, "futex", address, op, val, 0, 0, val3)


def test_wait_and_wake_in_order(sim: Sim) -> None:
    one, two, three, waker = threads(sim, 4)
    for task in (one, two, three):
        assert wait(sim, task) is ASLEEP
    assert sim.call(waker, "futex", WORD, WAKE | PRIVATE, 2) == 2
    sim.settle()
    assert (one.continuation, two.continuation) == (None, None) and three.continuation is not None
    assert sim.result(one) == 0
    assert sim.call(waker, "futex", WORD, WAKE | PRIVATE, 100) == 1
    assert sim.call(waker, "futex", WORD, WAKE | PRIVATE, 1) == 0
    assert not sim.kernel.futexes.waiters


def test_another_value(sim: Sim) -> None:
    task = sim.process()
    assert wait(sim, task, val=1) == -Errno.EAGAIN
    assert wait(sim, task, op=WAIT_BITSET | PRIVATE) == -Errno.EINVAL  # bitset 0
    assert wait(sim, task, address=WORD + 1) == -Errno.EINVAL
    assert wait(sim, task, address=0x10) == -Errno.EFAULT
    assert wait(sim, task, address=1 << 62) == -Errno.EFAULT
    assert sim.call(task, "futex", 0x10, WAKE | PRIVATE, 1) == 0  # nobody can wait there
    assert sim.call(task, "futex", 0x10, WAKE, 1) == -Errno.EFAULT


def test_timeouts_are_relative_for_wait_and_absolute_for_bitset(sim: Sim) -> None:
    one, two, three, four = threads(sim, 4)
    sim.advance(10_000_000_000)
    sim.poke(
        one,
        DATA,
        struct.pack("<qqqqqq", 0, 5_000_000, 10, 8_000_000, BOOT_REALTIME_NS // 1_000_000_000 + 10, 9_000_000),
    )
    assert sim.call(one, "futex", WORD, WAIT | PRIVATE, 0, DATA) is ASLEEP
    assert sim.call(two, "futex", WORD, WAIT_BITSET | PRIVATE, 0, DATA + 16, 0, 0xFFFF_FFFF) is ASLEEP
    assert sim.call(three, "futex", WORD, WAIT_BITSET | PRIVATE | REALTIME, 0, DATA + 32, 0, 0xFFFF_FFFF) is ASLEEP
    for task, until in ((one, 5_100_000), (two, 8_100_000), (three, 9_100_000)):
        assert task.continuation is not None
        sim.advance(10_000_000_000 + until - sim.kernel.clock.now_ns())
        assert task.continuation is None and sim.result(task) == -Errno.ETIMEDOUT
    sim.poke(four, DATA, struct.pack("<qq", 0, 1_000_000_000))
    assert sim.call(four, "futex", WORD, WAIT | PRIVATE, 0, DATA) == -Errno.EINVAL


def test_a_past_deadline_does_not_sleep(sim: Sim) -> None:
    task = sim.process()
    sim.advance(1_000_000)
    sim.poke(task, DATA, struct.pack("<qq", 0, 1))
    assert sim.call(task, "futex", WORD, WAIT_BITSET | PRIVATE, 0, DATA, 0, 1) == -Errno.ETIMEDOUT


def test_bitsets(sim: Sim) -> None:
    one, two, waker = threads(sim, 3)
    assert wait(sim, one, op=WAIT_BITSET | PRIVATE, val3=1) is ASLEEP
    assert wait(sim, two, op=WAIT_BITSET | PRIVATE, val3=2) is ASLEEP
    assert sim.call(waker, "futex", WORD, WAKE_BITSET | PRIVATE, 10, 0, 0, 2) == 1
    assert sim.call(waker, "futex", WORD, WAKE_BITSET | PRIVATE, 10, 0, 0, 4) == 0
    assert sim.call(waker, "futex", WORD, WAKE | PRIVATE, 10) == 1


def test_requeue(sim: Sim) -> None:
    one, two, three, waker = threads(sim, 4)
    for task in (one, two, three):
        wait(sim, task)
    assert sim.call(waker, "futex", WORD, CMP_REQUEUE | PRIVATE, 1, 1, WORD2, 7) == -Errno.EAGAIN
    assert sim.call(waker, "futex", WORD, CMP_REQUEUE | PRIVATE, 1, 1, WORD2, 0) == 2
    sim.settle()
    assert one.continuation is None and two.continuation is not None
    assert sim.call(waker, "futex", WORD2, WAKE | PRIVATE, 10) == 1
    sim.settle()
    assert two.continuation is None and three.continuation is not None
    assert sim.call(waker, "futex", WORD, REQUEUE | PRIVATE, 0, -1, WORD2) == -Errno.EINVAL
    assert sim.call(waker, "futex", WORD, REQUEUE | PRIVATE, 0, 0x7FFF_FFFF, WORD2) == 1
    assert sim.call(waker, "futex", WORD2, WAKE | PRIVATE, 1) == 1


@pytest.mark.parametrize(
    ("op", "arg", "cmp", "cmparg", "after", "wakes"),
    [
        (0, 5, 0, 3, 5, True),  # set; == 3
        (1, 5, 1, 3, 8, False),  # add; != 3
        (2, 4, 2, 4, 7, True),  # or; < 4
        (3, 1, 3, 2, 2, False),  # andn; <= 2
        (4, 1, 4, -1, 2, True),  # xor; > -1
        (8, 3, 5, 4, 8, False),  # set 1 << 3; >= 4
        (0, -1, 0, 3, 0xFFFF_FFFF, True),
    ],
)
def test_wake_op(sim: Sim, op: int, arg: int, cmp: int, cmparg: int, after: int, wakes: bool) -> None:
    one, two, waker = threads(sim, 3)
    sim.poke(one, WORD2, struct.pack("<I", 3))
    wait(sim, one)
    wait(sim, two, val=3, address=WORD2)
    encoded = op << 28 | cmp << 24 | (arg & 0xFFF) << 12 | cmparg & 0xFFF
    assert sim.call(waker, "futex", WORD, WAKE_OP | PRIVATE, 1, 1, WORD2, encoded) == 1 + wakes
    assert sim.u32(one, WORD2) == after


def test_private_and_shared_waiters_do_not_meet(sim: Sim) -> None:
    one, waker = threads(sim, 2)
    wait(sim, one)
    assert sim.call(waker, "futex", WORD, WAKE, 1) == 0
    assert sim.call(waker, "futex", WORD, WAKE | PRIVATE, 1) == 1


def test_processes_meet_in_shared_memory_wherever_it_is_mapped(sim: Sim) -> None:
    task = sim.process()
    shared = sim.call(task, "mmap", 0, 0x3000, 3, 0x21, -1, 0)
    child = sim.fork(task)
    moved = sim.call(child, "mremap", shared, 0x3000, 0x3000, 3, 0x7000_0000)
    assert moved == 0x7000_0000
    assert sim.call(child, "futex", moved + 0x2004, WAIT, 0, 0) is ASLEEP
    assert sim.call(task, "futex", shared + 0x2000, WAKE, 1) == 0
    assert sim.call(task, "futex", shared + 0x2004, WAKE, 1) == 1
    private = sim.fork(task)
    assert sim.call(private, "futex", WORD, WAIT, 0, 0) is ASLEEP
    assert sim.call(task, "futex", WORD, WAKE, 1) == 0  # private memory: another futex


def test_a_signal_interrupts_and_restarts(sim: Sim) -> None:
    one, other = threads(sim, 2)
    sim.handle(one, SIGUSR1, HANDLER, 0x1000_0000)
    sim.poke(one, DATA, struct.pack("<qq", 3, 0))
    wait(sim, one)
    sim.call(other, "tkill", one.pid, SIGUSR1)
    sim.settle()
    sim.sigreturn(one)
    assert one.regs.read(Reg.RIP) == CODE - 2 and one.regs.read(Reg.RAX) == 202
    one.regs.write(Reg.RIP, CODE)
    assert sim.call(one, "futex", WORD, WAIT | PRIVATE, 0, DATA) is ASLEEP  # with a timeout: not restarted
    sim.call(other, "tkill", one.pid, SIGUSR1)
    sim.settle()
    sim.sigreturn(one)
    assert one.regs.read(Reg.RIP) == CODE and sim.result(one) == -Errno.EINTR
    assert not sim.kernel.futexes.waiters


def test_a_killed_waiter_leaves_the_queue(sim: Sim) -> None:
    task = sim.process()
    wait(sim, task)
    sim.call(sim.process(), "kill", task.pid, 9)
    sim.settle()
    assert task.exiting and not sim.kernel.futexes.waiters


def test_priority_inheritance_and_unknown_operations_are_not_there(sim: Sim) -> None:
    task = sim.process()
    for op in (LOCK_PI, LOCK_PI | PRIVATE, 7, 8, 11, 12, 13, 2, 50, WAKE | REALTIME):
        assert sim.call(task, "futex", WORD, op, 1) == -Errno.ENOSYS


def test_waitv(sim: Sim) -> None:
    one, waker = threads(sim, 2)
    sim.poke(one, DATA, struct.pack("<QQIIQQII", 0, WORD, 0x82, 0, 0, WORD2, 0x82, 0))
    assert sim.call(one, "futex_waitv", DATA, 2, 0, 0, 0) is ASLEEP
    assert sim.call(waker, "futex", WORD2, WAKE | PRIVATE, 1) == 1
    sim.settle()
    assert sim.result(one) == 1 and not sim.kernel.futexes.waiters
    assert sim.call(one, "futex_waitv", DATA, 0, 0, 0, 0) == -Errno.EINVAL
    assert sim.call(one, "futex_waitv", DATA, 129, 0, 0, 0) == -Errno.EINVAL
    assert sim.call(one, "futex_waitv", DATA, 2, 1, 0, 0) == -Errno.EINVAL
    sim.poke(one, WORD2, b"\x05")
    assert sim.call(one, "futex_waitv", DATA, 2, 0, 0, 0) == -Errno.EAGAIN
    assert not sim.kernel.futexes.waiters


def test_futex2(sim: Sim) -> None:
    one, waker = threads(sim, 2)
    assert sim.call(one, "futex_wait", WORD, 0, 0xFFFF_FFFF, 0x82, 0, 0) is ASLEEP
    assert sim.call(waker, "futex_wake", WORD, 0xFFFF_FFFF, 1, 0x81) == -Errno.EINVAL
    assert sim.call(waker, "futex_wake", WORD, 0xFFFF_FFFF, 0, 0x82) == 0
    sim.poke(one, DATA, struct.pack("<QQIIQQII", 0, WORD, 0x82, 0, 0, WORD2, 0x82, 0))
    assert sim.call(waker, "futex_requeue", DATA, 0, 0, 1) == 1
    assert sim.call(waker, "futex_wake", WORD2, 0xFFFF_FFFF, 1, 0x82) == 1


# ---- robust lists --------------------------------------------------------------------------------


def test_set_and_get_robust_list(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "set_robust_list", DATA, 23) == -Errno.EINVAL
    assert sim.call(task, "set_robust_list", DATA, 24) == 0
    assert sim.call(task, "get_robust_list", 0, DATA + 64, DATA + 72) == 0
    assert (sim.u64(task, DATA + 64), sim.u64(task, DATA + 72)) == (DATA, 24)


def robust(sim: Sim, task: Task, pending: int = 0) -> None:
    """Two held locks at entry+8; head at DATA."""
    first, second = DATA + 0x400, DATA + 0x440
    sim.poke(task, DATA, struct.pack("<QqQ", first, 8, pending))
    sim.poke(task, first, struct.pack("<QI", second, task.pid))
    sim.poke(task, second, struct.pack("<QI", DATA, task.pid | 0x8000_0000))
    sim.call(task, "set_robust_list", DATA, 24)


def test_locks_of_a_dead_thread_are_marked_and_a_waiter_wakes(sim: Sim) -> None:
    main, holder, waiter = threads(sim, 3)
    robust(sim, holder)
    value = holder.pid | 0x8000_0000
    assert sim.call(waiter, "futex", DATA + 0x448, WAIT, value) is ASLEEP
    sim.call(holder, "exit", 0)
    assert sim.u32(main, DATA + 0x408) == 0x4000_0000
    assert sim.u32(main, DATA + 0x448) == 0xC000_0000
    sim.settle()
    assert sim.result(waiter) == 0


def test_a_pending_unlock_wakes_and_other_owners_are_left_alone(sim: Sim) -> None:
    main, holder, waiter = threads(sim, 3)
    robust(sim, holder, pending=DATA + 0x480)
    sim.poke(main, DATA + 0x408, struct.pack("<I", 12345))
    assert sim.call(waiter, "futex", DATA + 0x488, WAIT, 0) is ASLEEP
    sim.call(holder, "exit", 0)
    assert sim.u32(main, DATA + 0x408) == 12345
    sim.settle()
    assert sim.result(waiter) == 0


def test_bad_lists_end_quietly(sim: Sim) -> None:
    for head in (8, DATA + 0x40):
        main, holder = threads(sim, 2)
        sim.poke(main, DATA + 0x40, struct.pack("<QqQ", DATA + 0x60, 1, 0))
        sim.poke(main, DATA + 0x60, struct.pack("<Q", DATA + 0x60))  # a loop
        sim.call(holder, "set_robust_list", head, 24)
        sim.call(holder, "exit", 0)
        assert holder.exiting and not main.exiting
