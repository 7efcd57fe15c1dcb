"""Limits files: TOML with the line of every key, so that a mistake can be pointed at.

Models TOML 1.0 (https://toml.io).  tomllib reads the file and refuses what is not TOML; since it does not say where a
key is, :func:`key_lines` walks over the text once more.  It may rely on the text being valid: it has to tell keys from
values, no more.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from emu.limits import KEYS, Limits, Question, read_value

_AT_LINE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""(?:[^"'=\]]|"(?:[^"\\]|\\.)*"|'[^']*')*""")
"""A dotted key, quoted parts included, up to the = or ] behind it."""
_STRING = re.compile(
    r'"{3}(?:[^"\\]|\\.|"(?!"")|"(?="{3,}))*"{3}'
    r"|'{3}(?:[^']|'(?!'')|'(?='{3,}))*'{3}"
    r"""|"(?:[^"\\]|\\.)*"|'[^']*'""",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\r\n]*")

Path = tuple[str, ...]
Keys = Generator[tuple[Path, int], None, int]
"""Keys with their places; returns where the walk ended."""


def parse_limits_file(path: str) -> list[Question]:
    """See :func:`emu.limits.read_limits`."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not TOML: byte {data[error.start]:#04x} is not UTF-8") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(_syntax_error(path, text, str(error))) from None
    lines = key_lines(text)

    def refuse(key: Path, message: str) -> ValueError:
        return ValueError(f"{path}:{lines[key]}: {message}")

    def read(table: Mapping[str, Any], prefix: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in table.items():
            try:
                found[name] = read_value(name, value)
            except ValueError as error:
                raise refuse((*prefix, name), str(error)) from None
        return found

    tables = {name: value for name, value in document.items() if isinstance(value, dict)}
    for name in document:
        if _is_array_of_tables(document[name]) and name not in KEYS:
            raise refuse((name,), f"{name}: a question is one [{name}], not an array of tables")
        if name in tables and name in KEYS:
            raise refuse((name,), f"{name}: {KEYS[name].allowed}; a question needs a name of its own")
    common = read({name: value for name, value in document.items() if name not in tables}, ())
    if not document:
        raise ValueError(f'{path}:1: no limits in it; write a key such as rlimit_as = "64M", or [tables] of such keys')
    if not tables:
        return [Question(os.path.splitext(os.path.basename(path))[0], Limits(**common))]
    questions = []
    for name, table in tables.items():
        own = read(table, (name,))
        if "fail" in own:
            own["fail"] = common.get("fail", ()) + own["fail"]
        questions.append(Question(name, Limits(**(common | own))))
    return questions


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _syntax_error(path: str, text: str, message: str) -> str:
    """``FILE:LINE: ...`` from tomllib's message."""
    match = _AT_LINE.search(message)
    if match is None or match[1] is None:
        line, column = len(text.rstrip("\n").split("\n")), ""
    else:
        line, column = int(match[1]), f" (column {match[2]})"
    what = _AT_LINE.sub("", message)
    if what == "Cannot overwrite a value":
        # tomllib says so at the end of the second value of a key.
        key = text.split("\n")[line - 1].partition("=")[0].strip()
        return f"{path}:{line}: {key}: given twice in one table"
    return f"{path}:{line}: not TOML: {what[:1].lower()}{what[1:]}{column}"


# ---- where the keys are ------------------------------------------------------------------------------------------


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) where each key, and each table, is first named.  ``text`` is valid TOML."""
    found: dict[Path, int] = {}
    for key, position in _keys(text):
        line = text.count("\n", 0, position) + 1
        for length in range(1, len(key) + 1):
            found.setdefault(key[:length], line)
    return found


def _keys(text: str) -> Iterator[tuple[Path, int]]:
    """Every key with its place, in order; a table's header is the key of the table."""
    prefix: Path = ()
    at = _skip(_BLANK, text, 0)
    while at < len(text):
        if text[at] == "[":
            inside = at + 2 if text.startswith("[[", at) else at + 1
            end = _skip(_KEY, text, inside)
            prefix = _parts(text[inside:end])
            yield prefix, at
            at = end + inside - at
        else:
            at = yield from _pair(text, at, prefix)
        at = _skip(_BLANK, text, at)


def _pair(text: str, at: int, prefix: Path) -> Keys:
    """``key = value`` at ``at``; returns where it ends."""
    end = _skip(_KEY, text, at)
    key = prefix + _parts(text[at:end])
    yield key, at
    return (yield from _value(text, _skip(_BLANK, text, end + 1), key))


def _value(text: str, at: int, key: Path) -> Keys:
    """The value of ``key`` at ``at``; returns where it ends.  Yields the keys of inline tables."""
    string = _STRING.match(text, at)
    if string is not None:
        return string.end()
    if text[at] not in "[{":
        return _skip(_SCALAR, text, at)
    opening = text[at]
    at = _skip(_BLANK, text, at + 1)
    while text[at] not in "]}":
        if opening == "{":
            at = yield from _pair(text, at, key)
        else:
            at = yield from _value(text, at, key)
        at = _skip(_BLANK, text, at)
        if text[at] == ",":
            at = _skip(_BLANK, text, at + 1)
    return at + 1


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _parts(dotted: str) -> Path:
    """``a."b.c"`` as its parts; tomllib knows how keys are quoted."""
    parts: list[str] = []
    table: Any = tomllib.loads(f"{dotted} = 0")
    while isinstance(table, dict):
        ((name, table),) = table.items()
        parts.append(name)
    return tuple(parts)
