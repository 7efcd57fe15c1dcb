"""Forty scripts of each file of recorded answers, run by a real program under the processor."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.differential.run import run_machine
from tests.kernel.test_vectors import FILES, VECTORS

NR_SCRIPTS = 40


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"linux-6.18"}))  # that one has raw calls, and its own test
def test_recorded_answers_under_the_processor(name: str) -> None:
    profile, bugs = FILES[name]
    with gzip.open(VECTORS / f"{name}.jsonl.gz", "rt") as lines:
        vectors = [json.loads(line) for line in lines]
    step = len(vectors) // NR_SCRIPTS
    differing = []
    for vector in vectors[::step][:NR_SCRIPTS]:
        got = run_machine(vector["script"], profile, bugs=bugs)
        if got != vector["stdout"]:
            differing.append((vector["id"], vector["script"], got, vector["stdout"]))
    assert not differing, f"{len(differing)} of {NR_SCRIPTS}; the first: {differing[0]}"
