"""Programs that need several times the machine's memory: right answers under every kernel, with the checks on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.guest.harness import IMAGES, SCRIPTS, Case, compare, pagewalk, require
from tests.guest.test_programs import COMMANDS, needs, script_case
from tests.guest.test_section_11 import KERNELS

SMALL = ("-q", "--ram", "4M", "--swap", "64M")
PROGRAMS = {
    "mem_fill": ("8", "1"),
    "mem_fork": ("3", "8"),
    "mem_remap": ("2",),
    "mem_file": ("4", "/tmp/mem_file.data"),
    "mem_shared": ("6", "3"),
    "mem_protect": ("5",),
    "mem_swapoff": ("2",),
}
EXPECTED = {name: f"{name.removeprefix('mem_')}: ok\n" for name in PROGRAMS}
EXPECTED["mem_swapoff"] = "swapoff: ok\nswapon: ok\nswapoff: ok\n"


def run(name: str, *options: str) -> None:
    result = pagewalk([str(IMAGES / name), *PROGRAMS[name]], (*SMALL, *options), timeout_seconds=600)
    assert (result.status, result.stdout, result.stderr) == (0, EXPECTED[name], "")


@pytest.mark.parametrize("name", PROGRAMS)
def test_default_kernel(name: str) -> None:
    run(name)


@pytest.mark.parametrize("kernel", KERNELS)
def test_shared_pages_of_many_children(kernel: str) -> None:
    """The program that needs the reverse map most, under each policy, with a check now and then."""
    run("mem_fork", "--kernel", kernel, "--check=2000")


@pytest.mark.proof
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_kernel(name: str, kernel: str) -> None:
    run(name, "--kernel", kernel, "--check=200")


REAL = [script_case(SCRIPTS / name) for name in ("bash-pipelines.bash", "python.py", "gcc.sh")]
REAL += [case for case in COMMANDS if case.name == "sqlite file"]


@pytest.mark.parametrize("case", REAL, ids=lambda case: case.name)
def test_real_programs_in_little_memory(case: Case, tmp_path: Path) -> None:
    require(needs(SCRIPTS / Path(case.argv[-1]).name) if case.argv[-1].startswith(str(SCRIPTS)) else [case.argv[0]])
    small = Case(
        case.name, case.argv, case.stdin, case.prepare, ("--ram", "24M", "--swap", "512M"), case.normalise, 400
    )
    compare(small, tmp_path / "work")
