/* A buffer between two guard pages that grows.
 *
 *     remap_guard [whole]         whole: ask first for all of it in one call, guards and buffer
 *
 * Models guarded allocations (stacks of coroutines, Electric Fence, secure heaps): a page without access on each side of
 * a buffer, made by mprotect, so that the block is three areas.  To grow, a larger block is reserved without access and
 * mremap with MREMAP_FIXED puts the buffer, one area, between its guards.  With "whole", the program first asks mremap to grow
 * the three areas at once, and does the above when that is refused.
 *
 * Expected: safe on every kernel, with "whole" too: that call gives EFAULT on all of them, because the protections differ (6.17
 * moves many areas only if they do not grow), so no kernel behaves otherwise than another. */

#include "lib/remap.h"

static byte *block;  /* a guard, the buffer, a guard */
static ulong pages;  /* of the buffer */
static int ask_for_whole;

static byte *buffer(void)
{
    return block + PAGE_SIZE;
}

static void make(ulong wanted)
{
    block = map_anonymous((wanted + 2) * PAGE_SIZE, READ_WRITE);
    pages = wanted;
    protect(block, 1, PROT_NONE);
    protect(buffer() + pages * PAGE_SIZE, 1, PROT_NONE);
}

/* All three areas to a larger place; then the upper guard must be moved up. */
static int grow_whole(ulong wanted)
{
    long moved = mremap(block, (pages + 2) * PAGE_SIZE, (wanted + 2) * PAGE_SIZE, MREMAP_MAYMOVE, 0); /* the whole */

    if (is_error(moved))
        return 0;
    block = (byte *)moved;
    protect(buffer(), wanted, READ_WRITE);
    protect(buffer() + wanted * PAGE_SIZE, 1, PROT_NONE);
    return 1;
}

static void grow(ulong wanted)
{
    if (ask_for_whole && grow_whole(wanted)) {
        pages = wanted;
        return;
    }
    byte *larger = map_anonymous((wanted + 2) * PAGE_SIZE, PROT_NONE), *into = larger + PAGE_SIZE;
    long moved = mremap(buffer(), pages * PAGE_SIZE, wanted * PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, into); /* the call */
    if (is_error(moved))
        refused("the buffer cannot grow", moved);
    checked("munmap", sys_munmap(block, PAGE_SIZE));
    checked("munmap", sys_munmap(buffer() + pages * PAGE_SIZE, PAGE_SIZE));
    block = larger;
    pages = wanted;
}

int main(int argc, char **argv)
{
    ask_for_whole = argc == 2 && !strcmp(argv[1], "whole");
    if (argc > 2 || (argc == 2 && !ask_for_whole)) {
        complain("usage: remap_guard [whole]\n");
        return 2;
    }
    guard_install();
    make(2);
    fill_pages(buffer(), 0, 2, 7);
    while (pages < 32) {
        ulong before = pages;

        grow(2 * before);
        ulong wrong = wrong_pages(buffer(), 0, before, 7);
        fill_pages(buffer() + before * PAGE_SIZE, before, before, 7);
        int guarded = guarded_load(buffer() - 1) < 0 && guarded_store(buffer() + pages * PAGE_SIZE, 1) < 0;
        print("%lu pages, %lu wrong, guards %s\n", pages, wrong, guarded ? "ok" : "gone");
        if (wrong || !guarded)
            return 1;
    }
    return 0;
}
