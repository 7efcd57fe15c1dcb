"""The runs of emu/jobs.py on a Dask cluster: for sweeps that are larger than one machine.

``run_jobs_dask(jobs, "tcp://HOST:8786")`` gives what ``run_jobs(jobs)`` gives.  Needs the package ``distributed`` here
and on the workers (``pip install 'pagewalk[dask]'``), and on the workers this very pagewalk, which is checked by the
contents of its modules; the scheduler needs neither.  Programs, libraries and the working directory must be there
under the same names.

Each run is made by :func:`emu.jobs.run_job` in an interpreter of its own, which this module is when it is run with
``python -m``: a worker has threads, and a process that has threads should not fork.  A worker with N threads makes N
runs at a time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from emu.jobs import Job, Outcome, check_apart, run_job
from emu.version import __version__

CONNECT_TIMEOUT_S = 10.0
"""How long we try to reach the scheduler."""
NO_WORKERS_TIMEOUT_S = 60.0
"""How long a cluster may be without any worker; one that grows on demand takes a while."""
_POLL_S = 1.0
_ROOT = Path(__file__).resolve().parent.parent


class ClusterError(Exception):
    """The cluster cannot do it; the text is one line for the user."""


def run_jobs_dask(
    jobs: Sequence[Job], address: str, on_done: Callable[[int], None] | None = None
) -> list[Outcome]:
    """Make all runs on the cluster whose scheduler is at ``address``; outcomes in the order of the jobs.

    ``on_done`` gets the number finished so far.  :class:`ClusterError`; ValueError for jobs that would disturb each
    other.
    """
    check_apart(jobs)
    client = _connect(address)
    try:
        return _Batch(client, address, jobs).gather(on_done)
    finally:
        client.close()


def _connect(address: str) -> Any:
    try:
        import distributed
    except ImportError:
        raise ClusterError("a Dask cluster needs the package distributed: pip install 'pagewalk[dask]'") from None
    for name in list(logging.Logger.manager.loggerDict):
        if name.split(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what is wrong is said once, by us
    try:
        return distributed.Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False, name="pagewalk")
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(f"no Dask scheduler at {address}: {_first_line(error)}") from None


class _Batch:
    """The jobs of one call, on their way."""

    def __init__(self, client: Any, address: str, jobs: Sequence[Job]) -> None:
        self._client = client
        self._address = address
        self._jobs = jobs
        self._done: queue.SimpleQueue[int] = queue.SimpleQueue()
        ours, call = fingerprint(), _call_by_value()
        self._futures = [client.submit(call, _payload(job), ours, pure=False) for job in jobs]
        for number, future in enumerate(self._futures):
            future.add_done_callback(lambda _future, number=number: self._done.put(number))
        self._without_workers_since: float | None = None

    def gather(self, on_done: Callable[[int], None] | None) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(self._jobs)
        nr_done = 0
        while nr_done < len(self._jobs):
            try:
                number = self._done.get(timeout=_POLL_S)
            except queue.Empty:
                self._check_cluster()
                continue
            outcomes[number] = self._outcome(number)
            nr_done += 1
            if on_done is not None:
                on_done(nr_done)
        return [outcome for outcome in outcomes if outcome is not None]

    def _outcome(self, number: int) -> Outcome:
        from distributed import KilledWorker

        label = self._jobs[number].label
        try:
            answer = pickle.loads(self._futures[number].result())
        except KilledWorker:
            raise ClusterError(f"{label}: the worker that ran it died, every time that it was tried") from None
        except ImportError as error:
            raise ClusterError(f"a worker of {self._address} has no pagewalk: {_first_line(error)}") from None
        except AttributeError:
            raise ClusterError(f"a worker of {self._address} has another pagewalk, {__version__} is needed") from None
        except Exception as error:
            self._check_cluster()
            raise ClusterError(f"{label}: {type(error).__name__}: {_first_line(error)}") from None
        if isinstance(answer, str):
            raise ClusterError(answer)
        assert isinstance(answer, Outcome)
        self._futures[number].release()
        return answer

    def _check_cluster(self) -> None:
        """Nothing has come for a while: is there still somebody who could send something?"""
        if self._client.status != "running":
            raise ClusterError(f"the connection to the Dask scheduler at {self._address} was lost")
        if self._client.nthreads():
            self._without_workers_since = None
            return
        now = time.monotonic()
        if self._without_workers_since is None:
            self._without_workers_since = now
        elif now - self._without_workers_since > NO_WORKERS_TIMEOUT_S:
            raise ClusterError(f"the Dask cluster at {self._address} has no workers")


def _payload(job: Job) -> bytes:
    """``job``, with what it takes from its surroundings said by name."""
    config = job.config
    cwd = os.getcwd() if config.cwd is None else config.cwd
    return pickle.dumps(replace(job, config=replace(config, cwd=cwd, root=os.path.abspath(config.root))))


def _call_by_value() -> Callable[[bytes, str], bytes]:
    """A function that is sent as its code, not as its name: the scheduler, which reads it too, has no pagewalk."""

    def call(payload: bytes, fingerprint: str) -> bytes:
        from importlib import import_module

        answer: bytes = import_module("emu.dask_jobs").run_payload(payload, fingerprint)
        return answer

    return call


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ---- on a worker --------------------------------------------------------------------------------------------------


@cache
def fingerprint() -> str:
    """The version, and a digest of all modules: what must be equal for outcomes to be comparable."""
    digest = hashlib.sha256()
    for package in ("emu", "kernel", "mmu"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{__version__} ({digest.hexdigest()[:12]})"


def run_payload(payload: bytes, wanted: str) -> bytes:
    """Make one run; a pickled :class:`~emu.jobs.Outcome`, or a pickled string that says why it cannot be made."""
    host = os.uname().nodename
    if fingerprint() != wanted:
        return pickle.dumps(f"the worker on {host} has pagewalk {fingerprint()}, here it is {wanted}")
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "emu.dask_jobs"],
        input=payload,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
        cwd="/",
    )
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
    return pickle.dumps(f"a run on {host} failed: {lines[-1]}")


def main() -> None:
    """One run: the job comes on stdin, the outcome goes to stdout, both pickled."""
    outcome = run_job(pickle.load(sys.stdin.buffer))
    sys.stdout.buffer.write(pickle.dumps(outcome))


if __name__ == "__main__":
    main()
