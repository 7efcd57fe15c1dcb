"""Programs that tell the kernels apart: how many areas each leaves, and what mremap then says about the whole range.

The numbers were worked by hand from the sources of the kernels; most were also confirmed on their own code, those of
6.18 on a running one.
"""

from __future__ import annotations

import pytest

from kernel.abi.errno import KernelError
from kernel.mm.accounting import vm_stat_account
from kernel.mm.madvise import do_mseal
from kernel.mm.rmap.check import check_rmap
from kernel.mm.types import PAGE_SIZE, VM_ACCOUNT
from tests.kernel.fakes import RW, FakeFile, FakeInode, make_kernel, map_file
from tests.kernel.script import BASE, Script

KERNELS = ("2.6.6", "2.6.6-anonmm", "2.6.6-rmap39", "2.6.5-aa", "2.6.7", "one-anon-vma", "6.1", "6.18")
N = 6

PROGRAMS: dict[str, list[str]] = {
    # for each page: map, write, make read-only (Hugh Dickins, 29 Mar 2004)
    "P1": [op for i in range(N) for op in (f"m:{i}:1:rw", f"w:{i}", f"p:{i}:1:r")],
    "P1down": [op for i in reversed(range(N)) for op in (f"m:{i}:1:rw", f"w:{i}", f"p:{i}:1:r")],
    # read-only and writable halves, each page made writable, written, made read-only (3 Apr 2004)
    "P2": ["m:0:2:r", "m:2:2:rw", *(op for i in range(4) for op in (f"p:{i}:1:rw", f"w:{i}", f"p:{i}:1:r"))],
    "P3": ["m:0:1:rw", "m:1:1:rwx", "w:0", "w:1", "p:1:1:rw"],
    "P4": ["m:0:2:rw", "p:1:1:rwx", "w:0", "w:1", "p:1:1:rw"],
    "P5": ["m:0:4:rw", "p:1:1:r", "w:0", "w:2", "p:1:1:rw"],
    "P5b": ["m:0:4:rw", "w:1", "p:1:1:r", "w:0", "w:2", "p:1:1:rw"],
    "P6": ["m:0:1:rw", "w:0", "m:2:1:rw", "w:2", "m:1:1:rw"],
    "P6b": ["m:0:3:rw", "w:0", "u:1:1", "w:2", "m:1:1:rw"],
    "P8": ["m:0:3:rw", "w:0", "w:1", "w:2", "v:1:1:1:MF:50", "v:50:1:1:MF:1"],
    "P8b": ["m:0:1:rw", "w:0", "m:60:1:rw", "w:60", "v:60:1:1:MF:1"],
    "P8c": ["m:0:1:rw", "w:0", "m:60:1:rw", "v:60:1:1:MF:1"],
    "P9": ["m:0:1:rw", "w:0", "f{", "p:0:1:r", "m:1:1:rw", "w:1", "p:1:1:r", "M", "f}"],
    "P10": ["m:0:1:rw", "m:1:1:rwx", "w:1", "p:1:1:rw"],
    "P12": ["m:0:1:rw:N", "m:1:1:rw", "w:0", "w:1"],
    "P13": ["m:0:1:rw", "m:1:1:rwx", "m:2:1:rw", "m:3:1:rwx", "w:0", "w:1", "w:2", "w:3", "p:0:4:rw"],
}

NR_AREAS: dict[str, tuple[int, ...]] = {
    #       A  B  C  D  E  F  G1 G2
    "P1": (1, 1, N, 1, 1, 1, 1, 1),
    "P1down": (1, 1, N, 1, 1, 1, 1, 1),
    "P2": (1, 1, 2, 2, 1, 1, 1, 1),
    "P3": (1, 1, 2, 2, 1, 1, 1, 1),
    "P4": (1, 1, 2, 2, 1, 1, 1, 1),
    "P5": (1, 1, 2, 2, 2, 1, 2, 2),
    "P5b": (1, 1, 1, 1, 1, 1, 1, 1),
    "P6": (1, 1, 2, 2, 2, 1, 2, 2),
    "P6b": (1, 1, 1, 1, 1, 1, 1, 1),
    "P8": (1, 1, 1, 1, 1, 1, 1, 1),
    "P8b": (1, 1, 2, 2, 2, 2, 2, 2),
    "P8c": (1, 1, 1, 1, 1, 1, 1, 1),
    "P9": (1, 1, 2, 1, 1, 1, 2, 2),
    "P10": (1, 1, 1, 1, 1, 1, 2, 1),
    "P12": (2, 2, 2, 2, 2, 2, 2, 2),
    "P13": (2, 1, 4, 4, 1, 1, 1, 1),
}
SHAPES = {
    ("P2", "2.6.6-rmap39"): "areas 0+1r--p 1+3r--p",
    ("P2", "2.6.5-aa"): "areas 0+1r--p 1+3r--p",
    ("P5", "2.6.7"): "areas 0+2rw-p 2+2rw-p",
    ("P6", "2.6.7"): "areas 0+2rw-p 2+1rw-p",
}


