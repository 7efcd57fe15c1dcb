"""``pagewalk run``: run a program; nothing of ours is printed unless something is wrong or asked for."""

from __future__ import annotations

from typing import Any

import click

from emu.cli.options import GuestCommand, machine_options, program_argument, take_common
from emu.cli.session import boot, report_end, run


@click.command("run", cls=GuestCommand)
@machine_options
@program_argument
def command(argv: tuple[str, ...], **values: Any) -> int:
    """Run a program and exit as it does.

    The exit status is the program's own, 128 plus the number of the signal that killed it, 125 when pagewalk itself
    failed, 126 when the program cannot be run, 127 when there is no such program.

    \b
    pagewalk run -- /bin/ls -l
    pagewalk run --ram 16M --env LANG=C -- sh -c 'echo $LANG | tr C c'
    """
    common = take_common(values)
    machine = boot(common.config, argv)
    status = run(machine)
    report_end(machine, common)
    return status
