"""Users, groups and capabilities: setuid(2), getgroups(2), capget(2) ...

Models the credential calls of ``kernel/sys.c``, ``kernel/groups.c``, ``kernel/capability.c`` and
``security/commoncap.c``.  One user namespace: every number but -1 is a valid user.
"""

from __future__ import annotations

import struct

from kernel.abi.capability import (
    CAP_DATA,
    CAP_FULL_SET,
    CAP_HEADER,
    LINUX_CAPABILITY_VERSION_1,
    LINUX_CAPABILITY_VERSION_2,
    LINUX_CAPABILITY_VERSION_3,
    Cap,
)
from kernel.abi.errno import Errno, KernelError
from kernel.fs.uio import user_mm
from kernel.mm.usercopy import copy_from_user, copy_to_user, put_user_u32
from kernel.syscalls.table import Int, UInt, UserAddr, syscall
from kernel.task.cred import Cred, capable, commit_creds, fix_setfsuid, fix_setuid, require
from kernel.task.task import Task

_KEEP = 0xFFFF_FFFF
"""-1: leave this id alone."""
NGROUPS_MAX = 65536


# ---- reading -------------------------------------------------------------------------------------


@syscall("getuid", x86_64=102, i386=199, group="creds")
def sys_getuid(task: Task) -> int:
    """The real user id."""
    return task.creds.uid


@syscall("geteuid", x86_64=107, i386=201, group="creds")
def sys_geteuid(task: Task) -> int:
    """The effective user id."""
    return task.creds.euid


@syscall("getgid", x86_64=104, i386=200, group="creds")
def sys_getgid(task: Task) -> int:
    """The real group id."""
    return task.creds.gid


@syscall("getegid", x86_64=108, i386=202, group="creds")
def sys_getegid(task: Task) -> int:
    """The effective group id."""
    return task.creds.egid


@syscall("getresuid", x86_64=118, i386=209, group="creds")
def sys_getresuid(task: Task, ruid: UserAddr, euid: UserAddr, suid: UserAddr) -> None:
    """Real, effective and saved user id."""
    mm, creds = user_mm(task), task.creds
    for address, value in ((ruid, creds.uid), (euid, creds.euid), (suid, creds.suid)):
        put_user_u32(mm, address, value)


@syscall("getresgid", x86_64=120, i386=211, group="creds")
def sys_getresgid(task: Task, rgid: UserAddr, egid: UserAddr, sgid: UserAddr) -> None:
    """Real, effective and saved group id."""
    mm, creds = user_mm(task), task.creds
    for address, value in ((rgid, creds.gid), (egid, creds.egid), (sgid, creds.sgid)):
        put_user_u32(mm, address, value)


@syscall("getgroups", x86_64=115, i386=205, group="creds")
def sys_getgroups(task: Task, gidsetsize: Int, grouplist: UserAddr) -> int:
    """The supplementary groups."""
    groups = task.creds.groups
    if gidsetsize < 0:
        raise KernelError(Errno.EINVAL, "negative size")
    if gidsetsize:
        if len(groups) > gidsetsize:
            raise KernelError(Errno.EINVAL, f"{len(groups)} groups do not fit")
        copy_to_user(user_mm(task), grouplist, struct.pack(f"<{len(groups)}I", *groups))
    return len(groups)


@syscall("setgroups", x86_64=116, i386=206, group="creds")
def sys_setgroups(task: Task, gidsetsize: Int, grouplist: UserAddr) -> None:
    """Replace the supplementary groups."""
    require(task, Cap.CAP_SETGID)
    if not 0 <= gidsetsize <= NGROUPS_MAX:
        raise KernelError(Errno.EINVAL, "more than NGROUPS_MAX groups")
    groups = struct.unpack(f"<{gidsetsize}I", copy_from_user(user_mm(task), grouplist, gidsetsize * 4))
    if _KEEP in groups:
        raise KernelError(Errno.EINVAL, "-1 is no group")
    new = task.creds.copy()
    new.groups = tuple(sorted(groups))
    commit_creds(task, new)


# ---- users ---------------------------------------------------------------------------------------


def _refuse(what: str) -> KernelError:
    return KernelError(Errno.EPERM, f"{what}: neither one's own id nor the capability")


