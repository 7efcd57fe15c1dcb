/* Hugh Dickins' second test program (3 April 2004): two pages read-only, two writable; each in turn is made writable,
 * written and made read-only again.
 *
 * Prints the areas after each step.  With Andrea Arcangeli's rule, which shares an anon_vma when areas merge, the first
 * page stays apart for ever; with rmap 40, which shares at the first write, all four end as one area and the mremap works. */

#include "lib/areas.h"

#define BASE 0x200000000UL
#define PAGES 4

static void show_area(ulong first, ulong pages)
{
    print(" %lu+%lu", first, pages);
}

static void show(const char *what, ulong page)
{
    print("%s %lu: areas", what, page);
    for_each_area(BASE, BASE + PAGES * PAGE_SIZE, show_area);
    print("\n");
}

static void map(ulong page, ulong pages, int prot)
{
    checked("mmap", sys_mmap((byte *)BASE + page * PAGE_SIZE, pages * PAGE_SIZE, prot,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    show("map", page);
}

static void protect(ulong page, int prot)
{
    checked("mprotect", sys_mprotect((byte *)BASE + page * PAGE_SIZE, PAGE_SIZE, prot));
}

int main(void)
{
    map(0, 2, PROT_READ);
    map(2, 2, PROT_READ | PROT_WRITE);
    for (ulong page = 0; page < PAGES; page++) {
        protect(page, PROT_READ | PROT_WRITE);
        *(volatile byte *)(BASE + page * PAGE_SIZE) = page + 1;
        protect(page, PROT_READ);
        show("write", page);
    }
    long moved = sys_mremap((void *)BASE, PAGES * PAGE_SIZE, (PAGES + 1) * PAGE_SIZE, MREMAP_MAYMOVE, 0);
    print("mremap of the whole range to one page more: %s\n", errno_name(moved));
    byte *base = is_error(moved) ? (byte *)BASE : (byte *)moved;
    print("data %d %d %d %d\n", base[0], base[PAGE_SIZE], base[2 * PAGE_SIZE], base[3 * PAGE_SIZE]);
    return 0;
}
