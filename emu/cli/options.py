"""The options that every verb with a machine shares, and what they mean for :class:`emu.machine.MachineConfig`.

Options end at the program's name or at ``--``, as for env(1) and strace(1): what follows is the program's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from emu.cli.status import CommandError
from emu.limits import KEYS, Limits, limits_of, parse_size

if TYPE_CHECKING:
    from emu.machine import MachineConfig


class Size(click.ParamType):
    """A number of bytes: ``64M``, ``1G``, ``4096``; ``M`` is 2**20."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        nr_bytes = parse_size(value)
        if nr_bytes is None:
            self.fail(f"{value!r} is no size; write bytes, or a number with K, M, G or T, such as 64M", param, ctx)
        return nr_bytes


class SwapSpec(click.ParamType):
    """``SIZE``, or ``FILE:SIZE``; the machine reads it once more."""

    name = "[FILE:]SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        file, colon, size = str(value).rpartition(":")
        nr_bytes = Size().convert(size, param, ctx)
        if colon and not file:
            self.fail(f"{value!r} names no file; write FILE:SIZE, or a size alone", param, ctx)
        return f"{file}{colon}{nr_bytes}"


class EnvironmentEntry(click.ParamType):
    """``NAME=VALUE``."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, content = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is no NAME=VALUE", param, ctx)
        return name, content


class GuestCommand(click.Command):
    """A verb that ends in ``-- PROG ARGS...``.

    ``--stats`` and ``--check`` take a value only after ``=``, so that ``--stats PROG`` is not a file called PROG.
    """

    OPTIONAL_VALUE: tuple[str, ...] = ("--stats", "--check")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {}).update(allow_interspersed_args=False, max_content_width=110)
        kwargs.setdefault("options_metavar", "[OPTIONS] --")
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {name for param in self.params if _takes_value(param) for name in param.opts}
        rewritten: list[str] = []
        index = 0
        while index < len(args) and args[index].startswith("-") and args[index] not in ("-", "--"):
            word = args[index]
            rewritten.append(f"{word}=" if word in self.OPTIONAL_VALUE else word)
            index += 1
            if word in takes_value and word not in self.OPTIONAL_VALUE and index < len(args):
                rewritten.append(args[index])
                index += 1
        try:
            return super().parse_args(ctx, rewritten + args[index:])
        except click.MissingParameter as error:
            raise click.UsageError("no program given; end with: -- PROG ARGS...", ctx) from error


def _takes_value(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and not param.is_flag and not param.count


@dataclass(frozen=True)
class CommonOptions:
    """What the shared options said."""

    config: MachineConfig
    stats: str | None
    """Where statistics go: None nowhere, "" to stderr, else a file for JSON."""
    quiet: bool
    color: str

    def use_color(self, is_tty: bool) -> bool:
        """``--color`` > NO_COLOR > terminal (https://no-color.org)."""
        if self.color != "auto":
            return self.color == "always"
        return is_tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=str)

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--kernel", default="2.6.7", show_default=True, metavar="NAME",
                 help="The kernel whose memory-management rules hold; `pagewalk kernels` lists them."),
    click.option("--rmap", metavar="NAME", help="Another reverse-mapping policy than the kernel's."),
    click.option("--mremap", metavar="RULES", help="Other mremap rules than the kernel's: 2.6, 6.1 or 6.17."),
    click.option("--bug", "bugs", multiple=True, metavar="NAME",
                 help="Switch a historic bug on; `pagewalk kernels` lists them.  Repeatable."),
    click.option("--ram", "ram_bytes", type=Size(), default="256M", show_default=True,
                 help="Size of the machine's memory."),
    click.option("--swap", type=SwapSpec(), help="Size of the swap space, in a temporary file or in FILE."),
    click.option("--root", type=_DIRECTORY, default="/", show_default=True, metavar="DIR",
                 help="The directory that the program sees as /; the host's files are never changed."),
    click.option("--writable", type=_DIRECTORY, multiple=True, metavar="DIR",
                 help="Let writes below this directory reach the host.  Repeatable."),
    click.option("--env", type=EnvironmentEntry(), multiple=True,
                 help="Add to the program's environment, which is yours otherwise.  Repeatable."),
    click.option("--clear-env", is_flag=True, help="Start from an empty environment instead of yours."),
    click.option("--cwd", metavar="DIR", help="The program's working directory.  [default: the current one]"),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
                 help="What random bytes and randomised addresses follow from."),
    click.option("--aslr", is_flag=True, help="Randomise the layout of address spaces."),
    click.option("--clock", type=click.Choice(["virtual", "host"]), default="virtual", show_default=True,
                 help="Virtual time follows the instructions executed, the same in every run."),
    click.option("--max-map-count", type=click.IntRange(min=1), metavar="N",
                 help="Most areas that one address space may have.  [default: 65530]"),
    click.option("--fail", multiple=True, metavar="POINT:WHEN",
                 help="Make a page allocation (alloc:100) or a system call (mremap:EFAULT@3) fail; WHEN is N, N.., "
                 "N..M, every or everyK.  Repeatable."),
    click.option("--limit", multiple=True, metavar="KEY=VALUE",
                 help=f"Limit the machine or the program: {', '.join(KEYS)}.  Repeatable."),
    click.option("--check", metavar="[=N]",
                 help="Check all invariants after every (or every N-th) system call and fault."),
    click.option("--stats", metavar="[=FILE.json]", help="Print statistics at the end, or write them as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No warnings at the end."),
    click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
                 help="Colour our own output; auto: on a terminal, unless NO_COLOR is set."),
]  # fmt: skip

_CONFIG_FIELDS = (
    "kernel", "rmap", "mremap", "bugs", "ram_bytes", "swap", "root", "cwd", "seed", "aslr", "clock", "max_map_count",
    "fail",
)  # fmt: skip
"""Options that are fields of MachineConfig as they are."""


def machine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a verb; :func:`take_common` turns their values into :class:`CommonOptions`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


program_argument = click.argument("argv", nargs=-1, required=True, metavar="PROG [ARGS]...", type=click.UNPROCESSED)


def take_common(values: dict[str, Any]) -> CommonOptions:
    """Remove the shared options from a verb's keyword arguments and give their meaning."""
    from emu.machine import MachineConfig

    environment = {} if values.pop("clear_env") else dict(os.environ)
    environment.update(values.pop("env"))
    stats, quiet, color = values.pop("stats"), values.pop("quiet"), values.pop("color")
    if stats:
        _check_can_write("--stats", stats)
    try:
        config = MachineConfig(
            writable=list(values.pop("writable")),
            env=environment,
            check=_check_interval(values.pop("check")),
            limits=_limits(values.pop("limit")),
            **{name: values.pop(name) for name in _CONFIG_FIELDS},
        )
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    return CommonOptions(config, stats, quiet, color)


def _limits(texts: tuple[str, ...]) -> Limits:
    try:
        return limits_of(texts)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit") from error


def _check_can_write(option: str, path: str) -> None:
    """Find out before the run, not after it, that the result has no place."""
    try:
        with open(path, "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise CommandError(f"{option}: {path}: {error.strerror}") from error


def _check_interval(value: str | None) -> int:
    """``--check`` is every event, ``--check=N`` every N-th, absent is never."""
    if value is None:
        return 0
    if value == "":
        return 1
    if not value.isdecimal() or int(value) == 0:
        raise click.BadParameter(f"{value!r} is no number of events, such as --check=100", param_hint="--check")
    return int(value)
