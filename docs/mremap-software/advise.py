"""Half of a mapping is read at random for a while and advised so; then the whole is to grow.

madvise splits the mapping in two areas.  Taking the advice back joins them only where madvise joins areas (6.1 does,
2.6.7 does not); mremap refuses a range of two.  With the argument "keep" the advice is not taken back.
"""

import mmap
import sys

PAGE = mmap.PAGESIZE
PAGES = 64

memory = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(PAGES):
    memory[page * PAGE] = page
memory.madvise(mmap.MADV_RANDOM, 0, PAGES // 2 * PAGE)
total = sum(memory[page * 37 % 32 * PAGE] for page in range(32))
if sys.argv[1:] != ["keep"]:
    memory.madvise(mmap.MADV_NORMAL, 0, PAGES // 2 * PAGE)
memory.resize(2 * PAGES * PAGE)
print(total, len(memory) // PAGE, sum(memory[page * PAGE] for page in range(PAGES)))
