"""Random programs against a simple model of what memory holds, with a recount and the rmap checked after every step.

The model knows nothing of pages, only of POSIX: private memory is copied at fork, shared memory and files are not, a
truncated page is gone, PROT_NONE keeps the data.  Memory is small, so that reclaim of the page cache runs as well.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from kernel.abi.errno import KernelError
from kernel.mm.fault import touch
from kernel.mm.filemap import (
    filemap_write_and_wait,
    generic_file_read,
    generic_file_write,
    page_cache_shrinker,
    pagecache_isize_extended,
    truncate_inode_pages,
    truncate_pagecache_range,
)
from kernel.mm.memory import change_protection, move_page_tables, zap_page_range
from kernel.mm.types import PAGE_SIZE, VM_EXEC, VM_READ, VM_SHARED, VM_WRITE, MmStruct, Vma
from kernel.mm.usercopy import copy_from_user, copy_to_user
from kernel.profile import PROFILES
from tests.kernel.fakes import (
    RW,
    FakeFile,
    FakeInode,
    check_kernel,
    exit_mm,
    fork_mm,
    make_kernel,
    make_mm,
    map_anon,
    map_file,
)
from tests.kernel.test_pagetable_move import check_rmap, copy_vma

ANON, PRIVATE, SHARED, SHMEM = 0x1000_0000, 0x2010_0000, 0x30_0000_0000, 0x7000_0000_0000
MOVED = 0x5000_0000_0000
NR_PAGES = 30
FILE_PAGES = 24
ZERO = bytes(8)


class Model:
    """One mm: private bytes by address; where the anonymous area is; its protections."""

    def __init__(self, mm: MmStruct) -> None:
        self.mm = mm
        self.private: dict[int, bytes] = {}
        self.anon_start = ANON

    def fork(self) -> Model:
        child = Model(fork_mm(self.mm))
        child.private = dict(self.private)
        child.anon_start = self.anon_start
        return child

    def area(self, start: int) -> Vma:
        vma = self.mm.areas.find_exact(start)
        assert vma is not None
        return vma


class World:
    def __init__(self, profile: str, seed: int, ram_pages: int = 700) -> None:
        self.rng = random.Random(seed)
        self.kernel: Any = make_kernel(ram_pages, profile)
        self.file = FakeInode(self.kernel, b"".join(b"file%04d" % i + bytes(4088) for i in range(FILE_PAGES)))
        self.file_model = {i: b"file%04d" % i for i in range(FILE_PAGES)}
        self.shmem = FakeInode(self.kernel, bytes(NR_PAGES * PAGE_SIZE), is_shmem=True)
        self.shmem_model: dict[int, bytes] = {}
        mm = make_mm(self.kernel)
        map_anon(mm, ANON, NR_PAGES)
        map_file(mm, PRIVATE, NR_PAGES, FakeFile(self.file), RW)
        map_file(mm, SHARED, NR_PAGES, FakeFile(self.file), RW | VM_SHARED)
        map_file(mm, SHMEM, NR_PAGES, FakeFile(self.shmem), RW | VM_SHARED)
        self.models = [Model(mm)]
        self.serial = 0

    def token(self) -> bytes:
        self.serial += 1
        return b"t%07d" % self.serial

    def expected(self, model: Model, start: int, i: int) -> bytes | None:
        """What the 8 bytes at the start of page ``i`` are; None if a read must fail."""
        vaddr = start + i * PAGE_SIZE
        if not model.area(start).vm_flags & (VM_READ | VM_WRITE | VM_EXEC):
            return None
        if start == SHMEM:
            return self.shmem_model.get(i, ZERO)
        if start != model.anon_start and i * PAGE_SIZE >= self.file.i_size:
            return None
        if vaddr in model.private:
            return model.private[vaddr]
        return ZERO if start == model.anon_start else self.file_model.get(i, ZERO)

    # ---- steps --------------------------------------------------------------------------------------------------

    def pick(self) -> tuple[Model, int, int]:
        model = self.rng.choice(self.models)
        start = self.rng.choice((model.anon_start, PRIVATE, SHARED, SHMEM))
        return model, start, self.rng.randrange(NR_PAGES)

    def step_read(self) -> None:
        model, start, i = self.pick()
        want = self.expected(model, start, i)
        if want is None:
            with pytest.raises(KernelError):
                copy_from_user(model.mm, start + i * PAGE_SIZE, 8)
        else:
            assert copy_from_user(model.mm, start + i * PAGE_SIZE, 8) == want

    def step_touch(self) -> None:
        model, start, i = self.pick()
        result = touch(model.mm, start + i * PAGE_SIZE)
        assert (result > 1) == (self.expected(model, start, i) is None)

    def step_write(self) -> None:
        model, start, i = self.pick()
        vaddr = start + i * PAGE_SIZE
        if self.expected(model, start, i) is None or not model.area(start).vm_flags & VM_WRITE:
            with pytest.raises(KernelError):
                copy_to_user(model.mm, vaddr, ZERO)
            return
        token = self.token()
        copy_to_user(model.mm, vaddr, token)
        if start == SHMEM:
            self.shmem_model[i] = token
        elif start == SHARED:
            self.file_model[i] = token
        else:
            model.private[vaddr] = token

    step_write_more = step_write
    step_write_again = step_write

    def step_fork(self) -> None:
        if len(self.models) < 5:
            self.models.append(self.rng.choice(self.models).fork())

    def step_exit(self) -> None:
        if len(self.models) > 1 and self.rng.random() < 0.5:
            exit_mm(self.models.pop(self.rng.randrange(len(self.models))).mm)

    def step_protect(self) -> None:
        model, start, _ = self.pick()
        vma = model.area(start)
        prot = self.rng.choice((0, VM_READ, RW, RW, RW | VM_EXEC))
        vma.vm_flags = vma.vm_flags & ~(RW | VM_EXEC) | prot
        change_protection(vma, vma.vm_start, vma.vm_end)

    def step_dontneed(self) -> None:
        model, start, i = self.pick()
        end = min(NR_PAGES, i + self.rng.choice((1, 3, 20)))
        zap_page_range(model.area(start), start + i * PAGE_SIZE, start + end * PAGE_SIZE)
        for page in range(i, end):
            model.private.pop(start + page * PAGE_SIZE, None)

    def step_move(self) -> None:
        model = self.rng.choice(self.models)
        old = model.anon_start
        new = self.rng.choice([a for a in (ANON, MOVED, MOVED + 0x7000, MOVED + 0x20_0000) if abs(a - old) > 1 << 20])
        vma = model.area(old)
        new_vma = copy_vma(vma, new)
        assert move_page_tables(vma, old, new_vma, new, NR_PAGES * PAGE_SIZE) == NR_PAGES * PAGE_SIZE
        model.mm.areas.unlink(vma)
        model.mm.map_count -= 1
        self.kernel.policy.unlink_vma(vma)
        model.mm.pt.free_pgtables(old, old + NR_PAGES * PAGE_SIZE)
        for i in range(NR_PAGES):
            token = model.private.pop(old + i * PAGE_SIZE, None)
            if token is not None:
                model.private[new + i * PAGE_SIZE] = token
        model.anon_start = new

    def step_truncate(self) -> None:
        size = self.rng.randrange(FILE_PAGES + 1) * PAGE_SIZE + self.rng.choice((0, 0, 100))
        old = self.file.i_size
        if size >= old:
            pagecache_isize_extended(self.file.i_mapping, old, size)
            self.file.i_size = size
            return
        self.file.i_size = size
        del self.file.data[size:]
        truncate_inode_pages(self.file.i_mapping, size)
        first_gone = (size + PAGE_SIZE - 1) // PAGE_SIZE
        for i in range(first_gone, NR_PAGES):
            self.file_model.pop(i, None)
            for model in self.models:
                model.private.pop(PRIVATE + i * PAGE_SIZE, None)

    def step_punch(self) -> None:
        i = self.rng.randrange(NR_PAGES)
        end = min(NR_PAGES, i + self.rng.choice((1, 5)))
        truncate_pagecache_range(self.shmem.i_mapping, i * PAGE_SIZE, end * PAGE_SIZE)
        for page in range(i, end):
            self.shmem_model.pop(page, None)

    def step_write_file(self) -> None:
        i = self.rng.randrange(FILE_PAGES)
        token = self.token()
        generic_file_write(self.file.i_mapping, i * PAGE_SIZE, token)
        self.file_model[i] = token

    def step_read_file(self) -> None:
        i = self.rng.randrange(FILE_PAGES)
        want = self.file_model.get(i, ZERO) if i * PAGE_SIZE < self.file.i_size else b""
        assert generic_file_read(self.file.i_mapping, i * PAGE_SIZE, 8) == want

    def step_sync(self) -> None:
        filemap_write_and_wait(self.file.i_mapping)
        for i, token in self.file_model.items():
            assert self.file.data[i * PAGE_SIZE : i * PAGE_SIZE + 8] == token

    def step_shrink(self) -> None:
        page_cache_shrinker(self.kernel.pages)(self.rng.randrange(40))

    # ---- the run ------------------------------------------------------------------------------------------------

    def run(self, nr_steps: int) -> None:
        steps = [getattr(self, name) for name in sorted(dir(self)) if name.startswith("step_")]
        for _ in range(nr_steps):
            self.rng.choice(steps)()
            check_kernel(self.kernel)
        check_rmap(self.kernel)
        for model in self.models:
            for start in (model.anon_start, PRIVATE, SHARED, SHMEM):
                for i in range(NR_PAGES):
                    want = self.expected(model, start, i)
                    if want is not None:
                        assert copy_from_user(model.mm, start + i * PAGE_SIZE, 8) == want
        check_kernel(self.kernel)
        check_rmap(self.kernel)
        for model in self.models:
            exit_mm(model.mm)
        check_kernel(self.kernel)


@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize("seed", range(3))
def test_random_programs(profile: str, seed: int) -> None:
    World(profile, seed).run(150)


@pytest.mark.proof
@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize("seed", range(100, 140))
def test_many_random_programs(profile: str, seed: int) -> None:
    World(profile, seed).run(600)
