"""A named kernel: which rmap policy, merge rules, mremap rules and limits are in force.

Models what RMAP.md found in eight kernels from 2004 to 2025.  A profile changes memory-management rules only; system
calls and their errors are today's, but for ``mremap``, whose rules are themselves what programs trip over.

Deliberate differences: every profile lays the address space out top-down with today's gaps (2.6.6 and 2.6.7 searched
upwards from a third of the address space), so that the same program has the same addresses on every kernel and a
comparison shows rules, not layout; ``one-anon-vma`` never existed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.mm.rmap.policy import RmapPolicy


class MergeRules(Enum):
    """Which calls join areas, and what must be equal."""

    LINUX_2_6 = "2.6"
    """mmap, brk, mprotect and mremap moves join; all flags count (RMAP.md section 1)."""
    LINUX_6 = "6"
    """mlock, madvise and in-place growth join too; MAP_NORESERVE is a flag of the area (section 8)."""


class MprotectRules(Enum):
    """How mprotect joins."""

    PREV_ANONYMOUS = "2.6.6"
    """With the area before, from the area's start; once with the area after; anonymous private areas only."""
    PREV = "2.6.5-aa"
    """The same, files too."""
    ALL = "2.6.7"
    """All eight cases of vma_merge (since rmap 36)."""
    LINUX_6 = "6"
    """All cases; accounting is given up when an unfaulted area becomes read-only (6.18 only: ``uncommit``)."""


class MremapRules(Enum):
    """What mremap accepts, in which order it checks, what it has destroyed when it fails (RMAP.md section 9)."""

    LINUX_2_6 = "2.6"
    LINUX_6_1 = "6.1"
    LINUX_6_17 = "6.17"


class MlockRules(Enum):
    LINUX_2_6 = "2.6"
    """Area by area: set the flag, split, fault the pages in, go on; never joins."""
    LINUX_6 = "6"
    """Flags first, with joining; then fault everything in."""


class Layout(Enum):
    """Where mmap looks for room."""

    TOP_DOWN = "top-down"
    BOTTOM_UP = "bottom-up"


class Bug(Enum):
    """Defects of released kernels that can be switched on (RMAP.md section 12)."""

    MPROTECT_GROWER = "mprotect-grower"
    ACCOUNT_REVERSED = "account-reversed"
    MREMAP_TWIN = "mremap-twin"
    CHAIN_REUSE = "chain-reuse"


BUG_NOTES = {
    Bug.MPROTECT_GROWER: "mprotect moves a boundary into an area without anon_vma and does not give it one "
    "(2.6.7 as released, 2.6.5-aa; fixed 18 Jun 2004)",
    Bug.ACCOUNT_REVERSED: "mprotect never sets VM_ACCOUNT: the VM_MAYACCT test was reversed (26 Mar 2004 to 2.6.6)",
    Bug.MREMAP_TWIN: "mremap into an unfaulted neighbour does not hand the anon_vma on "
    "(2.6.7 to 2.6.9; again 6.16 to Jan 2026)",
    Bug.CHAIN_REUSE: "a forked area may reuse an ancestor's anon_vma that still has areas elsewhere "
    "(3.19 to 5.19: degree counted children and areas together)",
}

RMAP_NOTES = {
    "pte_chain": "pte_chains: every mapped page lists its page-table entries (to 2.6.6)",
    "anonmm": "one object for each address space; a page has one address in all of an exec family (rmap 10-37)",
    "anon_vma": "one list of areas for each first-written area, never shared (rmap 39)",
    "anon_vma-merge": "anon_vma, shared when mmap finds a neighbour that differs in flags only (2.6.5-aa)",
    "anon_vma-share": "anon_vma, shared at the first write with a neighbour that differs in protection only (rmap 40)",
    "anon_vma-all": "one anon_vma for the whole address space",
    "anon_vma_chain": "anon_vma_chain, merge rule of 3.0 to 6.15",
    "anon_vma_chain-6.16": "anon_vma_chain, merge rule of 6.16 and later",
}


