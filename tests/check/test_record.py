"""What is recorded inside a run: the call, whom to ask, its areas, what made a boundary, what came after a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emu.check.model import Boundary, Call, Run
from emu.check.record import MremapCollector
from emu.machine import Machine, MachineConfig

NEVER_SHARED = "2.6.6-rmap39"
VMSCRIPT = "images/vmscript"


def record(*argv: str | Path, kernel: str = NEVER_SHARED, fail: tuple[str, ...] = (), cwd: Path | None = None) -> Run:
    """One run, and through JSON, as it comes out of a process of its own."""
    config = MachineConfig(
        kernel=kernel, fail=fail, env={"PATH": "/usr/bin:/bin"}, cwd=None if cwd is None else str(cwd)
    )
    machine = Machine(config)
    collector = MremapCollector(machine)
    try:
        machine.spawn([str(word) for word in argv])
        machine.run()
        return Run.from_json(json.loads(json.dumps(collector.finish())))
    finally:
        machine.close()


def only_call(run: Run) -> Call:
    [call] = run.calls
    return call


def boundary_of(script: str, kernel: str = "2.6.7") -> Boundary:
    """The first boundary that the mremap at the end of ``script`` meets."""
    return only_call(record(VMSCRIPT, *script.split(), kernel=kernel)).boundaries[0]


class TestTheCall:
    def test_arguments_result_and_rule(self, reacts: Path) -> None:
        call = only_call(record(reacts))
        assert (call.addr, call.old_len, call.new_len, call.flags) == (0x3_0000_0000, 8192, 32768, 1)
        assert (call.error, call.reason) == ("EFAULT", "range spans areas")
        assert call.text == (
            "mremap(0x300000000, 8192, 32768, MREMAP_MAYMOVE) = -1 EFAULT (Bad address: range spans areas)"
        )

    def test_the_program_is_asked_not_the_library(self, reacts: Path, line_of: dict[str, int]) -> None:
        call = only_call(record(reacts))
        assert call.chain.frames[0].function == "mremap" and call.chain.frames[0].object_name == "libc.so.6"
        assert call.site is not None
        assert (call.site.function, call.site.source) == ("grow", f"reacts.c:{line_of['the call']}")
        assert [frame.function for frame in call.chain.frames[1:3]] == ["grow", "main"]

    def test_functions_put_in_line_have_their_frames(self) -> None:
        """p1 calls through two static inline functions of a header: neither is the place to look at."""
        call = only_call(record("images/p1", "2"))
        assert [frame.function for frame in call.chain.frames[:3]] == ["syscall6", "sys_mremap", "main"]
        source = Path("userland/p1.c").read_text().splitlines()
        assert call.site is not None and call.site.line is not None
        assert call.site.file == "userland/p1.c" and "sys_mremap(base" in source[call.site.line - 1]

    def test_threads_and_children(self, reacts: Path) -> None:
        assert only_call(record(reacts, "thread")).task == "1.1"
        assert only_call(record(reacts, "fork")).task == "1.1"
        run = record("/bin/sh", "-c", f"/bin/true; {reacts}")
        assert (only_call(run).task, only_call(run).comm) == ("1.2", "reacts")

    def test_a_failure_on_request_is_that_call_and_no_other(self) -> None:
        run = record("images/remap_realloc", kernel="6.18", fail=("mremap:ENOMEM@3",))
        assert [call.nr for call in run.calls if call.failed] == [3]
        assert run.nr_failed == {"ENOMEM": 1} and run.nr_ok == run.nr_calls - 1
        assert run.calls[2].reason == "made to fail: call 3 of mremap"

    def test_other_memory_calls_that_fail(self) -> None:
        [refusal] = record(VMSCRIPT, "m:0:1:rw", "p:4:1:r", kernel="6.18").refusals
        assert (refusal.name, refusal.error) == ("mprotect", "ENOMEM")
        assert refusal.text.startswith("mprotect(0x200004000, 4096, PROT_READ) = -1 ENOMEM (Cannot allocate memory")


class TestAreas:
    def test_before_and_after(self) -> None:
        call = only_call(record(VMSCRIPT, "m:0:2:rw", "w:0", "v:0:2:4:MF:100", kernel="6.18"))
        assert call.before is not None and call.after is not None
        [before], [after] = call.before.areas, call.after.areas
        assert (before.start, before.end, call.before.nr_pages_with_data) == (0x2_0000_0000, 0x2_0000_2000, 1)
        assert (after.start, after.end, call.after.nr_pages_with_data) == (0x2_0006_4000, 0x2_0006_8000, 1)
        assert not call.boundaries

    def test_many_areas_are_cut_and_counted(self) -> None:
        call = only_call(record("images/p1", "100"))
        assert call.before is not None
        assert (call.before.nr_areas, len(call.before.areas)) == (100, 40)
        assert (call.nr_boundaries, len(call.boundaries)) == (99, 20)

    def test_nothing_mapped(self) -> None:
        call = only_call(record(VMSCRIPT, "v:0:1:2:M", kernel="6.18"))
        assert call.before is not None
        assert (call.error, call.before.nr_areas, call.boundaries) == ("EFAULT", 0, [])


class TestBoundaries:
    def test_two_first_writes(self, reacts: Path, line_of: dict[str, int]) -> None:
        call = only_call(record(reacts))
        [boundary] = call.boundaries
        assert (boundary.address, boundary.reason) == (0x3_0000_1000, "anon_vma")
        lines = [write.chain.site.line for write in boundary.first_writes if write.chain.site is not None]
        assert lines == [line_of["the first write of the lower area"], line_of["the first write of the upper area"]]
        lower, upper = boundary.first_writes
        assert (lower.address, upper.address) == (0x3_0000_0000, 0x3_0000_1000)
        assert (lower.anon_vma, upper.anon_vma) == (boundary.lower.anon_vma, boundary.upper and boundary.upper.anon_vma)
        assert lower.chain.frames[0].insn is not None and lower.chain.frames[0].insn.startswith("mov ")

    def test_a_change_of_protection(self) -> None:
        boundary = boundary_of("m:0:4:rw p:2:2:r v:0:4:5:M")
        assert (boundary.address, boundary.reason, boundary.text) == (
            0x2_0000_2000, "flags", "flags differ: VM_WRITE",
        )  # fmt: skip
        assert [event.name for event in boundary.events] == ["mmap", "mprotect"]
        assert boundary.events[1].text == "mprotect(0x200002000, 8192, PROT_READ)"

    def test_the_last_change_counts(self) -> None:
        boundary = boundary_of("m:0:4:rw p:0:4:rwx p:2:2:rx v:0:4:5:M")
        assert [event.text.partition("(")[0] for event in boundary.events] == ["mprotect", "mprotect"]
        assert boundary.events[-1].text == "mprotect(0x200002000, 8192, PROT_READ|PROT_EXEC)"

    def test_locking(self) -> None:
        boundary = boundary_of("m:0:4:rw l:2:2 v:0:4:5:M")
        assert boundary.text == "flags differ: VM_LOCKED"
        assert boundary.events[-1].text == "mlock(0x200002000, 8192)"

    def test_advice(self) -> None:
        """2.6 never joins what fork does not copy; today it is a flag as others are."""
        for kernel, text in (
            ("6.18", "flags differ: VM_DONTCOPY"),
            ("2.6.7", "a special mapping never joins (VM_DONTCOPY)"),
        ):
            boundary = boundary_of("m:0:4:rw a:2:2:dontfork v:0:4:5:M", kernel)
            assert boundary.text == text
            assert boundary.events[-1].text == "madvise(0x200002000, 8192, MADV_DONTFORK)"

    def test_a_move(self) -> None:
        """The page keeps the offset at which it was first written."""
        run = record(VMSCRIPT, *"m:0:1:rw w:0 m:60:1:rw w:60 v:60:1:1:MF:1 v:0:2:3:M".split(), kernel="2.6.7")
        [boundary] = run.calls[1].boundaries
        assert boundary.reason == "pgoff"
        assert boundary.events[-1].text.startswith("mremap(0x20003c000, 4096, 4096, MREMAP_MAYMOVE|MREMAP_FIXED")

    def test_areas_that_nobody_joined(self) -> None:
        """2.6 never joins when it unlocks."""
        boundary = boundary_of("m:0:2:rw l:1:1 k:1:1 v:0:2:3:M", kernel="2.6.7")
        assert boundary.reason == "unjoined"
        assert [event.name for event in boundary.events][-2:] == ["mlock", "munlock"]

    def test_a_hole(self) -> None:
        boundary = boundary_of("m:0:1:rw m:3:1:rw v:0:4:5:M", kernel="6.18")
        assert (boundary.reason, boundary.upper, boundary.address) == ("hole", None, 0x2_0000_1000)

    def test_the_accident_of_3_0(self) -> None:
        """P10: a written area and an unwritten neighbour."""
        boundary = boundary_of("m:0:1:rw m:1:1:rwx w:1 p:1:1:rw v:0:2:3:M", kernel="6.1")
        assert (boundary.reason, len(boundary.first_writes)) == ("anon_vma", 1)

    def test_a_child_has_its_parents_history(self) -> None:
        run = record(VMSCRIPT, "m:0:4:rw", "p:2:2:r", "f{", "v:0:4:5:M", "f}", kernel="2.6.7")
        [boundary] = only_call(run).boundaries
        assert boundary.events[-1].text == "mprotect(0x200002000, 8192, PROT_READ)"


class TestWhatCameAfter:
    def test_nothing_for_a_call_that_works(self) -> None:
        assert only_call(record(VMSCRIPT, "m:0:1:rw", "v:0:1:2:M", kernel="6.18")).aftermath is None

    def test_a_copy(self, reacts: Path) -> None:
        after = only_call(record(reacts, "copy")).aftermath
        assert after is not None and after.copy is not None
        assert after.mapped is not None and after.mapped.startswith("mmap(NULL, 32768, ")
        assert (after.copy.nr_copied, after.copy.nr_compared) == (2, 2)
        assert after.unmapped == "munmap(0x300000000, 8192) = 0"

    def test_a_retry(self, reacts: Path) -> None:
        run = record(reacts, "pieces")
        after = run.calls[0].aftermath
        assert len(run.calls) == 3 and after is not None
        assert after.retried == (
            "mremap(0x300000000, 4096, 4096, MREMAP_MAYMOVE|MREMAP_FIXED, 0x310000000) = 0x310000000"
        )
        assert after.retry_error is None

    def test_a_retry_that_fails(self) -> None:
        run = record(VMSCRIPT, "m:0:2:rw", "p:1:1:r", "v:0:2:3:M", "v:0:2:4:M", kernel="6.18")
        after = run.calls[0].aftermath
        assert after is not None and after.retry_error == "EFAULT"

    def test_a_call_for_other_memory_is_no_retry(self) -> None:
        run = record(VMSCRIPT, "m:0:2:rw", "p:1:1:r", "m:9:1:rw", "v:0:2:3:M", "v:9:1:2:M", kernel="6.18")
        after = run.calls[0].aftermath
        assert after is not None and after.retried is None

    def test_a_message(self, reacts: Path) -> None:
        after = only_call(record(reacts, "report")).aftermath
        assert after is not None and after.said is not None
        assert after.said.startswith('write(2, "reacts: mremap: Bad address')

    def test_what_a_refused_call_had_destroyed(self, reacts: Path) -> None:
        [gone] = only_call(record(reacts, "fixed")).destroyed
        assert (gone.start, gone.nr_areas, gone.nr_pages_with_data) == (0x3_1000_0000, 1, 1)
        assert not only_call(record(reacts, "fixed", kernel="6.18")).destroyed  # moved: the target is as asked

    def test_a_crash(self, reacts: Path, line_of: dict[str, int]) -> None:
        [end] = record(reacts, "crash").ends
        assert (end.signal, end.exit_status, end.fault_address) == ("SIGSEGV", None, 0xFFF)
        assert end.where.site is not None and end.where.site.line == line_of["the crash"]


@pytest.mark.parametrize("kernel", ["2.6.6", "2.6.6-anonmm", "2.6.7", "one-anon-vma", "6.1", "6.18"])
def test_where_areas_join_there_is_no_boundary(kernel: str) -> None:
    call = only_call(record("images/p1", "4", kernel=kernel))
    assert call.before is not None
    assert (call.error, call.before.nr_areas, call.boundaries) == (None, 1, [])
