"""Events: the records of a trace, told to callbacks and collected in lists."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema
import pytest

from emu import Machine, NotNow
from emu.events import event_names
from emu.trace.records import Record
from kernel.trace import tracepoints
from tests.cli.pagewalk import pagewalk

FAULTS = ["images/faults"]
SCHEMA = json.loads(resources.files("emu.trace").joinpath("schema/trace-1.json").read_text())


def test_records_are_those_of_a_trace() -> None:
    traced = pagewalk("trace", "--clear-env", "-e", "faults,syscalls", "--format", "jsonl", "--", *FAULTS).stderr
    lines = [json.loads(line) for line in traced.splitlines()][1:-1]
    with Machine() as machine, machine.record("faults", "syscalls") as records:
        machine.run_program(FAULTS, capture=True)
    assert json.loads(json.dumps(records)) == lines


def test_every_record_follows_the_schema() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    with Machine(ram="4M", swap="16M") as machine, machine.record("all") as records:
        machine.run_program(["images/mem_fill", "6"], capture=True)
    assert {"fault", "syscall", "event", "exit"} <= {record["type"] for record in records}
    for record in records[:: max(1, len(records) // 200)]:
        validator.validate(json.loads(json.dumps(record)))


def test_names_of_one_type() -> None:
    counts: dict[str, int] = {}

    def count(record: Record) -> None:
        counts[record["type"]] = counts.get(record["type"], 0) + 1

    with Machine() as machine:
        for name in ("fault", "syscall", "exit"):
            machine.on(name, count)
        machine.run_program(FAULTS, capture=True)
        assert counts["fault"] == machine.kernel.vmstat.pgfault
        assert counts["syscall"] == machine.entry.nr_syscalls
        assert counts["exit"] == 2


def test_one_tracepoint() -> None:
    with Machine() as machine, machine.record("mm:vma_merge") as merges, machine.record("mm") as all_mm:
        machine.run_program(["images/p1"], capture=True)
    assert merges and {record["event"] for record in merges} == {"mm:vma_merge"}
    assert [record["fields"] for record in merges] == [
        record["fields"] for record in all_mm if record["event"] == "mm:vma_merge"
    ]


@pytest.mark.parametrize("point", [point.name for point in tracepoints()])
def test_every_tracepoint_can_be_listened_to(point: str) -> None:
    with Machine() as machine, machine.record(point) as records:
        machine.run_program(["images/hello"], capture=True)
    for record in records:
        json.dumps(record)
    assert records or not point.startswith(("exceptions:", "syscalls:", "sched:sched_process_ex"))


def test_names_that_are_none_are_refused() -> None:
    with Machine() as machine, pytest.raises(ValueError, match="no events 'fauts'; there are all, faults, syscalls"):
        machine.on("fauts", print)
    assert "mm:vma_merge" in event_names()


def test_numbers_do_not_depend_on_when_one_began_to_listen() -> None:
    with Machine() as machine:
        machine.spawn(FAULTS, capture=True)
        nr_of_exec = machine.kernel.vmstat.pgfault
        with machine.record("fault") as faults:
            machine.run()
    assert nr_of_exec > 0 and faults[0]["fault_nr"] == nr_of_exec + 1
    assert faults[-1]["fault_nr"] == machine.kernel.vmstat.pgfault


def test_closing_ends_it() -> None:
    seen: list[int] = []
    with Machine() as machine:
        machine.spawn(FAULTS, capture=True)
        first = machine.kernel.vmstat.pgfault + 1
        subscription = machine.on("fault", lambda record: seen.append(record["fault_nr"]))
        machine.run(until="fault:10")
        subscription.close()
        subscription.close()
        assert not subscription.is_open
        machine.run()
    assert seen == list(range(first, 11))


def test_nothing_listens_when_all_is_closed() -> None:
    with Machine() as machine:
        machine.on("all", print).close()
        machine.record("faults", "mm:vma_merge")
    assert [point.name for point in tracepoints() if point.on] == []


def test_a_callback_s_error_comes_out_of_run_and_the_machine_goes_on() -> None:
    numbers = []

    def fail_at_ten(record: Record) -> None:
        numbers.append(record["fault_nr"])
        if record["fault_nr"] == 10:
            raise KeyError("ten")

    with Machine(record_stats=True) as plain:
        plain.run_program(FAULTS, capture=True)
    with Machine(record_stats=True) as machine:
        machine.on("fault", fail_at_ten)
        machine.spawn(FAULTS, capture=True)
        with pytest.raises(KeyError, match="ten"):
            machine.run()
        assert numbers[-1] == 10
        assert machine.run() == 0
        assert machine.stdout == plain.stdout
        assert machine.stats()["faults"] == plain.stats()["faults"]


def test_a_callback_s_error_while_the_program_is_loaded() -> None:
    def fail(record: Record) -> None:
        raise KeyError("at once")

    with Machine() as machine:
        subscription = machine.on("fault", fail)
        with pytest.raises(KeyError):
            machine.spawn(FAULTS, capture=True)
        subscription.close()
        assert machine.run() == 0


def test_a_callback_may_look_and_may_not_run_or_change() -> None:
    looked: list[Any] = []

    def look(record: Record) -> None:
        looked.append(machine.page_at(int(record["address"], 16)).pfn == record["pfn"])
        looked.append(machine.stopped is None)
        for action in (machine.run, lambda: machine.reclaim(1), lambda: machine.write_memory(0x401000, b"x")):
            try:
                action()
            except NotNow as error:
                looked.append("running" in str(error))

    with Machine() as machine:
        machine.spawn(FAULTS, capture=True)
        nr_before = machine.kernel.vmstat.pgfault
        machine.on("fault", look)
        machine.run()
        assert len(looked) == 5 * (machine.kernel.vmstat.pgfault - nr_before)
    assert all(looked)


def test_two_machines_do_not_hear_each_other() -> None:
    with Machine() as one, Machine(kernel="6.1") as other, one.record("fault") as ours, other.record("fault") as theirs:
        one.run_program(FAULTS, until="fault:20", capture=True)
        other.run_program(["images/hello"], capture=True)
        one.run()
        assert [record["fault_nr"] for record in ours] == list(range(1, one.kernel.vmstat.pgfault + 1))
    assert {record["comm"] for record in theirs} <= {"", "hello"}


def test_a_machine_in_the_callback_of_another() -> None:
    outputs = []

    def run_another(record: Record) -> None:
        with Machine() as inner:
            inner.run_program(["images/hello"], capture=True)
            outputs.append(inner.stdout)

    with Machine() as machine, machine.record("fault") as faults:
        machine.on("exit", run_another)
        machine.run_program(FAULTS, capture=True)
        assert len(faults) == machine.kernel.vmstat.pgfault
    assert outputs == [b"Hello, world\n"] * 2
