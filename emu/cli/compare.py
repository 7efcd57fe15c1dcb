"""``pagewalk compare``: one program under several kernels, a row each."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from emu.cli.many import fail_if_nothing_ran, kernel_names, refuse_what_is_for_one_run, run_bar
from emu.cli.options import GuestCommand, machine_options, program_argument, take_common
from emu.cli.report import check_can_report, save
from emu.cli.status import CommandError
from emu.cli.tables import print_table

if TYPE_CHECKING:
    from emu.compare import Comparison, Row
    from emu.jobs import Outcome

_LEGEND = """\b
Columns:
  exit      the program's exit status, or the signal that killed it
  output    stdout and stderr, byte for byte, against the last kernel of the list; `files differ`: only
            the files that the program left do
  areas     of the first process when it ended / of any process at its peak
  merges    areas that were joined to a neighbour
  refused   touching areas that stayed apart: because of flags / file / page offset (pgoff) / anon_vma
  anon_vma  anon_vmas of the first process at its end, and their lists: mean / longest
  rmap      memory of the reverse map at that moment, in bytes, as that kernel would have spent it
  mremap    calls that succeeded, and that failed, by error
  faults    page faults, and pages that were copied (copy on write, or to move a page)

Exit status: 0 the program behaves the same on all kernels, 1 it does not.
"""


@click.command("compare", cls=GuestCommand, epilog=_LEGEND)
@click.option("--kernels", metavar="A,B,...", help="Only these kernels, in this order.  [default: all eight]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object (schema: emu/schema/compare-1.json).")
@click.option("--explain", is_flag=True, help="Say for each kernel which areas stayed apart, and why.")
@click.option("--report", metavar="FILE.html", help="Also write an HTML report with all kernels side by side.")
@machine_options
@program_argument
def command(
    argv: tuple[str, ...], kernels: str | None, as_json: bool, explain: bool, report: str | None, **values: Any
) -> int:
    """Run a program under several kernels and show what differs.

    \b
    pagewalk compare -- ./prog
    pagewalk compare --kernels 2.6.6-rmap39,2.6.7 --explain -- images/p1 16
    """
    from emu.compare import compare

    common = take_common(values)
    refuse_what_is_for_one_run(common)
    names = kernel_names(kernels)
    if report is not None:
        check_can_report(report)
    try:
        with run_bar("kernels", common.quiet, len(names)) as tell:
            comparison = compare(
                common.config,
                names,
                argv,
                wants_refusals=explain,
                wants_stories=report is not None,
                on_done=None if tell is None else partial(tell, total=len(names)),
            )
    except ValueError as error:
        raise CommandError(str(error)) from error
    fail_if_nothing_ran(comparison.outcomes)
    if report is not None:
        stories = [outcome.story for outcome in comparison.outcomes if outcome.story is not None]
        save(report, stories, comparison.as_json(argv))
    if as_json:
        print(json.dumps(comparison.as_json(argv), indent=2))
    else:
        print_table(_COLUMNS, [_cells(row) for row in comparison.rows()])
        _say_what_differs(comparison)
        if explain:
            _explain(comparison)
    return 0 if comparison.agrees else 1


_COLUMNS = [
    "kernel",
    "exit",
    "output",
    "areas",
    "merges",
    "refused flags/file/pgoff/anon_vma",
    "anon_vmas",
    "list mean/longest",
    "rmap bytes",
    "mremap",
    "faults",
    "copied",
]


def _cells(row: Row) -> list[str]:
    from emu.compare import REASONS

    others = sum(count for reason, count in row.refused.items() if reason not in REASONS)
    refused = "/".join(str(row.refused.get(reason, 0)) for reason in REASONS) + (f" +{others}" if others else "")
    return [
        row.kernel,
        _exit_text(row),
        "files differ" if row.files != row.output == "same" else row.output,
        f"{'-' if row.areas_end is None else row.areas_end}/{row.areas_peak}",
        str(row.merges),
        refused,
        str(row.anon_vmas),
        f"{row.list_length_mean:.1f}/{row.list_length_longest}",
        str(row.rmap_bytes),
        ", ".join(f"{count} {name}" for name, count in row.mremap.items()) or "-",
        str(row.faults),
        str(row.copied_pages),
    ]


def _exit_text(row: Row) -> str:
    if row.error is not None:
        return "stopped"
    return row.signal or str(row.exit_status)


def _say_what_differs(comparison: Comparison) -> None:
    print()
    for outcome in comparison.outcomes:
        if outcome.error is not None:
            print(f"{outcome.label}: {outcome.error}")
        for name, count in sorted(outcome.unimplemented.items()):
            print(f"{outcome.label}: system call {name} is not implemented (ENOSYS, made {count} times)")
    if comparison.agrees:
        print(f"The program behaves the same on all {len(comparison.outcomes)} kernels.")
        return
    odd = [outcome for outcome in comparison.outcomes if outcome.behaviour != comparison.reference.behaviour]
    print(f"The program behaves differently than on {comparison.reference.label}:")
    for outcome in odd:
        print(f"  {outcome.label}: {_first_difference(outcome, comparison.reference)}")


def _first_difference(outcome: Outcome, reference: Outcome) -> str:
    """In a few words: how this run went otherwise; what it printed says more than how it ended."""
    from emu.differences import What, differences

    if outcome.error is not None:
        return "pagewalk stopped the run"
    found = differences(outcome, reference)
    return next((one.text for one in found if one.what is not What.EXIT), found[0].text)


def _explain(comparison: Comparison) -> None:
    """What stayed apart on single kernels first, then what stays apart on all of them."""
    from emu.compare import refusals_of
    from emu.trace.explain import refusal_key, unique_refusals

    found = {outcome.label: unique_refusals(refusals_of(outcome)) for outcome in comparison.outcomes}
    keys = [{refusal_key(record) for record, _ in refusals} for refusals in found.values()]
    everywhere = set.intersection(*keys) if len(keys) > 1 else set()
    for kernel, refusals in found.items():
        print(f"\n{kernel}")
        own = [item for item in refusals if refusal_key(item[0]) not in everywhere]
        _print_refusals(own, "every two areas that can be joined were joined")
    if everywhere:
        print("\non every one of these kernels")
        first = next(iter(found.values()))
        _print_refusals([item for item in first if refusal_key(item[0]) in everywhere], "")


def _print_refusals(refusals: list[tuple[Any, int]], nothing: str) -> None:
    from emu.trace.explain import refusal_lines

    if not refusals:
        print(f"  {nothing}")
    for record, count in refusals:
        lines = refusal_lines(record)
        lines[0] += f"  ({count} times)" if count > 1 else ""
        print("\n".join(f"  {line}" for line in lines))
