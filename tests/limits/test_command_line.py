"""--limit and --fail on the command line: what the program meets, and what is said of mistakes."""

from __future__ import annotations

import json
import re

import pytest

from kernel.abi.errno import Errno
from tests.cli.pagewalk import HELLO, pagewalk, refused
from tests.task.harness import Sim

SCRIPT = "images/vmscript"


# ---- --limit --------------------------------------------------------------------------------------------------------


def test_resource_limits_are_the_programs() -> None:
    limits = ["rlimit_as=64M", "rlimit_data=32M", "rlimit_memlock=unlimited", "rlimit_stack=1M"]
    args = [word for limit in limits for word in ("--limit", limit)]
    shown = pagewalk("run", *args, "--", "/bin/cat", "/proc/self/limits").stdout
    rows = {line[:26].strip(): line[26:].split()[:2] for line in shown.splitlines()}
    assert rows["Max address space"] == [str(64 << 20)] * 2
    assert rows["Max data size"] == [str(32 << 20)] * 2
    assert rows["Max locked memory"] == ["unlimited"] * 2
    assert rows["Max stack size"] == [str(1 << 20)] * 2
    assert rows["Max cpu time"] == ["unlimited"] * 2


def test_a_limit_is_met() -> None:
    """RLIMIT_AS, in every verb that runs a program."""
    for verb in (("run",), ("trace", "-e", "syscalls", "--syscall", "mmap,mremap")):
        done = pagewalk(*verb, "--limit", "rlimit_as=1M", "--", SCRIPT, "m:0:50:rw", "m:60:240:rw", "v:0:50:250:M")
        assert done.stdout.splitlines()[:3] == ["m:0:50:rw ok", "m:60:240:rw ENOMEM", "v:0:50:250:M ENOMEM"]
    assert "ENOMEM (Cannot allocate memory: RLIMIT_AS" in done.stderr


@pytest.mark.parametrize("kernel", ["2.6.7", "6.1", "6.18"])
@pytest.mark.parametrize("name", ["rlimit_as", "rlimit_data"])
def test_the_reason_names_the_limit(kernel: str, name: str) -> None:
    options = ["--kernel", kernel, "-e", "syscalls", "--syscall", "mremap", "--limit", f"{name}=1M"]
    done = pagewalk("trace", *options, "--", SCRIPT, "m:0:9:rw", "v:0:9:250:M")
    assert f"ENOMEM (Cannot allocate memory: {name.upper()})" in done.stderr


def test_limits_are_those_of_exec() -> None:
    assert "memory" in refused("run", "--limit", "rlimit_as=16K", "--", "/bin/cat", status=126)


def test_the_kernels_own_limits() -> None:
    names = "overcommit_memory overcommit_ratio max_map_count"
    program = ["/bin/sh", "-c", f"cd /proc/sys/vm; cat {names}; grep -e MemTotal -e SwapTotal /proc/meminfo"]
    limits = ["overcommit_memory=2", "overcommit_ratio=90", "max_map_count=77", "ram=16M", "swap=32M"]
    args = [word for limit in limits for word in ("--limit", limit)]
    lines = pagewalk("run", *args, "--ram", "1G", "--max-map-count", "99", "--", *program).stdout.split()
    assert lines[:3] == ["2", "90", "77"], "a limit is stronger than the option"
    assert int(lines[4]) <= 16 << 10
    assert int(lines[7]) == (32 << 10) - 4, "less swap's header page"
    no_swap = pagewalk("run", "--swap", "32M", "--limit", "swap=0", "--", *program).stdout.split()
    assert no_swap[7] == "0"


@pytest.mark.parametrize(
    ("limit", "call", "result", "reason"),
    [
        ("never_grow_in_place", "v:0:2:3:-", "ENOMEM", "what if: never grow in place"),
        ("no_move_after_fork", "v:0:2:2:MF:8", "ENOMEM", "what if: no move after fork"),
        ("mremap=6.1", "v:20:1:1:M", "EFAULT", "no area at the old address"),
    ],
)
def test_what_if(limit: str, call: str, result: str, reason: str) -> None:
    """The reason is in the trace."""
    script = ["m:0:2:rw", "w:0", "f{", "f}", call]
    done = pagewalk("trace", "-e", "syscalls", "--syscall", "mremap", "--limit", limit, "--", SCRIPT, *script)
    assert f"{call} {result}" in done.stdout.splitlines()
    (line,) = (line for line in done.stderr.splitlines() if "mremap(" in line)
    assert re.search(rf"= -1 {result} \(.*: {reason}\)$", line)


def test_always_move() -> None:
    script = ["m:0:2:rw", "w:0:7", "v:0:2:2:M", "r:0"]
    done = pagewalk("run", "--limit", "always_move", "--", SCRIPT, *script)
    assert done.stdout.splitlines()[3] == "r:0 sig11 code1", "the old place is gone"
    assert pagewalk("run", "--", SCRIPT, *script).stdout.splitlines()[3] == "r:0 =7"


