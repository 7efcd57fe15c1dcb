"""From tracepoints to text and JSON lines, on a kernel without a processor."""

from __future__ import annotations

import io
import json
from importlib import import_module, resources
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from emu.trace.jsonl import JsonLinesSink
from emu.trace.session import Filter, TraceSession, known_categories, syscalls_named
from emu.trace.text import COLUMNS, TextSink, fault_header
from kernel.abi.signal import SIGSEGV, SigInfo
from kernel.hardware import PlainRegisters
from kernel.mm.fault import handle_mm_fault
from kernel.mm.types import PAGE_SIZE, VM_READ, VM_WRITE
from kernel.mm.usercopy import copy_to_user
from kernel.syscalls.table import TABLE_64
from kernel.trace import Tracepoint, tracepoints
from mmu.paging import PF_INSTR, PF_USER, PF_WRITE
from tests.kernel.fakes import make_kernel, make_mm, map_anon

for module in ("kernel.entry", "kernel.task.exit", "kernel.task.deliver", "kernel.syscalls.mm"):
    import_module(module)  # they declare tracepoints and calls

BASE = 0x40_0000
MACHINE = {"kernel": "2.6.7", "ram_bytes": 1 << 24, "seed": 0}


def point(name: str) -> Tracepoint:
    return next(tracepoint for tracepoint in tracepoints(name) if tracepoint.name == name)


class FakeTask(SimpleNamespace):
    """What a trace wants to know of a task."""

    __hash__ = object.__hash__


class World:
    """A kernel with one task, and a trace of it."""

    def __init__(self, form: str, *categories: str, condition: Filter | None = None) -> None:
        self.kernel = make_kernel()
        self.mm = make_mm(self.kernel)
        self.task = FakeTask(
            pid=7, tgid=7, comm="prog", mm=self.mm, regs=PlainRegisters(), syscall_nr=-1, exiting=False
        )
        self.kernel.current = self.task
        self.stream = io.BytesIO()
        sink = TextSink(self.stream) if form == "text" else JsonLinesSink(self.stream)
        self.session = TraceSession(self.kernel, categories, sink, condition)
        self.session.start(["prog"], MACHINE)

    def access(self, address: int, error_code: int = PF_USER, ip: int = BASE) -> None:
        handle_mm_fault(self.mm, address, error_code, ip)

    def call(self, name: str, *args: int, ret: int | None, reason: str = "") -> None:
        spec = next(spec for spec in TABLE_64 if spec is not None and spec.name == name)
        raw = (*args, 0, 0, 0, 0, 0, 0)[:6]
        point("syscalls:sys_enter").emit(self.task, spec.x86_64, spec, raw)
        error = -ret if ret is not None and ret < 0 else 0
        point("syscalls:sys_exit").emit(self.task, spec.x86_64, spec, raw, ret, error, reason)

    def end(self, status: int | None = 0) -> str:
        self.session.finish(status)
        return self.stream.getvalue().decode()


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_fault_columns() -> None:
    world = World("text", "faults")
    map_anon(world.mm, BASE, 4)
    copy_to_user(world.mm, BASE, bytes.fromhex("488907"))  # fault 1, by the kernel
    world.access(BASE + PAGE_SIZE + 0x10)
    world.access(BASE + PAGE_SIZE + 0x10, PF_USER | PF_WRITE)
    world.access(0x1000, PF_USER | PF_WRITE)
    lines = world.end().splitlines()
    assert lines[0] == fault_header()
    rows = [[cell for cell in line.split("  ") if cell] for line in lines[1:5]]
    rows = [[cell.strip() for cell in row] for row in rows]
    assert rows[0][:6] == ["#1", "7", "write", "anonymous", "0x400000", "anon+0x0"]
    assert rows[0][-1] == "in exec()"
    assert rows[1][:8] == ["#2", "7", "read", "zero", "0x401010", "anon+0x1010", "0x400000", "(anon)"]
    assert rows[1][-1] == "mov qword ptr [rdi], rax"
    assert rows[2][:4] == ["#3", "7", "write", "cow"]
    assert rows[3][:6] == ["#4", "7", "write", "SIGSEGV_MAPERR", "0x1000", "-"]
    assert lines[5] == "# 4 faults: 1 SIGSEGV_MAPERR, 1 anonymous, 1 cow, 1 zero"


def test_the_header_names_every_column() -> None:
    assert fault_header().split() == ["#nr", *(name for name, _, _ in COLUMNS[1:])]


