"""What a guest has changed in the root file system: the content of the overlay's upper layer, by path.

What ``find upperdir`` shows of a real overlayfs (Documentation/filesystems/overlayfs.rst): files made or written, and
lower files that are gone (there: whiteouts).

Deliberate differences: only regular files are told, and only their data: no directories, links, nodes or attributes.
A lower file whose pages were written counts even if it was given the bytes it had; a change of owner, mode or times
alone does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernel.abi.errno import KernelError
from kernel.abi.stat import S_IFMT, S_IFREG
from kernel.fs.hostfs import HostDir
from kernel.fs.inode import Inode
from kernel.fs.memfs import MemReg
from kernel.fs.overlay import OverlaySuper, OvlDir, OvlReg


def changed_files(sb: OverlaySuper) -> dict[bytes, MemReg | None]:
    """Every regular file of the overlay ``sb`` that the guest made, wrote or took away (None), in the order of paths.

    Their data have been written back: ``readpages`` of each gives the content.
    """
    for inode in list(sb.pinned):
        if isinstance(inode, MemReg):
            inode.flush()
    found = dict(sorted(_changes(sb), key=lambda item: item[0]))
    for changed in found.values():
        if changed is not None:
            changed.flush()
    return found


def _changes(sb: OverlaySuper) -> Iterator[tuple[bytes, MemReg | None]]:
    assert sb.s_root is not None
    root = sb.s_root.d_inode
    assert isinstance(root, OvlDir)
    yield from _changes_below(root, b"/")
    for inode in list(sb.pinned):
        path = _lower_path(sb, inode)
        if path is None:
            continue  # made by the guest, moved or removed: its directory tells
        if isinstance(inode, OvlDir):
            yield from _changes_below(inode, path)
        elif isinstance(inode, OvlReg) and _has_new_data(inode):
            yield path, inode


def _changes_below(directory: OvlDir, path: bytes) -> Iterator[tuple[bytes, MemReg | None]]:
    """The names that the guest gave and took in ``directory``, and all below those it gave."""
    for name, child in directory.children.items():
        below = path.rstrip(b"/") + b"/" + name
        if isinstance(child, OvlDir):
            yield from _changes_below(child, below)
        elif isinstance(child, MemReg):
            yield below, child
    for name in directory.whiteouts:
        if name not in directory.children and _was_regular(directory.lower, name):
            yield path.rstrip(b"/") + b"/" + name, None


def _was_regular(lower: HostDir | None, name: bytes) -> bool:
    try:
        stat = lower.lstat(name) if lower is not None else None
    except KernelError:
        return False
    return stat is not None and stat.mode & S_IFMT == S_IFREG


def _has_new_data(inode: OvlReg) -> bool:
    base = inode.lower_at
    if inode.store.pages or base is None:
        return True
    stat = base[0].lstat(base[1])
    return stat is None or stat.size != inode.i_size


def _lower_path(sb: OverlaySuper, inode: Inode) -> bytes | None:
    """The path at which a lower object still is; None for others."""
    lower_at = getattr(inode, "lower_at", None)
    if lower_at is None:
        return None
    names: list[bytes] = []
    directory, name = lower_at
    while True:
        stat = directory.stat()
        above = sb.known.get((stat.dev, stat.ino))
        if isinstance(above, OvlDir) and (name in above.whiteouts or name in above.children):
            return None
        names.append(name)
        if directory.parent is None:
            return b"/" + b"/".join(reversed(names))
        directory, name = directory.parent, directory.name
