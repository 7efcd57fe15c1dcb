from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cpu.harness import Box


@pytest.fixture
def box() -> Iterator[Box]:
    box = Box()
    yield box
    box.cpu.close()
