import collections
import ctypes
import decimal
import fractions
import hashlib
import itertools
import json
import math
import mmap
import os
import random
import re
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

print(sys.version_info[:2], sum(i * i for i in range(10000)), math.factorial(50))
print(hashlib.sha256(b"x" * 10000).hexdigest(), zlib.crc32(b"hello"))
print(zlib.decompress(zlib.compress(b"data" * 1000)) == b"data" * 1000)
print(json.dumps({"b": [1, 2.5, None, True], "a": {"x": "\u00e9"}}, sort_keys=True), json.loads("[1e3, -0.5]"))
random.seed(42)
print(random.random(), random.sample(range(100), 5))
print(decimal.Decimal(1) / 7, fractions.Fraction(3, 9))
print(re.findall(r"(\w)(\d+)", "a1 b22 c333"), collections.Counter("mississippi").most_common(2))

counts: list[int] = []
lock = threading.Lock()


def work(n: int) -> None:
    for _ in range(100):
        with lock:
            counts.append(n)


threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(counts), sum(counts))

print(subprocess.run(["/bin/sh", "-c", "cat; echo err >&2; exit 3"], input="piped\n", capture_output=True, text=True))
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(w, b"child")
    os._exit(5)
print(os.read(r, 10), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

with tempfile.TemporaryFile() as f:
    f.write(b"a" * 8192)
    f.flush()
    mapped = mmap.mmap(f.fileno(), 0)
    mapped[0:3] = b"xyz"
    f.seek(0)
    print(f.read(5), mapped.find(b"aa"))
    mapped.close()
anonymous = mmap.mmap(-1, 4096)
anonymous[0] = 7
print(len(anonymous), anonymous[0])
db = sqlite3.connect(":memory:")
db.execute("create table t(x)")
db.executemany("insert into t values(?)", [(i,) for i in range(100)])
print(db.execute("select sum(x) from t").fetchone())
signal.signal(signal.SIGALRM, lambda number, frame: print("alarm", int(number)))
signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.05)
print(ctypes.CDLL(None).abs(-5), struct.pack("<IHd", 1, 2, 0.5).hex(), "caf\u00e9".encode())
print(list(itertools.permutations("abc"))[:3], bytes(memoryview(b"abc")[1:]))
print(f"{math.pi:.10f} {1e22:g} {0.1 + 0.2!r}")
try:
    os.stat("/no/such/file")
except OSError as error:
    print(error)


def deep(n: int) -> int:
    return deep(n + 1)


try:
    deep(0)
except RecursionError:
    print("recursion")


class BoomError(Exception):
    pass


raise BoomError("the end")
