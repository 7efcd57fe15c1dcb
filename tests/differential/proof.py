"""``make proof``: thousands of random scripts against the host's kernel; prints how many agreed.

    python -m tests.differential.proof [NUMBER [FIRST_SEED]]
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.differential.generate import make_script
from tests.differential.run import run_machine, run_native

DEFAULT_NUMBER = 5000


def compare(seed: int) -> str | None:
    """None when the script of number ``seed`` agrees, else a report."""
    script = make_script(seed)
    native, ours = run_native(script), run_machine(script)
    if native == ours:
        return None
    return f"seed {seed}: vmscript {' '.join(script)}\n--- native\n{native}--- pagewalk\n{ours}"


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_NUMBER
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    reports = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for report in pool.map(compare, range(first, first + number), chunksize=20):
            if report is not None:
                reports.append(report)
                print(report, flush=True)
    print(f"{number - len(reports)} of {number} random scripts agree with Linux {os.uname().release}")
    return 1 if reports else 0


if __name__ == "__main__":
    sys.exit(main())
