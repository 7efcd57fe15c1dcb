"""An lmdb environment whose map is made larger while it is open and full of data: mdb_env_set_mapsize of liblmdb.

Run it in an empty directory: python3 mapsize.py
"""

import ctypes
import os

NOSUBDIR = 0x4000
MAP_FULL = -30792
START = 1 << 18

lmdb = ctypes.CDLL("liblmdb.so.0")
Handle = ctypes.c_void_p


class Value(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("data", ctypes.c_char_p))


def call(name: str, *arguments: object) -> int:
    return getattr(lmdb, name)(*arguments)


def done(name: str, *arguments: object) -> None:
    status = call(name, *arguments)
    if status:
        raise SystemExit(f"{name}: {status}")


def put(environment: Handle, first: int, last: int) -> int:
    """Stores numbered values in one transaction; MAP_FULL when the map is too small."""
    transaction, database = Handle(), ctypes.c_uint()
    done("mdb_txn_begin", environment, None, 0, ctypes.byref(transaction))
    done("mdb_dbi_open", transaction, None, 0, ctypes.byref(database))
    for number in range(first, last):
        key, data = b"%08d" % number, b"%0200d" % number
        pair = Value(len(key), key), Value(len(data), data)
        status = call("mdb_put", transaction, database, *map(ctypes.byref, pair), 0)
        if status:
            lmdb.mdb_txn_abort(transaction)
            return status
    return call("mdb_txn_commit", transaction)


environment, size, stored = Handle(), START, 0
done("mdb_env_create", ctypes.byref(environment))
done("mdb_env_set_mapsize", environment, ctypes.c_size_t(size))
done("mdb_env_open", environment, b"data.mdb", NOSUBDIR, 0o600)
while stored < 4000:
    status = put(environment, stored, stored + 500)
    if status == MAP_FULL:
        size *= 2
        done("mdb_env_set_mapsize", environment, ctypes.c_size_t(size))
        print(stored, "values, map made larger:", size)
    elif status:
        raise SystemExit(f"put: {status}")
    else:
        stored += 500
lmdb.mdb_env_close(environment)
print(stored, "values,", os.path.getsize("data.mdb") <= size)
