"""The README's console blocks, run: what it shows is what comes out.

``python -m tests.cli.test_readme`` writes what comes out now into the README (blocks with ``...`` are left alone).

A block is fenced with ``console``; lines that begin with ``$ `` are commands (run by ``sh`` in the checkout, with a
small fixed environment), the lines after each are its output, stdout and stderr together.  ``...`` alone on a line
stands for any number of lines.  A block after ``<!-- not run -->`` is only looked at by people.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.cli.pagewalk import ROOT

BLOCK = re.compile(r"(?P<skip><!-- not run -->\n)?```console\n(?P<body>.*?)```", re.DOTALL)


class Example(NamedTuple):
    command: str
    output: str


def examples() -> Iterator[Example]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in BLOCK.finditer(readme):
        if block["skip"]:
            continue
        for part in re.split(r"^\$ ", block["body"], flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield Example(command, output)


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


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.command)
def test_readme_shows_what_comes_out(example: Example) -> None:
    actual = run(example.command)
    assert matches(example.output, actual), f"$ {example.command}\n{actual}"


def test_the_readme_has_examples() -> None:
    assert len(list(examples())) >= 3


def rewrite() -> None:
    """Put the present output into every block without ``...``."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    for example in examples():
        if "...\n" not in example.output:
            old, new = (f"$ {example.command}\n{output}" for output in (example.output, run(example.command)))
            assert text.count(old) == 1, f"not found once: {old}"
            text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
