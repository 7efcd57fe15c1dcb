"""``pagewalk maps|pt|page|rmap`` end to end: the moments, the verbs' options, their errors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from emu.inspect.moment import Event, Moment
from tests.cli.pagewalk import ROOT, pagewalk, refused

FAULTS = "images/faults"
SCHEMA = json.loads(resources.files("emu.inspect").joinpath("schema/inspect-1.json").read_text())


def view(verb: str, *args: str) -> dict[str, Any]:
    """The JSON of a view, checked against the schema."""
    done = pagewalk(verb, "--json", *args)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stderr)
    jsonschema.Draft202012Validator(SCHEMA).validate(found)
    return found


def trace(*args: str) -> list[dict[str, Any]]:
    done = pagewalk("trace", "--format", "jsonl", *args)
    return [json.loads(line) for line in done.stderr.splitlines()]


# ---- moments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("exit", Moment(Event.EXIT)),
        ("fault:12", Moment(Event.FAULT, 12)),
        ("syscall:1", Moment(Event.SYSCALL, 1)),
        ("sym:main", Moment(Event.SYMBOL, symbol="main")),
        ("time:2", Moment(Event.TIME, 2_000_000_000)),
        ("time:1.000001", Moment(Event.TIME, 1_000_001_000)),
        ("sym:std::vector<int>::size() const", Moment(Event.SYMBOL, symbol="std::vector<int>::size() const")),
    ],
)
def test_moments_are_read_and_written(text: str, moment: Moment) -> None:
    assert Moment.parse(text) == moment
    assert str(moment) == text


@pytest.mark.parametrize(
    "text", ["", "end", "fault", "fault:", "fault:0", "fault:-1", "syscall:x", "sym:", "main", "time:", "time:1s"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment"):
        Moment.parse(text)
    assert "is no moment" in refused("maps", "--at", text, "--", FAULTS)


def test_every_fault_can_be_stopped_at() -> None:
    """At fault N the page tables map what the trace's fault N says."""
    faults = [record for record in trace("-e", "faults", "--", FAULTS) if record["type"] == "fault"]
    for fault in (faults[0], faults[3], faults[6], faults[-8]):
        address = fault["address"]
        found = view("page", "--at", f"fault:{fault['fault_nr']}", address, "--", FAULTS)
        assert found["pid"] == fault["pid"]
        assert found["pfn"] == fault["pfn"]


def test_the_first_write_to_a_zero_page_replaces_it() -> None:
    faults = [record for record in trace("-e", "faults", "--", FAULTS) if record["type"] == "fault"]
    zero = next(fault for fault in faults if fault["kind"] == "zero")
    cow = next(fault for fault in faults if fault["kind"] == "cow" and fault["address"] == zero["address"])
    before = view("page", "--at", f"fault:{zero['fault_nr']}", zero["address"], "--", FAULTS)
    after = view("page", "--at", f"fault:{cow['fault_nr']}", zero["address"], "--", FAULTS)
    assert before["state"] == "zero" and after["state"] == "page"
    assert after["references"] == {"page_tables": 1}


def test_system_calls_are_counted_as_a_trace_prints_them() -> None:
    calls = [record for record in trace("-e", "syscalls", "--", FAULTS) if record["type"] == "syscall"]
    number = next(i for i, call in enumerate(calls, 1) if call["name"] == "mmap")
    found = view("maps", "--at", f"syscall:{number}", "--", FAULTS)
    assert found["event"] == f"after system call {number} (mmap)"
    assert calls[number - 1]["ret"] in {area["start"] for area in found["areas"]}
    before = view("maps", "--at", "sym:main", "--", FAULTS)
    assert calls[number - 1]["ret"] not in {area["start"] for area in before["areas"]}


def test_a_call_that_does_not_return_is_looked_at_before_it_ends_everything() -> None:
    calls = [record for record in trace("-e", "syscalls", "--", "images/hello") if record["type"] == "syscall"]
    assert calls[-1]["name"] == "exit_group"
    found = view("maps", "--at", f"syscall:{len(calls)}", "--", "images/hello")
    assert "exit_group" in found["event"] and found["areas"]


