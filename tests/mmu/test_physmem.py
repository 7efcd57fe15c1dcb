from __future__ import annotations

import pytest

from mmu.physmem import PhysMem


def test_memory_starts_as_zeros_and_views_share_it() -> None:
    ram = PhysMem(16)
    assert ram.size == 16 * 4096
    assert not any(ram.mem)
    ram.q[3 * 512 + 7] = 0x1122334455667788
    assert ram.words[3, 7] == 0x1122334455667788
    assert ram.read(3 * 4096 + 56, 2) == b"\x88\x77"
    ram.frame(3)[56] = 0
    assert ram.q[3 * 512 + 7] == 0x1122334455667700
    assert ram.words.__array_interface__["data"][0] == ram.address


def test_zero_and_copy_of_a_frame_touch_no_neighbour() -> None:
    ram = PhysMem(8)
    ram.mem[:] = b"\xaa" * ram.size
    ram.zero_frame(2)
    assert ram.read(2 * 4096, 4096) == bytes(4096)
    assert ram.mem[2 * 4096 - 1] == ram.mem[3 * 4096] == 0xAA
    ram.copy_frame(2, 5)
    assert ram.read(2 * 4096, 4096) == b"\xaa" * 4096


@pytest.mark.parametrize(("paddr", "nr_bytes"), [(-1, 1), (8 * 4096, 1), (8 * 4096 - 1, 2), (0, -1)])
def test_what_is_not_ram_is_refused(paddr: int, nr_bytes: int) -> None:
    ram = PhysMem(8)
    with pytest.raises(ValueError):
        ram.read(paddr, nr_bytes)
    if nr_bytes > 0:
        with pytest.raises(ValueError):
            ram.write(paddr, bytes(nr_bytes))


def test_no_ram_is_refused() -> None:
    with pytest.raises(ValueError):
        PhysMem(0)
