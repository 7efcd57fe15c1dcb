"""The instruction stream: which instructions each task has executed, in order, each once.

Made from the basic blocks that the processor has begun and from where exceptions interrupted them
(``emu/cpu/insn_watch.py``).  Blocks are taken apart when the kernel is entered, before it can change the memory that
they lie in, and their instructions are looked up (symbol, source line, text) once for as long as the area and the bytes
stay what they are.

An instruction that faults is executed when it has been retried with success; one that repeats (``rep movsb``) counts as
one, when its last round is over.

Deliberate difference: of a program that stores into its own code, the bytes that are there at the next kernel entry are
shown.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from emu.disasm import instruction_lengths
from emu.trace.locate import Locator, code_record
from emu.trace.peek import peek_code
from kernel.clock import NS_PER_BLOCK
from kernel.mm.area import VMA_STORE, VMA_UNLINK
from kernel.mm.exit import EXIT_MMAP
from kernel.mm.types import VM_EXEC, MmStruct
from kernel.task.exit import SCHED_PROCESS_EXIT
from kernel.trace import Probes, Tracepoint

if TYPE_CHECKING:
    from emu.cpu.cpu import Cpu
    from emu.cpu.insn_watch import Block, InsnWatch, Interruption
    from kernel.kernel import Kernel
    from kernel.task.task import Task

_DIRECT = re.compile(r"(?:\w+ )?(?:call|j\w+|loop\w*) (0x[0-9a-f]+)")
_INDIRECT = re.compile(r"(?:\w+ )?(?:call|jmp|ret|iret|syscall|int)")
"""With one prefix: ``notrack jmp``, ``bnd call``, ``repz ret``."""


class Insn(NamedTuple):
    """One instruction of a program."""

    address: int
    code: dict[str, Any]
    """As records have it."""
    repeats: bool
    """A string instruction with a repeat prefix."""


class InsnScope(Enum):
    BEFORE_FAULTS = "around-fault"
    """The last instructions before each fault."""
    ALL = "all"


class InsnRequest(NamedTuple):
    """What a trace is to show of the instructions that ``cpu`` executes."""

    cpu: Cpu
    scope: InsnScope
    nr_before_fault: int = 0


OnInsn = Callable[["Task", Insn, int], None]
"""Task, instruction, virtual time."""


@dataclass(slots=True)
class _Stream:
    """One task's."""

    history: deque[Insn]
    """The last ones that were executed, if anybody will ask for them."""
    repeating: Insn | None = None
    """Executed, but maybe not for the last time."""
    interrupted: Insn | None = None
    """The one that has just faulted."""


@dataclass(slots=True)
class _Code:
    """The blocks of one address space that have been taken apart: bytes and instructions by address and length."""

    blocks: dict[tuple[int, int], tuple[bytes, tuple[Insn, ...]]] = field(default_factory=dict)


