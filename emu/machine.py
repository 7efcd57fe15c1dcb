"""The machine as a Python program has it: made of keywords, run step by step, looked at and listened to.

    with Machine(kernel="2.6.7", ram="64M", swap="128M") as machine:
        machine.spawn(["images/faults"], capture=True)
        machine.run(until="fault:20")
        print(machine.maps_text())
        status = machine.run()

The manual is docs/python-api.md.  What a machine is made of is in ``emu/board.py``; the command line is a user of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack, overload

from emu.board import Board
from emu.config import MachineConfig, MachineOptions, fields_of
from emu.errors import BadAddress, CheckFailed, Deadlock, MachineError, NoSuchTask, NotNow, NotRunnable
from emu.running import Runner
from kernel.trace import on_behalf_of

if TYPE_CHECKING:
    from emu.console import HostConsole
    from emu.events import Callback, Recording, Subscription
    from emu.inspect.moment import Scene, Stopped
    from emu.inspect.page import PageView
    from emu.queries import RmapQueries
    from emu.running import Until
    from kernel.mm.types import MmStruct, Vma
    from kernel.task.task import Task

__all__ = [
    "BadAddress",
    "CheckFailed",
    "Deadlock",
    "Machine",
    "MachineConfig",
    "MachineError",
    "NoSuchTask",
    "NotNow",
    "NotRunnable",
]


class Spawning(TypedDict, total=False):
    """The keywords of :meth:`Machine.spawn`."""

    env: Mapping[str, str] | None
    cwd: str | None
    stdin: bytes | None
    capture: bool


class Machine(Board):
    """One machine.  :meth:`spawn`, then :meth:`run`; in a ``with`` it is closed at the end.

    Its keywords are the fields of :class:`MachineConfig`, with sizes as ``"64M"`` or numbers of bytes; a config may
    be given as well, and keywords then change it.  ValueError and OSError when it cannot be built.

    ``kernel`` (tasks, memory, files) and ``cpu`` are open to look at; names and meanings there are Linux's.

    >>> with Machine(kernel="2.6.7", ram="16M") as machine:
    ...     machine.spawn(["images/hello"], capture=True)
    ...     machine.run()
    ...     machine.stdout
    <Task 2 'hello' RUNNING>
    0
    b'Hello, world\\n'
    """

    def __init__(self, config: MachineConfig | None = None, /, **options: Unpack[MachineOptions]) -> None:
        super().__init__(replace(config or MachineConfig(), **fields_of(options)))
        self._runner = Runner(self)
        self._subscriptions: list[Subscription] = []
        self._captured: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._runner.is_closed else str(self.stopped or "running")
        return f"<Machine {self.kernel.profile.title}: {state}>"

    def close(self) -> None:
        """Give everything back; the machine cannot run any more.  Harmless when repeated."""
        if self._runner.is_closed:
            return
        for subscription in self._subscriptions:
            subscription.close()
        self._runner.close()
        super().close()

    # ---- programs -----------------------------------------------------------------------------------------------

    def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        *,
        stdin: bytes | None = None,
        capture: bool = False,
    ) -> Task:
        """Load a program as a new process; ``argv[0]`` is looked up in PATH when it has no slash.

        ``stdin`` is all that it can read, None lets it read what this process can.  ``capture`` keeps what it and its
        children write in :attr:`stdout` and :attr:`stderr`.  Raises :class:`NotRunnable`.
        """
        self._runner.must_be_quiet("spawn")
        return self._spawn(argv, env=env, cwd=cwd, stdin=stdin, capture=capture)

    def _spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
        capture: bool = False,
    ) -> Task:
        from emu.spawn import spawn_program

        environment = self.config.env if env is None else dict(env)
        with on_behalf_of(self.kernel):
            task = spawn_program(
                self, list(argv), environment, cwd or self.config.cwd, self._console_for(stdin, capture)
            )
        if self.init is None or self.has_ended:
            self.init = task
        self.raise_pending()
        return task

    def _console_for(self, stdin: bytes | None, capture: bool) -> HostConsole:
        if stdin is None and not capture:
            return self.console
        from emu.memory_console import MemoryConsole

        return MemoryConsole(self.console, stdin, self._captured if capture else {})

    @property
    def stdout(self) -> bytes:
        """What programs spawned with ``capture`` have written to their standard output so far."""
        return bytes(self._captured[1])

    @property
    def stderr(self) -> bytes:
        """The same of their standard error."""
        return bytes(self._captured[2])

    @property
    def unimplemented(self) -> dict[str, int]:
        """System calls that a program made and nobody serves, with counts."""
        return self.entry.unimplemented

    # ---- running ------------------------------------------------------------------------------------------------

    @overload
    def run(self) -> int: ...
    @overload
    def run(self, until: Until) -> Stopped: ...
    def run(self, until: Until | None = None) -> int | Stopped:
        """Run until the first program has ended; its exit status, or 128 + the number of the signal that killed it.

        ``until`` comes back earlier, with the machine standing still at that very instant, and says why; the result's
        ``status`` is not None if the program ended first.  It is

            "exit"          just before the first process gives its memory back
            "fault:N"       when the N-th page fault has been served
            "syscall:N"     when the N-th system call has returned
            "sym:NAME"      before the first process next executes NAME
            2.5             when the machine's clock shows 2.5 seconds; it starts at 1 (a string: "time:2.5")
            When(...)       at the first event that it describes

        Numbers are those of a trace.  A later ``run`` goes on from there.

        >>> with Machine() as machine:
        ...     _ = machine.spawn(["images/hello"], capture=True)
        ...     machine.run(until="sym:_start")
        ...     machine.run(until="exit")
        ...     machine.run()
        <Stopped at _start, hello (pid 2), address 0x401000>
        <Stopped before the address space of the first process goes, hello (pid 2)>
        0
        """
        if self.init is None and not self._runner.is_under_way:
            raise NotNow("run: there is no program; spawn one first")
        if until is not None and self.has_ended and not self._runner.is_under_way:
            return self._runner.end(self.exit_status())
        return self._runner.run(self.run_to_end, until)

    @overload
    def run_program(self, argv: Sequence[str], until: None = None, **spawning: Unpack[Spawning]) -> int: ...
    @overload
    def run_program(self, argv: Sequence[str], until: Until, **spawning: Unpack[Spawning]) -> Stopped: ...
    def run_program(
        self, argv: Sequence[str], until: Until | None = None, **spawning: Unpack[Spawning]
    ) -> int | Stopped:
        """:meth:`spawn` and :meth:`run` in one; ``until`` may be a moment of loading the program, as its first faults
        are."""
        self._runner.must_be_quiet("run_program")
        if self._runner.is_under_way:
            raise NotNow("run_program: a program is under way; spawn another one, and run both")

        def spawn_and_run() -> int:
            self._spawn(argv, **spawning)
            return self.run_to_end()

        return self._runner.run(spawn_and_run, until)

    @property
    def stopped(self) -> Stopped | None:
        """Where the machine stands still; None while it runs."""
        return self._runner.stopped

    @property
    def now_ns(self) -> int:
        """What the machine's clock shows: CLOCK_MONOTONIC of its programs."""
        return self.kernel.clock.now_ns()

    # ---- events -------------------------------------------------------------------------------------------------

    def on(self, name: str, callback: Callback) -> Subscription:
        """Call ``callback`` with every record of that name from now on, until the subscription is closed.

        See ``emu/events.py`` for the names, and for what a callback may do.

        >>> with Machine() as machine, machine.on("exit", lambda record: print(record["comm"], record["status"])):
        ...     machine.run_program(["images/hello"], capture=True)
        hello 0
        0
        """
        from emu.events import Subscription

        return self._keep(Subscription(self, (name,), callback))

    def record(self, *names: str) -> Recording:
        """A list to which every record of these names is added, until it is closed (the end of a ``with``).

        >>> with Machine() as machine, machine.record("faults") as faults:
        ...     _ = machine.run_program(["images/hello"], capture=True)
        >>> [(fault["access"], fault["kind"], fault["address"]) for fault in faults[-2:]]
        [('exec', 'file', '0x401000'), ('read', 'file', '0x402000')]
        """
        from emu.events import Recording, Subscription

        recording = Recording()
        recording.subscription = self._keep(Subscription(self, names, recording.append))
        return recording

    def _keep(self, subscription: Subscription) -> Subscription:
        self._subscriptions = [*(old for old in self._subscriptions if old.is_open), subscription]
        return subscription

    # ---- looking ------------------------------------------------------------------------------------------------

    def task(self, pid: int | None = None) -> Task:
        """The task with that number; without one: the one whose moment it is.  Raises :class:`NoSuchTask`."""
        from emu.queries import task_of

        return task_of(self, pid, self.stopped)

    def scene(self, pid: int | None = None) -> Scene:
        """What the views of ``emu/inspect`` are made from.  Raises :class:`NoSuchTask`."""
        from emu.queries import scene_of

        return scene_of(self, pid, self.stopped)

    def mm(self, pid: int | None = None) -> MmStruct:
        """The address space of that task; of one that exec is making, at a fault there."""
        return self.scene(pid).mm

    def maps_text(self, pid: int | None = None) -> str:
        """/proc/PID/maps."""
        from kernel.mm.task_mmu import maps_text

        return maps_text(self.mm(pid))

    def smaps_text(self, pid: int | None = None) -> str:
        """/proc/PID/smaps."""
        from kernel.mm.task_mmu import smaps_text

        return smaps_text(self.mm(pid))

    def find_vma(self, address: int, pid: int | None = None) -> Vma | None:
        """Linux's ``find_vma``: the first area that ends above ``address``; it may begin above it, too."""
        return self.mm(pid).areas.find_vma(address)

    def vma_lookup(self, address: int, pid: int | None = None) -> Vma | None:
        """Linux's ``vma_lookup``: the area that holds ``address``."""
        return self.mm(pid).areas.find_exact(address)

    def page_at(self, address: int, pid: int | None = None) -> PageView:
        """The page at ``address``: frame, flags, counts, and every entry that maps it, as the kernel's reverse map
        finds them and as reading all page tables does."""
        from emu.inspect.page import PageView

        return PageView(self.scene(pid), f"{address:#x}")

    def page(self, pfn: int) -> PageView:
        """The page in frame ``pfn``, in the same way."""
        from emu.inspect.page import PageView

        return PageView(self.scene(), f"pfn:{pfn:#x}")

    @property
    def rmap(self) -> RmapQueries:
        """The kernel's reverse map: ``rmap.walk(pfn)``, ``rmap.graph()``."""
        from emu.queries import RmapQueries

        return RmapQueries(self.scene())

    def registers(self, pid: int | None = None) -> dict[str, int]:
        """The registers of that task by name: ``rax``, ``rip``, ``eflags`` ..."""
        from emu.queries import registers_of

        return registers_of(self.task(pid))

    def read_memory(self, address: int, nr_bytes: int, pid: int | None = None) -> bytes:
        """Memory as a debugger reads it, protection or not; a page on swap comes back.  Raises :class:`BadAddress`."""
        from emu.process_memory import read_memory

        self._runner.must_be_quiet("read_memory")
        with on_behalf_of(self.kernel):
            data = read_memory(self.mm(pid), address, nr_bytes)
        if len(data) < nr_bytes:
            raise BadAddress(f"nothing can be read at {address + len(data):#x}")
        return data

    def stats(self) -> dict[str, Any]:
        """Counters of the run so far, in groups; the schema is in the manual."""
        from emu.stats import collect

        return collect(self)

    # ---- doing --------------------------------------------------------------------------------------------------

    def write_memory(self, address: int, data: bytes, pid: int | None = None) -> None:
        """Write as a debugger does: memory that the program may not write gets a copy of its own.

        Raises :class:`BadAddress`; the pages before the bad one are written then.
        """
        from emu.process_memory import write_memory

        self._runner.must_be_quiet("write_memory")
        with on_behalf_of(self.kernel):
            if not write_memory(self.mm(pid), address, data):
                raise BadAddress(f"not all of {len(data)} bytes can be written at {address:#x}")

    def reclaim(self, nr_pages: int) -> int:
        """Make the kernel reclaim ``nr_pages`` frames now; how many were freed (more, as it works in batches)."""
        self._runner.must_be_quiet("reclaim")
        with on_behalf_of(self.kernel):
            return self.kernel.reclaim.try_to_free_pages(nr_pages)

    def page_out(self, address: int, pid: int | None = None) -> bool:
        """Make the kernel reclaim the page at ``address`` through its reverse map, from all who map it; has it gone?

        Raises :class:`BadAddress` when no page is mapped there.
        """
        from emu.queries import page_out

        self._runner.must_be_quiet("page_out")
        with on_behalf_of(self.kernel):
            return page_out(self.scene(pid), address)
