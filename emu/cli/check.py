"""``pagewalk check mremap``: would this program break where mremap refuses?"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from emu.cli.many import fail_if_nothing_ran, kernel_names, refuse_what_is_for_one_run, run_bar
from emu.cli.options import GuestCommand, machine_options, program_argument, take_common
from emu.cli.report import check_can_write
from emu.cli.status import CommandError

if TYPE_CHECKING:
    from emu.check.report import Report
    from emu.check.run import MakeRuns, Patience
    from emu.jobs import Job, Outcome
    from emu.limits import Question

_LEGEND = """\b
Verdicts, for each kernel:
  safe     every mremap went as on the reference, and the program behaves the same
  copes    some went otherwise, and the program behaves the same
  breaks   some went otherwise, and the program behaves differently
  unknown  the run says nothing; why is said beside it

The reference is the newest kernel on which no mremap fails, or else that on which the fewest do.  What is
compared: exit status, signal, stdout, stderr, and the files that the program left.

Exit status: 0 safe, 1 breaks somewhere, 3 could not tell.
"""


@click.group(
    "check", context_settings={"max_content_width": 110}, subcommand_metavar="WHAT ...", invoke_without_command=True
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Answer a question about a program by running it under every kernel.

    \b
    pagewalk check mremap -- ./prog
    """
    if ctx.invoked_subcommand is None:
        raise click.UsageError("what is to be checked? write pagewalk check mremap -- PROG", ctx)


class _CheckCommand(GuestCommand):
    OPTIONAL_VALUE = (*GuestCommand.OPTIONAL_VALUE, "--sweep")


@command.command("mremap", cls=_CheckCommand, epilog=_LEGEND)
@click.option("--kernels", metavar="A,B,...", help="Only these kernels.  [default: all eight]")
@click.option("--limits", "limits_file", metavar="FILE.toml",
              help="Ask every question of this limits file: each [table] is one machine to try.")  # fmt: skip
@click.option("--timeout", "timeouts", multiple=True, metavar="[virtual:|wall:]SECONDS",
              help="Give a run up after so long, by the program's own clock or the wall's.  Repeatable.")  # fmt: skip
@click.option("--sweep", metavar="[=ERRNO,...]",
              help="Make each mremap fail in turn, with each of these errors, and tabulate what becomes of the "
              "program.  [default: EFAULT,ENOMEM]")  # fmt: skip
@click.option("--dask", metavar="ADDRESS", help="Make the runs on the Dask cluster whose scheduler is at ADDRESS.")
@click.option("--no-rescue", is_flag=True, help="Do not look for what would have saved a call: fewer runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema: emu/check/schema/check-1.json).")
@click.option("--report", "html_path", metavar="FILE.html", help="Also write an HTML report: one file, no network.")
@machine_options
@program_argument
def check_mremap_command(
    argv: tuple[str, ...],
    kernels: str | None,
    limits_file: str | None,
    timeouts: tuple[str, ...],
    sweep: str | None,
    dask: str | None,
    no_rescue: bool,
    as_json: bool,
    html_path: str | None,
    **values: Any,
) -> int:
    """Would this program break where mremap refuses?

    Runs it under every kernel, lines the mremap calls of the runs up, and says of each place in the program that calls
    mremap: on which kernels it fails, with which error, because of which boundary between areas, what made that
    boundary, what the program did then, and what would have saved it.  --limit and --fail ask the same of a smaller
    machine, or of one in which calls fail.

    \b
    pagewalk check mremap -- ./prog
    pagewalk check mremap --limits limits.toml -- ./prog
    pagewalk check mremap --fail mremap:ENOMEM@every -- ./prog
    pagewalk check mremap --sweep -- ./prog
    """
    from emu.check.rescue import Way
    from emu.check.run import check_mremap
    from emu.jobs import read_stdin

    asked = _question_of(values.pop("limit"), values.pop("fail"))
    common = take_common(values | {"limit": (), "fail": ()})
    refuse_what_is_for_one_run(common)
    names = kernel_names(kernels)
    questions = asked + _questions(limits_file)
    patience = _patience(timeouts)
    errors = _errors(sweep)
    if html_path is not None:
        check_can_write(html_path)
    make_runs = _make_runs(dask)
    try:
        with run_bar("runs", common.quiet) as on_progress:
            report = check_mremap(
                common.config,
                argv,
                kernels=names,
                questions=questions,
                stdin=read_stdin(),
                patience=patience,
                ways=() if no_rescue else tuple(Way),
                sweep_errors=errors,
                make_runs=make_runs,
                on_progress=on_progress,
            )
    except ValueError as error:
        raise CommandError(str(error)) from error
    fail_if_nothing_ran([judged.trial.outcome for judged in report.of_question(None)])
    if html_path is not None:
        _save(report, html_path)
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        _print(report, common.use_color(sys.stdout.isatty()))
    return report.exit_status


