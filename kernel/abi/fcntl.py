"""Opening, locking and positioning files: the constants of ``<fcntl.h>``, ``<linux/openat2.h>``, ``<linux/falloc.h>``.

Models ``include/uapi/asm-generic/fcntl.h``, ``include/uapi/linux/fcntl.h`` (x86 values).  The enum classes are for
printers and annotations; the plain ints below them are for code (IntFlag arithmetic is slow).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class OpenFlags(IntFlag):
    """open(2).  O_RDONLY is 0; the access mode is a number, not bits."""

    O_WRONLY = 0o1
    O_RDWR = 0o2
    O_CREAT = 0o100
    O_EXCL = 0o200
    O_NOCTTY = 0o400
    O_TRUNC = 0o1000
    O_APPEND = 0o2000
    O_NONBLOCK = 0o4000
    O_DSYNC = 0o10000
    O_ASYNC = 0o20000
    O_DIRECT = 0o40000
    O_LARGEFILE = 0o100000
    O_DIRECTORY = 0o200000
    O_NOFOLLOW = 0o400000
    O_NOATIME = 0o1000000
    O_CLOEXEC = 0o2000000
    __O_SYNC = 0o4000000
    O_PATH = 0o10000000
    __O_TMPFILE = 0o20000000


O_RDONLY = 0
O_WRONLY = 0o1
O_RDWR = 0o2
O_ACCMODE = 0o3
O_CREAT = 0o100
O_EXCL = 0o200
O_NOCTTY = 0o400
O_TRUNC = 0o1000
O_APPEND = 0o2000
O_NONBLOCK = 0o4000
O_DSYNC = 0o10000
O_ASYNC = FASYNC = 0o20000
O_DIRECT = 0o40000
O_LARGEFILE = 0o100000
O_DIRECTORY = 0o200000
O_NOFOLLOW = 0o400000
O_NOATIME = 0o1000000
O_CLOEXEC = 0o2000000
O_SYNC = 0o4010000
O_PATH = 0o10000000
O_TMPFILE_BIT = 0o20000000
O_TMPFILE = O_TMPFILE_BIT | O_DIRECTORY

# What open(2) silently keeps (VALID_OPEN_FLAGS); openat2 refuses anything else.
VALID_OPEN_FLAGS = (
    O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC | O_DSYNC | O_ASYNC | O_DIRECT
    | O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_PATH | O_TMPFILE_BIT
)  # fmt: skip
O_PATH_FLAGS = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC
# Flags that fcntl(F_SETFL) may change.
SETFL_MASK = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC

# struct file f_mode (include/linux/fs.h)
FMODE_READ = 0x1
FMODE_WRITE = 0x2
FMODE_LSEEK = 0x4
FMODE_PREAD = 0x8
FMODE_PWRITE = 0x10
FMODE_EXEC = 0x20
FMODE_PATH = 0x4000
FMODE_STREAM = 0x200000

# Access modes of inode_permission (include/linux/fs.h), the same bits as access(2).
MAY_EXEC = 1
MAY_WRITE = 2
MAY_READ = 4


class AtFlags(IntFlag):
    """The ``flags`` of the *at family."""

    AT_SYMLINK_NOFOLLOW = 0x100
    AT_REMOVEDIR = 0x200
    AT_SYMLINK_FOLLOW = 0x400
    AT_NO_AUTOMOUNT = 0x800
    AT_EMPTY_PATH = 0x1000
    AT_STATX_FORCE_SYNC = 0x2000
    AT_STATX_DONT_SYNC = 0x4000
    AT_RECURSIVE = 0x8000


class AccessAtFlags(IntFlag):
    """faccessat2(2) reuses one bit of :class:`AtFlags`."""

    AT_EACCESS = 0x200
    AT_SYMLINK_NOFOLLOW = 0x100
    AT_EMPTY_PATH = 0x1000


AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_REMOVEDIR = AT_EACCESS = 0x200
AT_SYMLINK_FOLLOW = 0x400
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_STATX_SYNC_TYPE = 0x6000
AT_RECURSIVE = 0x8000


class FcntlCmd(IntEnum):
    F_DUPFD = 0
    F_GETFD = 1
    F_SETFD = 2
    F_GETFL = 3
    F_SETFL = 4
    F_GETLK = 5
    F_SETLK = 6
    F_SETLKW = 7
    F_SETOWN = 8
    F_GETOWN = 9
    F_SETSIG = 10
    F_GETSIG = 11
    F_SETOWN_EX = 15
    F_GETOWN_EX = 16
    F_OFD_GETLK = 36
    F_OFD_SETLK = 37
    F_OFD_SETLKW = 38
    F_SETLEASE = 1024
    F_GETLEASE = 1025
    F_NOTIFY = 1026
    F_DUPFD_QUERY = 1027
    F_CREATED_QUERY = 1028
    F_DUPFD_CLOEXEC = 1030
    F_SETPIPE_SZ = 1031
    F_GETPIPE_SZ = 1032
    F_ADD_SEALS = 1033
    F_GET_SEALS = 1034
    F_GET_RW_HINT = 1035
    F_SET_RW_HINT = 1036


FD_CLOEXEC = 1
F_RDLCK, F_WRLCK, F_UNLCK = 0, 1, 2
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_FUTURE_WRITE, F_SEAL_EXEC = 1, 2, 4, 8, 16, 32


class FlockOp(IntFlag):
    LOCK_SH = 1
    LOCK_EX = 2
    LOCK_NB = 4
    LOCK_UN = 8


LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN = 1, 2, 4, 8


class Whence(IntEnum):
    SEEK_SET = 0
    SEEK_CUR = 1
    SEEK_END = 2
    SEEK_DATA = 3
    SEEK_HOLE = 4


SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE = 0, 1, 2, 3, 4


class FallocFlags(IntFlag):
    FALLOC_FL_KEEP_SIZE = 0x1
    FALLOC_FL_PUNCH_HOLE = 0x2
    FALLOC_FL_COLLAPSE_RANGE = 0x8
    FALLOC_FL_ZERO_RANGE = 0x10
    FALLOC_FL_INSERT_RANGE = 0x20
    FALLOC_FL_UNSHARE_RANGE = 0x40


FALLOC_FL_KEEP_SIZE = 0x1
FALLOC_FL_PUNCH_HOLE = 0x2
FALLOC_FL_COLLAPSE_RANGE = 0x8
FALLOC_FL_ZERO_RANGE = 0x10
FALLOC_FL_INSERT_RANGE = 0x20
FALLOC_FL_UNSHARE_RANGE = 0x40


class RenameFlags(IntFlag):
    RENAME_NOREPLACE = 1
    RENAME_EXCHANGE = 2
    RENAME_WHITEOUT = 4


RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4


class ResolveFlags(IntFlag):
    """openat2(2) ``how.resolve``."""

    RESOLVE_NO_XDEV = 0x01
    RESOLVE_NO_MAGICLINKS = 0x02
    RESOLVE_NO_SYMLINKS = 0x04
    RESOLVE_BENEATH = 0x08
    RESOLVE_IN_ROOT = 0x10
    RESOLVE_CACHED = 0x20


RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20


class AccessMode(IntFlag):
    """access(2); F_OK is 0."""

    X_OK = 1
    W_OK = 2
    R_OK = 4


class Advice(IntEnum):
    """posix_fadvise(2)."""

    POSIX_FADV_NORMAL = 0
    POSIX_FADV_RANDOM = 1
    POSIX_FADV_SEQUENTIAL = 2
    POSIX_FADV_WILLNEED = 3
    POSIX_FADV_DONTNEED = 4
    POSIX_FADV_NOREUSE = 5


class CloseRangeFlags(IntFlag):
    CLOSE_RANGE_UNSHARE = 2
    CLOSE_RANGE_CLOEXEC = 4


CLOSE_RANGE_UNSHARE, CLOSE_RANGE_CLOEXEC = 2, 4


class MemfdFlags(IntFlag):
    MFD_CLOEXEC = 0x1
    MFD_ALLOW_SEALING = 0x2
    MFD_HUGETLB = 0x4
    MFD_NOEXEC_SEAL = 0x8
    MFD_EXEC = 0x10


MFD_CLOEXEC, MFD_ALLOW_SEALING, MFD_HUGETLB, MFD_NOEXEC_SEAL, MFD_EXEC = 0x1, 0x2, 0x4, 0x8, 0x10


class SpliceFlags(IntFlag):
    SPLICE_F_MOVE = 1
    SPLICE_F_NONBLOCK = 2
    SPLICE_F_MORE = 4
    SPLICE_F_GIFT = 8


SPLICE_F_NONBLOCK = 2


class RwfFlags(IntFlag):
    """preadv2/pwritev2."""

    RWF_HIPRI = 0x1
    RWF_DSYNC = 0x2
    RWF_SYNC = 0x4
    RWF_NOWAIT = 0x8
    RWF_APPEND = 0x10
    RWF_NOAPPEND = 0x20


RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND, RWF_NOAPPEND = 1, 2, 4, 8, 16, 32
RWF_SUPPORTED = 0x3F

NAME_MAX = 255
PATH_MAX = 4096
MAX_RW_COUNT = 0x7FFFF000
"""No read or write moves more in one call (INT_MAX & PAGE_MASK)."""
UIO_MAXIOV = 1024
PIPE_BUF = 4096
