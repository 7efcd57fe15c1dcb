"""Speed, measured: ``make bench``.  Not run by the test suite; no test depends on a time."""
