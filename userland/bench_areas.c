/* Many areas in one address space: what the next mmap, fault and munmap cost.
 *
 *     bench_areas AREAS [N [map|fault|none]]
 *
 * Makes AREAS one-page areas that cannot merge (every other page stays a hole), then does N operations among them: map and
 * unmap one more page anywhere, or touch and drop a page of an area (find_vma and a fault).  The driver subtracts a run
 * with "none" and compares AREAS = 100 with 65,000. */

#include "lib/sys.h"

#define BASE 0x200000000UL

int main(int argc, char **argv)
{
    ulong areas = number_argument(argc, argv, 1, 1000), n = number_argument(argc, argv, 2, 1000);
    const char *what = argc > 3 ? argv[3] : "map";
    ulong done = 0, x = 88172645463325252UL;

    for (ulong i = 0; i < areas; i++)
        checked("mmap", sys_mmap((byte *)BASE + 2 * i * PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    for (; done < n && strcmp(what, "none"); done++) {
        if (!strcmp(what, "map")) {
            byte *page = map_anonymous(PAGE_SIZE, PROT_READ);
            checked("munmap", sys_munmap(page, PAGE_SIZE));
        } else {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            byte *page = (byte *)BASE + 2 * (x % areas) * PAGE_SIZE;
            page[0] = 1;
            checked("madvise", sys_madvise(page, PAGE_SIZE, MADV_DONTNEED));
        }
    }
    print("%lu areas, %lu operations\n", areas, done);
    return 0;
}
