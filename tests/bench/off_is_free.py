"""What tracing costs when nobody asked for it: this tree against the same tree without its tracepoints.

python -m tests.bench.off_is_free [--runs N]

The second tree is a copy in which every test of a tracepoint (``if POINT.on:``) is a constant False, which Python
compiles to nothing.  Both copies run the same programs in turns; the smallest CPU time of each counts, because what
a busy machine adds is never negative.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench.measure import PYTHON, ROOT, Contender, run_once

LIMIT_PERCENT = 3.0
PACKAGES = ("emu", "kernel", "mmu")
ROWS: dict[str, list[str]] = {
    "1,000,000 x getppid": ["bench_getppid", "1000000"],
    "98,304 first touches": ["bench_fault", "8192", "12"],
    "200 x fork, write, exit": ["bench_fork", "200"],
    "20,000 mprotect": ["bench_mprotect", "20000"],
    "200,000 x read": ["bench_read", "200000", "4096"],
    "compute sha256": ["bench_compute", "sha256", "10"],
    "hello": ["hello"],
}


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


def contender(name: str, directory: Path) -> Contender:
    start = f"import sys; sys.path.insert(0, {str(directory)!r}); from emu.cli import main; sys.exit(main())"
    return Contender(name, (PYTHON, "-c", start, "run", "--"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.off_is_free", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="runs of each program in each tree")
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="pagewalk-") as name:
        with_points, without = Path(name, "with"), Path(name, "without")
        copy_tree(with_points, strip=False)
        nr_removed = copy_tree(without, strip=True)
        print(f"{nr_removed} tests of tracepoints taken out; the smallest CPU time of {options.runs} runs, in turns")
        contenders = [contender("with", with_points), contender("without", without)]
        for row, argv in ROWS.items():
            best = {one.name: float("inf") for one in contenders}
            for _ in range(options.runs):
                for one in contenders:
                    best[one.name] = min(best[one.name], run_once(one, argv).cpu_s)
            percent = (best["with"] / best["without"] - 1) * 100
            worst = max(worst, percent)
            print(f"{row:<26}  {best['with']:6.3f} s  {best['without']:6.3f} s without  {percent:+5.1f} %", flush=True)
    verdict = "met" if worst < LIMIT_PERCENT else "MISSED"
    print(f"the most that tracing costs when it is off: {worst:.1f} % (target < {LIMIT_PERCENT:g} %: {verdict})")
    return 0 if worst < LIMIT_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main())
