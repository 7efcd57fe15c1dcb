"""Files whose pages are the data: shared anonymous memory and memfds.

Models ``mm/shmem.c`` (``shmem_file_setup``, ``shmem_fallocate``, ``shmem_evict_inode``) and ``mm/memfd.c``.  The file
lives on the internal tmpfs mount, has no name (``i_nlink`` 0) and goes away with its last user.

Commit charge: shared anonymous memory is charged for its whole size when it is made (``shmem_acct_size``); a memfd is
not charged (Linux charges it page by page).

Deliberate differences: no size limit but RAM; no huge pages.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import F_SEAL_SEAL, FALLOC_FL_KEEP_SIZE, O_RDWR
from kernel.abi.stat import S_IFREG
from kernel.fs.regular import DataInode, RegularFile
from kernel.mm.accounting import vm_enough_memory, vm_unacct_memory
from kernel.mm.filemap import AddressSpace
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from kernel.fs.inode import SuperBlock
    from kernel.kernel import Kernel


class ShmemInode(DataInode):
    """An inode with nothing under its page cache."""

    __slots__ = ("charged_pages", "i_seals")

    def __init__(self, sb: SuperBlock, size: int, uid: int, gid: int, mode: int = 0o777) -> None:
        super().__init__(sb, sb.new_ino(), S_IFREG | mode, uid, gid)
        self.i_size = size
        self.i_nlink = 0
        self.i_seals = F_SEAL_SEAL
        self.charged_pages = 0

    def new_mapping(self) -> AddressSpace | None:
        return AddressSpace(self, is_shmem=True)

    @property
    def _offsets(self) -> list[int]:
        """Of all pages that exist, in memory or swapped out, in order."""
        mapping = self.mapping_if_any
        return sorted([*mapping.pages, *mapping.swapped]) if mapping is not None else []

    def blocks(self) -> int:
        return len(self._offsets) * (PAGE_SIZE // 512)

    def fallocate(self, mode: int, offset: int, len_bytes: int) -> None:
        """As every file; what is not a hole punch gets its pages now."""
        super().fallocate(mode, offset, len_bytes)
        if mode & ~FALLOC_FL_KEEP_SIZE:
            return
        mapping = self.i_mapping
        assert mapping is not None
        end = min(offset + len_bytes, self.i_size)
        for pgoff in range(offset >> PAGE_SHIFT, (end + PAGE_SIZE - 1) >> PAGE_SHIFT):
            if pgoff in mapping.pages or pgoff in mapping.swapped:
                continue
            try:
                mapping.add_new_page(pgoff)
            except KernelError:
                raise KernelError(Errno.ENOSPC, "no memory for the pages") from None

    def next_data(self, pos: int) -> int:
        offsets = self._offsets
        i = bisect_left(offsets, pos >> PAGE_SHIFT)
        return max(pos, offsets[i] << PAGE_SHIFT) if i < len(offsets) else self.i_size

    def next_hole(self, pos: int) -> int:
        offsets = self._offsets
        pgoff = pos >> PAGE_SHIFT
        i = bisect_left(offsets, pgoff)
        while i < len(offsets) and offsets[i] == pgoff:
            i += 1
            pgoff += 1
        return max(pos, pgoff << PAGE_SHIFT)

    def evict(self) -> None:
        super().evict()
        if self.charged_pages:
            vm_unacct_memory(self.i_sb.kernel, self.charged_pages)
            self.charged_pages = 0


def shmem_file_setup(kernel: Kernel, name: str, size: int) -> RegularFile:
    """A nameless file of ``size`` bytes of zeros, shown as ``/name (deleted)``.  ENOMEM when the commit is refused.

    ``dev/zero`` is shared anonymous memory and is charged; ``memfd:NAME`` is a memfd.
    """
    pseudo = kernel.vfs.pseudo
    task = kernel.current
    uid, gid = (task.creds.fsuid, task.creds.fsgid) if task is not None else (0, 0)
    is_memfd = name.startswith("memfd:")
    inode = ShmemInode(pseudo.shm.mnt_sb, size, uid, gid)
    if not is_memfd and task is not None and task.mm is not None:
        nr_pages = (size + PAGE_SIZE - 1) >> PAGE_SHIFT
        vm_enough_memory(task.mm, nr_pages)
        inode.charged_pages = nr_pages
    path = pseudo.place(pseudo.shm, inode, b"/" + name.encode("utf-8", "surrogateescape") + b" (deleted)")
    return RegularFile(path, inode, O_RDWR)
