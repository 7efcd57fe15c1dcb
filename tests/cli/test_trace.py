"""``pagewalk trace`` end to end: the shipped programs under the whole machine."""

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

from emu.trace.changes import REFUSALS, RULES
from emu.trace.text import COLUMNS
from tests.cli.pagewalk import ROOT, pagewalk, refused

FAULTS = "images/faults"


def trace(*args: str) -> list[dict[str, Any]]:
    """The JSON records of a run."""
    done = pagewalk("trace", "--format", "jsonl", *args)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.fixture(scope="module")
def faults() -> list[dict[str, Any]]:
    return [record for record in trace("-e", "faults", "--", FAULTS) if record["type"] == "fault"]


def of_line(faults: list[dict[str, Any]], symbol: str) -> list[dict[str, Any]]:
    return [fault for fault in faults if fault["code"]["symbol"] == symbol and fault["syscall"] is None]


def source_line(text: str) -> int:
    """The number of the line of userland/faults.c that holds ``text``."""
    lines = (ROOT / "userland/faults.c").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_the_program_s_output_is_untouched() -> None:
    native = subprocess.run([str(ROOT / FAULTS)], capture_output=True, text=True, check=True, cwd=ROOT)
    done = pagewalk("trace", "-e", "faults", "--", FAULTS)
    assert done.stdout == native.stdout


@pytest.mark.parametrize(
    ("function", "statement", "access", "kind"),
    [
        ("read_untouched", "return page[0];", "read", "zero"),
        ("write_anonymous", "page[0] = value;", "write", "anonymous"),
        ("write_private_file", "mapping[1] = value;", "write", "file_cow"),
        ("write_after_fork", "page[1] = value;", "write", "cow"),
        ("write_shared", "page[0] = value;", "write", "shared"),
        ("grow_stack", "frame[0] = pages;", "write", "stack"),
    ],
)
def test_each_kind_of_fault_names_its_line(
    faults: list[dict[str, Any]], function: str, statement: str, access: str, kind: str
) -> None:
    found = [fault for fault in of_line(faults, function) if fault["kind"] == kind]
    assert found, f"no {kind} fault in {function}: {[(f['kind'], f['code']['text']) for f in faults]}"
    lines = (ROOT / "userland/faults.c").read_text().splitlines()
    for fault in found:
        assert fault["access"] == access
        assert fault["code"]["file"].endswith("userland/faults.c")
        near = lines[max(0, fault["code"]["line"] - 2) : fault["code"]["line"] + 1]
        assert any(statement in line for line in near), near


def test_every_fault_of_user_code_has_symbol_line_and_instruction(faults: list[dict[str, Any]]) -> None:
    for fault in faults:
        if fault["syscall"] is None:
            assert fault["code"]["symbol"] and fault["code"]["line"] and fault["code"]["insn"], fault
            assert fault["code"]["module"].endswith("images/faults")


def test_faults_are_numbered_from_one(faults: list[dict[str, Any]]) -> None:
    assert [fault["fault_nr"] for fault in faults] == list(range(1, len(faults) + 1))


def test_two_runs_give_the_same_bytes() -> None:
    args = ("trace", "-e", "faults,syscalls,mm,rmap,sched,signal", "--", FAULTS)
    assert pagewalk(*args).stderr == pagewalk(*args).stderr