@dataclass(frozen=True)
class Profile:
    """One kernel's rules."""

    name: str
    description: str
    provenance: str
    rmap: str
    merge: MergeRules
    mprotect: MprotectRules
    mremap: MremapRules
    mlock: MlockRules
    layout: Layout = Layout.TOP_DOWN
    uncommit: bool = False
    """An unfaulted private area gives its commit charge back when mprotect makes it unwritable (6.6 and later)."""
    stack_is_nohugepage: bool = False
    """MAP_STACK sets a flag of the area, which keeps it apart from others (6.7 and later)."""
    bugs: frozenset[Bug] = frozenset()

    def has(self, bug: Bug) -> bool:
        return bug in self.bugs

    @property
    def title(self) -> str:
        """The name with its overrides, for reports."""
        return " ".join([self.name, *(f"--bug {bug.value}" for bug in sorted(self.bugs, key=lambda b: b.value))])


def _old(
    name: str, description: str, provenance: str, rmap: str, mprotect: MprotectRules = MprotectRules.ALL
) -> Profile:
    return Profile(
        name, description, provenance, rmap, MergeRules.LINUX_2_6, mprotect, MremapRules.LINUX_2_6, MlockRules.LINUX_2_6
    )


def _new(name: str, description: str, provenance: str, rmap: str, mremap: MremapRules, since_6_16: bool) -> Profile:
    return Profile(
        name, description, provenance, rmap, MergeRules.LINUX_6, MprotectRules.LINUX_6, mremap, MlockRules.LINUX_6,
        uncommit=since_6_16, stack_is_nohugepage=since_6_16,
    )  # fmt: skip


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        _old(
            "2.6.6",
            "pte_chains; mprotect joins anonymous areas with the one before only",
            "Linux 2.6.6 (10 May 2004) with the VM_ACCOUNT fix of May 2004",
            "pte_chain",
            MprotectRules.PREV_ANONYMOUS,
        ),
        _old(
            "2.6.6-anonmm",
            "anonmm: anonymous areas join whatever their history; mremap copies shared pages",
            "Hugh Dickins' rmap 36/37 (18 May 2004) on 2.6.6-mm3",
            "anonmm",
        ),
        _old(
            "2.6.6-rmap39",
            "anon_vma without sharing: areas first written apart never join again",
            "Hugh Dickins' rmap 39 (18 May 2004) with the fix of 18 June 2004",
            "anon_vma",
        ),
        _old(
            "2.6.5-aa",
            "anon_vma shared when mmap finds a neighbour that differs in flags only",
            "Andrea Arcangeli's mprotect-vma-merging (3 Apr 2004) with the fix of 18 June 2004; reconstructed",
            "anon_vma-merge",
            MprotectRules.PREV,
        ),
        _old(
            "2.6.7",
            "rmap 40: the first write takes over the anon_vma of a neighbour that differs in protection only",
            "Hugh Dickins' rmap 40 (18 May 2004) as in 2.6.7 to 2.6.9, with the fixes of June 2004",
            "anon_vma-share",
        ),
        _old(
            "one-anon-vma",
            "the extreme: one anon_vma for a whole address space and its forks",
            "never merged anywhere; named as the limit in the mail of 18 May 2004",
            "anon_vma-all",
        ),
        _new(
            "6.1",
            "anon_vma_chain; a faulted area does not join an unfaulted neighbour; spanning mremap destroys its target",
            "Linux 6.1 LTS; merge rule of 3.0 to 6.15",
            "anon_vma_chain",
            MremapRules.LINUX_6_1,
            since_6_16=False,
        ),
        _new(
            "6.18",
            "anon_vma_chain; the accident of 3.0 undone; mremap moves a range of many areas",
            "Linux 6.18 LTS; merge rule of 6.16, mremap of 6.17, with the fix of Jan 2026",
            "anon_vma_chain-6.16",
            MremapRules.LINUX_6_17,
            since_6_16=True,
        ),
    )
}

DEFAULT_KERNEL = "2.6.7"

