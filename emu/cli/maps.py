"""``pagewalk maps``: the areas of a program at a chosen moment."""

from __future__ import annotations

from typing import Any

import click

from emu.cli import looking
from emu.cli.options import take_common
from emu.cli.status import CommandError

_COLUMNS = (
    ("start-end", "the area, in bytes; end is the first byte after it"),
    ("perms", "r read, w write, x execute; p private or s shared"),
    ("offset", "where the area begins in its file, in bytes"),
    ("dev inode", "the file; 0 for anonymous memory"),
    ("name", "the file, [heap], [stack], [vdso], [vvar] or [anon:NAME]; nothing for other anonymous memory"),
    ("anon_vma", "with --explain: the object that leads to the area's anonymous pages, - for none yet; below it, the "
                 "write that made it"),
    ("|", "with --explain, between areas that touch: why they are two, or that no rule keeps them apart"),
    ("=>", "with ADDR or NAME: an area that was asked for"),
)  # fmt: skip


@looking.command("maps", "[ADDR|NAME]", _COLUMNS)
@click.option("--explain", is_flag=True, help="Also the anon_vmas, and why neighbours are not one area.")
@click.option("--gaps", is_flag=True, help="Also the holes between areas.")
@click.option("--smaps", is_flag=True, help="As /proc/PID/smaps, with resident, shared and swapped memory.")
@click.option(
    "-A",
    "nr_after",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="With ADDR or NAME: also N areas above it.",
)
@click.option("-B", "nr_before", type=click.IntRange(min=0), default=0, metavar="N",
              help="With ADDR or NAME: also N areas below it.")  # fmt: skip
def command(
    argv: tuple[str, ...],
    what: str | None,
    at: str,
    pid: int | None,
    as_json: bool,
    output: str | None,
    explain: bool,
    gaps: bool,
    smaps: bool,
    nr_after: int,
    nr_before: int,
    **values: Any,
) -> int:
    """Run a program and print its areas at a chosen moment.

    Without options the text is that of /proc/PID/maps, byte for byte.  ADDR (hexadecimal) or a part of a NAME shows
    the areas that hold it.

    \b
    pagewalk maps -- /bin/ls
    pagewalk maps --at syscall:9 --explain --gaps -- images/faults
    pagewalk maps --at sym:grow_stack -B 1 '[stack]' -- images/faults
    """
    from emu.inspect.maps import MapsOptions, MapsView

    common = take_common(values)
    options = MapsOptions(what, nr_before, nr_after, explain, gaps, smaps)
    view = looking.look(common, argv, at, pid, lambda scene: MapsView(scene, options))
    if what is not None and not view.has_hit:
        raise CommandError(f"no area holds {what!r} at {at}")
    looking.show(view, as_json, output)
    return 0
