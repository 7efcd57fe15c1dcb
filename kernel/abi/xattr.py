"""Extended attributes (``include/uapi/linux/xattr.h``, ``limits.h``)."""

from __future__ import annotations

from enum import IntFlag


class XattrFlags(IntFlag):
    XATTR_CREATE = 1
    XATTR_REPLACE = 2


XATTR_CREATE, XATTR_REPLACE = 1, 2
XATTR_NAME_MAX = 255
XATTR_SIZE_MAX = 65536
XATTR_LIST_MAX = 65536
