"""``pagewalk kernels``: the profiles that ``--kernel`` chooses, and what can be overridden."""

from __future__ import annotations

import json
from dataclasses import fields
from enum import Enum

import click

from emu.cli.tables import print_table
from kernel.profile import BUG_NOTES, DEFAULT_KERNEL, PROFILES, RMAP_NOTES, Bug, MremapRules, Profile


@click.command("kernels")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object instead of tables (schema: emu/schema/kernels-1.json).",
)
def command(as_json: bool) -> int:
    """List the kernels that --kernel can choose, and their memory-management rules.

    \b
    pagewalk kernels
    pagewalk kernels --json

    \b
    Columns:
    kernel    its name for --kernel
    rmap      how a page's mappings are found (--rmap)
    merge     the era whose rules join neighbouring areas
    mprotect  how mprotect joins areas
    mremap    what mremap accepts, and what it has done when it fails (--mremap)
    mlock     how mlock goes through its range

    Below: each kernel in short and where its rules come from, the policies of --rmap, the defects of --bug.
    """
    if as_json:
        print(json.dumps(_as_json(), indent=2))
        return 0
    rows = [_row(profile) for profile in PROFILES.values()]
    print_table(["kernel", "rmap", "merge", "mprotect", "mremap", "mlock"], rows)
    print()
    print_table(["kernel", "in short"], [[p.name, p.description] for p in PROFILES.values()])
    print()
    print_table(["kernel", "where its rules come from"], [[p.name, p.provenance] for p in PROFILES.values()])
    print()
    print_table(["--rmap", "policy"], [list(item) for item in RMAP_NOTES.items()])
    print()
    print_table(["--bug", "defect of released kernels"], [[bug.value, BUG_NOTES[bug]] for bug in Bug])
    return 0


def _row(profile: Profile) -> list[str]:
    name = f"{profile.name} (default)" if profile.name == DEFAULT_KERNEL else profile.name
    return [
        name,
        profile.rmap,
        profile.merge.value,
        profile.mprotect.value,
        profile.mremap.value,
        profile.mlock.value,
    ]


def _as_json() -> dict[str, object]:
    return {
        "schema": 1,
        "default": DEFAULT_KERNEL,
        "kernels": [
            {field.name: _plain(getattr(profile, field.name)) for field in fields(profile)}
            for profile in PROFILES.values()
        ],
        "rmap": RMAP_NOTES,
        "mremap": [rules.value for rules in MremapRules],
        "bugs": {bug.value: BUG_NOTES[bug] for bug in Bug},
    }


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    return sorted(bug.value for bug in value) if isinstance(value, frozenset) else value
