"""The manual is complete: its lists are the code's, its links lead somewhere, no verb or tracepoint is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import emu
from emu import Machine
from emu.config import MachineOptions
from emu.trace.session import known_categories
from kernel.trace import tracepoints
from tests.cli.pagewalk import ROOT, pagewalk
from tests.docs import lists

TRACING = (ROOT / "docs/tracing.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs/commands.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", lists.MANUAL, ids=lambda path: path.name)
def test_lists_are_those_of_the_code(path: Path) -> None:
    assert lists.rewritten(path) == path.read_text(encoding="utf-8"), "python -m tests.docs.lists writes them anew"


def test_every_list_is_somewhere() -> None:
    wanted = {*lists._MAKERS, *(f"options of pagewalk {verb}" for verb in lists.verbs())}
    assert {name for path in lists.MANUAL for name in lists.names(path)} == wanted


@pytest.mark.parametrize("path", [ROOT / "README.md", *lists.MANUAL], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert [path.name for path in lists.MANUAL if path.name != "README.md" and f"({path.name})" not in index] == []


@pytest.mark.parametrize("point", tracepoints(), ids=lambda point: point.name)
def test_every_tracepoint_is_explained_with_its_fields(point: object) -> None:
    name, fields = point.name, point.fields  # type: ignore[attr-defined]
    row = re.search(rf"^\| `{re.escape(name)}` \| (?P<fields>[^|]*) \| (?P<meaning>[^|]{{10,}}) \|$", TRACING, re.M)
    assert row is not None, f"no row for {name}"
    assert row["fields"].replace("`", "").split(" ") == list(fields)


def test_every_category_is_explained() -> None:
    assert [name for name in known_categories() if f"`{name}`" not in TRACING] == []


def test_the_python_api_is_explained() -> None:
    text = (ROOT / "docs/python-api.md").read_text(encoding="utf-8")
    methods = [name for name, value in vars(Machine).items() if not name.startswith("_") and name != "unimplemented"]
    assert [name for name in (*methods, *MachineOptions.__annotations__) if not re.search(rf"\b{name}\b", text)] == []
    assert [name for name in emu.__all__ if name != "__version__" and not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("verb", lists.verbs())
def test_every_verb_has_a_section_and_an_example(verb: str) -> None:
    assert f"\n## pagewalk {verb}\n" in COMMANDS
    text = pagewalk(*verb.split(), "--help").stdout
    assert re.search(rf"^  pagewalk {re.escape(verb)}( |$)", text, re.M), "no example"


TABLES = {
    "trace": ("--clear-env", "--", "images/hello"),
    "pt": ("--", "images/hello"),
    "page": ("0x401000", "--", "images/hello"),
    "compare": ("--kernels", "2.6.7,6.18", "--", "images/hello"),
    "kernels": (),
    "syscalls": ("mremap",),
}
"""Verbs that print a table with a line of names, and arguments that make them do so."""


@pytest.mark.parametrize("verb", TABLES)
def test_help_explains_every_column(verb: str) -> None:
    done = pagewalk(verb, *TABLES[verb])
    lines = (done.stdout + done.stderr).splitlines()
    header = next(line for line in lines if re.match(r"#nr |  range |mapped by  |kernel  |nr  ", line))
    names = [name.strip("#") for name in re.split(r"\s{2,}", header.strip())]
    explained = pagewalk(verb, "--help").stdout
    assert len(names) >= 4
    assert [name for name in names if not all(word in explained for word in re.findall(r"\w+", name))] == []
