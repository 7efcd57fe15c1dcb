"""System calls on memory read as strace prints them: the same program under strace, natively, and under pagewalk.

Deliberate differences, taken out before the comparison: each line begins with ``[pid N]``; the text of an error goes on
with the rule that refused (``Invalid argument: length is zero``).  Addresses that a kernel chooses are put out of the
way; those that the program chooses are compared.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest.harness import ENVIRONMENT, ROOT, pagewalk, require

ARENA = "2000"
"""How the program's own addresses begin (0x200000000 and so on)."""
_ERROR = re.compile(r"(= -1 E[A-Z0-9]+ \([^:)]*)(?:: (.*))?\)$")


def strace(argv: list[str], output: Path) -> list[str]:
    """The lines of ``strace -f -e trace=%memory``, without what is about processes."""
    require(["strace"])
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=%memory", "-e", "signal=none", "-o", str(output), *argv],
        env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if "ptrace" in done.stderr and "Operation not permitted" in done.stderr:
        pytest.skip("this host lets nobody trace (ptrace)")
    assert done.returncode == 0, done.stderr
    return _calls(output.read_text())


def traced(argv: list[str]) -> list[str]:
    done = pagewalk(argv, ("-q", "-e", "syscalls", "--syscall", "%memory", "--kernel", "6.18"), verb="trace")
    assert done.status == 0, done.stderr
    return _calls(done.stderr)


def _calls(text: str) -> list[str]:
    lines = (re.sub(r"^(?:\[pid +\d+\] |\d+ +)", "", line) for line in text.splitlines())
    return [line for line in lines if not line.startswith(("+++", "---"))]


def normalised(lines: list[str]) -> list[str]:
    found = []
    for line in lines:
        line = _ERROR.sub(r"\1)", line)
        line = re.sub(rf"(?<=[ (])0x(?!{ARENA})[0-9a-f]{{6,}}", "ADDRESS", line)
        found.append(re.sub(r" +=", " =", line))
    return found


def test_flags_and_errors_of_every_call(built: Callable[..., Path], tmp_path: Path) -> None:
    program = str(built("memcalls.c", ("-static",)))
    expected, got = strace([program], tmp_path / "calls"), traced([program])
    assert len(expected) > 140
    assert normalised(got) == normalised(expected)


def test_every_refusal_says_which_rule(built: Callable[..., Path]) -> None:
    refusals = [match for line in traced([str(built("memcalls.c", ("-static",)))]) if (match := _ERROR.search(line))]
    assert len(refusals) > 50
    assert [match[0] for match in refusals if not match[2]] == []


@pytest.mark.parametrize(
    "script",
    [
        "m:0:8:rw W:0:8 p:2:2:r v:0:8:16:M m:20:4:rw:S f{ w:20 u:20:1 f} v:20:4:4:MF:40 u:0:8",
        "m:0:4:rw:P l:0:4 L:CF k:0:2 K q:MEMLOCK:1 l:0:4 a:0:4:dontneed a:0:2:free a:0:1:99",
        "m:0:4:r:F m:4:4:rw:SF:4 w:5 y:4:4:S y:4:4:AI c:0:8 t:6 y:4:4:S m:10:4:x m:11:2:rw:E",
        "m:0:3:rw m:4:3:rw v:0:8:8:MF:32 v:0:3:3:MF:1 v:0:3:3:MD v:0:0:1:M u:1:1 p:0:3:r b:3 b:~1 b:1",
    ],
)
def test_scripts_of_calls(script: str, tmp_path: Path) -> None:
    argv = [str(ROOT / "images/vmscript"), *script.split()]
    assert normalised(traced(argv)) == normalised(strace(argv, tmp_path / "calls"))
