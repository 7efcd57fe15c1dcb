"""The command line on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.cli.pagewalk import ROOT

_MAIN = "import sys; from emu.cli import main; sys.exit(main(sys.argv[1:]))"


def on_terminal(
    *args: str, stdout: Path | None = None, env: dict[str, str] | None = None, before: str = "pass"
) -> tuple[bytes, int]:
    """What appears on a terminal that is standard error (and output, if not redirected), and the exit status.

    ``before``: Python that runs first.
    """
    ours, tty = pty.openpty()
    with open(stdout or os.devnull, "wb") as file:
        program = subprocess.Popen(
            [sys.executable, "-c", f"{before}\n{_MAIN}", *args],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is not None else tty,
            stderr=tty,
            env={"PATH": os.environ["PATH"], "TERM": "xterm"} | (env or {}),
        )
    os.close(tty)
    seen = b""
    with suppress(OSError):  # EIO: nobody has the terminal any more
        while data := os.read(ours, 65_536):
            seen += data
    os.close(ours)
    return seen, program.wait()
