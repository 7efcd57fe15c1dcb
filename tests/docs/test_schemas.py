"""What programs read follows its schema, and the schemas are where the command line says and in what is installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from emu.cli.app import VERBS
from tests.cli.pagewalk import ROOT, pagewalk

SCHEMAS = sorted(path for path in (ROOT / "emu").rglob("schema/*.json"))


def schema(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((ROOT / "emu/schema" / name).read_text()))


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: str(path.relative_to(ROOT)))
def test_schemas_are_schemas(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize("verb", VERBS)
def test_every_schema_that_help_names_exists(verb: str) -> None:
    subcommands = {"check": ("check", "mremap")}.get(verb, (verb,))
    text = pagewalk(*subcommands, "--help").stdout
    named = re.findall(r"emu/[\w/]*schema/[\w-]+\.json", "".join(text.split()))
    for name in named:
        assert (ROOT / name).is_file(), name
    assert named or "--json" not in text


@pytest.mark.parametrize(("options", "program"), [((), ("images/p1", "4")), ((), ("images/hello",)),
                                                  (("--kernels", "2.6.7,6.18"), ("images/wild",))])  # fmt: skip
def test_compare(options: tuple[str, ...], program: tuple[str, ...]) -> None:
    done = pagewalk("compare", "--json", *options, "--", *program)
    found: dict[str, Any] = json.loads(done.stdout)
    schema("compare-1.json").validate(found)
    assert done.returncode == (0 if found["agree"] else 1)


def test_kernels() -> None:
    schema("kernels-1.json").validate(json.loads(pagewalk("kernels", "--json").stdout))


def test_syscalls() -> None:
    schema("syscalls-1.json").validate(json.loads(pagewalk("syscalls", "--json").stdout))


@pytest.mark.parametrize(
    ("options", "program"),
    [
        (("--ram", "4M", "--swap", "16M"), ("images/mem_fill", "6")),
        (("--kernel", "2.6.6-anonmm"), ("images/faults",)),
        (("--kernel", "6.18", "--fail", "mmap:ENOMEM@2"), ("images/p1",)),
        (("--kernel", "2.6.6"), ("images/hello",)),
    ],
)
def test_stats(options: tuple[str, ...], program: tuple[str, ...], tmp_path: Path) -> None:
    """Every counter is described: none is there that the schema does not know."""
    output = tmp_path / "stats.json"
    pagewalk("run", f"--stats={output}", *options, "--", *program)
    found = json.loads(output.read_text())
    schema("stats-1.json").validate(found)
    described = json.loads((ROOT / "emu/schema/stats-1.json").read_text())
    assert undescribed(found, described) == []


def undescribed(value: dict[str, Any], described: dict[str, Any], path: str = "") -> list[str]:
    missing = []
    properties = described.get("properties")
    if properties is None:
        return []
    for name, item in value.items():
        if name not in properties:
            missing.append(path + name)
        elif isinstance(item, dict):
            missing += undescribed(item, properties[name], f"{path}{name}.")
    return missing


def test_a_wheel_has_them_all(tmp_path: Path) -> None:
    """hatchling is what builds it; it is not installed where nothing is built."""
    pytest.importorskip("hatchling", reason="NOT INSTALLED: hatchling")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT,
                   check=True, capture_output=True)  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {str(path.relative_to(ROOT)) for path in SCHEMAS} <= names
    assert {f"{package}/py.typed" for package in ("emu", "kernel", "mmu")} <= names
    assert not any(name.startswith(("tests/", "images/", "userland/")) for name in names)
