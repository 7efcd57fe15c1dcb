"""What a task does right after one of its mremap calls has failed.

The window is open until the task calls mremap again, executes another program or ends, or has made so many other calls
that what it does has nothing to do with the failure any more.  Copying leaves no system call, so the memory that the
task maps meanwhile is compared with the old range, when that goes or at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emu.check.model import After, Call, Copy, NextCall
from kernel.mm.pagetable import PTE_PRESENT, PTE_SPECIAL
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, MmStruct
from mmu.paging import PTE_PFN_MASK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emu.trace.calls import Call as PrintedCall

MAX_CALLS = 200
MAX_CALLS_KEPT = 12
MAX_PAGES_COMPARED = 256
_STDERR = 2


class Window:
    """Open for one failed call of one task."""

    def __init__(self, call: Call, mm: MmStruct) -> None:
        self.call = call
        self.pending: PrintedCall | None = None
        """The call that the task is in."""
        self._mm = mm
        self._after = After()
        self._mapped: list[tuple[int, int]] = []
        self._brk = mm.brk
        self._start = call.addr & ~4095
        self._end = self._start + (call.old_len + 4095 & ~4095)

    @property
    def is_full(self) -> bool:
        return self._after.nr_calls >= MAX_CALLS

    def enter(self, printed: PrintedCall) -> None:
        """The task begins another call."""
        self.pending = printed
        if printed.name == "munmap" and self._overlaps(printed.args[0], printed.args[1]):
            self._compare()

    def leave(self, record: dict[str, Any], ret: int | None) -> None:
        """It has ended; ``ret`` is None for a call that does not come back."""
        printed, self.pending = self.pending, None
        after = self._after
        text = f"{record['name']}({', '.join(arg['text'] for arg in record['args'])})"
        after.nr_calls += 1
        if len(after.calls) < MAX_CALLS_KEPT:
            after.calls.append(NextCall(record["name"], text, record["result_text"], record["error"], record["pid"]))
        if printed is None or record["error"] is not None or ret is None:
            return
        self._understand(printed.name, printed.args, ret, f"{text} = {record['result_text']}")

    def _understand(self, name: str, args: tuple[int, ...], ret: int, text: str) -> None:
        after = self._after
        if name == "mmap" and args[1] >= min(self.call.new_len, self.call.old_len):
            self._mapped.append((ret, ret + args[1]))
            after.mapped = after.mapped or text
        elif name == "brk" and ret > self._brk:
            if ret - self._brk >= self.call.new_len:
                after.mapped = after.mapped or text
            self._brk = ret
        elif name == "munmap" and self._overlaps(args[0], args[1]):
            after.unmapped = after.unmapped or text
        elif name in ("write", "writev", "pwrite64") and args[0] & 0xFFFF_FFFF == _STDERR:
            after.said = after.said or text

    def _overlaps(self, start: int, len_bytes: int) -> bool:
        return start < self._end and self._start < start + len_bytes

    def retry(self, call: Call) -> None:
        """The task called mremap again."""
        if self._overlaps(call.addr, max(call.old_len, 1)):
            self._after.retried, self._after.retry_error = call.text, call.error

    def close(self) -> After:
        if self._after.copy is None:
            self._compare()
        return self._after

    # ---- copies --------------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        """Is the content of the old range in memory that was mapped since?"""
        for start, end in self._mapped:
            nr_copied = nr_compared = 0
            for vaddr, content in self._pages_with_data():
                twin = start + vaddr - self._start
                if twin + PAGE_SIZE > end:
                    break
                nr_compared += 1
                nr_copied += self._page(twin) == content
            if nr_copied and (self._after.copy is None or nr_copied > self._after.copy.nr_copied):
                self._after.copy = Copy(start, end - start, nr_copied, nr_compared)

    def _pages_with_data(self) -> Iterator[tuple[int, bytes]]:
        """The first resident pages of the old range that are not all zeros."""
        nr_left = MAX_PAGES_COMPARED
        for base, table, i0, i1 in self._mm.pt.leaf_ranges(self._start, self._end):
            for index in range(i0, i1):
                if not self._mm.pt.q[table + index]:
                    continue
                content = self._page(base + (index << PAGE_SHIFT))
                if content is not None and content.count(0) != PAGE_SIZE:
                    yield base + (index << PAGE_SHIFT), content
                    nr_left -= 1
                    if not nr_left:
                        return

    def _page(self, vaddr: int) -> bytes | None:
        pte = self._mm.pt.get(vaddr)
        if not pte & PTE_PRESENT or pte & PTE_SPECIAL:
            return None
        return bytes(self._mm.kernel.physmem.frame((pte & PTE_PFN_MASK) >> PAGE_SHIFT))