@syscall("setuid", x86_64=105, i386=213, group="creds")
def sys_setuid(task: Task, uid: UInt) -> None:
    """Change the effective user id; with CAP_SETUID all of them."""
    if uid == _KEEP:
        raise KernelError(Errno.EINVAL, "-1 is no user")
    old = task.creds
    new = old.copy()
    if capable(task, Cap.CAP_SETUID):
        new.suid = new.uid = uid
    elif uid not in (old.uid, old.suid):
        raise _refuse("setuid")
    new.fsuid = new.euid = uid
    fix_setuid(old, new)
    commit_creds(task, new)


@syscall("setreuid", x86_64=113, i386=203, group="creds")
def sys_setreuid(task: Task, ruid: UInt, euid: UInt) -> None:
    """Change real and effective user id."""
    old = task.creds
    new = old.copy()
    privileged = capable(task, Cap.CAP_SETUID)
    if ruid != _KEEP:
        new.uid = ruid
        if ruid not in (old.uid, old.euid) and not privileged:
            raise _refuse("real user id")
    if euid != _KEEP:
        new.euid = euid
        if euid not in (old.uid, old.euid, old.suid) and not privileged:
            raise _refuse("effective user id")
    if ruid != _KEEP or (euid != _KEEP and euid != old.uid):
        new.suid = new.euid
    new.fsuid = new.euid
    fix_setuid(old, new)
    commit_creds(task, new)


@syscall("setresuid", x86_64=117, i386=208, group="creds")
def sys_setresuid(task: Task, ruid: UInt, euid: UInt, suid: UInt) -> None:
    """Change real, effective and saved user id."""
    old = task.creds
    own = (old.uid, old.euid, old.suid)
    if not capable(task, Cap.CAP_SETUID) and any(uid not in (_KEEP, *own) for uid in (ruid, euid, suid)):
        raise _refuse("setresuid")
    new = old.copy()
    if ruid != _KEEP:
        new.uid = ruid
    if euid != _KEEP:
        new.euid = euid
    if suid != _KEEP:
        new.suid = suid
    new.fsuid = new.euid
    fix_setuid(old, new)
    commit_creds(task, new)


@syscall("setfsuid", x86_64=122, i386=215, group="creds")
def sys_setfsuid(task: Task, uid: UInt) -> int:
    """Change the user id for file access; returns the old one, whether it worked or not."""
    old = task.creds
    if uid != old.fsuid and (uid in (old.uid, old.euid, old.suid) or (uid != _KEEP and capable(task, Cap.CAP_SETUID))):
        new = old.copy()
        new.fsuid = uid
        fix_setfsuid(old, new)
        commit_creds(task, new)
    return old.fsuid


# ---- groups --------------------------------------------------------------------------------------


@syscall("setgid", x86_64=106, i386=214, group="creds")
def sys_setgid(task: Task, gid: UInt) -> None:
    """Change the effective group id; with CAP_SETGID all of them."""
    if gid == _KEEP:
        raise KernelError(Errno.EINVAL, "-1 is no group")
    old = task.creds
    new = old.copy()
    if capable(task, Cap.CAP_SETGID):
        new.sgid = new.gid = gid
    elif gid not in (old.gid, old.sgid):
        raise _refuse("setgid")
    new.fsgid = new.egid = gid
    commit_creds(task, new)


@syscall("setregid", x86_64=114, i386=204, group="creds")
def sys_setregid(task: Task, rgid: UInt, egid: UInt) -> None:
    """Change real and effective group id."""
    old = task.creds
    new = old.copy()
    privileged = capable(task, Cap.CAP_SETGID)
    if rgid != _KEEP:
        if rgid not in (old.gid, old.egid) and not privileged:
            raise _refuse("real group id")
        new.gid = rgid
    if egid != _KEEP:
        if egid not in (old.gid, old.egid, old.sgid) and not privileged:
            raise _refuse("effective group id")
        new.egid = egid
    if rgid != _KEEP or (egid != _KEEP and egid != old.gid):
        new.sgid = new.egid
    new.fsgid = new.egid
    commit_creds(task, new)


@syscall("setresgid", x86_64=119, i386=210, group="creds")
def sys_setresgid(task: Task, rgid: UInt, egid: UInt, sgid: UInt) -> None:
    """Change real, effective and saved group id."""
    old = task.creds
    own = (old.gid, old.egid, old.sgid)
    if not capable(task, Cap.CAP_SETGID) and any(gid not in (_KEEP, *own) for gid in (rgid, egid, sgid)):
        raise _refuse("setresgid")
    new = old.copy()
    if rgid != _KEEP:
        new.gid = rgid
    if egid != _KEEP:
        new.egid = egid
    if sgid != _KEEP:
        new.sgid = sgid
    new.fsgid = new.egid
    commit_creds(task, new)


