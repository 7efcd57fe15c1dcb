"""The mremap calls of a program: what the host's own kernel answers, as strace sees it, and what ours does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.guest.harness import ROOT, Result, native, pagewalk, require

MREMAP = re.compile(r"mremap\(0x[0-9a-f]+, (?P<old>\d+), (?P<new>\d+), [^)]*\) = (?:-1 (?P<error>E\w+)|0x)")


class Mremap(NamedTuple):
    """What must be the same on two kernels that lay an address space out differently."""

    old_len_bytes: int
    new_len_bytes: int
    error: str | None


def native_mremaps(
    argv: Iterable[str],
    logs: Path,
    options: Iterable[str] = (),
    *,
    cwd: Path = ROOT,
    stdin: str = "",
    env: dict[str, str] | None = None,
) -> tuple[Result, list[Mremap]]:
    """A run on the host's kernel under strace, which gets ``options``; its mremap calls, and those of its children."""
    require(["strace"])
    log = logs / "native.strace"
    command = ["strace", "-f", "-e", "trace=mremap", *options, "-o", str(log), "--", *argv]
    result = native(command, stdin, env, cwd)
    return result, _mremaps(log)


def guest_mremaps(
    argv: Iterable[str],
    logs: Path,
    options: Iterable[str] = (),
    *,
    cwd: Path = ROOT,
    stdin: str = "",
    env: dict[str, str] | None = None,
) -> tuple[Result, list[Mremap]]:
    """The same under pagewalk, with ``options`` of its own."""
    log = logs / "guest.strace"
    trace = ("-q", "-e", "syscalls", "--syscall", "mremap", "-o", str(log), *options)
    return pagewalk(argv, trace, stdin, env, cwd, verb="trace"), _mremaps(log)


def _mremaps(log: Path) -> list[Mremap]:
    found = MREMAP.finditer(log.read_text(encoding="utf-8", errors="replace"))
    return [Mremap(int(call["old"]), int(call["new"]), call["error"]) for call in found]