def test_split_spanning() -> None:
    script = ["m:0:2:rw", "m:2:2:r", "w:0:7", "v:0:4:6:M", "r:0"]
    limits = ["--limit", "split_spanning=true", "--kernel", "2.6.7", "--check"]
    assert "v:0:4:6:M @0" in pagewalk("run", *limits, "--", SCRIPT, *script).stdout.splitlines()


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("", ": no such limit; there are max_map_count, rlimit_as"),
        ("rlimit_ass=1", "rlimit_ass: no such limit (did you mean rlimit_as?)"),
        ("rlimit_as", 'rlimit_as: write rlimit_as=VALUE: bytes, a size such as "64M", or "unlimited"'),
        ("rlimit_as=", "rlimit_as: bytes, a size"),
        ("rlimit_as=-1", "rlimit_as: bytes, a size"),
        ("ram=4K", 'ram: bytes or a size such as "16M", from 1M to 16G, not "4K"'),
        ("overcommit_memory=3", "overcommit_memory: 0 (guess), 1 (always) or 2 (never), not 3"),
        ("always_move=yes", 'always_move: true or false, not "yes"'),
        ("mremap=6", 'mremap: "2.6", "6.1" or "6.17", not 6'),
        ("fail=mremapp:EFAULT@3", "fail: mremapp:EFAULT@3: nothing called 'mremapp' (did you mean mremap?)"),
        ("swap=/tmp/x:1M", "swap: bytes or a size"),
    ],
)
def test_bad_limits(limit: str, words: str) -> None:
    assert f"invalid value for --limit: {words}" in refused("run", "--limit", limit, "--", HELLO)


def test_a_limit_given_twice() -> None:
    assert "ram: given twice" in refused("run", "--limit", "ram=8M", "--limit", "ram=8M", "--", HELLO)


# ---- --fail ---------------------------------------------------------------------------------------------------------


def mremaps(*fail: str) -> list[str]:
    """The results of eight mremaps that move a page to and fro, as traced; the program goes on whatever they do."""
    script = ["m:0:1:rw", "w:0:9"]
    for _ in range(4):
        script += ["v:0:1:1:MF:4", "v:4:1:1:MF:0"]
    args = [word for spec in fail for word in ("--fail", spec)]
    options = ["--kernel", "6.18", "--format", "jsonl", "-e", "syscalls", *args]
    done = pagewalk("trace", *options, "--", SCRIPT, *script)
    records = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return [
        f"{record['error']} {record['reason']}" if record.get("error") else "ok"
        for record in records
        if record.get("type") == "syscall" and record["name"] == "mremap"
    ]


def test_exactly_the_call_that_was_named_fails() -> None:
    """Call 3 fails and was not run: the page is where call 2 put it, so that call 4 finds nothing to move."""
    assert mremaps() == ["ok"] * 8
    assert mremaps("mremap:ENOMEM@3") == [
        "ok", "ok", "ENOMEM made to fail: call 3 of mremap", "EFAULT no area in the range", "ok", "ok", "ok", "ok",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("when", "failing"),
    [("7..", [7, 8]), ("5..6", [5, 6]), ("every", [1, 2, 3, 4, 5, 6, 7, 8]), ("every3", [3, 6])],
)
def test_when(when: str, failing: list[int]) -> None:
    results = mremaps(f"mremap:EAGAIN@{when}")
    assert [i for i, result in enumerate(results, 1) if result.startswith("EAGAIN made to fail")] == failing


def test_other_calls_are_not_touched() -> None:
    done = pagewalk("run", "--fail", "mremap:ENOMEM@every", "--", SCRIPT, "m:0:1:rw", "v:0:1:2:M", "p:0:1:r", "u:0:1")
    assert done.stdout.splitlines()[:4] == ["m:0:1:rw ok", "v:0:1:2:M ENOMEM", "p:0:1:r ok", "u:0:1 ok"]


def test_a_call_that_nobody_serves_can_fail_too() -> None:
    nr_userfaultfd = 323
    sim = Sim()
    sim.kernel.fail.add("userfaultfd:EPERM@1")
    sim.switch_to(sim.process())
    results = [sim.entry.on_syscall(nr_userfaultfd, 0, 0, 0, 0, 0, 0) for _ in range(2)]
    assert results == [-Errno.EPERM, -Errno.ENOSYS]
    assert sim.entry.unimplemented == {"userfaultfd": 1}


def test_a_failure_that_never_happened_is_told() -> None:
    args = ("--fail", "mremap:EFAULT@2", "--", "images/p1")
    assert pagewalk("run", *args).stderr == (
        "pagewalk: warning: --fail mremap:EFAULT@2 never happened: mremap was called once\n"
    )
    assert pagewalk("run", "-q", *args).stderr == ""


def test_failures_are_in_the_statistics() -> None:
    done = pagewalk("run", "--stats", "--fail", "mremap:EFAULT@every", "--fail", "brk:ENOMEM@90", "--", "images/p1")
    told = [line.split() for line in done.stderr.splitlines() if line.startswith("injected_failures")]
    assert told == [["injected_failures.mremap:EFAULT@every", "1"], ["injected_failures.brk:ENOMEM@90", "0"]]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("mremapp:EFAULT@3", "nothing called 'mremapp' (did you mean mremap?); there are alloc, swap-io,"),
        ("mremap:EFAUL@3", "unknown error EFAUL (did you mean EFAULT?)"),
        ("mremap:3", "which error? write mremap:ERROR@N"),
        ("mremap:EFAULT@0", "counting starts at 1"),
        ("alloc:EIO@3", "alloc can fail with ENOMEM only"),
    ],
)
def test_bad_failures(spec: str, words: str) -> None:
    assert refused("run", "--fail", spec, "--", HELLO).startswith(f"--fail {spec}: {words}")
