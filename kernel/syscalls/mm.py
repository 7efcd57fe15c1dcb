"""System calls of memory management.

Models ``mm/mmap.c``, ``mm/mprotect.c``, ``mm/mremap.c``, ``mm/madvise.c``, ``mm/mlock.c``, ``mm/mincore.c``,
``mm/msync.c``, ``mm/mseal.c`` and ``arch/x86/kernel/sys_x86_64.c``: the argument checks
that come before the work of ``kernel/mm``.  Manual: the page of each name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from kernel.abi.capability import Cap
from kernel.abi.errno import Errno, KernelError
from kernel.abi.mman import Madv, Map, Mcl, Mlock2, Mremap, Msync, Pkey, Prot
from kernel.abi.mount import MS_NOEXEC
from kernel.abi.personality import READ_IMPLIES_EXEC
from kernel.mm.brk import sys_brk as set_brk
from kernel.mm.madvise import do_madvise, do_mseal
from kernel.mm.mincore import do_mincore
from kernel.mm.mlock import do_mlock, do_mlockall, do_munlock, do_munlockall
from kernel.mm.mmap import MmapRequest, vm_mmap
from kernel.mm.mprotect import do_mprotect
from kernel.mm.mremap import MremapRequest, do_mremap
from kernel.mm.msync import do_msync
from kernel.mm.munmap import do_munmap
from kernel.mm.types import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, TASK_SIZE, VM_LOCKED, VM_LOCKONFAULT, VM_SHARED, Vma
from kernel.mm.usercopy import access_ok, copy_from_user, copy_to_user
from kernel.syscalls.table import (
    INT,
    ULONG,
    BufOut,
    Fd,
    Int,
    Size,
    StructIn,
    Support,
    UInt,
    ULong,
    UserAddr,
    syscall,
)

if TYPE_CHECKING:
    from kernel.fs.file import File
    from kernel.mm.types import MmStruct
    from kernel.task.task import Task

_MAP_ANONYMOUS, _MAP_HUGETLB = int(Map.MAP_ANONYMOUS), int(Map.MAP_HUGETLB)
_MAP_FIXED, _MAP_SHARED, _MAP_POPULATE = int(Map.MAP_FIXED), int(Map.MAP_SHARED), int(Map.MAP_POPULATE)
_MAP_NONBLOCK, _MAP_LOCKED = int(Map.MAP_NONBLOCK), int(Map.MAP_LOCKED)
_UIO_MAXIOV = 1024


def _mm(task: Task) -> MmStruct:
    """The caller's address space: who makes a call has one."""
    mm = task.mm
    assert mm is not None
    return mm


# -- mapping ---------------------------------------------------------------------------------------------------------


def _mmap_pgoff(task: Task, addr: int, length: int, prot: int, flags: int, fd: int, pgoff: int) -> int:
    """``ksys_mmap_pgoff``."""
    file: File | None = None
    if not flags & _MAP_ANONYMOUS:
        file = task.files.get(fd)
        if flags & _MAP_HUGETLB:
            raise KernelError(Errno.EINVAL, "MAP_HUGETLB of an ordinary file")
    return vm_mmap(_mm(task), MmapRequest(addr, length, _with_implied_exec(task, prot, file), flags, file, pgoff))


def _with_implied_exec(task: Task, prot: int, file: File | None = None) -> int:
    """``prot``, with PROT_EXEC if the personality says that what can be read can be executed (READ_IMPLIES_EXEC)."""
    if not task.personality & READ_IMPLIES_EXEC or not prot & Prot.PROT_READ:
        return prot
    if file is not None and file.f_path.mnt.mnt_flags & MS_NOEXEC:
        return prot
    return prot | Prot.PROT_EXEC


@syscall("mmap", x86_64=9, group="memory", returns="addr")
def sys_mmap(
    task: Task,
    addr: UserAddr,
    length: Size,
    prot: Annotated[Prot, ULONG],
    flags: Annotated[Map, ULONG],
    fd: Fd,
    offset: ULong,
) -> int:
    """Map a file or new memory into the address space."""
    if offset & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "offset not page aligned")
    return _mmap_pgoff(task, addr, length, prot, flags, fd, offset >> PAGE_SHIFT)


@syscall("mmap2", x86_64=None, i386=192, group="memory", returns="addr")
def sys_mmap2(
    task: Task,
    addr: UserAddr,
    length: Size,
    prot: Annotated[Prot, ULONG],
    flags: Annotated[Map, ULONG],
    fd: Fd,
    pgoffset: ULong,
) -> int:
    """mmap with the offset in pages."""
    return _mmap_pgoff(task, addr, length, prot, flags, fd, pgoffset)