def run(program: str, kernel_name: str, **parts: object) -> Script:
    runner = Script(make_kernel(512, kernel_name, **parts))  # type: ignore[arg-type]
    runner.run(PROGRAMS[program])
    assert check_rmap(runner.kernel) == []
    return runner


def areas(program: str, runner: Script) -> str:
    """What the program left: in the child, if it forks."""
    if "f{" in PROGRAMS[program]:
        return next(line for line in runner.lines if line.startswith("areas"))
    return runner.areas()


@pytest.mark.parametrize("column", range(len(KERNELS)), ids=KERNELS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_number_of_areas(program: str, column: int) -> None:
    left = areas(program, run(program, KERNELS[column]))
    assert len(left.split()) - 1 == NR_AREAS[program][column], left


@pytest.mark.parametrize(("program", "kernel_name"), SHAPES)
def test_shape(program: str, kernel_name: str) -> None:
    assert areas(program, run(program, kernel_name)) == SHAPES[program, kernel_name]


@pytest.mark.parametrize("kernel_name", ["2.6.6", "2.6.6-anonmm", "2.6.6-rmap39", "2.6.5-aa", "2.6.7"])
def test_reversed_accounting_splits_p2_in_the_middle(kernel_name: str) -> None:
    runner = run("P2", kernel_name, bugs=("account-reversed",))
    assert runner.areas() == "areas 0+2r--p 2+2r--p"


CALLS = {
    # call on the whole range -> (one area; several in 2.6; in 6.1; in 6.17)
    "v:0:{n}:{m}:M": ("@", "EFAULT", "EFAULT", "EFAULT"),
    "v:0:{n}:{n}:MF:100": ("@100", "EFAULT", "EFAULT", "@100"),
    "v:0:{n}:{n}:-": ("@0", "@0", "@0", "@0"),
    "v:0:{n}:1:-": ("@0", "@0", "@0", "@0"),
    "v:0:{n}:1:MF:100": ("@100", "@100", "@100", "@100"),
    "v:0:{n}:{m}:-": ("@0", "EFAULT", "EFAULT", "EFAULT"),
}
MREMAP_COLUMN = {"2.6": 1, "6.1": 2, "6.17": 3}


@pytest.mark.parametrize("rules", MREMAP_COLUMN)
@pytest.mark.parametrize("program", ["P3", "P12"])
@pytest.mark.parametrize("call", CALLS)
def test_mremap_of_the_whole_range(call: str, program: str, rules: str) -> None:
    runner = run(program, "2.6.7", mremap=rules)
    nr_areas = len(runner.areas().split()) - 1
    runner.run(["m:100:2:r"])
    runner.run([call.format(n=2, m=3)])
    expected = CALLS[call][MREMAP_COLUMN[rules] if nr_areas > 1 else 0]
    result = runner.lines[-1].split()[-1]
    assert result.startswith(expected)
    assert check_rmap(runner.kernel) == []
    target_left = any(part.startswith("100+2r--") for part in runner.areas().split())
    if result == "EFAULT" and "F" in call:
        assert target_left is False, "the target is destroyed before the range is found to span areas"


@pytest.mark.parametrize(("rules", "survives"), [("2.6", False), ("6.1", False), ("6.17", True)])
def test_refused_fixed_growth_and_its_target(rules: str, survives: bool) -> None:
    runner = run("P12", "2.6.7", mremap=rules)
    runner.run(["m:100:3:r", "v:0:2:3:MF:100"])
    assert runner.lines[-1] == "v:0:2:3:MF:100 EFAULT"
    assert ("100+3r--p" in runner.areas()) is survives


def test_6_17_moves_many_areas_and_keeps_gaps() -> None:
    runner = Script(make_kernel(512, "6.18"))
    runner.run(["m:0:2:rw", "m:3:2:rwx", "m:6:1:r", "w:0:11", "w:4:22", "m:102:1:rx", "v:0:8:8:MF:100"])
    assert runner.lines[-1] == "v:0:8:8:MF:100 @100"
    # Each piece clears only its own place: the area under the source's hole at 2 is still there.
    assert runner.areas() == "areas 100+2rw-p 102+1r-xp 103+2rwxp 106+1r--p"
    assert runner.data() == "data 100=11 104=22"
    runner.run(["u:200:1", "v:99:3:3:MF:200"])
    assert runner.lines[-1].endswith("EFAULT"), "no hole at the start"
    assert check_rmap(runner.kernel) == []


def test_6_17_keeps_what_was_moved_before_a_failure() -> None:
    runner = Script(make_kernel(512, "6.18"))
    runner.run(["m:0:1:rw", "m:1:1:rwx", "w:0:5"])
    do_mseal(runner.mm, BASE + 0x1000, 0x1000)
    runner.run(["v:0:2:2:MF:100"])
    assert runner.lines[-1].endswith("EPERM")
    assert runner.areas() == "areas 1+1rwxp 100+1rw-p"


@pytest.mark.parametrize("kernel_name", KERNELS)
def test_untouched_private_file_area(kernel_name: str) -> None:
    """P14: 2.6.6's mprotect leaves areas of files in pieces."""
    runner = Script(make_kernel(512, kernel_name))
    file = FakeFile(FakeInode(runner.kernel, bytes(3 * PAGE_SIZE)))
    vma = map_file(runner.mm, BASE, 3, file, RW | VM_ACCOUNT)
    vm_stat_account(runner.mm, vma.vm_flags, 3)
    runner.kernel.vm_stat.committed_pages += 3
    runner.run(["p:1:1:r", "p:1:1:rw"])
    assert len(runner.areas().split()) - 1 == (3 if kernel_name == "2.6.6" else 1)
    assert check_rmap(runner.kernel) == []


def test_old_length_zero_of_private_memory() -> None:
    runner = Script(make_kernel(512, "2.6.7"))
    runner.run(["m:0:3:rw", "w:0", "v:0:0:2:MF:20", "m:3:1:rw"])
    assert runner.areas() == "areas 0+3rw-p 3+1rw-p 20+2rw-p", "the source has lost its VM_ACCOUNT"
    assert runner.data() == "data 0=1"
    for rules in ("6.1", "6.17"):
        runner = Script(make_kernel(512, "2.6.7", mremap=rules))
        runner.run(["m:0:3:rw", "v:0:0:2:MF:20"])
        assert runner.lines[-1].endswith("EINVAL")


def test_mremap_twin_bug() -> None:
    """A faulted page moved beside an unfaulted neighbour: the bug leaves it in an area that has no anon_vma."""
    script = ["m:1:1:rw", "w:1", "v:1:1:1:MF:50", "m:0:1:rw", "v:50:1:1:MF:1"]
    for kernel_name in ("2.6.7", "2.6.6-rmap39", "2.6.5-aa", "6.18"):
        good = Script(make_kernel(512, kernel_name))
        good.run(script)
        assert good.areas() == "areas 0+2rw-p"
        assert check_rmap(good.kernel) == []
        bad = Script(make_kernel(512, kernel_name, bugs=("mremap-twin",)))  # type: ignore[arg-type]
        bad.run(script)
        assert bad.areas() == "areas 0+2rw-p"
        assert "rmap-complete" in {violation.invariant for violation in check_rmap(bad.kernel)}


def test_anonmm_copies_a_shared_page_that_moves() -> None:
    runner = Script(make_kernel(512, "2.6.6-anonmm"))
    runner.run(["m:0:1:rw", "w:0:7", "f{", "v:0:1:1:MF:9", "r:9", "f}", "r:0"])
    assert runner.lines[-3:] == ["r:9 =7", "child exit 0", "r:0 =7"]
    assert runner.kernel.policy.counters.nr_unshared == 1


def test_map_count_limit() -> None:
    runner = Script(make_kernel(512, "2.6.7"))
    runner.kernel.sysctl.max_map_count = 4
    runner.run(["m:0:1:r", "m:1:1:rw", "m:2:1:r", "m:3:1:rw", "m:4:1:r", "m:5:1:rw"])
    assert runner.lines[-2:] == ["m:4:1:r ok", "m:5:1:rw ENOMEM"]
    runner.run(["u:1:1", "m:6:3:rw", "p:7:1:r"])
    assert runner.lines[-1] == "p:7:1:r ENOMEM"
    with pytest.raises(KernelError):
        runner.perform("u:7:1")
