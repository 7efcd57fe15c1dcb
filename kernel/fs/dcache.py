"""Names: ``struct dentry``, ``struct mount`` and paths.

Models ``fs/dcache.c`` and ``fs/mount.h``.  A dentry is one name of one inode in the tree of its file system; the
table ``d_children`` is only a cache of what the directory inode's ``lookup`` says, so the cache may drop any
dentry that nobody else holds (the file systems keep modified inodes themselves).

Invariants: a hashed dentry is ``d_parent.d_children[d_name]``; an unhashed one (removed name, pipe, socket) is in no
table; the root of a file system is its own parent.

Deliberate difference: no negative dentries, no RCU; Python's reference count is ``d_lockref``.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kernel.fs.inode import Inode, SuperBlock

MAX_UNUSED_DENTRIES = 65_536
MAX_VOLATILE_DENTRIES = 512


class Dentry:
    """``struct dentry``.  Compared by identity."""

    __slots__ = (
        "__weakref__",
        "d_children",
        "d_hashed",
        "d_inode",
        "d_mounted",
        "d_name",
        "d_parent",
        "d_sb",
        "d_text",
    )

    def __init__(self, name: bytes, parent: Dentry | None, inode: Inode, sb: SuperBlock) -> None:
        self.d_name = name
        self.d_parent: Dentry = parent if parent is not None else self
        self.d_inode = inode
        self.d_sb = sb
        self.d_children: dict[bytes, Dentry] = {}
        self.d_mounted = 0
        """How many mounts sit on this dentry (in all mount trees)."""
        self.d_hashed = parent is not None
        self.d_text: bytes | None = None
        """For files without a place in the tree: what /proc/PID/fd shows (``pipe:[7]``, ``/memfd:x (deleted)``)."""

    @property
    def is_root(self) -> bool:
        return self.d_parent is self

    def __repr__(self) -> str:
        return f"<Dentry {self.d_name!r} {self.d_inode!r}>"


class Mount:
    """``struct mount``: a file system's (sub)tree at a place."""

    __slots__ = ("mnt_devname", "mnt_flags", "mnt_id", "mnt_mountpoint", "mnt_parent", "mnt_root", "mnt_sb")

    def __init__(self, mnt_id: int, root: Dentry, devname: str, flags: int = 0) -> None:
        self.mnt_id = mnt_id
        self.mnt_root = root
        self.mnt_sb = root.d_sb
        self.mnt_parent: Mount = self
        self.mnt_mountpoint: Dentry = root
        self.mnt_devname = devname
        self.mnt_flags = flags
        """MNT_* of kernel/abi/mount.py."""

    def __repr__(self) -> str:
        return f"<Mount {self.mnt_id} {self.mnt_sb.s_type}>"


class Path(NamedTuple):
    """``struct path``: a place in the tree of mounts."""

    mnt: Mount
    dentry: Dentry


class DentryCache:
    """The dentries that may be dropped, oldest first (the dcache LRU).

    Names in volatile directories (/proc, writable host directories) are asked for anew each time, so few are kept.
    """

    __slots__ = ("lru", "volatile")

    def __init__(self) -> None:
        self.lru: OrderedDict[Dentry, None] = OrderedDict()
        self.volatile: OrderedDict[Dentry, None] = OrderedDict()

    def add(self, parent: Dentry, name: bytes, inode: Inode) -> Dentry:
        """d_alloc and d_add: the new hashed dentry ``name`` of ``parent``."""
        dentry = Dentry(name, parent, inode, parent.d_sb)
        parent.d_children[name] = dentry
        if parent.d_inode.volatile:
            self.volatile[dentry] = None
            if len(self.volatile) > MAX_VOLATILE_DENTRIES:
                _prune(self.volatile, MAX_VOLATILE_DENTRIES // 4)
        else:
            self.lru[dentry] = None
            if len(self.lru) > MAX_UNUSED_DENTRIES:
                _prune(self.lru, MAX_UNUSED_DENTRIES // 4)
        return dentry

    def prune_all(self) -> None:
        """drop_caches: let go of every dentry that nobody holds."""
        for lru in (self.volatile, self.lru):
            _prune(lru, len(lru))


def _prune(lru: OrderedDict[Dentry, None], nr: int) -> None:
    """Drop up to ``nr`` of the oldest dentries; those that somebody still holds stay."""
    for _ in range(min(nr, len(lru))):
        dentry, _none = lru.popitem(last=False)
        if not dentry.d_hashed:
            continue
        if dentry.d_children or dentry.d_mounted:
            lru[dentry] = None
            continue
        parent, name, watch = dentry.d_parent, dentry.d_name, weakref.ref(dentry)
        del parent.d_children[name], dentry
        held = watch()
        if held is not None:
            parent.d_children[name] = held
            lru[held] = None


def d_drop(dentry: Dentry) -> None:
    """The name is gone (unlinked, or the file system says it is stale): out of the table."""
    if dentry.d_hashed:
        dentry.d_hashed = False
        table = dentry.d_parent.d_children
        if table.get(dentry.d_name) is dentry:
            del table[dentry.d_name]


def d_move(dentry: Dentry, new_parent: Dentry, new_name: bytes) -> None:
    """rename: ``dentry`` takes the place of whatever is at ``new_name``."""
    old = new_parent.d_children.get(new_name)
    if old is not None and old is not dentry:
        d_drop(old)
    if dentry.d_parent.d_children.get(dentry.d_name) is dentry:
        del dentry.d_parent.d_children[dentry.d_name]
    dentry.d_parent = new_parent
    dentry.d_name = new_name
    dentry.d_hashed = True
    new_parent.d_children[new_name] = dentry


def d_exchange(one: Dentry, two: Dentry) -> None:
    """RENAME_EXCHANGE: both names stay, what they name is swapped."""
    one.d_parent, two.d_parent = two.d_parent, one.d_parent
    one.d_name, two.d_name = two.d_name, one.d_name
    one.d_parent.d_children[one.d_name] = one
    two.d_parent.d_children[two.d_name] = two


def is_subdir(dentry: Dentry, ancestor: Dentry) -> bool:
    """Is ``dentry`` ``ancestor`` or below it (in one file system)?"""
    while dentry is not ancestor:
        if dentry.d_parent is dentry:
            return False
        dentry = dentry.d_parent
    return True


def path_text(path: Path, root: Path) -> tuple[bytes, bool]:
    """The absolute name of ``path`` seen from ``root``, and whether ``root`` was reached (prepend_path)."""
    mnt, dentry = path
    parts: list[bytes] = []
    while dentry is not root.dentry or mnt is not root.mnt:
        if dentry is mnt.mnt_root:
            if mnt.mnt_parent is mnt:
                break
            dentry, mnt = mnt.mnt_mountpoint, mnt.mnt_parent
            continue
        if dentry.d_parent is dentry:
            break
        parts.append(dentry.d_name)
        dentry = dentry.d_parent
    reached = dentry is root.dentry and mnt is root.mnt
    return b"/" + b"/".join(reversed(parts)), reached


def d_path(path: Path, root: Path) -> bytes:
    """d_path(): what /proc/PID/fd, maps and getcwd show; `` (deleted)`` added for removed names."""
    dentry = path.dentry
    if dentry.d_text is not None:
        return dentry.d_text
    text, _reached = path_text(path, root)
    return text if dentry.d_hashed or dentry.is_root else text + b" (deleted)"
