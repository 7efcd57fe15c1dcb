"""The progress line: what it says, and that it disturbs nobody."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from emu import Machine
from emu.progress import EVERY_S, FIRST_AFTER_S, RunProgress, StatusLine, status_text
from tests.cli.pagewalk import ROOT
from tests.cli.terminal import on_terminal

STATUS = r"\d+ tasks?, [\d,]+ faults, [\d.,]+M? blocks, rss [\d.]+[KMG]?(, swap [\d.]+[KMG]?)?, \d+\.\d\d s"
LONG_RUN = ["images/bench_compute", "integer", "40"]
"""Several quanta."""
AT_ONCE = "import emu.progress; emu.progress.FIRST_AFTER_S = emu.progress.EVERY_S = 0.0"
"""Makes every run a long one."""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """(our end, the terminal)."""
    ours, tty = pty.openpty()
    yield ours, tty
    os.close(ours)
    with suppress(OSError):
        os.close(tty)


def read_now(ours: int, tty: int) -> bytes:
    """All that has been written to the terminal: a mark written after it comes last."""
    os.write(tty, b"\0")
    seen = b""
    while not seen.endswith(b"\0"):
        seen += os.read(ours, 65_536)
    return seen[:-1]


# ---- the line -------------------------------------------------------------------------------------------------------


def test_the_numbers_are_the_machine_s() -> None:
    with Machine(swap="1M") as machine:
        machine.run_program(["images/faults"], until="fault:53", capture=True)
        text = status_text(machine)
        assert re.fullmatch(STATUS, text)
        assert text.startswith("2 tasks, 53 faults, ") and ", swap 0, " in text
        machine.run()
        assert status_text(machine).startswith("0 tasks, ")


def test_a_line_replaces_the_one_before_and_goes(terminal: tuple[int, int]) -> None:
    ours, tty = terminal
    line = StatusLine(tty)
    line.show("one")
    line.show("two")
    line.wipe()
    line.wipe()
    assert read_now(ours, tty) == b"\r\x1b[Kone\r\x1b[Ktwo\r\x1b[K"


def test_a_long_line_is_cut_to_the_terminal(terminal: tuple[int, int]) -> None:
    ours, tty = terminal
    fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    StatusLine(tty).show("x" * 100)
    assert read_now(ours, tty) == b"\r\x1b[K" + b"x" * 19


def test_what_the_guest_writes_wipes_it_and_an_unfinished_line_is_left_alone(terminal: tuple[int, int]) -> None:
    ours, tty = terminal
    line = StatusLine(tty)
    line.show("status")
    line.others_write(b"prompt> ")
    line.show("status")
    assert read_now(ours, tty) == b"\r\x1b[Kstatus\r\x1b[K"
    line.others_write(b"done\n")
    line.show("status")
    assert read_now(ours, tty) == b"\r\x1b[Kstatus"


def test_a_terminal_that_has_gone_is_no_error() -> None:
    ours, tty = pty.openpty()
    os.close(ours)
    line = StatusLine(tty)
    line.show("status")
    line.wipe()
    os.close(tty)


def test_it_comes_after_a_second_and_not_too_often(terminal: tuple[int, int]) -> None:
    ours, tty = terminal
    now = 0.0
    with Machine() as machine:
        progress = RunProgress(StatusLine(tty), lambda: now)
        shown = []
        for now in (0.1, FIRST_AFTER_S - 0.1, FIRST_AFTER_S, FIRST_AFTER_S + 0.1, FIRST_AFTER_S + EVERY_S):  # noqa: B007
            progress.on_quantum(machine)
            shown.append(bool(read_now(ours, tty)))
    assert shown == [False, False, True, False, True]


# ---- the command line -----------------------------------------------------------------------------------------------


def test_a_long_run_shows_how_it_is_getting_on_and_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "out"
    seen, status = on_terminal("run", "--", *LONG_RUN, stdout=output, before=AT_ONCE)
    assert status == 0
    assert re.search(STATUS.encode(), seen)
    assert seen.endswith(b"\r\x1b[K")
    assert output.read_bytes() == subprocess.run([ROOT / LONG_RUN[0], *LONG_RUN[1:]], stdout=subprocess.PIPE).stdout


def test_output_on_the_same_terminal_stays_whole() -> None:
    seen, status = on_terminal("run", "--", *LONG_RUN, before=AT_ONCE)
    assert status == 0
    rest = re.sub(rb"\r\x1b\[K" + STATUS.encode(), b"", seen).replace(b"\r\x1b[K", b"")
    native = subprocess.run([ROOT / LONG_RUN[0], *LONG_RUN[1:]], stdout=subprocess.PIPE).stdout
    assert rest.replace(b"\r\n", b"\n") == native


@pytest.mark.parametrize(
    ("options", "env"), [(("-q",), {}), ((), {"TERM": "dumb"})], ids=["-q", "a terminal that cannot wipe"]
)
def test_it_can_be_done_without(options: tuple[str, ...], env: dict[str, str], tmp_path: Path) -> None:
    seen, status = on_terminal("run", *options, "--", *LONG_RUN, stdout=tmp_path / "out", env=env, before=AT_ONCE)
    assert (seen, status) == (b"", 0)


def test_a_trace_on_the_terminal_is_not_disturbed_and_one_in_a_file_shows_progress(tmp_path: Path) -> None:
    on_screen, _ = on_terminal("trace", "--", *LONG_RUN, stdout=tmp_path / "out", before=AT_ONCE)
    assert b"\x1b[K" not in on_screen
    seen, _ = on_terminal(
        "trace", "-o", str(tmp_path / "trace"), "--", *LONG_RUN, stdout=tmp_path / "out", before=AT_ONCE
    )
    assert re.search(STATUS.encode(), seen)