def test_a_time_is_met_while_the_program_runs() -> None:
    found = view("maps", "--at", "time:1.00005", "--", FAULTS)
    assert found["at"] == "time:1.00005" and found["event"] == "at time:1.00005" and found["areas"]
    assert "never came" in refused_after_running("time:5")


def refused_after_running(at: str) -> str:
    done = pagewalk("maps", "--at", at, "--", FAULTS)
    assert done.returncode == 125
    return done.stderr


def test_a_symbol_is_met_before_its_first_instruction() -> None:
    """grow_stack() has not run: the stack is as exec made it, with the program counter's page the only hint."""
    before = view("maps", "--at", "sym:grow_stack", "[stack]", "--", FAULTS)["areas"]
    after = view("maps", "[stack]", "--", FAULTS)["areas"]
    (small,), (large,) = ([area for area in areas if area["hit"]] for areas in (before, after))
    assert small["end"] == large["end"] and int(small["start"], 16) > int(large["start"], 16)


def test_a_symbol_of_a_shared_library() -> None:
    """It is found when the dynamic loader maps the library, whatever the address."""
    cat = shutil.which("cat")
    assert cat is not None
    found = view("maps", "--at", "sym:setlocale", "--", cat, "/dev/null")
    assert any("libc.so" in area["name"] and "x" in area["perms"] for area in found["areas"])


def test_a_symbol_changes_nothing() -> None:
    """The program up to its end behaves as without the watch."""
    plain = pagewalk("run", "--", FAULTS)
    watched = pagewalk("maps", "--at", "sym:no_such_function", "--", FAULTS)
    assert watched.stdout == plain.stdout
    assert watched.stderr == "pagewalk: no_such_function is no function in what the program mapped to execute\n"


def test_moments_that_never_come() -> None:
    # the guest's output comes before the one line
    done = pagewalk("maps", "--at", "fault:100000", "--", "images/hello")
    assert done.returncode == 125 and re.search(r"ended after \d+ faults; fault:100000 never came", done.stderr)
    done = pagewalk("maps", "--at", "syscall:9999", "--", "images/hello")
    assert done.returncode == 125 and "system calls; syscall:9999 never came" in done.stderr
    done = pagewalk("maps", "--at", "fault:1", "--pid", "77", "--", "images/hello")
    assert done.returncode == 125 and "no process 77" in done.stderr


def test_another_process_can_be_looked_at() -> None:
    faults = [record for record in trace("-e", "faults", "--", FAULTS) if record["type"] == "fault"]
    child = next(fault for fault in faults if fault["pid"] != faults[0]["pid"])
    at = f"fault:{child['fault_nr']}"
    own = view("maps", "--at", at, "--", FAULTS)
    other = view("maps", "--at", at, "--pid", str(faults[0]["pid"]), "--", FAULTS)
    assert (own["pid"], other["pid"]) == (child["pid"], faults[0]["pid"])
    assert own["mm"] != other["mm"]


def test_a_program_killed_by_a_signal_is_seen_as_it_died() -> None:
    assert view("maps", "--", "images/segv")["areas"]


def test_a_program_that_does_not_exist() -> None:
    assert refused("maps", "--", "images/nothing", status=127)


# ---- the views ------------------------------------------------------------------------------------------------------


def test_maps_are_what_the_program_reads_in_proc() -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed (CI installs it)")
    done = pagewalk("maps", "--", busybox, "cat", "/proc/self/maps")
    assert done.stderr == done.stdout != ""


def test_the_program_s_output_is_untouched(tmp_path: Path) -> None:
    native = subprocess.run([str(ROOT / FAULTS)], capture_output=True, text=True, check=True, cwd=ROOT)
    target = tmp_path / "maps"
    done = pagewalk("maps", "-o", target, "--", FAULTS)
    assert (done.stdout, done.stderr) == (native.stdout, "")
    assert target.read_text().splitlines()[0].startswith("00400000-00401000 r--p 00000000 ")
    assert pagewalk("maps", "-o", "-", "--", FAULTS).stdout == native.stdout + target.read_text()


