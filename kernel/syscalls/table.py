"""The one declaration of a system call, and the tables made from it.

    @syscall("mremap", x86_64=25, i386=163, group="memory")
    def sys_mremap(task: Task, old_address: UserAddr, old_len: Size, new_len: Size,
                   flags: Annotated[MremapFlags, ULONG], new_address: UserAddr) -> UserAddr: ...

From the name, the numbers and the annotations come dispatch, strace-style text, JSON, the support table and
the reference page.  Models ``SYSCALL_DEFINEx`` and ``arch/x86/entry/syscalls/syscall_64.tbl``.

A handler gets plain ints, already cut and signed as its annotation says (:func:`codec_of`), and returns an
int (or None for 0), or raises ``KernelError``.  If it is a generator function it may sleep
(``kernel/task/waitqueue.py``).  ``stopped=True`` means that it runs with the CPU outside the emulator, where
whole register files may be read and replaced (fork, exec, sigreturn).

Annotations are looked at when a call is first made or first printed, not at import, to keep start-up short.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag
from typing import Annotated, Any, NewType


class Width(Enum):
    """How a raw 64-bit register becomes a value: ``int``, ``unsigned int``, ``long``, ``unsigned long``."""

    INT = "int"
    UINT = "unsigned int"
    LONG = "long"
    ULONG = "unsigned long"


INT, UINT, LONG, ULONG = Width.INT, Width.UINT, Width.LONG, Width.ULONG

_int = NewType("_int", int)

# The vocabulary of parameter types.  A flags or enum class of kernel/abi may stand alone (then it is an
# unsigned int, or a signed one for an IntEnum) or in Annotated[..., ULONG].
Int = Annotated[int, INT]
UInt = Annotated[int, UINT]
Long = Annotated[int, LONG]
ULong = Annotated[int, ULONG]


@dataclass(frozen=True)
class Kind:
    """What an integer means to a printer: ``fd``, ``addr``, ``path``, ``size``, ``buf_in`` (data read from the guest),
    ``buf_out`` (data written to the guest, shown at exit), ``struct:NAME`` (a structure at that address) ..."""

    name: str


Fd = Annotated[int, INT, Kind("fd")]
Pid = Annotated[int, INT, Kind("pid")]
UserAddr = Annotated[int, ULONG, Kind("addr")]
Size = Annotated[int, ULONG, Kind("size")]
Offset = Annotated[int, LONG, Kind("offset")]
Path = Annotated[int, ULONG, Kind("path")]
BufIn = Annotated[int, ULONG, Kind("buf_in")]
BufOut = Annotated[int, ULONG, Kind("buf_out")]
Mode = Annotated[int, UINT, Kind("mode")]
Signo = Annotated[int, INT, Kind("signo")]


def StructIn(name: str) -> Any:  # noqa: N802 - reads like a type
    """The address of a structure ``name`` that the call reads (printed at entry)."""
    return Annotated[int, ULONG, Kind(f"in:{name}")]


def StructOut(name: str) -> Any:  # noqa: N802
    """The address of a structure ``name`` that the call fills (printed at exit)."""
    return Annotated[int, ULONG, Kind(f"out:{name}")]


class Support(Enum):
    FULL = "full"
    PARTIAL = "partial"


@dataclass
class Param:
    name: str
    width: Width
    kind: str
    """``fd``, ``addr``, ``flags``, ``enum``, ``int``, ... : how printers show it."""
    enum: type[IntFlag] | type[IntEnum] | None = None


@dataclass
class SyscallSpec:
    """One system call: numbers, handler, how it may run, what is supported."""

    name: str
    handler: Callable[..., Any]
    x86_64: int | None
    i386: int | None
    group: str
    stopped: bool
    sleeps: bool
    support: Support
    note: str
    returns: str = "int"
    _params: list[Param] | None = field(default=None, repr=False)

    @property
    def params(self) -> list[Param]:
        if self._params is None:
            self._params = _read_signature(self.handler)
        return self._params

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.handler) or "").split("\n", 1)[0]


BY_NAME: dict[str, SyscallSpec] = {}
NR_SYSCALLS_64 = 512
TABLE_64: list[SyscallSpec | None] = [None] * NR_SYSCALLS_64


def syscall(
    name: str,
    *,
    x86_64: int | None,
    i386: int | None = None,
    group: str,
    stopped: bool = False,
    support: Support = Support.FULL,
    note: str = "",
    returns: str = "int",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the decorated function as system call ``name``.

    ``group`` is strace's class without the percent sign: memory, process, file, desc, signal, network, ipc, time,
    creds, misc.  ``note`` says what is *not* supported when ``support`` is PARTIAL.  ``returns`` is ``int``, ``addr``,
    ``fd`` or ``size``.
    Raises ValueError when a name or number is declared twice.
    """

    def declare(handler: Callable[..., Any]) -> Callable[..., Any]:
        spec = SyscallSpec(
            name, handler, x86_64, i386, group, stopped, inspect.isgeneratorfunction(handler), support, note, returns
        )
        if name in BY_NAME:
            raise ValueError(f"system call {name} declared twice")
        if x86_64 is not None:
            if TABLE_64[x86_64] is not None:
                raise ValueError(f"system call number {x86_64} declared twice")
            TABLE_64[x86_64] = spec
        BY_NAME[name] = spec
        return handler

    return declare


def _read_signature(handler: Callable[..., Any]) -> list[Param]:
    # Only the parameters after the task are evaluated: the types of the task and of the result may be imported for
    # type checkers alone.
    scope = getattr(handler, "__globals__", {})
    params = list(inspect.signature(handler).parameters.values())[1:]
    return [codec_of(param.name, _evaluated(param.annotation, scope)) for param in params]


def _evaluated(annotation: Any, scope: dict[str, Any]) -> Any:
    return eval(annotation, scope) if isinstance(annotation, str) else annotation  # noqa: S307 - our own text


def codec_of(name: str, annotation: Any) -> Param:
    """How one annotated parameter is decoded and printed."""
    base, width, kind = annotation, None, ""
    if typing.get_origin(annotation) is Annotated:
        base, *extras = typing.get_args(annotation)
        for extra in extras:
            if isinstance(extra, Width):
                width = extra
            elif isinstance(extra, Kind):
                kind = extra.name
    if isinstance(base, type) and issubclass(base, IntFlag):
        return Param(name, width or UINT, kind or "flags", base)
    if isinstance(base, type) and issubclass(base, IntEnum):
        return Param(name, width or INT, kind or "enum", base)
    if base is not int or width is None:
        raise TypeError(f"parameter {name}: {annotation!r} says neither a width nor an enum")
    return Param(name, width, kind or "int")


_DECODE = {
    INT: "({0} & 0xffffffff ^ 0x80000000) - 0x80000000",
    UINT: "{0} & 0xffffffff",
    LONG: "({0} ^ 0x8000000000000000) - 0x8000000000000000",
    ULONG: "{0}",
}


def compile_entry(spec: SyscallSpec) -> Callable[..., Any]:
    """A function ``(task, a0..a5)`` of raw registers that decodes what ``spec`` needs and calls its handler."""
    raw = ["a0", "a1", "a2", "a3", "a4", "a5"]
    args = [_DECODE[param.width].format(reg) for param, reg in zip(spec.params, raw, strict=False)]
    source = f"lambda task, {', '.join(raw)}: handler(task{''.join(', ' + a for a in args)})"
    return typing.cast(Callable[..., Any], eval(source, {"handler": spec.handler}))  # noqa: S307 - our own text
