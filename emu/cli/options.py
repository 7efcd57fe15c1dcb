"""The options that every verb with a machine shares, and what they mean for :class:`emu.machine.MachineConfig`.

Options end at the program's name or at ``--``, as for env(1) and strace(1): what follows is the program's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from emu.machine import MachineConfig

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+)([KMGT]?)(?:i?B)?", re.IGNORECASE)


class Size(click.ParamType):
    """A number of bytes: ``64M``, ``1G``, ``4096``; ``M`` is 2**20."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is no size; write bytes, or a number with K, M, G or T, such as 64M", param, ctx)
        return int(match[1]) * _UNITS[match[2].upper()]


class EnvironmentEntry(click.ParamType):
    """``NAME=VALUE``."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, content = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is no NAME=VALUE", param, ctx)
        return name, content


class KernelName(click.ParamType):
    """The name of a profile; the list is loaded only when there is a name to look up."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from kernel.profile import PROFILES

        if value not in PROFILES:
            self.fail(f"no kernel {value!r}; there are {', '.join(PROFILES)}", param, ctx)
        return str(value)


class GuestCommand(click.Command):
    """A verb that ends in ``-- PROG ARGS...``.

    ``--stats`` and ``--check`` take a value only after ``=``, so that ``--stats PROG`` is not a file called PROG.
    """

    OPTIONAL_VALUE = ("--stats", "--check")

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
        if index == len(args):
            raise click.UsageError("no program given; end with: -- PROG ARGS...", ctx)
        return super().parse_args(ctx, rewritten + args[index:])


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
    click.option("--kernel", type=KernelName(), default="2.6.7", show_default=True,
                 help="The kernel whose memory-management rules hold; `pagewalk kernels` lists them."),
    click.option("--ram", type=Size(), default="256M", show_default=True, help="Size of the machine's memory."),
    click.option("--root", type=_DIRECTORY, default="/", show_default=True, metavar="DIR",
                 help="The directory that the program sees as /; the host's files are never changed."),
    click.option("--writable", type=_DIRECTORY, multiple=True, metavar="DIR",
                 help="Let writes below this directory reach the host.  Repeatable."),
    click.option("--env", type=EnvironmentEntry(), multiple=True,
                 help="Add to the program's environment, which is yours otherwise.  Repeatable."),
    click.option("--clear-env", is_flag=True, help="Start from an empty environment instead of yours."),
    click.option("--cwd", metavar="DIR", help="The program's working directory.  [default: the current one]"),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
                 help="Random bytes, pids and addresses follow from this number."),
    click.option("--aslr", is_flag=True, help="Randomise the address-space layout (from the seed)."),
    click.option("--clock", type=click.Choice(["virtual", "host"]), default="virtual", show_default=True,
                 help="Virtual time follows the instructions executed, and is the same every run."),
    click.option("--max-map-count", type=click.IntRange(min=1), metavar="N",
                 help="Most areas that one address space may have."),
    click.option("--check", "check", metavar="[=N]",
                 help="Check all invariants after every (or every N-th) system call and fault."),
    click.option("--stats", metavar="[=FILE.json]", help="Print statistics at the end, or write them as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No warnings at the end."),
    click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
                 help="Colour our own output; auto: on a terminal, unless NO_COLOR is set."),
]  # fmt: skip


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
    try:
        config = MachineConfig(
            kernel=values.pop("kernel"),
            ram_bytes=values.pop("ram"),
            root=values.pop("root"),
            writable=list(values.pop("writable")),
            env=environment,
            cwd=values.pop("cwd"),
            seed=values.pop("seed"),
            aslr=values.pop("aslr"),
            clock=values.pop("clock"),
            max_map_count=values.pop("max_map_count"),
            check=_check_interval(values.pop("check")),
        )
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    return CommonOptions(config, stats, quiet, color)


def _check_interval(value: str | None) -> int:
    """``--check`` is every event, ``--check=N`` every N-th, absent is never."""
    if value is None:
        return 0
    if value == "":
        return 1
    if not value.isdecimal() or int(value) == 0:
        raise click.BadParameter(f"{value!r} is no number of events, such as --check=100", param_hint="--check")
    return int(value)
