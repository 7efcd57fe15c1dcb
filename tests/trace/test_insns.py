"""Instruction streams: exactly what a real processor executes, and nothing else of the run changes."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emu.cpu import unicorn_abi as abi
from emu.disasm import MAX_INSN_BYTES, disassemble
from emu.machine import Machine, MachineConfig
from emu.trace.insns import InsnStream
from emu.trace.locate import Locator
from emu.trace.peek import peek_code
from kernel.mm.fault import PAGE_FAULT_USER
from tests.cli.pagewalk import ROOT, pagewalk, refused

PROGRAMS = Path(__file__).parent / "programs"
FREESTANDING = ("-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie")


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("stream") / "stream"
    flags = ("-O1", "-g", "-fcf-protection=none", *FREESTANDING)
    subprocess.run(["gcc", *flags, "-o", str(target), str(PROGRAMS / "stream.c")], check=True)
    return target


@pytest.fixture(scope="module")
def records(stream: Path) -> list[dict[str, Any]]:
    return traced("--insns", "all", "-e", "faults,syscalls,signal", "--", stream)


def traced(*args: str | Path) -> list[dict[str, Any]]:
    done = pagewalk("trace", "-q", "--format", "jsonl", *args)
    return [json.loads(line) for line in done.stderr.splitlines()]


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record for record in records if record["type"] == kind]


def addresses(records: list[dict[str, Any]], pid: int) -> list[int]:
    return [int(record["code"]["ip"], 16) for record in of_type(records, "insn") if record["pid"] == pid]


def one_of_each_repeat(stepped: list[int], records: list[dict[str, Any]]) -> list[int]:
    """A processor that is stepped stops after every round of a repeated instruction."""
    repeated = {int(r["code"]["ip"], 16) for r in of_type(records, "insn") if r["code"]["insn"].startswith("rep")}
    assert len(repeated) >= 3
    return [at for i, at in enumerate(stepped) if not (i and stepped[i - 1] == at and at in repeated)]


def test_the_stream_is_the_one_of_a_real_processor(stream: Path, records: list[dict[str, Any]], tmp_path: Path) -> None:
    stepper = tmp_path / "stepper"
    subprocess.run(["gcc", "-O1", "-o", str(stepper), str(PROGRAMS / "stepper.c")], check=True)
    done = subprocess.run([str(stepper), str(stream)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this host lets nobody trace (ptrace): stepper ended with {done.returncode}")
    stepped = [int(line, 16) for line in done.stdout.split()]
    assert len(stepped) > 8000
    assert addresses(records, 2) == one_of_each_repeat(stepped, records)


def test_a_child_begins_after_the_fork(records: list[dict[str, Any]]) -> None:
    parent, child = addresses(records, 2), addresses(records, 3)
    assert child[0] in parent and child[0] - 2 in parent
    code = {r["code"]["ip"]: r["code"] for r in of_type(records, "insn")}
    assert code[hex(child[0] - 2)]["insn"] == "syscall"
    assert code[hex(child[-1])]["insn"] == "syscall"
    assert any(code[hex(address)]["symbol"] == "depth" for address in child)


def test_what_faults_is_executed_after_its_fault(records: list[dict[str, Any]]) -> None:
    for index, record in enumerate(records):
        if record["type"] == "fault" and record["syscall"] is None and record["result"] == "MINOR":
            following = next(r for r in records[index + 1 :] if r["type"] in ("insn", "fault"))
            assert following["code"]["ip"] == record["code"]["ip"]
    bad = next(i for i, record in enumerate(records) if record["type"] == "fault" and record["kind"] == "bad")
    following = next(r for r in records[bad:] if r["type"] == "insn")
    assert following["code"]["symbol"] == "repair"  # the handler; its return tries the access again
    retried = [r for r in records[bad:] if r["type"] == "insn" and r["code"]["ip"] == records[bad]["code"]["ip"]]
    assert len(retried) == 1
    before = [r for r in records[:bad] if r["type"] == "insn" and r["code"]["ip"] == records[bad]["code"]["ip"]]
    assert before == []


def test_the_rest_of_the_trace_stays_as_it_is(stream: Path) -> None:
    events = ("-e", "all", "--ram", "1M", "--swap", "4M", "--")
    under_pressure = ["images/vmscript", "m:0:240:rw W:0:240 R:0:90 f{ W:100:9 f}"]
    for option, argv in (("around-fault:5", [str(stream)]), ("all", under_pressure)):
        plain = traced(*events, *argv)
        assert argv is not under_pressure or any(record.get("kind") == "swap" for record in plain)
        watched = [record for record in traced("--insns", option, *events, *argv) if record["type"] != "insn"]
        numbering = ("n", "insns", "counts")
        assert _without(watched, numbering) == _without(plain, numbering)


def _without(records: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in names} for record in records]


def test_times_of_instructions_never_go_back(records: list[dict[str, Any]]) -> None:
    times = [record["ts_ns"] for record in records[1:-1]]
    assert times == sorted(times)
    assert len({r["ts_ns"] for r in of_type(records, "insn")}) > 50


@pytest.mark.parametrize("number", [1, 2, 7, 100])
def test_the_last_instructions_before_a_fault(stream: Path, records: list[dict[str, Any]], number: int) -> None:
    """What --insns all says between two faults is what --insns around-fault:N repeats."""
    faults = of_type(traced("--insns", f"around-fault:{number}", "--", stream), "fault")
    assert len(faults) == len(of_type(records, "fault"))
    done: dict[int, list[dict[str, Any]]] = {}
    expected = []
    for record in records:
        if record["type"] == "insn":
            done.setdefault(record["pid"], []).append(record["code"])
        elif record["type"] == "fault":
            history = list(done.get(record["pid"], []))
            if record["syscall"] is None:
                history.append(record["code"])
            expected.append(history[-number:])
    assert [fault["insns"] for fault in faults] == expected
    assert sum(len(insns) for insns in expected) > 5 * number or number == 100


@pytest.mark.parametrize("argv", [("images/faults",), ("/bin/sh", "-c", "trap : USR1; kill -USR1 $$; : | :")])
def test_every_kind_of_program_against_a_hook_on_each_instruction(argv: tuple[str, ...]) -> None:
    """The engine's own hook on instructions, without its repetitions, sees the same."""
    hooked, streamed = list(_hooked(argv)), list(_streamed(argv))
    assert len(streamed) > 1000
    assert streamed == hooked


