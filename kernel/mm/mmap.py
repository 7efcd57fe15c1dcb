"""mmap: where, with which flags, and joined to what.

Models ``do_mmap`` and ``mmap_region`` (mm/mmap.c, mm/vma.c), ``get_unmapped_area`` (arch/x86/kernel/sys_x86_64.c),
``expand_stack``, ``insert_vm_struct``, ``_install_special_mapping`` and ``mmap_base`` (arch/x86/mm/mmap.c).  Manual:
mmap(2). Errors come in the order of Linux 6.18.

Deliberate differences: no hugetlb pool (MAP_HUGETLB: ENOMEM), so no alignment to huge pages either; MAP_DENYWRITE,
MAP_EXECUTABLE and MAP_STACK are ignored as in Linux; MAP_SYNC is not supported by any file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import F_SEAL_FUTURE_WRITE, F_SEAL_WRITE, FMODE_READ, FMODE_WRITE
from kernel.abi.mman import LEGACY_MAP_MASK, MAP_TYPE, Map
from kernel.abi.mount import MS_NOEXEC
from kernel.fs.file import fput
from kernel.mm.accounting import (
    CAP_SYS_RAWIO,
    OVERCOMMIT_NEVER,
    RLIMIT_STACK,
    can_do_mlock,
    capable,
    check_may_expand_vm,
    mlock_future_ok,
    rlimit,
    vm_enough_memory,
    vm_stat_account,
    vm_unacct_memory,
)
from kernel.mm.area import STACK_GUARD_GAP, page_align, set_vma_range, vm_start_gap, vma_link
from kernel.mm.merge import vma_merge
from kernel.mm.mlock import mm_populate
from kernel.mm.munmap import do_munmap, gather
from kernel.mm.types import (
    PAGE_MASK,
    PAGE_SHIFT,
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_DROPPABLE,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_SHARED,
    VM_SPECIAL,
    VM_SYNC,
    VM_WIPEONFORK,
    VM_WRITE,
    MmStruct,
    Vma,
)
from kernel.profile import Layout, MergeRules, Profile

if TYPE_CHECKING:
    from kernel.fs.file import File

TASK_UNMAPPED_BASE = TASK_SIZE // 3 & PAGE_MASK
_32BIT_START, _32BIT_END = 0x4000_0000, 0x8000_0000

_PROT_WRITE = 2
_U64 = (1 << 64) - 1
_HUGE_PAGE_MASK = (1 << 21) - 1
_FIRST_ERROR_VALUE = (1 << 64) - 4095
"""``IS_ERR_VALUE``: such an address, wanted with MAP_FIXED, comes back as the errno that it looks like."""
_MAP_SHARED, _MAP_PRIVATE = int(Map.MAP_SHARED), int(Map.MAP_PRIVATE)
_MAP_SHARED_VALIDATE, _MAP_DROPPABLE = int(Map.MAP_SHARED_VALIDATE), int(Map.MAP_DROPPABLE)
_MAP_FIXED, _MAP_FIXED_NOREPLACE = int(Map.MAP_FIXED), int(Map.MAP_FIXED_NOREPLACE)
_MAP_32BIT, _MAP_GROWSDOWN, _MAP_LOCKED = int(Map.MAP_32BIT), int(Map.MAP_GROWSDOWN), int(Map.MAP_LOCKED)
_MAP_NORESERVE, _MAP_HUGETLB, _MAP_ABOVE4G = int(Map.MAP_NORESERVE), int(Map.MAP_HUGETLB), int(Map.MAP_ABOVE4G)
_MAP_POPULATE, _MAP_NONBLOCK = int(Map.MAP_POPULATE), int(Map.MAP_NONBLOCK)
_MAP_SYNC, _MAP_STACK = int(Map.MAP_SYNC), int(Map.MAP_STACK)


@dataclass(slots=True)
class MmapRequest:
    """The arguments of mmap, ``offset`` in pages."""

    addr: int
    len_bytes: int
    prot: int
    flags: int
    file: File | None = None
    """None for MAP_ANONYMOUS.  The caller keeps its reference."""
    pgoff: int = 0


def do_mmap(mm: MmStruct, request: MmapRequest) -> int:
    """Map; returns the address.  Pages are not faulted in: :func:`mmap_populate` does that."""
    addr, len_bytes, prot, flags = request.addr, request.len_bytes, request.prot, request.flags
    file, pgoff = request.file, request.pgoff
    kernel = mm.kernel
    if flags & _MAP_HUGETLB:
        len_bytes = len_bytes + _HUGE_PAGE_MASK & ~_HUGE_PAGE_MASK & _U64
    if not len_bytes:
        raise KernelError(Errno.EINVAL, "length 0")
    if flags & _MAP_FIXED_NOREPLACE:
        flags |= _MAP_FIXED
    if not flags & _MAP_FIXED:
        addr &= PAGE_MASK
        if 0 < addr < kernel.sysctl.mmap_min_addr:
            addr = page_align(kernel.sysctl.mmap_min_addr)
    len_bytes = page_align(len_bytes)
    if flags & _MAP_HUGETLB:  # noqa: SIM102
        if flags & _MAP_FIXED and addr & _HUGE_PAGE_MASK and len_bytes <= TASK_SIZE:
            raise KernelError(Errno.EINVAL, "address not aligned to a huge page")
    if not len_bytes:
        raise KernelError(Errno.ENOMEM, "length wraps around")
    if pgoff + (len_bytes >> PAGE_SHIFT) >= 1 << 64:
        raise KernelError(Errno.EOVERFLOW, "offset + length wraps around")
    if mm.map_count > kernel.sysctl.max_map_count:
        raise KernelError(Errno.ENOMEM, "map_count above max_map_count")
    vm_flags = _vm_flags(kernel.profile, prot, flags) | mm.def_flags | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
    addr = get_unmapped_area(mm, file, addr, len_bytes, flags)
    if flags & _MAP_FIXED_NOREPLACE and mm.areas.find_intersection(addr, addr + len_bytes) is not None:
        raise KernelError(Errno.EEXIST, "range is in use")
    if flags & _MAP_LOCKED and not can_do_mlock(mm):
        raise KernelError(Errno.EPERM, "RLIMIT_MEMLOCK is 0")
    if not mlock_future_ok(mm, vm_flags, len_bytes):
        raise KernelError(Errno.EAGAIN, "RLIMIT_MEMLOCK")
    if flags & _MAP_HUGETLB:
        _refuse_hugetlb(len_bytes, pgoff, flags)
    if file is not None:
        vm_flags, backing = _map_file(mm, file, len_bytes, pgoff, prot, flags, vm_flags)
    else:
        vm_flags, backing = _map_anonymous(mm, len_bytes, flags, vm_flags)
    if backing is None and not vm_flags & VM_SHARED:
        pgoff = addr >> PAGE_SHIFT
    elif file is None:
        pgoff = 0
    if flags & _MAP_NORESERVE and kernel.sysctl.overcommit_memory != OVERCOMMIT_NEVER:
        vm_flags |= VM_NORESERVE
    try:
        _mmap_region(mm, addr, len_bytes, vm_flags, pgoff, backing)
    finally:
        if backing is not None:
            fput(backing)
    return addr


def _vm_flags(profile: Profile, prot: int, flags: int) -> int:
    """``calc_vm_prot_bits`` and ``calc_vm_flag_bits``."""
    vm_flags = prot & VM_ACCESS_FLAGS  # PROT_READ, WRITE, EXEC have the values of VM_READ, WRITE, EXEC
    if flags & _MAP_GROWSDOWN:
        vm_flags |= VM_GROWSDOWN
    if flags & _MAP_LOCKED:
        vm_flags |= VM_LOCKED
    if flags & _MAP_SYNC and profile.merge is MergeRules.LINUX_6:
        vm_flags |= VM_SYNC
    if flags & _MAP_STACK and profile.stack_is_nohugepage:
        vm_flags |= VM_NOHUGEPAGE
    return vm_flags


def _check_file_type(flags: int, pgoff: int, len_bytes: int) -> None:
    """Limits and types that a mapping of a file may have."""
    if (pgoff << PAGE_SHIFT) + len_bytes > 1 << 63:
        raise KernelError(Errno.EOVERFLOW, "beyond the greatest file offset")
    map_type = flags & MAP_TYPE
    if map_type not in (_MAP_SHARED, _MAP_PRIVATE, _MAP_SHARED_VALIDATE):
        raise KernelError(Errno.EINVAL, "neither MAP_SHARED nor MAP_PRIVATE")
    if map_type == _MAP_SHARED_VALIDATE and flags & ~LEGACY_MAP_MASK:
        raise KernelError(Errno.EOPNOTSUPP, "flag that MAP_SHARED_VALIDATE does not know")


def _refuse_hugetlb(len_bytes: int, pgoff: int, flags: int) -> None:
    """MAP_HUGETLB maps a file of a pool that is empty: the errors of such a file, and then ENOMEM."""
    _check_file_type(flags, pgoff, len_bytes)
    if flags & _MAP_GROWSDOWN:
        raise KernelError(Errno.EINVAL, "MAP_GROWSDOWN with a file")
    if pgoff & 511:
        raise KernelError(Errno.EINVAL, "offset not aligned to a huge page")
    raise KernelError(Errno.ENOMEM, "no huge pages")


def _map_file(
    mm: MmStruct, file: File, len_bytes: int, pgoff: int, prot: int, flags: int, vm_flags: int
) -> tuple[int, File | None]:
    """Check what the open file allows; returns the flags and what to map (with a reference; None: anonymous memory)."""
    _check_file_type(flags, pgoff, len_bytes)
    shared = flags & MAP_TYPE != _MAP_PRIVATE
    if shared:
        if prot & _PROT_WRITE and not file.f_mode & FMODE_WRITE:
            raise KernelError(Errno.EACCES, "shared writable mapping of a file not open for writing")
        vm_flags |= VM_SHARED | VM_MAYSHARE
        if not file.f_mode & FMODE_WRITE:
            vm_flags &= ~(VM_MAYWRITE | VM_SHARED)
    if not file.f_mode & FMODE_READ:
        raise KernelError(Errno.EACCES, "file not open for reading")
    if file.f_path.mnt.mnt_flags & MS_NOEXEC:
        if vm_flags & VM_EXEC:
            raise KernelError(Errno.EPERM, "PROT_EXEC on a noexec mount")
        vm_flags &= ~VM_MAYEXEC
    backing = file.mmap_prepare(mm.kernel.current, len_bytes, pgoff, prot, shared)
    if vm_flags & VM_GROWSDOWN:
        if backing is not None:
            fput(backing)
        raise KernelError(Errno.EINVAL, "MAP_GROWSDOWN with a file")
    if backing is not None and shared:
        seals = backing.f_inode.i_seals
        if seals > 0 and seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE):
            vm_flags &= ~VM_MAYWRITE
    return vm_flags, backing


def _map_anonymous(mm: MmStruct, len_bytes: int, flags: int, vm_flags: int) -> tuple[int, File | None]:
    """The flags and, for MAP_SHARED, the shmem file that holds the memory (with a reference)."""
    map_type = flags & MAP_TYPE
    if map_type == _MAP_PRIVATE:
        backing = None
    elif map_type == _MAP_SHARED:
        if vm_flags & VM_GROWSDOWN:
            raise KernelError(Errno.EINVAL, "MAP_GROWSDOWN with MAP_SHARED")
        vm_flags |= VM_SHARED | VM_MAYSHARE
        from kernel.mm.shmem import shmem_file_setup

        backing = shmem_file_setup(mm.kernel, "dev/zero", len_bytes)
    elif map_type == _MAP_DROPPABLE:
        if flags & (_MAP_LOCKED | _MAP_HUGETLB) or vm_flags & VM_GROWSDOWN:
            raise KernelError(Errno.EINVAL, "MAP_DROPPABLE cannot be locked or grow")
        vm_flags |= VM_DROPPABLE | VM_NORESERVE | VM_WIPEONFORK | VM_DONTDUMP
        backing = None
    else:
        raise KernelError(Errno.EINVAL, "neither MAP_SHARED nor MAP_PRIVATE")
    return vm_flags, backing


def _mmap_region(mm: MmStruct, addr: int, len_bytes: int, vm_flags: int, pgoff: int, file: File | None) -> None:
    """Clear the range, charge it, join it to its neighbours or make a new area."""
    kernel = mm.kernel
    end = addr + len_bytes
    nr_pages = len_bytes >> PAGE_SHIFT
    linux_6 = kernel.profile.merge is MergeRules.LINUX_6
    old = mm.areas.find_intersection(addr, end)
    # 2.6 cleared the range first and lost it when a limit refused the new area; today the limits come first.
    nr_replaced = nr_unaccounted = 0
    if old is not None:
        if linux_6:
            old = gather(mm, old, addr, end)
            nr_replaced, nr_unaccounted = _count_overlap(old, addr, end)
        else:
            do_munmap(mm, addr, len_bytes)
    check_may_expand_vm(mm, vm_flags, nr_pages - nr_replaced)
    if vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE:
        vm_enough_memory(mm, nr_pages - nr_unaccounted)
        kernel.vm_stat.committed_pages += nr_unaccounted
        vm_flags |= VM_ACCOUNT
    if old is not None and linux_6:
        try:
            do_munmap(mm, addr, len_bytes)
        except KernelError:
            if vm_flags & VM_ACCOUNT:
                vm_unacct_memory(kernel, nr_pages)
            raise
    if vm_flags & VM_NORESERVE:
        kernel.vm_stat.nr_uncharged_areas += 1
        if not linux_6:
            vm_flags &= ~VM_NORESERVE
    prev = mm.areas.find_prev(addr)
    if vma_merge(mm, prev, addr, end, vm_flags, None, file, pgoff) is None:
        vma = Vma(mm, addr, end, vm_flags, pgoff, file)
        if file is not None:
            file.get()
        vma_link(mm, vma)
        if kernel.policy.shares_at_merge and not vm_flags & VM_SPECIAL:
            kernel.policy.on_new_vma(vma, prev, vma.vm_next)
    vm_stat_account(mm, vm_flags, nr_pages)
    if vm_flags & VM_LOCKED:
        mm.locked_vm += nr_pages


def _count_overlap(vma: Vma | None, start: int, end: int) -> tuple[int, int]:
    """Pages of ``[start, end)`` that are mapped, and how many of them are charged to the commit."""
    nr_pages = nr_accounted = 0
    while vma is not None and vma.vm_start < end:
        overlap = (min(end, vma.vm_end) - max(start, vma.vm_start)) >> PAGE_SHIFT
        nr_pages += overlap
        if vma.vm_flags & VM_ACCOUNT:
            nr_accounted += overlap
        vma = vma.vm_next
    return nr_pages, nr_accounted


def vm_mmap(mm: MmStruct, request: MmapRequest) -> int:
    """``vm_mmap_pgoff``: :func:`do_mmap`, then the pages that MAP_POPULATE and locked memory want present."""
    addr = do_mmap(mm, request)
    wanted = request.flags & (_MAP_POPULATE | _MAP_NONBLOCK) == _MAP_POPULATE
    if wanted or request.flags & _MAP_LOCKED or mm.def_flags & VM_LOCKED:
        mm_populate(mm, addr, request.len_bytes)
    return addr


# -- where ---------------------------------------------------------------------------------------------------------


def arch_pick_mmap_layout(mm: MmStruct, rnd_bytes: int = 0) -> None:
    """Set ``mmap_base`` (exec): below the stack's limit and its guard gap, less ``rnd_bytes``."""
    gap = min(rlimit(mm.kernel, RLIMIT_STACK), TASK_SIZE) + STACK_GUARD_GAP
    gap = min(max(gap, 128 << 20), TASK_SIZE // 6 * 5)
    mm.mmap_base = page_align(TASK_SIZE - gap - rnd_bytes)


def get_unmapped_area(mm: MmStruct, file: File | None, addr: int, len_bytes: int, flags: int) -> int:
    """Where a mapping of ``len_bytes`` goes; ENOMEM, EINVAL (unaligned MAP_FIXED), EPERM (below mmap_min_addr)."""
    if len_bytes > TASK_SIZE:
        raise KernelError(Errno.ENOMEM, "longer than the address space")
    if not flags & _MAP_FIXED:
        addr = _search(mm, addr, len_bytes, flags)
    if addr >= _FIRST_ERROR_VALUE:
        raise KernelError((1 << 64) - addr, "the address itself is an error value")
    if addr > TASK_SIZE - len_bytes:
        raise KernelError(Errno.ENOMEM, "beyond the address space")
    if addr & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "address not page aligned")
    if addr < mm.kernel.sysctl.mmap_min_addr and not capable(mm.kernel, CAP_SYS_RAWIO):
        raise KernelError(Errno.EPERM, "below mmap_min_addr")
    return addr


