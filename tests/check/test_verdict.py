"""The decision lists, case by case, without running anything."""

from __future__ import annotations

from typing import Any

import pytest

from emu.check.aftermath import Did, next_deeds, run_deeds
from emu.check.model import After, AreaState, Call, Chain, Copy, Footprint, Frame, Run, TaskEnd
from emu.check.verdict import Noise, Odd, Trial, Verdict, choose_reference, judge, noise_between, overall
from emu.differences import What, differences
from emu.jobs import Outcome

SITE = Chain((Frame("main", 0, "/bin/prog", "prog.c", 10, 0x400000),), 0)
FAR = 0x7000_0000


def call(nr: int = 1, *, error: str | None = None, ret: int = 0x1000, **more: Any) -> Call:
    made = Call(nr, "1", 2, "prog", 0x1000, 4096, 8192, 1, 0, "0x1000, 4096, 8192, 1", SITE, **more)
    made.error, made.ret = error, -14 if error else ret
    made.result = f"-1 {error}" if error else f"{ret:#x}"
    return made


def run(*calls: Call, ends: tuple[TaskEnd, ...] = ()) -> Run:
    failed: dict[str, int] = {}
    for one in calls:
        if one.error is not None:
            failed[one.error] = failed.get(one.error, 0) + 1
    return Run(list(calls), len(calls), sum(one.error is None for one in calls), failed, [], list(ends))


def outcome(**more: Any) -> Outcome:
    return Outcome("run", **({"exit_status": 0, "stdout": b"fine\n"} | more))


def trial(kernel: str, made: Run, question: str | None = None, **more: Any) -> Trial:
    return Trial(kernel, question, outcome(**more), made)


REFERENCE = trial("6.18", run(call()))
FAILED = run(call(error="EFAULT"))


@pytest.mark.parametrize(
    ("made", "more", "noise", "verdict"),
    [
        (run(call()), {}, Noise.NONE, Verdict.SAFE),
        (FAILED, {}, Noise.NONE, Verdict.COPES),
        (FAILED, {"exit_status": 1}, Noise.NONE, Verdict.BREAKS),
        (FAILED, {"exit_status": 139, "signal": "SIGSEGV"}, Noise.NONE, Verdict.BREAKS),
        (FAILED, {"stdout": b"bad\n"}, Noise.NONE, Verdict.BREAKS),
        (FAILED, {"stderr": b"oh\n"}, Noise.NONE, Verdict.BREAKS),
        (FAILED, {"files": {"/out": "00"}}, Noise.NONE, Verdict.BREAKS),
        (run(), {"exit_status": 1}, Noise.NONE, Verdict.BREAKS),  # the call was not made
        (run(call(ret=FAR)), {}, Noise.NONE, Verdict.COPES),  # moved, where the reference stayed
        (run(call(ret=FAR)), {"stdout": b"bad\n"}, Noise.NONE, Verdict.BREAKS),
        (run(call()), {"stdout": b"bad\n"}, Noise.NONE, Verdict.UNKNOWN),  # no mremap differs
        (run(call()), {"unimplemented": {"ptrace": 1}}, Noise.NONE, Verdict.UNKNOWN),
        (FAILED, {"unimplemented": {"ptrace": 1}}, Noise.NONE, Verdict.UNKNOWN),
        (FAILED, {"unimplemented": {"ptrace": 1}, "exit_status": 1}, Noise.NONE, Verdict.BREAKS),
        (FAILED, {"error": "did not end within 1 seconds", "exit_status": None}, Noise.NONE, Verdict.UNKNOWN),
        (FAILED, {"stdout": b"bad\n"}, Noise.OUTPUT, Verdict.UNKNOWN),
        (FAILED, {"exit_status": 1}, Noise.OUTPUT, Verdict.BREAKS),  # statuses count all the same
        (FAILED, {}, Noise.OUTPUT, Verdict.COPES),
        (FAILED, {"exit_status": 1}, Noise.STATUS, Verdict.UNKNOWN),
    ],
)
def test_verdict(made: Run, more: dict[str, Any], noise: Noise, verdict: Verdict) -> None:
    judged = judge(trial("2.6.7", made, **more), REFERENCE, noise)
    assert judged.verdict is verdict
    assert bool(judged.reasons) == (verdict in (Verdict.BREAKS, Verdict.UNKNOWN))


def test_programs_without_mremap_are_safe_whatever_they_print() -> None:
    assert judge(trial("2.6.7", run(), stdout=b"2\n"), trial("6.18", run()), Noise.NONE).verdict is Verdict.SAFE


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({"exit_status": 137, "signal": "SIGKILL"}, Verdict.BREAKS),
        ({"stdout": b"less memory\n"}, Verdict.UNKNOWN),
        ({"stdout": b"bad\n", "injected": [("alloc", 3, 12)]}, Verdict.BREAKS),
        ({"injected": [("alloc", 3, 12)]}, Verdict.COPES),
    ],
)
def test_under_limits_the_limits_are_to_blame(more: dict[str, Any], verdict: Verdict) -> None:
    assert judge(trial("6.18", run(call()), "small", **more), REFERENCE, Noise.NONE).verdict is verdict


def test_how_calls_go_otherwise() -> None:
    def odds(made: Run, reference: Run) -> list[Odd]:
        return [odd.odd for odd in judge(trial("a", made), trial("6.18", reference), Noise.NONE).odd_calls]

    assert odds(run(call(error="EFAULT")), run(call())) == [Odd.FAILS]
    assert odds(run(call(error="ENOMEM")), run(call(error="EFAULT"))) == [Odd.FAILS]
    assert odds(run(call(error="EFAULT")), run(call(error="EFAULT"))) == []
    assert odds(run(call()), run(call(error="EFAULT"))) == [Odd.WORKS]
    assert odds(run(call(), call(2)), run(call())) == [Odd.EXTRA]
    assert odds(run(), run(call())) == [Odd.MISSING]
    assert odds(run(call(ret=FAR)), run(call(ret=FAR + 0x1000))) == []


