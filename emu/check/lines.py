"""Lines of coloured words, for the report on a terminal and for its page.

Wrapped at words on a terminal only; elsewhere each line stays whole, so that it can be searched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby

_LABEL = 8
"""Columns of the word before the text of a block's line."""


class Style(Enum):
    """As an ANSI sequence."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    GOOD = "32"
    BAD = "1;31"
    ODD = "33"
    DOUBT = "35"
    PLACE = "36"


@dataclass
class Line:
    """One line: spans of text, and where a line that is too long goes on."""

    spans: list[tuple[str, Style]] = field(default_factory=list)
    hang: int = 0
    """Columns of indentation of what does not fit."""

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.spans)


def line(*parts: str | tuple[str, Style], hang: int = 0) -> Line:
    return Line([(part, Style.PLAIN) if isinstance(part, str) else part for part in parts], hang)


def labelled(label: str, *parts: str | tuple[str, Style]) -> Line:
    return line((f"  {label:<{_LABEL}} ", Style.DIM), *parts, hang=_LABEL + 5)


def more(*parts: str | tuple[str, Style]) -> Line:
    return line(" " * (_LABEL + 3), *parts, hang=_LABEL + 5)


def render(lines: Iterable[Line], *, width: int | None, color: bool) -> Iterator[str]:
    """Lines of text; wrapped at words to ``width`` columns, if there is one."""
    for one in lines:
        for spans in _wrap(one, width) if width is not None else [one.spans]:
            runs = groupby(spans, key=lambda span: span[1])
            words = [("".join(text for text, _ in run), style) for style, run in runs]
            text = "".join(_paint(text, style) if color else text for text, style in words)
            yield text.rstrip() if not color else text


def _paint(text: str, style: Style) -> str:
    return f"\x1b[{style.value}m{text}\x1b[0m" if style.value and text else text


def _wrap(one: Line, width: int) -> list[list[tuple[str, Style]]]:
    from rich.cells import cell_len

    if cell_len(one.text) <= width:
        return [one.spans]
    rows: list[list[tuple[str, Style]]] = [[]]
    column, room = 0, width
    for text, style in one.spans:
        for word in _words(text):
            size = cell_len(word)
            if column + len(word.rstrip()) > room and column > one.hang:
                rows.append([(" " * one.hang, Style.PLAIN)])
                column = one.hang
                word = word.lstrip()
                size = cell_len(word)
            rows[-1].append((word, style))
            column += size
    return rows


def _words(text: str) -> Iterator[str]:
    """Words with the blanks before them."""
    start = 0
    for index in range(1, len(text)):
        if text[index] == " " and text[index - 1] != " ":
            yield text[start:index]
            start = index
    if text:
        yield text[start:]
