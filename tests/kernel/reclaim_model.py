"""Random programs under memory pressure, against a model that knows nothing of pages, frames or swap.

:class:`World` runs random operations (map, write, read, fork, move, protect, lock, advise, truncate, reclaim, swapoff
...) on a few address spaces in a machine with little RAM; the model is a dictionary from page numbers to values.  After
every operation the oracle recounts everything.  What a page holds is its first word.

An operation that runs out of memory is allowed to fail; nothing may ever be read that was not written.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FMODE_READ, FMODE_WRITE
from kernel.abi.mman import Madv
from kernel.mm.exit import mmput
from kernel.mm.fault import FaultResult
from kernel.mm.filemap import filemap_write_and_wait, generic_file_write, truncate_inode_pages
from kernel.mm.fork import dup_mm, new_mm
from kernel.mm.madvise import do_madvise
from kernel.mm.mlock import do_mlock, do_munlock
from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, do_mmap
from kernel.mm.mprotect import do_mprotect
from kernel.mm.mremap import MremapRequest, do_mremap
from kernel.mm.munmap import do_munmap
from kernel.mm.rmap.check import check_all
from kernel.mm.rmap.check_memory import check_memory
from kernel.mm.swapoff import do_swapoff
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, VM_LOCKED, MmStruct
from tests.kernel.fakes import FakeFile, FakeInode
from tests.kernel.swapfakes import peek, poke

BASE = 0x1000_0000
NR_PAGES = 160
"""Pages of each address space in which everything happens."""
NR_FILE_PAGES = 24
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS = 1, 2, 0x10, 0x20
READ, WRITE = 1, 2


class Backing:
    """A file, or shared anonymous memory: what its pages hold now."""

    def __init__(self, kernel: Any, number: int, is_shmem: bool) -> None:
        self.nr_pages = NR_FILE_PAGES
        self.values: dict[int, int] = {}
        data = b""
        if not is_shmem:
            self.values = {pgoff: number << 32 | pgoff + 1 for pgoff in range(NR_FILE_PAGES)}
            data = b"".join(value.to_bytes(8, "little").ljust(PAGE_SIZE, b"\7") for value in self.values.values())
        inode: Any = FakeInode(kernel, data, is_shmem)
        inode.i_size = NR_FILE_PAGES * PAGE_SIZE
        inode.i_seals = -1
        self.file = cast(Any, FakeFile(inode))
        self.file.f_mode = FMODE_READ | FMODE_WRITE
        self.file.f_path = SimpleNamespace(mnt=SimpleNamespace(mnt_flags=0))
        self.file.mmap_prepare = lambda *_: self.file.get()
        self.mapping: Any = inode.i_mapping


class Cell:
    """One mapped page of one address space."""

    __slots__ = ("backing", "locked", "may_be_zero", "pgoff", "prot", "shared", "value")

    def __init__(self, prot: int, backing: Backing | None, pgoff: int, shared: bool) -> None:
        self.prot = prot
        self.backing = backing
        self.pgoff = pgoff
        self.shared = shared
        self.value: int | None = None
        """The private page's content; None: there is none."""
        self.may_be_zero = False
        """After MADV_FREE: the page may be gone."""
        self.locked = False

    def copy(self) -> Cell:
        new = Cell(self.prot, self.backing, self.pgoff, self.shared)
        new.value, new.may_be_zero = self.value, self.may_be_zero
        return new

    def expected(self) -> tuple[int, ...] | None:
        """What a read may see; None: a bus error."""
        if self.value is not None:
            return (self.value, 0) if self.may_be_zero else (self.value,)
        if self.backing is None:
            return (0,)
        if self.pgoff >= self.backing.nr_pages:
            return None
        return (self.backing.values.get(self.pgoff, 0),)


class Process:
    def __init__(self, mm: MmStruct, cells: dict[int, Cell]) -> None:
        self.mm = mm
        self.cells = cells


