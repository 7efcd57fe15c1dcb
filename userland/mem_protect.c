/* Memory pressure: mprotect, madvise and holes while pages come and go.
 *
 *     mem_protect [MIB] */

#include "lib/pattern.h"

#define STRIPE 16UL

int main(int argc, char **argv)
{
    ulong pages = number_argument(argc, argv, 1, 24) * PAGES_PER_MIB & -STRIPE, wrong = 0;
    byte *memory = map_anonymous(pages * PAGE_SIZE, PROT_READ | PROT_WRITE);

    fill_pages(memory, 0, pages, 0);
    for (ulong round = 0; round < 3; round++) {
        /* every stripe in turn: no access, read-only, rewritten */
        for (ulong at = 0; at < pages; at += STRIPE)
            checked("mprotect", sys_mprotect(memory + at * PAGE_SIZE, STRIPE * PAGE_SIZE,
                                             at / STRIPE % 2 ? PROT_NONE : PROT_READ));
        for (ulong at = 0; at < pages; at += 2 * STRIPE)
            wrong += wrong_pages(memory + at * PAGE_SIZE, at, STRIPE, round);
        checked("mprotect", sys_mprotect(memory, pages * PAGE_SIZE, PROT_READ | PROT_WRITE));
        wrong += wrong_pages(memory, 0, pages, round);
        fill_pages(memory, 0, pages, round + 1);
    }
    for (ulong at = 0; at < pages; at += 2 * STRIPE) {
        checked("madvise", sys_madvise(memory + at * PAGE_SIZE, STRIPE / 2 * PAGE_SIZE, MADV_DONTNEED));
        checked("munmap", sys_munmap(memory + (at + STRIPE) * PAGE_SIZE, STRIPE / 2 * PAGE_SIZE));
    }
    for (ulong at = 0; at < pages; at += 2 * STRIPE) {
        for (ulong page = at; page < at + STRIPE / 2; page++)
            wrong += memory[page * PAGE_SIZE] != 0;
        wrong += wrong_pages(memory + (at + STRIPE / 2) * PAGE_SIZE, at + STRIPE / 2, STRIPE / 2, 3);
        wrong += wrong_pages(memory + (at + STRIPE * 3 / 2) * PAGE_SIZE, at + STRIPE * 3 / 2, STRIPE / 2, 3);
    }
    return verdict("protect", wrong);
}
