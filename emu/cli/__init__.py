"""The command line ``pagewalk``: one module a verb, loaded only when that verb is used.

Modelled on ``env``, ``timeout`` and ``strace``: the exit status is the program's own, 125 is ours.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    if argv is None:
        gc.disable()  # nothing made while modules load is garbage; the collector is on again when the machine runs
        _keep_numpy_single()
    try:
        from emu.cli.app import run
    except KeyboardInterrupt:  # while everything is still being loaded
        return 130
    return run(argv)


def _keep_numpy_single() -> None:
    """NumPy's linear algebra, which nothing here uses, starts a thread for every core when it is loaded.

    Not through ``os.environ``: that is what the guest's environment is made of.
    """
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.putenv("OPENBLAS_NUM_THREADS", "1")
