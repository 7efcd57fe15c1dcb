"""Profiles: what exists, what may be overridden, what is refused."""

from __future__ import annotations

import pytest

from kernel.profile import (
    BUG_NOTES,
    DEFAULT_KERNEL,
    PROFILES,
    RMAP_NOTES,
    Bug,
    MremapRules,
    make_policy,
    resolve_profile,
)
from tests.kernel.fakes import make_kernel

KERNELS = ["2.6.6", "2.6.6-anonmm", "2.6.6-rmap39", "2.6.5-aa", "2.6.7", "one-anon-vma", "6.1", "6.18"]


def test_the_eight_kernels() -> None:
    assert list(PROFILES) == KERNELS
    assert DEFAULT_KERNEL == "2.6.7" == resolve_profile().name
    for profile in PROFILES.values():
        assert profile.description and profile.provenance
        assert profile.rmap in RMAP_NOTES
    assert set(BUG_NOTES) == set(Bug)


@pytest.mark.parametrize("rmap", RMAP_NOTES)
@pytest.mark.parametrize("kernel_name", KERNELS)
def test_any_policy_on_any_kernel(kernel_name: str, rmap: str) -> None:
    kernel = make_kernel(64, kernel_name, rmap=rmap)
    assert make_policy(kernel, kernel.profile).name == kernel.policy.name
    expected = kernel_name if PROFILES[kernel_name].rmap == rmap else f"{kernel_name} --rmap {rmap}"
    assert kernel.profile.name == expected


def test_overrides() -> None:
    profile = resolve_profile("2.6.7", mremap="6.17", bugs=["mprotect-grower"])
    assert profile.mremap is MremapRules.LINUX_6_17
    assert profile.has(Bug.MPROTECT_GROWER) and not profile.has(Bug.MREMAP_TWIN)
    assert profile.name == "2.6.7 --mremap 6.17"
    assert profile.title == "2.6.7 --mremap 6.17 --bug mprotect-grower"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kernel": "2.6.8"}, "2.6.5-aa"),
        ({"rmap": "prio_tree"}, "pte_chain"),
        ({"mremap": "5.0"}, "6.17"),
        ({"bugs": ["nonesuch"]}, "mremap-twin"),
        ({"kernel": "2.6.6", "bugs": ["mprotect-grower"]}, "anon_vma list"),
        ({"kernel": "6.18", "bugs": ["account-reversed"]}, "2.6.6"),
        ({"kernel": "2.6.7", "bugs": ["chain-reuse"]}, "anon_vma_chain"),
        ({"kernel": "6.1", "bugs": ["mremap-twin"]}, "anon_vma"),
    ],
)
def test_errors_say_what_exists(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        resolve_profile(**arguments)  # type: ignore[arg-type]
