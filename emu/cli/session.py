"""One run of a machine from the command line: start, errors of starting, what is said at the end."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emu.cli.status import CommandError, Status

if TYPE_CHECKING:
    from emu.cli.options import CommonOptions
    from emu.machine import Machine, MachineConfig

STATS_SCHEMA = 1
"""Of ``--stats=FILE.json``: emu/schema/stats-1.json."""


def power_on(config: MachineConfig) -> Machine:
    from emu.cpu.engine import EngineError
    from emu.machine import Machine

    try:
        return Machine(config)
    except (ValueError, EngineError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or 'host'}: {error.strerror}") from error


def load(machine: Machine, argv: Sequence[str]) -> None:
    from emu.errors import NotRunnable

    try:
        machine.spawn(argv)
    except NotRunnable as error:
        raise CommandError(error.message, Status(error.status)) from error


def run(machine: Machine, *, progress: bool = False) -> int:
    """Run to the end; the program's exit status.  ``progress``: show on a terminal how it is getting on."""
    from emu.errors import CheckFailed, Deadlock
    from emu.progress import shown

    # What has been loaded so far stays: the collector need not look at it again (see emu/cli/__init__.py).
    gc.freeze()
    gc.enable()
    try:
        with shown(machine, progress):
            return machine.run()
    except (CheckFailed, Deadlock) as error:
        raise CommandError(str(error)) from error


def report_end(machine: Machine, common: CommonOptions) -> None:
    """Name what was not implemented, and give the statistics that were asked for."""
    if not common.quiet:
        for name, count in sorted(machine.unimplemented.items()):
            times = "once" if count == 1 else f"{count} times"
            _say(f"pagewalk: warning: system call {name} is not implemented (ENOSYS, {times})")
        for line in machine.kernel.fail.unmade():
            _say(f"pagewalk: warning: {line}")
    if common.stats is None:
        return
    stats = machine.stats()
    if common.stats:
        try:
            with open(common.stats, "w", encoding="utf-8") as file:
                json.dump({"type": "stats", "schema": STATS_SCHEMA} | stats, file, indent=2)
                file.write("\n")
        except OSError as error:
            raise CommandError(f"--stats: {common.stats}: {error.strerror}") from error
    else:
        for line in stats_lines(stats):
            _say(line)


def stats_lines(stats: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``name  value`` lines; nested groups become ``group.name``."""
    flat = dict(_flatten(stats, prefix))
    width = max(map(len, flat), default=0)
    return [f"{name:<{width}}  {value}" for name, value in flat.items()]


def _flatten(stats: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in stats.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, f"{value:,}" if isinstance(value, int) else str(value)))
    return rows


def _say(line: str) -> None:
    print(line, file=sys.stderr)
