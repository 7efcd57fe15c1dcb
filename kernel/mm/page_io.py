"""Reading and writing pages of swap.

Models ``mm/page_io.c`` and as much of the block layer as it needs: neighbouring slots go to the device in one request.

A failure, asked for by ``--fail`` or real, hits single pages: the others of the same request still get through.

Deliberate difference: transfers are done when the function returns; PG_writeback is never seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.mm.swap import SwapArea

SWAP_OUT = Tracepoint("swap:write", "type offset nr_pages")
SWAP_IN = Tracepoint("swap:read", "type offset nr_pages")
SWAP_ERROR = Tracepoint("swap:error", "direction type offset")

_READ, _WRITE = "read", "write"


class SwapIo:
    """The way to the devices, with its counters and its points of failure."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._frame = kernel.physmem.frame
        self.nr_read_requests = 0
        self.nr_write_requests = 0
        self.nr_read_errors = 0
        self.nr_write_errors = 0

    def write(self, area: SwapArea, jobs: list[tuple[int, int]]) -> set[int]:
        """Write pages, given as (offset, pfn) in rising order of offset; the pfns that could not be written."""
        jobs, failed = self._injected(area, jobs, _WRITE)
        frame = self._frame
        start, nr_jobs = 0, len(jobs)
        while start < nr_jobs:
            offset = jobs[start][0]
            stop = start + 1
            while stop < nr_jobs and jobs[stop][0] == offset + stop - start:
                stop += 1
            run = jobs[start:stop]
            self.nr_write_requests += 1
            try:
                area.device.write_pages(offset, [frame(pfn) for _, pfn in run])
            except OSError:
                failed |= self._one_by_one(area, run, _WRITE)
            if SWAP_OUT.on:
                SWAP_OUT.emit(area.swp_type, offset, stop - start)
            start = stop
        nr_written = nr_jobs - len(failed)
        vmstat = self._kernel.vmstat
        vmstat.pswpout += nr_written
        vmstat.nr_vmscan_write += nr_written
        vmstat.nr_written += nr_written
        vmstat.pgpgout += nr_written << 2
        return failed

    def read(self, area: SwapArea, jobs: list[tuple[int, int]]) -> set[int]:
        """Read pages, given as (offset, pfn) of neighbouring slots or of one; the pfns that could not be read."""
        jobs, failed = self._injected(area, jobs, _READ)
        frame = self._frame
        start, nr_jobs = 0, len(jobs)
        nr_read = 0
        while start < nr_jobs:
            offset = jobs[start][0]
            stop = start + 1
            while stop < nr_jobs and jobs[stop][0] == offset + stop - start:
                stop += 1
            run = jobs[start:stop]
            self.nr_read_requests += 1
            try:
                area.device.read_pages(offset, [frame(pfn) for _, pfn in run])
                nr_read += len(run)
            except OSError:
                bad = self._one_by_one(area, run, _READ)
                nr_read += len(run) - len(bad)
                failed |= bad
            if SWAP_IN.on:
                SWAP_IN.emit(area.swp_type, offset, stop - start)
            start = stop
        vmstat = self._kernel.vmstat
        vmstat.pswpin += nr_read
        vmstat.pgpgin += nr_read << 2
        return failed

    def _injected(
        self, area: SwapArea, jobs: list[tuple[int, int]], direction: str
    ) -> tuple[list[tuple[int, int]], set[int]]:
        """Sort out the pages that ``--fail`` wants to fail."""
        points = self._kernel.fail
        names = [name for name in ("swap-io", f"swap-{direction}") if points.watches(name)]
        if not names:
            return jobs, set()
        good, failed = [], set()
        for offset, pfn in jobs:
            if sum(points.should_fail(name) for name in names):
                self._report(area, offset, direction)
                failed.add(pfn)
            else:
                good.append((offset, pfn))
        return good, failed

    def _one_by_one(self, area: SwapArea, run: list[tuple[int, int]], direction: str) -> set[int]:
        """A request failed: which of its pages are bad?"""
        transfer = area.device.write_pages if direction is _WRITE else area.device.read_pages
        failed = set()
        for offset, pfn in run:
            try:
                transfer(offset, [self._frame(pfn)])
            except OSError:
                self._report(area, offset, direction)
                failed.add(pfn)
        return failed

    def _report(self, area: SwapArea, offset: int, direction: str) -> None:
        if direction is _READ:
            self.nr_read_errors += 1
        else:
            self.nr_write_errors += 1
        if SWAP_ERROR.on:
            SWAP_ERROR.emit(direction, area.swp_type, offset)
        # end_swap_bio_read and end_swap_bio_write name the device by number and the place in sectors
        name = area.path.decode("utf-8", "backslashreplace")
        self._kernel.log(f"{direction.capitalize()}-error on swap-device ({name}:{offset << 3})")
