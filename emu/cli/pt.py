"""``pagewalk pt``: the page tables of a program at a chosen moment."""

from __future__ import annotations

from typing import Any

import click

from emu.cli import looking
from emu.cli.options import take_common

_COLUMNS = (
    ("range", "addresses whose entries go together; * marks the address of the fault that --at fault:N names"),
    ("size", "of the range"),
    ("frame", "page frames first-last (falling when last is smaller), or the first one and ... when they are in no "
              "order (--frames lists them); the zero page; swap AREA:SLOT-SLOT"),
    ("perms", "what the processor lets the program do: r, w, x"),
    ("A D", "accessed and dirty, as the processor or the kernel has set them"),
    ("state", "page; zero: the page of zeros; prot-none: a page that is kept while nobody may use it; swap; special: "
              "device memory"),
    ("area", "the area's file or name"),
    ("entry at", "--raw, --level: the physical address of the entry"),
    ("value bits", "--raw, --level: the entry itself, and its bits by name"),
    ("target", "--raw, --level: the frame, table or swap slot that the entry leads to"),
)  # fmt: skip


@looking.command("pt", "", _COLUMNS)
@click.option("--frames", is_flag=True, help="A new line wherever the frames or swap slots are not in a row.")
@click.option("--raw", is_flag=True, help="Every entry with its bits instead of ranges.")
@click.option("--range", "range_", metavar="A-B", help="Only these addresses (hexadecimal, B exclusive).")
@click.option("--level", type=click.IntRange(1, 4), default=1, show_default=True,
              help="Entries of this level: 1 the last one (PTEs), 4 the root.")  # fmt: skip
def command(
    argv: tuple[str, ...],
    at: str,
    pid: int | None,
    as_json: bool,
    output: str | None,
    frames: bool,
    raw: bool,
    range_: str | None,
    level: int,
    **values: Any,
) -> int:
    """Run a program and print its page tables at a chosen moment, neighbouring entries merged.

    \b
    pagewalk pt -- images/faults
    pagewalk pt --at fault:7 --range 7ffff7ff0000-7ffff7fff000 --raw -- images/faults
    """
    from emu.inspect.pt import PtOptions, PtView

    common = take_common(values)
    first, last = _range(range_)
    options = PtOptions(first, last, level, frames, raw)
    view = looking.look(common, argv, at, pid, lambda scene: PtView(scene, options))
    looking.show(view, as_json, output)
    return 0


def _range(text: str | None) -> tuple[int, int]:
    from kernel.mm.types import TASK_SIZE

    if text is None:
        return 0, TASK_SIZE
    first, _, last = text.partition("-")
    try:
        start, end = int(first, 16), int(last, 16)
    except ValueError:
        start = end = 0
    if start >= end:
        raise click.BadParameter(f"{text!r} is no range, such as 0x401000-0x402000", param_hint="--range")
    return start, end
