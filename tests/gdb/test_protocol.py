"""The protocol itself, without gdb: packets, interrupts, what a lost connection leaves behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from emu.gdb.packets import escape, unescape
from emu.gdb.registers import NAMES, SIZES, abridged_tags, full_tags, target_xml
from emu.gdb.signals import from_gdb, to_gdb
from tests.gdb.conftest import ROOT, free_port

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/root"}


class Peer:
    """A debugger that says what it is told."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.buffer = b""
        assert self.ask(b"QStartNoAckMode") == b"OK"

    def send(self, data: bytes) -> None:
        self.socket.sendall(b"$%s#%02x" % (data, sum(data) & 0xFF))

    def answer(self) -> bytes:
        while (end := self.buffer.find(b"#")) < 0 or len(self.buffer) < end + 3:
            part = self.socket.recv(1 << 16)
            assert part, "the stub has gone"
            self.buffer += part
        packet, self.buffer = self.buffer[: end + 3], self.buffer[end + 3 :]
        data = packet[packet.index(b"$") + 1 : -3]
        assert int(packet[-2:], 16) == sum(data) & 0xFF
        return data

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.answer()

    def close(self) -> None:
        self.socket.close()


class Guest:
    def __init__(self, *argv: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "emu", "run", "--gdb", str(self.port), "--", *argv]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stderr is not None
        assert "waiting for gdb" in self.process.stderr.readline()

    def end(self) -> tuple[int, str]:
        stdout, _ = self.process.communicate(timeout=60)
        return self.process.returncode, stdout


@pytest.fixture
def hello() -> Iterator[Guest]:
    guest = Guest("images/hello")
    yield guest
    guest.process.kill()
    guest.process.communicate()


def rip_of(peer: Peer) -> int:
    return int.from_bytes(bytes.fromhex(peer.ask(b"p%x" % NAMES.index("rip")).decode()), "little")


def test_a_whole_conversation(hello: Guest) -> None:
    peer = Peer(hello.port)
    assert b"multiprocess+" in peer.ask(b"qSupported:multiprocess+;swbreak+")
    assert peer.ask(b"?").startswith(b"T05")
    assert peer.ask(b"vMustReplyEmpty") == b""
    rip = rip_of(peer)
    code = peer.ask(b"m%x,4" % rip)
    assert len(code) == 8
    assert peer.ask(b"m10,4") == b"E0e"
    assert peer.ask(b"m%x,zz" % rip) == b"E16"
    assert len(peer.ask(b"g")) == 2 * sum(SIZES)
    assert peer.ask(b"vCont;s:p2.2").startswith(b"T05")
    assert rip_of(peer) > rip
    assert peer.ask(b"m%x,4" % rip) == code
    assert peer.ask(b"vFile:open:%s,0,0" % b"/nowhere".hex().encode()) == b"F-1,2"
    assert peer.ask(b"vFile:open:%s,1,0" % b"/etc/passwd".hex().encode()) == b"F-1,1e"
    assert peer.ask(b"vFile:pread:0,10,0") == b"F-1,9"
    assert peer.ask(b"vCont;c") == b"W00;process:2"
    assert hello.end() == (0, "Hello, world\n")


def test_breakpoints_are_not_in_memory(hello: Guest) -> None:
    peer = Peer(hello.port)
    rip = rip_of(peer)
    code = peer.ask(b"m%x,10" % rip)
    assert peer.ask(b"Z0,%x,1" % rip) == b"OK"
    assert peer.ask(b"m%x,10" % rip) == code
    assert b"swbreak:;" in peer.ask(b"vCont;c")
    assert rip_of(peer) == rip
    assert peer.ask(b"z0,%x,1" % rip) == b"OK"
    assert peer.ask(b"k") == b"OK"
    assert hello.end() == (137, "")


def test_interrupt_of_a_loop(hello: Guest) -> None:
    peer = Peer(hello.port)
    rip = rip_of(peer)
    code = peer.ask(b"m%x,2" % rip)
    assert peer.ask(b"M%x,2:ebfe" % rip) == b"OK"  # jmp to itself, in read-only text
    peer.send(b"vCont;c")
    peer.socket.sendall(b"\x03")
    assert peer.answer().startswith(b"T02")
    assert rip_of(peer) == rip
    assert peer.ask(b"M%x,2:%s" % (rip, code)) == b"OK"
    assert peer.ask(b"vCont;c") == b"W00;process:2"
    assert hello.end() == (0, "Hello, world\n")


def test_a_lost_debugger_can_come_back(hello: Guest) -> None:
    first = Peer(hello.port)
    assert first.ask(b"vCont;s:p2.2").startswith(b"T05")
    rip = rip_of(first)
    first.close()
    second = Peer(hello.port)
    assert second.ask(b"?").startswith(b"T05")
    assert rip_of(second) == rip
    assert second.ask(b"D;2") == b"OK"
    assert hello.end() == (0, "Hello, world\n")


def test_bad_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (0, taken.getsockname()[1]):
            command = [sys.executable, "-m", "emu", "run", "--gdb", str(port), "--", "images/hello"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 125 and done.stdout == ""
            assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("pagewalk: ")


def test_escapes() -> None:
    assert escape(b"a}b#c$d*") == b"a}]b}\x03c}\x04d}\x0a"
    everything = bytes(range(256))
    assert unescape(escape(everything)) == everything


def test_signal_numbers() -> None:
    assert [to_gdb(n) for n in (2, 5, 7, 10, 11, 17, 33, 34, 63, 32, 64)] == [2, 5, 10, 30, 11, 20, 45, 46, 75, 77, 78]
    assert all(from_gdb(to_gdb(n)) == n for n in range(1, 65) if n != 16)
    assert from_gdb(200) == 0


def test_x87_tags() -> None:
    image = bytearray(512)
    assert full_tags(image) == 0xFFFF
    image[4] = 0x80  # register 7, which is st(0) with TOP = 7
    image[2:4] = (7 << 11).to_bytes(2, "little")
    assert full_tags(image) == 0x7FFF  # zero
    image[32:42] = (1 << 63).to_bytes(8, "little") + b"\xff\x3f"
    assert full_tags(image) == 0x3FFF  # valid
    assert abridged_tags(0x3FFF) == 0x80


def test_description_names_the_registers_in_order() -> None:
    assert re.findall(r'<reg name="(\w+)"', target_xml()) == NAMES
