"""Real gdb in batch mode: what people do with it every day."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gdb.conftest import ROOT, Debug

Build = Callable[..., Path]
QUIET = "handle SIGUSR1 nostop noprint pass\n"
GREETING = "hello 41 106 6 0.5 child 7\n"


def test_static_program(debugger: Debug) -> None:
    command = [sys.executable, "-m", "emu", "run", "--", "images/faults"]
    alone = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    done = debugger(
        "info registers rip\nbreak main\ncontinue\nbt\nx/i $pc\nnext\nstep\nbt 2\nfinish\ninfo proc mappings\ncontinue",
        "images/faults",
    )
    done.shows(
        r"_start \(\) at ./start\.S",
        r"^rip .*<_start>",
        r"^Breakpoint 1, main \(\) at userland/faults\.c:\d+",
        r"^#0  main \(\) at userland/faults\.c",
        r"^=> 0x[0-9a-f]+ <main>:",
        r"map_anonymous\(4 \* PAGE_SIZE",
        r"^map_anonymous ",
        r"^#1  .*main \(\) at userland/faults\.c",
        r"r-xp +/.*images/faults",
        r"\[vdso\]",
        r"\[stack\]",
        r"exited normally",
    )
    assert done.stdout == alone.stdout and done.status == alone.returncode == 0


@pytest.mark.parametrize("flags", [("-pie", "-fPIE"), ("-no-pie", "-fno-pie"), ("-static", "-fno-pie")])
def test_breakpoints_steps_and_variables(debugger: Debug, compiled: Build, flags: tuple[str, ...]) -> None:
    program = compiled("visit", *flags)
    done = debugger(
        QUIET + "break add\ncontinue\nbt\ninfo args\nfinish\np *p\nfinish\nnext\np sum\np half\np text\n"
        "set var text = \"HELLO\"\np counter\ndelete\ncontinue",
        program,
    )
    done.shows(
        r"^Breakpoint 1, add \(a=1, b=40\) at .*visit\.c:\d+",
        r"^#0  add \(a=1, b=40\)",
        r"^#1  .* in outer ",
        r"^#2  .* in main \(argc=1",
        r"^b = 40",
        r"Value returned is \$1 = 41",
        r"\$2 = \{x = 1, y = 40\}",
        r"Value returned is \$3 = 41",
        r"\$4 = 41",
        r"\$5 = 0\.5",
        r"\$6 = \"hello",
        r"\$7 = 0",
        r"\[Detaching after fork from child process",
        r"exited with code 03",
    )
    assert done.stdout == GREETING.replace("hello", "HELLO") and done.status == 3


def test_watchpoints_show_old_and_new_values(debugger: Debug, compiled: Build) -> None:
    done = debugger(
        QUIET + "break main\ncontinue\nwatch counter\nrwatch seen\ncontinue\ncontinue\ndelete 2\n"
        "continue\nbt 1\ndelete\ncontinue",
        compiled("visit"),
    )
    done.shows(
        r"^Hardware watchpoint 2: counter",
        r"^Hardware read watchpoint 3: seen",
        r"^Hardware watchpoint 2: counter\n\nOld value = 0\nNew value = 2",
        r"^Hardware watchpoint 2: counter\n\nOld value = 2\nNew value = 4",
        r"^Hardware read watchpoint 3: seen\n\nValue = 6",
        r"^#0  .*main ",
        r"exited with code 03",
    )
    assert done.stdout == GREETING and done.status == 3


def test_access_and_hardware_breakpoints(debugger: Debug, compiled: Build) -> None:
    done = debugger(QUIET + "hbreak outer\ncontinue\nawatch seen\ncontinue\ndelete\nkill", compiled("visit"))
    done.shows(
        r"^Hardware assisted breakpoint 1",
        r"^Breakpoint 1, outer ",
        r"^Hardware access \(read/write\) watchpoint 2: seen\n\nOld value = 0\nNew value = 6",
    )
    assert done.status == 137


def test_segmentation_fault_is_told_before_it_is_delivered(debugger: Debug, compiled: Build) -> None:
    done = debugger(
        QUIET + "continue\n"
        "p $_siginfo.si_signo\np $_siginfo._sifields._sigfault.si_addr\nx/i $pc\np $_exitcode\ncontinue",
        compiled("visit"), "segv",
    )  # fmt: skip
    done.shows(
        r"^Program received signal SIGSEGV",
        r"\$1 = 11",
        r"\$2 = \(void \*\) 0x10",
        r"=> .*movl +\$0x1,",
        r"\$3 = void",
        r"^Program terminated with signal SIGSEGV",
    )
    assert done.status == 128 + 11


def test_a_signal_can_be_kept_from_the_program(debugger: Debug, compiled: Build) -> None:
    done = debugger("continue\nsignal 0", compiled("visit"))
    done.shows(r"received signal SIGUSR1", r"exited with code 03")
    assert done.stdout == GREETING.replace("106", "6")


def test_a_step_goes_into_the_handler(debugger: Debug, compiled: Build) -> None:
    done = debugger("continue\nstepi\nx/i $pc\nfinish\ncontinue", compiled("visit"))
    done.shows(r"received signal SIGUSR1", r"on_usr1 \(", r"^=> 0x[0-9a-f]+ <on_usr1>", r"<signal handler called>")
    assert done.stdout == GREETING


def test_a_signal_sent_by_gdb(debugger: Debug, compiled: Build) -> None:
    done = debugger(QUIET + "break outer\ncontinue\ndelete\nsignal SIGUSR1", compiled("visit"))
    assert done.stdout == GREETING.replace("106 6", "206 106")


def test_threads(debugger: Debug, compiled: Build) -> None:
    done = debugger(
        "break worker if (long)arg == 3\ncontinue\n"
        "info threads\nthread apply all bt 3\nnext\np number\ndelete\ncontinue",
        compiled("threads"),
    )
    done.shows(
        r"hit Breakpoint 1, worker \(arg=0x3\)",
        r"^  1 +Thread .*\"threads\"",
        r"^\* 4 +Thread .*\"threads\" +worker \(arg=0x3\)",
        r"^Thread 4 ",
        r"^#0  worker \(arg=0x3\)",
        r"^Thread 1 ",
        r"^#\d  .*(futex|pthread_join|clone)",
        r"\$1 = 3",
        r"exited normally",
    )
    assert done.stdout == "total 300\n" and done.status == 0


def test_one_thread_alone(debugger: Debug, compiled: Build) -> None:
    done = debugger(
        "break worker\ncontinue\nset scheduler-locking on\ndelete\nwatch total\nignore 2 9\ncontinue\np total\ndelete\n"
        "set scheduler-locking off\ncontinue",
        compiled("threads"),
    )
    done.shows(r"Breakpoint 1, worker \(arg=0x1\)", r"New value = 10", r"\$1 = 10", r"exited normally")
    assert done.stdout == "total 300\n"


def test_follow_the_child(debugger: Debug, compiled: Build) -> None:
    done = debugger(
        QUIET + "set follow-fork-mode child\nbreak add if a == 3\ncontinue\nbt\ncontinue",
        compiled("visit"),
    )
    done.shows(r"hit Breakpoint 1, add \(a=3, b=4\)", r"^#1  .*main", r"exited with code 07")
    assert done.stdout == GREETING and done.status == 3


def test_both_processes(debugger: Debug, compiled: Build) -> None:
    done = debugger(
        QUIET + "set detach-on-fork off\nset schedule-multiple on\ncatch fork\ncontinue\nbreak add\n"
        "continue\ninfo inferiors\ncontinue\ninferior 1\ncontinue",
        compiled("visit"),
    )
    done.shows(r"Catchpoint 1 \(forked process \d+\)", r"add \(a=3, b=4\)", r"^  1 +process",
               r"^\* 2 +process", r"Inferior 2 .* exited with code 07", r"Inferior 1 .* exited with code 03")
    assert done.stdout == GREETING and done.status == 3


def test_exec_is_told(debugger: Debug, compiled: Build) -> None:
    done = debugger(
        QUIET + "catch exec\ncontinue\nx/i $pc\nbreak outer\ncontinue\ndelete\ncontinue",
        compiled("visit"), "exec",
    )  # fmt: skip
    done.shows(r"Catchpoint 1 \(exec'd .*visit\)", r"<_start", r"Breakpoint 2, outer", r"exited with code 03")
    assert done.stdout == GREETING.replace("hello 41", "hello 42") + GREETING


def test_memory_and_registers_can_be_written(debugger: Debug, compiled: Build) -> None:
    """A store into text is private to the program, and is executed; the page stays read-only."""
    done = debugger(
        QUIET + "break add\ncontinue\nset $xmm3.v4_int32[1] = 77\np $xmm3.v4_int32[1]\np $st0\nset $rsi = 2\np $rsi\n"
        "p outer\nset var *(unsigned *)outer = 0xc3c031\np/x *(unsigned *)outer\ndelete\n"
        "print ((int (*)(void *))outer)(0)\nprint (int)getpid() > 0\ninfo proc mappings\ncontinue",
        compiled("visit"),
    )
    done.shows(r"\$1 = 77", r"\$2 = 0", r"\$3 = 2", r"\$5 = 0xc3c031", r"\$6 = 0", r"\$7 = 1", r"r-xp .*visit")
    assert done.status == 3


def test_a_program_that_sleeps_for_ever_is_stopped(debugger: Debug, compiled: Build) -> None:
    done = debugger(
        QUIET + "continue\nbt\np $orig_rax\ncall add(20, 2)\np $orig_rax\nsignal SIGTERM", compiled("visit"), "pause"
    )
    done.shows(
        r"nothing can wake one", r"received signal SIGINT", r"^#0 .*pause", r"^#1 .* main", r"= 34", r"= 22", r"= 34",
        r"terminated with signal SIGTERM",
    )  # fmt: skip
    assert done.status == 128 + 15


def test_detach_lets_the_program_run(debugger: Debug, compiled: Build) -> None:
    done = debugger("break add\ncontinue\ndetach", compiled("visit"))
    assert done.stdout == GREETING and done.status == 3


def test_virtual_time_does_not_notice(debugger: Debug, compiled: Build) -> None:
    program = compiled("visit")
    command = [sys.executable, "-m", "emu", "run", "--clear-env", "--", str(program), "clock"]
    alone = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    done = debugger(
        QUIET + "break add\ncontinue\nbt\nstepi 3\nwatch counter\ncontinue\ncontinue\ndelete\ncontinue",
        program, "clock", options=("--clear-env",),
    )  # fmt: skip
    assert done.stdout == alone.stdout


def test_vfork_is_told(debugger: Debug, compiled: Build) -> None:
    """vfork is told, and its end; the child shares the memory but runs free."""
    done = debugger(
        QUIET + "catch vfork\nbreak after\ncontinue\nbt 1\ncontinue\ncontinue",
        compiled("spawns"),
    )
    done.shows(r"Catchpoint 1 \(vforked process \d+\)", r"Breakpoint 2, after", r"exited normally")
    assert done.stdout == "child 4\n" and done.status == 0