def _run(machine: Machine, argv: tuple[str, ...]) -> None:
    machine.spawn([argv[0] if argv[0].startswith("/") else str(ROOT / argv[0]), *argv[1:]])
    machine.run()


def _streamed(argv: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    machine = Machine(MachineConfig(env={"LC_ALL": "C"}))
    seen: list[tuple[int, int]] = []
    stream = InsnStream(
        machine.kernel,
        machine.cpu,
        Locator(machine.kernel),
        0,
        lambda task, insn, _: seen.append((task.pid, insn.address)),
    )
    stream.attach()
    _run(machine, argv)
    stream.detach()
    machine.close()
    return iter(seen)


def _hooked(argv: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    machine = Machine(MachineConfig(env={"LC_ALL": "C"}))
    kernel = machine.kernel
    seen: list[tuple[int, int, bool]] = []
    repeats: dict[bytes, bool] = {}
    callback_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)

    def on_insn(_engine: int, address: int, size: int, _data: int) -> None:
        task = kernel.current
        assert task is not None and task.mm is not None
        code = peek_code(task.mm, address, MAX_INSN_BYTES)
        if code not in repeats:
            repeats[code] = (disassemble(code, address) or "").startswith("rep")
        seen.append((task.pid, address, repeats[code]))

    def on_fault(_point: Any, values: tuple[Any, ...]) -> None:
        task, ip = values[0], values[3]
        if ip and seen and seen[-1][:2] == (task.pid, ip):
            seen.pop()  # it was not executed

    machine.cpu.engine.add_hook(abi.HOOK_CODE, callback_type(on_insn))
    machine.cpu.engine.forget_all_code()
    PAGE_FAULT_USER.attach(on_fault)
    _run(machine, argv)
    PAGE_FAULT_USER.detach(on_fault)
    machine.close()
    held: dict[int, int] = {}
    for pid, address, is_repeat in seen:
        if held.get(pid) == address:
            continue
        if pid in held:
            yield pid, held.pop(pid)
        if is_repeat:
            held[pid] = address
        else:
            yield pid, address


def test_text_of_instructions(stream: Path) -> None:
    done = pagewalk("trace", "--insns", "all", "-e", "syscalls", "--", stream)
    lines = [line for line in done.stderr.splitlines() if line.startswith("[pid     2] 0x")]
    assert lines[0].startswith("[pid     2] 0x") and "<_start (stream)>: xor ebp, ebp" in lines[0]
    assert any(line.endswith("; stream.c:37") for line in lines)
    done = pagewalk("trace", "--insns", "around-fault:2", "--", stream)
    marked = [line for line in done.stderr.splitlines() if line.startswith("     => ")]
    assert marked and all("0x" in line for line in marked)
    indented = [line for line in done.stderr.splitlines() if line.startswith("        0x")]
    assert indented


def test_what_cannot_be_asked_for() -> None:
    usage = "invalid value for --insns: "
    for word in ("some", "around-fault", "around-fault:0", "around-fault:x", "around-fault:10001", "all:3", ""):
        said = refused("trace", "--insns", word, "--", "images/hello")
        assert said.startswith(f"{usage}{word!r} is neither all nor around-fault:N with N from 1 to 10,000 (see ")
    assert "needs -e faults" in refused("trace", "-e", "syscalls", "--insns", "around-fault:3", "--", "images/hello")
    assert "perfetto has around-fault:N" in refused(
        "trace", "--format", "perfetto", "--insns", "all", "--", "images/hello"
    )
