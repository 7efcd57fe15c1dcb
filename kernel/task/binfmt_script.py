"""``#!`` scripts.

Models ``fs/binfmt_script.c``.  Manual: execve(2), "Interpreter scripts".  One optional argument, taken as it stands to
the end of the line; the line ends at 255 characters.
"""

from __future__ import annotations

from kernel.abi.errno import Errno, KernelError
from kernel.task.bprm import BINPRM_BUF_SIZE, Bprm

_BLANKS = b" \t"


def parse_script(head: bytes) -> tuple[bytes, bytes | None] | None:
    """Interpreter and argument from the first bytes of a file; None if it is no script.

    ENOEXEC: the line names no interpreter, or its name may be cut off.
    """
    if not head.startswith(b"#!"):
        return None
    buffer = head[:BINPRM_BUF_SIZE].ljust(BINPRM_BUF_SIZE, b"\0")
    end = buffer.find(b"\n")
    if end < 0:
        end = BINPRM_BUF_SIZE - 1
        start = _skip_blanks(buffer, 2, end)
        if start == end:
            raise KernelError(Errno.ENOEXEC, "#! line without an interpreter")
        if _terminator(buffer, start, end) == end:
            raise KernelError(Errno.ENOEXEC, "interpreter name longer than the 255 bytes that are read")
    line = buffer[:end].rstrip(_BLANKS)
    end = len(line)
    start = _skip_blanks(line, 2, end)
    separator = _terminator(line, start, end)
    name = line[start:separator]
    if start >= end or not name:
        raise KernelError(Errno.ENOEXEC, "#! line without an interpreter")
    argument: bytes | None = None
    if separator < end and line[separator] != 0:
        argument = line[_skip_blanks(line, separator, end) :].split(b"\0", 1)[0]
    return name, argument


def _skip_blanks(line: bytes, start: int, end: int) -> int:
    while start < end and line[start] in _BLANKS:
        start += 1
    return start


def _terminator(line: bytes, start: int, end: int) -> int:
    """The first blank or NUL from ``start`` on; ``end`` if there is none."""
    while start < end and line[start] not in _BLANKS and line[start]:
        start += 1
    return start


def load_script(bprm: Bprm, interpreter: bytes, argument: bytes | None) -> None:
    """Rewrite the arguments: interpreter, its argument, the script's name instead of argv[0]."""
    if bprm.inaccessible:
        raise KernelError(Errno.ENOENT, "the script's descriptor is closed by exec")
    bprm.prepend_args([interpreter, *([argument] if argument is not None else []), bprm.interp])
    bprm.interp = interpreter
