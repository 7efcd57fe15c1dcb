"""Lists of the manual that are made from the code: between ``<!-- list: NAME -->`` and ``<!-- end -->``.

``python -m tests.docs.lists`` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

import click

import emu.machine  # noqa: F401 - declares every tracepoint
from emu.cli.app import VERBS
from emu.cli.options import machine_options
from emu.trace.changes import REFUSALS, RULES
from emu.trace.session import CATEGORIES
from emu.trace.text import COLUMNS
from kernel.profile import BUG_NOTES, PROFILES, RMAP_NOTES, Bug
from kernel.trace import tracepoints
from tests.cli.pagewalk import ROOT

MANUAL = sorted((ROOT / "docs").glob("*.md"))
_LIST = re.compile(r"(<!-- list: (?P<name>[^>]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), *(list(row) for row in rows)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in cells]
    lines.insert(1, "|" + "---|" * len(cells[0]) + "\n")
    return "".join(lines)


def kinds() -> str:
    return table(["kind", "which rule served the fault"], [[f"`{kind}`", rule] for kind, rule in RULES.items()])


def results() -> str:
    return table(["result", "why it was refused"], [[f"`{result}`", why] for result, why in REFUSALS.items()])


def columns() -> str:
    return table(["column", "meaning"], [[f"`{name}`", meaning] for name, _, meaning in COLUMNS])


def categories() -> str:
    rows = []
    for name, prefixes in CATEGORIES.items():
        points = [point.name for prefix in prefixes for point in tracepoints(prefix)]
        rows.append([f"`{name}`", ", ".join(f"`{point}`" for point in points) or "-"])
    return table(["`-e`", "tracepoints"], rows)


def kernels() -> str:
    rows = [[f"`{p.name}`", f"`{p.rmap}`", p.mremap.value, p.description, p.provenance] for p in PROFILES.values()]
    return table(["`--kernel`", "`--rmap`", "`--mremap`", "in short", "where its rules come from"], rows)


def policies() -> str:
    return table(["`--rmap`", "policy"], [[f"`{name}`", note] for name, note in RMAP_NOTES.items()])


def bugs() -> str:
    return table(["`--bug`", "defect of released kernels"], [[f"`{bug.value}`", BUG_NOTES[bug]] for bug in Bug])


def command_of(words: str) -> click.Command:
    """The command that ``pagewalk WORDS`` runs."""
    verb, *rest = words.split()
    command: click.Command = import_module(f"emu.cli.{verb}").command
    for word in rest:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return command


def _common() -> list[click.Option]:
    function = machine_options(lambda: None)
    return list(reversed(function.__click_params__))  # type: ignore[attr-defined]


def _options(params: Iterable[click.Parameter]) -> str:
    rows = []
    for param in params:
        if not isinstance(param, click.Option) or param.hidden or param.name == "help":
            continue
        value = "" if param.is_flag else " " + (param.metavar or param.type.name.upper())
        if isinstance(param.type, click.Choice):
            value = " " + "|".join(map(str, param.type.choices))
        value = value.replace(" [=", "[=")
        default = "" if param.is_flag or param.multiple or not param.show_default else f"  Default: {param.default}."
        rows.append([f"`{', '.join(param.opts)}{value}`", f"{param.help}{default}"])
    return table(["option", "meaning"], rows)


def machine() -> str:
    return _options(_common())


def options_of(words: str) -> str:
    """The verb's own options."""
    common = {param.name for param in _common()}
    return _options(param for param in command_of(words).params if param.name not in common)


_MAKERS: dict[str, Callable[[], str]] = {
    "kinds of faults": kinds,
    "refused faults": results,
    "columns of a fault": columns,
    "categories": categories,
    "kernels": kernels,
    "policies": policies,
    "bugs": bugs,
    "options of the machine": machine,
}


def verbs() -> list[str]:
    """The verbs as a user types them."""
    found = []
    for verb in VERBS:
        command = command_of(verb)
        found += [f"{verb} {name}" for name in command.commands] if isinstance(command, click.Group) else [verb]
    return found


def make(name: str) -> str:
    if name.startswith("options of pagewalk "):
        return options_of(name.removeprefix("options of pagewalk "))
    return _MAKERS[name]()


def names(path: Path) -> list[str]:
    return [found["name"] for found in _LIST.finditer(path.read_text(encoding="utf-8"))]


def rewritten(path: Path) -> str:
    return _LIST.sub(lambda found: found[1] + make(found["name"]) + found[4], path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for document in MANUAL:
        if names(document):
            document.write_text(rewritten(document), encoding="utf-8")
