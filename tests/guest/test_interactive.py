"""The terminal passes through: a shell at a terminal can be used, with line editing, Ctrl-C, Ctrl-D and job control."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from tests.guest.harness import ENVIRONMENT, PAGEWALK

PATIENCE_SECONDS = 40.0
LINE = r"[\r\n]"
"""What comes before a line of output: the end of a line, or the return after a mode switch of readline."""


class Terminal:
    """A program at a pseudo-terminal, its output collected in ``seen``."""

    def __init__(self, argv: list[str]) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [*PAGEWALK, "run", "-q", "--", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=ENVIRONMENT | {"PS1": "ready> ", "TERM": "vt100"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.seen = ""

    def send(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> str:
        """Wait until the output matches; what came up to there is used up."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            match = re.search(pattern, self.seen)
            if match:
                self.seen = self.seen[match.end() :]
                return match[0]
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                pytest.fail(f"{pattern!r} did not come; the terminal shows {self.seen!r}", pytrace=False)
            self.seen += os.read(self.master, 4096).decode(errors="replace")

    def end(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def shell() -> Iterator[Terminal]:
    terminal = Terminal(["/bin/bash", "--norc", "--noprofile", "-i"])
    terminal.expect("ready> ")
    yield terminal
    terminal.close()


def test_commands_and_exit_status(shell: Terminal) -> None:
    shell.send("echo $((6 * 7)); tty > /dev/null && echo terminal\r")
    shell.expect(LINE + "42\r\n")
    shell.expect("terminal\r\n")
    shell.expect("ready> ")
    shell.send("stty size\r")
    shell.expect("24 80\r\n")
    shell.send("exit 3\r")
    assert shell.end() == 3
    assert termios.tcgetattr(shell.slave) == shell.before, "the terminal is left as it was found"


def test_line_editing(shell: Terminal) -> None:
    shell.send("echo wrong\x7f\x7f\x7f\x7f\x7fright\r")  # backspace
    shell.expect(LINE + "right\r\n")
    shell.expect("ready> ")
    shell.send("\x1b[A\r")  # the line before
    shell.expect(LINE + "right\r\n")
    shell.expect("ready> ")
    shell.send("ab\x01echo \r")  # to the start of the line
    shell.expect(LINE + "ab\r\n")


def test_ctrl_c_ends_the_program_in_front_and_not_the_shell(shell: Terminal) -> None:
    shell.send("sleep 1000\r")
    shell.expect("sleep 1000\r\n")
    time.sleep(1)
    shell.send("\x03")
    shell.expect("ready> ")
    shell.send("echo status $?\r")
    shell.expect(LINE + "status 130\r\n")
    shell.send("while :; do :; done\r")
    shell.expect("done\r\n")
    time.sleep(1)
    shell.send("\x03")
    shell.expect("ready> ")
    shell.send("echo alive\r")
    shell.expect(LINE + "alive\r\n")


def test_job_control(shell: Terminal) -> None:
    shell.send("cat\r")
    shell.expect("cat\r\n")
    time.sleep(1)
    shell.send("echoed by cat\r")
    shell.expect("echoed by cat\r\nechoed by cat\r\n")
    shell.send("\x1a")  # Ctrl-Z
    shell.expect("Stopped")
    shell.expect("ready> ")
    shell.send("jobs; fg\r")
    shell.expect("Stopped")
    shell.expect("cat\r\n")
    shell.send("again\r")
    shell.expect("again\r\nagain\r\n")
    shell.send("\x04")  # Ctrl-D
    shell.expect("ready> ")
    shell.send("\x04")
    assert shell.end() == 0


def test_no_echo_for_passwords() -> None:
    terminal = Terminal(["/bin/bash", "-c", "read -sp 'secret: ' x; echo; echo got ${#x}"])
    terminal.expect("secret: ")
    terminal.send("hidden\r")
    assert "hidden" not in terminal.expect("got 6")
    assert terminal.end() == 0
    terminal.close()
