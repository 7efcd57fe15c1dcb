"""execve: what a new program finds, and what execve refuses.  execve(2), elf(5), getauxval(3), vdso(7)."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from elftools.elf.elffile import ELFFile

from kernel.abi.auxv import Auxv
from kernel.abi.errno import Errno, KernelError
from kernel.abi.signal import SIG_IGN, SIGSEGV, SIGUSR1, sigmask
from kernel.hardware import Reg
from kernel.mm.types import VM_EXEC, VM_GROWSDOWN
from kernel.mm.usercopy import copy_from_user
from kernel.task.binfmt_elf import ExecFatal
from kernel.task.binfmt_script import parse_script
from kernel.task.exec import do_execve
from kernel.task.fork import spawn_task
from kernel.task.task import Task, TaskState
from kernel.vdso import IMAGE_PATH
from tests.task.harness import DATA, GONE, Sim, make_elf

PIE_BASE = 0x5555_5555_4000


@pytest.fixture
def sim() -> Sim:
    return Sim()


def execve(sim: Sim, task: Task, path: str, argv: list[bytes] | None = None, envp: list[bytes] | None = None) -> object:
    """execve with strings that lie in the task's memory."""
    place = DATA + 0x4000
    tables = []
    for strings in ([b"prog"] if argv is None else argv, envp or []):
        pointers = []
        for string in strings:
            sim.poke(task, place, string + b"\0")
            pointers.append(place)
            place += len(string) + 1
        place = (place + 7) & ~7
        tables.append(place)
        sim.poke(task, place, struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0))
        place += 8 * len(pointers) + 8
    sim.poke(task, DATA, path.encode() + b"\0")
    return sim.call(task, "execve", DATA, *tables)


class Stack:
    """The new program's stack, parsed from RSP up as a C library does."""

    def __init__(self, sim: Sim, task: Task) -> None:
        self.sim, self.task = sim, task
        self.sp = task.regs.read(Reg.RSP)
        address = self.sp
        argc = sim.u64(task, address)
        self.argv = [self.string(sim.u64(task, address + 8 + 8 * i)) for i in range(argc)]
        address += 8 + 8 * argc
        assert sim.u64(task, address) == 0
        address += 8
        self.envp = []
        while pointer := sim.u64(task, address):
            self.envp.append(self.string(pointer))
            address += 8
        address += 8
        self.auxv: dict[int, int] = {}
        while kind := sim.u64(task, address):
            assert kind not in self.auxv
            self.auxv[kind] = sim.u64(task, address + 8)
            address += 16
        self.end = address + 16

    def string(self, address: int) -> bytes:
        assert self.task.mm is not None
        data = copy_from_user(self.task.mm, address, min(256, 0x7FFF_FFFF_F000 - address))
        return data.split(b"\0", 1)[0]


# ---- what the program finds ----------------------------------------------------------------------


