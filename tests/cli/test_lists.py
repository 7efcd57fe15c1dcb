"""``pagewalk kernels`` and ``pagewalk syscalls``: what exists, for people and for programs."""

from __future__ import annotations

import json

from kernel.profile import DEFAULT_KERNEL, PROFILES
from tests.cli.pagewalk import pagewalk


def test_kernels() -> None:
    text = pagewalk("kernels").stdout
    for name in PROFILES:
        assert f"\n{name} " in text
    assert f"{DEFAULT_KERNEL} (default)" in text


def test_kernels_json() -> None:
    listed = json.loads(pagewalk("kernels", "--json").stdout)
    assert listed["schema"] == 1
    assert listed["default"] == DEFAULT_KERNEL
    assert [kernel["name"] for kernel in listed["kernels"]] == list(PROFILES)
    assert {"rmap", "merge", "mremap", "mlock", "provenance"} <= listed["kernels"][0].keys()
    assert "mprotect-grower" in listed["bugs"]


def test_system_calls() -> None:
    done = pagewalk("syscalls", "mremap", "%memory")
    assert done.returncode == 0
    assert "mremap(old_address, old_size, new_size, flags, new_address)" in done.stdout
    assert "mremap: flags" in done.stdout and "MREMAP_DONTUNMAP" in done.stdout


def test_system_calls_json() -> None:
    listed = json.loads(pagewalk("syscalls", "--json").stdout)["syscalls"]
    assert len(listed) > 200
    mmap = next(call for call in listed if call["name"] == "mmap")
    assert mmap["x86_64"] == 9 and mmap["returns"] == "addr"
    assert mmap["args"][2]["values"]["PROT_READ"] == 1
    for call in listed:
        assert call["support"] == "full" or call["note"], f"{call['name']} does not say what is missing"
        assert call["summary"]
