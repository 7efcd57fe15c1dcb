"""Every console block of the README and of the manual shows what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.pagewalk import ROOT
from tests.docs.console import DOCUMENTS, Example, examples, matches, run


@pytest.mark.parametrize("example", [example for path in DOCUMENTS for example in examples(path)], ids=str)
def test_what_is_shown_comes_out(example: Example) -> None:
    actual = run(example.command)
    assert matches(example.output, actual), f"$ {example.command}\n{actual}"


def test_there_are_examples() -> None:
    """Of the README and of the tutorial, so that a change of the fence does not make all tests vanish."""
    counts = {str(path.relative_to(ROOT)): len(list(examples(path))) for path in DOCUMENTS}
    assert counts["README.md"] >= 3 and counts["docs/tutorial.md"] >= 15


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_shown_depends_on_where_the_checkout_is(path: Path) -> None:
    assert str(ROOT) not in path.read_text(encoding="utf-8")
