"""Declares every system call: imports all modules of this package (the declarations fill ``table.py``)."""

from importlib import import_module
from pkgutil import iter_modules

import kernel.syscalls

for _module in iter_modules(kernel.syscalls.__path__):
    if _module.name != "all":
        import_module(f"kernel.syscalls.{_module.name}")
