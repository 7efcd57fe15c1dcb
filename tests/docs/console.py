"""Console blocks of the README and of the manual, run: what they show is what comes out.

``python -m tests.docs.console [FILE...]`` writes what comes out now into the files (default: all; blocks with ``...``
are left alone).

A block is fenced with ``console``; lines that begin with ``$ `` are commands (run by ``sh`` in the checkout, with a
small fixed environment), the lines after each are its output, stdout and stderr together.  A command that ends in a
backslash goes on in the next line, which begins with ``> ``.  ``...`` alone on a line stands for any number of lines.
A block after ``<!-- not run -->`` is only looked at by people.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.cli.pagewalk import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if not path.name.startswith("mremap-")),
]
"""Those that need nothing but what is shipped; tests/check/test_docs_mremap.py runs the others."""
_BLOCK = re.compile(r"(?P<skip><!-- not run -->\n)?```console\n(?P<body>.*?)```", re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.*\\\n> )*.*)\n", re.MULTILINE)


class Example(NamedTuple):
    path: Path
    shown: str
    """The command as it stands there."""
    output: str

    @property
    def command(self) -> str:
        return self.shown.replace("\\\n> ", "\\\n")

    def __str__(self) -> str:
        return f"{self.path.name}: {self.shown.splitlines()[0]}"


def examples(path: Path) -> Iterator[Example]:
    for block in _BLOCK.finditer(path.read_text(encoding="utf-8")):
        if block["skip"]:
            continue
        _, *parts = _COMMAND.split(block["body"])
        for shown, output in zip(parts[::2], parts[1::2], strict=True):
            yield Example(path, shown, output)


def matches(expected: str, actual: str) -> bool:
    pattern = "".join(".*" if line == "...\n" else re.escape(line) for line in expected.splitlines(keepends=True))
    return re.fullmatch(pattern, actual, re.DOTALL) is not None


def run(command: str) -> str:
    """Output of a command in which ``pagewalk`` is this checkout's."""
    function = f'pagewalk() {{ {shlex.quote(sys.executable)} -m emu "$@"; }}'
    done = subprocess.run(
        ["/bin/sh", "-c", f"{function}\n{command}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"},
    )
    return done.stdout


def rewrite(path: Path, runner: Callable[[str], str] = run) -> None:
    """Put the present output into every block without ``...``."""
    text = path.read_text(encoding="utf-8")
    for example in examples(path):
        if "...\n" not in example.output:
            old, new = (f"$ {example.shown}\n{output}" for output in (example.output, runner(example.command)))
            assert text.count(old) == 1, f"not found once: {old}"
            text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> None:
    for path in [Path(argument).resolve() for argument in arguments] or DOCUMENTS:
        rewrite(path)


if __name__ == "__main__":
    main(sys.argv[1:])
