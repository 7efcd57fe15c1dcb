"""``pagewalk syscalls``: what is supported, call by call and flag by flag, from the declarations themselves."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import click

from emu.cli.tables import print_table
from kernel.syscalls.table import BY_NAME, Param, SyscallSpec


@click.command("syscalls")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object instead of a table (schema: emu/schema/syscalls-1.json).",
)
@click.argument("names", nargs=-1, metavar="[NAME|%CLASS]...")
def command(names: tuple[str, ...], as_json: bool) -> int:
    """List the supported system calls; NAME or %CLASS (strace's classes) narrows the list.

    \b
    pagewalk syscalls
    pagewalk syscalls mremap %memory

    \b
    Columns:
    nr            number on x86-64
    call          its name and arguments
    class         as in strace -e trace=%CLASS
    support       full or partial
    what it does  and, of a partial one, what is missing

    With names, every flag that an argument may have is listed too.
    """
    import_module("kernel.syscalls.all")  # declares them all
    specs = _chosen(names)
    if as_json:
        print(json.dumps({"schema": 1, "syscalls": [_as_json(spec) for spec in specs]}, indent=2))
        return 0
    print_table(["nr", "call", "class", "support", "what it does"], [_row(spec) for spec in specs])
    if names:
        flags = [_flag_row(spec, param) for spec in specs for param in spec.params if param.enum is not None]
        if flags:
            print()
            print_table(["argument", "values"], flags)
    return 0


def _chosen(names: tuple[str, ...]) -> list[SyscallSpec]:
    from emu.trace.session import syscalls_named

    try:
        chosen = syscalls_named(names) if names else frozenset(BY_NAME)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    return sorted(
        (BY_NAME[name] for name in chosen), key=lambda spec: (spec.x86_64 is None, spec.x86_64 or 0, spec.name)
    )


def _row(spec: SyscallSpec) -> list[str]:
    arguments = ", ".join(param.name for param in spec.params)
    return [
        "-" if spec.x86_64 is None else str(spec.x86_64),
        f"{spec.name}({arguments})",
        f"%{spec.group}",
        spec.support.value,
        f"{spec.summary}  Missing: {spec.note}." if spec.note else spec.summary,
    ]


def _flag_row(spec: SyscallSpec, param: Param) -> list[str]:
    assert param.enum is not None
    return [f"{spec.name}: {param.name}", " ".join(param.enum.__members__)]


def _as_json(spec: SyscallSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "x86_64": spec.x86_64,
        "class": spec.group,
        "support": spec.support.value,
        "note": spec.note or None,
        "summary": spec.summary,
        "returns": spec.returns,
        "args": [
            {
                "name": param.name,
                "type": param.width.value,
                "kind": param.kind,
                "values": None
                if param.enum is None
                else {name: int(value) for name, value in param.enum.__members__.items()},
            }
            for param in spec.params
        ],
    }
