"""How one run of a program went otherwise than another, in words: exit, output, the files that it left."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emu.jobs import Outcome


class What(Enum):
    """Where two runs can differ."""

    EXIT = "exit"
    STDOUT = "stdout"
    STDERR = "stderr"
    FILE = "file"
    TASK = "task"


@dataclass(frozen=True)
class Difference:
    what: What
    text: str

    def as_json(self) -> dict[str, str]:
        return {"what": self.what.value, "text": self.text}


def exit_text(outcome: Outcome) -> str:
    if outcome.signal is not None:
        return f"killed by {outcome.signal}"
    return "did not end" if outcome.exit_status is None else f"exit status {outcome.exit_status}"


def differences(outcome: Outcome, reference: Outcome) -> list[Difference]:
    """What a user of the program notices that is not as on the reference."""
    found = []
    if (outcome.exit_status, outcome.signal) != (reference.exit_status, reference.signal):
        found.append(Difference(What.EXIT, f"{exit_text(outcome)} instead of {exit_text(reference)}"))
    for what, mine, other in (
        (What.STDOUT, outcome.stdout, reference.stdout),
        (What.STDERR, outcome.stderr, reference.stderr),
    ):
        text = _first_difference(mine, other)
        if text is not None:
            found.append(Difference(what, f"{what.value} {text}"))
    for path in sorted(outcome.files.keys() | reference.files.keys()):
        mine_file, other_file = outcome.files.get(path), reference.files.get(path)
        if mine_file != other_file:
            found.append(Difference(What.FILE, f"file {path} {_file_text(mine_file, other_file)}"))
    return found


def _first_difference(mine: bytes, other: bytes) -> str | None:
    for number, (ours, theirs) in enumerate(zip_longest(mine.splitlines(), other.splitlines()), start=1):
        if ours != theirs:
            return f"line {number}: {_quoted(ours)} instead of {_quoted(theirs)}"
    return None if mine == other else "ends with another line feed"


_MAX_QUOTED = 120


def _quoted(line: bytes | None) -> str:
    if line is None:
        return "nothing"
    text = line.decode(errors="replace")
    return repr(text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "...")


def _file_text(mine: str | None, other: str | None) -> str:
    if mine is None:
        return "was not written"
    if mine == "deleted":
        return "was deleted"
    return "was written" if other is None else "differs"
