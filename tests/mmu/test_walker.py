"""The walk, rule by rule, from the Intel SDM volume 3, chapter 5."""

from __future__ import annotations

import pytest

from mmu.paging import (
    PF_INSTR,
    PF_PROT,
    PF_RSVD,
    PF_USER,
    PF_WRITE,
    PTE_A,
    PTE_D,
    PTE_NX,
    PTE_P,
    PTE_PS,
    PTE_U,
    PTE_W,
    FourLevel,
    describe_error_code,
)
from mmu.physmem import PhysMem
from mmu.walker import EXECUTE, PERM_R, PERM_U, PERM_W, PERM_X, READ, WRITE, PageFault, walk

VADDR = 0x0000_1234_5678_9ABC
ALL = PTE_P | PTE_W | PTE_U
CR3 = 1 << 12


class Tables:
    """Four tables in frames 1 to 4 and a page in frame 9; ``entry[level]`` is the word index of each entry."""

    def __init__(self, flags: dict[int, int] | None = None) -> None:
        self.ram = PhysMem(1024)
        self.entry = {level: (5 - level) * 512 + FourLevel.index(VADDR, level) for level in (4, 3, 2, 1)}
        for level in (4, 3, 2, 1):
            target = 9 if level == 1 else 6 - level
            self.ram.q[self.entry[level]] = target << 12 | (flags or {}).get(level, ALL)

    def fault(self, access: int, cpl: int = 3, **options: bool) -> int:
        with pytest.raises(PageFault) as caught:
            walk(self.ram, CR3, VADDR, access, cpl, **options)
        assert caught.value.vector == 14
        assert caught.value.vaddr == VADDR
        return caught.value.error_code

    def marks(self, level: int) -> int:
        return self.ram.q[self.entry[level]] & (PTE_A | PTE_D)


def test_frame_and_offset() -> None:
    found = walk(Tables().ram, CR3, VADDR, READ, 3)
    assert found.paddr == 0x9ABC
    assert found.pfn == 9
    assert found.page_size == 4096
    assert found.perms == PERM_R | PERM_W | PERM_X | PERM_U


@pytest.mark.parametrize("level", [4, 3, 2, 1])
def test_not_present_at_any_level(level: int) -> None:
    tables = Tables({level: ALL & ~PTE_P})
    assert tables.fault(READ) == PF_USER
    assert tables.fault(WRITE) == PF_USER | PF_WRITE
    assert tables.fault(EXECUTE) == PF_USER | PF_INSTR
    assert tables.fault(EXECUTE, nxe=False) == PF_USER
    assert tables.fault(WRITE, cpl=0) == PF_WRITE


@pytest.mark.parametrize("level", [4, 3, 2, 1])
def test_rights_are_the_intersection_of_all_levels(level: int) -> None:
    read_only = Tables({level: PTE_P | PTE_U})
    assert walk(read_only.ram, CR3, VADDR, READ, 3).perms == PERM_R | PERM_X | PERM_U
    assert read_only.fault(WRITE) == PF_USER | PF_WRITE | PF_PROT
    assert read_only.fault(WRITE, cpl=0) == PF_WRITE | PF_PROT
    assert walk(read_only.ram, CR3, VADDR, WRITE, 0, cr0_wp=False).perms & PERM_W
    supervisor = Tables({level: PTE_P | PTE_W})
    assert supervisor.fault(READ) == PF_USER | PF_PROT
    assert walk(supervisor.ram, CR3, VADDR, WRITE, 0).perms == PERM_R | PERM_W | PERM_X
    no_execute = Tables({level: ALL | PTE_NX})
    assert no_execute.fault(EXECUTE) == PF_USER | PF_PROT | PF_INSTR
    assert walk(no_execute.ram, CR3, VADDR, WRITE, 3).perms == PERM_R | PERM_W | PERM_U


@pytest.mark.parametrize("level", [4, 3, 2, 1])
@pytest.mark.parametrize("bit", [1 << 40, 1 << 51])
def test_reserved_address_bits(level: int, bit: int) -> None:
    tables = Tables({level: ALL | bit})
    assert tables.fault(WRITE) == PF_USER | PF_WRITE | PF_PROT | PF_RSVD


