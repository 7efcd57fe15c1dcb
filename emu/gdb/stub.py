"""Answers to gdb's packets; :func:`serve` is all that the command line needs.

One packet is one method, found by its beginning.  What is not known is answered by an empty packet, as the protocol
wants it.  A gdb that goes without detaching leaves the program stopped, and another one may connect.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.cpu.debug import WatchKind, Watchpoint
from emu.gdb.debugger import Debugger, Order, Process, Report, exec_file
from emu.gdb.files import GuestFiles
from emu.gdb.packets import PACKET_BYTES, Connection, Disconnected, escape, listen, unescape
from emu.gdb.registers import EXPEDITED, SIZES, target_xml
from emu.gdb.signals import from_gdb, to_gdb
from emu.process_memory import read_memory, write_memory

if TYPE_CHECKING:
    from emu.machine import Machine
    from kernel.task.task import Task

_OK, _UNKNOWN, _EINVAL, _EFAULT, _ESRCH = b"OK", b"", b"E16", b"E0e", b"E03"
_FEATURES = (
    b"PacketSize=%x;QStartNoAckMode+;multiprocess+;swbreak+;hwbreak+;vContSupported+;QPassSignals+;"
    b"fork-events+;vfork-events+;exec-events+;qXfer:features:read+;qXfer:auxv:read+;qXfer:exec-file:read+;"
    b"qXfer:siginfo:read+;qXfer:threads:read+" % PACKET_BYTES
)
_WAIT_SECONDS = 0.25
_ALL, _ANY = -1, 0


class _Resume(Exception):
    """The packet lets threads go."""


class Stub:
    """The conversation with one gdb at a time.

    Invariant: packets are read only while the machine stands still, in :meth:`_report`.
    """

    def __init__(self, machine: Machine, listener: socket.socket) -> None:
        self._machine = machine
        self._listener = listener
        self.debugger = Debugger(machine, self._report, self._wants_stop)
        self._files = GuestFiles(machine.kernel)
        self._connection: Connection | None = None
        self._stop = b""
        self._stopped: Report | None = None
        self._task: Task | None = None
        """What memory and register packets are about (Hg)."""
        self._continue_task: Task | None = None
        self._thread_ids: list[bytes] = []
        self._packets: list[tuple[bytes, Callable[[bytes], bytes]]] = [
            (b"?", lambda _: self._stop),
            (b"qSupported", self._supported),
            (b"QStartNoAckMode", self._no_acks),
            (b"QPassSignals:", self._pass_signals),
            (b"qXfer:", self._xfer),
            (b"qfThreadInfo", self._first_threads),
            (b"qsThreadInfo", self._more_threads),
            (b"qThreadExtraInfo,", self._thread_info),
            (b"qC", lambda rest: _UNKNOWN if rest else b"QC" + _thread_id(self._task)),
            (b"qAttached", self._attached),
            (b"qSymbol", lambda _: _OK),
            (b"vCont?", lambda _: b"vCont;c;C;s;S;r"),
            (b"vCont;", self._vcont),
            (b"vKill;", self._vkill),
            (b"vFile:", self._vfile),
            (b"H", self._select),
            (b"T", lambda rest: _OK if self._find(rest) is not None else _ESRCH),
            (b"g", self._read_registers),
            (b"G", self._write_registers),
            (b"p", self._read_register),
            (b"P", self._write_register),
            (b"m", self._read_memory),
            (b"M", self._write_memory),
            (b"X", self._write_binary),
            (b"Z", lambda rest: self._point(rest, True)),
            (b"z", lambda rest: self._point(rest, False)),
            (b"c", lambda rest: self._plain_resume(Order.RUN, 0, rest)),
            (b"s", lambda rest: self._plain_resume(Order.STEP, 0, rest)),
            (b"C", lambda rest: self._plain_resume(Order.RUN, int(rest[:2], 16), b"")),
            (b"S", lambda rest: self._plain_resume(Order.STEP, int(rest[:2], 16), b"")),
            (b"D", self._detach),
            (b"k", self._kill),
        ]

    # ---- the connection ------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Wait for a gdb.  KeyboardInterrupt when Ctrl-C comes first."""
        while not select.select((self._listener,), (), (), _WAIT_SECONDS)[0]:
            self._look_at_ctrl_c()
        self._files.close()
        self._connection = Connection(self._listener.accept()[0])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._files.close()
        self._listener.close()

    def _look_at_ctrl_c(self) -> None:
        if self._machine.is_interrupted:
            raise KeyboardInterrupt

    def _wants_stop(self) -> bool:
        return self._connection is not None and self._connection.is_interrupted()

    # ---- stops ---------------------------------------------------------------------------------------------------

    def _report(self, report: Report) -> None:
        """Tell gdb and answer packets until one lets the program go."""
        first = not self._stop
        self._stopped = report
        if report.details.startswith(b"console:"):
            self._try_send(b"O" + report.details[8:-1])
        self._stop = self._stop_reply(report)
        if report.exit_status is None:
            self._task = report.task
        if not first:
            self._try_send(self._stop)
        if not self.debugger.processes:
            self.close()
            return
        if report.exit_status is not None:
            self._task = next(iter(self.debugger.threads), None)
        while self.debugger.processes:
            try:
                self._answer_one()
            except _Resume:
                return
            except Disconnected:
                assert self._connection is not None
                self._connection.close()
                self.accept()
        self.close()

    def _try_send(self, data: bytes) -> None:
        """A gdb that has gone meanwhile will be missed when the next packet is waited for."""
        assert self._connection is not None
        try:
            self._connection.send(data)
        except Disconnected:
            return

    def _stop_reply(self, report: Report) -> bytes:
        if report.exit_status is not None:
            status = report.exit_status
            if status & 0x7F:
                return b"X%02x;process:%x" % (to_gdb(status & 0x7F), report.pid)
            return b"W%02x;process:%x" % (status >> 8 & 0xFF, report.pid)
        details = b"" if report.details.startswith(b"console:") else report.details
        view = self.debugger.view(report.task)
        registers = b"".join(b"%02x:%s;" % (n, view.read(n).hex().encode()) for n in EXPEDITED)
        thread = b"thread:%s;core:0;" % _thread_id(report.task)
        return b"T%02x%s%s%s" % (to_gdb(report.signal), details, registers, thread)

    def _answer_one(self) -> None:
        assert self._connection is not None
        packet = self._connection.read_packet(self._look_at_ctrl_c)
        for start, method in self._packets:
            if packet.startswith(start):
                try:
                    answer = method(packet[len(start) :])
                except (ValueError, IndexError):
                    answer = _EINVAL
                break
        else:
            answer = _UNKNOWN
        self._connection.send(answer)
        if packet == b"QStartNoAckMode":
            self._connection.acknowledges = False

    # ---- general -------------------------------------------------------------------------------------------------

    def _supported(self, rest: bytes) -> bytes:
        offered = rest.lstrip(b":").split(b";")
        self.debugger.follows_forks = b"fork-events+" in offered
        self.debugger.follows_vforks = b"vfork-events+" in offered
        self.debugger.tells_exec = b"exec-events+" in offered
        return _FEATURES

    def _no_acks(self, _rest: bytes) -> bytes:
        return _OK

    def _pass_signals(self, rest: bytes) -> bytes:
        self.debugger.pass_signals = frozenset(int(word, 16) for word in rest.split(b";") if word)
        return _OK

    def _attached(self, rest: bytes) -> bytes:
        process = self.debugger.processes.get(int(rest[1:], 16)) if rest else None
        return b"1" if process is not None and process.is_child else b"0"

    def _vfile(self, rest: bytes) -> bytes:
        return self._files.answer(self._task, rest) if self._task is not None else b"F-1,3"

    def _xfer(self, rest: bytes) -> bytes:
        name, action, annex, place = rest.split(b":")
        source = {
            b"features": self._features,
            b"auxv": self._auxv,
            b"exec-file": self._exec_file,
            b"siginfo": self._siginfo,
            b"threads": self._threads_xml,
        }.get(name)
        if source is None or action != b"read":
            return _UNKNOWN
        data = source(annex)
        if data is None:
            return b"E00"
        offset, length = (int(word, 16) for word in place.split(b","))
        part = data[offset : offset + min(length, PACKET_BYTES // 2 - 16)]
        return (b"l" if offset + len(part) >= len(data) else b"m") + escape(part)

    def _features(self, annex: bytes) -> bytes | None:
        return target_xml().encode() if annex == b"target.xml" else None

    def _auxv(self, _annex: bytes) -> bytes | None:
        task = self._task
        return None if task is None or task.mm is None else task.mm.saved_auxv

    def _exec_file(self, annex: bytes) -> bytes | None:
        process = self._process(int(annex, 16)) if annex else self._process()
        return None if process is None else exec_file(process.leader)

    def _siginfo(self, _annex: bytes) -> bytes | None:
        stopped = self._stopped
        if stopped is None or stopped.info is None or stopped.task is not self._task:
            return None
        return stopped.info.to_bytes()

    # ---- threads -------------------------------------------------------------------------------------------------

    def _process(self, pid: int | None = None) -> Process | None:
        """The process of number ``pid``, or of the selected thread."""
        if pid is None:
            if self._task is None:
                return None
            pid = self._task.tgid
        return self.debugger.processes.get(pid)

    def _tasks(self) -> list[Task]:
        return [task for pid in self.debugger.processes for task in self.debugger.threads_of(pid)]

    def _matching(self, text: bytes) -> list[Task]:
        """The threads that a thread-id stands for; -1 is all, 0 any one."""
        pid, tid = _ALL, _ALL
        if text.startswith(b"p"):
            pid_text, _, tid_text = text[1:].partition(b".")
            pid, tid = _hex_id(pid_text), _hex_id(tid_text) if tid_text else _ALL
        elif text:
            tid = _hex_id(text)
        found = [task for task in self._tasks() if pid in (_ALL, _ANY, task.tgid) and tid in (_ALL, _ANY, task.pid)]
        if _ANY in (pid, tid) and self._task in found:
            found = [task for task in found if task is self._task]
        return found

    def _find(self, text: bytes) -> Task | None:
        return next(iter(self._matching(text)), None)

    def _select(self, rest: bytes) -> bytes:
        task = self._find(rest[1:])
        if task is None:
            return _ESRCH
        if rest[:1] == b"c":
            self._continue_task = None if rest[1:] in (b"-1", b"0") else task
        else:
            self._task = task
        return _OK

    def _first_threads(self, _rest: bytes) -> bytes:
        self._thread_ids = [_thread_id(task) for task in self._tasks()]
        return self._more_threads(b"")

    def _more_threads(self, _rest: bytes) -> bytes:
        if not self._thread_ids:
            return b"l"
        part, self._thread_ids = self._thread_ids[:200], self._thread_ids[200:]
        return b"m" + b",".join(part)

    def _thread_info(self, rest: bytes) -> bytes:
        task = self._find(rest)
        return _ESRCH if task is None else task.comm.encode().hex().encode()

    def _threads_xml(self, _annex: bytes) -> bytes:
        def attribute(text: str) -> bytes:
            text = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
            return "".join(c if c.isprintable() else "?" for c in text).encode()

        entries = (b'<thread id="%s" core="0" name="%s"/>' % (_thread_id(t), attribute(t.comm)) for t in self._tasks())
        return b'<?xml version="1.0"?><threads>%s</threads>' % b"".join(entries)

    # ---- registers and memory ------------------------------------------------------------------------------------

    def _read_registers(self, _rest: bytes) -> bytes:
        return _ESRCH if self._task is None else self.debugger.view(self._task).read_all().hex().encode()

    def _write_registers(self, rest: bytes) -> bytes:
        if self._task is None:
            return _ESRCH
        self.debugger.view(self._task, writes=True).write_all(bytes.fromhex(rest.decode()))
        return _OK

    def _read_register(self, rest: bytes) -> bytes:
        number = int(rest, 16)
        if self._task is None or number >= len(SIZES):
            return _EINVAL
        return self.debugger.view(self._task).read(number).hex().encode()

    def _write_register(self, rest: bytes) -> bytes:
        number, _, value = rest.partition(b"=")
        if self._task is None or int(number, 16) >= len(SIZES):
            return _EINVAL
        self.debugger.view(self._task, writes=True).write(int(number, 16), bytes.fromhex(value.decode()))
        return _OK

    def _read_memory(self, rest: bytes) -> bytes:
        address, length = (int(word, 16) for word in rest.split(b","))
        mm = self._task.mm if self._task is not None else None
        data = read_memory(mm, address, min(length, PACKET_BYTES // 2 - 16))
        return data.hex().encode() if data or not length else _EFAULT

    def _write_memory(self, rest: bytes) -> bytes:
        place, _, data = rest.partition(b":")
        return self._store(place, bytes.fromhex(data.decode()))

    def _write_binary(self, rest: bytes) -> bytes:
        place, _, data = rest.partition(b":")
        return self._store(place, unescape(data))

    def _store(self, place: bytes, data: bytes) -> bytes:
        address, length = (int(word, 16) for word in place.split(b","))
        if len(data) != length:
            return _EINVAL
        mm = self._task.mm if self._task is not None else None
        return _OK if write_memory(mm, address, data) else _EFAULT

    def _point(self, rest: bytes, insert: bool) -> bytes:
        """Z and z packets."""
        kind_text, address_text, length_text = rest.partition(b";")[0].split(b",")
        kind, address, length = int(kind_text), int(address_text, 16), int(length_text, 16)
        process = self._process()
        if process is None:
            return _ESRCH
        if kind in (0, 1):
            change = self.debugger.add_breakpoint if insert else self.debugger.remove_breakpoint
            change(process, address, kind)
        elif kind in (2, 3, 4):
            point = Watchpoint(address, length, WatchKind(kind))
            if insert:
                process.watchpoints[point] = None
            else:
                process.watchpoints.pop(point, None)
        else:
            return _UNKNOWN
        return _OK

    # ---- going on ------------------------------------------------------------------------------------------------

    def _vcont(self, rest: bytes) -> bytes:
        """The first action that names a thread is that thread's."""
        self.debugger.hold_all()
        ordered: set[Task] = set()
        for action in rest.split(b";"):
            what, _, whom = action.partition(b":")
            order = Order.STEP if what[:1] in b"sSr" else Order.RUN
            signal = from_gdb(int(what[1:], 16)) if what[:1] in b"CS" else 0
            steps = range(*(int(word, 16) for word in what[1:].split(b","))) if what[:1] == b"r" else range(0)
            for task in self._matching(whom):
                if task not in ordered:
                    ordered.add(task)
                    self.debugger.order(task, order, signal, steps)
        raise _Resume

    def _plain_resume(self, order: Order, signal: int, _address: bytes) -> bytes:
        """c, s, C and S of a gdb that does not know vCont."""
        self.debugger.hold_all()
        chosen = self._continue_task if self._continue_task in self.debugger.threads else None
        for task in self._tasks():
            if chosen is None or task is chosen:
                mine = task is (chosen or self._task)
                self.debugger.order(task, order if mine else Order.RUN, from_gdb(signal) if mine else 0)
        raise _Resume

    def _detach(self, rest: bytes) -> bytes:
        pids = [int(rest[1:], 16)] if rest else list(self.debugger.processes)
        done = [self.debugger.detach(pid) for pid in pids]
        self._task = self._task if self._task in self.debugger.threads else next(iter(self.debugger.threads), None)
        return _OK if all(done) else _ESRCH

    def _vkill(self, rest: bytes) -> bytes:
        return _OK if self.debugger.kill(int(rest, 16)) else _ESRCH

    def _kill(self, _rest: bytes) -> bytes:
        for pid in list(self.debugger.processes):
            self.debugger.kill(pid)
        return _OK


def _thread_id(task: Task | None) -> bytes:
    return b"0" if task is None else b"p%x.%x" % (task.tgid, task.pid)


def _hex_id(text: bytes) -> int:
    return _ALL if text == b"-1" else int(text, 16)


def serve(machine: Machine, listener: socket.socket) -> Stub:
    """Put ``machine``, with its program loaded, under a debugger that is to come; wait for it."""
    assert machine.init is not None, "spawn a program first"
    stub = Stub(machine, listener)
    stub.accept()
    stub.debugger.attach(machine.init)
    machine.debugger = stub.debugger
    return stub


__all__ = ["Stub", "listen", "serve"]
