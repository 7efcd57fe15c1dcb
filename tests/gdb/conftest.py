"""Debian's gdb against ``pagewalk run --gdb``; one loud line when there is no gdb or no compiler."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = Path(__file__).resolve().parent / "programs"
NEEDED = ("gdb", "gcc")
_MISSING = [name for name in NEEDED if shutil.which(name) is None]
_PREPARE = "set confirm off\nset pagination off\nset width 0\nset debuginfod enabled off\n"
_SECONDS = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _MISSING:
        mark = pytest.mark.skip(reason=f"NOT INSTALLED: {', '.join(_MISSING)}")
        for item in items:
            if "debugger" in getattr(item, "fixturenames", ()):
                item.add_marker(mark)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _MISSING:
        terminalreporter.section(f"{', '.join(_MISSING)} not installed: tests of --gdb skipped", sep="!")


@dataclass(frozen=True)
class Session:
    """What gdb said, and what became of the program."""

    said: str
    stdout: str
    stderr: str
    status: int

    def shows(self, *patterns: str) -> None:
        """All of ``patterns`` (regular expressions) were said, in this order."""
        place = 0
        for pattern in patterns:
            match = re.compile(pattern, re.MULTILINE).search(self.said, place)
            assert match is not None, f"{pattern!r} not found after {place} in:\n{self.said}\n{self.stderr}"
            place = match.end()


Debug = Callable[..., Session]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def debugger(tmp_path: Path) -> Debug:
    """Runs a program with gdb attached to it and ``script`` as gdb's orders."""

    def debug(script: str, *argv: str | Path, options: tuple[str, ...] = ()) -> Session:
        port = free_port()
        orders = tmp_path / "orders.gdb"
        orders.write_text(f"{_PREPARE}target remote 127.0.0.1:{port}\n{script}\n")
        command = [sys.executable, "-m", "emu", "run", "--gdb", str(port), *options, "--", *map(str, argv)]
        environment = {"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C.UTF-8"}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as program:  # fmt: skip
            try:
                assert program.stderr is not None
                ready = program.stderr.readline()
                assert ready == f"pagewalk: waiting for gdb: target remote :{port}\n", ready
                gdb = subprocess.run(
                    ["gdb", "-nx", "-batch", "-x", str(orders)],
                    cwd=ROOT, env=environment, text=True, timeout=_SECONDS,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                )  # fmt: skip
                stdout, stderr = program.communicate(timeout=_SECONDS)
            finally:
                program.kill()
        return Session(gdb.stdout, stdout, stderr, program.returncode)

    return debug


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles a program of ``programs/`` with debugging information."""
    directory = tmp_path_factory.mktemp("gdb-programs")

    def build(name: str, *flags: str) -> Path:
        program = directory / "-".join((name, *flags)).replace("/", "_")
        if not program.exists():
            source = PROGRAMS / f"{name}.c"
            subprocess.run(["gcc", "-g", "-O0", "-pthread", *flags, "-o", str(program), str(source)], check=True)
        return program

    return build
