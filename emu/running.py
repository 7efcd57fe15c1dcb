"""``run(until=...)``: a machine's program up to a moment, and on from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from emu.errors import NotNow
from emu.standstill import Ended, Standstill
from kernel.trace import on_behalf_of

if TYPE_CHECKING:
    from emu.board import Board
    from emu.events import When
    from emu.inspect.moment import Moment, Stopped

    Until = str | float | Moment | When
    """What can be waited for: see :meth:`emu.Machine.run`."""


class Wait(Protocol):
    """Something that is waited for."""

    def detach(self) -> None: ...
    def how_far(self) -> str:
        """The program has ended, and it has not come: why."""
        ...


class Runner:
    """Runs the program of one board; knows where it stands still.

    Invariant: ``_standstill`` is None unless the machine stands still in the middle of an event.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._standstill: Standstill[Stopped, int] | None = None
        self._stopped: Stopped | None = None
        self._status: int | None = None
        self.is_running = False
        self.is_closed = False

    @property
    def is_under_way(self) -> bool:
        """Has something begun that a run goes on with?"""
        return self._standstill is not None

    @property
    def stopped(self) -> Stopped | None:
        """Where the machine stands still; None while it runs."""
        from emu.inspect.moment import Event, Moment, Stopped

        if self.is_running:
            return None
        if self._stopped is not None:
            return self._stopped
        if self._status is None:
            return Stopped(Moment(Event.START), "before the first instruction", self._board.init)
        return self.end(self._status)

    def must_be_still(self, what: str) -> None:
        """NotNow: ``what`` needs a machine that does not run."""
        if self.is_closed:
            raise NotNow(f"{what}: the machine is closed")
        if self.is_running:
            raise NotNow(f"{what}: the machine is running (this is one of its events)")

    def must_be_quiet(self, what: str) -> None:
        """NotNow: ``what`` changes what the kernel may be working on."""
        self.must_be_still(what)
        if self._stopped is not None and self._stopped.in_kernel:
            raise NotNow(f"{what}: the kernel is in the middle of something ({self._stopped})")

    def run(self, body: Callable[[], int], until: Until | None) -> int | Stopped:
        """Run ``body``, or go on with what is under way, up to its end (its value) or to ``until``."""
        self.must_be_still("run")
        with on_behalf_of(self._board.kernel):
            wait = None if until is None else self._wait_for(until)
        self._stopped, self._status = None, None
        self.is_running = True
        try:
            with self._board.powered():
                outcome = body() if wait is None and self._standstill is None else self._take_turn(body)
        finally:
            self.is_running = False
            if wait is not None:
                wait.detach()
        if not isinstance(outcome, int):
            self._stopped = outcome
            return outcome
        if wait is not None:
            return self.end(outcome, wait.how_far())
        self._status = outcome
        return outcome

    def _take_turn(self, body: Callable[[], int]) -> int | Stopped:
        if self._standstill is None:
            self._standstill = Standstill(body)
        try:
            told = self._standstill.resume()
        except BaseException:
            self._standstill = None
            raise
        if isinstance(told, Ended):
            self._standstill = None
            return told.value
        return told

    def end(self, status: int, how_far: str = "the program has ended") -> Stopped:
        """The program has ended, and what was waited for has not come."""
        from emu.inspect.moment import Event, Moment, Stopped

        self._stopped = Stopped(Moment(Event.END), how_far, self._board.init, status=status)
        return self._stopped

    def _wait_for(self, until: Until) -> Wait:
        from emu.events import When
        from emu.inspect.moment import Event, Moment, Watch
        from kernel.clock import NS_PER_SEC

        if isinstance(until, When):
            from emu.events import WhenWatch

            return WhenWatch(self._board, until, self._stand_still)
        if isinstance(until, str):
            until = Moment.parse(until)
        elif not isinstance(until, Moment):
            until = Moment(Event.TIME, round(until * NS_PER_SEC))
        return Watch(self._board, until, self._stand_still)

    def _stand_still(self, stopped: Stopped) -> None:
        """Inside the event."""
        assert self._standstill is not None
        self._standstill.pause(stopped)

    def close(self) -> None:
        self.is_closed = True
        if self._standstill is not None:
            self._standstill.abandon()
            self._standstill = None
