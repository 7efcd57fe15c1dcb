"""What is wrong is said in one line with the right status, never by a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.pagewalk import HELLO, pagewalk, refused


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "no verb given; try: pagewalk run -- PROG"),
        (("frobnicate",), "no verb 'frobnicate': the verbs are run, trace"),
        (("/bin/ls",), "to run a program: pagewalk run -- PROG"),
        (("--frob",), "no such option '--frob'"),
        (("run",), "no program given; end with: -- PROG ARGS..."),
        (("run", "--"), "no program given"),
        (("run", "--ram"), "'--ram' requires an argument"),
        (("run", "--ramm", "1M", "--", HELLO), "no such option '--ramm'. (Did you mean one of: '--ram', '--rmap'?)"),
        (("run", "--ram", "12Q", "--", HELLO), "'12Q' is no size; write bytes, or a number with K, M, G or T"),
        (("run", "--ram", "1K", "--", HELLO), "RAM of 1024 bytes: from 1M to 16G is possible"),
        (("run", "--ram", "100T", "--", HELLO), "from 1M to 16G is possible"),
        (("run", "--swap", "x:y", "--", HELLO), "'y' is no size"),
        (("run", "--kernel", "5.0", "--", HELLO), "no kernel '5.0'; there are: 2.6.6, 2.6.6-anonmm"),
        (("run", "--rmap", "x", "--", HELLO), "no rmap policy 'x'; there are: pte_chain"),
        (("run", "--mremap", "3", "--", HELLO), "no mremap rules '3'; there are: 2.6, 6.1, 6.17"),
        (("run", "--bug", "x", "--", HELLO), "no bug 'x'; there are: mprotect-grower"),
        (("run", "--kernel", "6.1", "--bug", "account-reversed", "--", HELLO), "has the rules of Linux 6"),
        (("run", "--env", "FOO", "--", HELLO), "'FOO' is no NAME=VALUE"),
        (("run", "--seed", "x", "--", HELLO), "'x' is not a valid integer"),
        (("run", "--seed", "-1", "--", HELLO), "-1 is not in the range x>=0"),
        (("run", "--root", "/nonexistent", "--", HELLO), "'/nonexistent' does not exist"),
        (("run", "--writable", "/etc/passwd", "--", HELLO), "'/etc/passwd' is a file"),
        (("run", "--clock", "wall", "--", HELLO), "'wall' is not one of 'virtual', 'host'"),
        (("run", "--check=0", "--", HELLO), "'0' is no number of events"),
        (("run", "--max-map-count", "0", "--", HELLO), "0 is not in the range x>=1"),
        (("run", "--fail", "x", "--", HELLO), "expected POINT:N"),
        (("run", "--color", "blue", "--", HELLO), "'blue' is not one of 'auto', 'always', 'never'"),
        (("trace", "-e", "foults", "--", HELLO), "no events 'foults'; there are faults, syscalls"),
        (("trace", "--format", "xml", "--", HELLO), "'xml' is not one of 'text', 'jsonl'"),
        (("trace", "-o", "/nonexistent/x", "--", HELLO), "-o /nonexistent/x: No such file or directory"),
        (("trace", "--addr", "zz", "--", HELLO), "'zz' is no address or range"),
        (("trace", "--syscall", "%mem", "--", HELLO), "no system call '%mem'; classes are"),
        (("kernels", "extra"), "got unexpected extra argument (extra)"),
    ],
)
def test_bad_command_lines(args: tuple[str, ...], words: str) -> None:
    assert words in refused(*args)


def test_statistics_that_cannot_be_written() -> None:
    done = pagewalk("run", "--stats=/nonexistent/s.json", "--", HELLO)
    assert done.returncode == 125
    assert done.stderr == "pagewalk: --stats: /nonexistent/s.json: No such file or directory\n"


def test_a_full_disk() -> None:
    done = pagewalk("trace", "-o", "/dev/full", "--", HELLO)
    assert done.returncode == 125
    assert done.stderr == "pagewalk: -o /dev/full: No space left on device\n"


class TestProgramsThatDoNotRun:
    """126 and 127, and one line that says what is wrong with the file."""

    def test_no_such_file(self) -> None:
        assert "/nonexistent" in refused("run", "--", "/nonexistent", status=127)
        assert "no-such-program" in refused("run", "--", "no-such-program", status=127)

    def test_directory(self) -> None:
        assert "director" in refused("run", "--", "/usr", status=126)

    def test_no_permission(self, tmp_path: Path) -> None:
        assert "ermission" in refused("run", "--", self.file(tmp_path, b"\x7fELF", mode=0o644), status=126)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"hello\n",
            b"\x7fELF",
            b"\x7fELF\x01\x01\x01" + bytes(57),
            b"\x7fELF\x02\x01\x01" + bytes(57),
            b"\x7fELF\x02\x01\x01" + b"\xff" * 2000,
            b"#!",
            b"#!/nonexistent/interpreter\n",
        ],
    )
    def test_not_runnable(self, tmp_path: Path, content: bytes) -> None:
        path = self.file(tmp_path, content)
        assert str(path) in refused("run", "--", path, status=126)

    @staticmethod
    def file(folder: Path, content: bytes, mode: int = 0o755) -> Path:
        path = folder / "prog"
        path.write_bytes(content)
        path.chmod(mode)
        return path


def test_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "emu", "kernels"], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_options_end_at_the_program() -> None:
    assert pagewalk("run", HELLO, "--help").returncode == 0
    assert pagewalk("run", "--stats", HELLO).returncode == 0  # --stats takes a value only after =


def test_help() -> None:
    for verb in ("run", "trace", "kernels", "syscalls"):
        done = pagewalk(verb, "--help")
        assert done.returncode == 0
        assert f"Usage: pagewalk {verb}" in done.stdout
    assert "run " in pagewalk("--help").stdout
    assert pagewalk("--version").stdout.startswith("pagewalk ")


def test_internal_errors_are_one_line(tmp_path: Path) -> None:
    """A broken installation: a traceback only when asked for."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['kernel.profile'] = None\n")
    env = {"PYTHONPATH": str(tmp_path)}
    done = pagewalk("kernels", env=env)
    assert done.returncode == 125
    assert done.stderr.startswith("pagewalk: internal error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" in pagewalk("kernels", env=env | {"PAGEWALK_DEBUG": "1"}).stderr