_BUG_NEEDS: dict[Bug, tuple[str, frozenset[str]]] = {
    Bug.MPROTECT_GROWER: ("an anon_vma list", frozenset({"anon_vma", "anon_vma-merge", "anon_vma-share"})),
    Bug.MREMAP_TWIN: (
        "an anon_vma list or anon_vma_chain-6.16",
        frozenset({"anon_vma", "anon_vma-merge", "anon_vma-share", "anon_vma_chain-6.16"}),
    ),
    Bug.CHAIN_REUSE: ("anon_vma_chain", frozenset({"anon_vma_chain", "anon_vma_chain-6.16"})),
}


def resolve_profile(
    kernel: str = DEFAULT_KERNEL,
    rmap: str | None = None,
    mremap: str | None = None,
    bugs: Iterable[str] = (),
) -> Profile:
    """The profile ``kernel`` with single parts replaced.  ValueError says what exists and what contradicts what."""
    profile = PROFILES.get(kernel)
    if profile is None:
        raise ValueError(f"no kernel {kernel!r}; there are: {', '.join(PROFILES)}")
    name = profile.name
    if rmap is not None:
        if rmap not in RMAP_NOTES:
            raise ValueError(f"no rmap policy {rmap!r}; there are: {', '.join(RMAP_NOTES)}")
        if rmap != profile.rmap:
            name += f" --rmap {rmap}"
        profile = replace(profile, rmap=rmap)
    if mremap is not None:
        by_value = {rules.value: rules for rules in MremapRules}
        if mremap not in by_value:
            raise ValueError(f"no mremap rules {mremap!r}; there are: {', '.join(by_value)}")
        if by_value[mremap] is not profile.mremap:
            name += f" --mremap {mremap}"
        profile = replace(profile, mremap=by_value[mremap])
    chosen = frozenset(_bug(bug, profile) for bug in bugs)
    return replace(profile, name=name, bugs=chosen)


def _bug(name: str, profile: Profile) -> Bug:
    by_value = {bug.value: bug for bug in Bug}
    bug = by_value.get(name)
    if bug is None:
        raise ValueError(f"no bug {name!r}; there are: {', '.join(by_value)}")
    needs = _BUG_NEEDS.get(bug)
    if needs is not None and profile.rmap not in needs[1]:
        raise ValueError(f"bug {name} needs {needs[0]}, but {profile.name} has {profile.rmap}")
    if bug is Bug.ACCOUNT_REVERSED and profile.merge is not MergeRules.LINUX_2_6:
        raise ValueError(f"bug {name} is one of 2.6.6's mprotect, but {profile.name} has the rules of Linux 6")
    return bug


def make_policy(kernel: Kernel, profile: Profile) -> RmapPolicy:
    """The rmap policy object of ``profile`` for ``kernel``."""
    from kernel.mm.rmap.anon_vma import AnonVmaPolicy, Sharing

    sharing = {
        "anon_vma": Sharing.NONE,
        "anon_vma-merge": Sharing.AT_MERGE,
        "anon_vma-share": Sharing.AT_FIRST_WRITE,
        "anon_vma-all": Sharing.ALL,
    }.get(profile.rmap)
    if sharing is not None:
        return AnonVmaPolicy(
            kernel,
            sharing,
            grower_forgets=profile.has(Bug.MPROTECT_GROWER),
            mover_forgets=profile.has(Bug.MREMAP_TWIN),
        )
    if profile.rmap == "pte_chain":
        from kernel.mm.rmap.pte_chain import PteChainPolicy

        return PteChainPolicy(kernel)
    if profile.rmap == "anonmm":
        from kernel.mm.rmap.anonmm import AnonmmPolicy

        return AnonmmPolicy(kernel)
    from kernel.mm.rmap.anon_vma_chain import AnonVmaChainPolicy, ChainMergeRule

    return AnonVmaChainPolicy(
        kernel,
        ChainMergeRule.LINUX_6_16 if profile.rmap == "anon_vma_chain-6.16" else ChainMergeRule.LINUX_3_0,
        mover_forgets=profile.has(Bug.MREMAP_TWIN),
        reuse_by_degree=profile.has(Bug.CHAIN_REUSE),
    )
