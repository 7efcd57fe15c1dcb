"""Runs in processes of their own: what comes back of them."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from emu.jobs import Job, Outcome, run_job, run_jobs
from emu.machine import Machine, MachineConfig

IMAGES = Path(__file__).parents[2] / "images"
HELLO = (str(IMAGES / "hello"),)


class ExitCounter:
    """A collector: how many tasks have ended when the run is over."""

    def __init__(self, machine: Machine) -> None:
        assert machine.init is None, "made before the program is loaded"
        self.machine = machine

    def finish(self) -> dict[str, Any]:
        assert self.machine.init is not None
        return {"pid": self.machine.init.pid}


def shell(script: str, **more: Any) -> Job:
    return Job("sh", MachineConfig(env={"PATH": "/bin:/usr/bin"}), ("/bin/sh", "-c", script), **more)


def test_outcomes_come_in_the_order_of_the_jobs() -> None:
    slow = shell("i=0; while [ $i -lt 300 ]; do i=$((i+1)); done; echo slow")
    counts: list[int] = []
    outcomes = run_jobs([slow, Job("hello", MachineConfig(), HELLO), shell("exit 3")], counts.append)
    assert [outcome.stdout for outcome in outcomes] == [b"slow\n", b"Hello, world\n", b""]
    assert [outcome.exit_status for outcome in outcomes] == [0, 0, 3]
    assert counts == [1, 2, 3]


def test_what_a_run_left() -> None:
    outcome = run_job(shell("read line; echo $line >/tmp/pagewalk-left; echo no >&2; kill -9 $$", stdin=b"word\n"))
    assert (outcome.exit_status, outcome.signal) == (128 + signal.SIGKILL, "SIGKILL")
    assert outcome.stderr == b"no\n" and outcome.error is None
    assert outcome.files == {"/tmp/pagewalk-left": hashlib.sha256(b"word\n").hexdigest()}
    assert not os.path.exists("/tmp/pagewalk-left")


def test_collectors_report() -> None:
    name = f"{__name__}:ExitCounter"
    outcome = run_job(Job("hello", MachineConfig(), HELLO, collectors=(name,)))
    assert outcome.collected == {name: {"pid": 2}}


@pytest.mark.parametrize("more, which", [({"virtual_timeout_ns": 10**8}, "virtual"), ({"wall_timeout_s": 0.2}, "wall")])
def test_timeouts(more: dict[str, Any], which: str) -> None:
    outcome = run_job(shell("echo begun; while :; do :; done", **more))
    assert (outcome.timed_out, outcome.exit_status) == (which, None)
    assert outcome.error is not None and outcome.error.startswith("did not end within 0.")
    assert outcome.stdout == b"begun\n" and outcome.stats["entries"]["syscalls"] > 0


def test_a_sleeper_is_timed_by_its_own_clock() -> None:
    outcome = run_job(shell("sleep 100000", virtual_timeout_ns=10**9))
    assert outcome.timed_out == "virtual"
    assert run_job(shell("sleep 3", virtual_timeout_ns=10**10)).exit_status == 0


def test_injected_failures_are_told() -> None:
    config = MachineConfig(fail=("write:ENOSPC@1",))
    outcome = run_job(Job("hello", config, HELLO))
    assert outcome.stdout == b"" and [list(item) for item in outcome.injected] == [["write", 1, 28]]


def broken_collector(machine: Machine) -> Any:
    raise RuntimeError("no such thing")


def test_our_own_errors_are_not_the_programs() -> None:
    outcome = run_job(Job("hello", MachineConfig(), HELLO, collectors=(f"{__name__}:broken_collector",)))
    assert outcome.exit_status is None and outcome.error == "internal error: RuntimeError: no such thing"


def test_a_program_that_is_not_there() -> None:
    outcome = run_job(Job("none", MachineConfig(), ("/no/such",)))
    assert outcome.not_runnable == 127 and outcome.exit_status is None


def test_runs_that_would_disturb_each_other_are_refused(tmp_path: Path) -> None:
    for config in (MachineConfig(swap=f"{tmp_path}/swap:1M"), MachineConfig(writable=[str(tmp_path)])):
        with pytest.raises(ValueError, match="several"):
            run_jobs([Job(name, config, HELLO) for name in "ab"])


def test_behaviour_is_what_a_user_notices() -> None:
    first = Outcome("a", 0, stdout=b"x", stats={"faults": 1})
    assert first.behaviour == Outcome("b", 0, stdout=b"x", stats={"faults": 2}).behaviour
    assert first.behaviour != Outcome("a", 0, stdout=b"x", files={"/f": "deleted"}).behaviour
