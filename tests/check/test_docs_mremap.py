"""docs/mremap-*.md: their console blocks, run in order, show what comes out.  /tmp/demo is a new directory each time.

``python -m tests.check.test_docs_mremap`` writes what comes out now into them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.check.test_programs import KERNELS, PROGRAMS
from tests.docs.console import examples, matches, rewrite, run
from tests.guest.harness import ROOT, require

DOCUMENTS = sorted((ROOT / "docs").glob("mremap-*.md"))
NEEDED = ("gcc", "sqlite3", "/usr/bin/python3", "perl", "apt-cache", "mdb_load")
DEMO = "/tmp/demo"


def runner(demo: Path) -> Callable[[str], str]:
    """Runs a command of a document with ``demo`` in the place of :data:`DEMO`."""

    def run_there(command: str) -> str:
        return run(command.replace(DEMO, str(demo))).replace(str(demo), DEMO)

    return run_there


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_documents_show_what_comes_out(document: Path, tmp_path: Path) -> None:
    require(NEEDED)
    run_there = runner(tmp_path / "demo")
    shown = list(examples(document))
    assert shown
    for example in shown:
        actual = run_there(example.command)
        if example.command.startswith("dpkg-query") and actual != example.output:
            pytest.skip(f"other versions than the document's:\n{actual}")
        assert matches(example.output, actual), f"$ {example.command}\n{actual}"


def test_the_table_of_programs_is_the_tests_table() -> None:
    text = (ROOT / "docs/mremap-programs.md").read_text()
    rows = [
        [cell.strip(" `*") for cell in line.strip("|").split("|")] for line in text.splitlines() if "| safe" in line
    ]
    told = {row[0]: row[2:] for row in rows}
    expected = {
        " ".join((program.name, *program.args)): [program.verdict(kernel) for kernel in KERNELS]
        for program in PROGRAMS
        if not program.refused_everywhere
    }
    assert told == expected


if __name__ == "__main__":
    for document in DOCUMENTS:
        with tempfile.TemporaryDirectory() as directory:
            rewrite(document, runner(Path(directory) / "demo"))
