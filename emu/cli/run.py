"""``pagewalk run``: run a program; nothing of ours is printed unless something is wrong or asked for."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from emu.cli.options import GuestCommand, machine_options, program_argument, take_common
from emu.cli.report import Recording, check_can_report, reported
from emu.cli.session import load, power_on, report_end, run
from emu.cli.status import CommandError

if TYPE_CHECKING:
    from socket import socket

    from emu.machine import Machine


@click.command("run", cls=GuestCommand)
@machine_options
@click.option("--gdb", "gdb_port", type=click.IntRange(1, 65535), metavar="PORT",
              help="Wait for gdb (target remote :PORT, this machine only) before the first instruction.")
@click.option("--report", metavar="FILE.html",
              help="Write an HTML report of the run's memory; `pagewalk report --help` says what is in it.")
@program_argument
def command(argv: tuple[str, ...], gdb_port: int | None, report: str | None, **values: Any) -> int:
    """Run a program and exit as it does.

    The exit status is the program's own, 128 plus the number of the signal that killed it, 125 when pagewalk itself
    failed, 126 when the program cannot be run, 127 when there is no such program.

    \b
    pagewalk run -- /bin/ls -l
    pagewalk run --ram 16M --env LANG=C -- sh -c 'echo $LANG | tr C c'
    pagewalk run --report out.html -- ./prog
    pagewalk run --gdb 1234 -- ./prog     and elsewhere: gdb -ex 'target remote :1234' ./prog
    """
    common = take_common(values)
    listener = None if gdb_port is None else _listen(gdb_port)
    if report is not None:
        check_can_report(report)
    machine = power_on(common.config)
    with nullcontext(Recording()) if report is None else reported(machine, common.config, argv, report) as recording:
        load(machine, argv)
        if listener is not None:
            _wait_for_gdb(machine, listener, common.quiet)
        status = recording.status = run(machine, progress=not common.quiet)
    report_end(machine, common)
    return status


def _listen(port: int) -> socket:
    from emu.gdb.packets import listen

    try:
        return listen(port)
    except OSError as error:
        raise CommandError(f"--gdb: port {port}: {error.strerror}") from error


def _wait_for_gdb(machine: Machine, listener: socket, quiet: bool) -> None:
    from emu.cpu.engine import EngineError
    from emu.gdb.stub import serve

    if not quiet:
        print(f"pagewalk: waiting for gdb: target remote :{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    try:
        serve(machine, listener)
    except EngineError as error:
        raise CommandError(f"--gdb: {error}") from error