def test_json_lines_fit_the_schema() -> None:
    schema = json.loads(resources.files("emu.trace").joinpath("schema/trace-1.json").read_text())
    world = World("jsonl", "faults", "syscalls", "mm")
    map_anon(world.mm, BASE, 2)
    world.access(BASE, PF_USER | PF_WRITE)
    world.access(BASE, PF_USER | PF_INSTR)
    world.access(0x1000)
    world.call("munmap", BASE, PAGE_SIZE, ret=0)
    world.call("mremap", BASE, 1, 2, 1, ret=-14, reason="spans two areas")
    point("signal:signal_deliver").emit(world.task, SigInfo(SIGSEGV, 1, addr=0x1000), 0, 0)
    point("sched:sched_process_exit").emit(world.task, 139, True)
    lines = records(world.end(139))
    for line in lines:
        jsonschema.validate(line, schema)
    kinds = [line["type"] for line in lines]
    assert kinds == ["header", "fault", "fault", "fault", "syscall", "syscall", "signal", "exit", "end"]
    assert [line["n"] for line in lines[1:-1]] == list(range(1, 8))
    assert lines[-1] == {"type": "end", "status": 139, "counts": {"exit": 1, "fault": 3, "signal": 1, "syscall": 2}}
    fault = lines[1]
    assert (fault["kind"], fault["access"], fault["address"]) == ("anonymous", "write", "0x400000")
    assert fault["area"]["start"] == "0x400000" and fault["area"]["perms"] == "rw-p"
    refused = lines[5]
    assert refused["ret"] == -1 and refused["error"] == "EFAULT" and refused["reason"] == "spans two areas"
    assert refused["args"][0] == {"name": "old_address", "value": "0x400000", "text": "0x400000"}
    assert lines[7]["signal"] == "SIGSEGV" and lines[7]["core"] and lines[7]["status"] is None


def test_system_call_lines_are_strace_s() -> None:
    world = World("text", "syscalls")
    world.call("munmap", BASE, PAGE_SIZE, ret=0)
    world.call("mremap", BASE, 8192, 16384, 1, ret=-14, reason="spans two areas")
    point("signal:signal_deliver").emit(world.task, SigInfo(SIGSEGV, 1), 0, 0)
    spec = TABLE_64[11]
    point("syscalls:sys_enter").emit(world.task, 11, spec, (BASE, 1, 0, 0, 0, 0))
    point("sched:sched_process_exit").emit(world.task, 3 << 8, True)
    assert world.end(3).splitlines() == [
        "[pid     7] munmap(0x400000, 4096)      = 0",
        "[pid     7] mremap(0x400000, 8192, 16384, MREMAP_MAYMOVE) = -1 EFAULT (Bad address: spans two areas)",
        "[pid     7] --- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL} ---",
        "[pid     7] munmap(0x400000, 1)         = ?",
        "[pid     7] +++ exited with 3 +++",
    ]


def test_calls_under_way_at_the_end() -> None:
    world = World("text", "syscalls")
    point("syscalls:sys_enter").emit(world.task, 11, TABLE_64[11], (BASE, 1, 0, 0, 0, 0))
    assert world.end(None).endswith("munmap(0x400000, 1)         = ? <unfinished ...>\n")


@pytest.mark.parametrize(
    ("condition", "shown"),
    [
        (Filter(), ["#1", "#2", "#3"]),
        (Filter(kinds=frozenset({"zero"})), ["#2"]),
        (Filter(kinds=frozenset({"bad", "anonymous"})), ["#1", "#3"]),
        (Filter(address_ranges=((0x401000, 0x402000),)), ["#2"]),
        (Filter(only_errors=True), ["#3"]),
        (Filter(pids=frozenset({8})), []),
        (Filter(pids=frozenset({7})), ["#1", "#2", "#3"]),
    ],
)
def test_filters_hide_but_do_not_renumber(condition: Filter, shown: list[str]) -> None:
    world = World("text", "faults", condition=condition)
    map_anon(world.mm, BASE, 2, VM_READ | VM_WRITE)
    world.access(BASE, PF_USER | PF_WRITE)
    world.access(BASE + PAGE_SIZE)
    world.access(0x1000)
    lines = world.end().splitlines()
    assert [line.split()[0] for line in lines if line[0] == "#" and line[1].isdigit()] == shown
    if shown and len(shown) < 3:
        assert lines[-1].startswith(f"# {len(shown)} of 3 faults: ")


def test_filters_of_calls() -> None:
    world = World("text", "syscalls", condition=Filter(syscalls=syscalls_named(["%memory"]), only_errors=True))
    world.call("munmap", BASE, PAGE_SIZE, ret=0)
    world.call("munmap", 3, PAGE_SIZE, ret=-22)
    assert world.end().count("munmap") == 1
    assert {"mmap", "mremap"} <= syscalls_named(["%memory"])
    with pytest.raises(ValueError, match="no system call 'frob'"):
        syscalls_named(["frob"])


def test_nothing_stays_attached() -> None:
    world = World("text", "faults", "syscalls")
    world.end()
    assert not any(tracepoint.on for tracepoint in tracepoints())


def test_other_tracepoints_become_events() -> None:
    world = World("jsonl", "mm")
    vma = map_anon(world.mm, BASE, 2)
    if not tracepoints("mm:test"):
        Tracepoint("mm:test", "mm vma addr reason nr_pages")
    world.session.finish(0)
    world.session.start(["prog"], MACHINE)
    point("mm:test").emit(world.mm, vma, BASE, None, 5)
    line = records(world.end())[-2]
    assert line["event"] == "mm:test"
    assert line["fields"] == {
        "mm": f"mm#{world.mm.id}",
        "vma": "0x400000-0x402000 rw-p anon",
        "addr": "0x400000",
        "reason": None,
        "nr_pages": 5,
    }
    assert "mm" in known_categories()
