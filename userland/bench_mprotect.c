/* mprotect calls that split an area and join it again.   bench_mprotect [N [PAGES]]: N calls over PAGES pages in use */

#include "lib/sys.h"

int main(int argc, char **argv)
{
    ulong n = number_argument(argc, argv, 1, 10000), pages = number_argument(argc, argv, 2, 16);
    byte *memory = map_anonymous(pages * PAGE_SIZE, PROT_READ | PROT_WRITE);

    for (ulong i = 0; i < pages; i++)
        memory[i * PAGE_SIZE] = i;
    for (ulong i = 0; i < n; i++) {
        byte *page = memory + (i / 2 % (pages - 2) + 1) * PAGE_SIZE;

        checked("mprotect", sys_mprotect(page, PAGE_SIZE, i % 2 ? PROT_READ | PROT_WRITE : PROT_READ));
    }
    print("%lu calls\n", n);
    return 0;
}