def test_reserved_elsewhere() -> None:
    assert Tables({4: ALL | PTE_PS}).fault(READ) == PF_USER | PF_PROT | PF_RSVD
    assert Tables({1: ALL | PTE_NX}).fault(READ, nxe=False) == PF_USER | PF_PROT | PF_RSVD
    walk(Tables({1: ALL | PTE_PS}).ram, CR3, VADDR, READ, 3)  # PAT in a 4 KiB entry


def test_accessed_and_dirty() -> None:
    tables = Tables()
    walk(tables.ram, CR3, VADDR, READ, 3, set_ad=False)
    assert [tables.marks(level) for level in (4, 3, 2, 1)] == [0, 0, 0, 0]
    walk(tables.ram, CR3, VADDR, READ, 3)
    assert [tables.marks(level) for level in (4, 3, 2, 1)] == [PTE_A] * 4
    walk(tables.ram, CR3, VADDR, WRITE, 3)
    assert [tables.marks(level) for level in (4, 3, 2, 1)] == [PTE_A, PTE_A, PTE_A, PTE_A | PTE_D]


def test_a_refused_access_does_not_mark_the_page() -> None:
    tables = Tables({1: PTE_P | PTE_U})
    tables.fault(WRITE)
    assert tables.marks(1) == 0
    assert tables.marks(2) == PTE_A


def test_large_pages() -> None:
    tables = Tables({2: ALL | PTE_PS})
    tables.ram.q[tables.entry[2]] = 1 << 21 | ALL | PTE_PS
    found = walk(tables.ram, CR3, VADDR, WRITE, 3)
    assert found.page_size == 1 << 21
    assert found.paddr == 1 << 21 | VADDR & (1 << 21) - 1
    assert tables.marks(2) == PTE_A | PTE_D
    assert tables.marks(1) == 0
    tables.ram.q[tables.entry[3]] = 1 << 30 | ALL | PTE_PS
    found = walk(tables.ram, CR3, VADDR, READ, 3)
    assert found.page_size == 1 << 30
    assert found.paddr == 1 << 30 | VADDR & (1 << 30) - 1
    tables.ram.q[tables.entry[3]] = 1 << 30 | ALL | PTE_PS | 1 << 12  # PAT
    walk(tables.ram, CR3, VADDR, READ, 3)
    tables.ram.q[tables.entry[3]] |= 1 << 13
    assert tables.fault(READ) == PF_USER | PF_PROT | PF_RSVD


@pytest.mark.parametrize("vaddr", [1 << 47, (1 << 64) - (1 << 47) - 1, 1 << 63])
def test_non_canonical_addresses_are_general_protection(vaddr: int) -> None:
    with pytest.raises(PageFault) as caught:
        walk(Tables().ram, CR3, vaddr, READ, 3)
    assert caught.value.non_canonical
    assert (caught.value.vector, caught.value.error_code) == (13, 0)


def test_tables_outside_ram_read_as_absent() -> None:
    tables = Tables()
    tables.ram.q[tables.entry[2]] = 0x7FFFF << 12 | ALL
    assert tables.fault(READ) == PF_USER
    with pytest.raises(PageFault):
        walk(tables.ram, 0x7FFFF << 12, VADDR, READ, 3)


def test_error_codes_in_words() -> None:
    assert describe_error_code(PF_USER | PF_WRITE) == "user write not-present"
    assert describe_error_code(PF_PROT | PF_INSTR | PF_USER) == "user instruction fetch protection"
    assert describe_error_code(PF_PROT | PF_RSVD) == "supervisor read reserved-bit"


def test_index_arithmetic() -> None:
    for level in (1, 2, 3, 4):
        assert FourLevel.span(level) == 1 << FourLevel.shifts[level]
        assert FourLevel.index(VADDR, level) == VADDR >> FourLevel.shifts[level] & 511
    assert FourLevel.span(1) == 4096
    assert FourLevel.is_canonical(0x7FFF_FFFF_FFFF)
    assert FourLevel.is_canonical(0xFFFF_8000_0000_0000)
    assert not FourLevel.is_canonical(0x8000_0000_0000)