def test_every_record_fits_the_schema() -> None:
    schema = json.loads(resources.files("emu.trace").joinpath("schema/trace-1.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    for record in trace("-e", "faults,syscalls,mm,rmap,sched,signal", "--", FAULTS):
        validator.validate(record)


def test_text_goes_to_a_file(tmp_path: Path) -> None:
    target = tmp_path / "trace.txt"
    done = pagewalk("trace", "-o", target, "--", "images/hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello, world\n", "")
    assert target.read_text().startswith("#nr ")


def test_a_trace_changes_nothing() -> None:
    plain = pagewalk("run", "--stats", "-q", "--", FAULTS)
    traced = pagewalk("trace", "-e", "faults,syscalls", "-o", "/dev/null", "--stats", "-q", "--", FAULTS)
    assert traced.stderr == plain.stderr


@pytest.mark.parametrize(
    "args", [("m:0:4:rw", "w:0", "p:1:1:r", "v:0:1:2:M", "v:0:4:8:M", "u:2:1", "l:3:1", "y:3:1:S")]
)
def test_memory_calls_read_as_strace_prints_them(tmp_path: Path, args: tuple[str, ...]) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (CI installs it)")
    calls = tmp_path / "calls"
    subprocess.run(
        ["strace", "-e", "trace=%memory", "-o", str(calls), "images/vmscript", *args],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    done = pagewalk(
        "trace", "-e", "syscalls", "--syscall", "%memory", "--kernel", "6.18", "--", "images/vmscript", *args
    )
    assert normalised(done.stderr) == normalised(calls.read_text())


def test_help_explains_columns_and_kinds() -> None:
    said = pagewalk("trace", "--help").stdout
    for name, _, _ in COLUMNS:
        assert re.search(rf"^    {name} ", said, re.MULTILINE), name
    for kind in (*RULES, *REFUSALS):
        assert re.search(rf"^    {kind} ", said, re.MULTILINE), kind


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--kind", "nope"), "no kind 'nope'; there are zero, anonymous, "),
        (("-e", "syscalls", "--kind", "cow"), "invalid value for --kind: needs -e faults"),
        (("-e", "faults", "--syscall", "brk"), "invalid value for --syscall: needs -e syscalls"),
        (("-e", "mm", "--addr", "1000"), "invalid value for --addr: needs -e faults"),
        (("--addr", "5000-3000"), "'5000-3000' is an empty range"),
        (("--addr", "main"), "'main' is no address or range"),
        (("-e", "trace=mmap"), "for some calls only: -e syscalls --syscall"),
        (("-e", "fault"), "no events 'fault'; there are faults, syscalls, "),
        (("--syscall", "mmmap"), "no system call 'mmmap'; classes are "),
    ],
)
def test_options_that_mean_nothing(args: tuple[str, ...], said: str) -> None:
    assert said in refused("trace", *args, "--", FAULTS)


def test_options_say_what_is_traced() -> None:
    calls = pagewalk("trace", "--syscall", "mmap,%process", "--", FAULTS).stderr.splitlines()
    assert calls and all(line.startswith("[pid ") for line in calls)
    assert {line.split("] ")[1].split("(")[0] for line in calls if "(" in line} >= {"mmap", "fork", "wait4"}
    both = pagewalk("trace", "--syscall", "mmap", "--kind", "cow", "--", FAULTS).stderr
    assert "#nr " in both and " mmap(" in both and " munmap(" not in both


def test_kinds_as_they_are_printed() -> None:
    done = pagewalk("trace", "--kind", "SIGSEGV_MAPERR", "--", "images/segv")
    rows = [line.split()[3] for line in done.stderr.splitlines() if re.match(r"#\d", line)]
    assert len(rows) > 1 and set(rows) == {"SIGSEGV_MAPERR"}


def test_flushes_of_the_tlb() -> None:
    events = [record for record in trace("-e", "tlb", "--", FAULTS) if record["type"] == "event"]
    reasons = {record["fields"]["reason"]: record["fields"] for record in events}
    assert set(reasons) == {"flush on task switch", "local shootdown", "local mm shootdown"}
    assert reasons["flush on task switch"]["pages"] == -1 and reasons["local shootdown"]["pages"] == 1
    assert int(reasons["local shootdown"]["addr"], 16) > 0


def test_a_signal_s_frame_is_no_call_s(tmp_path: Path) -> None:
    source = tmp_path / "frame.c"
    source.write_text(ON_ANOTHER_STACK)
    subprocess.run(["gcc", "-static", "-o", str(tmp_path / "frame"), str(source)], check=True)
    done = pagewalk("trace", "-e", "faults,syscalls", "--", tmp_path / "frame")
    lines = done.stderr.splitlines()
    (at,) = (number for number, line in enumerate(lines) if "--- SIGUSR1 " in line)
    assert lines[at + 1].endswith("  in signal delivery") and " write " in lines[at + 1]


ON_ANOTHER_STACK = """\
#include <signal.h>
#include <sys/mman.h>
static void handle(int sig) { (void)sig; }
int main(void) {
    stack_t stack = {.ss_sp = mmap(0, 65536, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), .ss_size = 65536};
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    sigaltstack(&stack, 0);
    sigaction(SIGUSR1, &action, 0);
    return raise(SIGUSR1);
}
"""


def normalised(text: str) -> list[str]:
    """Without prefix, our reasons, and addresses that the two kernels choose."""
    lines = []
    for line in text.splitlines():
        line = re.sub(r"^\[pid +\d+\] ", "", line)
        line = re.sub(r"(-1 E\w+ \([^:)]*): [^)]*\)", r"\1)", line)
        line = re.sub(r"0x(?!2000)[0-9a-f]{6,}", "ADDR", line)
        lines.append(re.sub(r" +", " ", line))
    return lines
