"""Scripts of memory operations over a kernel without a processor: what the historic kernels were asked, and more.

``run_script(script, profile=...)`` gives the text that the recorded answers hold.  Operations (pages count from a fixed
base; all mappings private, anonymous, MAP_FIXED unless said otherwise)::

    m:i:n:PROT[:N]      mmap n pages at page i (N: MAP_NORESERVE)         u:i:n  munmap        p:i:n:PROT  mprotect
    w:i[:value]         write a byte (default i % 250 + 1)                r:i    read a byte   x:i         execute
    v:old:old_len:new_len:FLAGS[:new]   mremap (M MAYMOVE, F FIXED, D DONTUNMAP)
    l:i:n  k:i:n        mlock, munlock        f{ ... f}  in a forked child while the parent waits
    M  print the areas  D  print the bytes    a:i:n:ADVICE  madvise (number)    s:i:n  mseal
    c:NR:A:B:...        any system call of x86-64, hexadecimal; Bx is x bytes behind the base
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import kernel.syscalls.mm  # noqa: F401 - declares the calls
from kernel.abi.errno import Errno, KernelError, errno_name
from kernel.mm.exit import mmput
from kernel.mm.fault import FaultResult, touch
from kernel.mm.fork import dup_mm, new_mm
from kernel.mm.madvise import do_madvise, do_mseal
from kernel.mm.mlock import do_mlock, do_munlock
from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, vm_mmap
from kernel.mm.mprotect import do_mprotect
from kernel.mm.mremap import MremapRequest, do_mremap
from kernel.mm.munmap import do_munmap
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, VM_LOCKED, VM_SHARED, MmStruct
from kernel.syscalls.table import TABLE_64, compile_entry
from tests.kernel.fakes import make_kernel

BASE = 0x1000_0000
NR_ARENA_PAGES = 256
_PROT = {"r": 1, "w": 2, "x": 4, "-": 0}
_MREMAP = {"M": 1, "F": 2, "D": 4, "-": 0}


def prot_of(text: str) -> int:
    return sum(_PROT[c] for c in text)


def _signal(result: FaultResult) -> str:
    code = {FaultResult.SIGSEGV_MAPERR: "sig11 code1", FaultResult.SIGSEGV_ACCERR: "sig11 code2"}
    return code.get(result, result.name)


class _NoFiles:
    """A descriptor table without descriptors."""

    def get(self, fd: int) -> Any:
        raise KernelError(Errno.EBADF, "descriptor not open")


class Script:
    """Runs operations in one address space, and in forked ones; collects what they print."""

    def __init__(self, kernel: Any, mm: MmStruct | None = None) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.after_step: Any = None
        """Called with the kernel after every operation."""
        if mm is None:
            mm = new_mm(kernel)
            kernel.mms.append(mm)
            arch_pick_mmap_layout(mm)
        self.mm = mm

    def run(self, script: list[str]) -> None:
        position = 0
        while position < len(script):
            op = script[position]
            position += 1
            if op == "f{":
                position = self._fork(script, position)
                continue
            self.step(op)

    def _fork(self, script: list[str], position: int) -> int:
        parent = self.mm
        end, depth = position, 1
        while depth:
            depth += {"f{": 1, "f}": -1}.get(script[end], 0)
            end += 1
        self.mm = dup_mm(parent)
        self.kernel.mms.append(self.mm)
        self._checked()
        self.run(script[position : end - 1])
        self.kernel.mms.remove(self.mm)
        mmput(self.mm)
        self.mm = parent
        self._checked()
        self.lines.append("child exit 0")
        return end

    def _checked(self) -> None:
        if self.after_step is not None:
            self.after_step(self.kernel)

    def step(self, op: str) -> None:
        """One operation, printed with its result."""
        if op == "M":
            self.lines.append(self.areas())
        elif op == "D":
            self.lines.append(self.data())
        else:
            try:
                result = self.perform(op)
            except KernelError as error:
                result = errno_name(error.errno)
            self.lines.append(f"{op} {result}")
        self._checked()

    def perform(self, op: str) -> str:
        """The result of one operation; KernelError if it fails."""
        mm = self.mm
        kind, *args = op.split(":")
        if kind == "c":
            return self._call([BASE + int(arg[1:], 16) if arg[0] == "B" else int(arg, 16) for arg in args])
        at = BASE + (int(args[0]) << PAGE_SHIFT)
        if kind in "wrx":
            return self._access(kind, at, args)
        if kind == "v":
            flags = sum(_MREMAP[c] for c in args[3])
            new = BASE + (int(args[4]) << PAGE_SHIFT) if len(args) > 4 else 0
            request = MremapRequest(at, int(args[1]) << PAGE_SHIFT, int(args[2]) << PAGE_SHIFT, flags, new)
            return f"@{(do_mremap(mm, request) - BASE) >> PAGE_SHIFT}"
        len_bytes = int(args[1]) << PAGE_SHIFT
        if kind == "m":
            flags = 0x32 | (0x4000 if "N" in args[3:] else 0)
            vm_mmap(mm, MmapRequest(at, len_bytes, prot_of(args[2]), flags))
        elif kind == "u":
            do_munmap(mm, at, len_bytes)
        elif kind == "p":
            do_mprotect(mm, at, len_bytes, prot_of(args[2]))
        elif kind == "l":
            do_mlock(mm, at, len_bytes, VM_LOCKED)
        elif kind == "k":
            do_munlock(mm, at, len_bytes)
        elif kind == "s":
            do_mseal(mm, at, len_bytes)
        elif kind == "a":
            do_madvise(mm, at, len_bytes, int(args[2]))
        else:
            raise ValueError(f"unknown operation {op}")
        return "ok"

    def _call(self, registers: list[int]) -> str:
        """A system call with raw registers; new addresses outside the arena are unmapped at once."""
        nr, *args = registers
        spec = TABLE_64[nr]
        assert spec is not None
        task = SimpleNamespace(mm=self.mm, files=_NoFiles(), kernel=self.kernel, personality=0)
        value = compile_entry(spec)(task, *args, *[0] * (6 - len(args))) or 0
        if spec.name not in ("mmap", "mremap"):
            return f"={value}"
        page = (value - BASE) >> PAGE_SHIFT
        if 0 <= page < NR_ARENA_PAGES:
            return f"@{page}"
        if spec.name == "mmap":
            do_munmap(self.mm, value, args[1])
        return "@elsewhere"

    def _access(self, kind: str, at: int, args: list[str]) -> str:
        result = touch(self.mm, at, write=kind == "w", execute=kind == "x")
        if result > FaultResult.MAJOR:
            return _signal(result)
        if kind == "w":
            page = int(args[0])
            self.kernel.physmem.mem[self._frame(at)] = int(args[1]) if len(args) > 1 else page % 250 + 1
            return "ok"
        return f"={self.kernel.physmem.mem[self._frame(at)]}" if kind == "r" else "ok"

    def _frame(self, at: int) -> int:
        return self.mm.pt.get(at) & 0xF_FFFF_FFFF_F000

    def areas(self) -> str:
        """``areas`` and start+pages and permissions of every area in the arena."""
        parts = []
        for vma in self.mm.areas:
            page = (vma.vm_start - BASE) >> PAGE_SHIFT
            if not 0 <= page < NR_ARENA_PAGES:
                continue
            flags = vma.vm_flags
            perms = "".join(c if flags & bit else "-" for c, bit in zip("rwx", (1, 2, 4), strict=True))
            parts.append(f"{page}+{vma.nr_pages}{perms}{'s' if flags & VM_SHARED else 'p'}")
        return " ".join(["areas", *parts])

    def data(self) -> str:
        """``data`` and the first byte of every readable page that is not zero.  Reads fault pages in, as the
        original's did.
        """
        parts = []
        for vma in self.mm.areas:
            if not vma.vm_flags & 7:
                continue
            for at in range(vma.vm_start, vma.vm_end, PAGE_SIZE):
                page = (at - BASE) >> PAGE_SHIFT
                if 0 <= page < NR_ARENA_PAGES and touch(self.mm, at) <= FaultResult.MAJOR:
                    value = self.kernel.physmem.mem[self._frame(at)]
                    if value:
                        parts.append(f"{page}={value}")
        return " ".join(["data", *parts])


def run_script(
    script: list[str], profile: str, bugs: tuple[str, ...] = (), after_step: Any = None, **parts: str
) -> str:
    """The whole output of ``script`` on a fresh kernel, the final areas and data included."""
    kernel = make_kernel(1024, profile, **({"bugs": bugs} if bugs else {}), **parts)  # type: ignore[arg-type]
    runner = Script(kernel)
    runner.after_step = after_step
    runner.run(script)
    runner.lines += [runner.areas(), runner.data()]
    mmput(runner.mm)
    kernel.mms.remove(runner.mm)
    return "".join(line + "\n" for line in runner.lines)
