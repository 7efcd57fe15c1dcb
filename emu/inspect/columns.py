"""Rows as aligned text: what every view prints."""

from __future__ import annotations

from collections.abc import Sequence


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns two spaces apart; the last column is as wide as it is."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def size_text(nr_bytes: int) -> str:
    """``4K``, ``132K``, ``8M``: the largest unit that divides the number."""
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if nr_bytes and not nr_bytes & ((1 << shift) - 1):
            return f"{nr_bytes >> shift}{unit}"
    return str(nr_bytes)


def count_text(number: int, noun: str) -> str:
    """``1 page``, ``2 pages``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
