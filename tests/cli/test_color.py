"""Colour: on a terminal, unless NO_COLOR says otherwise, unless --color does (https://no-color.org)."""

from __future__ import annotations

import pytest

from tests.cli.pagewalk import pagewalk
from tests.cli.terminal import on_terminal

TRACE = ("-e", "faults", "--", "images/hello")


@pytest.mark.parametrize(
    ("options", "env", "has_color"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": "1"}, False),
        ((), {"NO_COLOR": ""}, True),
        ((), {"TERM": "dumb"}, False),
        (("--color", "never"), {}, False),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
        (("--color", "always"), {"TERM": "dumb"}, True),
    ],
)
def test_on_a_terminal(options: tuple[str, ...], env: dict[str, str], has_color: bool) -> None:
    seen, status = on_terminal("trace", *options, *TRACE, env=env)
    assert status == 0 and b"_start" in seen
    assert (b"\x1b[" in seen) == has_color


@pytest.mark.parametrize(("options", "has_color"), [((), False), (("--color", "always"), True)])
def test_in_a_pipe(options: tuple[str, ...], has_color: bool) -> None:
    assert ("\x1b[" in pagewalk("trace", *options, *TRACE).stderr) == has_color


def test_a_table_on_a_terminal_without_colour() -> None:
    seen, _ = on_terminal("kernels", env={"NO_COLOR": "1"})
    assert b"2.6.7 (default)" in seen
    assert b"\x1b[3" not in seen
