"""Exit statuses and the exceptions that carry one line for the user.

125, 126 and 127 mean what they mean for env(1), nice(1) and timeout(1).
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    OK = 0
    OUR_ERROR = 125
    NOT_RUNNABLE = 126
    NOT_FOUND = 127
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CommandError(Exception):
    """The command cannot go on: ``message`` is the one line the user sees."""

    def __init__(self, message: str, status: Status = Status.OUR_ERROR) -> None:
        super().__init__(message)
        self.status = status
