/* Memory pressure: fills MIB mebibytes (several times RAM), reads them back in several orders, rewrites a part, reads again.
 *
 *     mem_fill [MIB [PASSES]] */

#include "lib/pattern.h"

int main(int argc, char **argv)
{
    ulong pages = number_argument(argc, argv, 1, 64) * PAGES_PER_MIB, passes = number_argument(argc, argv, 2, 2);
    byte *memory = map_anonymous(pages * PAGE_SIZE, PROT_READ | PROT_WRITE);
    ulong wrong = 0;

    fill_pages(memory, 0, pages, 0);
    for (ulong pass = 0; pass < passes; pass++) {
        for (ulong page = 0; page < pages; page++) /* upwards; odd pages carry the key of the last pass */
            wrong += wrong_pages(memory + page * PAGE_SIZE, page, 1, page % 2 ? pass : 0);
        for (ulong page = pages; page-- > 0;) /* downwards */
            wrong += wrong_pages(memory + page * PAGE_SIZE, page, 1, page % 2 ? pass : 0);
        for (ulong page = 1; page < pages; page += 2)
            fill_pages(memory + page * PAGE_SIZE, page, 1, pass + 1);
    }
    /* Once more in a scattered order: 7919 is prime and larger than any factor of the size. */
    for (ulong i = 0, page = 0; i < pages; i++, page = (page + 7919) % pages)
        wrong += wrong_pages(memory + page * PAGE_SIZE, page, 1, page % 2 ? passes : 0);
    return verdict("fill", wrong);
}
