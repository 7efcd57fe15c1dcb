"""Limits files: what they mean, and that every mistake is pointed at by file, line and key."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.limits import Limits, Question, read_limits
from emu.limits_file import key_lines


def questions(tmp_path: Path, text: str) -> list[Question]:
    path = tmp_path / "limits.toml"
    path.write_text(text)
    return read_limits(str(path))


def refusal(tmp_path: Path, text: str | bytes) -> str:
    """The message about a file, without the directory."""
    path = tmp_path / "limits.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as caught:
        read_limits(str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{tmp_path}/")


def test_every_key(tmp_path: Path) -> None:
    text = """
max_map_count = 100
rlimit_as = "64M"
rlimit_data = 4096
rlimit_memlock = "unlimited"
rlimit_stack = "1GiB"
overcommit_memory = 0
overcommit_ratio = 80
ram = "16M"
swap = 0
mremap = "6.1"
no_move_after_fork = true
never_grow_in_place = true
always_move = true
split_spanning = true
fail = ["mremap:EFAULT@3", "alloc:10.."]
"""
    (question,) = questions(tmp_path, text)
    assert question == Question(
        "limits",
        Limits(
            max_map_count=100,
            rlimit_as=64 << 20,
            rlimit_data=4096,
            rlimit_memlock=(1 << 64) - 1,
            rlimit_stack=1 << 30,
            overcommit_memory=0,
            overcommit_ratio=80,
            ram=16 << 20,
            swap="0",
            mremap="6.1",
            no_move_after_fork=True,
            never_grow_in_place=True,
            always_move=True,
            split_spanning=True,
            fail=("mremap:EFAULT@3", "alloc:10.."),
        ),
    )
    assert question.limits.describe() == (
        "max_map_count=100, rlimit_as=64M, rlimit_data=4K, rlimit_memlock=unlimited, rlimit_stack=1G, "
        "overcommit_memory=0, overcommit_ratio=80, ram=16M, swap=0, mremap=6.1, no_move_after_fork, "
        "never_grow_in_place, always_move, split_spanning, fail=mremap:EFAULT@3, fail=alloc:10.."
    )


def test_tables_are_questions(tmp_path: Path) -> None:
    text = """
