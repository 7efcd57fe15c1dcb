"""Random programs under memory pressure, under every kernel, with the oracle after every operation."""

from __future__ import annotations

import random

import pytest

from tests.kernel.reclaim_model import World
from tests.kernel.swapfakes import PROFILES, make_swap_kernel

SHAPES = [(256, 1024), (128, 2048), (80, 12), (64, 400)]
"""(pages of RAM, pages of swap): roomy, thrashing, swap full, tiny."""


def run_world(seed: int, profile: str, ram_pages: int, swap_pages: int, nr_steps: int) -> World:
    world = World(make_swap_kernel(ram_pages, swap_pages, profile), seed)
    world.run(nr_steps)
    world.finish()
    return world


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_nothing_is_lost(profile: str, shape: int) -> None:
    run_world(100 + shape, profile, *SHAPES[shape], nr_steps=70)


@pytest.mark.proof
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_lost_for_long(profile: str, seed: int) -> None:
    run_world(seed, profile, *SHAPES[seed % len(SHAPES)], nr_steps=600)


def _specs(seed: int) -> list[str]:
    rng = random.Random(seed)
    times = (f"{rng.randint(1, 80)}", f"{rng.randint(1, 80)}..{rng.randint(81, 99)}", f"every{rng.randint(3, 40)}")
    return [f"{point}:{rng.choice(times)}" for point in ("alloc", "swap-read", "swap-write")]


def run_failing_world(seed: int, profile: str, spec: str, nr_steps: int) -> int:
    """Failures in the middle, then a look at everything without them; how many were made."""
    kernel = make_swap_kernel(128, 1024, profile, fail=(spec,))
    world = World(kernel, seed)
    world.io_errors_allowed = True
    world.run(nr_steps)
    kernel.fail.clear()
    world.io_errors_allowed = False
    world.verify_all()
    world.finish()
    return len(kernel.fail.injected)


@pytest.mark.parametrize("profile", PROFILES)
def test_failures_never_give_wrong_data(profile: str) -> None:
    seed = PROFILES.index(profile)
    for spec in ("alloc:every29", "swap-read:every5", "swap-write:2..40"):
        assert run_failing_world(seed, profile, spec, 60)


SHORT_PROGRAM = (
    "map_anon map_anon map_file map_file map_anon write write write write fork write write reclaim read write move "
    "pageout read write file_write fork write write reclaim read read truncate write free reclaim swapoff read write"
).split()


def _short_world(profile: str, spec: str) -> World:
    """The same operations every time, then a look at everything; the oracle only at the end."""
    kernel = make_swap_kernel(96, 300, profile, fail=(spec,))
    world = World(kernel, 5, oracle=False)
    world.io_errors_allowed = True
    for name in SHORT_PROGRAM:
        world.step(name)
    counts = dict(kernel.fail.counts)
    kernel.fail.clear()
    world.io_errors_allowed = False
    world.verify_all()
    world.oracle = True
    world.check("everything")
    world.finish()
    kernel.fail.counts = counts
    return world


@pytest.mark.parametrize("point", ["alloc", "swap-read", "swap-write"])
def test_failure_at_each_point_in_turn(point: str) -> None:
    nr_points = _short_world("2.6.7", f"{point}:1000000").kernel.fail.counts[point]
    assert nr_points > 60
    # The first allocation is the root of the first address space: without it there is no program.
    for i, number in enumerate(range(2, nr_points + 1, 1 + nr_points // 100)):
        world = _short_world(PROFILES[i % len(PROFILES)], f"{point}:{number}")
        assert len(world.kernel.fail.injected) <= 1


@pytest.mark.proof
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("point", ["alloc", "swap-read", "swap-write"])
def test_failure_at_each_point_in_turn_under_every_kernel(point: str, profile: str) -> None:
    nr_points = _short_world(profile, f"{point}:1000000").kernel.fail.counts[point]
    for number in range(2, nr_points + 1):
        _short_world(profile, f"{point}:{number}")


@pytest.mark.proof
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(100, 150))
def test_failures_never_give_wrong_data_for_long(profile: str, seed: int) -> None:
    for spec in _specs(seed):
        run_failing_world(seed, profile, spec, 300)
