"""Times of whole processes, and of one operation as the difference of two runs.

CPU time (user and system) of the child, because other work on the machine stretches the clock on the wall more than
this; the smallest of several runs, because what other work adds is never negative; the contenders take turns, so that a
busy minute hits all alike.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / "images"
PYTHON = sys.executable


@dataclass(frozen=True)
class Contender:
    name: str
    prefix: tuple[str, ...]


NATIVE = Contender("native", ())
RAW_FLAT = Contender("raw flat", (PYTHON, "-m", "tests.bench.raw_unicorn", "flat"))
RAW_BEST = Contender("raw best", (PYTHON, "-m", "tests.bench.raw_unicorn", "best"))
RAW_BEST_PLUS = Contender("raw best+", (PYTHON, "-m", "tests.bench.raw_unicorn", "best+"))
RAW_TICK = Contender("raw tick", (PYTHON, "-m", "tests.bench.raw_unicorn", "tick"))
PAGEWALK = Contender("pagewalk", (PYTHON, "-m", "emu", "run", "--"))
COMPARE = Contender("compare", (PYTHON, "-m", "emu", "compare", "-q", "--"))
QEMU_USER = Contender("qemu-user", ("qemu-x86_64",))


def pagewalk_with(*options: str) -> Contender:
    return Contender(f"pagewalk {' '.join(options)}", (PYTHON, "-m", "emu", "run", *options, "--"))


def available(contender: Contender) -> bool:
    return not contender.prefix or shutil.which(contender.prefix[0]) is not None


_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
"""As in a shell: bytecode is written and used."""


@dataclass(frozen=True)
class Sample:
    cpu_s: float
    wall_s: float
    output: bytes


class BenchError(Exception):
    """A program did not do what it should: no time is worth printing."""


def run_once(contender: Contender, argv: Sequence[str]) -> Sample:
    """One process from start to end."""
    command = [*contender.prefix, str(IMAGES / argv[0]), *argv[1:]]
    start = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_ENVIRONMENT)
    assert child.stdout is not None and child.stderr is not None
    output = child.stdout.read()  # a few lines: the pipe never fills
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    complaint = child.stderr.read().decode()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise BenchError(f"{' '.join(command)} ended with status {child.returncode}: {complaint.strip()}")
    return Sample(usage.ru_utime + usage.ru_stime, wall, output)


def fastest(contenders: Sequence[Contender], argv: Sequence[str], nr_runs: int) -> dict[str, Sample]:
    """The smallest CPU and wall time of each contender, in turns."""
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    outputs: dict[bytes, str] = {}
    for _ in range(nr_runs):
        for contender in contenders:
            sample = run_once(contender, argv)
            samples[contender.name].append(sample)
            outputs.setdefault(sample.output, contender.name)
    if len(outputs) > 1:  # whoever computes something else may be as fast as they like
        raise BenchError(f"{' '.join(argv)}: different output from {' and '.join(outputs.values())}")
    return {
        name: Sample(min(s.cpu_s for s in taken), min(s.wall_s for s in taken), taken[0].output)
        for name, taken in samples.items()
    }


def net_cpu_s(
    contenders: Sequence[Contender], work: Sequence[str], nothing: Sequence[str], nr_runs: int
) -> dict[str, float]:
    """CPU time of ``work`` less that of ``nothing`` (the same program with nothing to do): start-up does not count."""
    full = fastest(contenders, work, nr_runs)
    empty = fastest(contenders, nothing, nr_runs)
    return {name: max(full[name].cpu_s - empty[name].cpu_s, 1e-6) for name in full}
