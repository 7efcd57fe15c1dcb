"""run(until=...): the machine stands still at the very instant, and goes on as if nothing had been."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from emu import Deadlock, Event, Machine, Moment, NotNow, Stopped, When
from emu.trace.records import Record
from tests.cli.pagewalk import pagewalk

FAULTS = ["images/faults"]


def whole_run(argv: list[str], **options: Any) -> tuple[dict[str, Any], bytes, list[Record]]:
    """Counters, output and all records of a run that nothing interrupts."""
    with Machine(record_stats=True, **options) as machine, machine.record("faults", "syscalls") as records:
        machine.run_program(argv, capture=True)
        return machine.stats(), machine.stdout, list(records)


def test_stopping_at_every_fault_changes_nothing() -> None:
    stats, output, records = whole_run(FAULTS)
    nr_faults = sum(record["type"] == "fault" for record in records)
    with Machine(record_stats=True) as machine:
        stopped = machine.run_program(FAULTS, until="fault:1", capture=True)
        for number in range(2, nr_faults + 1):
            assert stopped.reason is Event.FAULT and stopped.what == f"after fault {number - 1}"
            stopped = machine.run(until=f"fault:{number}")
        assert machine.run() == 0
        assert machine.stats() == stats
        assert machine.stdout == output


def test_stopping_at_every_call_changes_nothing() -> None:
    argv = ["/bin/sh", "-c", "echo a | cat; echo b"]
    stats, output, _ = whole_run(argv)
    nr_stops = 0
    with Machine(record_stats=True) as machine:
        stopped = machine.run_program(argv, until="syscall:1", capture=True)
        while stopped.reason is Event.SYSCALL:
            nr_stops += 1
            stopped = machine.run(until=f"syscall:{nr_stops + 1}")
        assert machine.stats() == stats
        assert machine.stdout == output == b"a\nb\n"
        assert nr_stops == stats["entries"]["syscalls"]


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["images/mem_fork", "3", "3"], {"ram": "3M", "swap": "16M", "kernel": "6.18"}),
        (["images/mem_fill", "2"], {"ram": "2M", "swap": "16M"}),
        (["/bin/sh", "-c", "for i in 1 2 3; do echo $i | cat; done & /bin/true; wait"], {}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_stopping_anywhere_changes_nothing(argv: list[str], options: dict[str, Any]) -> None:
    """At faults, calls, times and events, those of children and of reclaim too."""
    stats, output, _ = whole_run(argv, **options)
    draw = random.Random(40)
    reasons = set()
    with Machine(record_stats=True, **options) as machine:
        machine.spawn(argv, capture=True)
        stopped = machine.run(until="syscall:1")
        while stopped.reason is not Event.END:
            reasons.add(stopped.reason)
            nr_faults = machine.kernel.vmstat.pgfault
            skipped = iter(range(draw.randint(0, 60)))

            def is_next(_record: Record, skipped: Iterator[int] = skipped) -> bool:
                return next(skipped, None) is None

            untils: list[Any] = [
                f"fault:{nr_faults + draw.randint(1, 60)}",
                (machine.now_ns + draw.randint(1_000, 300_000)) / 1e9,
                When("all", where=is_next),
            ]
            stopped = machine.run(until=draw.choice(untils))
        assert {Event.FAULT, Event.TIME, Event.RECORD} <= reasons
        assert machine.stats() == stats
        assert machine.stdout == output


def test_faults_are_those_of_a_trace() -> None:
    _, _, records = whole_run(FAULTS)
    faults = [record for record in records if record["type"] == "fault"]
    with Machine() as machine:
        for fault in (faults[0], faults[5], faults[30], faults[-3]):
            run: Any = machine.run_program if fault is faults[0] else lambda _argv, **rest: machine.run(rest["until"])
            stopped = run(FAULTS, until=f"fault:{fault['fault_nr']}", capture=True)
            assert f"{stopped.address:#x}" == fault["address"]
            assert stopped.task.pid == fault["pid"]
            assert machine.page_at(stopped.address).pfn == fault["pfn"]
            assert stopped.in_kernel == (fault["syscall"] is not None)


def test_the_command_line_shows_the_same() -> None:
    argv = ("--at", "syscall:5", "--clear-env", "--", *FAULTS)
    shown = pagewalk("maps", *argv).stderr
    with Machine() as machine:
        machine.run_program(FAULTS, until="syscall:5", capture=True)
        assert machine.maps_text() == shown


def test_a_call_has_returned_and_its_task_has_not_gone_on() -> None:
    with Machine() as machine, machine.record("syscall") as calls:
        stopped = machine.run_program(FAULTS, until="syscall:2", capture=True)
        assert stopped.what == f"after system call 2 ({calls[1]['name']})"
        assert len(calls) == 2


def test_a_symbol_is_met_again_and_again() -> None:
    with Machine() as machine:
        machine.spawn(FAULTS, capture=True)
        depths = []
        while (stopped := machine.run(until="sym:grow_stack")).reason is Event.SYMBOL:
            assert stopped.address == machine.registers()["rip"]
            depths.append(machine.registers()["rdi"])
        assert depths == list(range(40, -1, -1))
        assert stopped.what == "grow_stack was never executed" or "ended" in stopped.what
        assert stopped.status == 0


def test_a_symbol_that_has_run_before_it_was_watched() -> None:
    """Its code is translated already; the watch must be heard all the same."""
    with Machine() as machine:
        machine.spawn(FAULTS, capture=True)
        first = machine.run(until="sym:write_anonymous")
        machine.run(until="sym:read_file")
        again = machine.run(until="sym:write_after_fork")
        assert first.task is not None and again.task is first.task
        assert machine.run() == 0


def test_a_symbol_watched_from_the_middle_of_an_event() -> None:
    stats, _, records = whole_run(FAULTS)
    number = next(record["fault_nr"] for record in records if record["type"] == "fault" and record["kind"] == "zero")
    with Machine(record_stats=True) as machine:
        machine.run_program(FAULTS, until=f"fault:{number}", capture=True)
        assert machine.run(until="sym:write_anonymous").address is not None
        assert machine.run(until="sym:write_anonymous").reason is Event.SYMBOL
        assert machine.run() == 0
        assert machine.stats()["faults"] == stats["faults"]


def test_a_time_is_met_to_the_block() -> None:
    with Machine() as machine:
        machine.spawn(["images/spin2", "2"], capture=True)
        shown = [machine.now_ns]
        for ms in (2, 3, 5, 8):
            stopped = machine.run(until=1 + ms / 1000)
            assert stopped.reason is Event.TIME and stopped.moment == Moment(Event.TIME, 1_000_000_000 + ms * 1_000_000)
            shown.append(machine.now_ns)
        for ms, now in zip((2, 3, 5, 8), shown[1:], strict=True):
            assert 0 <= now - (1_000_000_000 + ms * 1_000_000) < 20_000


def test_time_passes_while_every_task_sleeps() -> None:
    with Machine() as machine:
        machine.spawn(["/bin/sleep", "100"])
        assert machine.run(until=50).reason is Event.TIME
        assert machine.now_ns == 50_000_000_000
        assert machine.run(until="time:60.5").reason is Event.TIME
        assert machine.now_ns == 60_500_000_000
        assert machine.run() == 0
        assert 101e9 <= machine.now_ns < 102e9


def test_any_event_can_be_waited_for() -> None:
    _, _, records = whole_run(FAULTS)
    cows = [record["address"] for record in records if record["type"] == "fault" and record["kind"] == "cow"]
    found = []
    with Machine() as machine:
        when = When("faults", where=lambda record: record["kind"] == "cow")
        stopped = machine.run_program(FAULTS, until=when, capture=True)
        while stopped.reason is Event.RECORD:
            assert stopped.record is not None
            found.append(stopped.record["address"])
            stopped = machine.run(until=when)
    assert found == cows
    assert stopped.what == "the program ended; no such event came (faults)"


def test_a_tracepoint_can_be_waited_for() -> None:
    with Machine() as machine:
        stopped = machine.run_program(["images/p1", "2"], until=When("mm:vma_merge"), capture=True)
        assert stopped.record is not None and stopped.record["event"] == "mm:vma_merge"
        assert stopped.in_kernel
        with pytest.raises(NotNow, match="middle of something"):
            machine.reclaim(1)
        assert machine.run() == 0


def test_at_exit_the_memory_is_still_there() -> None:
    with Machine() as machine:
        stopped = machine.run_program(FAULTS, until="exit", capture=True)
        assert stopped.reason is Event.EXIT and stopped.status is None
        assert "[stack]" in machine.maps_text()
        assert machine.run() == 0
        assert machine.stopped is not None and machine.stopped.status == 0


def test_what_never_comes_is_said_with_how_far_it_came() -> None:
    for until, words in (
        ("fault:1000", " faults; fault:1000 never came"),
        ("syscall:1000", " system calls; syscall:1000 never came"),
        ("sym:no_such", "no_such is no function in what the program mapped to execute"),
        (3.5, "time:3.5 never came"),
    ):
        with Machine() as machine:
            stopped = machine.run_program(FAULTS, until=until, capture=True)
            assert stopped.reason is Event.END and stopped.status == 0
            assert words in stopped.what
            again = machine.run(until=until)
            assert again.reason is Event.END and again.status == 0


def test_what_is_over_is_refused() -> None:
    with Machine() as machine:
        machine.spawn(FAULTS, capture=True)
        for until in ("fault:1", 0.5):
            with pytest.raises(ValueError, match="is over"):
                machine.run(until=until)
        with pytest.raises(ValueError, match="is no moment"):
            machine.run(until="later")
        with pytest.raises(ValueError, match="no events 'nonsense'"):
            machine.run(until=When("nonsense"))
        assert machine.run() == 0


def test_in_the_middle_of_exec_the_kernel_is_left_alone() -> None:
    with Machine() as machine:
        stopped = machine.run_program(FAULTS, until="fault:1", capture=True)
        assert stopped.in_kernel
        assert "faults" in machine.maps_text()
        for name, action in (
            ("reclaim", lambda: machine.reclaim(1)),
            ("page_out", lambda: machine.page_out(0x401000)),
            ("write_memory", lambda: machine.write_memory(0x403F28, b"x")),
            ("spawn", lambda: machine.spawn(FAULTS)),
        ):
            with pytest.raises(NotNow, match=f"^{name}: the kernel is in the middle"):
                action()
        assert machine.run() == 0


def test_errors_come_out_of_the_run_they_happen_in() -> None:
    with Machine() as machine:
        machine.spawn(["/bin/sh", "-c", "kill -STOP $$"])
        stopped = machine.run(until="syscall:1")
        assert isinstance(stopped, Stopped)
        with pytest.raises(Deadlock, match="nothing can wake one"):
            machine.run()


def test_a_machine_may_be_dropped_in_the_middle() -> None:
    for until in ("fault:1", "fault:20", "syscall:3", "sym:main", "exit", When("mm:vma_merge")):
        machine = Machine()
        machine.run_program(FAULTS, until=until, capture=True)
        machine.close()
        with pytest.raises(NotNow):
            machine.run()