def _save(report: Report, path: str) -> None:
    from emu.check.html import check_page

    try:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(check_page(report))
    except OSError as error:
        raise CommandError(f"--report: {path}: {error.strerror}") from error


def _question_of(limit: tuple[str, ...], fail: tuple[str, ...]) -> list[Question]:
    """``--limit`` and ``--fail``, which are one question together."""
    from emu.limits import Question, limits_of, read_value

    try:
        limits = limits_of(limit)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit") from error
    try:
        limits = replace(limits, fail=(*limits.fail, *read_value("fail", list(fail))))
    except ValueError as error:
        raise click.BadParameter(str(error).removeprefix("fail: "), param_hint="--fail") from error
    return [] if limits.is_empty else [Question(limits.describe(), limits)]


def _questions(path: str | None) -> list[Question]:
    from emu.limits import read_limits

    if path is None:
        return []
    try:
        return read_limits(path)
    except OSError as error:
        raise CommandError(f"--limits: {path}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"--limits: {error}") from error


_TIMEOUT = re.compile(r"(?:(virtual|wall):)?(\d+(?:\.\d+)?)")


def _patience(texts: tuple[str, ...]) -> Patience:
    from emu.check.run import Patience

    given: dict[str, float] = {}
    for text in texts:
        match = _TIMEOUT.fullmatch(text)
        if match is None or not float(match[2]):
            raise click.BadParameter(
                f"{text!r} is no time; write seconds, virtual:SECONDS or wall:SECONDS", param_hint="--timeout"
            )
        given[match[1] or "virtual"] = float(match[2])
    virtual, wall = given.get("virtual"), given.get("wall")
    return Patience(None if virtual is None else round(virtual * 1e9), wall)


_SWEEP_ERRORS = ("EFAULT", "ENOMEM")
"""What a real kernel most often answers."""


def _errors(text: str | None) -> list[str]:
    from kernel.abi.errno import Errno

    if text is None:
        return []
    names = list(dict.fromkeys(name for name in text.split(",") if name)) or list(_SWEEP_ERRORS)
    for name in names:
        if name not in Errno.__members__:
            raise click.BadParameter(f"{name!r} is no error, as EFAULT and ENOMEM are", param_hint="--sweep")
    return names


def _make_runs(address: str | None) -> MakeRuns:
    from emu.jobs import run_jobs

    if address is None:
        return run_jobs
    from emu.dask_jobs import ClusterError, run_jobs_dask

    def make(jobs: Sequence[Job], on_done: Callable[[int], None]) -> list[Outcome]:
        try:
            return run_jobs_dask(jobs, address, on_done)
        except ClusterError as error:
            raise CommandError(f"--dask: {error}") from error

    return make


def _print(report: Report, color: bool) -> None:
    from emu.check.lines import render
    from emu.check.text import report_lines

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for text in render(report_lines(report), width=width, color=color):
        print(text)