@syscall("old_mmap", x86_64=None, i386=90, group="memory", returns="addr")
def sys_old_mmap(task: Task, args: StructIn("mmap_arg_struct")) -> int:  # type: ignore[valid-type]
    """mmap with its six arguments in memory."""
    data = copy_from_user(_mm(task), args, 24)
    addr, length, prot, flags, fd, offset = (int.from_bytes(data[i : i + 4], "little") for i in range(0, 24, 4))
    if offset & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "offset not page aligned")
    return _mmap_pgoff(task, addr, length, prot, flags, fd - (fd >> 31 << 32), offset >> PAGE_SHIFT)


@syscall("munmap", x86_64=11, i386=91, group="memory")
def sys_munmap(task: Task, addr: UserAddr, length: Size) -> None:
    """Unmap a range of addresses."""
    do_munmap(_mm(task), addr, length)


@syscall("brk", x86_64=12, i386=45, group="memory", returns="addr")
def sys_brk(task: Task, brk: UserAddr) -> int:
    """Move the end of the heap; returns where it is."""
    return set_brk(_mm(task), brk)


@syscall("mremap", x86_64=25, i386=163, group="memory", returns="addr")
def sys_mremap(
    task: Task,
    old_address: UserAddr,
    old_size: Size,
    new_size: Size,
    flags: Annotated[Mremap, ULONG],
    new_address: UserAddr,
) -> int:
    """Grow, shrink or move a mapping."""
    return do_mremap(_mm(task), MremapRequest(old_address, old_size, new_size, flags, new_address))


@syscall("remap_file_pages", x86_64=216, i386=257, group="memory")
def sys_remap_file_pages(
    task: Task,
    start: UserAddr,
    size: Size,
    prot: Annotated[Prot, ULONG],
    pgoff: ULong,
    flags: Annotated[Map, ULONG],
) -> None:
    """Map other pages of the same file into a part of a shared mapping (as Linux since 4.0: by mapping anew)."""
    if prot:
        raise KernelError(Errno.EINVAL, "prot must be 0")
    start &= PAGE_MASK
    size &= PAGE_MASK
    end = start + size
    if not size or end > TASK_SIZE or pgoff + (size >> PAGE_SHIFT) >= 1 << 64:
        raise KernelError(Errno.EINVAL, "range")
    mm = _mm(task)
    vma = mm.areas.find_exact(start)
    if vma is None or not vma.vm_flags & VM_SHARED or vma.vm_file is None:
        raise KernelError(Errno.EINVAL, "not a shared mapping")
    if not _is_one_mapping(vma, end):
        raise KernelError(Errno.EINVAL, "range spans mappings")
    map_flags = flags & _MAP_NONBLOCK | _MAP_SHARED | _MAP_FIXED | _MAP_POPULATE
    if vma.vm_flags & VM_LOCKED:
        map_flags |= _MAP_LOCKED
    file = vma.vm_file
    vm_mmap(mm, MmapRequest(start, size, vma.vm_flags & 7, map_flags, file, pgoff))


def _is_one_mapping(vma: Vma, end: int) -> bool:
    """Is everything up to ``end`` mapped without holes from the same file with the same flags?"""
    near: Vma | None = vma
    at = vma.vm_start
    while near is not None and near.vm_start == at and near.vm_file is vma.vm_file and near.vm_flags == vma.vm_flags:
        at = near.vm_end
        if at >= end:
            return True
        near = near.vm_next
    return False


# -- protection ------------------------------------------------------------------------------------------------------


@syscall("mprotect", x86_64=10, i386=125, group="memory")
def sys_mprotect(task: Task, addr: UserAddr, length: Size, prot: Annotated[Prot, ULONG]) -> None:
    """Change the protection of a range."""
    do_mprotect(_mm(task), addr, length, _with_implied_exec(task, prot))


@syscall("pkey_mprotect", x86_64=329, i386=380, group="memory")
def sys_pkey_mprotect(task: Task, addr: UserAddr, length: Size, prot: Annotated[Prot, ULONG], pkey: Int) -> None:
    """mprotect with a protection key; this processor has none, so only -1 is allowed."""
    do_mprotect(_mm(task), addr, length, _with_implied_exec(task, prot), pkey)


@syscall("pkey_alloc", x86_64=330, i386=381, group="memory")
def sys_pkey_alloc(task: Task, flags: ULong, access_rights: Annotated[Pkey, ULONG]) -> int:
    """Allocate a protection key: ENOSPC, this processor has none."""
    if flags or access_rights & ~3:
        raise KernelError(Errno.EINVAL, "flags")
    raise KernelError(Errno.ENOSPC, "no protection keys")


@syscall("pkey_free", x86_64=331, i386=382, group="memory")
def sys_pkey_free(task: Task, pkey: Int) -> int:
    """Free a protection key: EINVAL, there is none."""
    raise KernelError(Errno.EINVAL, "no such protection key")


