"""Runs a script of ``images/vmscript`` natively and under pagewalk, in a child process that is warm already."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[2] / "images"
VMSCRIPT = str(IMAGES / "vmscript")


def run_native(script: list[str]) -> str:
    """What the host's kernel answers, with the exit status when it is not 0; a child may complain, too."""
    done = subprocess.run(
        [VMSCRIPT, *script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    return done.stdout + (f"exit {done.returncode} " if done.returncode else "")


def run_machine(script: list[str], kernel: str = "6.18", **config: object) -> str:
    """What a machine with ``kernel`` answers, in the same form; every invariant is checked at each step."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 125
        try:
            os.dup2(write_end, 1)
            os.dup2(write_end, 2)
            status = _child(script, kernel, config)
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        output = pipe.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return output + (f"exit {status} " if status else "")


def _child(script: list[str], kernel: str, config: dict[str, object]) -> int:
    import traceback

    from emu.machine import Machine, MachineConfig

    try:
        machine = Machine(MachineConfig(kernel=kernel, ram_bytes=16 << 20, **config))  # type: ignore[arg-type]
        machine.spawn([VMSCRIPT, *script])
        return machine.run()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        return 125
