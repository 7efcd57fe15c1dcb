"""Who called: the functions that a task is in, and the one of them to ask.

The one to ask is the innermost function of the program itself, because that is whose author reads the report; where
the program has none on the stack (a library works in a thread of its own), the innermost that is not the C library's
wrapper of the system call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from emu.check.model import Chain, Frame
from emu.symbols import Inlined
from emu.trace.locate import CodePlace, Locator
from emu.unwind import Unwinder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel.kernel import Kernel
    from kernel.mm.types import MmStruct
    from kernel.task.task import Task

MAX_FRAMES = 16
_WRAPPERS = frozenset(
    """syscall syscall0 syscall1 syscall2 syscall3 syscall4 syscall5 syscall6 mmap mmap64 munmap mremap mprotect
    pkey_mprotect madvise mlock mlock2 munlock mlockall munlockall brk sbrk mseal prctl""".split()
)
"""Functions that only make the call, without the ``__`` or ``sys_`` before their names; a program may have its own."""


class Callers:
    """The stacks of one machine's tasks."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.locator = Locator(kernel)
        self._unwinder = Unwinder(self.locator)
        self._known: dict[tuple[MmStruct | None, int], list[Frame]] = {}

    def stack(self, task: Task, max_frames: int = MAX_FRAMES) -> tuple[int, ...]:
        """Where ``task`` is in each of its functions now, the innermost first: cheap, for :meth:`chain` to read."""
        return tuple(self._unwinder.addresses(task, max_frames))

    def chain(self, mm: MmStruct | None, stack: Sequence[int]) -> Chain:
        """A stack of ``mm``, or of an address space that it was forked from, in words."""
        frames = tuple(frame for depth, address in enumerate(stack) for frame in self._frames(mm, address, depth))
        return Chain(frames, _site_index(frames, self._program(mm)))

    def _frames(self, mm: MmStruct | None, address: int, depth: int) -> list[Frame]:
        """The functions at one place of the stack: more than one where some were put in line."""
        known = self._known.get((mm, address))
        if known is not None and depth:
            return known
        place = self.locator.code(mm, address)
        frames = _frames_at(place, self._inlined(mm, address))
        if depth:
            frames = self._known[mm, address] = [replace(frame, insn=None) for frame in frames]
        return frames

    def _inlined(self, mm: MmStruct | None, address: int) -> list[Inlined]:
        where = None if mm is None else self.locator.image_at(mm, address)
        return [] if where is None else where[0].inlined_at(where[1])

    def _program(self, mm: MmStruct | None) -> str | None:
        file = mm.exe_file if mm is not None else None
        return None if file is None else self._kernel.vfs.path_text(file.f_path).decode("utf-8", "replace")


def _frames_at(place: CodePlace, inlined: list[Inlined]) -> list[Frame]:
    symbol, source = place.symbol, place.source
    outer = Frame(
        function=None if symbol is None else symbol.name,
        offset=0 if symbol is None else symbol.offset,
        module=place.module,
        file=None if source is None else source.path,
        line=None if source is None else source.line,
        address=place.address,
        insn=place.insn,
    )
    frames = []
    for one in inlined:
        frames.append(replace(outer, function=one.name, offset=0))
        outer = replace(outer, file=one.call.path, line=one.call.line)
    return [*frames, outer]


def _site_index(frames: tuple[Frame, ...], program: str | None) -> int | None:
    if not frames:
        return None
    own = [i for i, frame in enumerate(frames) if frame.module == program]
    candidates = own or list(range(len(frames)))
    return next((i for i in candidates if not _is_wrapper(frames[i])), candidates[0])


def _is_wrapper(frame: Frame) -> bool:
    if frame.function is None:
        return False
    return frame.function.partition("@")[0].lstrip("_").removeprefix("sys_") in _WRAPPERS