@syscall("setfsgid", x86_64=123, i386=216, group="creds")
def sys_setfsgid(task: Task, gid: UInt) -> int:
    """Change the group id for file access; returns the old one, whether it worked or not."""
    old = task.creds
    if gid != old.fsgid and (gid in (old.gid, old.egid, old.sgid) or (gid != _KEEP and capable(task, Cap.CAP_SETGID))):
        new = old.copy()
        new.fsgid = gid
        commit_creds(task, new)
    return old.fsgid


# ---- capabilities --------------------------------------------------------------------------------


def _cap_header(task: Task, header: int) -> tuple[int, int]:
    """How many CAP_DATA follow, and whose capabilities are meant.  An unknown version is answered with the best one."""
    mm = user_mm(task)
    version, pid = CAP_HEADER.unpack(copy_from_user(mm, header, CAP_HEADER.size))
    if version == LINUX_CAPABILITY_VERSION_1:
        return 1, pid
    if version in (LINUX_CAPABILITY_VERSION_2, LINUX_CAPABILITY_VERSION_3):
        return 2, pid
    put_user_u32(mm, header, LINUX_CAPABILITY_VERSION_3)
    raise KernelError(Errno.EINVAL, f"unknown capability version {version:#x}")


@syscall("capget", x86_64=125, i386=184, group="creds")
def sys_capget(task: Task, header: UserAddr, dataptr: UserAddr) -> None:
    """The capabilities of a thread."""
    try:
        nr_words, pid = _cap_header(task, header)
    except KernelError as error:
        if error.errno == Errno.EINVAL and not dataptr:
            return  # a program asks for the version
        raise
    if pid < 0:
        raise KernelError(Errno.EINVAL, "negative pid")
    target = task if pid == 0 else task.kernel.tasks.get(pid)
    if target is None:
        raise KernelError(Errno.ESRCH, f"no thread {pid}")
    if not dataptr:
        return
    creds = target.creds
    words = b"".join(
        CAP_DATA.pack(
            creds.cap_effective >> shift & 0xFFFF_FFFF,
            creds.cap_permitted >> shift & 0xFFFF_FFFF,
            creds.cap_inheritable >> shift & 0xFFFF_FFFF,
        )
        for shift in (0, 32)[:nr_words]
    )
    copy_to_user(user_mm(task), dataptr, words)


@syscall("capset", x86_64=126, i386=185, group="creds")
def sys_capset(task: Task, header: UserAddr, data: UserAddr) -> None:
    """Change the capabilities of the calling thread."""
    nr_words, pid = _cap_header(task, header)
    if pid not in (0, task.pid):
        raise KernelError(Errno.EPERM, "another thread")
    raw = copy_from_user(user_mm(task), data, nr_words * CAP_DATA.size)
    effective = permitted = inheritable = 0
    for shift, words in zip((0, 32), CAP_DATA.iter_unpack(raw), strict=False):
        effective |= words[0] << shift
        permitted |= words[1] << shift
        inheritable |= words[2] << shift
    commit_creds(
        task, _new_capabilities(task, effective & CAP_FULL_SET, permitted & CAP_FULL_SET, inheritable & CAP_FULL_SET)
    )


def _new_capabilities(task: Task, effective: int, permitted: int, inheritable: int) -> Cred:
    """cap_capset(): EPERM unless each set stays within what rules it."""
    old = task.creds
    if inheritable & ~(old.cap_inheritable | old.cap_permitted) and not capable(task, Cap.CAP_SETPCAP):
        raise KernelError(Errno.EPERM, "inheritable set grows beyond the permitted one")
    if inheritable & ~(old.cap_inheritable | old.cap_bset):
        raise KernelError(Errno.EPERM, "inheritable set grows beyond the bounding set")
    if permitted & ~old.cap_permitted:
        raise KernelError(Errno.EPERM, "permitted set grows")
    if effective & ~permitted:
        raise KernelError(Errno.EPERM, "effective set larger than the permitted one")
    new = old.copy()
    new.cap_effective, new.cap_permitted, new.cap_inheritable = effective, permitted, inheritable
    new.cap_ambient &= permitted & inheritable
    return new
