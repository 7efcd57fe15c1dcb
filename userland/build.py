#!/usr/bin/env python3
"""Builds the guest programs of this directory into static ELF files under ``images/``.

    python userland/build.py            build what changed the images, rewrite images/manifest
    python userland/build.py --check    build into a temporary directory and compare with the manifest

The bytes depend on the sources and the compiler only: no build id, no time, no path of the checkout.  The manifest
names the compiler, so that ``--check`` can tell a stale image from a different compiler (exit 3 for the latter).
Nobody needs a compiler to *use* the images: they are shipped.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

USERLAND = Path(__file__).resolve().parent
IMAGES = USERLAND.parent / "images"
MANIFEST = IMAGES / "manifest"

COMPILE = [
    "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g1", "-ffreestanding", "-fno-stack-protector", "-fno-pic",
    "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-fno-tree-loop-distribute-patterns",
    "-mno-red-zone", "-ffunction-sections", "-fdata-sections", "-gno-record-gcc-switches", "-Wno-infinite-recursion",
]  # fmt: skip
LINK = [
    "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096",
    "-Wl,--fatal-warnings", "-Wl,--gc-sections",
]  # fmt: skip
RUNTIME = ("start.S", "mini.c", "guard.c", "areas.c", "pattern.c")
FAST = ("bench_", "mem_")
"""Programs whose speed matters are optimised; the others stay readable in a trace, line by line."""
UNWINDABLE = ("remap_",)
"""Programs that a tool shows with their callers have unwind tables; the others would only be larger."""


def programs() -> list[Path]:
    return sorted([*USERLAND.glob("*.c"), *USERLAND.glob("*.S")])


def compiler() -> str:
    gcc = subprocess.run(["gcc", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    linker = subprocess.run(["ld", "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    return f"{gcc}; {linker}"


def options_of(source: Path) -> tuple[str, ...]:
    """What a program and its runtime are compiled with beside :data:`COMPILE`."""
    optimise = "-O2" if source.name.startswith(FAST) else "-Og"
    return (optimise, "-fasynchronous-unwind-tables") if source.name.startswith(UNWINDABLE) else (optimise,)


def compile_object(source: Path, target: Path, options: tuple[str, ...]) -> None:
    root = USERLAND.parent
    command = ["gcc", *COMPILE, *options, f"-ffile-prefix-map={root}=.", "-c", str(source.relative_to(root))]
    subprocess.run([*command, "-o", str(target)], check=True, cwd=root)


def build(source: Path, target: Path, objects: Path) -> None:
    """One program: its source and, when it has a ``main``, the runtime in ``lib/``.

    ``objects`` keeps what several programs share.  An object's name has no part in the program's bytes, because every
    source names itself (``.file``).
    """
    options = options_of(source)
    inputs = [objects / f"{source.stem}.o"]
    compile_object(source, inputs[0], options)
    for name in RUNTIME if source.suffix == ".c" else ():
        shared = objects / f"lib-{name}{''.join(options)}.o"
        if not shared.exists():
            compile_object(USERLAND / "lib" / name, shared, options)
        inputs.append(shared)
    subprocess.run(["gcc", *LINK, *map(str, inputs), "-o", str(target)], check=True)
    target.chmod(0o755)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_manifest() -> tuple[str, dict[str, str]]:
    """The compiler of the manifest and the digest of every image."""
    made_by = ""
    digests: dict[str, str] = {}
    for line in MANIFEST.read_text().splitlines():
        if line.startswith("# compiler: "):
            made_by = line.removeprefix("# compiler: ")
        elif line and not line.startswith("#"):
            value, name = line.split()
            digests[name] = value
    return made_by, digests


def write_manifest(digests: dict[str, str]) -> None:
    lines = ["# sha256 of the guest programs, made by userland/build.py", f"# compiler: {compiler()}"]
    lines += [f"{value}  {name}" for name, value in sorted(digests.items())]
    MANIFEST.write_text("\n".join(lines) + "\n")


def check() -> int:
    made_by, expected = read_manifest()
    if made_by != compiler():
        print(f"images were built by {made_by}; this is {compiler()}: bytes may differ", file=sys.stderr)
        return 3
    stale = sorted(set(expected) ^ {source.stem for source in programs()})
    with tempfile.TemporaryDirectory() as directory:
        for source in programs():
            target = Path(directory) / source.stem
            build(source, target, Path(directory))
            if digest(target) != expected.get(source.stem):
                stale.append(source.stem)
    for name in stale:
        print(f"images/{name} does not match userland/: run userland/build.py", file=sys.stderr)
    return 1 if stale else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the guest programs.")
    parser.add_argument("--check", action="store_true", help="compare with images/manifest, change nothing")
    if parser.parse_args().check:
        return check()
    IMAGES.mkdir(exist_ok=True)
    digests = {}
    with tempfile.TemporaryDirectory() as directory:
        for source in programs():
            target = Path(directory) / source.stem
            build(source, target, Path(directory))
            image = IMAGES / source.stem
            if not image.exists() or digest(image) != digest(target):
                image.write_bytes(target.read_bytes())
                image.chmod(0o755)
                print(f"images/{source.stem}")
            digests[source.stem] = digest(image)
    write_manifest(digests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