def test_a_static_program(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process()
    assert execve(sim, task, "/prog", [b"prog", b"one", b""], [b"A=1", b"B=2"]) is GONE
    regs = task.regs
    assert regs.read(Reg.RIP) == 0x40_1000 and regs.read(Reg.RDX) == 0 and regs.read(Reg.FS_BASE) == 0
    assert regs.read(Reg.RSP) % 16 == 0
    stack = Stack(sim, task)
    assert stack.argv == [b"prog", b"one", b""] and stack.envp == [b"A=1", b"B=2"]
    mm = task.mm
    assert mm is not None
    assert (mm.start_code, mm.end_code) == (0x40_0000, 0x40_1040)
    assert (mm.start_data, mm.end_data) == (0x40_2000, 0x40_2040)
    assert mm.brk == mm.start_brk == 0x40_4000
    assert sim.peek(task, 0x40_2000, 64) == b"DATA" * 16
    assert sim.peek(task, 0x40_2040, 0x1800) == bytes(0x1800)
    assert task.comm == "prog" and task.did_exec
    assert mm.arg_start == sim.u64(task, stack.sp + 8)
    assert sim.peek(task, mm.arg_start, mm.arg_end - mm.arg_start) == b"prog\0one\0\0"
    assert sim.peek(task, mm.env_start, mm.env_end - mm.env_start) == b"A=1\0B=2\0"


def test_the_auxiliary_vector(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process(uid=1000)
    execve(sim, task, "/prog")
    stack = Stack(sim, task)
    auxv = stack.auxv
    assert auxv[Auxv.AT_PHDR] == 0x40_0040 and auxv[Auxv.AT_PHENT] == 56 and auxv[Auxv.AT_PHNUM] == 3
    assert auxv[Auxv.AT_PAGESZ] == 4096 and auxv[Auxv.AT_CLKTCK] == 100 and auxv[Auxv.AT_FLAGS] == 0
    assert auxv[Auxv.AT_ENTRY] == 0x40_1000 and auxv[Auxv.AT_BASE] == 0
    assert [auxv[key] for key in (Auxv.AT_UID, Auxv.AT_EUID, Auxv.AT_GID, Auxv.AT_EGID)] == [1000] * 4
    assert auxv[Auxv.AT_SECURE] == 0 and auxv[Auxv.AT_MINSIGSTKSZ] >= 1024
    assert stack.string(auxv[Auxv.AT_EXECFN]) == b"/prog"
    assert stack.string(auxv[Auxv.AT_PLATFORM]) == b"x86_64"
    assert len(set(sim.peek(task, auxv[Auxv.AT_RANDOM], 16))) > 4
    assert auxv[Auxv.AT_RSEQ_FEATURE_SIZE] == 28 and auxv[Auxv.AT_RSEQ_ALIGN] == 32
    assert task.mm is not None and len(task.mm.saved_auxv) == 16 * (len(auxv) + 1)


def test_addresses_are_linuxs_without_randomization(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    sim.write_file("/pie", make_elf(e_type=3, base=0, interp=b"/ld.so\0"))
    sim.write_file("/static-pie", make_elf(e_type=3, base=0))
    sim.write_file("/ld.so", make_elf(e_type=3, base=0))
    task = sim.process()
    execve(sim, task, "/prog", [b"./prog"], [b"A=b"])
    assert task.mm is not None
    areas = list(task.mm.areas)
    assert areas[-1].vm_end == 0x7FFF_FFFF_F000 and areas[-1].vm_end - areas[-1].vm_start == 0x2_1000
    assert [(area.vm_start, area.vm_name) for area in areas[-4:-1]] == [
        (0x7FFF_F7FF_7000, "[vvar]"), (0x7FFF_F7FF_B000, "[vvar_vclock]"), (0x7FFF_F7FF_D000, "[vdso]"),
    ]  # fmt: skip
    task = sim.process()
    execve(sim, task, "/pie")
    assert task.mm is not None and task.mm.start_code == PIE_BASE
    assert task.mm.start_brk == PIE_BASE + 0x4000
    auxv = Stack(sim, task).auxv
    assert auxv[Auxv.AT_BASE] == 0x7FFF_F7FF_B000 and auxv[Auxv.AT_PHDR] == PIE_BASE + 64
    assert task.regs.read(Reg.RIP) == auxv[Auxv.AT_BASE] + 0x1000
    assert auxv[Auxv.AT_ENTRY] == PIE_BASE + 0x1000
    task = sim.process()
    execve(sim, task, "/static-pie")
    assert task.mm is not None and task.mm.start_code == 0x7FFF_F7FF_B000
    assert task.mm.start_brk == 0x5555_5555_5000


def test_randomization_follows_the_seed() -> None:
    seen = []
    for seed in (1, 1, 2):
        sim = Sim(seed=seed, aslr=True)
        sim.write_file("/pie", make_elf(e_type=3, base=0, interp=b"/ld.so\0"))
        sim.write_file("/ld.so", make_elf(e_type=3, base=0))
        task = sim.process()
        execve(sim, task, "/pie")
        assert task.mm is not None
        seen.append((task.mm.start_code, task.mm.mmap_base, task.regs.read(Reg.RSP), task.mm.start_brk))
    assert seen[0] == seen[1] != seen[2]
    assert all(a != b for a, b in zip(seen[0], seen[2], strict=True))
    sim = Sim(seed=1, aslr=True)
    sim.write_file("/prog", make_elf())
    task = sim.process()
    sim.call(task, "personality", 0x4_0000)  # ADDR_NO_RANDOMIZE, as setarch -R sets it
    execve(sim, task, "/prog")
    assert task.regs.read(Reg.RSP) > 0x7FFF_FFFF_0000


def test_large_alignment_of_position_independent_programs(sim: Sim) -> None:
    sim.write_file("/pie", make_elf(e_type=3, base=0, interp=b"/ld.so\0", align=0x20_0000))
    sim.write_file("/ld.so", make_elf(e_type=3, base=0))
    sim.write_file("/static-pie", make_elf(e_type=3, base=0, align=0x20_0000))
    for path in ("/pie", "/static-pie"):
        task = sim.process()
        execve(sim, task, path)
        assert task.mm is not None and task.mm.start_code % 0x20_0000 == 0


@pytest.mark.parametrize(("stack_flags", "executable"), [(6, False), (7, True), (None, False)])
def test_pt_gnu_stack(sim: Sim, stack_flags: int | None, executable: bool) -> None:
    sim.write_file("/prog", make_elf(stack_flags=stack_flags))
    task = sim.process()
    execve(sim, task, "/prog")
    assert task.mm is not None
    stack = list(task.mm.areas)[-1]
    assert stack.vm_flags & VM_GROWSDOWN and bool(stack.vm_flags & VM_EXEC) == executable


def test_segments_without_file_part_and_read_only_bss(sim: Sim) -> None:
    only_bss = (1, 6, 0, 0x60_0000, 0x60_0000, 0, 0x2000, 0x1000)
    sim.write_file("/prog", make_elf(extra_phdrs=(only_bss,)))
    task = sim.process()
    assert execve(sim, task, "/prog") is GONE and not task.exiting
    assert sim.peek(task, 0x60_0000, 0x2000) == bytes(0x2000)
    assert task.mm is not None and task.mm.start_brk == 0x60_2000


def test_no_arguments_become_one_empty_argument(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process()
    sim.poke(task, DATA, b"/prog\0")
    assert sim.call(task, "execve", DATA, 0, 0) is GONE
    assert Stack(sim, task).argv == [b""]


def test_the_stack_size_follows_its_limit(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process()
    sim.poke(task, DATA, struct.pack("<QQ", 256 << 20, 512 << 20))
    sim.call(task, "setrlimit", 3, DATA)
    execve(sim, task, "/prog")
    assert task.mm is not None
    assert task.mm.mmap_base == 0x7FFF_FFFF_F000 - (257 << 20)


# ---- the vdso ------------------------------------------------------------------------------------


def test_the_vdso_is_a_shared_object_with_the_symbols_of_vdso_7(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process()
    execve(sim, task, "/prog")
    base = Stack(sim, task).auxv[Auxv.AT_SYSINFO_EHDR]
    image = sim.peek(task, base, 0x2000)
    assert image.startswith(IMAGE_PATH.read_bytes())
    elf = ELFFile(BytesIO(image))
    symbols = {symbol.name: symbol["st_value"] for symbol in elf.get_section_by_name(".dynsym").iter_symbols()}
    for name, number in (
        ("clock_gettime", 228),
        ("gettimeofday", 96),
        ("time", 201),
        ("clock_getres", 229),
        ("getcpu", 309),
    ):
        code = image[symbols[f"__vdso_{name}"] :]
        assert code.startswith(b"\xb8" + struct.pack("<I", number) + b"\x0f\x05\xc3"), name
    versions = [aux.name for _, auxes in elf.get_section_by_name(".gnu.version_d").iter_versions() for aux in auxes]
    assert "LINUX_2.6" in versions and "linux-vdso.so.1" in versions


def test_all_programs_share_the_vdsos_pages(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    tasks = [sim.process(), sim.process()]
    for task in tasks:
        execve(sim, task, "/prog")
        sim.peek(task, 0x7FFF_F7FF_D000, 16)
    pfn = sim.kernel.vdso.text.pfns[0]
    before = sim.kernel.pages.refcount[pfn]
    sim.call(tasks[0], "exit_group", 0)
    assert sim.kernel.pages.refcount[pfn] == before - 1
    assert sim.peek(tasks[1], 0x7FFF_F7FF_D000, 4) == b"\x7fELF"


# ---- what is kept and what is not ----------------------------------------------------------------


def test_signals_descriptors_and_addresses(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process()
    sim.handle(task, SIGUSR1, 0x40_0800)
    sim.handle(task, 12, SIG_IGN)
    sim.block(task, sigmask(40))
    sim.call(task, "kill", task.pid, 40)
    sim.call(task, "pipe2", DATA + 512, 0o2000000)
    sim.call(task, "pipe", DATA + 520)
    keep = sim.u32(task, DATA + 520)
    sim.call(task, "set_robust_list", DATA, 24)
    sim.call(task, "set_tid_address", DATA)
    execve(sim, task, "/prog")
    assert task.sighand.action[SIGUSR1 - 1].handler == 0 and task.sighand.action[11].handler == SIG_IGN
    assert task.blocked == sigmask(40) and task.signal.shared_pending.signal == sigmask(40)
    assert [fd for fd, _ in task.files] == [keep, keep + 1]
    assert task.robust_list == task.clear_child_tid == 0


def test_shared_descriptors_and_actions_become_ones_own(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process()
    child = sim.kernel.tasks[sim.call(task, "clone", 0xF00 | 17, DATA + 0x8000)]
    execve(sim, child, "/prog")
    assert child.files is not task.files and child.sighand is not task.sighand and task.files.refs == 1


def test_a_thread_that_calls_exec_becomes_the_process(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    parent = sim.process()
    leader = sim.fork(parent)
    threads = [sim.thread(leader) for _ in range(3)]
    pid, tid = leader.pid, threads[1].pid
    sim.call(threads[0], "pause")
    assert execve(sim, threads[1], "/prog") is GONE
    task = threads[1]
    assert task.pid == task.tgid == pid and sim.kernel.tasks[pid] is task and tid not in sim.kernel.tasks
    assert list(task.signal.threads) == [task] and task.signal.group_leader is task
    assert leader.state is TaskState.DEAD and threads[0].state is TaskState.DEAD
    assert list(parent.children) == [task] and sim.kernel.pids.pgrp_members(task.signal.pgrp) == [parent, task]
    sim.call(task, "exit_group", 4)
    assert sim.call(parent, "wait4", pid, DATA, 0, 0) == pid and sim.u32(parent, DATA) == 4 << 8


def test_setuid_programs(sim: Sim) -> None:
    sim.write_file("/suid", make_elf(), mode=0o4755)
    task = sim.process(uid=1000)
    execve(sim, task, "/suid")
    creds = task.creds
    assert (creds.uid, creds.euid, creds.suid, creds.fsuid) == (1000, 0, 0, 0) and creds.cap_effective
    assert Stack(sim, task).auxv[Auxv.AT_SECURE] == 1
    assert task.mm is not None and task.mm.dumpable == 0
    other = sim.process(uid=1000)
    sim.call(other, "prctl", 38, 1, 0, 0, 0)
    execve(sim, other, "/suid")
    assert other.creds.euid == 1000 and not other.creds.cap_effective


def test_a_program_its_user_cannot_read_is_not_dumpable(sim: Sim) -> None:
    sim.write_file("/prog", make_elf(), mode=0o711)
    task = sim.process(uid=1000)
    execve(sim, task, "/prog")
    assert task.mm is not None and task.mm.dumpable == 0


def test_comm_is_the_last_component_cut_to_15_bytes(sim: Sim) -> None:
    sim.write_file("/a-program-with-a-long-name", make_elf())
    task = sim.process()
    execve(sim, task, "/a-program-with-a-long-name", [b"other"])
    assert task.comm == "a-program-with-"


# ---- scripts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"#!/bin/sh\n", (b"/bin/sh", None)),
        (b"#! /bin/sh -x -y \t\nmore", (b"/bin/sh", b"-x -y")),
        (b"#!/bin/sh\t-e", (b"/bin/sh", b"-e")),
        (b"#!/bin/sh", (b"/bin/sh", None)),
        (b"\x7fELF", None),
        (b"#", None),
        (b"#!/i\0nterp\n", (b"/i", None)),
    ],
)
def test_parse_script(head: bytes, expected: tuple[bytes, bytes | None] | None) -> None:
    assert parse_script(head) == expected


@pytest.mark.parametrize("head", [b"#!\n", b"#!  \t\n", b"#!" + b" " * 300, b"#!/" + b"x" * 300])
def test_bad_script_lines(head: bytes) -> None:
    with pytest.raises(KernelError) as caught:
        parse_script(head)
    assert caught.value.errno == Errno.ENOEXEC


def test_a_long_argument_is_cut_at_255_bytes() -> None:
    parsed = parse_script(b"#!/bin/sh " + b"a" * 300)
    assert parsed is not None and parsed[1] is not None and len(parsed[1]) == 255 - len(b"#!/bin/sh ")


def test_a_script_gets_interpreter_argument_and_name_in_front(sim: Sim) -> None:
    sim.write_file("/interp", make_elf())
    sim.write_file("/script", b"#!/interp -f x\nhello\n")
    task = sim.process()
    execve(sim, task, "/script", [b"ignored", b"one"])
    stack = Stack(sim, task)
    assert stack.argv == [b"/interp", b"-f x", b"/script", b"one"]
    assert stack.string(stack.auxv[Auxv.AT_EXECFN]) == b"/script" and task.comm == "script"


def test_scripts_may_be_nested_five_deep(sim: Sim) -> None:
    sim.write_file("/s0", make_elf())
    for depth in range(1, 8):
        sim.write_file(f"/s{depth}", f"#!/s{depth - 1}\n".encode())
    task = sim.process()
    assert execve(sim, task, "/s5") is GONE
    assert Stack(sim, task).argv == [b"/s0", b"/s1", b"/s2", b"/s3", b"/s4", b"/s5"]
    task = sim.process()
    assert execve(sim, task, "/s6") == -Errno.ELOOP
    assert task.mm is not None and not task.exiting


def test_execveat_names(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    sim.write_file("/script", b"#!/prog\n")
    task = sim.process()
    sim.poke(task, DATA, b"/prog\0/script\0\0")
    fd = sim.call(task, "open", DATA, 0o2000000)
    script = sim.call(task, "open", DATA + 6, 0o2000000)
    assert sim.call(task, "execveat", fd, DATA + 14, 0, 0, 0) == -Errno.ENOENT
    assert sim.call(task, "execveat", fd, DATA + 14, 0, 0, 0x4) == -Errno.EINVAL
    assert sim.call(task, "execveat", script, DATA + 14, 0, 0, 0x1000) == -Errno.ENOENT  # closed by exec
    assert sim.call(task, "execveat", fd, DATA + 14, 0, 0, 0x1000) is GONE
    stack = Stack(sim, task)
    assert stack.string(stack.auxv[Auxv.AT_EXECFN]) == b"/dev/fd/%d" % fd and task.comm == "prog"


# ---- refusals ------------------------------------------------------------------------------------


def elf_with(offset: int, data: bytes) -> bytes:
    image = bytearray(make_elf())
    image[offset : offset + len(data)] = data
    return bytes(image)


REFUSED = {
    "/missing": (None, Errno.ENOENT, ""),
    "/empty": (b"", Errno.ENOEXEC, "empty file"),
    "/text": (b"echo hello\n", Errno.ENOEXEC, "not an ELF file"),
    "/short": (make_elf()[:40], Errno.ENOEXEC, "truncated"),
    "/arm": (make_elf(machine=40), Errno.ENOEXEC, "ELF for ARM"),
    "/arm64": (make_elf(machine=183), Errno.ENOEXEC, "AArch64"),
    "/i386": (make_elf(machine=3), Errno.ENOEXEC, "i386"),
    "/x32": (elf_with(4, b"\x01"), Errno.ENOEXEC, "32-bit"),
    "/object": (make_elf(e_type=1), Errno.ENOEXEC, "relocatable"),
    "/core": (make_elf(e_type=4), Errno.ENOEXEC, "core dump"),
    "/phentsize": (elf_with(54, struct.pack("<H", 32)), Errno.ENOEXEC, "program headers"),
    "/no-phdrs": (elf_with(56, struct.pack("<H", 0)), Errno.ENOEXEC, "program headers"),
    "/far-phdrs": (elf_with(32, struct.pack("<Q", 1 << 40)), Errno.ENOEXEC, "beyond the end"),
    "/huge-phoff": (elf_with(32, struct.pack("<Q", (1 << 64) - 8)), Errno.ENOEXEC, "beyond the end"),
    "/no-loader": (make_elf(interp=b"/nowhere\0"), Errno.ENOENT, "loader /nowhere"),
    "/interp-open": (make_elf(interp=b"/ld.so"), Errno.ENOEXEC, "NUL"),
    "/interp-short": (make_elf(interp=b"\0"), Errno.ENOEXEC, "PT_INTERP"),
    "/bad-loader": (make_elf(interp=b"/text\0"), Errno.EIO, "truncated"),
    "/arm-loader": (make_elf(interp=b"/arm\0"), Errno.ELIBBAD, "ELF for ARM"),
    "/bad-script": (b"#!/nowhere\n", Errno.ENOENT, "interpreter /nowhere"),
    "/self": (b"#!/self\n", Errno.ELOOP, "interpreters"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_refused_programs(sim: Sim, path: str) -> None:
    for name, (content, _, _) in REFUSED.items():
        if content is not None:
            sim.write_file(name, content)
    task = sim.process()
    _, errno, reason = REFUSED[path]
    assert execve(sim, task, path) == -errno
    assert sim.u64(task, DATA + 0x4000) is not None and not task.exiting  # the old program goes on
    with pytest.raises(KernelError) as caught:
        do_execve(task, path.encode(), [b"x"], [])
    assert caught.value.errno == errno and reason in caught.value.reason


def test_permission(sim: Sim) -> None:
    sim.write_file("/plain", make_elf(), mode=0o644)
    task = sim.process(uid=1000)
    assert execve(sim, task, "/plain") == -Errno.EACCES
    assert execve(sim, task, "/") == -Errno.EACCES
    assert execve(sim, task, "/plain/x") == -Errno.ENOTDIR
    assert execve(sim, task, "") == -Errno.ENOENT


def test_bad_pointers_and_too_many_strings(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process()
    sim.poke(task, DATA, b"/prog\0")
    assert sim.call(task, "execve", 8, 0, 0) == -Errno.EFAULT
    assert sim.call(task, "execve", DATA, 8, 0) == -Errno.EFAULT
    sim.poke(task, DATA + 64, struct.pack("<QQ", 8, 0))
    assert sim.call(task, "execve", DATA, DATA + 64, 0) == -Errno.EFAULT
    sim.poke(task, DATA + 0x100, b"/missing\0")
    assert sim.call(task, "execve", DATA + 0x100, 8, 0) == -Errno.ENOENT  # the file is looked at first
    string = DATA + 0x1000
    sim.poke(task, string, b"x" * 131_071 + b"\0")
    sim.poke(task, DATA + 64, struct.pack("<18Q", *[string] * 17, 0))
    assert sim.call(task, "execve", DATA, DATA + 64, 0) == -Errno.E2BIG  # 17 * 128 KiB > 8 MiB / 4
    sim.poke(task, string, b"x" * 131_072 + b"\0")
    sim.poke(task, DATA + 64, struct.pack("<QQ", string, 0))
    assert sim.call(task, "execve", DATA, DATA + 64, 0) == -Errno.E2BIG  # one string too long
    sim.poke(task, string, b"x" * 131_071 + b"\0")
    assert sim.call(task, "execve", DATA, DATA + 64, 0) is GONE


def load(vaddr: int, memsz: int, filesz: int = 0, offset: int = 0) -> tuple[int, ...]:
    return (1, 6, offset, vaddr, vaddr, filesz, memsz, 0x1000)


@pytest.mark.parametrize(
    "segment",
    [
        load(0x7FFF_FFFF_0000, 0x10_0000),
        load(0x60_0000, 1 << 50),
        load(1 << 63, 0x1000, 16),
        load(0x60_0000, 8, 16),
        load(0x60_0800, 0x1000, 16),  # file offset and address differ modulo the page size
        load(0x1000, 0x1000, 16),  # below mmap_min_addr
    ],
)
def test_segments_that_cannot_be_mapped_kill(sim: Sim, segment: tuple[int, ...]) -> None:
    sim.write_file("/prog", make_elf(extra_phdrs=(segment,)))
    task = sim.process(uid=1000)
    assert execve(sim, task, "/prog") is GONE
    assert task.exiting and task.exit_code & 0x7F == SIGSEGV
    first = spawn_task(sim.kernel)
    first.fs = sim.process().fs
    first.creds = sim.process(uid=1000).creds
    with pytest.raises(ExecFatal):
        do_execve(first, b"/prog", [b"prog"], [])


def test_entry_outside_user_memory_kills(sim: Sim) -> None:
    sim.write_file("/prog", elf_with(24, struct.pack("<Q", 1 << 62)))
    task = sim.process()
    assert execve(sim, task, "/prog") is GONE and task.exit_code & 0x7F == SIGSEGV


def test_memory_of_a_failed_exec_is_given_back(sim: Sim) -> None:
    sim.write_file("/prog", make_elf(extra_phdrs=(load(0x60_0000, 1 << 50),)))
    task = sim.process()
    parent = sim.process()
    free = None
    for _ in range(3):
        child = sim.fork(parent)
        execve(sim, child, "/prog")
        sim.call(parent, "wait4", child.pid, 0, 0, 0)
        if free is not None:
            assert sim.kernel.pages.nr_free == free
        free = sim.kernel.pages.nr_free
    assert task.mm is not None


def test_a_program_that_is_open_for_writing_is_busy(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process()
    sim.poke(task, DATA, b"/prog\0")
    fd = sim.call(task, "open", DATA, 1)
    assert execve(sim, task, "/prog") == -Errno.ETXTBSY
    sim.call(task, "close", fd)
    assert execve(sim, task, "/prog") is GONE
    other = sim.process()
    sim.poke(other, DATA, b"/prog\0")
    assert sim.call(other, "open", DATA, 1) == -Errno.ETXTBSY
    sim.call(task, "exit_group", 0)
    assert sim.call(other, "open", DATA, 1) >= 0


def test_no_access_time_without_the_file(sim: Sim) -> None:
    assert execve(sim, sim.process(), "/missing") == -Errno.ENOENT