def _search(mm: MmStruct, hint: int, len_bytes: int, flags: int) -> int:
    """``arch_get_unmapped_area_topdown``, or the bottom-up one."""
    areas = mm.areas
    top_down = mm.kernel.profile.layout is Layout.TOP_DOWN and not flags & _MAP_32BIT
    start, end = (_32BIT_START, _32BIT_END) if flags & _MAP_32BIT else (TASK_UNMAPPED_BASE, TASK_SIZE)
    if hint:
        hint = hint & PAGE_MASK if top_down else page_align(hint)
        if hint <= end - len_bytes:
            following = areas.find_vma(hint)
            if following is None or hint + len_bytes <= vm_start_gap(following):
                return hint
    addr: int | None = None
    if top_down:
        low = 1 << 32 if flags & _MAP_ABOVE4G else max(PAGE_SIZE, mm.kernel.sysctl.mmap_min_addr)
        addr = areas.highest_hole(len_bytes, low, mm.mmap_base)
    if addr is None:
        addr = areas.lowest_hole(len_bytes, start, end)
    if addr is None:
        raise KernelError(Errno.ENOMEM, "no hole of that length")
    return addr


# -- stacks and areas made by the kernel -----------------------------------------------------------------------------


def expand_stack(vma: Vma, addr: int) -> None:
    """Grow ``vma`` down to the page of ``addr``.  EFAULT, EPERM, ENOMEM."""
    mm = vma.vm_mm
    kernel = mm.kernel
    if not vma.vm_flags & VM_GROWSDOWN:
        raise KernelError(Errno.EFAULT, "area does not grow")
    addr &= PAGE_MASK
    if addr < kernel.sysctl.mmap_min_addr:
        raise KernelError(Errno.EPERM, "below mmap_min_addr")
    prev = vma.vm_prev
    if (
        prev is not None
        and not prev.vm_flags & VM_GROWSDOWN
        and prev.vm_flags & VM_ACCESS_FLAGS
        and addr - prev.vm_end < STACK_GUARD_GAP
    ):
        raise KernelError(Errno.ENOMEM, "stack guard gap")
    policy = kernel.policy
    if vma.anon_vma is None and policy.needs_anon_vma:
        policy.anon_vma_prepare(vma, addr)
    if addr >= vma.vm_start:
        return
    nr_pages = (vma.vm_start - addr) >> PAGE_SHIFT
    if nr_pages > vma.vm_pgoff and policy.anon_pgoff_matters:
        raise KernelError(Errno.ENOMEM, "page offset would be negative")
    check_may_expand_vm(mm, vma.vm_flags, nr_pages)
    if vma.vm_end - addr > rlimit(kernel, RLIMIT_STACK):
        raise KernelError(Errno.ENOMEM, "RLIMIT_STACK")
    if not mlock_future_ok(mm, vma.vm_flags, nr_pages << PAGE_SHIFT):
        raise KernelError(Errno.ENOMEM, "RLIMIT_MEMLOCK")
    vm_enough_memory(mm, nr_pages)
    set_vma_range(vma, addr, vma.vm_end, vma.vm_pgoff - nr_pages)
    vm_stat_account(mm, vma.vm_flags, nr_pages)
    if vma.vm_flags & VM_LOCKED:
        mm.locked_vm += nr_pages


