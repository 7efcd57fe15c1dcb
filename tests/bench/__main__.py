"""The table of ``make bench``: what is measured, what it should be, what it was.

python -m tests.bench [--runs N] [ROW...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kernel.profile import PROFILES
from tests.bench.measure import (
    COMPARE,
    NATIVE,
    PAGEWALK,
    QEMU_USER,
    RAW_BEST,
    RAW_BEST_PLUS,
    RAW_FLAT,
    RAW_TICK,
    BenchError,
    available,
    fastest,
    net_cpu_s,
    pagewalk_with,
)

COMPUTE_ROUNDS = {"sha256": 20, "sieve": 40, "copy": 40, "integer": 200, "random": 40}
"""Half a second or more for everybody but the native processor."""
NR_CALLS = 1_000_000
FAULT_PAGES, FAULT_ROUNDS = 8192, 12
NR_FORKS = 200
NR_MPROTECTS = 10_000
COMPARED = ["bench_compute", "sieve", "40"]
"""A program of about a second."""


@dataclass(frozen=True)
class Row:
    name: str
    value: str
    target: str
    met: bool | None
    """None: no target."""
    others: str
    """The same by others, in the same run."""


def compute(nr_runs: int) -> Iterator[Row]:
    """Loops without system calls: pagewalk's speed relative to Unicorn alone."""
    contenders = list(filter(available, (NATIVE, QEMU_USER, RAW_FLAT, RAW_BEST, RAW_BEST_PLUS, RAW_TICK, PAGEWALK)))
    for variant, rounds in COMPUTE_ROUNDS.items():
        times = net_cpu_s(contenders, ["bench_compute", variant, str(rounds)], ["bench_compute", variant, "1"], nr_runs)
        ours = times[PAGEWALK.name]
        per_round = ours / (rounds - 1)
        flat, best, plus, tick = (times[c.name] / ours for c in (RAW_FLAT, RAW_BEST, RAW_BEST_PLUS, RAW_TICK))
        yield Row(
            f"compute {variant}",
            f"{flat:.2f} x raw flat, {best:.2f} x raw best",
            ">= 1.00, >= 0.85",
            flat >= 1.0 and best >= 0.85,
            f"{per_round * 1000:.1f} ms a round; {plus:.2f} x raw best+, {tick:.2f} x raw tick; {_slower(times, ours)}",
        )


def _slower(times: dict[str, float], ours: float) -> str:
    parts = [f"native is {ours / times[NATIVE.name]:.0f} x as fast"]
    if QEMU_USER.name in times:
        parts.append(f"qemu-user {ours / times[QEMU_USER.name]:.1f} x")
    return ", ".join(parts)


def _rate_row(name: str, unit: str, target: int, count: int, work: list[str], nothing: list[str], nr_runs: int) -> Row:
    contenders = list(filter(available, (NATIVE, QEMU_USER, PAGEWALK)))
    times = net_cpu_s(contenders, work, nothing, nr_runs)
    rate = count / times[PAGEWALK.name]
    others = ", ".join(f"{c.name} {count / times[c.name]:,.0f}" for c in contenders if c is not PAGEWALK)
    return Row(name, f"{rate:,.0f} {unit}/s", f">= {target:,}", rate >= target, others)


def syscalls(nr_runs: int) -> Iterator[Row]:
    yield _rate_row(
        "getppid", "calls", 100_000, NR_CALLS, ["bench_getppid", str(NR_CALLS)], ["bench_getppid", "1"], nr_runs
    )


def reads(nr_runs: int) -> Iterator[Row]:
    """A call that takes data through the kernel, beside getppid, the cheapest there is."""
    contenders = list(filter(available, (NATIVE, QEMU_USER, PAGEWALK)))
    times = net_cpu_s(contenders, ["bench_read", "200000", "4096"], ["bench_read", "1", "4096"], nr_runs)
    others = ", ".join(f"{c.name} {200_000 / times[c.name]:,.0f}" for c in contenders if c is not PAGEWALK)
    yield Row("read 4 KiB of /dev/zero", f"{200_000 / times[PAGEWALK.name]:,.0f} calls/s", "", None, others)


def faults(nr_runs: int) -> Iterator[Row]:
    work = ["bench_fault", str(FAULT_PAGES), str(FAULT_ROUNDS)]
    yield _rate_row(
        "first touch", "faults", 60_000, FAULT_PAGES * FAULT_ROUNDS, work, ["bench_fault", "1", "1"], nr_runs
    )
    read_work, read_nothing = [*work, "read"], ["bench_fault", "1", "1", "read"]
    contender = [PAGEWALK]
    seconds = net_cpu_s(contender, read_work, read_nothing, nr_runs)[PAGEWALK.name]
    yield Row("zero page", f"{FAULT_PAGES * FAULT_ROUNDS / seconds:,.0f} faults/s", "", None, "")


def _seconds_row(name: str, target_s: float, work: list[str], nothing: list[str], nr_runs: int) -> Row:
    contenders = list(filter(available, (NATIVE, QEMU_USER, PAGEWALK)))
    times = net_cpu_s(contenders, work, nothing, nr_runs)
    others = ", ".join(f"{c.name} {times[c.name]:.2f} s" for c in contenders if c is not PAGEWALK)
    ours = times[PAGEWALK.name]
    return Row(name, f"{ours:.2f} s", f"<= {target_s} s", ours <= target_s, others)


