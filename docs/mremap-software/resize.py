"""mmap.resize of Python's standard library: anonymous memory and a file, grown and shrunk."""

import mmap
import os
import tempfile

PAGE = mmap.PAGESIZE


def filled(memory: mmap.mmap, first: int, last: int) -> None:
    for page in range(first, last):
        memory[page * PAGE : page * PAGE + 4] = b"%04d" % page


def wrong(memory: mmap.mmap, pages: int) -> int:
    return sum(memory[page * PAGE : page * PAGE + 4] != b"%04d" % page for page in range(pages))


def grow_and_shrink(memory: mmap.mmap, what: str) -> None:
    filled(memory, 0, 4)
    for pages in (64, 256, 8):
        before = min(len(memory) // PAGE, pages)
        memory.resize(pages * PAGE)
        print(what, pages, "pages,", wrong(memory, before), "wrong")
        filled(memory, before, pages)


grow_and_shrink(mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), "anonymous")
with tempfile.TemporaryFile(dir=os.environ.get("TMPDIR", "/tmp")) as file:
    file.truncate(4 * PAGE)
    grow_and_shrink(mmap.mmap(file.fileno(), 4 * PAGE), "file")
    print("size of the file", file.seek(0, os.SEEK_END))