@pytest.mark.parametrize(
    "args",
    [
        ("maps", "--explain", "--gaps", "--", FAULTS),
        ("maps", "--smaps", "--", FAULTS),
        ("pt", "--", FAULTS),
        ("pt", "--raw", "--at", "fault:20", "--", FAULTS),
        ("page", "pfn:0x12", "--", FAULTS),
        ("rmap", "--kernel", "6.1", "--at", "fault:52", "--", FAULTS),
        ("rmap", "--dot", "--", FAULTS),
    ],
)
def test_two_runs_give_the_same_bytes(args: tuple[str, ...]) -> None:
    first, second = pagewalk(*args), pagewalk(*args)
    assert first.returncode == 0 and first.stderr
    assert (first.stdout, first.stderr) == (second.stdout, second.stderr)


def test_areas_and_page_tables_agree() -> None:
    areas = view("maps", "--smaps", "--", FAULTS)["areas"]
    ranges = view("pt", "--", FAULTS)["ranges"]
    resident = sum(area["smaps"]["resident_bytes"] for area in areas)
    assert resident == 4096 * sum(found["pages"] for found in ranges if found["state"] in ("page", "prot-none"))
    for found in ranges:
        assert any(
            int(area["start"], 16) <= int(found["start"], 16) and int(found["end"], 16) <= int(area["end"], 16)
            for area in areas
        )


def test_swapped_pages_have_slots() -> None:
    args = ("--ram", "4M", "--swap", "64M", "--", "images/mem_fill", "8", "1")
    swapped = [found for found in view("pt", *args)["ranges"] if found["state"] == "swap"]
    assert swapped
    page = view("page", *args[:4], swapped[0]["start"], *args[4:])
    assert (page["state"], page["slot"]) == ("swap", swapped[0]["slot"])
    assert page["holders"] == [{"mm": page["mm"], "address": swapped[0]["start"]}]


def test_the_first_write_is_named_with_its_line() -> None:
    areas = view("maps", "--explain", "--", FAULTS)["areas"]
    assert any(re.search(r"by write_anonymous.* faults\.c:\d+$", area["first_write"] or "") for area in areas)


def test_dot_is_accepted_by_graphviz() -> None:
    done = pagewalk("rmap", "--dot", "--kernel", "6.1", "--at", "fault:52", "--", FAULTS)
    assert done.returncode == 0
    dot = shutil.which("dot")
    if dot is None:
        pytest.skip("graphviz is not installed (CI installs it)")
    drawn = subprocess.run([dot, "-Tsvg"], input=done.stderr, capture_output=True, text=True, check=True)
    assert "</svg>" in drawn.stdout and not drawn.stderr


def test_usage_errors() -> None:
    assert "which page?" in refused("page", "--", FAULTS)
    assert "is no page" in refused("page", "here", "--", FAULTS)
    assert "is no range" in refused("pt", "--range", "5", "--", FAULTS)
    assert "exclude each other" in refused("rmap", "--dot", "--json", "--", FAULTS)
    done = pagewalk("maps", "-o", "/dev/null", "0x1", "--", FAULTS)
    assert done.returncode == 125 and "no area holds '0x1' at exit" in done.stderr


def test_the_word_before_the_dashes_is_no_option_value() -> None:
    """``-o FILE --`` and ``--kernel NAME --`` have a value there, not an address."""
    assert pagewalk("maps", "-o", "/dev/null", "--", "images/hello").returncode == 0
    assert pagewalk("maps", "--kernel", "6.18", "--", "images/hello").returncode == 0
    assert pagewalk("maps", "--explain", "[stack]", "--", "images/hello").stderr.startswith("=> ")


@pytest.mark.parametrize("verb", ["maps", "pt", "page", "rmap"])
def test_help_has_an_example_and_explains_the_columns(verb: str) -> None:
    text = pagewalk(verb, "--help").stdout
    assert f"pagewalk {verb} " in text and "Columns:" in text and "--at MOMENT" in text
