"""Programs against libc and pthreads, built here from ``programs/``: each prints one line a probe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest.harness import PROGRAMS, Case, compare

Builder = Callable[..., Path]

SOURCES = sorted(path.name for path in PROGRAMS.iterdir() if path.suffix != ".h")


MODERN = {"memcalls.c", "memsem.c", "limits.c"}
"""Sources that probe rules which differ between kernels: they are compared under today's."""


@pytest.mark.parametrize("source", SOURCES)
def test_dynamic(source: str, built: Builder, tmp_path: Path) -> None:
    options = ("--kernel", "6.18") if source in MODERN else ()
    compare(Case(source, (str(built(source)),), options=options), tmp_path / "work")


@pytest.mark.parametrize("flags", [("-static",), ("-static-pie",), ("-no-pie",), ("-O0", "-g"), ("-O3",)], ids=" ".join)
@pytest.mark.parametrize("source", ["execs.c", "threads.c"])
def test_linked_otherwise(source: str, flags: tuple[str, ...], built: Builder, tmp_path: Path) -> None:
    compare(Case(source, (str(built(source, flags)),)), tmp_path / "work")
