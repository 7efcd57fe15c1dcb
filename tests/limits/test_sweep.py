"""A failure at each mremap in turn, and what a program makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emu.jobs import Job, Outcome, run_job, run_jobs
from emu.machine import MachineConfig
from emu.sweep import Coping, SweepRow, nr_calls, summary, sweep_jobs, sweep_timeout_ns, tabulate
from tests.task.harness import make_elf

# mmap 4096 bytes of anonymous memory, mremap them to 8192 (MREMAP_MAYMOVE); the result is in rax
_REMAP = bytes.fromhex(
    "b809000000 31ff be00100000 ba03000000 41ba22000000 49c7c0ffffffff 4531c9 0f05"
    "4889c7 b819000000 be00100000 ba00200000 41ba01000000 0f05"
)
_EXIT_0 = bytes.fromhex("b83c000000 31ff 0f05")
STORE = _REMAP + bytes.fromhex("c60001") + _EXIT_0
"""Stores a byte where mremap says, whatever it says."""
SPIN = _REMAP + bytes.fromhex("4885c0 78fe") + _EXIT_0
"""Loops for ever when it fails."""
WAIT = _REMAP + bytes.fromhex("4885c0 7907 b822000000 0f05") + _EXIT_0
"""pause(2)s when it fails."""


def program(tmp_path: Path, text: bytes) -> tuple[str, ...]:
    path = tmp_path / "prog"
    path.write_bytes(make_elf(text=text))
    path.chmod(0o755)
    return (str(path),)


def sweep(argv: tuple[str, ...], error: str = "ENOMEM", **config: Any) -> list[SweepRow]:
    machine = MachineConfig(**config)
    baseline = run_job(Job("baseline", machine, argv))
    timeout_ns = sweep_timeout_ns(baseline)
    jobs = sweep_jobs(machine, argv, nr_calls(baseline), error, virtual_timeout_ns=timeout_ns)
    return tabulate(baseline, run_jobs(jobs))


# ---- whole sweeps ---------------------------------------------------------------------------------------------------


def test_each_call_fails_once() -> None:
    """A program that tells the result of every call."""
    script = ["m:0:1:rw", "w:0:9", "v:0:1:2:M", "v:0:2:1:M", "v:0:1:3:M"]
    rows = sweep(("images/vmscript", *script), "EAGAIN")
    assert [(row.call, row.point, row.error, row.coping) for row in rows] == [
        (1, "mremap", "EAGAIN", Coping.DIFFERENT_OUTPUT),
        (2, "mremap", "EAGAIN", Coping.DIFFERENT_OUTPUT),
        (3, "mremap", "EAGAIN", Coping.DIFFERENT_OUTPUT),
    ]
    assert [row.detail for row in rows] == [
        "stdout line 3: 'v:0:1:2:M EAGAIN' instead of 'v:0:1:2:M @0'",
        "stdout line 4: 'v:0:2:1:M EAGAIN' instead of 'v:0:2:1:M @0'",
        "stdout line 5: 'v:0:1:3:M EAGAIN' instead of 'v:0:1:3:M @0'",
    ]


def test_programs_that_cope() -> None:
    arena = sweep(("images/remap_arena",))
    assert len(arena) == 2 and {row.coping for row in arena} == {Coping.SAME_OUTPUT}
    ring = sweep(("images/remap_ring",))
    assert {row.text for row in ring} == {"reports an error: the ring cannot be mapped twice: ENOMEM"}
    assert summary(arena + ring) == {"same output": 2, "reports an error": len(ring)}
    assert all(row.copes for row in arena + ring)


@pytest.mark.parametrize(
    ("text", "coping", "words"),
    [
        (STORE, Coping.CRASHED, "crashed SIGSEGV"),
        (SPIN, Coping.DID_NOT_END, "did not end: did not end within"),
        (WAIT, Coping.DID_NOT_END, "did not end: every task sleeps"),
    ],
)
def test_programs_that_do_not_cope(tmp_path: Path, text: bytes, coping: Coping, words: str) -> None:
    (row,) = sweep(program(tmp_path, text))
    assert (row.coping, row.copes) == (coping, False)
    assert row.text.startswith(words)


def test_other_failures_are_kept_and_calls_can_be_chosen() -> None:
    config = MachineConfig(fail=("brk:ENOMEM@9",))
    jobs = sweep_jobs(config, ["x", "y"], 100, "EFAULT", calls=[2, 50], stdin=b"in", virtual_timeout_ns=7)
    assert [(job.label, job.config.fail) for job in jobs] == [
        ("mremap:EFAULT@2", ("brk:ENOMEM@9", "mremap:EFAULT@2")),
        ("mremap:EFAULT@50", ("brk:ENOMEM@9", "mremap:EFAULT@50")),
    ]
    assert [(job.argv, job.stdin, job.virtual_timeout_ns) for job in jobs] == [(("x", "y"), b"in", 7)] * 2
    with pytest.raises(ValueError, match="unknown error EFALT"):
        sweep_jobs(config, ["x"], 1, "EFALT")


# ---- what counts as what --------------------------------------------------------------------------------------------

BASELINE = Outcome("baseline", exit_status=0, stdout=b"a\nb\n", stderr=b"warning\n", files={"/out": "1"})


def outcome(**fields: Any) -> Outcome:
    values: dict[str, Any] = {
        "exit_status": 0, "stdout": b"a\nb\n", "stderr": b"warning\n", "files": {"/out": "1"},
        "injected": [("mremap", 4, 12)],
    }  # fmt: skip
    return Outcome("mremap:ENOMEM@4", **(values | fields))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "same output"),
        ({"exit_status": 1, "stderr": b"warning\nno memory\nbye\n"}, "reports an error: no memory"),
        ({"exit_status": 1, "stdout": b"a\nfailed\n"}, "reports an error: failed"),
        ({"exit_status": 2, "stdout": b"a\n"}, "reports an error: exit status 2, no message"),
        ({"stdout": b"a\nc\n"}, "different output: stdout line 2: 'c' instead of 'b'"),
        ({"stdout": b"a\nb\nc\n"}, "different output: stdout line 3: 'c' instead of ''"),
        ({"stderr": b"warning\nmoved\n"}, "different output: stderr line 2: 'moved' instead of ''"),
        ({"files": {}}, "different files: /out"),
        ({"files": {"/out": "2"}}, "different files: /out"),
        ({"files": {"/out": "1", "/core": "3"}}, "different files: /core"),
        ({"exit_status": 139, "signal": "SIGSEGV"}, "crashed SIGSEGV"),
        (
            {"exit_status": 134, "signal": "SIGABRT", "stderr": b"warning\nassertion failed\n"},
            "crashed SIGABRT: assertion failed",
        ),
        ({"exit_status": None, "timed_out": "wall", "error": "did not end within 5 seconds"}, "did not end: did not"),
        ({"exit_status": None, "error": "every task sleeps and nothing can wake one: x"}, "did not end: every task"),
        ({"exit_status": None, "error": "rmap-complete: pfn 0x5 is not found"}, "pagewalk error: rmap-complete"),
        ({"not_runnable": 127, "exit_status": None, "error": "/x: no such file"}, "pagewalk error: /x: no such file"),
        ({"injected": []}, "not reached"),
    ],
)
def test_outcomes(fields: dict[str, Any], text: str) -> None:
    (row,) = tabulate(BASELINE, [outcome(**fields)])
    assert row.text.startswith(text)
    assert (row.call, row.point, row.error) == (4, "mremap", "ENOMEM")


def test_a_program_that_fails_anyway() -> None:
    """The same signal and the same status as without a failure are no news; success instead is."""
    crashing = Outcome("baseline", exit_status=139, signal="SIGSEGV", stdout=b"x")
    same = outcome(exit_status=139, signal="SIGSEGV", stdout=b"x", stderr=b"", files={})
    assert tabulate(crashing, [same])[0].coping is Coping.SAME_OUTPUT
    failing = Outcome("baseline", exit_status=1)
    (row,) = tabulate(failing, [outcome(stdout=b"", stderr=b"", files={})])
    assert row.text == "different output: exit status 0 instead of 1"


def test_json() -> None:
    (row,) = tabulate(BASELINE, [outcome(exit_status=139, signal="SIGSEGV")])
    assert row.as_json() == {
        "call": 4, "point": "mremap", "error": "ENOMEM", "coping": "crashed", "exit_status": 139, "signal": "SIGSEGV",
        "detail": "",
    }  # fmt: skip
