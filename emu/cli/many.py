"""What the verbs share that run a program many times: compare and check."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click
from click.core import ParameterSource

from emu.cli.status import CommandError, Status

if TYPE_CHECKING:
    from emu.cli.options import CommonOptions
    from emu.jobs import Outcome


class Tell(Protocol):
    """Called when a run has ended."""

    def __call__(self, nr_done: int, total: int) -> None: ...


def kernel_names(text: str | None) -> list[str]:
    from kernel.profile import PROFILES

    if text is None:
        return list(PROFILES)
    names = list(dict.fromkeys(name for name in text.split(",") if name))
    for name in names:
        if name not in PROFILES:
            raise click.BadParameter(f"no kernel {name!r}; there are {', '.join(PROFILES)}", param_hint="--kernels")
    if not names:
        raise click.BadParameter(f"names of kernels, such as {','.join(list(PROFILES)[:2])}", param_hint="--kernels")
    return names


def refuse_what_is_for_one_run(common: CommonOptions) -> None:
    """The program runs many times, under many kernels, and nothing that one run writes may be met by the next."""
    ctx = click.get_current_context()
    if ctx.get_parameter_source("kernel") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--kernel: the program runs under several; write --kernels NAME,...", ctx)
    if common.stats is not None:
        raise click.UsageError("--stats: the program runs many times; ask pagewalk run, or see --json", ctx)
    if common.config.writable:
        raise click.UsageError("--writable: the program runs many times and would meet its own changes", ctx)
    if common.config.swap is not None and ":" in common.config.swap:
        raise click.UsageError("--swap FILE:SIZE: the runs cannot share one swap file; write --swap SIZE", ctx)


@contextmanager
def run_bar(noun: str, quiet: bool, total: int | None = None) -> Iterator[Tell | None]:
    """A bar on stderr, if that is a terminal; its ``total`` may grow when more runs turn out to be needed."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("running"), BarColumn(), MofNCompleteColumn(), TextColumn(noun), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)

        def tell(nr_done: int, total: int) -> None:
            progress.update(task, completed=nr_done, total=total)

        yield tell


def fail_if_nothing_ran(outcomes: Sequence[Outcome]) -> None:
    """A program that no kernel can start is the user's mistake, not a result."""
    if all(outcome.not_runnable is not None for outcome in outcomes):
        first = outcomes[0]
        assert first.not_runnable is not None
        raise CommandError(first.error or "not runnable", Status(first.not_runnable))
