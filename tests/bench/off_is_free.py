"""What tracing costs when nobody asked for it: this tree against the same tree without its tracepoints.

python -m tests.bench.off_is_free [--time RUNS]

The second tree is a copy in which every test of a tracepoint (``if POINT.on:``) is a constant False, which Python
compiles to nothing.  Counted are the Python bytecodes that the kernel and the machine execute for the same program: the
same number in every run, and more than the cost in time, of which the engine has a part that does not change.
``--time`` measures CPU time as well, in turns, the smallest of RUNS; on a busy machine it says less.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.measure import IMAGES, PYTHON, ROOT, Contender, run_once

LIMIT_PERCENT = 3.0
PACKAGES = ("emu", "kernel", "mmu")
ROWS: dict[str, tuple[list[str], list[str]]] = {
    "getppid": (["bench_getppid", "3000"], ["bench_getppid", "1000000"]),
    "first touch": (["bench_fault", "512", "4"], ["bench_fault", "8192", "12"]),
    "fork, write, exit, wait": (["bench_fork", "4"], ["bench_fork", "200"]),
    "mprotect": (["bench_mprotect", "400"], ["bench_mprotect", "20000"]),
    "read": (["bench_read", "1000", "4096"], ["bench_read", "200000", "4096"]),
    "compute sieve": (["bench_compute", "sieve", "1"], ["bench_compute", "sieve", "20"]),
    "hello": (["hello"], ["hello"]),
}
"""A program for counting, and the same with enough to do for a clock."""

_COUNT = """
import sys
sys.path.insert(0, sys.argv[1])
from emu.machine import Machine
count = 0
def trace(frame, event, arg):
    global count
    frame.f_trace_opcodes = True
    frame.f_trace_lines = False
    if event == "opcode":
        count += 1
    return trace
machine = Machine()
machine.spawn(sys.argv[2:], capture=True)
sys.settrace(trace)
status = machine.run()
sys.settrace(None)
assert status == 0, status
print(count)
"""


class _WithoutTracepoints(ast.NodeTransformer):
    """``POINT.on`` becomes ``False``; a tracepoint's name is in capitals."""

    def __init__(self) -> None:
        self.nr_removed = 0

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        name = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
        if node.attr == "on" and isinstance(node.ctx, ast.Load) and name.isupper():
            self.nr_removed += 1
            return ast.copy_location(ast.Constant(False), node)
        return node


def copy_tree(directory: Path, strip: bool) -> int:
    """Copy the packages to ``directory``; returns how many tests of tracepoints were taken out."""
    nr_removed = 0
    for package in PACKAGES:
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
        for path in sorted((directory / package).rglob("*.py")) if strip else ():
            remover = _WithoutTracepoints()
            tree = remover.visit(ast.parse(path.read_text(encoding="utf-8")))
            if remover.nr_removed:
                path.write_text(ast.unparse(tree), encoding="utf-8")
                nr_removed += remover.nr_removed
    compileall.compile_dir(directory, quiet=2)
    return nr_removed


def bytecodes(directory: Path, argv: list[str]) -> int:
    """How many bytecodes the tree in ``directory`` executes to run a program."""
    command = [PYTHON, "-c", _COUNT, str(directory), str(IMAGES / argv[0]), *argv[1:]]
    return int(subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True).stdout)


def _contender(name: str, directory: Path) -> Contender:
    start = f"import sys; sys.path.insert(0, {str(directory)!r}); from emu.cli import main; sys.exit(main())"
    return Contender(name, (PYTHON, "-c", start, "run", "--"))


def _percent(with_points: float, without: float) -> float:
    return (with_points / without - 1) * 100


def _times(trees: tuple[Path, Path], argv: list[str], nr_runs: int) -> str:
    contenders = [_contender(name, tree) for name, tree in zip(("with", "without"), trees, strict=True)]
    best = [float("inf")] * 2
    for _ in range(nr_runs):
        for index, one in enumerate(contenders):
            best[index] = min(best[index], run_once(one, argv).cpu_s)
    return f"    {best[0]:.3f} s and {best[1]:.3f} s, {_percent(*best):+.1f} %"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.off_is_free", description=__doc__)
    parser.add_argument("--time", type=int, default=0, metavar="RUNS", help="also measure CPU time in so many runs")
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="pagewalk-") as name:
        trees = Path(name, "with"), Path(name, "without")
        copy_tree(trees[0], strip=False)
        nr_removed = copy_tree(trees[1], strip=True)
        print(f"bytecodes executed with tracing off, and in a tree without its {nr_removed} tests of tracepoints:")
        for row, (small, large) in ROWS.items():
            counts = [bytecodes(tree, small) for tree in trees]
            percent = _percent(*counts)
            worst = max(worst, percent)
            times = _times(trees, large, options.time) if options.time else ""
            print(f"  {row:<24} {counts[0]:>9,} {counts[1]:>9,}  {percent:+.2f} %{times}", flush=True)
    verdict = "met" if worst < LIMIT_PERCENT else "MISSED"
    print(f"the most that tracing costs when it is off: {worst:.2f} % (target < {LIMIT_PERCENT:g} %: {verdict})")
    return 0 if worst < LIMIT_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
