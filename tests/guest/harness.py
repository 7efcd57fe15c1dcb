"""Side by side: a program run natively and under pagewalk must print the same and end the same.

Both runs happen in the same directory (so that paths in the output agree), prepared anew for each; after the second
one the directory must be as it was prepared, because a guest never changes a host file.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "images"
PROGRAMS = Path(__file__).resolve().parent / "programs"
SCRIPTS = Path(__file__).resolve().parent / "scripts"

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "TERM": "dumb",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
}
"""Small and fixed: what a program prints must not depend on who runs the tests."""

NOT_INSTALLED = "not installed: "
"""How the reason of a skip for want of a program begins."""

_MAIN = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from emu.cli import main; sys.exit(main())"
PAGEWALK = [sys.executable, "-c", _MAIN]
"""The tool of this checkout, from any directory, with nothing for the guest in the environment."""


@dataclass(frozen=True)
class Result:
    """How a run ended: exit status (128 + signal when killed) and everything it wrote."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Case:
    """One command line that must do the same natively and under pagewalk."""

    name: str
    argv: tuple[str, ...]
    stdin: str = ""
    prepare: Callable[[Path], None] | None = None
    """Fills the working directory."""
    options: tuple[str, ...] = ()
    """Options of pagewalk."""
    normalise: Callable[[str], str] | None = None
    """Applied to both outputs of both runs: for what may differ (process ids)."""
    timeout_seconds: float = 120


def _hear_signals() -> None:
    """A shell that puts the suite in the background has these ignored, and a native program would inherit that."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _run(argv: list[str], stdin: str, env: dict[str, str], cwd: Path, timeout_seconds: float) -> Result:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=cwd, start_new_session=True, preexec_fn=_hear_signals
    )
    try:
        out, err = process.communicate(stdin.encode(), timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        seen = f"stdout: {out[-2000:]!r}\nstderr: {err[-2000:]!r}"
        pytest.fail(f"no end after {timeout_seconds:g} s: {argv}\n{seen}", pytrace=False)
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Result(status, out.decode(errors="replace"), err.decode(errors="replace"))


def native(
    argv: Iterable[str],
    stdin: str = "",
    env: dict[str, str] | None = None,
    cwd: Path = ROOT,
    timeout_seconds: float = 60,
) -> Result:
    """Run on this machine's own kernel."""
    return _run(list(argv), stdin, ENVIRONMENT | (env or {}), cwd, timeout_seconds)


def pagewalk(
    argv: Iterable[str],
    options: Iterable[str] = (),
    stdin: str = "",
    env: dict[str, str] | None = None,
    cwd: Path = ROOT,
    timeout_seconds: float = 120,
    verb: str = "run",
) -> Result:
    """Run under pagewalk, of this checkout, in a process of its own."""
    command = [*PAGEWALK, verb, *options, "--", *argv]
    return _run(command, stdin, ENVIRONMENT | (env or {}), cwd, timeout_seconds)


def snapshot(directory: Path) -> dict[str, bytes | str]:
    """What is in a directory: contents of files, targets of links."""
    found: dict[str, bytes | str] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = "directory" if path.is_dir() else "special"
    return found


def fresh(work: Path, prepare: Callable[[Path], None] | None) -> dict[str, bytes | str]:
    """The working directory as it is before a run."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if prepare is not None:
        prepare(work)
    return snapshot(work)


def compare(case: Case, work: Path) -> None:
    """Both runs, and the same ending, output and errors of both."""
    fresh(work, case.prepare)
    expected = native(case.argv, case.stdin, cwd=work)
    before = fresh(work, case.prepare)
    got = pagewalk(case.argv, ("-q", *case.options), case.stdin, cwd=work, timeout_seconds=case.timeout_seconds)
    normalise = case.normalise or (lambda text: text)
    assert normalise(got.stderr) == normalise(expected.stderr)
    assert normalise(got.stdout) == normalise(expected.stdout)
    assert got.status == expected.status
    assert snapshot(work) == before, "the guest changed host files"


def require(programs: Iterable[str]) -> None:
    """Skip when an executable is not installed; conftest.py names all of them once at the end."""
    for program in programs:
        if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
            pytest.skip(f"{NOT_INSTALLED}{program}")
