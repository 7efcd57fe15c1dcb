"""What can be asked of a machine that stands still, and what can be done to its memory."""

from __future__ import annotations

import re

import pytest

from emu import BadAddress, Machine, NoSuchTask
from emu.inspect.page import Found
from kernel.mm.types import VM_WRITE

FAULTS = ["images/faults"]
CHILD_RUNS = "fault:53"
"""images/faults has forked, and the child has written."""


def at_exit(machine: Machine, argv: list[str]) -> None:
    machine.run_program(argv, until="exit", capture=True)


def test_areas_in_address_order_are_those_of_maps() -> None:
    with Machine() as machine:
        at_exit(machine, FAULTS)
        areas = list(machine.mm().for_each_vma())
        starts = [int(line.split("-")[0], 16) for line in machine.maps_text().splitlines()]
        assert [vma.vm_start for vma in areas] == starts == sorted(starts)
        assert machine.smaps_text().count("VmFlags:") == len(areas)


def test_find_vma_and_vma_lookup_mean_what_they_mean_in_linux() -> None:
    with Machine() as machine:
        at_exit(machine, FAULTS)
        first, *_, stack = machine.mm().for_each_vma()
        assert machine.find_vma(0) is first and machine.vma_lookup(0) is None
        assert machine.find_vma(first.vm_start) is machine.vma_lookup(first.vm_start) is first
        assert machine.vma_lookup(stack.vm_end) is None and machine.find_vma(stack.vm_end) is None


def test_tasks() -> None:
    with Machine() as machine:
        machine.run_program(FAULTS, until=CHILD_RUNS, capture=True)
        parent, child = machine.tasks
        assert machine.task(child.pid) is child
        assert machine.task() is child
        assert machine.mm(parent.pid) is not machine.mm(child.pid)
        assert machine.maps_text(parent.pid).count("\n") == machine.mm(parent.pid).map_count
        with pytest.raises(NoSuchTask, match=f"no process 99; there are {parent.pid}, {child.pid}"):
            machine.task(99)
        machine.run()
        assert machine.tasks == []
        with pytest.raises(NoSuchTask, match="no address space any more"):
            machine.maps_text()


def test_a_page_that_parent_and_child_share() -> None:
    with Machine() as machine:
        machine.run_program(FAULTS, until=CHILD_RUNS, capture=True)
        shared = next(
            page
            for vma in machine.mm().for_each_vma()
            if vma.vm_flags & VM_WRITE and vma.anon_vma is not None
            for address in range(vma.vm_start, vma.vm_end, 4096)
            if (page := machine.page_at(address)).mapcount == 2
        )
        assert shared.pfn is not None and "anon" in shared.flags and shared.refcount == 2
        rows = machine.rmap.walk(shared.pfn)
        assert [row.found for row in rows] == [Found.BOTH] * 2
        assert {row.mm_id for row in rows} == {machine.mm(2).id, machine.mm(3).id}
        assert machine.page(shared.pfn).rows == rows
        assert shared.is_found_by_policy
        assert re.fullmatch(r"<Page 0x\w+: pfn 0x\w+ refcount 2 mapcount 2>", repr(shared))


@pytest.mark.parametrize("kernel", ["2.6.6", "2.6.6-anonmm", "2.6.7", "6.18"])
def test_the_graph_is_that_of_the_verb(kernel: str) -> None:
    with Machine(kernel=kernel) as machine:
        machine.run_program(FAULTS, until=CHILD_RUNS, capture=True)
        graph = machine.rmap.graph()
        assert graph.objects
        assert graph.as_json()["policy"] == machine.kernel.profile.rmap
        assert graph.lines()


@pytest.mark.parametrize("kernel", ["2.6.6", "2.6.6-anonmm", "2.6.7", "6.18"])
def test_a_shared_page_is_paged_out_of_all_and_comes_back(kernel: str) -> None:
    with Machine(kernel=kernel, swap="1M") as machine:
        machine.run_program(FAULTS, until=CHILD_RUNS, capture=True)
        address = next(
            address
            for vma in machine.mm().for_each_vma()
            if vma.anon_vma is not None or kernel in ("2.6.6", "2.6.6-anonmm")
            for address in range(vma.vm_start, vma.vm_end, 4096)
            if (page := machine.page_at(address)).mapcount == 2 and "anon" in page.flags
        )
        before = machine.read_memory(address, 4096)
        assert machine.page_out(address)
        for pid in (2, 3):
            assert machine.page_at(address, pid).swap is not None
        assert repr(machine.page_at(address)) == f"<Page {address:#x}: swap 0:1>"
        assert machine.read_memory(address, 4096) == before
        assert machine.page_at(address).swap is None
        assert machine.run() == 0


def test_reclaim_takes_pages_and_the_program_gets_them_back() -> None:
    argv = ["images/mem_fill", "1"]
    with Machine() as plain:
        assert plain.run_program(argv, capture=True) == 0
    with Machine(swap="4M", check=1) as machine:
        at_exit(machine, argv)
        rss = machine.mm().rss
        freed = machine.reclaim(100)
        assert freed >= 100
        assert machine.mm().swap_pages > 0 and machine.mm().rss < rss
        assert machine.run() == 0
        assert machine.stdout == plain.stdout


def test_reclaim_in_the_middle_of_a_program() -> None:
    with Machine(swap="4M", check=1) as machine:
        machine.spawn(["images/mem_fill", "1"], capture=True)
        for number in (50, 100, 150, 200):
            machine.run(until=f"fault:{number}")
            assert machine.reclaim(20) > 0
        assert machine.run() == 0


def test_memory_is_read_and_written_as_a_debugger_does() -> None:
    with Machine() as machine:
        machine.spawn(["images/hello"], capture=True)
        text = machine.read_memory(0x400000, 0x3000)
        at = 0x400000 + text.index(b"Hello")
        machine.write_memory(at, b"Jello")
        machine.run()
        assert machine.stdout == b"Jello, world\n"
    with Machine() as machine:
        machine.spawn(["images/hello"])
        with pytest.raises(BadAddress, match="read at 0x10"):
            machine.read_memory(0x10, 1)
        with pytest.raises(BadAddress, match="read at 0x403000"):
            machine.read_memory(0x402FF0, 0x20)
        with pytest.raises(BadAddress, match="written at 0x10"):
            machine.write_memory(0x10, b"x")
        with pytest.raises(BadAddress, match="no page is mapped"):
            machine.page_out(0x10)


def test_code_written_while_the_machine_stands_still_is_what_runs() -> None:
    """In the middle of a fault, the code ahead has been translated already."""
    with Machine() as machine:
        stopped = machine.run_program(FAULTS, until="sym:read_file", capture=True)
        assert stopped.address is not None
        machine.write_memory(stopped.address, b"\xb8\x21\x00\x00\x00\xc3")  # mov eax, '!'; ret
        machine.run()
        assert b"file           !LF" in machine.stdout


def test_registers_have_names() -> None:
    with Machine() as machine:
        task = machine.spawn(["images/hello"], capture=True)
        registers = machine.registers()
        assert registers["rip"] == 0x401000 and registers["rsp"] % 16 == 0
        assert machine.registers(task.pid) == registers


def test_stats_are_those_of_the_command_line() -> None:
    with Machine(record_stats=True) as machine:
        machine.run_program(FAULTS, capture=True)
        stats = machine.stats()
        assert stats["faults"]["total"] == machine.kernel.vmstat.pgfault
        assert stats["entries"]["forks"] >= 1
