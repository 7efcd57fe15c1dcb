"""What a page fault has changed, and what that cost: the difference between the moment before it and the one after.

``fault:begin`` comes before the kernel changes anything, ``exceptions:page_fault_user`` at the end; what is noted at
the first and looked at again at the second needs no help from the code between them.

    changed   the stack area that has grown, the anon_vma that was made or adopted, the page that was copied, page
              tables that were allocated, neighbours that were mapped too (fault-around), the swap slot that was left
    cost      virtual time, and pages zeroed, copied, read from files, read from swap, reclaimed to make room
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernel.clock import NS_PER_FAULT
from kernel.entry import SYS_ENTER
from kernel.mm.fault import FAULT_AROUND_PAGES, FAULT_BEGIN, FaultResult
from kernel.mm.pagetable import PTE_PRESENT
from kernel.mm.rmap.policy import ANON_VMA_PREPARE
from kernel.mm.swap import PTE_ENTRY_SHIFT, SWAP_OFFSET_MASK, SWAP_TYPE_SHIFT
from kernel.mm.types import PAGE_MASK, PAGE_SHIFT, VM_GROWSDOWN, MmStruct, Vma
from kernel.syscalls.names import syscall_name
from kernel.task.deliver import SIGNAL_DELIVER
from kernel.trace import Probes, Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.task.task import Task

_KB_SHIFT = PAGE_SHIFT - 10

RULES: Mapping[str, str] = {
    "zero": "first touch of private anonymous memory by reading: the zero page, read-only",
    "anonymous": "first touch of private anonymous memory by writing: a new page of zeros",
    "cow": "write to an anonymous page (or the zero page) that is mapped read-only and has other users: a copy",
    "reuse": "write to an anonymous page that is mapped read-only and has no other user any more: made writable",
    "file": "read or execute of a private file mapping: the page of the page cache",
    "file_cow": "write to a private file mapping: a copy of the page of the page cache",
    "shared": "access to a shared mapping: the page of the page cache itself, dirty when it is written",
    "special": "access to a page of the kernel's own ([vdso], [vvar])",
    "stack": "access below a stack: the area grows down, and gets a page",
    "swap": "the page was on swap (or still in the swap cache)",
    "spurious": "the page tables allow the access already (the processor used an old translation)",
}
"""Which rule served a fault, by kind."""

REFUSALS: Mapping[str, str] = {
    "SIGSEGV_MAPERR": "no area there, and no stack above that may grow so far",
    "SIGSEGV_ACCERR": "the area does not allow this access",
    "SIGBUS_ADRERR": "no page there: beyond the end of the file, or an error of the device",
    "OOM": "no memory",
}
"""And which one refused it, by result."""


def rule_of(kind: str, result: FaultResult) -> str:
    return RULES.get(kind) or REFUSALS[result.name]


@dataclass(slots=True)
class _Before:
    """Before the fault."""

    mm: MmStruct
    page: int
    stack: Vma | None
    """The area above, if it may grow down to the address."""
    stack_start: int
    nr_tables: int
    pte: int
    around: tuple[int, ...]
    """The absent pages of the fault-around window."""
    had_file_page: bool
    pgpgin: int
    pswpin: int
    pgsteal_direct: int


class FaultWatch:
    """Attached while faults are traced; :meth:`take` belongs to the fault that has just ended."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._before: _Before | None = None
        self._prepared: tuple[Vma, str] | None = None
        self._delivering: set[Task] = set()
        """Tasks that have been given a signal since their last system call."""
        self._probes = Probes()

    def attach(self) -> None:
        for point, probe in (
            (FAULT_BEGIN, self._on_begin),
            (ANON_VMA_PREPARE, self._on_prepare),
            (SIGNAL_DELIVER, self._on_signal),
            (SYS_ENTER, self._on_enter),
        ):
            self._probes.attach(point, probe)

    def detach(self) -> None:
        self._probes.detach_all()

    # ---- before --------------------------------------------------------------------------------------------------

    def _on_begin(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        mm, vaddr, _access = values
        vmstat = self._kernel.vmstat
        page = vaddr & PAGE_MASK
        vma = mm.areas.find_vma(vaddr)
        grows = vma is not None and vaddr < vma.vm_start and bool(vma.vm_flags & VM_GROWSDOWN)
        inside = vma if vma is not None and not grows and vaddr >= vma.vm_start else None
        self._prepared = None
        self._before = _Before(
            mm,
            page,
            vma if grows else None,
            vma.vm_start if grows and vma is not None else 0,
            mm.pt.nr_tables,
            mm.pt.get(page),
            _absent_around(mm, page, inside),
            inside is not None and _has_file_page(inside, page),
            vmstat.pgpgin,
            vmstat.pswpin,
            vmstat.pgsteal_direct,
        )

    def _on_prepare(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        vma, how, _anon_vma = values
        self._prepared = (vma, how)

    def _on_signal(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        self._delivering.add(values[0])

    def _on_enter(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        self._delivering.discard(values[0])

    # ---- after ---------------------------------------------------------------------------------------------------

    def take(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """``rule``, ``changed``, ``cost`` and ``syscall`` of the fault whose ``exceptions:page_fault_user`` has these
        values."""
        before, self._before = self._before, None
        prepared, self._prepared = self._prepared, None
        rule = rule_of(values["kind"], values["result"])
        if before is None:  # the trace began inside this fault
            return {"rule": rule, "changed": None, "cost": None, "syscall": None}
        zeroed, copied = self._work(before, values)
        stack = before.stack
        changed = {
            "area": None if stack is None or stack.vm_start == before.stack_start else _growth(stack, before),
            "anon_vma": None if prepared is None else _anon_vma(*prepared),
            "copied": {"from": values["old_pfn"], "to": values["pfn"]} if copied else None,
            "page_tables": before.mm.pt.nr_tables - before.nr_tables,
            "around": sum(1 for page in before.around if before.mm.pt.get(page) & PTE_PRESENT),
            "swap_slot": self._swap_slot(before),
        }
        vmstat = self._kernel.vmstat
        read_swap = vmstat.pswpin - before.pswpin
        cost = {
            "ns": NS_PER_FAULT if values["ip"] and not self._kernel.clock.is_host else 0,
            "zeroed": zeroed,
            "copied": copied,
            "read_file": (vmstat.pgpgin - before.pgpgin >> _KB_SHIFT) - read_swap,
            "read_swap": read_swap,
            "reclaimed": vmstat.pgsteal_direct - before.pgsteal_direct,
        }
        task = values["task"]
        context = None if values["ip"] or task is None else self.kernel_context(task)
        return {"syscall": context, "rule": rule, "changed": changed, "cost": cost}

    def kernel_context(self, task: Task) -> str:
        """For what the kernel has accessed the memory of ``task``: a system call, or ``signal``, ``exit``, ``exec``."""
        if task in self._delivering:
            return "exit" if task.exiting else "signal"
        if task.syscall_nr >= 0:
            return syscall_name(task.syscall_nr)
        return "exit" if task.exiting else "exec"

    def _work(self, before: _Before, values: Mapping[str, Any]) -> tuple[int, int]:
        """Pages zeroed, pages copied."""
        pfn, old_pfn, vma = values["pfn"], values["old_pfn"], values["vma"]
        zero_pfn = self._kernel.pages.zero_pfn
        if pfn is None or pfn == zero_pfn:
            return 0, 0
        if old_pfn is not None:
            return (1, 0) if old_pfn == zero_pfn else (0, int(old_pfn != pfn))
        if before.pte or vma is None or vma.vm_ops is not None:
            return 0, 0
        if vma.vm_file is None:
            return 1, 0
        mapping = vma.vm_file.f_mapping
        return int(mapping is not None and mapping.is_shmem and not before.had_file_page), 0

    def _swap_slot(self, before: _Before) -> dict[str, Any] | None:
        """The slot that the page table named before, and whether it is free now."""
        pte = before.pte
        if not pte or pte & PTE_PRESENT:
            return None
        entry = pte >> PTE_ENTRY_SHIFT
        swp_type, offset = entry >> SWAP_TYPE_SHIFT, entry & SWAP_OFFSET_MASK
        area = self._kernel.swap.areas[swp_type]
        return {"area": swp_type, "slot": offset, "freed": area is None or not area.counts[offset]}


def _absent_around(mm: MmStruct, page: int, vma: Vma | None) -> tuple[int, ...]:
    """What fault-around may map beside ``page``."""
    if vma is None or vma.vm_file is None:
        return ()
    window = FAULT_AROUND_PAGES << PAGE_SHIFT
    first = max(page & -window, vma.vm_start)
    last = min((page & -window) + window, vma.vm_end)
    get = mm.pt.get
    return tuple(at for at in range(first, last, 1 << PAGE_SHIFT) if at != page and not get(at))


def _has_file_page(vma: Vma, page: int) -> bool:
    """Whether the page cache (or swap, for shared memory) has the page already."""
    mapping = vma.vm_file.f_mapping if vma.vm_file is not None else None
    if mapping is None:
        return False
    pgoff = (page - vma.vm_start >> PAGE_SHIFT) + vma.vm_pgoff
    return pgoff in mapping.pages or pgoff in mapping.swapped


def _growth(stack: Vma, before: _Before) -> dict[str, Any]:
    return {
        "end": f"{stack.vm_end:#x}",
        "old_start": f"{before.stack_start:#x}",
        "start": f"{stack.vm_start:#x}",
    }


def _anon_vma(vma: Vma, how: str) -> dict[str, Any]:
    """``how``: ``new``, or from which neighbour it was adopted."""
    neighbour = {"next": vma.vm_next, "prev": vma.vm_prev}.get(how)
    return {
        "id": None if vma.anon_vma is None else vma.anon_vma.id,
        "how": "made" if how == "new" else "adopted",
        "from": None if neighbour is None else {"start": f"{neighbour.vm_start:#x}", "end": f"{neighbour.vm_end:#x}"},
    }


def changed_text(changed: Mapping[str, Any] | None) -> str:
    """``anon_vma #1 made, 1 table``."""
    if changed is None:
        return "-"
    parts = []
    area, anon_vma, slot = changed["area"], changed["anon_vma"], changed["swap_slot"]
    if area is not None:
        parts.append(f"stack +{int(area['old_start'], 16) - int(area['start'], 16) >> 10}K")
    if anon_vma is not None:
        parts.append(f"anon_vma{'' if anon_vma['id'] is None else ' #' + str(anon_vma['id'])} {anon_vma['how']}")
    if changed["page_tables"]:
        parts.append(f"{changed['page_tables']} table{'s' if changed['page_tables'] > 1 else ''}")
    if changed["around"]:
        parts.append(f"{changed['around']} around")
    if slot is not None:
        parts.append(f"slot {slot['slot']} {'freed' if slot['freed'] else 'kept'}")
    return ", ".join(parts) or "-"


def cost_text(cost: Mapping[str, Any] | None) -> str:
    """``1us, copied``: virtual time, and the pages that were worked on (their number unless it is one)."""
    if cost is None:
        return "-"
    work = [_count(cost["read_file"] + cost["read_swap"], "read"), _count(cost["reclaimed"], "reclaimed")]
    work += [_count(cost["zeroed"], "zeroed"), _count(cost["copied"], "copied")]
    return ", ".join([f"{cost['ns'] / 1000:g}us", *filter(None, work)])


def _count(number: int, done: str) -> str:
    return "" if not number else done if number == 1 else f"{number} {done}"
