/* Hugh Dickins' first test program (29 March 2004): page by page, map, write, protect.
 *
 *     p1 [N [down]]       N pages (default 16), upwards or downwards
 *
 * Every page is its own mapping for a moment and joins its neighbour when it becomes read-only, if the kernel lets two
 * written areas merge.  Then mremap over the whole range: it works on one area and gives EFAULT on several. */

#include "lib/areas.h"

#define BASE 0x200000000UL

int main(int argc, char **argv)
{
    ulong n = number_argument(argc, argv, 1, 16);
    int down = argc > 2 && !strcmp(argv[2], "down");

    if (!n || argc > 3 || (argc == 3 && !down)) {
        complain("usage: p1 [pages [down]]\n");
        return 2;
    }
    for (ulong step = 0; step < n; step++) {
        byte *page = (byte *)BASE + (down ? n - 1 - step : step) * PAGE_SIZE;
        long result = sys_mmap(page, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

        if (is_error(result)) {
            print("page %lu: mmap %s\n", step, errno_name(result));
            return 1;
        }
        *(ulong *)page = step + 1;
        result = sys_mprotect(page, PAGE_SIZE, PROT_READ);
        if (is_error(result)) {
            print("page %lu: mprotect %s\n", step, errno_name(result));
            return 1;
        }
    }
    print("pages %lu\n", n);
    print("areas %lu\n", for_each_area(BASE, BASE + n * PAGE_SIZE, 0));

    byte *base = (byte *)BASE;
    long moved = sys_mremap(base, n * PAGE_SIZE, (n + 1) * PAGE_SIZE, MREMAP_MAYMOVE, 0);
    print("mremap of the whole range to one page more: %s\n", errno_name(moved));
    if (!is_error(moved))
        base = (byte *)moved;
    for (ulong i = 0; i < n; i++)
        if (*(ulong *)(base + i * PAGE_SIZE) != (down ? n - i : i + 1)) {
            print("page %lu has lost its data\n", i);
            return 1;
        }
    print("data ok\n");
    return 0;
}
