"""``pagewalk trace``: run a program and print what happens to its memory and in its system calls."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import click

from emu.cli.options import GuestCommand, machine_options, program_argument, take_common
from emu.cli.session import load, power_on, report_end, run
from emu.cli.status import CommandError
from emu.trace.changes import REFUSALS, RULES
from emu.trace.text import COLUMNS

if TYPE_CHECKING:
    from emu.trace.insns import InsnScope
    from emu.trace.session import Filter, Sink


MAX_INSNS = 10_000
"""More before each fault than anybody can read."""


def _legend() -> str:
    rows = [f"{name:<12} {meaning}" for name, _, meaning in COLUMNS]
    wrapped = [line for row in rows for line in textwrap.wrap(row, 100, subsequent_indent=" " * 13)]
    columns = "\b\nColumns of a fault (text), two spaces or more between them, - for nothing:\n" + "\n".join(
        "  " + line for line in wrapped
    )
    kinds = "\n".join(f"  {kind:<15}{rule}" for kind, rule in {**RULES, **REFUSALS}.items())
    return f"{columns}\n\n\b\nKinds of faults:\n{kinds}"


@click.command("trace", cls=GuestCommand, epilog=_legend())
@click.option(
    "-e",
    "--events",
    multiple=True,
    metavar="KIND,...",
    help="What to trace: faults, syscalls, mm, rmap, swap, sched, signal, tlb; areas and counters of every address "
    "space whenever they change; all.  [default: faults]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "jsonl", "perfetto"]),
    default="text",
    show_default=True,
    help="Lines to read, JSON lines for programs, or one JSON file for ui.perfetto.dev (by default of faults, "
    "syscalls, swap, sched, signal and counters).",
)
@click.option("-o", "--output", metavar="FILE", help="Write the trace here instead of to stderr.")
@click.option("--pid", "pids", type=int, multiple=True, metavar="N", help="Only this task.  Repeatable.")
@click.option(
    "--addr",
    "addresses",
    multiple=True,
    metavar="A[-B]",
    help="Only faults at this address's page or in this range (hexadecimal).  Repeatable.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND,...",
    help="Only faults of these kinds (see below); also minor, major, bad.",
)
@click.option(
    "--syscall",
    "syscalls",
    multiple=True,
    metavar="NAME|%CLASS,...",
    help="Only these system calls; classes are strace's, such as %memory.",
)
@click.option("--only-errors", is_flag=True, help="Only calls that failed and faults that became signals.")
@click.option(
    "--insns",
    metavar="around-fault:N|all",
    help="Also the last N instructions of the task up to each fault, the faulting one last; or every instruction that "
    "is executed, once, after the faults it took.",
)
@machine_options
@program_argument
def command(
    argv: tuple[str, ...],
    events: tuple[str, ...],
    form: str,
    output: str | None,
    pids: tuple[int, ...],
    addresses: tuple[str, ...],
    kinds: tuple[str, ...],
    syscalls: tuple[str, ...],
    only_errors: bool,
    insns: str | None,
    **values: Any,
) -> int:
    """Run a program and print its page faults, system calls and other events.

    \b
    pagewalk trace -e faults -- ./prog
    pagewalk trace -e syscalls --syscall %memory -o calls.txt -- /bin/ls
    pagewalk trace -e faults,syscalls --format jsonl -o trace.jsonl -- ./prog
    pagewalk trace --format perfetto -o trace.json -- ./prog

    The exit status is the program's, as for `pagewalk run`.
    """
    from emu.cpu.engine import EngineError
    from emu.trace.insns import InsnRequest
    from emu.trace.session import TraceSession, machine_fields

    common = take_common(values)
    categories = _categories(events, form, _needed(addresses, kinds, syscalls, insns))
    condition = _filter(pids, addresses, kinds, syscalls, only_errors)
    scope = _insn_scope(insns, form)
    with _output(output) as stream:
        machine = power_on(common.config)
        color = common.use_color(output is None and sys.stderr.isatty())
        sink = _sink(form, stream, color)
        request = None if scope is None else InsnRequest(machine.cpu, *scope)
        session = TraceSession(machine.kernel, categories, sink, condition, request)
        try:
            session.start(argv, machine_fields(common.config))
        except EngineError as error:
            raise CommandError(f"--insns: {error}") from error
        status: int | None = None
        try:
            load(machine, argv)
            status = run(machine, progress=output is not None and not common.quiet)
        finally:
            session.finish(status)
            _warn_of_size(sink, common.quiet)
    report_end(machine, common)
    return status


def _warn_of_size(sink: Sink, quiet: bool) -> None:
    from emu.trace.perfetto import LARGE_BYTES, PerfettoSink

    if isinstance(sink, PerfettoSink) and sink.nr_bytes > LARGE_BYTES and not quiet:
        size = f"{sink.nr_bytes >> 20} MiB"
        print(f"pagewalk: warning: {size} are much for a viewer; --pid, --addr or fewer -e help", file=sys.stderr)


def _words(values: tuple[str, ...]) -> list[str]:
    """Repeated and comma-separated words, once each, in order."""
    return list(dict.fromkeys(word for value in values for word in value.split(",") if word))


def _categories(events: tuple[str, ...], form: str, needed: dict[str, str]) -> list[str]:
    """What is traced; ``needed``: events that an option is about -> the option.  Without ``-e`` they decide."""
    from emu.trace.perfetto import DEFAULT_EVENTS
    from emu.trace.session import known_categories

    known = known_categories()
    chosen = _words(events) or (list(DEFAULT_EVENTS) if form == "perfetto" else list(needed) or ["faults"])
    if "all" in chosen:
        return known
    for name in chosen:
        if name.startswith(("trace=", "%")):  # strace's
            raise click.BadParameter(f"{name!r}: for some calls only: -e syscalls --syscall ...", param_hint="-e")
        if name not in known:
            raise click.BadParameter(f"no events {name!r}; there are {', '.join(known)}, all", param_hint="-e")
    for name, option in needed.items():
        if name not in chosen:
            raise click.BadParameter(f"needs -e {name}", param_hint=option)
    return chosen


def _needed(
    addresses: tuple[str, ...], kinds: tuple[str, ...], syscalls: tuple[str, ...], insns: str | None
) -> dict[str, str]:
    options = {
        "--addr": ("faults", bool(addresses)),
        "--kind": ("faults", bool(kinds)),
        "--insns": ("faults", insns is not None and insns != "all"),
        "--syscall": ("syscalls", bool(syscalls)),
    }
    return {events: option for option, (events, is_used) in options.items() if is_used}


def _kinds(words: tuple[str, ...]) -> frozenset[str]:
    """Names of ``--kind``, as :class:`Filter` has them."""
    chosen = [word.lower() for word in _words(words)]
    known = [*RULES, "minor", "major", "bad", *REFUSALS]
    for word in chosen:
        if word not in map(str.lower, known):
            raise click.BadParameter(f"no kind {word!r}; there are {', '.join(known)}", param_hint="--kind")
    return frozenset(chosen)


def _filter(
    pids: tuple[int, ...],
    addresses: tuple[str, ...],
    kinds: tuple[str, ...],
    syscalls: tuple[str, ...],
    only_errors: bool,
) -> Filter:
    from emu.trace.session import Filter, syscalls_named

    try:
        names = syscalls_named(_words(syscalls))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--syscall") from error
    return Filter(frozenset(pids), tuple(map(_address_range, addresses)), _kinds(kinds), names, only_errors)


def _insn_scope(text: str | None, form: str) -> tuple[InsnScope, int] | None:
    """What ``--insns`` asks for."""
    from emu.trace.insns import InsnScope

    if text is None:
        return None
    word, colon, number = text.partition(":")
    if word == InsnScope.ALL.value and not colon:
        if form == "perfetto":
            raise click.BadParameter("all is for text and jsonl; perfetto has around-fault:N", param_hint="--insns")
        return InsnScope.ALL, 0
    if word != InsnScope.BEFORE_FAULTS.value or not number.isdecimal() or not 1 <= int(number) <= MAX_INSNS:
        raise click.BadParameter(
            f"{text!r} is neither all nor around-fault:N with N from 1 to {MAX_INSNS:,}", param_hint="--insns"
        )
    return InsnScope.BEFORE_FAULTS, int(number)


def _address_range(text: str) -> tuple[int, int]:
    """``A-B``, or the page that holds ``A``; hexadecimal."""
    first, dash, last = text.partition("-")
    try:
        start = int(first, 16)
        end = int(last, 16) if dash else (start & -4096) + 4096
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no address or range, such as 0x401000-0x402000", param_hint="--addr"
        ) from error
    if end <= start:
        raise click.BadParameter(f"{text!r} is an empty range", param_hint="--addr")
    return (start, end) if dash else (end - 4096, end)


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[BinaryIO]:
    """The stream for the trace: stderr line by line, so that it stays in order with the program's output."""
    if path is None:
        sys.stderr.flush()
        with open(sys.stderr.fileno(), "wb", buffering=0, closefd=False) as stream:
            yield stream
        return
    try:
        file = open(path, "wb")  # noqa: SIM115 - closed below; the error is about opening only
    except OSError as error:
        raise CommandError(f"-o {path}: {error.strerror}") from error
    checked = _CheckedFile(file, path)
    try:
        yield cast(BinaryIO, checked)
        checked.flush()
    finally:
        with contextlib.suppress(OSError):  # said already
            file.close()


class _CheckedFile:
    """A full disk ends the run with a message that names the file."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            raise self._named(error) from error

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise self._named(error) from error

    def _named(self, error: OSError) -> Exception:
        return error if isinstance(error, BrokenPipeError) else CommandError(f"-o {self._path}: {error.strerror}")


def _sink(form: str, stream: BinaryIO, color: bool) -> Sink:
    if form == "jsonl":
        from emu.trace.jsonl import JsonLinesSink

        return JsonLinesSink(stream)
    if form == "perfetto":
        from emu.trace.perfetto import PerfettoSink

        return PerfettoSink(stream)
    from emu.trace.text import TextSink

    return TextSink(stream, color)
