"""``pagewalk report``: the HTML report of a saved trace; also what ``run`` and ``compare`` need for theirs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from emu.cli.status import CommandError

if TYPE_CHECKING:
    from emu.machine import Machine, MachineConfig
    from emu.report.story import Story


@click.command("report", context_settings={"max_content_width": 110})
@click.argument("traces", nargs=-1, required=True, metavar="TRACE.jsonl...")
@click.option("-o", "--output", required=True, metavar="FILE.html", help="Write the report here.")
def command(traces: tuple[str, ...], output: str) -> int:
    """Make an HTML report of a trace: one file that opens without a network.

    Of several traces, side by side.  A trace with everything in it is written by the first line:

    \b
    pagewalk trace -e all --format jsonl -o trace.jsonl -- ./prog
    pagewalk report trace.jsonl -o report.html

    \b
    What is in it:
      address space   areas as bands over time (colour and #: anon_vma), faults as dots by kind, areas that were
                      joined, split or stayed apart; below it resident, swapped and page-table memory
      hottest sites   the source lines that fault most
      areas           those at the end of each process
      mremap          every call with its verdict
      stayed apart    which neighbours were not joined, and the rule or the first writes that kept them apart
    """
    from emu.report.story import BadTrace, read_story

    stories = []
    for path in traces:
        try:
            with open(path, "rb") as file:
                stories.append(read_story(file))
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from error
        except BadTrace as error:
            raise CommandError(f"{path}: {error}") from error
    save(output, stories)
    return 0


def check_can_report(path: str) -> None:
    """Before the run: can a report with pictures be made and written?"""
    from emu.report.html import PlotlyMissing, plotly_script

    try:
        plotly_script()
    except PlotlyMissing as error:
        raise CommandError(str(error)) from error
    check_can_write(path)


def check_can_write(path: str) -> None:
    """Find out before the run, not after it, that the report has no place."""
    try:
        is_new = not os.path.exists(path)
        with open(path, "ab"):
            pass
        if is_new:
            os.unlink(path)
    except OSError as error:
        raise CommandError(f"--report: {path}: {error.strerror}") from error


def save(path: str, stories: Sequence[Story], comparison: Mapping[str, Any] | None = None) -> None:
    from emu.report.html import PlotlyMissing, report_page

    try:
        page = report_page(stories, comparison)
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(page)
    except PlotlyMissing as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error


@contextlib.contextmanager
def reported(machine: Machine, config: MachineConfig, argv: Sequence[str], path: str) -> Iterator[Recording]:
    """``run --report``: what happens inside is recorded; its report is written even when the run is cut short."""
    from emu.report.story import NEEDED_EVENTS, StorySink
    from emu.trace.session import TraceSession, machine_fields

    sink, recording = StorySink(), Recording()
    session = TraceSession(machine.kernel, NEEDED_EVENTS, sink)
    session.start(argv, machine_fields(config))
    try:
        yield recording
    finally:
        session.finish(recording.status)
        if sink.story.spaces:  # the program was loaded
            save(path, [sink.story])


@dataclass
class Recording:
    """What the run inside :func:`reported` came to."""

    status: int | None = None