class World:
    """A machine, its processes and the model of both."""

    def __init__(self, kernel: Any, seed: int, *, oracle: bool = True) -> None:
        self.kernel = kernel
        self.rng = random.Random(seed)
        self.oracle = oracle
        self.next_value = 1
        self.backings = [Backing(kernel, 1 + i, is_shmem=i >= 2) for i in range(4)]
        mm = new_mm(kernel)
        kernel.mms.append(mm)
        arch_pick_mmap_layout(mm)
        self.processes = [Process(mm, {})]
        self.nr_oom = 0
        self.nr_bus_errors = 0
        self.io_errors_allowed = False
        self.history: list[str] = []

    # ---- driving --------------------------------------------------------------------------------------------------

    OPS = (
        ("map_anon", 10), ("map_file", 6), ("unmap", 4), ("protect", 5), ("write", 30), ("read", 20), ("fork", 3),
        ("exit", 3), ("move", 6), ("dontneed", 2), ("free", 3), ("pageout", 4), ("cold", 2), ("lock", 2), ("unlock", 2),
        ("reclaim", 10), ("kswapd", 3), ("swapoff", 1), ("truncate", 2), ("file_write", 3), ("sync", 1),
    )  # fmt: skip

    def run(self, nr_steps: int) -> None:
        names = [name for name, weight in self.OPS for _ in range(weight)]
        for _ in range(nr_steps):
            self.step(self.rng.choice(names))
        self.verify_all()

    def step(self, name: str) -> None:
        process = self.rng.choice(self.processes)
        try:
            getattr(self, name)(process)
        except KernelError as error:
            # EAGAIN: mlock could not fault all its pages in.  EIO, EFAULT: swapoff, write or mlock met a bad page.
            allowed = {Errno.ENOMEM, Errno.EAGAIN} | ({Errno.EIO, Errno.EFAULT} if self.io_errors_allowed else set())
            if error.errno not in allowed:
                raise
            self.nr_oom += 1
        self.check(name)

    def check(self, name: str) -> None:
        if not self.oracle:
            return
        violations = check_memory(self.kernel)
        if not violations and len(self.history) % 8 == 0:
            violations = check_all(self.kernel)  # slow, and mostly about areas
        assert not violations, f"after {name} (step {len(self.history)}):\n" + "\n".join(map(str, violations[:12]))

    def verify_all(self) -> None:
        for process in self.processes:
            for page in sorted(process.cells):
                self._read(process, page)
            self.check("verify")

    def finish(self) -> None:
        """Let everything exit: nothing may be left."""
        for process in list(self.processes):
            self._exit(process)
        self.check("finish")
        for backing in self.backings:
            filemap_write_and_wait(backing.mapping)
            backing.file.f_inode.i_size = 0
            truncate_inode_pages(backing.mapping, 0)
        self.check("files gone")
        assert self.kernel.swap.used_pages == 0

    # ---- helpers --------------------------------------------------------------------------------------------------

    def _note(self, text: str) -> None:
        self.history.append(text)

    def _range(self, max_pages: int = 40) -> tuple[int, int]:
        nr_pages = self.rng.randint(1, max_pages)
        return self.rng.randrange(NR_PAGES - nr_pages), nr_pages

    def _mapped_run(self, process: Process, max_pages: int = 40) -> tuple[int, int] | None:
        """A stretch of mapped pages."""
        if not process.cells:
            return None
        first = self.rng.choice(sorted(process.cells))
        nr_pages = 1
        limit = self.rng.randint(1, max_pages)
        while nr_pages < limit and first + nr_pages in process.cells:
            nr_pages += 1
        return first, nr_pages

    # ---- operations -----------------------------------------------------------------------------------------------

    def map_anon(self, process: Process) -> None:
        first, nr_pages = self._range()
        prot = self.rng.choice((READ | WRITE, READ | WRITE, READ | WRITE, READ))
        self._note(f"map_anon {first} {nr_pages} {prot}")
        request = MmapRequest(_at(first), nr_pages * PAGE_SIZE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
        self._unmapped(process, first, nr_pages, lambda: do_mmap(process.mm, request))
        for page in range(first, first + nr_pages):
            process.cells[page] = Cell(prot, None, 0, False)

    def map_file(self, process: Process) -> None:
        first, nr_pages = self._range(NR_FILE_PAGES)
        backing = self.rng.choice(self.backings)
        pgoff = self.rng.randrange(NR_FILE_PAGES - nr_pages + 1)
        shared = backing.mapping.is_shmem or self.rng.random() < 0.5
        prot = self.rng.choice((READ | WRITE, READ | WRITE, READ))
        self._note(f"map_file {first} {nr_pages} {prot} shared={shared} pgoff={pgoff}")
        flags = (MAP_SHARED if shared else MAP_PRIVATE) | MAP_FIXED
        request = MmapRequest(_at(first), nr_pages * PAGE_SIZE, prot, flags, backing.file, pgoff)
        self._unmapped(process, first, nr_pages, lambda: do_mmap(process.mm, request))
        for i in range(nr_pages):
            process.cells[first + i] = Cell(prot, backing, pgoff + i, shared)

    def _unmapped(self, process: Process, first: int, nr_pages: int, operation: Any) -> None:
        """``operation`` replaces pages; the model must know which, even if it fails after that."""
        try:
            operation()
        except KernelError:
            areas = process.mm.areas
            for page in range(first, first + nr_pages):
                if page in process.cells and areas.find_exact(_at(page)) is None:
                    del process.cells[page]
            raise
        for page in range(first, first + nr_pages):
            process.cells.pop(page, None)

    def unmap(self, process: Process) -> None:
        first, nr_pages = self._range()
        self._note(f"unmap {first} {nr_pages}")
        self._unmapped(process, first, nr_pages, lambda: do_munmap(process.mm, _at(first), nr_pages * PAGE_SIZE))

    def protect(self, process: Process) -> None:
        found = self._mapped_run(process)
        if found is None:
            return
        first, nr_pages = found
        pages = range(first, first + nr_pages)
        if any(process.cells[page].locked for page in pages):
            return  # would fault pages in, and so make private copies
        prot = self.rng.choice((READ | WRITE, READ, 0))
        self._note(f"protect {first} {nr_pages} {prot}")
        do_mprotect(process.mm, _at(first), nr_pages * PAGE_SIZE, prot)
        for page in pages:
            process.cells[page].prot = prot

    def write(self, process: Process) -> None:
        if not process.cells:
            return
        first = self.rng.choice(sorted(process.cells))
        self._note(f"write {first}..")
        for page in range(first, min(first + self.rng.randint(1, 30), NR_PAGES)):
            self._write(process, page)

    def _write(self, process: Process, page: int) -> None:
        cell = process.cells.get(page)
        value = self.next_value = self.next_value + 1
        result = poke(process.mm, _at(page), value)
        if self._failed(result):
            return
        if cell is None:
            assert result is FaultResult.SIGSEGV_MAPERR, f"write to unmapped page {page}: {result!r}"
        elif not cell.prot & WRITE:
            assert result is FaultResult.SIGSEGV_ACCERR, f"write to read-only page {page}: {result!r}"
        elif cell.expected() is None:
            assert result is FaultResult.SIGBUS_ADRERR, f"write beyond the end, page {page}: {result!r}"
            self.nr_bus_errors += 1
        else:
            assert result <= FaultResult.MAJOR, f"write to page {page}: {result!r}"
            if cell.shared:
                assert cell.backing is not None
                cell.backing.values[cell.pgoff] = value
            else:
                cell.value, cell.may_be_zero = value, False

    def _failed(self, result: FaultResult) -> bool:
        """Out of memory, or an I/O error that was asked for."""
        if result is FaultResult.OOM:
            self.nr_oom += 1
            return True
        if result is FaultResult.SIGBUS_ADRERR and self.io_errors_allowed:
            self.nr_bus_errors += 1
            return True
        return False

    def read(self, process: Process) -> None:
        if not process.cells:
            return
        first = self.rng.choice(sorted(process.cells))
        self._note(f"read {first}..")
        for page in range(first, min(first + self.rng.randint(1, 30), NR_PAGES)):
            if page in process.cells:
                self._read(process, page)

    def _read(self, process: Process, page: int) -> None:
        from kernel.mm.fault import touch

        cell = process.cells[page]
        result = touch(process.mm, _at(page))
        if self._failed(result):
            return
        expected = cell.expected()
        if not cell.prot:
            assert result is FaultResult.SIGSEGV_ACCERR, f"read of PROT_NONE page {page}: {result!r}"
        elif expected is None:
            assert result is FaultResult.SIGBUS_ADRERR, f"read beyond the end, page {page}: {result!r}"
        else:
            assert result <= FaultResult.MAJOR, f"read of page {page}: {result!r}"
            seen = peek(process.mm, _at(page))
            assert seen in expected, f"page {page} of mm {process.mm.id} holds {seen:#x}, expected one of {expected}"
            if cell.may_be_zero and seen == 0:
                cell.value, cell.may_be_zero = 0, False

    def fork(self, process: Process) -> None:
        if len(self.processes) >= 5:
            return
        self._note("fork")
        mm = dup_mm(process.mm)
        self.kernel.mms.append(mm)
        self.processes.append(Process(mm, {page: cell.copy() for page, cell in process.cells.items()}))

    def exit(self, process: Process) -> None:
        if len(self.processes) > 1:
            self._exit(process)

    def _exit(self, process: Process) -> None:
        self._note(f"exit mm {process.mm.id}")
        self.processes.remove(process)
        self.kernel.mms.remove(process.mm)
        mmput(process.mm)

    def move(self, process: Process) -> None:
        """mremap one page to a place where nothing is."""
        if not process.cells:
            return
        page = self.rng.choice(sorted(process.cells))
        free = [i for i in range(NR_PAGES) if i not in process.cells]
        if not free or process.cells[page].locked:
            return
        target = self.rng.choice(free)
        self._note(f"move {page} {target}")
        do_mremap(process.mm, MremapRequest(_at(page), PAGE_SIZE, PAGE_SIZE, 3, _at(target)))
        process.cells[target] = process.cells.pop(page)

    def _advise(self, process: Process, advice: int, *, anonymous: bool) -> list[Cell]:
        found = self._mapped_run(process)
        if found is None:
            return []
        first, nr_pages = found
        cells = [process.cells[page] for page in range(first, first + nr_pages)]
        if any(cell.locked or (anonymous and cell.backing is not None) for cell in cells):
            return []
        self._note(f"advise {advice} {first} {nr_pages}")
        do_madvise(process.mm, _at(first), nr_pages * PAGE_SIZE, advice)
        return cells

    def dontneed(self, process: Process) -> None:
        for cell in self._advise(process, Madv.MADV_DONTNEED, anonymous=False):
            cell.value, cell.may_be_zero = None, False

    def free(self, process: Process) -> None:
        for cell in self._advise(process, Madv.MADV_FREE, anonymous=True):
            cell.may_be_zero = cell.value is not None

    def pageout(self, process: Process) -> None:
        self._advise(process, Madv.MADV_PAGEOUT, anonymous=False)

    def cold(self, process: Process) -> None:
        self._advise(process, Madv.MADV_COLD, anonymous=False)

    def lock(self, process: Process) -> None:
        found = self._mapped_run(process, 6)
        if found is None or process.mm.locked_vm > 6:
            return
        first, nr_pages = found
        cells = [process.cells[page] for page in range(first, first + nr_pages)]
        if any(cell.backing is not None or not cell.prot for cell in cells):
            return
        self._note(f"lock {first} {nr_pages}")
        for cell in cells:
            cell.locked = True
        do_mlock(process.mm, _at(first), nr_pages * PAGE_SIZE, VM_LOCKED)

    def unlock(self, process: Process) -> None:
        locked = [page for page, cell in process.cells.items() if cell.locked]
        if locked:
            self._note("unlock")
            do_munlock(process.mm, _at(min(locked)), PAGE_SIZE)
            process.cells[min(locked)].locked = False

    # ---- the machine ----------------------------------------------------------------------------------------------

    def reclaim(self, process: Process) -> None:
        nr_pages = self.rng.choice((1, 8, 32, 64, 128))
        self._note(f"reclaim {nr_pages}")
        self.kernel.reclaim.try_to_free_pages(nr_pages)

    def kswapd(self, process: Process) -> None:
        self._note("kswapd")
        self.kernel.reclaim.kswapd_tick()

    def swapoff(self, process: Process) -> None:
        kernel = self.kernel
        self._note("swapoff")
        do_swapoff(kernel, kernel.area)
        self.check("swapoff")
        kernel.area = kernel.swap.swapon_device(kernel.device, b"/dev/vda")

    def truncate(self, process: Process) -> None:
        backing = self.rng.choice(self.backings)
        nr_pages = self.rng.randint(4, NR_FILE_PAGES)
        self._note(f"truncate {nr_pages}")
        inode = backing.file.f_inode
        size = nr_pages * PAGE_SIZE
        inode.i_size = size
        if nr_pages < backing.nr_pages:
            truncate_inode_pages(backing.mapping, size)
            del inode.data[size:]
        backing.nr_pages = nr_pages
        for pgoff in [pgoff for pgoff in backing.values if pgoff >= nr_pages]:
            del backing.values[pgoff]
        for other in self.processes:
            for cell in other.cells.values():
                if cell.backing is backing and cell.pgoff >= nr_pages:
                    cell.value = None

    def file_write(self, process: Process) -> None:
        backing = self.rng.choice(self.backings)
        pgoff = self.rng.randrange(backing.nr_pages)
        value = self.next_value = self.next_value + 1
        self._note(f"file_write {pgoff}")
        written = generic_file_write(backing.mapping, pgoff << PAGE_SHIFT, value.to_bytes(8, "little"))
        assert written == 8
        backing.values[pgoff] = value

    def sync(self, process: Process) -> None:
        self._note("sync")
        for backing in self.backings:
            filemap_write_and_wait(backing.mapping)


def _at(page: int) -> int:
    return BASE + (page << PAGE_SHIFT)
