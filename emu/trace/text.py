"""Records as lines of text.

A fault is one line of columns, separated by two spaces or more; no column has two spaces in a row but the last, and
an absent value is ``-``.  Instructions before it, when they are wanted, are indented lines under it.  Everything else
is a line that starts with ``[pid N]``, system calls in strace's form, instructions in gdb's (``x/i``).
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

from emu.trace.changes import changed_text, cost_text
from emu.trace.explain import refusal_lines

COLUMNS: tuple[tuple[str, int, str], ...] = (
    ("nr", 6, "number of the fault"),
    ("pid", 4, "the task"),
    ("access", 6, "read, write or exec"),
    ("kind", 14, "the rule that served it, see below; with ,major when a page had to be read from a file or from "
                 "swap; or the signal that it became, and why"),
    ("address", 14, "the address that was accessed"),
    ("area", 24, "its area and the offset there: in the file for a file, from the end for the stack"),
    ("ip", 14, "the instruction that faulted"),
    ("symbol", 28, "its symbol+offset and, in parentheses, the object"),
    ("source", 16, "its source line, when the object has DWARF"),
    ("frame", 12, "the page frame that is mapped now, or old->new"),
    ("changed", 16, "what else changed: `stack +8K` (the area has grown), `anon_vma #3 made` or `adopted` (from a "
                    "neighbour), `1 table` (page tables allocated), `15 around` (pages of a file mapped beside it), "
                    "`slot 7 freed` or `kept` (its place on swap)"),
    ("cost", 11, "virtual time charged (0 for a fault of the kernel itself), and what was done for it: pages read, "
                 "reclaimed (to make room), zeroed, copied; with their number when it is not one"),
    ("instruction", 0, "its disassembly; `in NAME()` when the kernel accessed the memory for a system call, "
                        "`in signal delivery` for a signal's frame"),
)  # fmt: skip
"""(name, least width, meaning)"""

_RESULT_COLUMN = 40
"""Where strace puts the equals sign."""

_RED, _DIM, _PLAIN = "\x1b[31m", "\x1b[2m", "\x1b[0m"
_KIND_COLORS = {"anonymous": "\x1b[32m", "cow": "\x1b[33m", "file_cow": "\x1b[33m", "swap": "\x1b[35m", "bad": _RED}


class TextSink:
    """Writes each record as one line."""

    def __init__(self, stream: BinaryIO, color: bool = False) -> None:
        self._stream = stream
        self._color = color
        self._counts: Counter[str] = Counter()
        self._has_header = False
        self._sources: dict[int, str] = {}
        """By task: the source line of its last instruction."""

    def header(self, record: Mapping[str, Any]) -> None:
        """Text has none: the first fault brings the names of its columns."""

    def write(self, record: Mapping[str, Any]) -> None:
        kind = record["type"]
        if kind == "fault":
            self._counts[_fault_kind(record)] += 1
            if not self._has_header:
                self._has_header = True
                self._line(_DIM + fault_header() + _PLAIN if self._color else fault_header())
        line = _LINES[kind](record)
        if kind == "insn":
            line += self._new_source(record)
        self._line(self._paint(record, line) if self._color else line)
        if kind == "fault" and record.get("insns"):
            for insn in insn_lines(record["insns"], is_fault_of_program=record["syscall"] is None):
                self._line(_DIM + insn + _PLAIN if self._color else insn)

    def end(self, record: Mapping[str, Any]) -> None:
        """The last line counts the faults by kind."""
        if self._counts:
            parts = ", ".join(f"{count} {kind}" for kind, count in sorted(self._counts.items()))
            shown, total = sum(self._counts.values()), record["counts"].get("fault", 0)
            of_all = "" if shown == total else f" of {total}"
            self._line(f"# {shown}{of_all} fault{'s' if total != 1 else ''}: {parts}")
        self._stream.flush()

    def _new_source(self, record: Mapping[str, Any]) -> str:
        """``  ; hello.c:12`` where another source line begins."""
        source = source_text(record["code"])
        if self._sources.get(record["pid"]) == source:
            return ""
        self._sources[record["pid"]] = source
        return "" if source == "-" else f"  ; {source}"

    def _line(self, line: str) -> None:
        self._stream.write(line.encode("utf-8", "replace") + b"\n")

    @staticmethod
    def _paint(record: Mapping[str, Any], line: str) -> str:
        if record["type"] == "fault":
            color = _KIND_COLORS.get(record["kind"], "")
        else:
            color = _RED if record.get("error") or record["type"] == "signal" else ""
        return f"{color}{line}{_PLAIN}" if color else line


def fault_header() -> str:
    return _columns(["#nr", *(name for name, _, _ in COLUMNS[1:])])


def _columns(values: list[str]) -> str:
    cells = [f"{value:<{width}}" for value, (_, width, _) in zip(values, COLUMNS, strict=True)]
    return "  ".join(cells).rstrip()


def _fault_kind(record: Mapping[str, Any]) -> str:
    if record["kind"] == "bad":
        return str(record["result"])
    return f"{record['kind']},major" if record["result"] == "MAJOR" else str(record["kind"])


def fault_line(record: Mapping[str, Any]) -> str:
    area, code = record["area"], record["code"]
    insn = code["insn"] or "-"
    if record["syscall"] is not None:
        insn = _CONTEXTS.get(record["syscall"], f"in {record['syscall']}()")
    return _columns(
        [
            f"#{record['fault_nr']}",
            str(record["pid"]),
            record["access"],
            _fault_kind(record),
            record["address"],
            area["text"] if area is not None else "-",
            code["ip"] if code["ip"] != "0x0" else "-",
            code["text"],
            source_text(code),
            frame_text(record),
            changed_text(record["changed"]),
            cost_text(record["cost"]),
            insn,
        ]
    )


_CONTEXTS = {"signal": "in signal delivery", "exit": "in exit"}
"""What the kernel did when it faulted, where that is no system call."""


def source_text(code: Mapping[str, Any]) -> str:
    """``hello.c:12``."""
    return "-" if code["file"] is None else f"{posixpath.basename(code['file'])}:{code['line']}"


_INSN_INDENT = " " * 5
_INSN_WIDTHS = (14, 28, 16)


def insn_lines(insns: Sequence[Mapping[str, Any]], is_fault_of_program: bool) -> list[str]:
    """Address, symbol, source line where another one begins, instruction; ``=>`` marks the one that has faulted."""
    rows, previous = [], ""
    for code in insns:
        source = source_text(code)
        rows.append((code["ip"], code["text"], "" if source == previous else source))
        previous = source
    widths = [
        max(least, *map(len, column)) for least, column in zip(_INSN_WIDTHS, zip(*rows, strict=True), strict=True)
    ]
    lines = []
    for number, (row, code) in enumerate(zip(rows, insns, strict=True), 1):
        mark = "=> " if is_fault_of_program and number == len(insns) else "   "
        cells = [f"{value:<{width}}" for value, width in zip(row, widths, strict=True)]
        lines.append(f"{_INSN_INDENT}{mark}{'  '.join(cells)}  {code['insn'] or '(bad)'}")
    return lines


def insn_line(record: Mapping[str, Any]) -> str:
    """As gdb's ``x/i``: ``0x401004 <main+0x4 (hello)>: mov eax, 0``."""
    code = record["code"]
    symbol = "" if code["text"] == "-" else f" <{code['text']}>"
    return f"{_prefix(record)}{code['ip']}{symbol}: {code['insn'] or '(bad)'}"


