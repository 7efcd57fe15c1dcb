"""The group of verbs, and the only place where exceptions become messages and exit statuses.

Deliberate difference from click: a usage error is one line and status 125, because 2 could be the guest's own.
No traceback reaches the user; PAGEWALK_DEBUG=1 shows it before the one line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from emu.cli.status import CommandError, Status

VERBS = {
    "run": "Run a program; the exit status is the program's.",
    "trace": "Run a program and print its page faults, system calls and other events.",
    "maps": "Run a program and print its areas at a chosen moment.",
    "pt": "Run a program and print its page tables at a chosen moment.",
    "page": "Run a program and print one page in full at a chosen moment.",
    "rmap": "Run a program and print its reverse map at a chosen moment.",
    "compare": "Run a program under several kernels and show what differs.",
    "check": "Find out whether a program breaks where a kernel refuses mremap.",
    "report": "Make an HTML report of a saved trace.",
    "kernels": "List the kernels that --kernel can choose, and their rules.",
    "syscalls": "List the supported system calls, flag by flag.",
}


class VerbGroup(click.Group):
    """Loads ``emu.cli.<verb>`` when the verb is used; the listing does not load any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"emu.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS:
            verbs = ", ".join(VERBS)
            raise click.UsageError(
                f"no verb {args[0]!r}: the verbs are {verbs}; to run a program: pagewalk run -- PROG"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=False,
    options_metavar="[--help] [--version]",
    subcommand_metavar="VERB ...",
)
@click.option("--version", is_flag=True, help="Print the version and exit.")
def group(version: bool) -> None:
    """Run unmodified x86-64 Linux programs on an emulated MMU, and see every page fault.

    \b
    pagewalk run -- /bin/ls -l
    pagewalk trace -e faults,syscalls -- ./prog arg
    """


def run(argv: Sequence[str] | None) -> int:
    """Run one command line; returns the exit status and never raises."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(args)
        sys.stdout.flush()
        return status
    except click.ClickException as error:
        _complain(_one_line(error))
        return Status.OUR_ERROR
    except CommandError as error:
        _complain(str(error))
        return error.status
    except (KeyboardInterrupt, click.Abort):
        return Status.INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return Status.BROKEN_PIPE
    except MemoryError:
        _complain("out of memory")
        return Status.OUR_ERROR
    except Exception as error:
        if os.environ.get("PAGEWALK_DEBUG"):
            import traceback

            traceback.print_exc()
        _complain(f"internal error: {type(error).__name__}: {error} (PAGEWALK_DEBUG=1 shows where)")
        return Status.OUR_ERROR


def _dispatch(args: list[str]) -> int:
    if not args:
        raise click.UsageError("no verb given; try: pagewalk run -- PROG, or pagewalk --help")
    if args == ["--version"]:
        from emu.version import __version__

        print(f"pagewalk {__version__}")
        return Status.OK
    try:  # not group.main(), which turns a closed pipe into status 1
        with group.make_context("pagewalk", args) as ctx:
            return int(group.invoke(ctx) or 0)
    except click.exceptions.Exit as done:  # --help
        return done.exit_code


def _one_line(error: click.ClickException) -> str:
    """click's message as one line, with the command to ask for more."""
    message = " ".join(error.format_message().split())
    if message.endswith(".") and not message.endswith("..."):
        message = message[:-1]
    if message[1:2].islower():
        message = message[0].lower() + message[1:]
    ctx = getattr(error, "ctx", None)
    if ctx is not None and ctx.command is not group:
        return f"{message} (see {ctx.command_path} --help)"
    return message


def _complain(message: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be left to tell
        print(f"pagewalk: {message}", file=sys.stderr, flush=True)


def _forget_stdout() -> None:
    """Keep the interpreter from complaining about the broken pipe once more when it flushes at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
