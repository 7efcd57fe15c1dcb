"""[vdso] and [vvar]: pages of the kernel that every program sees.

Models ``arch/x86/entry/vdso/vma.c``.  Manual: vdso(7).  The image is ``vdso64.so``, built from ``userland/vdso``.

Deliberate differences: the functions make the system call, so that time is the kernel's clock and every call is seen by
traces; the data pages are mapped where Linux 6.18 has them, but hold zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kernel.mm.mmap import get_unmapped_area, insert_special_mapping
from kernel.mm.types import (
    PAGE_SIZE,
    VM_DONTDUMP,
    VM_EXEC,
    VM_IO,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    MmStruct,
    Vma,
)

if TYPE_CHECKING:
    from kernel.kernel import Kernel

IMAGE_PATH = Path(__file__).with_name("vdso64.so")
VVAR_BYTES = 4 * PAGE_SIZE
VVAR_VCLOCK_BYTES = 2 * PAGE_SIZE
VDSO_BYTES = 2 * PAGE_SIZE

_VVAR_FLAGS = VM_READ | VM_MAYREAD | VM_IO | VM_DONTDUMP | VM_PFNMAP
_TEXT_FLAGS = VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC


class VdsoText:
    """The image's pages: taken from memory at first use, the same for all programs, never given back."""

    name = "[vdso]"

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._pfns: list[int] = []

    def fault(self, vma: Vma, pgoff: int) -> int:
        return self.pfns[pgoff]

    @property
    def pfns(self) -> list[int]:
        if not self._pfns:
            kernel = self._kernel
            image = IMAGE_PATH.read_bytes()
            assert len(image) <= VDSO_BYTES
            for offset in range(0, VDSO_BYTES, PAGE_SIZE):
                pfn = kernel.pages.alloc_zeroed_page()
                kernel.physmem.write(pfn * PAGE_SIZE, image[offset : offset + PAGE_SIZE])
                self._pfns.append(pfn)
        return self._pfns


class VvarPages:
    """The data pages: nobody reads them but Linux's own vdso."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel = kernel
        self.name = name

    def fault(self, vma: Vma, pgoff: int) -> int:
        return self._kernel.pages.zero_pfn


class Vdso:
    """The special mappings of one kernel (``kernel.vdso``)."""

    def __init__(self, kernel: Kernel) -> None:
        self.text = VdsoText(kernel)
        self.vvar = VvarPages(kernel, "[vvar]")
        self.vvar_vclock = VvarPages(kernel, "[vvar_vclock]")

    def map_into(self, mm: MmStruct) -> None:
        """Map data pages and text, one above the other, where mmap finds room; sets ``mm.vdso_base``."""
        addr = get_unmapped_area(mm, None, 0, VVAR_BYTES + VVAR_VCLOCK_BYTES + VDSO_BYTES, 0)
        insert_special_mapping(mm, addr, VVAR_BYTES, _VVAR_FLAGS, self.vvar, self.vvar.name)
        addr += VVAR_BYTES
        insert_special_mapping(mm, addr, VVAR_VCLOCK_BYTES, _VVAR_FLAGS, self.vvar_vclock, self.vvar_vclock.name)
        addr += VVAR_VCLOCK_BYTES
        insert_special_mapping(mm, addr, VDSO_BYTES, _TEXT_FLAGS, self.text, self.text.name)
        mm.vdso_base = addr
