"""--swap: swap devices over host files, and swapon(2), swapoff(2) on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from emu.swapdev import DEVICE_PATH, FileSwapDevice, attach_swap, open_swap, parse_swap
from kernel.abi.errno import Errno, KernelError
from kernel.mm.swap import mkswap, read_swap_header
from kernel.mm.swapon import FileBackedDevice
from kernel.mm.types import PAGE_SIZE
from tests.kernel.fakes import FakeFile, FakeInode, make_mm, map_anon
from tests.kernel.swapfakes import fill, make_swap_kernel, verify


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("64M", (None, 64 << 20)),
        ("1g", (None, 1 << 30)),
        ("81920", (None, 81920)),
        ("/tmp/swap:512K", ("/tmp/swap", 512 << 10)),
        ("a:b:40K", ("a:b", 40 << 10)),
    ],
)
def test_specs(spec: str, parsed: tuple[str | None, int]) -> None:
    assert parse_swap(spec) == parsed


@pytest.mark.parametrize("spec", ["", "M", "1T", "12K", ":64M", "file:", "file", "-5M", "65G"])
def test_bad_specs_are_explained(spec: str) -> None:
    with pytest.raises(ValueError, match="--swap"):
        parse_swap(spec)


def test_a_named_file_is_made_sparse_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    device = open_swap(f"{path}:16M")
    assert device.nr_pages == 4096
    status = path.stat()
    assert status.st_size == 16 << 20
    assert status.st_blocks * 512 < 1 << 20
    assert status.st_mode & 0o777 == 0o600
    with path.open("rb") as file:
        assert read_swap_header(file.read(PAGE_SIZE), 4096) == 4096
    device.close()
    assert path.exists()
    again = open_swap(f"{path}:8M")
    assert path.stat().st_size == 8 << 20
    again.close()


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    path.write_text("dear diary")
    with pytest.raises(ValueError, match="not swap space"):
        open_swap(f"{path}:16M")
    assert path.read_text() == "dear diary"


def test_a_temporary_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    device = open_swap("1M")
    assert list(tmp_path.iterdir()) == []
    frame = memoryview(bytearray(b"x" * PAGE_SIZE))
    device.write_pages(5, [frame])
    back = memoryview(bytearray(PAGE_SIZE))
    device.read_pages(5, [back])
    assert back == frame
    device.close()
    device.close()


def test_many_pages_in_one_call(tmp_path: Path) -> None:
    device = open_swap(f"{tmp_path / 'swap'}:16M")
    pages = [memoryview(bytearray(i.to_bytes(4, "little") * 1024)) for i in range(1500)]
    device.write_pages(7, pages)
    back = [memoryview(bytearray(PAGE_SIZE)) for _ in range(1500)]
    device.read_pages(7, back)
    assert back == pages
    device.close()


def test_a_short_transfer_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    device = open_swap(f"{path}:1M")
    os.truncate(path, 64 << 10)
    with pytest.raises(OSError):
        device.read_pages(100, [memoryview(bytearray(PAGE_SIZE))])
    device.close()


def test_a_machine_swaps_to_it(tmp_path: Path) -> None:
    kernel = make_swap_kernel(256, 0)
    device = attach_swap(kernel, f"{tmp_path / 'swap'}:8M")
    assert kernel.swap.devices[DEVICE_PATH] is device
    assert isinstance(device, FileSwapDevice)
    assert kernel.log_lines == ["Adding 8188k swap on /dev/vda.  Priority:-2 extents:1 across:8188k"]
    mm = make_mm(kernel)
    map_anon(mm, 0x1000_0000, 600)
    fill(mm, 0x1000_0000, 600)
    verify(mm, 0x1000_0000, 600)
    assert kernel.vmstat.pswpout > 300
    device.close()


def test_a_guest_file_as_device() -> None:
    kernel = make_swap_kernel(256, 0)
    inode = FakeInode(kernel, mkswap(1000).ljust(1000 * PAGE_SIZE, b"\0"))
    device: Any = FileBackedDevice(FakeFile(inode))  # type: ignore[arg-type]
    area = kernel.swap.swapon_device(device, b"/swapfile")
    assert area.pages == 999
    mm = make_mm(kernel)
    map_anon(mm, 0x1000_0000, 600)
    fill(mm, 0x1000_0000, 600)
    verify(mm, 0x1000_0000, 600)
    assert inode.writes
    assert inode.i_mapping.pages == {}, "the page cache of a swap file is not used"


def test_a_device_without_header_is_refused() -> None:
    kernel = make_swap_kernel(256, 0)
    inode = FakeInode(kernel, bytes(100 * PAGE_SIZE))
    with pytest.raises(KernelError) as failure:
        kernel.swap.swapon_device(FileBackedDevice(FakeFile(inode)), b"/file")  # type: ignore[arg-type]
    assert failure.value.errno == Errno.EINVAL
    assert kernel.swap.active_areas() == []
