"""The tree of mounts, and mount(2)'s work on it.

Models ``fs/namespace.c``: one mount namespace, no propagation between mounts (every mount is private).

Invariants: ``children[(parent, dentry)]`` is the topmost mount there; ``dentry.d_mounted`` counts the entries of
``children`` with that dentry; ``order`` holds every mounted mount once, parents before children.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.mount import (
    MNT_DETACH,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_RDONLY,
    MS_RELATIME,
)
from kernel.fs.dcache import Dentry, Mount, Path, is_subdir
from kernel.fs.inode import is_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAG_NAMES = (
    (MS_NOSUID, "nosuid"),
    (MS_NODEV, "nodev"),
    (MS_NOEXEC, "noexec"),
    (MS_NOATIME, "noatime"),
    (MS_NODIRATIME, "nodiratime"),
    (MS_RELATIME, "relatime"),
    (MS_NOSYMFOLLOW, "nosymfollow"),
)


class MountTree:
    """``struct mnt_namespace``."""

    def __init__(self) -> None:
        self.children: dict[tuple[Mount, Dentry], Mount] = {}
        self.order: list[Mount] = []
        self._last_id = 20

    def at(self, parent: Mount, dentry: Dentry) -> Mount | None:
        """What is mounted on ``dentry`` of ``parent`` (__lookup_mnt)."""
        return self.children.get((parent, dentry))

    def new(self, root: Dentry, devname: str, flags: int) -> Mount:
        """A mount that is not attached yet."""
        self._last_id += 1
        return Mount(self._last_id, root, devname, flags)

    def attach_root(self, mnt: Mount) -> None:
        self.order.append(mnt)

    def attach(self, mnt: Mount, where: Path) -> None:
        """Mount ``mnt`` on the place ``where`` (which must be the topmost there)."""
        if is_dir(mnt.mnt_root.d_inode) != is_dir(where.dentry.d_inode):
            raise KernelError(Errno.ENOTDIR, "directory on file or file on directory")
        mnt.mnt_parent = where.mnt
        mnt.mnt_mountpoint = where.dentry
        self.children[(where.mnt, where.dentry)] = mnt
        where.dentry.d_mounted += 1
        self.order.append(mnt)

    def _detach(self, mnt: Mount) -> None:
        del self.children[(mnt.mnt_parent, mnt.mnt_mountpoint)]
        mnt.mnt_mountpoint.d_mounted -= 1
        self.order.remove(mnt)
        mnt.mnt_parent = mnt
        mnt.mnt_mountpoint = mnt.mnt_root

    def below(self, mnt: Mount) -> list[Mount]:
        """``mnt`` and all mounts in its tree, parents first."""
        found = [mnt]
        for other in self.order:
            if other is not mnt and other.mnt_parent in found:
                found.append(other)
        return found

    def umount(self, path: Path, flags: int, in_use: Iterator[Path]) -> None:
        """umount2(2) of the mount whose root ``path`` is; ``in_use`` are all places that tasks hold."""
        mnt = path.mnt
        if path.dentry is not mnt.mnt_root or mnt.mnt_parent is mnt:
            raise KernelError(Errno.EINVAL, "not a mount point, or the root")
        tree = self.below(mnt)
        if not flags & MNT_DETACH and (len(tree) > 1 or any(place.mnt is mnt for place in in_use)):
            raise KernelError(Errno.EBUSY, "mount is in use")
        mnt.mnt_sb.sync()
        for victim in reversed(tree):
            self._detach(victim)

    def bind(self, source: Path, recursive: bool) -> tuple[Mount, list[tuple[Mount, Mount, Dentry]]]:
        """A copy of ``source`` as a mount of its own, with copies of the mounts below it to attach if ``recursive``.

        The list says (copy, copied parent, mountpoint dentry).
        """
        copy = self.new(source.dentry, source.mnt.mnt_devname, source.mnt.mnt_flags)
        children: list[tuple[Mount, Mount, Dentry]] = []
        copies = {source.mnt: copy}
        if recursive:
            for mnt in self.below(source.mnt)[1:]:
                top = mnt.mnt_parent is source.mnt
                if (top and not is_subdir(mnt.mnt_mountpoint, source.dentry)) or mnt.mnt_parent not in copies:
                    continue
                copies[mnt] = self.new(mnt.mnt_root, mnt.mnt_devname, mnt.mnt_flags)
                children.append((copies[mnt], copies[mnt.mnt_parent], mnt.mnt_mountpoint))
        return copy, children

    def move(self, mnt: Mount, where: Path) -> None:
        """MS_MOVE."""
        if mnt.mnt_parent is mnt:
            raise KernelError(Errno.EINVAL, "the root cannot be moved")
        place = where.mnt
        while place.mnt_parent is not place:
            if place is mnt:
                raise KernelError(Errno.ELOOP, "a mount cannot be moved below itself")
            place = place.mnt_parent
        del self.children[(mnt.mnt_parent, mnt.mnt_mountpoint)]
        mnt.mnt_mountpoint.d_mounted -= 1
        mnt.mnt_parent, mnt.mnt_mountpoint = where
        self.children[(where.mnt, where.dentry)] = mnt
        where.dentry.d_mounted += 1

    def pivot(self, new_root: Mount, put_old: Path, old_root: Mount) -> None:
        """pivot_root(2): ``new_root`` becomes the root of the tree, the old root is mounted on ``put_old``."""
        self._detach(new_root)
        old_root.mnt_parent, old_root.mnt_mountpoint = put_old
        self.children[(put_old.mnt, put_old.dentry)] = old_root
        put_old.dentry.d_mounted += 1
        self.order.insert(0, new_root)

    def is_mountpoint(self, dentry: Dentry) -> bool:
        return dentry.d_mounted > 0

    def __iter__(self) -> Iterator[Mount]:
        return iter(list(self.order))


def flags_text(mnt: Mount) -> str:
    """The fourth column of /proc/mounts without the file system's own options."""
    text = "ro" if mnt.mnt_flags & MS_RDONLY else "rw"
    return text + "".join(f",{name}" for bit, name in _FLAG_NAMES if mnt.mnt_flags & bit)
