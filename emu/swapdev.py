"""Swap devices over host files: what ``--swap`` names.

    --swap SIZE          a temporary file, gone when the machine is closed
    --swap FILE:SIZE     FILE, made if it is not there, grown or cut to SIZE; it stays

Files are sparse: disk space is used for pages that were swapped out once.  SIZE is in bytes or with a suffix K, M, G
(powers of 1024) and includes the header page.

The file of ``FILE:SIZE`` is used as a disk is: what was in it is overwritten.  A file that is not empty and does not
look like swap space (mkswap's signature) is refused, so that a slip does not destroy data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.limits import parse_size
from kernel.mm.swap import SIGNATURE, mkswap

if TYPE_CHECKING:
    from kernel.kernel import Kernel

PAGE_SIZE = 4096
DEVICE_PATH = b"/dev/vda"
"""The name under which the guest knows the machine's swap device."""
MIN_SWAP_BYTES = 10 * PAGE_SIZE
"""What mkswap(8) demands."""
MAX_SWAP_BYTES = 64 << 30

_IOV_MAX = 1024


class FileSwapDevice:
    """A host file as a block device of ``nr_pages`` pages."""

    def __init__(self, fd: int, nr_pages: int) -> None:
        self._fd = fd
        self._nr_pages = nr_pages

    @property
    def nr_pages(self) -> int:
        return self._nr_pages

    def read_pages(self, offset: int, frames: list[memoryview]) -> None:
        self._transfer(os.preadv, offset, frames)

    def write_pages(self, offset: int, frames: list[memoryview]) -> None:
        self._transfer(os.pwritev, offset, frames)

    def _transfer(
        self, call: Callable[[int, list[memoryview], int], int], offset: int, frames: list[memoryview]
    ) -> None:
        for start in range(0, len(frames), _IOV_MAX):
            part = frames[start : start + _IOV_MAX]
            done = call(self._fd, part, (offset + start) * PAGE_SIZE)
            if done != len(part) * PAGE_SIZE:
                raise OSError(5, "short transfer")

    def close(self) -> None:
        """Give the file back; a temporary one is gone."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def parse_swap(spec: str) -> tuple[str | None, int]:
    """(file or None, bytes) of a ``--swap`` option.  Raises ValueError with a text for the user."""
    name, colon, size_text = spec.rpartition(":")
    nr_bytes = parse_size(size_text)
    if nr_bytes is None:
        raise ValueError(f"--swap {spec}: expected SIZE or FILE:SIZE, SIZE like 256M")
    if not MIN_SWAP_BYTES <= nr_bytes <= MAX_SWAP_BYTES:
        raise ValueError(f"--swap {spec}: from 40K to 64G is possible")
    if colon and not name:
        raise ValueError(f"--swap {spec}: file name missing")
    return name or None, nr_bytes


def open_swap(spec: str) -> FileSwapDevice:
    """The device of a ``--swap`` option, with a fresh header.  Raises ValueError and OSError."""
    name, nr_bytes = parse_swap(spec)
    nr_pages = nr_bytes // PAGE_SIZE
    if name is None:
        import tempfile

        with tempfile.TemporaryFile(prefix="pagewalk-swap-") as file:
            fd = os.dup(file.fileno())
    else:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _may_be_overwritten(fd):
            os.close(fd)
            raise ValueError(f"--swap {spec}: {name} holds something that is not swap space")
    os.ftruncate(fd, nr_pages * PAGE_SIZE)
    os.pwrite(fd, mkswap(nr_pages), 0)
    return FileSwapDevice(fd, nr_pages)


def _may_be_overwritten(fd: int) -> bool:
    """Empty, all zeros in its first page, or swap space already."""
    first = os.pread(fd, PAGE_SIZE, 0)
    return not any(first) or first[-len(SIGNATURE) :] == SIGNATURE


def attach_swap(kernel: Kernel, spec: str) -> FileSwapDevice:
    """Give ``kernel`` the swap device that ``spec`` names and switch it on, as swapon(8) does at boot."""
    device = open_swap(spec)
    kernel.swap.devices[DEVICE_PATH] = device
    kernel.swap.swapon_device(device, DEVICE_PATH)
    return device
