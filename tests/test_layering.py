"""The layers of DESIGN: who may import whom, and who alone may import which library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("emu", "kernel", "mmu")
MAY_IMPORT = {"emu": {"emu", "kernel", "mmu"}, "kernel": {"kernel", "mmu"}, "mmu": {"mmu"}}
ONLY_IN = {
    "unicorn": ("emu/cpu/",),
    "capstone": ("emu/disasm.py",),
    "elftools": ("emu/symbols.py",),
    "cxxfilt": ("emu/symbols.py",),
    "rich": ("emu/",),
    "click": ("emu/cli/",),
    "plotly": ("emu/report/html.py",),
}
"""Libraries, and where alone they may be imported."""
NEVER = ("tests", "userland", "images")


def modules(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, full module name) of every import, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("layer", OURS)
def test_layers(layer: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(layer)
        for line, name in imports_of(path)
        if (top := name.split(".")[0]) in NEVER or (top in OURS and top not in MAY_IMPORT[layer])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", ONLY_IN)
def test_libraries_have_one_door(library: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for layer in OURS
        for path in modules(layer)
        for line, name in imports_of(path)
        if name.split(".")[0] == library and not str(path.relative_to(ROOT)).startswith(ONLY_IN[library])
    ]
    assert not wrong, "\n".join(wrong)


def test_every_package_is_typed_and_documented() -> None:
    for layer in OURS:
        assert (ROOT / layer / "py.typed").exists()
        for path in modules(layer):
            text = path.read_text(encoding="utf-8")
            assert not text or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_running_a_program_loads_no_slow_library() -> None:
    """`pagewalk run` starts in less than the blink of an eye only if tables, disassembler and ELF readers stay out."""
    code = "import sys, emu.cli.run, emu.cli.app, emu.machine; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    tops = {name.split(".")[0] for name in loaded.stdout.split()}
    assert not tops & {"rich", "capstone", "elftools", "cxxfilt", "plotly", "hypothesis", "pytest"}
