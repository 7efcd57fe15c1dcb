"""The line discipline N_TTY: typed bytes become lines, signals and echo.

Models ``drivers/tty/n_tty.c``.

A line discipline calls four functions of its terminal: ``echo(bytes)`` (already in the form in which it is to be
shown, before output processing), ``signal(sig)``, ``readable()`` (there is more to read) and ``set_stopped(bool)``.

Invariants: ``lines`` holds complete lines (only in canonical mode; what was typed raw before canonical mode was
switched on counts as a line); ``pending`` the line being typed, or all input in raw mode.

Deliberate differences: ECHOPRT is treated as ECHOE; parity and break handling do not exist.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from kernel.abi.signal import SIGINT, SIGQUIT, SIGTSTP
from kernel.abi.termios import (
    ECHO,
    ECHOCTL,
    ECHOE,
    ECHOK,
    ECHOKE,
    ECHONL,
    ICANON,
    ICRNL,
    IEXTEN,
    IGNCR,
    INLCR,
    ISIG,
    ISTRIP,
    IUCLC,
    IUTF8,
    IXANY,
    IXON,
    NOFLSH,
    VEOF,
    VEOL,
    VEOL2,
    VERASE,
    VINTR,
    VKILL,
    VLNEXT,
    VMIN,
    VQUIT,
    VREPRINT,
    VSTART,
    VSTOP,
    VSUSP,
    VWERASE,
    Termios,
)

N_TTY_BUF_SIZE = 4096
_SIGNAL_KEYS = ((VINTR, SIGINT), (VQUIT, SIGQUIT), (VSUSP, SIGTSTP))
DISABLED = 0
"""_POSIX_VDISABLE: a control character that is switched off."""


class Line(Protocol):
    """What a line discipline needs of its terminal."""

    termios: Termios
    stopped: bool

    def echo(self, data: bytes) -> None: ...
    def signal(self, sig: int) -> None: ...
    def readable(self) -> None: ...
    def set_stopped(self, stopped: bool) -> None: ...


class InputLine:
    """A complete line; ``eof``: it was ended by the end-of-file character, which is not part of it."""

    __slots__ = ("data", "eof")

    def __init__(self, data: bytes, eof: bool) -> None:
        self.data = data
        self.eof = eof


class NTty:
    """``struct n_tty_data``."""

    __slots__ = ("line", "lines", "literal_next", "pending")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.lines: deque[InputLine] = deque()
        self.pending = bytearray()
        self.literal_next = False

    # -- what there is to read -----------------------------------------------------------------------------
    @property
    def canonical(self) -> bool:
        return self.line.termios.lflag & ICANON != 0

    def nr_bytes(self) -> int:
        """FIONREAD: complete lines in canonical mode, everything in raw mode."""
        return sum(len(line.data) for line in self.lines) + (0 if self.canonical else len(self.pending))

    def input_available(self, poll: bool) -> bool:
        """Is there something for a reader (for ``poll``: as much as VMIN asks for)?"""
        if self.lines:
            return True
        if self.canonical:
            return False
        cc = self.line.termios.cc
        wanted = cc[VMIN] if poll and not cc[5] and cc[VMIN] else 1
        return len(self.pending) >= wanted

    def room(self) -> int:
        """How many more bytes are taken before the terminal stops listening."""
        return max(0, N_TTY_BUF_SIZE - 1 - len(self.pending) - sum(len(line.data) for line in self.lines))

    def take(self, count: int) -> bytes:
        """Up to ``count`` bytes of the first line, or of what was typed raw; ``b""`` for an end of file."""
        if self.lines:
            first = self.lines[0]
            data, first.data = first.data[:count], first.data[count:]
            if not first.data:
                self.lines.popleft()
            return data
        data = bytes(self.pending[:count])
        del self.pending[:count]
        return data

    def put_back(self, data: bytes) -> None:
        if self.canonical:
            self.lines.appendleft(InputLine(data, False))
        else:
            self.pending[:0] = data

    def flush(self) -> None:
        self.lines.clear()
        self.pending.clear()
        self.literal_next = False

    def settings_changed(self, old: Termios) -> None:
        """n_tty_set_termios()."""
        new_canonical = self.canonical
        was_canonical = old.lflag & ICANON != 0
        if new_canonical and not was_canonical and self.pending:
            self.lines.append(InputLine(bytes(self.pending), True))
            self.pending.clear()
        elif was_canonical and not new_canonical and self.lines:
            self.pending[:0] = b"".join(line.data for line in self.lines)
            self.lines.clear()
        if not self.line.termios.iflag & IXON and self.line.stopped:
            self.line.set_stopped(False)
        self.line.readable()

    # -- typed bytes ---------------------------------------------------------------------------------------
    def receive(self, data: bytes) -> None:
        """n_tty_receive_buf()."""
        for char in data:
            self._receive_char(char)
        if self.input_available(False):
            self.line.readable()

    def _receive_char(self, char: int) -> None:
        termios = self.line.termios
        iflag, lflag, cc = termios.iflag, termios.lflag, termios.cc
        if iflag & ISTRIP:
            char &= 0x7F
        if iflag & IUCLC and lflag & IEXTEN and 65 <= char <= 90:
            char += 32
        if self.literal_next:
            self.literal_next = False
            self._add(char, lflag)
            return
        if self._flow_control(char, iflag, cc):
            return
        if lflag & ISIG:
            for key, sig in _SIGNAL_KEYS:
                if char == cc[key] != DISABLED:
                    self._signal(char, sig, lflag)
                    return
        if char == 13:
            if iflag & IGNCR:
                return
            if iflag & ICRNL:
                char = 10
        elif char == 10 and iflag & INLCR:
            char = 13
        if lflag & ICANON and self._canonical_char(char, lflag, cc):
            return
        self._add(char, lflag)

    def _flow_control(self, char: int, iflag: int, cc: bytes) -> bool:
        if not iflag & IXON:
            return False
        if char == cc[VSTART] != DISABLED:
            self.line.set_stopped(False)
            return True
        if char == cc[VSTOP] != DISABLED:
            self.line.set_stopped(True)
            return True
        if self.line.stopped and iflag & IXANY:
            self.line.set_stopped(False)
        return False

    def _signal(self, char: int, sig: int, lflag: int) -> None:
        """isig() and the echo of its key."""
        if not lflag & NOFLSH:
            self.flush()
        if self.line.stopped:
            self.line.set_stopped(False)
        if lflag & ECHO:
            self.line.echo(_visible(char, lflag))
        self.line.signal(sig)

    def _canonical_char(self, char: int, lflag: int, cc: bytes) -> bool:
        """Line editing; False: an ordinary character."""
        extended = lflag & IEXTEN
        if (
            char == cc[VERASE] != DISABLED
            or char == cc[VKILL] != DISABLED
            or (extended and char == cc[VWERASE] != DISABLED)
        ):
            self._erase(char, lflag, cc)
            return True
        if extended and char == cc[VLNEXT] != DISABLED:
            self.literal_next = True
            if lflag & ECHO and lflag & ECHOCTL:
                self.line.echo(b"^\b")
            return True
        if extended and lflag & ECHO and char == cc[VREPRINT] != DISABLED:
            shown = b"".join(_visible(c, lflag) for c in self.pending)
            self.line.echo(_visible(char, lflag) + b"\n" + shown)
            return True
        if char == 10:
            if lflag & (ECHO | ECHONL):
                self.line.echo(b"\n")
            self._commit(b"\n", False)
            return True
        if char == cc[VEOF] != DISABLED:
            self._commit(b"", True)
            return True
        if char == cc[VEOL] != DISABLED or (extended and char == cc[VEOL2] != DISABLED):
            if lflag & ECHO:
                self.line.echo(_visible(char, lflag))
            self._commit(bytes((char,)), False)
            return True
        return False

    def _commit(self, end: bytes, eof: bool) -> None:
        self.lines.append(InputLine(bytes(self.pending) + end, eof))
        self.pending.clear()
        self.line.readable()

    def _add(self, char: int, lflag: int) -> None:
        if self.room() <= 0:
            return
        self.pending.append(char)
        if lflag & ECHO:
            self.line.echo(_visible(char, lflag))
        elif char == 10 and lflag & ECHONL and lflag & ICANON:
            self.line.echo(b"\n")

    # -- erasing -------------------------------------------------------------------------------------------
    def _erase(self, char: int, lflag: int, cc: bytes) -> None:
        """eraser()."""
        pending = self.pending
        if not pending:
            return
        if char == cc[VKILL] and char != cc[VERASE]:
            self._kill(char, lflag)
            return
        by_word = char == cc[VWERASE] and char != cc[VERASE]
        seen_word = False
        while pending:
            size = self._last_char_size()
            last = pending[-1]
            if by_word:
                is_word = chr(last).isalnum() or last == 95 or last >= 0x80
                if is_word:
                    seen_word = True
                elif seen_word:
                    break
            erased = bytes(pending[-size:])
            del pending[-size:]
            if lflag & ECHO:
                if lflag & ECHOE:
                    self.line.echo(self._rubout(erased, lflag))
                else:
                    self.line.echo(_visible(cc[VERASE], lflag))
            if not by_word:
                break

    def _last_char_size(self) -> int:
        """Bytes of the last character: more than one for UTF-8 when IUTF8 says so."""
        if not self.line.termios.iflag & IUTF8:
            return 1
        size = 1
        while size < len(self.pending) and size < 4 and self.pending[-size] & 0xC0 == 0x80:
            size += 1
        return size

    def _rubout(self, erased: bytes, lflag: int) -> bytes:
        char = erased[0]
        if char == 9:
            shown = sum(_width(c, lflag) for c in self.pending) % 8
            return b"\b" * (8 - shown)
        return b"\b \b" * _width(char, lflag)

    def _kill(self, char: int, lflag: int) -> None:
        if not lflag & ECHO:
            self.pending.clear()
            return
        if lflag & ECHOK and lflag & ECHOKE and lflag & ECHOE:
            while self.pending:
                size = self._last_char_size()
                erased = bytes(self.pending[-size:])
                del self.pending[-size:]
                self.line.echo(self._rubout(erased, lflag))
            return
        self.pending.clear()
        self.line.echo(_visible(char, lflag) + (b"\n" if lflag & ECHOK else b""))


def _visible(char: int, lflag: int) -> bytes:
    """How a character is echoed: control characters as ^X with ECHOCTL, but for tab and newline."""
    if lflag & ECHOCTL and (char < 32 or char == 127) and char not in (9, 10):
        return bytes((94, char ^ 0x40))
    return bytes((char,))


def _width(char: int, lflag: int) -> int:
    if char < 32 or char == 127:
        return 2 if lflag & ECHOCTL else 0
    return 1


__all__ = ["N_TTY_BUF_SIZE", "InputLine", "Line", "NTty"]
