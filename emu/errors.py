"""What can go wrong with a machine, as its user sees it.

What a program does wrong is no error of the machine: that program gets an errno or a signal, and :meth:`Machine.run`
returns as usual.
"""

from __future__ import annotations


class MachineError(Exception):
    """Anything a machine cannot do; the text is one line for the user."""


class NotRunnable(MachineError):
    """The program cannot be started: ``status`` is 126 (not runnable) or 127 (not found), ``message`` one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class CheckFailed(MachineError):
    """``check`` found broken invariants; the text is the report."""


class Deadlock(MachineError):
    """Every task sleeps, and nothing is left that could wake one."""


class NoSuchTask(MachineError, LookupError):
    """There is no task with that number, or it has no address space (any more)."""


class BadAddress(MachineError, LookupError):
    """Memory that is not there, or that cannot be written, was asked for."""


class NotNow(MachineError):
    """What was asked for must wait: the machine runs, or stands still in the middle of what the kernel does."""
