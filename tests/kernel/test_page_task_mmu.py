"""/proc/PID/{maps,smaps,statm,status,pagemap} (fs/proc/task_mmu.c); the host's kernel is the oracle of forms."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from kernel.abi.stat import makedev
from kernel.mm import task_mmu
from kernel.mm.fault import populate_range, touch
from kernel.mm.memory import change_protection
from kernel.mm.pagetable import swp_entry_to_pte
from kernel.mm.shmem import shmem_file_setup
from kernel.mm.types import (
    PAGE_SIZE,
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
)
from kernel.mm.usercopy import copy_to_user
from tests.kernel.fakes import RW, FakeFile, FakeInode, fork_mm, make_kernel, make_mm, map_anon, map_file

BASE = 0x1000_0000
PROC = Path("/proc/self")
on_linux = pytest.mark.skipif(not (PROC / "smaps").exists(), reason="needs /proc")


@pytest.fixture
def mm() -> MmStruct:
    return make_mm(make_kernel(profile="6.18"))


def numbers(text: str) -> dict[str, int]:
    """The kB lines of a smaps entry."""
    return {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB$", text, re.M)}


# ---- against the host -----------------------------------------------------------------------------------------------


@on_linux
def test_lines_are_padded_as_the_hosts() -> None:
    pattern = re.compile(r"(\w+)-(\w+) (....) (\w+) (\w+):(\w+) (\d+) +(.*)")
    checked = 0
    for line in (PROC / "maps").read_text("utf-8", "surrogateescape").splitlines():
        found = pattern.fullmatch(line)
        assert found is not None
        start, end, permissions, offset, major, minor, ino, name = found.groups()
        dev = makedev(int(major, 16), int(minor, 16))
        mine = task_mmu._header(int(start, 16), int(end, 16), permissions, int(offset, 16), dev, int(ino), name)
        assert mine == line
        checked += 1
    assert checked > 5


def shape(text: str) -> list[str]:
    """The text with digits and unimportant values replaced, so that columns can be compared."""
    return [re.sub(r" {2,}\d+| \d+", lambda m: "#" * len(m.group()), line) for line in text.splitlines()]


@on_linux
def test_smaps_has_the_hosts_lines_in_the_hosts_order(mm: MmStruct) -> None:
    map_anon(mm, BASE, 3)
    host = (PROC / "smaps").read_text("utf-8", "surrogateescape").split("VmFlags", 1)[0]
    mine = task_mmu.smaps_text(mm).split("VmFlags", 1)[0]
    dropped = ("ProtectionKey:",)  # our processor has no protection keys
    want = [line for line in shape(host)[1:] if not line.startswith(dropped)]
    assert [line.split("#")[0] for line in shape(mine)[1:]] == [line.split("#")[0] for line in want]
    assert {len(line) for line in mine.splitlines()[1:-1]} == {len("Rss:                   0 kB")}


@on_linux
def test_smaps_rollup_and_status_have_the_hosts_lines(mm: MmStruct) -> None:
    map_anon(mm, BASE, 3)
    names = [line.split()[0] for line in (PROC / "smaps_rollup").read_text().splitlines()[1:]]
    assert [line.split()[0] for line in task_mmu.smaps_rollup_text(mm).splitlines()[1:]] == names
    status = (PROC / "status").read_text()
    host = [line for line in status.splitlines() if re.match(r"Vm|Rss|Hugetlb", line)]
    mine = task_mmu.status_text(mm).splitlines()
    assert [re.sub(r" *\d+ kB", "", line) for line in mine] == [re.sub(r" *\d+ kB", "", line) for line in host]
    assert all(re.fullmatch(r"\w+:\t *\d+ kB", line) and len(line.split("\t")[1]) == 11 for line in mine)


# ---- maps -----------------------------------------------------------------------------------------------------------


def test_maps_names(mm: MmStruct) -> None:
    mm.start_brk, mm.brk = BASE, BASE + 2 * PAGE_SIZE
    mm.start_stack = 0x7FFF_F000_1000
    map_anon(mm, BASE, 2)
    named = map_anon(mm, BASE * 2, 1, VM_READ)
    named.anon_name = "arena"
    map_anon(mm, BASE * 3, 1, VM_EXEC)
    vdso = map_anon(mm, 0x7FFF_0000_0000, 2, VM_READ | VM_EXEC)
    vdso.vm_name = "[vdso]"
    map_anon(mm, 0x7FFF_F000_0000, 3, RW | VM_GROWSDOWN)
    assert task_mmu.maps_text(mm) == (
        "10000000-10002000 rw-p 00000000 00:00 0                                  [heap]\n"
        "20000000-20001000 r--p 00000000 00:00 0                                  [anon:arena]\n"
        "30000000-30001000 --xp 00000000 00:00 0 \n"
        "7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]\n"
        "7ffff0000000-7ffff0003000 rw-p 00000000 00:00 0                          [stack]\n"
    )


def test_maps_of_shared_memory(mm: MmStruct) -> None:
    file = shmem_file_setup(mm.kernel, "dev/zero", 4 * PAGE_SIZE)
    memfd = shmem_file_setup(mm.kernel, "memfd:new\nline", 4 * PAGE_SIZE)
    map_file(mm, BASE, 4, file, RW | VM_SHARED)
    map_file(mm, BASE * 2, 2, memfd, VM_READ | VM_SHARED, pgoff=2)
    named = map_file(mm, BASE * 3, 1, file, RW | VM_SHARED)
    named.anon_name = "ring"
    dev = f"00:{file.f_inode.i_sb.s_dev:02x}"
    lines = task_mmu.maps_text(mm).splitlines()
    assert lines[0].startswith(f"10000000-10004000 rw-s 00000000 {dev} {file.f_inode.i_ino} ")
    assert lines[0].endswith("  /dev/zero (deleted)") and lines[0].index("/") == 73
    assert lines[1].startswith("20000000-20002000 r--s 00002000 ")
    assert lines[1].endswith(" /memfd:new\\012line (deleted)")
    assert lines[2].endswith(" [anon_shmem:ring]")


# ---- numbers --------------------------------------------------------------------------------------------------------


def test_smaps_counts(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE, 30)
    populate_range(mm, BASE, BASE + 20 * PAGE_SIZE, True)
    touch(mm, BASE + 25 * PAGE_SIZE)  # the zero page counts nowhere
    child = fork_mm(mm)
    populate_range(child, BASE, BASE + 5 * PAGE_SIZE, True)
    entry = numbers(task_mmu.smaps_entry(vma))
    assert entry["Size"] == 120 and entry["KernelPageSize"] == entry["MMUPageSize"] == 4
    assert entry["Rss"] == 80 and entry["Anonymous"] == 80 and entry["Referenced"] == 80
    assert entry["Shared_Dirty"] == 60 and entry["Private_Dirty"] == 20
    assert entry["Shared_Clean"] == entry["Private_Clean"] == 0
    assert entry["Pss"] == 20 + 30 == entry["Pss_Dirty"]
    rollup = numbers(task_mmu.smaps_rollup_text(mm))
    assert rollup["Pss_Anon"] == 50 and rollup["Pss_File"] == rollup["Pss_Shmem"] == 0


def test_smaps_of_files_and_locked_areas(mm: MmStruct) -> None:
    inode = FakeInode(mm.kernel, bytes(8 * PAGE_SIZE))
    vma = map_file(mm, BASE, 8, FakeFile(inode), RW | VM_SHARED | VM_LOCKED)
    populate_range(mm, BASE, BASE + 8 * PAGE_SIZE, False)
    copy_to_user(mm, BASE, b"dirty")
    other = make_mm(mm.kernel)
    map_file(other, BASE, 3, FakeFile(inode), VM_READ)
    populate_range(other, BASE, BASE + 3 * PAGE_SIZE, False)
    stats = task_mmu.MemSizeStats()
    stats.add_vma(vma)
    assert (stats.resident, stats.shared_dirty, stats.shared_clean) == (32768, 4096, 8192)
    assert (stats.private_dirty, stats.private_clean) == (0, 20480)
    assert stats.pss >> 12 == 5 * 4096 + 3 * 2048 == stats.pss_file >> 12 == stats.pss_locked >> 12


def test_smaps_of_swapped_pages(mm: MmStruct, monkeypatch: pytest.MonkeyPatch) -> None:
    class Swap:
        def swap_count(self, pte: int) -> int:
            return 2

    vma = map_anon(mm, BASE, 2)
    mm.pt.set_pte(BASE, swp_entry_to_pte(0, 7))
    mm.swap_pages = 1
    mm.kernel.pages.swap = Swap()  # type: ignore[assignment]
    entry = numbers(task_mmu.smaps_entry(vma))
    assert (entry["Rss"], entry["Swap"], entry["SwapPss"]) == (0, 4, 2)
    assert pagemap(mm, BASE, 1) == [task_mmu.PM_SWAP | 7 << 5]
    assert "VmSwap:\t       4 kB" in task_mmu.status_text(mm)


def test_vmflags(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE, 1, RW | VM_ACCOUNT | VM_GROWSDOWN)
    assert task_mmu.smaps_entry(vma).splitlines()[-1] == "VmFlags: rd wr mr mw me gd ac "


def test_statm_and_status(mm: MmStruct) -> None:
    inode = FakeInode(mm.kernel, bytes(8 * PAGE_SIZE))
    map_anon(mm, BASE, 10)
    map_file(mm, BASE * 2, 8, FakeFile(inode), VM_READ | VM_EXEC)
    mm.total_vm, mm.data_vm, mm.exec_vm, mm.stack_vm, mm.locked_vm = 18, 9, 8, 1, 2
    mm.hiwater_vm = 20
    mm.start_code, mm.end_code = BASE * 2 + 0x10, BASE * 2 + 2 * PAGE_SIZE + 1
    populate_range(mm, BASE, BASE + 3 * PAGE_SIZE, True)
    touch(mm, BASE * 2, execute=True)
    touch(mm, BASE * 2)
    nr_file = mm.rss_file
    assert task_mmu.statm_text(mm) == f"18 {3 + nr_file} {nr_file} 3 0 10 0\n"
    lines = dict(re.findall(r"(\w+):\t *(\d+) kB", task_mmu.status_text(mm)))
    assert lines["VmPeak"] == "80" and lines["VmSize"] == "72" and lines["VmLck"] == "8"
    assert lines["RssAnon"] == "12" and lines["RssFile"] == str(4 * nr_file) and lines["RssShmem"] == "0"
    assert lines["VmRSS"] == lines["VmHWM"] == str(12 + 4 * nr_file)
    assert (lines["VmData"], lines["VmStk"], lines["VmExe"], lines["VmLib"]) == ("36", "4", "12", "20")
    assert lines["VmPTE"] == str(4 * mm.pt.nr_tables)


# ---- pagemap --------------------------------------------------------------------------------------------------------


def pagemap(mm: MmStruct, vaddr: int, nr_pages: int, **options: Any) -> list[int]:
    data = task_mmu.pagemap_read(mm, vaddr >> 12 << 3, nr_pages * 8, **options)
    return list(struct.unpack(f"<{len(data) // 8}Q", data))


def test_pagemap(mm: MmStruct) -> None:
    inode = FakeInode(mm.kernel, bytes(4 * PAGE_SIZE))
    vma = map_anon(mm, BASE, 4)
    map_file(mm, BASE + 4 * PAGE_SIZE, 2, FakeFile(inode), VM_READ)
    touch(mm, BASE, write=True)
    touch(mm, BASE + PAGE_SIZE)
    touch(mm, BASE + 4 * PAGE_SIZE)
    pfn = [(mm.pt.get(BASE + i * PAGE_SIZE) & 0xF_FFFF_FFFF_F000) >> 12 for i in range(6)]
    present, exclusive, file = task_mmu.PM_PRESENT, task_mmu.PM_MMAP_EXCLUSIVE, task_mmu.PM_FILE
    want = [
        0,
        present | exclusive | pfn[0],
        present | pfn[1],
        0,
        0,
        present | exclusive | file | pfn[4],
        present | exclusive | file | pfn[5] if pfn[5] else 0,
        0,
    ]
    assert pagemap(mm, BASE - PAGE_SIZE, 8) == want
    assert pagemap(mm, BASE, 1, show_pfn=False) == [present | exclusive]
    fork_mm(mm)
    assert pagemap(mm, BASE, 1) == [present | pfn[0]]
    vma.vm_flags &= ~(VM_READ | VM_WRITE)
    change_protection(vma, vma.vm_start, vma.vm_end)
    assert pagemap(mm, BASE, 1) == [present | pfn[0]]  # PROT_NONE pages are present


def test_pagemap_ends_with_the_address_space(mm: MmStruct) -> None:
    assert pagemap(mm, 0x7FFF_FFFF_D000, 10) == [0, 0]
    assert pagemap(mm, 0x7FFF_FFFF_F000, 10) == [] == pagemap(mm, 1 << 60, 1)


@on_linux
@pytest.mark.skipif(os.sysconf("SC_PAGE_SIZE") != PAGE_SIZE, reason="needs 4 KiB pages")
def test_pagemap_form_is_the_hosts() -> None:
    """Present, private: bits 63 and 56, as the host says of a list's storage."""
    buffer = bytearray(b"x" * PAGE_SIZE * 4)
    import ctypes

    vaddr = ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer)) + PAGE_SIZE & -PAGE_SIZE
    with open(PROC / "pagemap", "rb") as stream:
        stream.seek(vaddr >> 12 << 3)
        entry = struct.unpack("<Q", stream.read(8))[0]
    assert entry & task_mmu.PM_PRESENT and entry & task_mmu.PM_MMAP_EXCLUSIVE and not entry & task_mmu.PM_FILE


# ---- clear_refs -----------------------------------------------------------------------------------------------------


def test_clear_refs(mm: MmStruct) -> None:
    vma = map_anon(mm, BASE, 20)
    populate_range(mm, BASE, BASE + 20 * PAGE_SIZE, True)
    task_mmu.clear_refs_write(mm, 3)  # files only
    assert numbers(task_mmu.smaps_entry(vma))["Referenced"] == 80
    task_mmu.clear_refs_write(mm, 1)
    assert numbers(task_mmu.smaps_entry(vma))["Referenced"] == 0
    touch(mm, BASE)
    assert numbers(task_mmu.smaps_entry(vma))["Referenced"] == 4
    mm.hiwater_rss = 100
    task_mmu.clear_refs_write(mm, 5)
    assert mm.hiwater_rss == 20
