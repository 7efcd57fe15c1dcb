"""Unicorn through plain ctypes: one class, no policy.

Everything that runs per system call or per fault goes through functions with prepared arguments, because the Python
package's wrappers cost more than the work itself.  The library is loaded as a ``PyDLL``: calls keep the interpreter
lock, which makes calls and callbacks cheaper; other Python threads get their turn whenever a callback runs.

What the rest of ``emu/cpu`` must know about the engine's behaviour is in ``quirks.py``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable
from typing import Any, cast

from emu.cpu import unicorn_abi as abi

_c_int, _c_uint64, _c_void_p, _c_size_t = ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t

# Callback types of the hooks in use.  Arguments: engine [, vector], user data.
IntrCallback = ctypes.CFUNCTYPE(None, _c_void_p, ctypes.c_uint32, _c_void_p)
InsnCallback = ctypes.CFUNCTYPE(None, _c_void_p, _c_void_p)
ValueInsnCallback = ctypes.CFUNCTYPE(_c_int, _c_void_p, _c_void_p)
"""cpuid, rdtsc, rdtscp: a result other than 0 says that the callback has done the instruction."""
InCallback = ctypes.CFUNCTYPE(ctypes.c_uint32, _c_void_p, ctypes.c_uint32, _c_int, _c_void_p)
OutCallback = ctypes.CFUNCTYPE(None, _c_void_p, ctypes.c_uint32, _c_int, ctypes.c_uint32, _c_void_p)


class EngineError(RuntimeError):
    """Unicorn is missing, is not the version that we know, or refused a request."""


class SegmentRegister(ctypes.Structure):
    """``uc_x86_mmr``: GDTR, TR."""

    _fields_ = (
        ("selector", ctypes.c_uint16),
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class ModelSpecificRegister(ctypes.Structure):
    """``uc_x86_msr``."""

    _fields_ = (("rid", ctypes.c_uint32), ("value", ctypes.c_uint64))


_library: ctypes.PyDLL | None = None


def load_library() -> ctypes.PyDLL:
    """The Unicorn library of the installed ``unicorn`` package, checked for its version, with prototypes set."""
    global _library
    if _library is not None:
        return _library
    spec = importlib.util.find_spec("unicorn")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("the package unicorn is not installed: pip install unicorn==2.1.4")
    directory = os.path.join(spec.submodule_search_locations[0], "lib")
    names = ("libunicorn.so.2", "libunicorn.2.dylib")
    path = next((p for p in (os.path.join(directory, name) for name in names) if os.path.exists(p)), None)
    if path is None:
        raise EngineError(f"no Unicorn library in {directory}: pip install --force-reinstall unicorn==2.1.4")
    lib = ctypes.PyDLL(path)
    version = lib.uc_version(None, None)
    found = (version >> 24 & 0xFF, version >> 16 & 0xFF, version >> 8 & 0xFF)
    if found != abi.PINNED_VERSION:
        want, have = (".".join(map(str, v)) for v in (abi.PINNED_VERSION, found))
        cure = f"pip install unicorn=={want}"
        raise EngineError(f"Unicorn {have} is installed, but pagewalk depends on what {want} does: {cure}")
    _set_prototypes(lib)
    _library = lib
    return lib


def _set_prototypes(lib: ctypes.PyDLL) -> None:
    prototypes: dict[str, tuple[Any, ...]] = {
        "uc_open": (_c_int, _c_int, _c_void_p),
        "uc_close": (_c_void_p,),
        "uc_mem_map_ptr": (_c_void_p, _c_uint64, _c_size_t, ctypes.c_uint32, _c_void_p),
        "uc_reg_read": (_c_void_p, _c_int, _c_void_p),
        "uc_reg_write": (_c_void_p, _c_int, _c_void_p),
        "uc_reg_read_batch": (_c_void_p, _c_void_p, _c_void_p, _c_int),
        "uc_reg_write_batch": (_c_void_p, _c_void_p, _c_void_p, _c_int),
        "uc_context_alloc": (_c_void_p, _c_void_p),
        "uc_context_free": (_c_void_p,),
        "uc_context_save": (_c_void_p, _c_void_p),
        "uc_context_restore": (_c_void_p, _c_void_p),
        "uc_context_reg_read_batch": (_c_void_p, _c_void_p, _c_void_p, _c_int),
        "uc_context_reg_write_batch": (_c_void_p, _c_void_p, _c_void_p, _c_int),
        "uc_emu_start": (_c_void_p, _c_uint64, _c_uint64, _c_uint64, _c_size_t),
        "uc_emu_stop": (_c_void_p,),
        "uc_hook_del": (_c_void_p, _c_size_t),
    }
    for name, argtypes in prototypes.items():
        getattr(lib, name).argtypes = argtypes
    lib.uc_context_size.argtypes = (_c_void_p,)
    lib.uc_context_size.restype = _c_size_t
    lib.uc_strerror.restype = ctypes.c_char_p


class RegisterBatch:
    """A fixed list of registers with prepared arrays: ``values[i]`` (16-byte slots) goes with ``reg_ids[i]``."""

    SLOT_BYTES = 16

    __slots__ = ("_ids", "_ids_address", "_pointers", "_pointers_address", "data", "length")

    def __init__(self, reg_ids: tuple[int, ...]) -> None:
        self.length = len(reg_ids)
        self.data = (ctypes.c_char * (self.SLOT_BYTES * self.length))()
        start, end = ctypes.addressof(self.data), ctypes.addressof(self.data) + len(self.data)
        self._ids = (_c_int * self.length)(*reg_ids)
        self._pointers = (_c_void_p * self.length)(*range(start, end, self.SLOT_BYTES))
        self._ids_address = ctypes.addressof(self._ids)
        self._pointers_address = ctypes.addressof(self._pointers)

    @property
    def args(self) -> tuple[int, int, int]:
        """The last three arguments of every ``uc_*_batch`` function."""
        return self._ids_address, self._pointers_address, self.length


CODE_BUFFER_BYTES = 256 << 20
"""Room for translated code; when it is full, the engine forgets all of it.  (The engine's own choice is 1 GiB.)"""


class Engine:
    """One x86-64 Unicorn engine whose RAM is a block of host memory."""

    def __init__(self, ram_address: int, ram_bytes: int, code_buffer_bytes: int = CODE_BUFFER_BYTES) -> None:
        self.lib = load_library()
        handle = _c_void_p()
        self._check(self.lib.uc_open(abi.ARCH_X86, abi.MODE_64, ctypes.addressof(handle)), "uc_open")
        self.handle: int = handle.value or 0
        self._keep: list[Any] = []
        self._ctl(abi.CTL_CPU_MODEL, _c_int(abi.CPU_X86_EPYC_ROME))
        self._ctl(abi.CTL_TCG_BUFFER_SIZE, ctypes.c_uint32(code_buffer_bytes))
        self._check(self.lib.uc_mem_map_ptr(self.handle, 0, ram_bytes, abi.PROT_ALL, ram_address), "uc_mem_map_ptr")
        # With an address to stop at, the engine looks that address up in the page tables at the end of every run.
        self._ctl(abi.CTL_UC_USE_EXITS, _c_int(1))
        self.context_bytes: int = self.lib.uc_context_size(self.handle)
        self._value = _c_uint64()
        self._value_address = ctypes.addressof(self._value)
        self._flush_args = (_c_void_p(self.handle), _c_int(abi.ctl_code(abi.CTL_TLB_FLUSH, 0, abi.CTL_IO_WRITE)))

    def close(self) -> None:
        """Free the engine.  Nothing of it may be used afterwards."""
        if self.handle:
            self.lib.uc_close(self.handle)
            self.handle = 0

    def _check(self, status: int, what: str) -> None:
        if status != abi.ERR_OK:
            raise EngineError(f"{what}: {self.error_text(status)}")

    def error_text(self, status: int) -> str:
        return str(self.lib.uc_strerror(status).decode())

    def _ctl(self, control: int, *args: Any) -> None:
        code = abi.ctl_code(control, len(args), abi.CTL_IO_WRITE)
        self._check(self.lib.uc_ctl(_c_void_p(self.handle), _c_int(code), *args), f"uc_ctl {control}")

    # Registers ------------------------------------------------------------------------------------------------

    def reg_read(self, reg_id: int) -> int:
        """A register of up to 64 bits."""
        self._value.value = 0
        self.lib.uc_reg_read(self.handle, reg_id, self._value_address)
        return self._value.value

    def reg_write(self, reg_id: int, value: int) -> None:
        self._value.value = value
        self.lib.uc_reg_write(self.handle, reg_id, self._value_address)

    def reg_write_segment(self, reg_id: int, selector: int, base: int, limit: int, flags: int) -> None:
        """GDTR or TR."""
        record = SegmentRegister(selector, base, limit, flags)
        self.lib.uc_reg_write(self.handle, reg_id, ctypes.addressof(record))

    def msr_write(self, msr: int, value: int) -> None:
        record = ModelSpecificRegister(msr, value)
        self.lib.uc_reg_write(self.handle, abi.REG_MSR, ctypes.addressof(record))

    # Contexts -------------------------------------------------------------------------------------------------

    def empty_context(self) -> bytes:
        """The bytes of a fresh context; copies of them may be given to :meth:`context_save`."""
        pointer = _c_void_p()
        self._check(self.lib.uc_context_alloc(self.handle, ctypes.addressof(pointer)), "uc_context_alloc")
        image = ctypes.string_at(pointer.value or 0, self.context_bytes)
        self.lib.uc_context_free(pointer)
        return image

    def context_save(self, address: int) -> None:
        self.lib.uc_context_save(self.handle, address)

    def context_restore(self, address: int) -> None:
        self.lib.uc_context_restore(self.handle, address)

    # Hooks ----------------------------------------------------------------------------------------------------

    def add_hook(
        self,
        hook: int,
        callback: Any,
        user_data: int = 0,
        instruction: int | None = None,
        begin: int = 1,
        end: int = 0,
    ) -> int:
        """Call ``callback`` (a ctypes function or the address of native code) for every event of a kind.

        Only at addresses from ``begin`` to ``end``; everywhere if ``begin`` is greater.  Hooks on blocks must be added
        before anything is translated.  Returns a handle for :meth:`delete_hook`.
        """
        handle = _c_size_t()
        function = _c_void_p(callback) if isinstance(callback, int) else callback
        extra = () if instruction is None else (_c_int(instruction),)
        self._check(
            self.lib.uc_hook_add(
                _c_void_p(self.handle),
                ctypes.byref(handle),
                _c_int(hook),
                function,
                _c_void_p(user_data),
                _c_uint64(begin),
                _c_uint64(end),
                *extra,
            ),
            f"uc_hook_add {hook}",
        )
        self._keep.append(callback)
        return handle.value

    def delete_hook(self, hook_handle: int) -> None:
        self._check(self.lib.uc_hook_del(self.handle, hook_handle), "uc_hook_del")

    # Running --------------------------------------------------------------------------------------------------

    def start(self, rip: int) -> int:
        """Run from ``rip`` until something stops the engine; returns an error number (abi.ERR_*)."""
        return int(self.lib.uc_emu_start(self.handle, rip, 0, 0, 0))

    def stop(self) -> None:
        """Stop: only from inside a callback (another thread would corrupt the guest)."""
        self.lib.uc_emu_stop(self.handle)

    def flush_tlb(self) -> None:
        self.lib.uc_ctl(*self._flush_args)

    def remove_code(self, vaddr: int, nr_bytes: int) -> None:
        """Forget translations of the frame that is mapped, executable for this CPL, at ``vaddr``."""
        self._ctl(abi.CTL_TB_REMOVE_CACHE, _c_uint64(vaddr), _c_uint64(vaddr + nr_bytes))

    def forget_all_code(self) -> None:
        """Translate everything anew.  Only while the engine does not run."""
        self._ctl(abi.CTL_TB_FLUSH)

    def function_address(self, name: str) -> int:
        """The host address of a function of the library, for native code."""
        return ctypes.cast(getattr(self.lib, name), _c_void_p).value or 0

    def private_function(self, name: str) -> Callable[[int, int], object]:
        """A function ``void f(void *, uint64_t)`` that is exported but no part of the interface.

        Raises AttributeError where it is not exported.
        """
        function = getattr(self.lib, name)
        function.argtypes = (_c_void_p, _c_uint64)
        function.restype = None
        return cast(Callable[[int, int], object], function)