always_move = true
max_map_count = 50
fail = "mmap:ENOMEM@1"
[one]
max_map_count = 7
fail = "brk:ENOMEM@every"
["two words"]
always_move = false
[three]
"""
    common = Limits(always_move=True, max_map_count=50, fail=("mmap:ENOMEM@1",))
    assert questions(tmp_path, text) == [
        Question("one", Limits(always_move=True, max_map_count=7, fail=("mmap:ENOMEM@1", "brk:ENOMEM@every"))),
        Question("two words", Limits(max_map_count=50, fail=("mmap:ENOMEM@1",))),
        Question("three", common),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ram = 5", 'limits.toml:1: ram: bytes or a size such as "16M", from 1M to 16G, not 5'),
        ('\n\nram = "100T"\n', 'limits.toml:3: ram: bytes or a size such as "16M", from 1M to 16G, not "100T"'),
        ("ram = true", 'limits.toml:1: ram: bytes or a size such as "16M", from 1M to 16G, not true'),
        ("max_map_count = 0", "limits.toml:1: max_map_count: a number of areas from 1 to 2147483647, not 0"),
        ('max_map_count = "9"', 'limits.toml:1: max_map_count: a number of areas from 1 to 2147483647, not "9"'),
        ("max_map_count = 1.5", "limits.toml:1: max_map_count: a number of areas from 1 to 2147483647, not 1.5"),
        ("rlimit_as = -1", 'limits.toml:1: rlimit_as: bytes, a size such as "64M", or "unlimited", not -1'),
        ("overcommit_memory = 3", "limits.toml:1: overcommit_memory: 0 (guess), 1 (always) or 2 (never), not 3"),
        ("mremap = 6.1", 'limits.toml:1: mremap: "2.6", "6.1" or "6.17", not 6.1'),
        ('swap = "8K"', 'limits.toml:1: swap: bytes or a size such as "64M", from 40K to 64G; 0 for none, not "8K"'),
        ('swap = "f:1M"', 'limits.toml:1: swap: bytes or a size such as "64M", from 40K to 64G; 0 for none, not "f:'),
        ("[q]\nalways_move = 1", "limits.toml:2: always_move: true or false, not 1"),
        ("always_mvoe = true", "limits.toml:1: always_mvoe: no such limit (did you mean always_move?); there are max_"),
        ("[q]\n# x\nRLIMIT_AS = 1", "limits.toml:3: RLIMIT_AS: no such limit (did you mean rlimit_as?); there are"),
        ("zzz = 1", "limits.toml:1: zzz: no such limit; there are max_map_count, rlimit_as, "),
        ("q.zzz = 1", "limits.toml:1: zzz: no such limit"),
        ('fail = "mremap:EWHAT@3"', "limits.toml:1: fail: mremap:EWHAT@3: unknown error EWHAT"),
        ("fail = [1]", 'limits.toml:1: fail: a failure such as "mremap:EFAULT@3", or a list of them, not [1]'),
        ("[a.b]\nram = 1", "limits.toml:1: b: no such limit"),
        ("[[q]]\nalways_move = true", "limits.toml:1: q: a question is one [q], not an array of tables"),
        ("[ram]\nram = 1", "limits.toml:1: ram: bytes or a size such as"),
        ("", 'limits.toml:1: no limits in it; write a key such as rlimit_as = "64M", or [tables] of such keys'),
        ("# nothing\n", "limits.toml:1: no limits in it"),
        ("ram = 1\n[q]\nx y", "limits.toml:3: not TOML: expected '=' after a key"),
        ('ram = "1M', "limits.toml:1: not TOML: "),
        ("\nram =", "limits.toml:2: not TOML: "),
        ("always_move = true\n\nalways_move = true\n", "limits.toml:3: always_move: given twice in one table"),
        ("[q]\nram = '2M'\n[q]\nram = '2M'\n", "limits.toml:3: not TOML: cannot declare ('q',) twice"),
        (b"# \xff\n", "limits.toml:1: not TOML: byte 0xff is not UTF-8"),
    ],
)
def test_mistakes(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_the_line_is_right_behind_anything_that_looks_like_a_key(tmp_path: Path) -> None:
    """Strings over many lines, comments, arrays, quoted and dotted keys: none of them misleads."""
    text = '''# always_mvoe = 1
"\\u0066ail" = [ # always_mvoe = 2
    """mremap:EFAULT@1""",   # ]
    'mremap:EFAULT@2',
]
[ 'a "quoted" name' ] # always_mvoe
ram = \'\'\'
16M\'\'\'
x . "y.z" = { p = [ { "always_mvoe" = 3 } ] }
'''
    lines = key_lines(text)
    assert lines == {
        ("fail",): 2,
        ('a "quoted" name',): 6,
        ('a "quoted" name', "ram"): 7,
        ('a "quoted" name', "x"): 9,
        ('a "quoted" name', "x", "y.z"): 9,
        ('a "quoted" name', "x", "y.z", "p"): 9,
        ('a "quoted" name', "x", "y.z", "p", "always_mvoe"): 9,
    }
    assert refusal(tmp_path, text).startswith("limits.toml:9: x: no such limit")


# -- key_lines against tomllib, over documents made of everything that TOML has ------------------------------------

_NAMES = st.sampled_from(["a", "b-1", '"q.r"', "'l = it'", '"\\u0061x"', '"[b]"', "' # '"])
_VALUES = st.recursive(
    st.sampled_from(
        [
            "1", "true", "1.5e3", "1979-05-27T07:32:00Z", '"s"', "'l'", '"# = ] }"', "'a = \"b'", '"\\" = "',
            '"""one\nk = 1\n"two" \\""""', "'''it's\n[t]\n'''", '"""x"""""', "''''y'''''", '""', "''", '""""""',
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # ]\n ".join(items) + "\n]"),
        st.lists(inner, max_size=2).map(
            lambda items: "{" + ", ".join(f"k{number} = {item}" for number, item in enumerate(items)) + "}"
        ),
    ),
    max_leaves=4,
)  # fmt: skip
_STATEMENTS = st.one_of(
    st.tuples(st.lists(_NAMES, min_size=1, max_size=3).map(" . ".join), _VALUES).map(lambda kv: f"{kv[0]} = {kv[1]}"),
    st.lists(_NAMES, min_size=1, max_size=2).map(lambda names: f"[{'.'.join(names)}] # [z]"),
    st.sampled_from(["", "# k = 1", "   "]),
)


def _paths(value: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*prefix, name)
            yield from _paths(inner, (*prefix, name))
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item, prefix)


@settings(max_examples=400, deadline=None)
@given(st.lists(_STATEMENTS, max_size=8))
def test_every_key_has_the_line_of_its_statement(statements: list[str]) -> None:
    """Whatever tomllib accepts: all of its keys are found, each where removing the rest of the file makes it vanish."""
    kept: list[str] = []
    for statement in statements:
        try:
            tomllib.loads("\n".join([*kept, statement]))
        except tomllib.TOMLDecodeError:
            continue
        kept.append(statement)
    lines = key_lines("\n".join(kept))
    assert set(lines) == set(_paths(tomllib.loads("\n".join(kept))))
    known: set[tuple[str, ...]] = set()
    first_line = 1
    for number, statement in enumerate(kept):
        now = set(_paths(tomllib.loads("\n".join(kept[: number + 1]))))
        for path in now - known:
            last_line = first_line + statement.count("\n")
            assert first_line <= lines[path] <= last_line
        known = now
        first_line += statement.count("\n") + 1