def forks(nr_runs: int) -> Iterator[Row]:
    yield _seconds_row(
        f"{NR_FORKS} x fork, write 1 MiB, exit, wait", 1.5, ["bench_fork", str(NR_FORKS)], ["bench_fork", "0"], nr_runs
    )


def mprotects(nr_runs: int) -> Iterator[Row]:
    name = f"{NR_MPROTECTS:,} mprotect, split and join"
    yield _seconds_row(name, 0.4, ["bench_mprotect", str(NR_MPROTECTS)], ["bench_mprotect", "0"], nr_runs)


def hello(nr_runs: int) -> Iterator[Row]:
    contenders = list(filter(available, (NATIVE, QEMU_USER, RAW_FLAT, PAGEWALK)))
    times = fastest(contenders, ["hello"], max(nr_runs, 5))
    ours = times[PAGEWALK.name]
    others = ", ".join(f"{c.name} {times[c.name].cpu_s:.2f} s" for c in contenders if c is not PAGEWALK)
    yield Row(
        "hello, prompt to prompt",
        f"{ours.cpu_s:.2f} s CPU, {ours.wall_s:.2f} s",
        "<= 0.4 s",
        ours.cpu_s <= 0.4,
        f"CPU: {others}",
    )


def areas(nr_runs: int) -> Iterator[Row]:
    """What an operation costs among 65,000 areas, relative to among 100: the second half of many operations, when
    (nearly) every area has been written once and has its anon_vma."""
    for what, label, nr_operations in (("map", "mmap + munmap", 40_000), ("fault", "find_vma + fault", 260_000)):
        cost = {}
        for nr_areas in (100, 65_000):
            work, half = (["bench_areas", str(nr_areas), str(n), what] for n in (nr_operations, nr_operations // 2))
            cost[nr_areas] = net_cpu_s([PAGEWALK], work, half, nr_runs)[PAGEWALK.name] / (nr_operations / 2)
        ratio = cost[65_000] / cost[100]
        yield Row(
            f"{label}, 65,000 areas : 100",
            f"{ratio:.2f} x",
            "<= 2",
            ratio <= 2,
            f"{cost[100] * 1e6:.1f} us and {cost[65_000] * 1e6:.1f} us",
        )


def policies(nr_runs: int) -> Iterator[Row]:
    """What a policy adds to a first touch; P1 with 60,000 areas; all eight kernels beside each other."""
    contenders = [pagewalk_with("--kernel", name) for name in PROFILES]
    work = ["bench_fault", str(FAULT_PAGES), str(2 * FAULT_ROUNDS)]  # what is looked for is small
    times = net_cpu_s(contenders, work, ["bench_fault", "1", "1"], nr_runs)
    dearest, cheapest = max(times, key=times.__getitem__), min(times, key=times.__getitem__)
    ratio = times[dearest] / times[cheapest]
    yield Row(
        "first touch, dearest policy : cheapest",
        f"{ratio:.2f} x",
        "<= 1.15",
        ratio <= 1.15,
        f"{dearest.split()[-1]} and {cheapest.split()[-1]}",
    )
    for name in ("2.6.6-rmap39", "2.6.7"):
        contender = pagewalk_with("--kernel", name)
        seconds = [fastest([contender], ["p1", str(n)], nr_runs)[contender.name].cpu_s for n in (1, 30_000, 60_000)]
        ratio = (seconds[2] - seconds[1]) / (seconds[1] - seconds[0])
        yield Row(
            f"P1 under {name}, 2nd 30,000 : 1st",
            f"{ratio:.2f} x",
            "<= 2",
            ratio <= 2,
            f"60,000 steps in {seconds[2]:.1f} s",
        )
    one = fastest([PAGEWALK], COMPARED, nr_runs)[PAGEWALK.name].wall_s
    eight = fastest([COMPARE], COMPARED, nr_runs)[COMPARE.name].wall_s
    yield Row(
        "compare, 8 kernels",
        f"{eight:.1f} s, {eight / one:.1f} x one run",
        "<= 5 x",
        eight <= 5 * one,
        f"one run takes {one:.1f} s",
    )


ROWS: dict[str, Callable[[int], Iterator[Row]]] = {
    "compute": compute,
    "getppid": syscalls,
    "read": reads,
    "fault": faults,
    "fork": forks,
    "mprotect": mprotects,
    "hello": hello,
    "areas": areas,
    "policies": policies,
}


def print_row(row: Row, markdown: bool) -> None:
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    if markdown:
        print(f"| {row.name} | {row.value} | {row.target} | {verdict} | {row.others} |", flush=True)
    else:
        print(f"{row.name:<36}  {row.value:<34}  {row.target:<16}  {verdict:<6}  {row.others}".rstrip(), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement; the fastest counts")
    parser.add_argument("--markdown", action="store_true", help="print the table as the README has it")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which rows: {', '.join(ROWS)} (default: all)")
    options = parser.parse_args()
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        parser.error(f"no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    if not available(QEMU_USER):
        print("qemu-user is not installed: its columns are left out", file=sys.stderr)
    print(f"CPU time, the fastest of {options.runs} runs in turns, start-up taken off (but for hello).")
    if options.markdown:
        print("\n| | pagewalk | target | | others, in the same run |\n|---|---|---|---|---|")
    else:
        print_row(Row("", "pagewalk", "target", None, "others, in the same run"), False)
    try:
        for name in options.rows or ROWS:
            for row in ROWS[name](options.runs):
                print_row(row, options.markdown)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
