"""/proc/PID/mounts, mountinfo.  Models ``fs/proc_namespace.c``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.mount import MS_RDONLY
from kernel.abi.stat import dev_major, dev_minor
from kernel.fs.dcache import Mount, Path, path_text
from kernel.fs.mount import flags_text

if TYPE_CHECKING:
    from kernel.task.task import Task


def _mangle(text: bytes) -> str:
    """Blanks, newlines and backslashes as octal numbers."""
    for char in b"\\ \t\n#":
        text = text.replace(bytes((char,)), b"\\%03o" % char)
    return text.decode("utf-8", "surrogateescape")


def _place(task: Task, mnt: Mount) -> bytes | None:
    """Where ``task`` sees ``mnt``; None if it lies outside of its root."""
    text, reached = path_text(Path(mnt, mnt.mnt_root), task.fs.root)
    return text if reached or mnt.mnt_parent is mnt else None


def mounts_text(task: Task) -> str:
    lines = []
    for mnt in task.kernel.vfs.mounts:
        place = _place(task, mnt)
        if place is not None:
            options = flags_text(mnt) + mnt.mnt_sb.s_options
            lines.append(f"{_mangle(mnt.mnt_devname.encode())} {_mangle(place)} {mnt.mnt_sb.s_type} {options} 0 0\n")
    return "".join(lines)


def mountinfo_text(task: Task) -> str:
    lines = []
    for mnt in task.kernel.vfs.mounts:
        place = _place(task, mnt)
        if place is None:
            continue
        sb = mnt.mnt_sb
        inside = _below_root(mnt)
        parent = mnt.mnt_parent.mnt_id if mnt.mnt_parent is not mnt else 1
        super_flags = "ro" if mnt.mnt_flags & MS_RDONLY else "rw"
        lines.append(
            f"{mnt.mnt_id} {parent} {dev_major(sb.s_dev)}:{dev_minor(sb.s_dev)} {_mangle(inside)} {_mangle(place)}"
            f" {flags_text(mnt)} - {sb.s_type} {_mangle(mnt.mnt_devname.encode())} {super_flags}{sb.s_options}\n"
        )
    return "".join(lines)


def _below_root(mnt: Mount) -> bytes:
    """The place of the mount's root in its file system: / but for bind mounts."""
    parts: list[bytes] = []
    dentry = mnt.mnt_root
    while not dentry.is_root:
        parts.append(dentry.d_name)
        dentry = dentry.d_parent
    return b"/" + b"/".join(reversed(parts))


def mountstats_text(task: Task) -> str:
    lines = []
    for mnt in task.kernel.vfs.mounts:
        place = _place(task, mnt)
        if place is not None:
            device = _mangle(mnt.mnt_devname.encode())
            lines.append(f"device {device} mounted on {_mangle(place)} with fstype {mnt.mnt_sb.s_type}\n")
    return "".join(lines)
