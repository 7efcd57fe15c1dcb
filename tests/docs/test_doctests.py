"""The examples of the Python API, in the manual and in the docstrings, say what happens."""

from __future__ import annotations

import doctest
import os
from collections.abc import Iterator
from importlib import import_module

import pytest

from tests.cli.pagewalk import ROOT

FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
MODULES = ("emu.machine", "emu.events")


@pytest.fixture(autouse=True)
def in_the_checkout() -> Iterator[None]:
    before = os.getcwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)


@pytest.mark.parametrize("page, least", [("README.md", 4), ("docs/python-api.md", 20)])
def test_pages(page: str, least: int) -> None:
    results = doctest.testfile(str(ROOT / page), module_relative=False, optionflags=FLAGS)
    assert results.failed == 0 and results.attempted >= least


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    results = doctest.testmod(import_module(name), optionflags=FLAGS)
    assert results.failed == 0 and results.attempted >= 1
