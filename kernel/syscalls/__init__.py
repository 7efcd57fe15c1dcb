"""System calls: thin handlers that read like the manual page, one module for a family.

Importing :mod:`kernel.syscalls.all` declares every one of them.
"""
