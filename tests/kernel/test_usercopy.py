"""Copies between kernel and user memory (lib/usercopy.c): what the hardware would allow at CPL 0 with WP set."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.mm import usercopy as uc
from kernel.mm.types import PAGE_SIZE, TASK_SIZE, VM_EXEC, VM_READ, VM_WRITE, MmStruct
from mmu.paging import PTE_A, PTE_D
from tests.kernel.fakes import RW, check_kernel, make_kernel, make_mm, map_anon

BASE = 0x1000_0000


@pytest.fixture
def mm() -> Any:
    mm = make_mm(make_kernel(profile="2.6.7"))
    yield mm
    check_kernel(mm.kernel)


def efault(call: Any, *args: Any) -> None:
    with pytest.raises(KernelError) as failure:
        call(*args)
    assert failure.value.errno == Errno.EFAULT


@pytest.mark.parametrize("nr_bytes", [0, 1, 8, 4095, 4096, 4097, 20_000])
@pytest.mark.parametrize("offset", [0, 1, 4090])
def test_round_trip_over_page_borders(mm: MmStruct, nr_bytes: int, offset: int) -> None:
    map_anon(mm, BASE, 8)
    data = bytes(i * 7 & 0xFF for i in range(nr_bytes))
    uc.copy_to_user(mm, BASE + offset, data)
    assert uc.copy_from_user(mm, BASE + offset, nr_bytes) == data
    assert uc.copy_from_user(mm, BASE, 6 * PAGE_SIZE) == (bytes(offset) + data).ljust(6 * PAGE_SIZE, b"\0")
    uc.clear_user(mm, BASE + offset, nr_bytes)
    assert uc.copy_from_user(mm, BASE, 6 * PAGE_SIZE) == bytes(6 * PAGE_SIZE)


def test_other_buffers_are_taken(mm: MmStruct) -> None:
    map_anon(mm, BASE, 3)
    uc.copy_to_user(mm, BASE, bytearray(b"array"))
    uc.copy_to_user(mm, BASE + 5, memoryview(b"view"))
    uc.copy_to_user(mm, BASE + 4090, memoryview(b"over the border"))
    assert uc.copy_from_user(mm, BASE, 9) == b"arrayview"
    assert uc.copy_from_user(mm, BASE + 4090, 15) == b"over the border"


def test_bad_addresses(mm: MmStruct) -> None:
    map_anon(mm, BASE, 1)
    map_anon(mm, BASE + 2 * PAGE_SIZE, 1, VM_READ)
    map_anon(mm, TASK_SIZE - PAGE_SIZE, 1)
    for addr in (0, BASE - 1, BASE + PAGE_SIZE, TASK_SIZE, 1 << 47, 0xFFFF_8000_0000_0000, (1 << 64) - 1, -1, -8):
        efault(uc.copy_from_user, mm, addr, 1)
        efault(uc.copy_to_user, mm, addr, b"x")
        efault(uc.get_user_u64, mm, addr)
        efault(uc.put_user_u32, mm, addr, 1)
        efault(uc.strncpy_from_user, mm, addr, 10)
        efault(uc.cmpxchg_user_u32, mm, addr, 0, 1)
    efault(uc.copy_to_user, mm, BASE + 2 * PAGE_SIZE, b"x")
    efault(uc.copy_from_user, mm, TASK_SIZE - 4, 8)
    efault(uc.get_user_u64, mm, TASK_SIZE - 4)
    assert uc.copy_from_user(mm, 0, 0) == b""
    uc.copy_to_user(mm, 0, b"")
    assert uc.access_ok(TASK_SIZE - 8, 8) and not uc.access_ok(TASK_SIZE - 8, 9) and not uc.access_ok(-1, 1)


def test_partial_copies_say_how_far_they_came(mm: MmStruct) -> None:
    map_anon(mm, BASE, 2)
    assert uc.copy_to_user_some(mm, BASE + PAGE_SIZE + 4000, b"z" * 500) == 96
    assert uc.copy_from_user_some(mm, BASE + PAGE_SIZE + 3999, 500) == b"\0" + b"z" * 96
    assert uc.copy_from_user_some(mm, 0, 10) == b"" and uc.copy_to_user_some(mm, 0, b"x") == 0
    # a copy that raises has done the good part, as in Linux
    efault(uc.copy_to_user, mm, BASE + PAGE_SIZE + 4090, b"y" * 10)
    assert uc.copy_from_user(mm, BASE + PAGE_SIZE + 4090, 6) == b"y" * 6


def test_permissions_are_those_of_the_pte(mm: MmStruct) -> None:
    map_anon(mm, BASE, 1, VM_EXEC)
    map_anon(mm, BASE + PAGE_SIZE, 1, VM_WRITE)
    map_anon(mm, BASE + 2 * PAGE_SIZE, 1, 0)
    assert uc.copy_from_user(mm, BASE, 1) == b"\0"  # NX and "no read" do not exist for x86 data accesses
    efault(uc.copy_to_user, mm, BASE, b"x")
    uc.copy_to_user(mm, BASE + PAGE_SIZE, b"x")
    assert uc.copy_from_user(mm, BASE + PAGE_SIZE, 1) == b"x"
    efault(uc.copy_from_user, mm, BASE + 2 * PAGE_SIZE, 1)


def test_accessed_and_dirty_are_set_as_by_the_hardware(mm: MmStruct) -> None:
    map_anon(mm, BASE, 1)
    uc.copy_to_user(mm, BASE, b"x")
    index = mm.pt.pte_index(BASE)
    q = mm.pt.q
    clean = q[index] & ~(PTE_A | PTE_D)
    q[index] = clean
    uc.copy_from_user(mm, BASE, 8)
    assert q[index] == clean | PTE_A
    q[index] = clean
    assert uc.get_user_u64(mm, BASE) == ord("x")
    assert q[index] == clean | PTE_A
    uc.copy_to_user(mm, BASE, b"y")
    assert q[index] == clean | PTE_A | PTE_D


def test_numbers(mm: MmStruct) -> None:
    map_anon(mm, BASE, 2)
    uc.put_user_u64(mm, BASE, 0x1122_3344_5566_7788)
    assert uc.copy_from_user(mm, BASE, 8) == bytes.fromhex("8877665544332211")
    assert uc.get_user_u64(mm, BASE) == 0x1122_3344_5566_7788
    assert uc.get_user_u32(mm, BASE + 4) == 0x1122_3344
    assert uc.get_user_u16(mm, BASE) == 0x7788 and uc.get_user_u8(mm, BASE) == 0x88
    uc.put_user_u64(mm, BASE, -2)
    assert uc.get_user_u64(mm, BASE) == (1 << 64) - 2 and uc.get_user_i64(mm, BASE) == -2
    uc.put_user_u32(mm, BASE, -3)
    assert uc.get_user_i32(mm, BASE) == -3 and uc.get_user_u32(mm, BASE) == (1 << 32) - 3
    assert uc.get_user_u32(mm, BASE + 4) == 0xFFFF_FFFF
    uc.put_user_u16(mm, BASE, -1)
    uc.put_user_u8(mm, BASE, 0x1FF)
    assert uc.get_user_u32(mm, BASE) == 0xFFFF_FFFF
    # unaligned, over the border
    uc.put_user_u64(mm, BASE + PAGE_SIZE - 3, 0x0102_0304_0506_0708)
    assert uc.get_user_u64(mm, BASE + PAGE_SIZE - 3) == 0x0102_0304_0506_0708


def test_strings(mm: MmStruct) -> None:
    map_anon(mm, BASE, 2)
    uc.copy_to_user(mm, BASE + 4090, b"hello, world\0rest")
    assert uc.strncpy_from_user(mm, BASE + 4090, 100) == b"hello, world"
    assert uc.strncpy_from_user(mm, BASE + 4090, 12) == b"hello, world"  # no NUL in 12 bytes: all of them
    assert uc.strncpy_from_user(mm, BASE + 4090, 5) == b"hello"
    assert uc.strncpy_from_user(mm, BASE, 100) == b""
    assert uc.strnlen_user(mm, BASE + 4090, 100) == 12
    uc.copy_to_user(mm, BASE + 2 * PAGE_SIZE - 4, b"tail")
    efault(uc.strncpy_from_user, mm, BASE + 2 * PAGE_SIZE - 4, 100)
    assert uc.strncpy_from_user(mm, BASE + 2 * PAGE_SIZE - 4, 4) == b"tail"


def test_pointer_arrays(mm: MmStruct) -> None:
    map_anon(mm, BASE, 1)
    for i, pointer in enumerate((0x1000, 0x2000, 0)):
        uc.put_user_u64(mm, BASE + 8 * i, pointer)
    assert uc.get_user_pointers(mm, BASE, 10) == [0x1000, 0x2000]
    assert uc.get_user_pointers(mm, BASE, 2) == [0x1000, 0x2000]
    with pytest.raises(KernelError) as failure:
        uc.get_user_pointers(mm, BASE, 1)
    assert failure.value.errno == Errno.E2BIG


def test_compare_and_exchange(mm: MmStruct) -> None:
    map_anon(mm, BASE, 1)
    uc.put_user_u32(mm, BASE, 5)
    assert uc.cmpxchg_user_u32(mm, BASE, 4, 9) == 5 and uc.get_user_u32(mm, BASE) == 5
    assert uc.cmpxchg_user_u32(mm, BASE, 5, -1) == 5 and uc.get_user_u32(mm, BASE) == 0xFFFF_FFFF


def test_a_copy_into_a_stack_grows_it(mm: MmStruct) -> None:
    stack = map_anon(mm, BASE, 1, RW | 0x100)
    uc.copy_to_user(mm, BASE - 3 * PAGE_SIZE, b"x")
    assert stack.vm_start == BASE - 3 * PAGE_SIZE