def test_overall() -> None:
    assert overall([Verdict.SAFE, Verdict.COPES]) is Verdict.SAFE
    assert overall([Verdict.SAFE, Verdict.UNKNOWN]) is Verdict.UNKNOWN
    assert overall([Verdict.BREAKS, Verdict.UNKNOWN]) is Verdict.BREAKS


def test_reference() -> None:
    ages = ["old", "middle", "new"]
    good, bad = run(call()), run(call(error="EFAULT"))
    assert choose_reference([trial("old", good), trial("new", good), trial("middle", good)], ages).kernel == "new"
    assert choose_reference([trial("old", good), trial("new", bad)], ages).kernel == "old"
    assert choose_reference([trial("old", bad), trial("new", bad)], ages).kernel == "new"
    assert choose_reference([trial("old", bad), trial("new", good, error="stopped")], ages).kernel == "old"


def test_noise() -> None:
    assert noise_between(outcome(), outcome()) is Noise.NONE
    assert noise_between(outcome(), outcome(stdout=b"x")) is Noise.OUTPUT
    assert noise_between(outcome(), outcome(exit_status=1)) is Noise.STATUS


# ---- what the program did -----------------------------------------------------------------------------------------


def dids(made: Call) -> list[Did]:
    return [deed.did for deed in next_deeds(made)]


MAPPED, UNMAPPED = "mmap(NULL, 8192, ...) = 0x7000", "munmap(0x1000, 4096) = 0"


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (After(), []),
        (After(retried="mremap(...) = 0x1000"), [Did.RETRIED]),
        (After(retried="mremap(...) = -1 ENOMEM", retry_error="ENOMEM"), [Did.RETRIED]),
        (After(mapped=MAPPED), []),  # memory for something else
        (After(mapped=MAPPED, copy=Copy(0x7000, 8192, 1, 1)), [Did.FELL_BACK]),
        (After(mapped=MAPPED, unmapped=UNMAPPED), [Did.FELL_BACK]),
        (After(unmapped=UNMAPPED), [Did.GAVE_UP]),
        (After(said='write(2, "oh", 2) = 2'), [Did.REPORTED]),
        (After(mapped=MAPPED, unmapped=UNMAPPED, said='write(2, "oh", 2) = 2'), [Did.FELL_BACK, Did.REPORTED]),
    ],
)
def test_next_deeds(after: After, expected: list[Did]) -> None:
    assert dids(call(error="EFAULT", aftermath=after)) == expected


def test_destroyed_memory_is_lost_data_only_if_it_held_data() -> None:
    area = AreaState(0x9000, 0xA000, "rw-p", [], 9, "anon", 1)
    assert dids(call(error="EFAULT", destroyed=[Footprint(0x9000, 0xA000, [area], 1, 0)])) == []
    assert dids(call(error="EFAULT", destroyed=[Footprint(0x9000, 0xA000, [area], 1, 1)])) == [Did.LOST_DATA]


def end(signal: str | None, task: str = "1.1") -> TaskEnd:
    return TaskEnd(task, 3, "child", None if signal else 0, signal)


@pytest.mark.parametrize(
    ("more", "ends", "expected"),
    [
        ({}, (), []),
        ({"exit_status": 1}, (), [Did.REPORTED]),
        ({"exit_status": 1, "stderr": b"oh\n"}, (), [Did.REPORTED]),
        ({"exit_status": 1, "stdout": b""}, (), [Did.REPORTED, Did.DIFFERENT_OUTPUT]),
        ({"stdout": b""}, (), [Did.DIFFERENT_OUTPUT]),
        ({"stderr": b"oh\n"}, (), [Did.DIFFERENT_OUTPUT]),
        ({"exit_status": 139, "signal": "SIGSEGV"}, (), [Did.CRASHED]),
        ({}, (end("SIGSEGV"),), [Did.CRASHED]),  # a child, and nobody noticed
        ({}, (end("SIGTERM", "1.2"),), []),  # on the reference too
        ({"files": {"/out": "00"}}, (), [Did.LOST_DATA]),
        ({"files": {"/out": "00"}, "exit_status": 1}, (), [Did.REPORTED]),  # it said so
    ],
)
def test_run_deeds(more: dict[str, Any], ends: tuple[TaskEnd, ...], expected: list[Did]) -> None:
    reference = run(ends=(end("SIGTERM", "1.2"),))
    assert [deed.did for deed in run_deeds(outcome(**more), run(ends=ends), outcome(), reference)] == expected


def test_differences_in_words() -> None:
    ours = outcome(exit_status=3, stdout=b"fine\nmore\n", stderr=b"x", files={"/a": "00", "/b": "deleted"})
    theirs = outcome(files={"/a": "01", "/c": "02"})
    assert [(found.what, found.text) for found in differences(ours, theirs)] == [
        (What.EXIT, "exit status 3 instead of exit status 0"),
        (What.STDOUT, "stdout line 2: 'more' instead of nothing"),
        (What.STDERR, "stderr line 1: 'x' instead of nothing"),
        (What.FILE, "file /a differs"),
        (What.FILE, "file /b was deleted"),
        (What.FILE, "file /c was not written"),
    ]
    assert [found.text for found in differences(outcome(stdout=b"fine"), outcome())] == [
        "stdout ends with another line feed"
    ]