def insert_vm_struct(mm: MmStruct, vma: Vma) -> None:
    """Add an area made by the kernel (exec's stack, special mappings).  ENOMEM if the place is taken or memory
    refused.
    """
    nr_pages = (vma.vm_end - vma.vm_start) >> PAGE_SHIFT
    if mm.areas.find_intersection(vma.vm_start, vma.vm_end) is not None:
        raise KernelError(Errno.ENOMEM, "place is taken")
    if vma.vm_flags & VM_ACCOUNT:
        vm_enough_memory(mm, nr_pages)
    if vma.vm_file is None and vma.vm_ops is None:
        vma.vm_pgoff = vma.vm_start >> PAGE_SHIFT
    vma_link(mm, vma)
    vm_stat_account(mm, vma.vm_flags, nr_pages)


def insert_special_mapping(mm: MmStruct, addr: int, len_bytes: int, vm_flags: int, ops: Any, name: str) -> Vma:
    """``_install_special_mapping``: [vdso], [vvar].  ``ops`` has ``fault(vma, pgoff) -> pfn``."""
    vma = Vma(mm, addr, addr + page_align(len_bytes), vm_flags | VM_DONTEXPAND)
    vma.vm_ops = ops
    vma.vm_name = name
    insert_vm_struct(mm, vma)
    return vma
