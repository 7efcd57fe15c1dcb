"""A whole kernel without a processor: tasks make system calls, but execute no instructions.

``Sim`` plays the run loop: :meth:`Sim.call` makes one call for a task through the real entry code, :meth:`Sim.settle`
lets sleeping tasks go on, :meth:`Sim.advance` moves the clock.  Memory, files and signal frames are the real ones.
"""

from __future__ import annotations

import struct
from typing import Any

import kernel.syscalls.all  # noqa: F401 - declares the calls
from kernel.abi.fcntl import AT_FDCWD, O_CREAT, O_WRONLY
from kernel.clock import NS_PER_BLOCK, Clock
from kernel.entry import Entry
from kernel.fs.file import File, fput
from kernel.fs.files import FsStruct
from kernel.fs.memfs import MemSuper
from kernel.fs.pseudo import PseudoFs
from kernel.fs.store import Space
from kernel.fs.vfs import Vfs
from kernel.hardware import NullHardware, PlainRegisters, Reg
from kernel.kernel import Kernel, KernelConfig
from kernel.mm.fork import new_mm
from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, do_mmap
from kernel.mm.usercopy import copy_from_user, copy_to_user
from kernel.profile import resolve_profile
from kernel.syscalls.table import BY_NAME
from kernel.task.cred import Cred
from kernel.task.fork import spawn_task
from kernel.task.task import Task, TaskState
from mmu.physmem import PhysMem

DATA = 0x10_0000
"""Where every test process has read-write memory."""
DATA_PAGES = 64
STACK = DATA + DATA_PAGES * 4096 - 0x4000
"""The stack pointer of a fresh test process."""
CODE = 0x40_0000
"""The instruction pointer of a fresh test process, just after a ``syscall``."""
RESTORER = 0x40_1000
PROT_RW, PROT_RX = 3, 5
MAP_PRIVATE_ANON_FIXED = 0x32


class Asleep:
    """What :meth:`Sim.call` returns when the call sleeps."""

    def __repr__(self) -> str:
        return "ASLEEP"


class Gone:
    """What :meth:`Sim.call` returns when the task stopped, died or runs a handler instead of returning."""

    def __repr__(self) -> str:
        return "GONE"


ASLEEP, GONE = Asleep(), Gone()


