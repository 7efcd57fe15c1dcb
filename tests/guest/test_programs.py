"""The programs of Debian that must run, each natively and under pagewalk.

One script of ``scripts/`` is one test; its suffix says which interpreter runs it, a first line ``# needs: a b`` which
other programs it uses.  All of them find the same files in their working directory.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.guest.harness import ENVIRONMENT, SCRIPTS, Case, compare, require

LONG_AGO = (1_085_227_200, 1_085_227_200)
WORDS = [f"line {i} {'odd' if i % 2 else 'even'} {i * 7919 % 1000:03d} {chr(97 + i % 26)}\n" for i in range(500)]
POEM = """\
The quick brown fox
jumps over the lazy dog.

It was the best of times,
it was the worst of times;
42 is a number, -17 another.
"""
FILES = {
    "words": "".join(WORDS),
    "poem": POEM,
    "empty": "",
    "sub/inner": "inside\n",
    "sub/other": "other\n",
    "tree/a/file": "one\n",
    "tree/a/b/deep": "two\n" * 100,
    "tree/c/exec": "#!/bin/sh\necho hi\n",
    "hello.c": (SCRIPTS / "hello.c").read_text(),
}

_key: list[str] = []


def rsa_key() -> str:
    """The same key for both runs of a test."""
    if not _key:
        command = ["openssl", "genrsa", "-traditional", "1024"]
        _key.append(subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout)
    return _key[0]


def prepare(work: Path) -> None:
    """Files, links, modes and times that are the same every time."""
    for name, text in FILES.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    (work / "tree/link").symlink_to("a/file")
    os.link(work / "tree/a/file", work / "tree/hard")
    for path in sorted(work.rglob("*"), reverse=True):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, LONG_AGO, follow_symlinks=False)


def prepare_with_key(work: Path) -> None:
    prepare(work)
    (work / "key.pem").write_text(rsa_key())


INTERPRETERS = {
    ".sh": ("/bin/dash",),
    ".bash": ("/bin/bash",),
    ".pl": ("perl",),
    ".lua": ("lua5.4",),
    ".py": ("python3",),
}

STDIN = {"bash-stdin": "1,2,3\nx,y,z\nlast,line,without", "perl-script": "".join(WORDS)}


def without_pids(text: str) -> str:
    """bash names the process that a signal killed."""
    return re.sub(r"(line \d+): +\d+", r"\1: PID", text)


def script_case(path: Path) -> Case:
    return Case(
        path.stem,
        (*INTERPRETERS[path.suffix], str(path)),
        stdin=STDIN.get(path.stem, "a line\nand another\n"),
        prepare=prepare_with_key if path.stem == "openssl" else prepare,
        normalise=without_pids if path.suffix == ".bash" else None,
    )


def needs(path: Path) -> list[str]:
    match = re.match(r"# needs: (.*)", path.read_text())
    programs = match[1].split() if match else []
    if path.name.startswith("busybox"):
        programs.append("busybox")
    interpreter = INTERPRETERS[path.suffix][0]
    return [*programs, Path(interpreter).name]


@pytest.mark.parametrize("path", sorted(p for p in SCRIPTS.iterdir() if p.suffix in INTERPRETERS), ids=lambda p: p.stem)
def test_script(path: Path, tmp_path: Path) -> None:
    require(needs(path))
    compare(script_case(path), tmp_path / "work")


SQL = (SCRIPTS / "sqlite.sql").read_text()
JSON = '{"b": [1, 2, {"c": null}], "a": "\\u00e9"}'
COMMANDS = [
    Case("#! dash", (str(SCRIPTS / "dash-script"), "arg 1", "arg2"), stdin="a line\n"),
    Case("#! perl", (str(SCRIPTS / "perl-script.pl"),), stdin="".join(WORDS)),
    Case("#! env python", (str(SCRIPTS / "python-script.py"),), stdin="abc\ndef\n"),
    Case("sqlite in memory", ("sqlite3",), stdin=SQL),
    Case("sqlite file", ("sqlite3", "db.sqlite"), stdin=SQL),
    Case("sqlite mmap", ("sqlite3", "db.sqlite"), stdin="PRAGMA mmap_size=268435456;\n" + SQL),
    Case("sqlite wal", ("sqlite3", "db.sqlite"), stdin="PRAGMA journal_mode=WAL;\nPRAGMA mmap_size=1000000;\n" + SQL),
    Case("python -c", ("python3", "-c", "import sys; print('hello', sys.argv); sys.exit(3)", "x")),
    Case("json.tool", ("python3", "-m", "json.tool", "--sort-keys"), stdin=JSON),
    Case("json.tool, bad", ("python3", "-m", "json.tool"), stdin='{"b": [1, 2,, }'),
    Case("ls /usr", ("ls", "-la", "--time-style=+%s", "/usr", "/etc/hostname", "/bin")),
    Case("busybox ls", ("busybox", "ls", "/usr/lib")),
    Case("cat binary", ("sha256sum", "/bin/busybox", "/usr/bin/python3")),
]


@pytest.mark.parametrize("case", COMMANDS, ids=lambda case: case.name)
def test_command(case: Case, tmp_path: Path) -> None:
    require([Path(case.argv[0]).name] if "/" not in case.argv[0] else [])
    compare(case, tmp_path / "work")
