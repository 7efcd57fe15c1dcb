"""The system calls over kernel/mm: argument checks, decoding, and what has no function of its own there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import kernel.syscalls.mm as calls
from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FMODE_READ, FMODE_WRITE
from kernel.abi.mman import Map
from kernel.mm.fault import touch
from kernel.mm.rmap.check import check_rmap
from kernel.mm.types import PAGE_SIZE, MmStruct
from kernel.mm.usercopy import copy_from_user, copy_to_user
from kernel.syscalls.table import BY_NAME, compile_entry
from tests.kernel.fakes import FakeInode
from tests.kernel.test_mmap import ANON, AT, FIXED, OpenFile, anon, fails, make

NAMES = """mmap mmap2 old_mmap munmap brk mremap remap_file_pages mprotect pkey_mprotect pkey_alloc pkey_free mseal
madvise process_madvise mincore msync mlock mlock2 munlock mlockall munlockall""".split()


def task_of(kernel: Any, mm: MmStruct, **files: Any) -> Any:
    def get(fd: int) -> Any:
        if fd not in table:
            raise KernelError(Errno.EBADF)
        return table[fd]

    table = {int(name[2:]): file for name, file in files.items()}
    return SimpleNamespace(kernel=kernel, mm=mm, files=SimpleNamespace(get=get), personality=0)


def test_declared() -> None:
    for name in NAMES:
        spec = BY_NAME[name]
        assert spec.group in ("memory", "process") and spec.summary and len(spec.params) <= 6
    assert BY_NAME["mmap"].params[2].enum is not None and BY_NAME["mmap"].returns == "addr"


def test_mmap_takes_a_descriptor_or_none() -> None:
    kernel, mm = make()
    inode = FakeInode(kernel, b"abc" + bytes(PAGE_SIZE * 3))
    task = task_of(kernel, mm, fd3=OpenFile(inode, FMODE_READ | FMODE_WRITE))
    mmap = compile_entry(BY_NAME["mmap"])
    at = mmap(task, 0, PAGE_SIZE, 1, Map.MAP_PRIVATE, 3, 0)
    assert copy_from_user(mm, at, 3) == b"abc"
    fails(Errno.EBADF, mmap, task, 0, PAGE_SIZE, 1, Map.MAP_PRIVATE, 4, 0)
    fails(Errno.EBADF, mmap, task, 0, PAGE_SIZE, 1, Map.MAP_PRIVATE, (1 << 32) - 1, 0)
    fails(Errno.EINVAL, mmap, task, 0, PAGE_SIZE, 1, Map.MAP_PRIVATE, 3, 1)
    fails(Errno.EINVAL, mmap, task, 0, PAGE_SIZE, 1, Map.MAP_PRIVATE | Map.MAP_HUGETLB, 3, 0)
    assert mmap(task, 0, PAGE_SIZE, 1, ANON, (1 << 64) - 1, 0)
    assert calls.sys_mmap2(task, 0, PAGE_SIZE, 1, Map.MAP_PRIVATE, 3, 2)
    anon(mm, 1, flags=FIXED, addr=AT)
    words = (0, PAGE_SIZE, 1, int(Map.MAP_PRIVATE), 3, PAGE_SIZE)
    copy_to_user(mm, AT, b"".join(word.to_bytes(4, "little") for word in words))
    assert calls.sys_old_mmap(task, AT)


def test_remap_file_pages() -> None:
    kernel, mm = make()
    inode = FakeInode(kernel, b"".join(bytes([65 + i]) * PAGE_SIZE for i in range(6)))
    task = task_of(kernel, mm, fd3=OpenFile(inode, FMODE_READ | FMODE_WRITE))
    calls.sys_mmap(task, AT, 4 * PAGE_SIZE, 1, Map.MAP_SHARED | Map.MAP_FIXED, 3, 0)
    calls.sys_remap_file_pages(task, AT + PAGE_SIZE, PAGE_SIZE, 0, 5, 0)
    assert [copy_from_user(mm, AT + i * PAGE_SIZE, 1) for i in range(4)] == [b"A", b"F", b"C", b"D"]
    fails(Errno.EINVAL, calls.sys_remap_file_pages, task, AT, PAGE_SIZE, 1, 0, 0)
    fails(Errno.EINVAL, calls.sys_remap_file_pages, task, AT, 0, 0, 0, 0)
    calls.sys_remap_file_pages(task, AT, 3 * PAGE_SIZE, 0, 0, 0)  # several areas of one file
    fails(Errno.EINVAL, calls.sys_remap_file_pages, task, AT, 5 * PAGE_SIZE, 0, 0, 0)
    anon(mm, 1, flags=FIXED, addr=AT + 0x10_0000)
    fails(Errno.EINVAL, calls.sys_remap_file_pages, task, AT + 0x10_0000, PAGE_SIZE, 0, 0, 0)
    assert check_rmap(kernel) == []


def test_mincore_fills_a_vector() -> None:
    kernel, mm = make()
    task = task_of(kernel, mm)
    anon(mm, 3, flags=FIXED, addr=AT)
    anon(mm, 1, prot=1, flags=FIXED, addr=AT + 3 * PAGE_SIZE)
    vector = anon(mm, 1)
    touch(mm, AT + 2 * PAGE_SIZE, write=True)
    calls.sys_mincore(task, AT, 4 * PAGE_SIZE, vector)
    assert copy_from_user(mm, vector, 4) == bytes([0, 0, 1, 0])
    fails(Errno.EINVAL, calls.sys_mincore, task, AT + 1, PAGE_SIZE, vector)
    fails(Errno.ENOMEM, calls.sys_mincore, task, AT, 5 * PAGE_SIZE, vector)
    fails(Errno.ENOMEM, calls.sys_mincore, task, AT, 1 << 62, vector)
    fails(Errno.EFAULT, calls.sys_mincore, task, AT, PAGE_SIZE, 0x10_0000)


def test_protection_keys_do_not_exist() -> None:
    kernel, mm = make()
    task = task_of(kernel, mm)
    fails(Errno.ENOSPC, calls.sys_pkey_alloc, task, 0, 0)
    fails(Errno.EINVAL, calls.sys_pkey_alloc, task, 1, 0)
    fails(Errno.EINVAL, calls.sys_pkey_free, task, 1)
    anon(mm, 1, flags=FIXED, addr=AT)
    calls.sys_pkey_mprotect(task, AT, PAGE_SIZE, 1, -1)
    fails(Errno.EINVAL, calls.sys_pkey_mprotect, task, AT, PAGE_SIZE, 1, 0)


def test_flags_that_must_be_known() -> None:
    kernel, mm = make()
    task = task_of(kernel, mm)
    anon(mm, 1, flags=FIXED, addr=AT)
    fails(Errno.EINVAL, calls.sys_mlock2, task, AT, PAGE_SIZE, 2)
    calls.sys_mlock2(task, AT, PAGE_SIZE, 1)
    fails(Errno.EINVAL, calls.sys_mseal, task, AT, PAGE_SIZE, 1)
    calls.sys_mseal(task, AT, PAGE_SIZE, 0)
    for call in (calls.sys_munmap, calls.sys_munlock):
        if call is calls.sys_munmap:
            fails(Errno.EPERM, call, task, AT, PAGE_SIZE)
        else:
            call(task, AT, PAGE_SIZE)
    fails(Errno.EPERM, calls.sys_mprotect, task, AT, PAGE_SIZE, 1)
    fails(Errno.EPERM, calls.sys_mremap, task, AT, PAGE_SIZE, 2 * PAGE_SIZE, 1, 0)


@pytest.mark.parametrize("name", ["mlock", "munlock"])
def test_lengths_that_wrap_around(name: str) -> None:
    kernel, mm = make()
    call = compile_entry(BY_NAME[name])
    fails(Errno.EINVAL, call, task_of(kernel, mm), (1 << 64) - PAGE_SIZE, PAGE_SIZE, 0, 0, 0, 0)