class Sim:
    def __init__(self, ram_pages: int = 4096, seed: int = 0, aslr: bool = False) -> None:
        self.nr_blocks = 0
        config = KernelConfig(resolve_profile("6.18"), seed=seed, aslr=aslr)
        self.kernel = Kernel(PhysMem(ram_pages), NullHardware(), Clock(lambda: self.nr_blocks), config)
        kernel = self.kernel
        vfs = kernel.vfs = Vfs(kernel)
        vfs.pseudo = PseudoFs(vfs)
        root = MemSuper(kernel, vfs.new_anon_dev(), Space(100_000), 0o755)
        assert root.s_root is not None
        mount = vfs.mounts.new(root.s_root, "rootfs", 0)
        vfs.mounts.attach_root(mount)
        vfs.root = vfs.path(mount, root.s_root)
        self.entry = Entry(kernel)

    # ---- processes -------------------------------------------------------------------------------

    def process(self, uid: int = 0) -> Task:
        """A process with memory at DATA and CODE, child of init."""
        kernel = self.kernel
        task = spawn_task(kernel, Cred(uid, uid))
        task.fs = FsStruct(kernel.vfs.root, kernel.vfs.root)
        task.mm = new_mm(kernel)
        arch_pick_mmap_layout(task.mm)
        do_mmap(task.mm, MmapRequest(DATA, DATA_PAGES * 4096, PROT_RW, MAP_PRIVATE_ANON_FIXED))
        do_mmap(task.mm, MmapRequest(CODE, 4 * 4096, PROT_RX, MAP_PRIVATE_ANON_FIXED))
        task.regs.write(Reg.RSP, STACK)
        task.regs.write(Reg.RIP, CODE)
        kernel.sched.enqueue(task)
        return task

    def fork(self, task: Task) -> Task:
        return self.kernel.tasks[self.call(task, "fork")]

    def thread(self, task: Task, flags: int = 0) -> Task:
        """A new thread of the same process."""
        return self.kernel.tasks[self.call(task, "clone", 0x10F00 | flags, DATA + 0x8000)]

    # ---- the run loop ----------------------------------------------------------------------------

    def switch_to(self, task: Task) -> None:
        """Give ``task`` the processor."""
        sched = self.kernel.sched
        for _ in range(len(sched.runnable) + 2):
            if sched.current is task:
                break
            sched.pick_next()
        assert sched.current is task, f"{task} cannot run"
        self.kernel.current = task

    def call(self, task: Task, name: str, *args: int) -> Any:
        """One system call; its value, ASLEEP, or GONE."""
        assert task.state is TaskState.RUNNING and task.continuation is None, f"{task} cannot make calls"
        self.switch_to(task)
        number = BY_NAME[name].x86_64
        assert number is not None
        raw = [arg & 0xFFFF_FFFF_FFFF_FFFF for arg in args] + [0] * (6 - len(args))
        rip = task.regs.read(Reg.RIP)
        try:
            value = self.entry.on_syscall(number, *raw)
            if value is not None:
                return signed(value)
            goes_on = self.entry.continue_task(task)
        finally:
            self.kernel.current = None
        if task.continuation is not None:
            return ASLEEP
        if not goes_on and not task.exit_work & 2:  # TIF_NEED_RESCHED
            return GONE
        if task.regs.read(Reg.RIP) != rip:
            return GONE
        return self.result(task)

    @staticmethod
    def result(task: Task) -> int:
        """What the last call of ``task`` returned."""
        return signed(task.regs.read(Reg.RAX))

    def settle(self) -> None:
        """Let every task that can go on inside the kernel do so."""
        kernel = self.kernel
        kernel.timers.run(kernel.clock.now_ns())
        for _ in range(4):
            for task in list(kernel.tasks.values()):
                if task.state is TaskState.RUNNING and (task.continuation is not None or task.exit_work):
                    self.switch_to(task)
                    self.entry.continue_task(task)
                    self.kernel.current = None

    def advance(self, ns: int) -> None:
        """Time passes while the current task computes; then everybody who is due goes on."""
        kernel = self.kernel
        target = kernel.clock.now_ns() + ns
        while True:
            deadline = kernel.timers.next_deadline_ns()
            if deadline is None or deadline > target:
                break
            self._compute_until(deadline)
            self.settle()
        self._compute_until(target)
        self.settle()

    def _compute_until(self, moment_ns: int) -> None:
        self.nr_blocks += max(0, moment_ns - self.kernel.clock.now_ns()) // NS_PER_BLOCK
        self.kernel.clock.advance_to(moment_ns)

    def take_signals(self, task: Task) -> bool:
        """The way back to user mode."""
        self.switch_to(task)
        self.kernel.current = task
        try:
            return self.entry.continue_task(task)
        finally:
            self.kernel.current = None

    # ---- memory ----------------------------------------------------------------------------------

    def poke(self, task: Task, address: int, data: bytes) -> int:
        assert task.mm is not None
        copy_to_user(task.mm, address, data)
        return address

    def peek(self, task: Task, address: int, size: int) -> bytes:
        assert task.mm is not None
        return copy_from_user(task.mm, address, size)

    def u32(self, task: Task, address: int) -> int:
        return int.from_bytes(self.peek(task, address, 4), "little")

    def u64(self, task: Task, address: int) -> int:
        return int.from_bytes(self.peek(task, address, 8), "little")

    # ---- signals ---------------------------------------------------------------------------------

    def handle(self, task: Task, sig: int, handler: int, flags: int = 0, mask: int = 0) -> None:
        """sigaction with SA_RESTORER."""
        restorer = RESTORER if handler > 1 else 0
        flags |= 0x0400_0000 if handler > 1 else 0
        self.poke(task, DATA + 0x800, struct.pack("<QQQQ", handler, flags, restorer, mask))
        assert self.call(task, "rt_sigaction", sig, DATA + 0x800, 0, 8) == 0

    def block(self, task: Task, mask: int) -> None:
        """sigprocmask(SIG_SETMASK)."""
        self.poke(task, DATA + 0x840, struct.pack("<Q", mask))
        assert self.call(task, "rt_sigprocmask", 2, DATA + 0x840, 0, 8) == 0

    def sigreturn(self, task: Task) -> None:
        """What the restorer does: the handler's ``ret`` has popped the return address."""
        task.regs.write(Reg.RSP, task.regs.read(Reg.RSP) + 8)
        self.call(task, "rt_sigreturn")

    # ---- files -----------------------------------------------------------------------------------

    def write_file(self, path: str, data: bytes, mode: int = 0o755) -> None:
        vfs = self.kernel.vfs
        file = vfs.open(None, AT_FDCWD, path.encode(), O_CREAT | O_WRONLY, mode)
        assert isinstance(file, File)
        if data:
            file.pwrite(0, data)
        fput(file)


def signed(value: int) -> int:
    """RAX as a long."""
    return (value & 0xFFFF_FFFF_FFFF_FFFF ^ 1 << 63) - (1 << 63)


def registers(task: Task) -> PlainRegisters:
    assert isinstance(task.regs, PlainRegisters)
    return task.regs


# ---- ELF files -----------------------------------------------------------------------------------


def make_elf(
    *,
    e_type: int = 2,
    machine: int = 62,
    base: int = 0x40_0000,
    interp: bytes | None = None,
    text: bytes = b"\x90" * 64,
    bss: int = 0x1800,
    stack_flags: int | None = 6,
    entry_offset: int = 0x1000,
    extra_phdrs: tuple[tuple[int, ...], ...] = (),
    align: int = 0x1000,
) -> bytes:
    """A small program: headers and text (read, execute), data and bss (read, write)."""
    data = b"DATA" * 16
    phdrs: list[tuple[int, ...]] = [
        (1, 5, 0, base, base, 0x1000 + len(text), 0x1000 + len(text), align),
        (1, 6, 0x2000, base + 0x2000, base + 0x2000, len(data), len(data) + bss, align),
    ]
    if interp is not None:
        phdrs.insert(0, (3, 4, 0x800, base + 0x800, base + 0x800, len(interp), len(interp), 1))
    if stack_flags is not None:
        phdrs.append((0x6474_E551, stack_flags, 0, 0, 0, 0, 0, 16))
    phdrs.extend(extra_phdrs)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, e_type, machine, 1, base + entry_offset, 64, 0, 0, 64, 56, len(phdrs), 64, 0, 0
    )
    image = bytearray(0x2000 + len(data))
    image[:64] = header
    for index, phdr in enumerate(phdrs):
        image[64 + 56 * index : 120 + 56 * index] = struct.pack("<IIQQQQQQ", *phdr)
    if interp is not None:
        image[0x800 : 0x800 + len(interp)] = interp
    image[0x1000 : 0x1000 + len(text)] = text
    image[0x2000:] = data
    return bytes(image)
