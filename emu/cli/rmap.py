"""``pagewalk rmap``: the reverse map of a program and its family at a chosen moment."""

from __future__ import annotations

from typing import Any

import click

from emu.cli import looking
from emu.cli.options import take_common

_COLUMNS = (
    ("anon_vma #N", "an anon_vma, the pages that name it, and the areas that a walk visits, in that order"),
    ("anonmm #N", "anonmm: one for each address space, below the head of its family"),
    ("pfn N", "pte_chain: a page that several entries map, and those entries, the newest first"),
    ("mm #N", "an address space (its program, its processes)"),
    ("(inherited)", "anon_vma_chain: the area may map pages from before fork; its new ones belong to its own anon_vma"),
)


@looking.command("rmap", "", _COLUMNS)
@click.option("--dot", is_flag=True, help="Print Graphviz input instead: pagewalk rmap --dot -o - -- PROG | dot -Tsvg")
def command(
    argv: tuple[str, ...], at: str, pid: int | None, as_json: bool, output: str | None, dot: bool, **values: Any
) -> int:
    """Run a program and print its reverse map at a chosen moment: which objects lead to which areas.

    \b
    pagewalk rmap --at syscall:8 --kernel 6.1 -- images/faults
    pagewalk rmap --at fault:52 --dot -o family.dot -- images/faults
    """
    from emu.inspect.rmap import RmapView

    if dot and as_json:
        raise click.UsageError("--dot and --json exclude each other")
    common = take_common(values)
    view = looking.look(common, argv, at, pid, RmapView)
    if dot:
        looking.write("".join(line + "\n" for line in view.dot()), output)
    else:
        looking.show(view, as_json, output)
    return 0
