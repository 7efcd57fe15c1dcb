"""fork and mremap when a page frame cannot be had, at every place where one is asked for: nothing is left half done."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.mm.exit import mmput
from kernel.mm.fault import touch
from kernel.mm.fork import dup_mm
from kernel.mm.mremap import MremapRequest, do_mremap
from kernel.mm.rmap.check import check_rmap
from kernel.mm.types import PAGE_SIZE
from tests.kernel.fakes import check_kernel
from tests.kernel.test_mmap import AT, FIXED, anon, make

PROFILES = ["2.6.6", "2.6.6-anonmm", "2.6.6-rmap39", "2.6.5-aa", "2.6.7", "one-anon-vma", "6.1", "6.18"]
FAR = 0x40_0000_0000


class Failing:
    """Makes the ``n``-th allocation from now on fail, once."""

    def __init__(self, kernel: Any) -> None:
        self.left = -1
        kernel.pages.inject_failures(self.ask)

    def ask(self) -> bool:
        self.left -= 1
        return self.left == 0


def data(kernel: Any, mm: Any, base: int) -> list[int]:
    found = []
    for page in range(6):
        touch(mm, base + page * PAGE_SIZE)
        found.append(kernel.physmem.mem[mm.pt.get(base + page * PAGE_SIZE) & 0xF_FFFF_FFFF_F000])
    return found


@pytest.mark.parametrize("profile", PROFILES)
def test_fork(profile: str) -> None:
    kernel, mm = make(profile)
    failing = Failing(kernel)
    for i in range(4):
        base = AT + i * 0x4000_0000
        anon(mm, 6, flags=FIXED, addr=base)
        for page in range(3):
            touch(mm, base + page * PAGE_SIZE, write=True)
    nr_failed = 0
    for nth in range(1, 40):
        free = kernel.pages.nr_free
        failing.left = nth
        try:
            child = dup_mm(mm)
        except KernelError as error:
            assert error.errno == Errno.ENOMEM
            nr_failed += 1
        else:
            mmput(child)
        failing.left = -1
        assert kernel.pages.nr_free == free
        assert check_rmap(kernel) == []
        check_kernel(kernel)
    assert 5 < nr_failed < 39


@pytest.mark.parametrize("profile", PROFILES)
def test_mremap(profile: str) -> None:
    """The pages are back where they were, the target is not."""
    nth = 0
    while True:
        nth += 1
        kernel, mm = make(profile)
        anon(mm, 6, flags=FIXED, addr=AT)
        for page in range(5):
            touch(mm, AT + page * PAGE_SIZE, write=True)
            kernel.physmem.mem[mm.pt.get(AT + page * PAGE_SIZE) & 0xF_FFFF_FFFF_F000] = page + 1
        child = dup_mm(mm)
        kernel.mms.append(child)
        failing = Failing(kernel)
        committed = kernel.vm_stat.committed_pages
        failing.left = nth
        try:
            do_mremap(child, MremapRequest(AT, 6 * PAGE_SIZE, 8 * PAGE_SIZE, 3, FAR))
        except KernelError as error:
            assert error.errno == Errno.ENOMEM
            failing.left = -1
            assert data(kernel, child, AT) == [1, 2, 3, 4, 5, 0]
            assert [vma.vm_start for vma in child.areas] == [AT]
            assert (child.total_vm, kernel.vm_stat.committed_pages) == (6, committed)
        else:
            failing.left = -1
            assert data(kernel, child, FAR) == [1, 2, 3, 4, 5, 0]
            break
        assert data(kernel, mm, AT) == [1, 2, 3, 4, 5, 0]
        assert check_rmap(kernel) == []
        check_kernel(kernel)
    assert nth > (6 if profile == "2.6.6-anonmm" else 2), "page tables, and under anonmm a copy for each shared page"
