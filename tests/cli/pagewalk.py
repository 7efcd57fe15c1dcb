"""Running the real command line in tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HELLO = "images/hello"


def pagewalk(
    *args: str | Path, env: dict[str, str] | None = None, stdin: str = "", timeout: int = 120
) -> subprocess.CompletedProcess[str]:
    """``pagewalk ARGS...`` in a process of its own, with a small fixed environment and ``env``."""
    return subprocess.run(
        [sys.executable, "-m", "emu", *map(str, args)],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C.UTF-8"} | (env or {}),
    )


def refused(*args: str | Path, status: int = 125) -> str:
    """The one line on stderr of a command that must be refused."""
    done = pagewalk(*args)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("pagewalk: ")
    return lines[0].removeprefix("pagewalk: ")
