"""Traces for the tests of reports: real runs, and records made by hand."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emu.report.story import Story
from tests.cli.pagewalk import pagewalk


@functools.cache
def recorded(*args: str) -> tuple[dict[str, Any], ...]:
    """The records of ``pagewalk trace -e all ARGS``."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "trace.jsonl"
        done: subprocess.CompletedProcess[str] = pagewalk(
            "trace", "-e", "all", "--format", "jsonl", "-o", target, *args
        )
        assert done.returncode == 0, done.stderr
        return tuple(json.loads(line) for line in target.read_text().splitlines())


def story_of(records: Sequence[dict[str, Any]]) -> Story:
    story = Story()
    for record in records:
        story.add(record)
    return story.finish()


class Script:
    """Records written by hand: every call is the next one, a microsecond after the last."""

    def __init__(self, **header: Any) -> None:
        self.records: list[dict[str, Any]] = [
            {
                "type": "header", "schema": 1, "tool": "pagewalk", "version": "0", "argv": ["prog"], "seed": 0,
                "events": ["faults", "syscalls", "mm", "areas", "counters"], "ram_bytes": 1 << 24,
                "kernel": "2.6.7", "bugs": [], "rmap": None, "mremap": None, "swap": None, **header,
            }
        ]  # fmt: skip

    def _add(self, what: str, **fields: Any) -> None:
        n = len(self.records)
        head = {"type": what, "n": n, "ts_ns": 5_000_000 + n * 1000, "pid": 7, "tgid": 7, "comm": "prog"}
        self.records.append(head | fields)

    def areas(self, *added: tuple[int, int, str, int | None], removed: Sequence[int] = (), mm: int = 1) -> None:
        self._add(
            "areas",
            mm=mm,
            removed=[hex(start) for start in removed],
            added=[
                {"start": hex(a), "end": hex(b), "perms": perms, "offset": "0x0", "name": "anon", "anon_vma": number}
                for a, b, perms, number in added
            ],
            gone=False,
        )

    def gone(self, mm: int = 1) -> None:
        self._add("areas", mm=mm, removed=[], added=[], gone=True)

    def counters(self, anon: int, mm: int = 1, **more: int) -> None:
        fields = {"rss_file": 0, "rss_shmem": 0, "swap": 0, "page_tables": 1, "areas": 1, "free": 9, "swap_used": 0}
        self._add("counters", mm=mm, rss_anon=anon, **(fields | more))

    def fault(
        self, address: int, kind: str = "anonymous", line: int | None = 1, insn: str = "nop", mm: int = 1
    ) -> None:
        number = sum(record["type"] == "fault" for record in self.records) + 1
        code = {
            "ip": "0x401000", "module": "/prog", "symbol": "f", "offset": "0x4", "insn": insn, "text": "f+0x4 (prog)",
            "file": None if line is None else "/src/prog.c", "line": line,
        }  # fmt: skip
        self._add(
            "fault", fault_nr=number, access="write", kind=kind, result="MINOR", address=hex(address), area=None,
            syscall=None, code=code, mm=mm, pfn=5, old_pfn=None,
        )  # fmt: skip

    def event(self, name: str, **fields: Any) -> None:
        self._add("event", event=name, fields=fields)

    def mremap(self, error: str | None, reason: str | None = None) -> None:
        texts = ("0x1000", "4096", "8192", "MREMAP_MAYMOVE")
        args = [{"name": "a", "value": 0, "text": text} for text in texts]
        result = "0x2000" if error is None else f"-1 {error}"
        self._add("syscall", name="mremap", nr=25, args=args, ret=0, error=error, reason=reason, result_text=result)

    def story(self, status: int | None = 0) -> Story:
        return story_of([*self.records, {"type": "end", "status": status, "counts": {}}])
