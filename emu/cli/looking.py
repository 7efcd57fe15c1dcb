"""What ``maps``, ``pt``, ``page`` and ``rmap`` share: the moment, where the view goes, ``WHAT -- PROG ARGS``.

The program's own output is untouched; the view goes to stderr or to ``-o`` (``-o -`` is stdout), as a trace does.
Exit status 0: the moment came and the view was printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from emu.cli.options import CommonOptions, GuestCommand, machine_options, program_argument
from emu.cli.session import power_on
from emu.cli.status import CommandError, Status

if TYPE_CHECKING:
    from emu.inspect.moment import Moment, Scene

_WHAT = "--what"
"""The word before ``--`` on its way through click."""


class View(Protocol):
    def as_json(self) -> dict[str, Any]: ...
    def lines(self) -> list[str]: ...


V = TypeVar("V", bound=View)


class InspectCommand(GuestCommand):
    """``pagewalk VERB [OPTIONS] [WHAT] -- PROG ARGS``."""

    what_metavar = ""
    """How --help names WHAT; empty: the verb has none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self.what_metavar and "--" in args:
            before = args[: args.index("--")]
            if before and not self._is_option_or_value(before):
                args = [*before[:-1], f"{_WHAT}={before[-1]}", *args[len(before) :]]
        return super().parse_args(ctx, args)

    def _is_option_or_value(self, words: Sequence[str]) -> bool:
        """Is the last of ``words`` an option, or the value of the option before it?"""
        if words[-1].startswith("-") and words[-1] != "-":
            return True
        if len(words) < 2 or "=" in words[-2] or words[-2] in self.OPTIONAL_VALUE:
            return False
        return any(
            words[-2] in param.opts and isinstance(param, click.Option) and not param.is_flag and not param.count
            for param in self.params
        )


def command(name: str, what: str, columns: Sequence[tuple[str, str]], **attributes: Any) -> Callable[..., Any]:
    """A decorator: the verb ``name``; ``what`` is the metavar of its WHAT, ``columns`` the legend of its text."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        function = program_argument(machine_options(function))
        for option in reversed(_OPTIONS):
            function = option(function)
        if what:
            function = click.option(_WHAT, hidden=True)(function)
        metavar = "[OPTIONS]" + (f" {what}" if what else "") + " --"
        made: InspectCommand = click.command(
            name, cls=InspectCommand, epilog=_legend(columns), options_metavar=metavar, **attributes
        )(function)
        made.what_metavar = what
        return made

    return decorate


_OPTIONS = [
    click.option("--at", default="exit", show_default=True, metavar="MOMENT",
                 help="When to look: exit (just before the first process' address space goes), fault:N (when the N-th "
                      "fault was served), syscall:N (when the N-th system call has returned), sym:NAME (before the "
                      "first process executes NAME for the first time) or time:SECONDS (by the program's clock, which "
                      "starts at 1).  Numbers are those of `pagewalk trace`."),
    click.option("--pid", type=int, metavar="N",
                 help="Look at this process instead of the one whose fault or call it was."),
    click.option("--json", "as_json", is_flag=True,
                 help="Print one JSON object (schema: emu/inspect/schema/inspect-1.json)."),
    click.option("-o", "--output", metavar="FILE", help="Write here instead of to stderr; - is stdout."),
]  # fmt: skip


def _legend(columns: Sequence[tuple[str, str]]) -> str:
    import textwrap

    width = max(len(name) for name, _ in columns) + 2
    rows = [f"{name:<{width}}{meaning}" for name, meaning in columns]
    lines = [line for row in rows for line in textwrap.wrap(row, 100, subsequent_indent=" " * width)]
    return "\b\nColumns:\n" + "\n".join("  " + line for line in lines)


def take_moment(text: str) -> Moment:
    from emu.inspect.moment import Moment

    try:
        return Moment.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--at") from error


def look(common: CommonOptions, argv: Sequence[str], at: str, pid: int | None, make_view: Callable[[Scene], V]) -> V:
    """Run the program up to the moment; the view of it."""
    from emu.errors import MachineError, NotRunnable
    from emu.inspect.moment import Event
    from emu.progress import shown

    moment = take_moment(at)
    with power_on(common.config) as machine:
        machine.kernel.notes_first_writes = True
        try:
            with shown(machine, not common.quiet):
                stopped = machine.run_program(argv, until=moment)
            if stopped.reason is Event.END:
                raise CommandError(stopped.what)
            return make_view(machine.scene(pid))
        except NotRunnable as error:
            raise CommandError(error.message, Status(error.status)) from error
        except MachineError as error:
            raise CommandError(str(error)) from error


def show(view: View, as_json: bool, output: str | None) -> None:
    """Print the view where it was asked for."""
    text = json.dumps(view.as_json(), indent=2) + "\n" if as_json else "".join(line + "\n" for line in view.lines())
    write(text, output)


def write(text: str, output: str | None) -> None:
    data = text.encode("utf-8", "surrogateescape")
    try:
        if output is None:
            sys.stderr.flush()
            sys.stderr.buffer.write(data)
            sys.stderr.flush()
        elif output == "-":
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
        else:
            with open(output, "wb") as file:
                file.write(data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"-o {output}: {error.strerror}") from error
