"""Tracepoint values become records: dictionaries of plain values that JSON can hold, the only source of every format.

A record has ``type`` (``fault``, ``syscall``, ``signal``, ``exit``, ``insn`` or ``event``), ``n`` (its number in the
trace), ``ts_ns`` (virtual time), ``pid`` (the task's own id, strace's habit), ``tgid`` and ``comm``.  Addresses are
"0x..." strings, because JSON numbers lose bits beyond 53; all other numbers are numbers.  Fields may be added, never
renamed.  ``schema/trace-1.json`` describes them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from emu.trace.calls import Call
from emu.trace.explain import refusal_record
from emu.trace.locate import Locator, code_record, permissions
from emu.trace.printer import CallPrinter, unknown_call
from emu.trace.quote import pointer
from emu.trace.structs_tasks import siginfo_text
from kernel.abi.errno import errno_name
from kernel.abi.signal import SigInfo, si_code_name, signal_name
from kernel.hardware import Reg
from kernel.mm.fault import FaultResult
from kernel.mm.rmap.policy import MERGE_REFUSED, FirstWrite
from kernel.mm.types import MmStruct, Vma
from kernel.syscalls.table import SyscallSpec
from kernel.task.task import Task
from mmu.paging import PF_INSTR, PF_WRITE

if TYPE_CHECKING:
    from emu.trace.insns import Insn
    from kernel.kernel import Kernel

Record = dict[str, Any]
SCHEMA_VERSION = 1

_MASK64 = (1 << 64) - 1
_ADDRESS_NAMES = frozenset(
    "addr address vaddr start end ip old_addr new_addr old_start new_start vm_start vm_end brk stack rip cr2".split()
)


def access_name(error_code: int) -> str:
    if error_code & PF_INSTR:
        return "exec"
    return "write" if error_code & PF_WRITE else "read"


class Recorder:
    """Makes the records of one machine."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.locator = Locator(kernel)
        self._printers: dict[str, CallPrinter] = {}

    def _head(self, kind: str, task: Task | None) -> Record:
        """``n`` and ``ts_ns`` get their values when the record is written."""
        record: Record = {"type": kind, "n": 0, "ts_ns": 0}
        if task is None:
            return record | {"pid": 0, "tgid": 0, "comm": "kernel"}
        return record | {"pid": task.pid, "tgid": task.tgid, "comm": task.comm}

    # ---- faults --------------------------------------------------------------------------------

    def fault(self, values: Mapping[str, Any], fault_nr: int, change: Mapping[str, Any]) -> Record:
        """``exceptions:page_fault_user``; ``fault_nr`` counts all faults of the run, shown or not; ``change`` is what
        :meth:`FaultWatch.take` says of it."""
        task, vma, ip = values["task"], values["vma"], values["ip"]
        record = self._head("fault", task)
        record["fault_nr"] = fault_nr
        record["access"] = access_name(values["error_code"])
        record["kind"] = values["kind"]
        record["result"] = FaultResult(values["result"]).name
        record["address"] = f"{values['vaddr']:#x}"
        record["area"] = None if vma is None else self._area(vma, values["vaddr"])
        record["syscall"] = change["syscall"]
        if not ip and task is not None:  # the kernel's own access to user memory
            ip = task.regs.read(Reg.RIP)
        mm = task.mm if task is not None else None
        record["code"] = self._code(mm, ip)
        where = vma.vm_mm if vma is not None else mm  # exec writes to an mm that is not its task's yet
        record["mm"] = None if where is None else where.id
        record["pfn"] = values["pfn"]
        record["old_pfn"] = values["old_pfn"]
        return record | dict(change)

    def _area(self, vma: Vma, address: int) -> Record:
        place = self.locator.place(vma, address)
        return {
            "name": place.name,
            "start": f"{place.start:#x}",
            "end": f"{place.end:#x}",
            "perms": place.perms,
            "offset": f"{place.offset:#x}",
            "text": str(place),
        }

    def insn(self, task: Task, insn: Insn) -> Record:
        """An instruction that was executed (``--insns all``)."""
        return self._head("insn", task) | {"code": insn.code}

    def _code(self, mm: MmStruct | None, ip: int) -> Record:
        return code_record(self.locator.code(mm, ip))

    # ---- system calls --------------------------------------------------------------------------

    def enter(self, values: Mapping[str, Any]) -> Call:
        """``syscalls:sys_enter``: print what must be printed before the call runs."""
        task, spec = values["task"], values["spec"]
        if spec is None:
            name, texts = unknown_call(values["nr"], values["args"])
            return Call(task, task.mm, name, (), tuple(values["args"]), list(texts))
        call = Call(task, task.mm, spec.name, spec.params, tuple(values["args"]))
        self._printer(spec).enter(call)
        return call

    def syscall(self, call: Call, values: Mapping[str, Any]) -> Record:
        """``syscalls:sys_exit`` of a call that :meth:`enter` has seen."""
        task, spec = values["task"], values["spec"]
        ret, error, reason = values["ret"], values["error"] or 0, values["reason"] or ""
        call.ret, call.error, call.mm = ret, int(error), task.mm
        record = self._head("syscall", task)
        record["name"] = call.name
        record["nr"] = values["nr"]
        if spec is not None:
            printer = self._printer(spec)
            printer.leave(call)
            result = printer.result(call, reason)
        else:
            result = CallPrinter.unknown_result(call, reason)
        record["args"] = self._arguments(call)
        record["ret"] = self._returned(spec, call)
        record["error"] = errno_name(call.error) if call.failed else None
        record["reason"] = reason or None
        record["result_text"] = result
        return record

    def unfinished(self, call: Call, nr: int, result_text: str) -> Record:
        """A call that the task was in when it died or when the trace ended."""
        record = self._head("syscall", call.task)
        call.texts = [
            text if text is not None else pointer(raw) for text, raw in zip(call.texts, call.args, strict=False)
        ]
        return record | {
            "name": call.name,
            "nr": nr,
            "args": self._arguments(call),
            "ret": None,
            "error": None,
            "reason": None,
            "result_text": result_text,
        }

    def _printer(self, spec: SyscallSpec) -> CallPrinter:
        printer = self._printers.get(spec.name)
        if printer is None:
            printer = self._printers[spec.name] = CallPrinter(spec)
        return printer

    def _arguments(self, call: Call) -> list[Record]:
        """``name`` and ``value`` are the declaration's; ``text`` is strace's (a call that strace prints in another
        order, such as clone, has texts only)."""
        if len(call.texts) > len(call.params):
            return [{"name": None, "value": None, "text": text} for text in call.texts]
        return [
            {"name": param.name, "value": self._value(param.kind, call.value(index)), "text": text}
            for index, (param, text) in enumerate(zip(call.params, call.texts, strict=False))
        ]

    @staticmethod
    def _value(kind: str, value: int) -> int | str:
        is_address = kind in ("addr", "path", "buf_in", "buf_out") or ":" in kind
        return f"{value & _MASK64:#x}" if is_address or abs(value) >> 53 else value

    @staticmethod
    def _returned(spec: SyscallSpec | None, call: Call) -> int | str | None:
        if call.ret is None:
            return None
        if call.failed:
            return -1
        if spec is not None and spec.returns == "addr":
            return f"{call.ret & _MASK64:#x}"
        return call.ret

    # ---- signals, ends -------------------------------------------------------------------------

    def signal(self, values: Mapping[str, Any]) -> Record:
        """``signal:signal_deliver``."""
        info = values["info"]
        record = self._head("signal", values["task"])
        record["signal"] = signal_name(info.signo)
        record["code"] = si_code_name(info.signo, info.code)
        record["addr"] = f"{info.addr:#x}" if info.addr else None
        record["info"] = siginfo_text(info.signo, info.code, info.to_bytes())
        return record

    def exit(self, values: Mapping[str, Any]) -> Record:
        """``sched:sched_process_exit``: strace's ``+++ exited with 0 +++``."""
        code = values["exit_code"]
        record = self._head("exit", values["task"])
        record["status"] = None if code & 0x7F else code >> 8 & 0xFF
        record["signal"] = signal_name(code & 0x7F) if code & 0x7F else None
        record["core"] = bool(code & 0x80)
        return record

    # ---- everything else -----------------------------------------------------------------------

    def event(self, name: str, values: Mapping[str, Any]) -> Record:
        """Any other tracepoint: its fields by name."""
        task = values.get("task")
        record = self._head("event", task if isinstance(task, Task) else self._kernel.current)
        record["event"] = name
        if name == MERGE_REFUSED.name:
            record["fields"] = refusal_record(values, self.locator)
            return record
        record["fields"] = {
            field: self._plain(field, value)
            for field, value in values.items()
            if not (field == "task" and value is task)
        }
        return record

    def _plain(self, field: str, value: Any) -> Any:
        """A value that JSON can hold and that is the same in every run."""
        if value is None or isinstance(value, str | bool | float):
            return value
        if isinstance(value, Enum):
            return value.value if isinstance(value.value, str) else value.name
        if isinstance(value, int):
            if field in ("sig", "signo"):
                return signal_name(value)
            return f"{value & _MASK64:#x}" if field in _ADDRESS_NAMES or abs(value) >> 53 else value
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, Vma):
            name = self.locator.area_name(value)
            return f"{value.vm_start:#x}-{value.vm_end:#x} {permissions(value)} {name}"
        if isinstance(value, Task):
            return f"{value.comm}/{value.pid}"
        if isinstance(value, FirstWrite):
            return self._first_write(value)
        if isinstance(value, SigInfo):
            return siginfo_text(value.signo, value.code, value.to_bytes())
        if isinstance(value, list | tuple):
            return [self._plain(field, item) for item in value]
        if isinstance(value, Mapping):
            return {str(key): self._plain(str(key), item) for key, item in value.items()}
        if isinstance(value, MmStruct):
            return f"mm#{value.id}"
        text = repr(value)
        return type(value).__name__ if text.startswith("<") else text  # <...> may hold a host address

    def _first_write(self, write: FirstWrite) -> Record:
        """Who gave an area its anon_vma."""
        task = write.task
        code = self._code(task.mm if task is not None else None, write.ip)
        return {
            "pid": 0 if task is None else task.pid,
            "address": None if write.vaddr is None else f"{write.vaddr:#x}",
            "code": code["text"],
            "source": None if code["file"] is None else f"{posixpath.basename(code['file'])}:{code['line']}",
            "insn": code["insn"],
        }
