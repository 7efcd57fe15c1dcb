"""``pagewalk page``: one page in full, and every page table that maps it."""

from __future__ import annotations

from typing import Any

import click

from emu.cli import looking
from emu.cli.options import take_common
from emu.cli.status import CommandError

_COLUMNS = (
    ("flags", "of struct page, by name; anon: anonymous, lru: on a list for reclaim, exclusive: one process has it"),
    ("refcount", "references, and who holds them"),
    ("mapcount", "page-table entries that map the page"),
    ("owner index", "whose page it is, and which one: the anon_vma or file, and the page offset there"),
    ("mapped by", "the address space"),
    ("address area", "where it is mapped, and in which area"),
    ("pte perms AD", "the entry; what it permits; accessed, dirty"),
    ("found by", "both: the kernel's reverse map proposed the place and reading all page tables confirms it; "
                 "scan only: the reverse map MISSED it; policy only: proposed, but the entry does not map the page"),
)  # fmt: skip


@looking.command("page", "ADDR|pfn:N", _COLUMNS)
def command(
    argv: tuple[str, ...],
    what: str | None,
    at: str,
    pid: int | None,
    as_json: bool,
    output: str | None,
    **values: Any,
) -> int:
    """Run a program and print one of its pages in full at a chosen moment.

    The page at address ADDR (hexadecimal), or in frame N.  Every entry that maps it is looked for twice: through the
    kernel's reverse map, and by reading all page tables.

    \b
    pagewalk page --at syscall:7 7fffffffe768 -- images/faults
    pagewalk page pfn:0x12 -- images/faults
    """
    from emu.inspect.page import BadPage, PageView, check_spec

    if what is None:
        raise click.UsageError("which page? ADDR or pfn:N before the --, as in: pagewalk page 0x401000 -- PROG")
    try:
        check_spec(what)
    except BadPage as error:
        raise click.UsageError(str(error)) from error
    common = take_common(values)
    spec = what
    try:
        view = looking.look(common, argv, at, pid, lambda scene: PageView(scene, spec))
    except BadPage as error:
        raise CommandError(str(error)) from error
    looking.show(view, as_json, output)
    return 0
