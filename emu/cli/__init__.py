"""The command line ``pagewalk``: one module a verb, loaded only when that verb is used.

Modelled on ``env``, ``timeout`` and ``strace``: the exit status is the program's own, 125 is ours.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    if argv is None:
        gc.disable()  # nothing made while modules load is garbage; the collector is on again when the machine runs
    try:
        from emu.cli.app import run
    except KeyboardInterrupt:  # while everything is still being loaded
        return 130
    return run(argv)
