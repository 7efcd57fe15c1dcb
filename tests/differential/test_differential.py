"""Three hundred random scripts: the host's kernel and ``--kernel 6.18`` must agree in every line.

More of them: ``make proof``.  A script that once failed is kept in ``regressions.txt``.
"""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tests.differential.generate import make_script
from tests.differential.run import run_machine, run_native

NR_SCRIPTS = 300
CHUNK = 20
REGRESSIONS = Path(__file__).parent / "regressions.txt"


def host_is_recent() -> bool:
    """mremap of several areas came with Linux 6.17; the host answers for 6.18 only if it has it."""
    major, minor = platform.release().split(".")[:2]
    return (int(major), int(minor)) >= (6, 17)


needs_recent_host = pytest.mark.skipif(not host_is_recent(), reason="the host's kernel is older than Linux 6.17")


def differing(scripts: list[list[str]]) -> list[str]:
    reports = []
    for script in scripts:
        native, ours = run_native(script), run_machine(script)
        if native != ours:
            reports.append(f"vmscript {' '.join(script)}\n--- native\n{native}--- pagewalk\n{ours}")
    return reports


@needs_recent_host
@pytest.mark.parametrize("first", range(0, NR_SCRIPTS, CHUNK))
def test_random_scripts(first: int) -> None:
    reports = differing([make_script(seed) for seed in range(first, first + CHUNK)])
    assert not reports, f"{len(reports)} of {CHUNK} differ; the first:\n{reports[0]}"


@needs_recent_host
def test_scripts_that_once_failed() -> None:
    lines = REGRESSIONS.read_text().splitlines() if REGRESSIONS.exists() else []
    reports = differing([line.split() for line in lines if line and not line.startswith("#")])
    assert not reports, f"{len(reports)} differ; the first:\n{reports[0]}"
