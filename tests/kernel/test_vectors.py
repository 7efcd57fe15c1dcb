"""Every recorded answer of the historic kernels, and of a running Linux 6.18, is given by the profile of that name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.kernel.script import run_script

VECTORS = Path(__file__).parent.parent / "data" / "vectors"

FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "A": ("2.6.6", ()),
    "A-acctbug": ("2.6.6", ("account-reversed",)),
    "B": ("2.6.6-anonmm", ()),
    "C": ("2.6.6-rmap39", ()),
    "C-bug1": ("2.6.6-rmap39", ("mprotect-grower",)),
    "D-mm-fixed": ("2.6.5-aa", ()),
    "E": ("2.6.7", ()),
    "E-bug1": ("2.6.7", ("mprotect-grower",)),
    "linux-6.18": ("6.18", ()),
}
NR_SCRIPTS = {"linux-6.18": 800}
NR_HISTORIC_SCRIPTS = 339


@pytest.mark.parametrize("name", sorted(FILES))
def test_recorded_answers(name: str) -> None:
    profile, bugs = FILES[name]
    nr_scripts = 0
    differing = []
    with gzip.open(VECTORS / f"{name}.jsonl.gz", "rt") as lines:
        for line in lines:
            vector = json.loads(line)
            nr_scripts += 1
            got = run_script(vector["script"], profile, bugs)
            if got != vector["stdout"]:
                differing.append((vector["id"], vector["script"], got, vector["stdout"]))
    assert nr_scripts == NR_SCRIPTS.get(name, NR_HISTORIC_SCRIPTS)
    assert not differing, f"{len(differing)} of {nr_scripts}; the first: {differing[0]}"


def test_the_kernels_differ() -> None:
    """The scripts tell the kernels apart: the answers of one are not those of another."""
    with gzip.open(VECTORS / "E.jsonl.gz", "rt") as lines:
        vectors = [json.loads(line) for line in lines]
    others = {profile for profile, _ in FILES.values()} - {"2.6.7"}
    for profile in sorted(others):
        assert any(run_script(vector["script"], profile) != vector["stdout"] for vector in vectors), profile