def frame_text(record: Mapping[str, Any]) -> str:
    new, old = record["pfn"], record["old_pfn"]
    if new is None:
        return "-"
    return f"{new:#x}" if old is None or old == new else f"{old:#x}->{new:#x}"


def _prefix(record: Mapping[str, Any]) -> str:
    return f"[pid {record['pid']:5}] "


def syscall_line(record: Mapping[str, Any]) -> str:
    call = f"{_prefix(record)}{record['name']}({', '.join(arg['text'] for arg in record['args'])})"
    return f"{call:<{_RESULT_COLUMN - 1}} = {record['result_text']}"


def signal_line(record: Mapping[str, Any]) -> str:
    return f"{_prefix(record)}--- {record['signal']} {record['info']} ---"


def exit_line(record: Mapping[str, Any]) -> str:
    if record["signal"] is None:
        return f"{_prefix(record)}+++ exited with {record['status']} +++"
    core = " (core dumped)" if record["core"] else ""
    return f"{_prefix(record)}+++ killed by {record['signal']}{core} +++"


def event_line(record: Mapping[str, Any]) -> str:
    if record["event"] == "mm:merge_refused":
        return f"{_prefix(record)}mm:merge_refused " + "\n".join(refusal_lines(record["fields"]))
    fields = " ".join(f"{name}={_field(value)}" for name, value in record["fields"].items())
    return f"{_prefix(record)}{record['event']} {fields}".rstrip()


def areas_line(record: Mapping[str, Any]) -> str:
    """One line for each area: ``+`` is new or has changed, ``-`` is gone (by its first address)."""
    prefix = f"{_prefix(record)}mm #{record['mm']}"
    if record["gone"]:
        return f"{prefix} gone"
    lines = [f"{prefix} - {int(start, 16):08x}" for start in record["removed"]]
    for area in record["added"]:
        anon_vma = "" if area["anon_vma"] is None else f"  anon_vma #{area['anon_vma']}"
        start, end = int(area["start"], 16), int(area["end"], 16)
        lines.append(f"{prefix} + {start:08x}-{end:08x} {area['perms']} {area['name']}{anon_vma}")
    return "\n".join(lines)


def counters_line(record: Mapping[str, Any]) -> str:
    names = ("rss_anon", "rss_file", "rss_shmem", "swap", "page_tables", "areas", "free", "swap_used")
    return f"{_prefix(record)}mm #{record['mm']} " + " ".join(f"{name}={record[name]}" for name in names)


def _field(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_field, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}={_field(item)}" for key, item in value.items()) + "}"
    text = "-" if value is None else str(value)
    return f'"{text}"' if " " in text else text


_LINES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "fault": fault_line,
    "syscall": syscall_line,
    "signal": signal_line,
    "exit": exit_line,
    "insn": insn_line,
    "event": event_line,
    "areas": areas_line,
    "counters": counters_line,
}
