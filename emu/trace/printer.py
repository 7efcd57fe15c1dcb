"""A whole system call as strace prints it: name, arguments, result, the reason of a refusal.

What a declaration cannot say (the third argument of fcntl depends on the second) is in ``special.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import strerror

from emu.trace import special
from emu.trace.calls import Call, When, printer_of
from kernel.abi.errno import RESTART_CODES, errno_name
from kernel.syscalls.names import syscall_name
from kernel.syscalls.table import SyscallSpec

_MASK64 = (1 << 64) - 1

_REPEATED = {
    "ENOENT": "no such name",
    "ECHILD": "no such child",
    "ESRCH": "no such task",
    "ENOTDIR": "not a directory",
    "ENOTEMPTY": "directory is not empty",
    "ENOTCONN": "socket is not connected",
}
"""Reasons that only repeat what the error is; the commonest errors of all, so the lines stay short."""

_RESTART_TEXT = {
    "ERESTARTSYS": "To be restarted if SA_RESTART is set",
    "ERESTARTNOINTR": "To be restarted",
    "ERESTARTNOHAND": "To be restarted if no handler",
    "ERESTART_RESTARTBLOCK": "Interrupted by signal",
}


class CallPrinter:
    """Prints the calls of one declaration."""

    def __init__(self, spec: SyscallSpec) -> None:
        self.spec = spec
        self.params = spec.params
        self._printers = [printer_of(self.params, index) for index in range(len(self.params))]
        for index, override in special.ARGUMENTS.get(spec.name, {}).items():
            if index < len(self.params):
                self._printers[index] = override
        self._count = special.COUNT.get(spec.name)
        self._whole = special.WHOLE.get(spec.name)
        self._result = special.RESULT.get(spec.name)
        self._note = special.NOTE.get(spec.name)

    def enter(self, call: Call) -> None:
        """Print what is known when the call begins."""
        if self._whole is not None and self._whole[0] is When.ENTRY:
            call.texts = list(self._whole[1](call))
            return
        count = self._count(call) if self._count is not None else len(self.params)
        call.texts = [
            printer(call, call.value(index)) if when is When.ENTRY else None
            for index, (when, printer) in enumerate(self._printers[:count])
        ]

    def leave(self, call: Call) -> None:
        """Print the rest."""
        for index, text in enumerate(call.texts):
            if text is None:
                call.texts[index] = self._printers[index][1](call, call.value(index))
        if self._whole is not None and self._whole[0] is When.EXIT:
            call.texts = list(self._whole[1](call))

    def result(self, call: Call, reason: str) -> str:
        """What stands after the equals sign."""
        if call.ret is None:
            return "?"
        if call.failed:
            return error_text(call.error, reason)
        text = self._result(call) if self._result is not None else self._default_result(call.ret)
        note = self._note(call) if self._note is not None else ""
        return f"{text} ({note})" if note else text

    @staticmethod
    def unknown_result(call: Call, reason: str) -> str:
        """The result of a call without declaration."""
        if call.ret is None:
            return "?"
        return error_text(call.error, reason) if call.failed else str(call.ret)

    def _default_result(self, ret: int) -> str:
        if self.spec.returns == "addr":
            return f"{ret & _MASK64:#x}" if ret else "0"
        return str(ret)


def error_text(error: int, reason: str = "") -> str:
    """``-1 EINVAL (Invalid argument)``, with the rule that refused: ``(Invalid argument: not page-aligned)``."""
    name = errno_name(error)
    if error in RESTART_CODES:
        return f"? {name} ({_RESTART_TEXT[name]})"
    adds = reason and reason != _REPEATED.get(name)
    return f"-1 {name} ({strerror(error)}{': ' + reason if adds else ''})"


def unknown_call(nr: int, args: Sequence[int]) -> tuple[str, list[str]]:
    """Name and arguments of a call without declaration."""
    return syscall_name(nr), [f"{value:#x}" for value in args]
