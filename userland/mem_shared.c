/* Memory pressure: shared anonymous memory; children write by turns, everybody sees everything.
 *
 *     mem_shared [MIB [CHILDREN]] */

#include "lib/pattern.h"

int main(int argc, char **argv)
{
    ulong pages = number_argument(argc, argv, 1, 24) * PAGES_PER_MIB, children = number_argument(argc, argv, 2, 4);
    byte *memory = map_shared(pages * PAGE_SIZE);
    byte *private = map_anonymous(pages / 2 * PAGE_SIZE, PROT_READ | PROT_WRITE);
    ulong wrong = 0;

    if (!children) {
        complain("mem_shared: at least one child\n");
        return 2;
    }
    fill_pages(memory, 0, pages, 0);
    fill_pages(private, 0, pages / 2, 100);
    for (ulong turn = 0; turn < children; turn++) {
        int child = checked("fork", fork_flushed());

        if (!child) {
            wrong += wrong_pages(memory, 0, pages, turn);
            fill_pages(memory, 0, pages, turn + 1);
            wrong += wrong_pages(private, 0, pages / 2, 100);
            quit(wrong != 0);
        }
        wrong += wait_for(child);
    }
    wrong += wrong_pages(memory, 0, pages, children);
    checked("madvise", sys_madvise(memory, pages / 2 * PAGE_SIZE, MADV_REMOVE)); /* a hole: zero from now on */
    for (ulong page = 0; page < pages / 2; page++)
        wrong += memory[page * PAGE_SIZE] != 0;
    wrong += wrong_pages(memory + pages / 2 * PAGE_SIZE, pages / 2, pages - pages / 2, children);
    wrong += wrong_pages(private, 0, pages / 2, 100);
    return verdict("shared", wrong);
}
