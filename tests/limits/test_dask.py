"""Runs on a Dask cluster: a local one, with two worker processes."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from emu import dask_jobs
from emu.dask_jobs import ClusterError, run_jobs_dask
from emu.jobs import Job, run_job, run_jobs
from emu.machine import MachineConfig
from emu.sweep import nr_calls, sweep_jobs, tabulate

HELLO = Job("hello", MachineConfig(), ("images/hello",))


def local_cluster(nr_workers: int) -> Any:
    distributed = pytest.importorskip("distributed")
    return distributed.LocalCluster(
        n_workers=nr_workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=":0",
        silence_logs="CRITICAL",
    )


def test_nothing_else_is_said() -> None:
    """Dask's own logging would bury the one line."""
    pytest.importorskip("distributed")
    script = """
from emu import dask_jobs
from emu.jobs import Job
from emu.machine import MachineConfig
dask_jobs.CONNECT_TIMEOUT_S = 0.5
try:
    dask_jobs.run_jobs_dask([Job("x", MachineConfig(), ("x",))], "tcp://127.0.0.1:1")
except dask_jobs.ClusterError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    dask = pytest.importorskip("dask")
    # A run whose worker dies is tried once more only, so that the tests need not wait for four new workers.
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), local_cluster(2) as running:
        yield running


def test_the_same_table(cluster: Any) -> None:
    config, argv = MachineConfig(), ["images/remap_db"]
    baseline = run_job(Job("baseline", config, tuple(argv)))
    jobs = sweep_jobs(config, argv, nr_calls(baseline), "ENOMEM", calls=[1, 2, 3, 13])
    jobs += sweep_jobs(config, ["images/vmscript", "m:0:1:rw", "v:0:1:2:M"], 1, "EFAULT")
    counts: list[int] = []
    remote = run_jobs_dask(jobs, cluster.scheduler_address, counts.append)
    local = run_jobs(jobs)
    assert counts == [1, 2, 3, 4, 5]
    assert [outcome.label for outcome in remote] == [job.label for job in jobs]
    assert remote == local
    assert tabulate(baseline, remote) == tabulate(baseline, local)


def test_programs_are_found_from_the_callers_directory(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("images")
    shell = Job("pwd", MachineConfig(env={"PATH": "/bin:/usr/bin"}), ("/bin/sh", "-c", "pwd; exec ./hello"), b"")
    (outcome,) = run_jobs_dask([shell], cluster.scheduler_address)
    assert outcome.stdout.decode().splitlines() == [os.getcwd(), "Hello, world"]


def refusal(*args: Any) -> str:
    with pytest.raises(ClusterError) as caught:
        run_jobs_dask(*args)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_another_pagewalk(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = dask_jobs.fingerprint()
    monkeypatch.setattr(dask_jobs, "fingerprint", lambda: "9.9 (0123456789ab)")
    message = refusal([HELLO], cluster.scheduler_address)
    assert message.startswith("the worker on ")
    assert message.endswith(f" has pagewalk {theirs}, here it is 9.9 (0123456789ab)")


class KillsItsWorker:
    """A collector that ends the worker: the grandparent of the process that makes the run."""

    def __init__(self, machine: Any) -> None:
        with open(f"/proc/{os.getppid()}/stat") as file:
            worker = int(file.read().rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGKILL)

    def finish(self) -> None:
        raise AssertionError("never comes that far")


def test_a_worker_that_dies(cluster: Any) -> None:
    name = f"{KillsItsWorker.__module__}:{KillsItsWorker.__name__}"
    message = refusal([replace(HELLO, collectors=(name,))], cluster.scheduler_address)
    assert message == "hello: the worker that ran it died, every time that it was tried"
    assert run_jobs_dask([HELLO], cluster.scheduler_address)[0].stdout == b"Hello, world\n", "others have come"


def test_a_run_that_cannot_be_made() -> None:
    answer = pickle.loads(dask_jobs.run_payload(b"no job", dask_jobs.fingerprint()))
    assert answer.startswith(f"a run on {os.uname().nodename} failed: ")
    assert "UnpicklingError" in answer


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_jobs, "CONNECT_TIMEOUT_S", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense://x", ""):
        assert refusal([HELLO], address).startswith(f"no Dask scheduler at {address}: ")


def test_no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_jobs, "NO_WORKERS_TIMEOUT_S", 0.5)
    monkeypatch.setattr(dask_jobs, "_POLL_S", 0.2)
    with local_cluster(0) as empty:
        address = empty.scheduler_address
        assert refusal([HELLO], address) == f"the Dask cluster at {address} has no workers"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    message = refusal([HELLO], "tcp://127.0.0.1:1")
    assert message == "a Dask cluster needs the package distributed: pip install 'pagewalk[dask]'"


def test_runs_that_would_disturb_each_other() -> None:
    jobs = [replace(HELLO, config=MachineConfig(swap="/tmp/swap:1M"))] * 2
    with pytest.raises(ValueError, match="several runs cannot share one swap file"):
        run_jobs_dask(jobs, "tcp://127.0.0.1:1")
