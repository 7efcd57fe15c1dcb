"""Who a task is and what it may do.

Models ``include/linux/cred.h``, ``kernel/cred.c`` and ``security/commoncap.c``; one user namespace, no security
module.

A :class:`Cred` is never changed once a task has it: callers change a copy and :func:`commit_creds` it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.capability import CAP_FULL_SET, SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP, SECBIT_NOROOT, Cap
from kernel.abi.errno import Errno, KernelError

if TYPE_CHECKING:
    from kernel.task.task import Task

SUID_DUMP_DISABLE = 0
SUID_DUMP_USER = 1

# What setfsuid gives up and takes back: CAP_FS_SET (include/linux/capability.h).
CAP_FS_SET = sum(
    1 << cap
    for cap in (
        Cap.CAP_CHOWN,
        Cap.CAP_MKNOD,
        Cap.CAP_DAC_OVERRIDE,
        Cap.CAP_DAC_READ_SEARCH,
        Cap.CAP_FOWNER,
        Cap.CAP_FSETID,
        Cap.CAP_MAC_OVERRIDE,
        Cap.CAP_LINUX_IMMUTABLE,
    )
)


class Cred:
    """``struct cred``."""

    __slots__ = (
        "cap_ambient", "cap_bset", "cap_effective", "cap_inheritable", "cap_permitted", "egid", "euid", "fsgid",
        "fsuid", "gid", "groups", "securebits", "sgid", "suid", "uid",
    )  # fmt: skip

    def __init__(self, uid: int = 0, gid: int = 0, groups: tuple[int, ...] = ()) -> None:
        self.uid = self.euid = self.suid = self.fsuid = uid
        self.gid = self.egid = self.sgid = self.fsgid = gid
        self.groups = groups
        self.securebits = 0
        capabilities = CAP_FULL_SET if uid == 0 else 0
        self.cap_permitted = capabilities
        self.cap_effective = capabilities
        self.cap_inheritable = 0
        self.cap_ambient = 0
        self.cap_bset = CAP_FULL_SET

    def copy(self) -> Cred:
        new = Cred.__new__(Cred)
        for name in Cred.__slots__:
            setattr(new, name, getattr(self, name))
        return new


def capable(task: Task, cap: int) -> bool:
    """Does ``task`` have capability ``cap`` in force?"""
    return task.creds.cap_effective >> cap & 1 != 0


def require(task: Task, cap: Cap) -> None:
    """EPERM unless ``task`` has ``cap``."""
    if not task.creds.cap_effective >> cap & 1:
        raise KernelError(Errno.EPERM, f"needs {cap.name}")


def in_egroup(cred: Cred, gid: int) -> bool:
    return gid == cred.egid or gid in cred.groups


def commit_creds(task: Task, new: Cred) -> None:
    """Give ``task`` the credentials ``new``: a change of identity makes it undumpable and forgets PR_SET_PDEATHSIG."""
    old = task.creds
    changed = (
        (old.euid, old.egid, old.fsuid, old.fsgid) != (new.euid, new.egid, new.fsuid, new.fsgid)
        or new.cap_permitted & ~old.cap_permitted
    )  # fmt: skip
    if changed:
        if task.mm is not None:
            task.mm.dumpable = SUID_DUMP_DISABLE
        task.pdeath_signal = 0
    if new.uid != old.uid:
        pids = task.kernel.pids
        pids.charge_user(old.uid, -1)
        pids.charge_user(new.uid, 1)
    task.creds = new


def fix_setuid(old: Cred, new: Cred) -> None:
    """cap_emulate_setxuid(): what happens to capabilities when set*uid leaves or enters user 0."""
    if new.securebits & SECBIT_NO_SETUID_FIXUP:
        return
    was_root = 0 in (old.uid, old.euid, old.suid)
    is_root = 0 in (new.uid, new.euid, new.suid)
    if was_root and not is_root:
        if not new.securebits & SECBIT_KEEP_CAPS:
            new.cap_permitted = 0
            new.cap_effective = 0
        new.cap_ambient = 0
    if old.euid == 0 and new.euid != 0:
        new.cap_effective = 0
    if old.euid != 0 and new.euid == 0:
        new.cap_effective = new.cap_permitted


def fix_setfsuid(old: Cred, new: Cred) -> None:
    """The file-system part of the capabilities follows fsuid."""
    if new.securebits & SECBIT_NO_SETUID_FIXUP:
        return
    if old.fsuid == 0 and new.fsuid != 0:
        new.cap_effective &= ~CAP_FS_SET
    if old.fsuid != 0 and new.fsuid == 0:
        new.cap_effective |= new.cap_permitted & CAP_FS_SET


def exec_creds(old: Cred, new_euid: int, new_egid: int, no_new_privs: bool) -> tuple[Cred, bool]:
    """Credentials after execve of a file whose set-id bits ask for ``new_euid`` and ``new_egid``; and AT_SECURE.

    cap_bprm_creds_from_file() without file capabilities: root's files have all, others none;
    P'(permitted) = F(permitted) & bset | P(inheritable) & F(inheritable) | P'(ambient).
    """
    new = old.copy()
    new.euid, new.egid = new_euid, new_egid
    new.cap_permitted = 0
    effective = False
    if not old.securebits & SECBIT_NOROOT:
        if 0 in (new.euid, new.uid):
            new.cap_permitted = old.cap_bset | old.cap_inheritable
        effective = new.euid == 0
    id_changed = new.euid != old.euid or not (new.egid == old.fsgid or new.egid in old.groups)
    if no_new_privs and (id_changed or new.cap_permitted & ~old.cap_permitted):
        new.euid, new.egid = new.uid, new.gid
        new.cap_permitted &= old.cap_permitted
    new.suid = new.fsuid = new.euid
    new.sgid = new.fsgid = new.egid
    if id_changed:
        new.cap_ambient = 0
    new.cap_permitted |= new.cap_ambient
    new.cap_effective = new.cap_permitted if effective else new.cap_ambient
    new.securebits &= ~SECBIT_KEEP_CAPS
    grew = effective or new.cap_permitted & ~new.cap_ambient != 0
    secure = id_changed or new.euid != old.uid or new.egid != old.gid or (new.uid != 0 and grew)
    return new, secure


def ptrace_may_access(task: Task, target: Task) -> bool:
    """__ptrace_may_access(PTRACE_MODE_*_REALCREDS): the rule for process_vm_readv, /proc/PID/mem and pidfd calls."""
    if task.signal is target.signal:
        return True
    mine, theirs = task.creds, target.creds
    same_user = (
        mine.uid == theirs.euid == theirs.suid == theirs.uid and mine.gid == theirs.egid == theirs.sgid == theirs.gid
    )
    if not same_user and not capable(task, Cap.CAP_SYS_PTRACE):
        return False
    if target.mm is not None and target.mm.dumpable != SUID_DUMP_USER and not capable(task, Cap.CAP_SYS_PTRACE):
        return False
    return theirs.cap_permitted & ~mine.cap_permitted == 0 or capable(task, Cap.CAP_SYS_PTRACE)
