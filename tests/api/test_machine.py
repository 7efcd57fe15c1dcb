"""Machine: its keywords, its programs, their input and output, its end."""

from __future__ import annotations

import os
import threading
from dataclasses import fields
from pathlib import Path

import pytest

import emu
from emu import BadAddress, Machine, MachineConfig, MachineError, NoSuchTask, NotNow, NotRunnable
from emu.config import MachineOptions

HELLO = ["images/hello"]


def test_every_public_name_is_there() -> None:
    for name in emu.__all__:
        assert getattr(emu, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'machines'"):
        _ = emu.machines


def test_keywords_are_the_fields_of_the_config() -> None:
    names = {field.name for field in fields(MachineConfig)}
    assert {"ram_bytes" if name == "ram" else name for name in MachineOptions.__annotations__} == names


def test_sizes_are_numbers_or_what_people_write() -> None:
    with Machine(ram="16M", swap="1M", kernel="6.1") as machine:
        assert machine.config == MachineConfig(kernel="6.1", ram_bytes=16 << 20, swap="1M")
        assert machine.kernel.pages.nr_frames == 4096
        assert machine.kernel.profile.name == "6.1"
        assert machine.stats()["swap"]["total_pages"] == 255
    with Machine(ram=16 << 20, swap=1 << 20) as machine:
        assert machine.config.ram_bytes == 16 << 20
        assert machine.stats()["swap"]["total_pages"] == 255


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ram": "lots"}, "'lots' is no size; write bytes"),
        ({"ram": "4K"}, "from 1M to 16G is possible"),
        ({"kernel": "2.4"}, "2.4"),
        ({"swap": "1K"}, "from 40K to 64G"),
        ({"bugs": ["nosuch"]}, "nosuch"),
        ({"fail": ["nosuch"]}, "nosuch"),
    ],
)
def test_what_no_machine_can_be_made_of_is_refused(options: MachineOptions, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Machine(**options)


def test_keywords_change_a_config() -> None:
    config = MachineConfig(kernel="6.1", ram_bytes=16 << 20, seed=7)
    with Machine(config, ram="8M") as machine:
        assert machine.config == MachineConfig(kernel="6.1", ram_bytes=8 << 20, seed=7)
    assert config.ram_bytes == 16 << 20


def test_output_is_captured_apart() -> None:
    with Machine() as machine:
        machine.spawn(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], capture=True)
        assert machine.stdout == machine.stderr == b""
        assert machine.run() == 3
        assert (machine.stdout, machine.stderr) == (b"out\n", b"err\n")


def test_a_program_reads_what_it_is_given_and_then_the_end() -> None:
    text = bytes(range(256)) * 300
    with Machine() as machine:
        assert machine.run_program(["/bin/cat"], stdin=text, capture=True) == 0
        assert machine.stdout == text


def test_to_the_program_they_are_pipes() -> None:
    script = "for fd in 0 1 2; do test -p /dev/fd/$fd && ! test -t $fd && echo pipe; done; read line; echo $line"
    with Machine() as machine:
        machine.spawn(["/bin/sh", "-c", script], stdin=b"one line\ntwo\n", capture=True)
        machine.run()
        assert machine.stdout == b"pipe\npipe\npipe\none line\n"


def test_descriptors_that_are_not_captured_are_the_host_s(capfd: pytest.CaptureFixture[str]) -> None:
    with Machine() as machine:
        machine.run_program(["/bin/cat"], stdin=b"through\n")
        assert machine.stdout == b""
    assert capfd.readouterr().out == "through\n"


def test_the_environment_is_the_config_s_or_the_program_s_own() -> None:
    with Machine(env={"NAME": "config"}) as machine:
        for env in (None, {"NAME": "own"}):
            machine.spawn(["/bin/sh", "-c", "echo $NAME"], env=env, capture=True)
            machine.run()
        assert machine.stdout == b"config\nown\n"


def test_one_program_after_another_and_two_at_a_time() -> None:
    with Machine() as machine:
        assert machine.run_program(["/bin/sh", "-c", "exit 3"]) == 3
        assert machine.run_program(["/bin/sh", "-c", "exit 4"]) == 4
        first = machine.spawn(HELLO, capture=True)
        second = machine.spawn(HELLO, capture=True)
        assert machine.init is first
        assert machine.tasks == [first, second]
        assert machine.run() == 0
        assert machine.stdout == b"Hello, world\n" * 2


def test_a_signal_gives_128_and_its_number() -> None:
    with Machine() as machine:
        assert machine.run_program(["/bin/sh", "-c", "kill -SEGV $$"], capture=True) == 128 + 11


@pytest.mark.parametrize(("argv", "status"), [(["/no/such"], 127), (["no_such_program"], 127), (["README.md"], 127),
                                              (["./README.md"], 126), ([], 127)])  # fmt: skip
def test_what_cannot_be_run_says_so(argv: list[str], status: int) -> None:
    with Machine() as machine, pytest.raises(NotRunnable) as caught:
        machine.spawn(argv)
    assert caught.value.status == status and "\n" not in caught.value.message


def test_errors_are_machine_errors() -> None:
    for error in (NotRunnable, NoSuchTask, BadAddress, NotNow):
        assert issubclass(error, MachineError)
        assert error.__doc__


def test_a_closed_machine_does_nothing() -> None:
    machine = Machine()
    machine.spawn(HELLO)
    machine.close()
    machine.close()
    assert "closed" in repr(machine)
    for action in (machine.run, lambda: machine.spawn(HELLO), lambda: machine.reclaim(1)):
        with pytest.raises(NotNow, match="closed"):
            action()


def test_a_machine_without_a_program_says_so() -> None:
    with Machine() as machine:
        assert str(machine.stopped) == "before the first instruction"
        with pytest.raises(NotNow, match="spawn one first"):
            machine.run()
        with pytest.raises(NoSuchTask, match="no program was started"):
            machine.maps_text()


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    for until in ("fault:2", "exit", "syscall:1"):
        with Machine() as machine:
            machine.run_program(HELLO, until=until, capture=True)
            assert threading.active_count() == before + 1
        assert threading.active_count() == before


def test_a_plain_run_needs_no_thread() -> None:
    before = threading.active_count()
    seen = []
    with Machine() as machine:
        machine.on_quantum = lambda _machine: seen.append(threading.active_count())
        machine.run_program(HELLO, capture=True)
    assert set(seen) == {before}


def test_a_closed_machine_holds_no_file_of_the_host(tmp_path: Path) -> None:
    """Neither what the kernel keeps open nor what a program had open in the middle of its run."""
    before = sorted(os.listdir("/proc/self/fd"))
    for until in (None, "syscall:60"):
        with Machine(swap="1M", writable=[str(tmp_path)]) as machine:
            machine.spawn(["/bin/sh", "-c", f"exec 3>{tmp_path}/open; ls / >&3; sleep 1"], capture=True)
            machine.run(until)
    assert sorted(os.listdir("/proc/self/fd")) == before
