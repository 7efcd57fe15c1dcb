"""Standing still in the middle of an event, and going on from there.

``run(until="fault:7")`` comes back at the very instant of the seventh fault, with the kernel's own calls still under
way beneath it, and a later ``run`` goes on from that instant.  A generator cannot be suspended through the engine's
callbacks, so the machine runs in a thread of its own; never do that thread and its owner run at the same time, they
hand one turn to and fro.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

P = TypeVar("P")
R = TypeVar("R")


class Abandoned(BaseException):
    """Unwinds what stands still when nobody will let it go on.  A BaseException: nothing may catch it on its way."""


class Ended(Generic[R]):
    """``body`` has returned ``value``."""

    def __init__(self, value: R) -> None:
        self.value = value


class Standstill(Generic[P, R]):
    """Runs ``body`` by turns.

    Invariant: outside :meth:`resume` the thread has not begun, waits in :meth:`pause`, or is over.
    """

    def __init__(self, body: Callable[[], R]) -> None:
        self._body = body
        self._thread = threading.Thread(target=self._main, name="pagewalk", daemon=True)
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._told: P | Ended[R] | None = None
        self._error: BaseException | None = None
        self._is_abandoned = False

    def resume(self) -> P | Ended[R]:
        """The owner: let ``body`` run until it pauses (what it says) or ends.  What it raises comes out here."""
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.release()
        self._back.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        assert self._told is not None
        return self._told

    def pause(self, told: P) -> None:
        """In ``body``: stand still here."""
        self._told = told
        self._back.release()
        self._go.acquire()
        if self._is_abandoned:
            raise Abandoned

    def abandon(self) -> None:
        """The owner: unwind a body that stands still."""
        if self._thread.is_alive():
            self._is_abandoned = True
            self._go.release()
            self._thread.join()

    def _main(self) -> None:
        try:
            self._told = Ended(self._body())
        except Abandoned:
            return
        except BaseException as error:
            self._error = error
        self._back.release()
