"""Error numbers and the one exception that carries them to the guest.

Models ``include/uapi/asm-generic/errno*.h`` and the kernel-internal restart codes of
``include/linux/errno.h``.  Handlers raise :class:`KernelError`; ``kernel/entry.py`` is the only place
that turns one into a negative return value.  ``reason`` goes to traces, never to the guest.
"""

from __future__ import annotations

import errno as _host
from enum import IntEnum

Errno = IntEnum(  # type: ignore[misc]
    "Errno",
    {name: number for number, name in sorted(_host.errorcode.items())}
    | {"EWOULDBLOCK": 11, "ENOTSUP": 95, "EDEADLOCK": 35},
)
"""Every Linux errno by name; values are the x86 ones (the host's, which are the same on all Linux x86)."""

# Never seen by the guest: signal delivery turns them into EINTR or a restart (include/linux/errno.h).
ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516

RESTART_CODES = frozenset((ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK))

_RESTART_NAMES = {
    ERESTARTSYS: "ERESTARTSYS",
    ERESTARTNOINTR: "ERESTARTNOINTR",
    ERESTARTNOHAND: "ERESTARTNOHAND",
    ERESTART_RESTARTBLOCK: "ERESTART_RESTARTBLOCK",
}


class KernelError(Exception):
    """A system call or an internal step fails with ``errno`` (a positive int).

    ``reason`` says in a few words which rule refused (shown by ``trace`` as ``= -1 EFAULT (reason)``).
    """

    __slots__ = ("errno", "reason")

    def __init__(self, errno: int, reason: str = "") -> None:
        self.errno = int(errno)
        self.reason = reason

    def __str__(self) -> str:
        name = errno_name(self.errno)
        return f"{name} ({self.reason})" if self.reason else name


def errno_name(number: int) -> str:
    """The symbolic name of a positive error number; restart codes included, ``"ERRNO_n"`` if unknown."""
    return _host.errorcode.get(number) or _RESTART_NAMES.get(number) or f"ERRNO_{number}"