class InsnStream:
    """Attached between :meth:`attach` and :meth:`detach`.

    ``nr_kept`` instructions of each task are kept for :meth:`before_fault`; ``on_insn`` is told of every instruction.
    """

    def __init__(self, kernel: Kernel, cpu: Cpu, locator: Locator, nr_kept: int, on_insn: OnInsn | None = None) -> None:
        self._kernel = kernel
        self._cpu = cpu
        self._locator = locator
        self._nr_kept = nr_kept
        self._on_insn = on_insn
        self._streams: dict[Task, _Stream] = {}
        self._code: dict[MmStruct, _Code] = {}
        self._watch: InsnWatch | None = None
        self._probes = Probes()

    def attach(self) -> None:
        """EngineError where the host cannot have it."""
        # Every block is at least one instruction, but for the further rounds of one that repeats.
        at_most = None if self._on_insn is not None else 2 * self._nr_kept + 2
        self._watch = self._cpu.watch_instructions(self._on_blocks, at_most)
        for point, probe in (
            (VMA_STORE, self._on_area),
            (VMA_UNLINK, self._on_area),
            (EXIT_MMAP, self._on_end_of_space),
            (SCHED_PROCESS_EXIT, self._on_exit),
        ):
            self._probes.attach(point, probe)

    def detach(self) -> None:
        self._probes.detach_all()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def before_fault(self, task: Task | None, ip: int) -> list[dict[str, Any]]:
        """The last instructions of ``task``, the faulting one at the end; ``ip`` is 0 for a fault of the kernel, which
        the system call comes before."""
        stream = self._streams.get(task) if task is not None else None
        if stream is None or task is None:
            return []
        found = list(stream.history)
        if stream.repeating is not None:
            found.append(stream.repeating)
        if ip:
            if stream.interrupted is None:  # its own fetch faulted
                stream.interrupted = Insn(ip, code_record(self._locator.code(task.mm, ip)), False)
            found.append(stream.interrupted)
        return [insn.code for insn in found[-self._nr_kept :]]

    # ---- what changes ------------------------------------------------------------------------------------------------

    def _on_area(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        mm, vma = values
        if vma.vm_flags & VM_EXEC:
            self._code.pop(mm, None)

    def _on_end_of_space(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        self._code.pop(values[0], None)

    def _on_exit(self, _point: Tracepoint, values: tuple[Any, ...]) -> None:
        self._streams.pop(values[0], None)

    # ---- blocks become instructions ----------------------------------------------------------------------------------

    def _on_blocks(self, blocks: list[Block], interruption: Interruption | None) -> None:
        task = self._kernel.current
        if task is None or task.mm is None:
            return
        stream = self._streams.get(task)
        if stream is None:
            stream = self._streams[task] = _Stream(deque(maxlen=self._nr_kept))
        stream.interrupted = None
        if not blocks:
            return
        time_ns, ns_per_block = self._time_of(blocks)
        insns = self._insns(task.mm, blocks[0])
        for index, block in enumerate(blocks):
            following = blocks[index + 1] if index + 1 < len(blocks) else None
            next_insns = self._insns(task.mm, following) if following is not None else ()
            for _ in range(self._rounds(block, insns)):
                self._execute(task, stream, insns, time_ns)
                time_ns += ns_per_block
            last_round = insns
            if following is not None and block.address <= following.address < block.address + block.nr_bytes:
                last_round = _executed(insns, block, following)
            elif following is None and interruption is not None:
                last_round = _before(insns, block, interruption.ip)
            self._execute(task, stream, last_round, time_ns)
            time_ns += ns_per_block
            if len(last_round) < len(insns) and following is None:
                self._interrupt(stream, insns[len(last_round)])
            insns = next_insns

    def _time_of(self, blocks: Sequence[Block]) -> tuple[int, int]:
        """When the first block began, and how long each takes."""
        clock = self._kernel.clock
        if clock.is_host:
            return clock.now_ns(), 0
        nr_blocks = sum(block.times for block in blocks)
        return clock.now_ns() - NS_PER_BLOCK * (nr_blocks - 1), NS_PER_BLOCK

    def _rounds(self, block: Block, insns: Sequence[Insn]) -> int:
        """How often the block is to be executed before its last round: for a history the last rounds are enough."""
        if self._on_insn is not None:
            return block.times - 1
        return min(block.times - 1, self._nr_kept // max(1, len(insns)) + 1)

    @staticmethod
    def _interrupt(stream: _Stream, insn: Insn) -> None:
        """``insn`` has not been executed, or not to its end."""
        stream.interrupted = insn
        if stream.repeating is not None and stream.repeating.address == insn.address:
            stream.repeating = None

    def _execute(self, task: Task, stream: _Stream, insns: Sequence[Insn], time_ns: int) -> None:
        for insn in insns:
            before = stream.repeating
            if before is not None:
                if before.address == insn.address:
                    continue
                stream.repeating = None
                self._done(task, stream, before, time_ns)
            if insn.repeats:
                stream.repeating = insn
            else:
                self._done(task, stream, insn, time_ns)

    def _done(self, task: Task, stream: _Stream, insn: Insn, time_ns: int) -> None:
        stream.history.append(insn)
        if self._on_insn is not None:
            self._on_insn(task, insn, time_ns)

    # ---- bytes become instructions -----------------------------------------------------------------------------------

    def _insns(self, mm: MmStruct, block: Block) -> tuple[Insn, ...]:
        known = self._code.get(mm)
        if known is None:
            known = self._code[mm] = _Code()
        key = block.address, block.nr_bytes
        code = peek_code(mm, *key)
        found = known.blocks.get(key)
        if found is None or found[0] != code:
            found = known.blocks[key] = code, tuple(self._take_apart(mm, block.address, code))
        return found[1]

    def _take_apart(self, mm: MmStruct, address: int, block: bytes) -> list[Insn]:
        insns = []
        for length in instruction_lengths(block):
            code = code_record(self._locator.code(mm, address))
            text = code["insn"] or ""
            insns.append(Insn(address, code, text.startswith("rep") and not text.endswith("ret")))
            address += length
        return insns


def _before(insns: tuple[Insn, ...], block: Block, ip: int) -> tuple[Insn, ...]:
    """What has been executed of a block that an exception at ``ip`` has ended."""
    if not block.address <= ip < block.address + block.nr_bytes:
        return insns
    return tuple(insn for insn in insns if insn.address < ip)


def _executed(insns: tuple[Insn, ...], block: Block, following: Block) -> tuple[Insn, ...]:
    """What has been executed of ``block``, when one that begins inside it has followed.

    All of it, if its last instruction leads there: what begins inside it then ends where it ends.  If not, the block
    has changed its own code, and the engine has begun anew at the instruction that did it, in a block of its own.
    """
    if following.address + following.nr_bytes == block.address + block.nr_bytes and insns:
        last = insns[-1]
        text = last.code["insn"] or ""
        direct = _DIRECT.match(text)
        leads_there = int(direct[1], 16) == following.address if direct else _INDIRECT.match(text) is not None
        if leads_there or (last.repeats and last.address == following.address):
            return insns
    return tuple(insn for insn in insns if insn.address < following.address)