@syscall("mseal", x86_64=462, i386=462, group="memory")
def sys_mseal(task: Task, addr: UserAddr, length: Size, flags: ULong) -> None:
    """Forbid all further changes to the mappings of a range."""
    if flags:
        raise KernelError(Errno.EINVAL, "flags")
    do_mseal(_mm(task), addr, length)


# -- advice and state ------------------------------------------------------------------------------------------------


@syscall("madvise", x86_64=28, i386=219, group="memory")
def sys_madvise(task: Task, addr: UserAddr, length: Size, advice: Annotated[Madv, INT]) -> None:
    """Say how a range will be used."""
    do_madvise(_mm(task), addr, length, advice)


@syscall(
    "process_madvise",
    x86_64=440,
    i386=440,
    group="memory",
    returns="size",
    support=Support.PARTIAL,
    note="for other processes only MADV_COLD, MADV_PAGEOUT and MADV_WILLNEED, as Linux",
)
def sys_process_madvise(
    task: Task,
    pidfd: Fd,
    iovec: StructIn("iovec"),  # type: ignore[valid-type]
    vlen: Size,
    advice: Annotated[Madv, INT],
    flags: UInt,
) -> int:
    """Give advice for another process; returns the number of bytes advised."""
    from kernel.task.cred import ptrace_may_access, require
    from kernel.task.pidfd import pidfd_task

    if flags:
        raise KernelError(Errno.EINVAL, "flags")
    if vlen > _UIO_MAXIOV:
        raise KernelError(Errno.EINVAL, "too many ranges")
    data = copy_from_user(_mm(task), iovec, vlen * 16)
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
    target, _ = pidfd_task(task, pidfd)
    mm = target.mm
    if mm is None:
        raise KernelError(Errno.ESRCH, "process has no address space")
    if not ptrace_may_access(task, target):
        raise KernelError(Errno.EACCES, "may not look into that process")
    if mm is not task.mm:
        if advice not in (Madv.MADV_COLD, Madv.MADV_PAGEOUT, Madv.MADV_WILLNEED):
            raise KernelError(Errno.EINVAL, "advice not for other processes")
        require(task, Cap.CAP_SYS_NICE)
    done = 0
    for base, length in zip(words[::2], words[1::2], strict=True):
        try:
            do_madvise(mm, base, length, advice)
        except KernelError:
            if done:
                break
            raise
        done += length
    return done


@syscall("mincore", x86_64=27, i386=218, group="memory")
def sys_mincore(task: Task, addr: UserAddr, length: Size, vec: BufOut) -> None:
    """Which pages of a range are in memory."""
    mm = _mm(task)
    if addr & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "address not page aligned")
    if not access_ok(addr, length):
        raise KernelError(Errno.ENOMEM, "range outside the address space")
    left = (length + PAGE_SIZE - 1) >> PAGE_SHIFT
    if not access_ok(vec, left):
        raise KernelError(Errno.EFAULT, "vector outside the address space")
    while left:
        found = do_mincore(mm, addr, min(left, PAGE_SIZE))
        copy_to_user(mm, vec, found)
        left -= len(found)
        vec += len(found)
        addr += len(found) << PAGE_SHIFT


@syscall("msync", x86_64=26, i386=144, group="memory")
def sys_msync(task: Task, addr: UserAddr, length: Size, flags: Annotated[Msync, INT]) -> None:
    """Write what was changed through a shared mapping to its file."""
    do_msync(_mm(task), addr, length, flags)


# -- locking ---------------------------------------------------------------------------------------------------------


@syscall("mlock", x86_64=149, i386=150, group="memory")
def sys_mlock(task: Task, addr: UserAddr, length: Size) -> None:
    """Keep the pages of a range in memory."""
    do_mlock(_mm(task), addr, length, VM_LOCKED)


@syscall("mlock2", x86_64=325, i386=376, group="memory")
def sys_mlock2(task: Task, addr: UserAddr, length: Size, flags: Annotated[Mlock2, INT]) -> None:
    """mlock, with MLOCK_ONFAULT without reading the pages in."""
    if flags & ~1:
        raise KernelError(Errno.EINVAL, "flags")
    do_mlock(_mm(task), addr, length, VM_LOCKED | (VM_LOCKONFAULT if flags else 0))


@syscall("munlock", x86_64=150, i386=151, group="memory")
def sys_munlock(task: Task, addr: UserAddr, length: Size) -> None:
    """Undo mlock for a range."""
    do_munlock(_mm(task), addr, length)


@syscall("mlockall", x86_64=151, i386=152, group="memory")
def sys_mlockall(task: Task, flags: Annotated[Mcl, INT]) -> None:
    """Keep all of the address space in memory."""
    do_mlockall(_mm(task), flags)


@syscall("munlockall", x86_64=152, i386=153, group="memory")
def sys_munlockall(task: Task) -> None:
    """Undo mlockall and every mlock."""
    do_munlockall(_mm(task))


