"""The command line: ``pagewalk check mremap``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.pagewalk import pagewalk, refused

MREMAP = ("check", "mremap")


def test_breaks() -> None:
    done = pagewalk(*MREMAP, "--kernels", "2.6.6-rmap39,6.18", "--no-rescue", "--", "images/p1", "2")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("breaks: images/p1 2\nbreaks on 1 of 2 kernels; compared with 6.18\n")
    assert "saved by" not in done.stdout


def test_safe_as_json() -> None:
    done = pagewalk(*MREMAP, "--kernels", "2.6.7,6.18", "--json", "--", "images/p1", "2")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["verdict"], answer["exit_status"], answer["reference"]) == (0, "safe", 0, "6.18")
    assert [run["kernel"] for run in answer["runs"]] == ["2.6.7", "6.18"]


def test_could_not_tell() -> None:
    loop = ("/bin/sh", "-c", "while :; do :; done")
    done = pagewalk(*MREMAP, "--kernels", "6.18", "--timeout", "0.05", "--", *loop)
    assert done.returncode == 3 and "did not end within 0.05 seconds of its own time" in done.stdout


def test_standard_input_is_given_to_every_run() -> None:
    program = ("images/vmscript", "-")
    done = pagewalk(*MREMAP, "--kernels", "6.1,6.18", "--json", "--", *program, stdin="m:0:1:rw v:0:1:2:M")
    answer = json.loads(done.stdout)
    assert [run["mremap"]["ok"] for run in answer["runs"]] == [1, 1]


def test_limits_and_failures_of_the_command_line_are_one_question() -> None:
    done = pagewalk(
        *MREMAP, "--kernels", "6.18", "--limit", "always_move", "--fail", "mmap:ENOMEM@99", "--json", "--",
        "images/p1", "2",
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["questions"] == [
        {"name": "always_move, fail=mmap:ENOMEM@99", "limits": {"always_move": True, "fail": ["mmap:ENOMEM@99"]}}
    ]
    assert [run["question"] for run in answer["runs"]] == [None, answer["questions"][0]["name"]]
    assert answer["idle_failures"] == ["mmap:ENOMEM@99"]


def test_every_table_of_a_limits_file_is_a_question(tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("[moving]\nalways_move = true\n[small]\nmax_map_count = 20\n")
    done = pagewalk(*MREMAP, "--kernels", "6.18", "--limits", limits, "--", "images/p1", "2")
    assert done.returncode == 0
    assert "with moving: always_move" in done.stdout and "with small: max_map_count=20" in done.stdout


def test_a_bad_limits_file(tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text('[small]\nrlimit_as = "64M"\nmax_map_count = "many"\n')
    message = refused(*MREMAP, "--limits", limits, "--", "images/p1")
    assert message.startswith(f"--limits: {limits}:3: max_map_count: a number of areas from 1 to ")
    assert "No such file" in refused(*MREMAP, "--limits", tmp_path / "none.toml", "--", "images/p1")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "no program given; end with: -- PROG ARGS..."),
        (("--kernels", "5.0", "--", "images/p1"), "no kernel '5.0'; there are 2.6.6"),
        (("--timeout", "soon", "--", "images/p1"), "'soon' is no time; write seconds, virtual:SECONDS or wall:SECONDS"),
        (("--timeout", "0", "--", "images/p1"), "'0' is no time"),
        (("--limit", "colour=red", "--", "images/p1"), "colour: no such limit"),
        (("--fail", "mremap", "--", "images/p1"), "mremap: expected POINT:N"),
        (("--sweep=EVIL", "--", "images/p1"), "'EVIL' is no error"),
        (("--writable", "/tmp", "--", "images/p1"), "would meet its own changes"),
        (("--swap", "/tmp/x:1M", "--", "images/p1"), "cannot share one swap file"),
        (("--kernel", "6.18", "--", "images/p1"), "write --kernels NAME,..."),
        (("--stats", "--", "images/p1"), "--stats: the program runs many times"),
        (("--json", "--nonsense", "--", "images/p1"), "no such option '--nonsense'"),
    ],
)
def test_bad_command_lines(args: tuple[str, ...], words: str) -> None:
    assert words in refused(*MREMAP, *args)


def test_a_program_that_is_not_there() -> None:
    assert "/nonexistent" in refused(*MREMAP, "--kernels", "6.18", "--", "/nonexistent", status=127)


def test_only_mremap_can_be_checked() -> None:
    assert "mmap" in refused("check", "mmap", "--", "images/p1")
    assert "what is to be checked? write pagewalk check mremap -- PROG" in refused("check")
