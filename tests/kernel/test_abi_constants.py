"""Every constant of kernel/abi against the C headers of this machine, and against its twin.

The hot paths use plain integers, declarations and printers use enums: both are in kernel/abi, and must agree.
"""

from __future__ import annotations

import enum
import importlib
import pkgutil
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

import kernel.abi

HEADERS = """
    asm/prctl.h errno.h fcntl.h linux/capability.h linux/close_range.h linux/elf.h linux/falloc.h linux/fcntl.h
    linux/fs.h
    linux/futex.h linux/if.h linux/inotify.h linux/limits.h linux/magic.h linux/membarrier.h linux/memfd.h
    linux/mempolicy.h linux/mman.h linux/netlink.h linux/openat2.h linux/personality.h linux/prctl.h linux/random.h
    linux/reboot.h linux/rseq.h linux/rtnetlink.h linux/sched.h linux/securebits.h linux/signalfd.h linux/stat.h
    linux/xattr.h netinet/in.h netinet/tcp.h netinet/udp.h poll.h sched.h signal.h sys/auxv.h sys/epoll.h sys/eventfd.h
    sys/inotify.h sys/ioctl.h sys/mman.h sys/mount.h sys/prctl.h sys/resource.h sys/socket.h sys/stat.h sys/statvfs.h
    sys/time.h sys/timerfd.h sys/uio.h sys/wait.h sys/xattr.h syslog.h termios.h time.h unistd.h
""".split()

DIFFERENT = {
    "FUTEX_CMD_MASK": "the header's is the complement of the flags in an int",
    "MINSIGSTKSZ": "glibc asks the auxiliary vector",
    "SIGRTMIN": "glibc keeps two signals for itself",
    "_NSIG": "glibc counts from 0",
    "NSIG": "glibc counts from 0",
    "RWF_SUPPORTED": "the header may be older than Linux 6.18",
    "NCCS": "glibc's struct termios is not the kernel's",
}
"""Constants of the C library that are not the kernel's."""
MASK64 = (1 << 64) - 1


def constants() -> dict[str, set[int]]:
    """All names in capitals of kernel/abi with all values that they have there."""
    found: dict[str, set[int]] = {}
    for info in pkgutil.iter_modules(kernel.abi.__path__, "kernel.abi."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if isinstance(value, type) and issubclass(value, enum.IntEnum | enum.IntFlag):
                for member, number in value.__members__.items():
                    found.setdefault(member, set()).add(int(number))
            elif name.isupper() and isinstance(value, int) and not isinstance(value, bool):
                found.setdefault(name, set()).add(int(value))
    return found


def from_header(header: str, names: Iterable[str], directory: Path) -> dict[str, int]:
    """The values of those ``names`` that ``header`` defines as macros which are numbers."""
    source, program = directory / "constants.c", directory / "constants"
    source.write_text(f"#define _GNU_SOURCE\n#include <{header}>\n")
    macros = subprocess.run(["gcc", "-E", "-dM", source], capture_output=True, text=True, check=True).stdout
    left = sorted(set(names) & {line.split()[1] for line in macros.splitlines()})
    for _ in range(4):
        lines = ["#define _GNU_SOURCE", f"#include <{header}>", "#include <stdio.h>", "int main(void) {"]
        first = len(lines)
        lines += [f'printf("{name} %llu\\n", (unsigned long long)(long long)({name}));' for name in left]
        source.write_text("\n".join([*lines, "}"]))
        done = subprocess.run(["gcc", "-w", "-o", program, source], capture_output=True, text=True)
        if not done.returncode:
            output = subprocess.run([program], capture_output=True, text=True, check=True).stdout
            return {name: int(value) for name, value in (line.split() for line in output.splitlines())}
        # a macro that is no expression here (it needs a type, or is a cast): leave it to another header
        bad = {int(number) - first - 1 for number in re.findall(r"constants\.c:(\d+):\d+: error", done.stderr)}
        left = [name for index, name in enumerate(left) if index not in bad]
    return {}


@pytest.fixture(scope="module")
def in_headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[int]]:
    if shutil.which("gcc") is None:
        pytest.skip("not installed: gcc")
    directory = tmp_path_factory.mktemp("constants")
    found: dict[str, set[int]] = {}
    for header in HEADERS:
        for name, value in from_header(header, constants(), directory).items():
            found.setdefault(name, set()).add(value)
    return found


def test_twins_agree() -> None:
    assert not {name: values for name, values in constants().items() if len(values) > 1}


def test_constants_are_those_of_the_headers(in_headers: dict[str, set[int]]) -> None:
    wrong = {}
    for name, theirs in in_headers.items():
        (ours,) = constants()[name]
        same_32 = {value & 0xFFFF_FFFF for value in theirs}
        if name not in DIFFERENT and ours & MASK64 not in theirs and ours & 0xFFFF_FFFF not in same_32:
            wrong[name] = hex(ours), [hex(value) for value in sorted(theirs)]
    assert not wrong
    assert len(in_headers) > 900


def test_what_is_different_is_so_for_a_reason(in_headers: dict[str, set[int]]) -> None:
    for name in DIFFERENT.keys() & in_headers.keys() - {"RWF_SUPPORTED"}:
        assert constants()[name] != in_headers[name], name
