"""Chrome trace JSON, held to the rules that Perfetto's importer has, and to more.

trace_processor itself is a program that must be downloaded, so its rules are checked here one by one: they were read
out of its JSON importer (types of fields, times cut off to nanoseconds, slices as a stack, arrows bound to the slice
on top, direction of arrows by the slices' starts).
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.trace.perfetto import MACHINE_PID, PerfettoSink, _microseconds
from kernel.clock import NS_PER_FAULT, NS_PER_SYSCALL
from tests.cli.pagewalk import pagewalk

Event = dict[str, Any]

FAULTS = ("--", "images/faults")
SWAP = ("--ram", "4M", "--swap", "64M", "--", "images/mem_fill", "6", "1")
FORK_SWAP = ("-e", "all", "--ram", "4M", "--swap", "64M", "--", "images/mem_fork", "5", "3")
EXEC = ("-e", "all", "--", "busybox", "sh", "-c", "ls / > /dev/null; cat /proc/self/maps > /dev/null")
RUNS = {"faults": FAULTS, "swap": SWAP, "fork and swap": FORK_SWAP, "exec": EXEC}


@functools.cache
def trace(*args: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "trace.json"
        assert pagewalk("trace", "--format", "perfetto", "-o", target, *args).returncode == 0
        found: dict[str, Any] = json.loads(target.read_text())
        return found


@pytest.fixture(params=list(RUNS))
def events(request: pytest.FixtureRequest) -> list[Event]:
    if request.param == "exec" and shutil.which("busybox") is None:
        pytest.skip("busybox is not installed (CI installs it)")
    found: list[Event] = trace(*RUNS[request.param])["traceEvents"]
    assert len(found) > 20
    return found


def ns(event: Event, key: str = "ts") -> int:
    """As trace_processor computes it."""
    value = event[key]
    return value * 1000 if isinstance(value, int) else int(value * 1000.0)


def of_phase(events: list[Event], phase: str) -> list[Event]:
    return [event for event in events if event["ph"] == phase]


# ---- the rules ------------------------------------------------------------------------------------------------------


def test_every_event_has_its_fields(events: list[Event]) -> None:
    needed = {"X": {"dur", "cat", "args"}, "i": {"s", "args"}, "C": {"args"}, "M": {"args"}}
    needed |= {"s": {"id", "cat"}, "f": {"id", "cat", "bp"}}
    for event in events:
        assert {"ph", "name", "ts", "pid", "tid"} | needed[event["ph"]] <= event.keys()
        assert type(event["pid"]) is int and type(event["tid"]) is int and event["name"]
        assert 0 < event["pid"] < 1 << 32 and 0 < event["tid"] < 1 << 32
        assert event["ts"] >= 0 and event.get("dur", 0) >= 0


def test_events_are_sorted(events: list[Event]) -> None:
    times = [ns(event) for event in events]
    assert times == sorted(times)


def test_slices_of_a_track_nest(events: list[Event]) -> None:
    stacks: dict[tuple[int, int], list[int]] = defaultdict(list)
    ended: dict[tuple[int, int], int] = defaultdict(int)
    for event in of_phase(events, "X"):
        start, end = ns(event), ns(event) + ns(event, "dur")
        stack = stacks[event["pid"], event["tid"]]
        while stack and stack[-1] <= start:
            ended[event["pid"], event["tid"]] = stack.pop()
        assert start < end and (not stack or end < stack[-1]), event
        assert start > ended[event["pid"], event["tid"]], event  # with room between two neighbours
        stack.append(end)


def test_every_process_and_track_has_a_name(events: list[Event]) -> None:
    named = {(event["pid"], event["tid"]) for event in of_phase(events, "M") if event["name"] == "thread_name"}
    processes = {event["pid"] for event in of_phase(events, "M") if event["name"] == "process_name"}
    assert {(event["pid"], event["tid"]) for event in events} == named
    assert {event["pid"] for event in events} == processes
    assert all(event["args"]["name"] for event in of_phase(events, "M"))


def test_counters_are_numbers(events: list[Event]) -> None:
    counters = of_phase(events, "C")
    assert counters
    for event in counters:
        assert event["args"] and all(type(value) is int and value >= 0 for value in event["args"].values())


def test_arrows_start_and_end_at_slices_in_that_order(events: list[Event]) -> None:
    """The slice on top of the track's stack is the arrow's; it must be the one that begins there."""
    top: dict[tuple[int, int], Event] = {}
    ends: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        track = event["pid"], event["tid"]
        if event["ph"] in ("X", "i"):
            top[track] = event
        elif event["ph"] in ("s", "f"):
            assert track in top and ns(top[track]) == ns(event), event
            ends[event["id"]].append(top[track])
            assert event["ph"] == "sf"[len(ends[event["id"]]) - 1]
    for source, target in ends.values():
        assert ns(source) < ns(target)
        assert source["name"].startswith("write ")


# ---- what is in it --------------------------------------------------------------------------------------------------


def test_calls_and_faults_are_those_of_the_trace() -> None:
    events = trace(*FAULTS)["traceEvents"]
    done = pagewalk("trace", "-e", "faults,syscalls", "--format", "jsonl", *FAULTS)
    records = [json.loads(line) for line in done.stderr.splitlines()]
    slices = of_phase(events, "X")
    for kind, category in (("fault", "fault"), ("syscall", "syscall")):
        expected = [record for record in records if record["type"] == kind]
        drawn = [event for event in slices if event["cat"] == category]
        assert len(drawn) == len(expected)
    faults = {event["args"]["number"]: event for event in slices if event["cat"] == "fault"}
    for record in records:
        if record["type"] == "fault" and record["syscall"] is None:
            event = faults[record["fault_nr"]]
            assert event["args"]["address"] == record["address"] and event["name"] == f"fault {record['kind']}"
            assert ns(event) + ns(event, "dur") == record["ts_ns"] and ns(event, "dur") == NS_PER_FAULT - 1
            assert (event["pid"], event["tid"]) == (record["tgid"], record["pid"])


def test_faults_say_what_they_changed_and_which_instructions_led_there() -> None:
    args = ("--insns", "around-fault:4", *FAULTS)
    faults = [event["args"] for event in trace(*args)["traceEvents"] if event.get("cat") == "fault"]
    lists = [fault["insns"] for fault in faults if "insns" in fault]
    assert len(lists) > 40 and all(1 <= len(insns) <= 4 for insns in lists)
    write, again = (fault for fault in faults if fault["code"].startswith("write_after_fork"))
    assert write["cost"] == "1us, copied" and "a copy" in write["rule"] and "changed" not in write
    assert again["cost"] == "1us" and "made writable" in again["rule"]
    assert write["insns"][-1].endswith(write["insn"]) and write["pfn"] != write["old_pfn"]
    assert any(fault.get("changed", "").startswith("anon_vma #") for fault in faults)


def test_a_call_lasts_from_its_entry_to_its_return() -> None:
    waits = [event for event in trace(*FAULTS)["traceEvents"] if event["name"] == "wait4"]
    (wait,) = waits
    assert ns(wait, "dur") > NS_PER_SYSCALL  # it slept
    (exits,) = [e for e in trace(*FAULTS)["traceEvents"] if e["name"] == "exit" and e["pid"] != wait["pid"]]
    assert ns(wait) < ns(exits) <= ns(wait) + ns(wait, "dur")


def test_one_task_runs_at_a_time() -> None:
    cpu = [event for event in of_phase(trace(*FAULTS)["traceEvents"], "X") if event["cat"] == "sched"]
    assert {event["name"] for event in cpu} == {"faults/2", "faults/3"}
    for before, after in itertools.pairwise(cpu):
        assert ns(before) + ns(before, "dur") <= ns(after)


def test_pages_come_back_from_swap_with_arrows() -> None:
    events = trace(*SWAP)["traceEvents"]
    majors = [event for event in events if event["name"] == "fault swap major"]
    targets = {(event["tid"], ns(event)) for event in of_phase(events, "f") if event["name"] == "swap-in"}
    assert len(majors) > 50
    assert {(event["tid"], ns(event)) for event in majors} == targets
    swap = [event["args"]["KiB"] for event in of_phase(events, "C") if event["name"] == "swap"]
    assert max(swap) > 1000 and swap[-1] == 0


def test_the_machine_has_a_process_of_its_own() -> None:
    names = {
        event["args"]["name"]
        for event in of_phase(trace(*SWAP)["traceEvents"], "M")
        if event["pid"] == MACHINE_PID and event["name"] == "thread_name"
    }
    assert names == {"machine", "cpu", "swap"}


def test_the_header_says_what_was_run() -> None:
    found = trace(*FAULTS)
    assert found["otherData"]["argv"] == ["images/faults"] and found["otherData"]["status"] == 0
    assert found["displayTimeUnit"] == "ns"


def test_two_runs_give_the_same_bytes() -> None:
    args = ("trace", "--format", "perfetto", *FAULTS)
    assert pagewalk(*args).stderr == pagewalk(*args).stderr


@given(st.integers(min_value=0, max_value=1 << 52))
def test_no_nanosecond_is_lost(time: int) -> None:
    value = json.loads(json.dumps(_microseconds(time)))
    assert (value * 1000 if isinstance(value, int) else int(value * 1000.0)) == time


def test_a_trace_of_nothing_is_a_trace() -> None:
    stream = io.BytesIO()
    sink = PerfettoSink(stream)
    sink.header({"type": "header", "schema": 1})
    sink.end({"type": "end", "status": None, "counts": {}})
    assert json.loads(stream.getvalue())["traceEvents"] == []


def test_a_kernel_fault_in_no_call_is_drawn_alone() -> None:
    """exec of the first program, or a call that a filter hides."""
    events = trace("-e", "faults", *FAULTS)["traceEvents"]
    kernel_faults = [event for event in of_phase(events, "X") if ns(event, "dur") == 1]
    assert kernel_faults and all(event["cat"] == "fault" for event in kernel_faults)


def test_faults_that_find_no_room_in_their_call_are_counted() -> None:
    """populate: 2000 pages in one call that is charged half a microsecond."""
    events = trace("--", "images/vmscript", "m:0:2000:rw:P")["traceEvents"]
    calls = [event for event in events if event.get("args", {}).get("faults", 0) >= 2000]
    assert [event["name"] for event in calls] == ["mmap"]
