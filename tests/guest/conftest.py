"""Fixtures of the side-by-side tests, and one loud list of the programs that were not there to be tested."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest.harness import NOT_INSTALLED, PROGRAMS, require


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if NOT_INSTALLED in reason:
            program = reason.split(NOT_INSTALLED, 1)[1]
            missing[program] = missing.get(program, 0) + 1
    if missing:
        terminalreporter.section("programs not installed, tests skipped", sep="!")
        for program, count in sorted(missing.items()):
            terminalreporter.write_line(f"{program}: {count}")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, tuple[str, ...]], Path]:
    """Compiles a program of ``programs/`` at its first use; workers share the results."""
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    directory = base / "programs"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)

    def build(source: str, flags: tuple[str, ...] = ()) -> Path:
        stem, _, kind = source.partition(".")
        compiler = {"c": ["gcc", "-O1"], "cc": ["g++", "-O1"], "go": ["go", "build"]}[kind]
        require([compiler[0]])
        where = directory / ("-".join([stem, *flags]).replace("/", "_") or stem)
        where.mkdir(exist_ok=True)
        program = where / stem
        if program.exists():
            return program
        unfinished = where / f"{stem}.{os.getpid()}"
        command = [*compiler, "-o", str(unfinished), *flags]
        command += [str(PROGRAMS / source)] if kind == "go" else ["-pthread", str(PROGRAMS / source), "-lm"]
        env = dict(os.environ, CGO_ENABLED="0", GO111MODULE="off", GOCACHE=str(directory / "go-cache"))
        subprocess.run(command, check=True, env=env)
        unfinished.replace(program)
        return program

    return build
