"""The program that most of these tests check, compiled once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent / "programs" / "reacts.c"


@pytest.fixture(scope="session")
def reacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``programs/reacts.c``, with line numbers; workers share it."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    program = base / "reacts"
    if not program.exists():
        unfinished = base / f"reacts.{os.getpid()}"
        subprocess.run(["gcc", "-O1", "-g", "-pthread", "-o", str(unfinished), str(SOURCE)], check=True)
        unfinished.replace(program)
    return program


@pytest.fixture(scope="session")
def line_of() -> dict[str, int]:
    """The lines of ``reacts.c`` that carry a comment at their end, by the comment."""
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    return {
        text.rsplit("/* ", 1)[1].removesuffix(" */"): number
        for number, text in enumerate(lines, start=1)
        if "/* " in text and text.endswith(" */") and not text.startswith((" *", "/*"))
    }
