/* Memory pressure: children share the parent's pages copy-on-write, each rewrites its part, all check everything they see.
 *
 *     mem_fork [MIB [CHILDREN]] */

#include "lib/pattern.h"

int main(int argc, char **argv)
{
    ulong pages = number_argument(argc, argv, 1, 24) * PAGES_PER_MIB, children = number_argument(argc, argv, 2, 8);
    byte *memory = map_anonymous(pages * PAGE_SIZE, PROT_READ | PROT_WRITE);
    ulong part = pages / children, wrong = 0;
    int ids[64];

    if (!children || children > 64) {
        complain("mem_fork: 1 to 64 children\n");
        return 2;
    }
    fill_pages(memory, 0, pages, 0);
    for (ulong child = 0; child < children; child++) {
        ids[child] = checked("fork", fork_flushed());
        if (ids[child])
            continue;
        ulong mine = child * part;
        wrong += wrong_pages(memory, 0, pages, 0);
        fill_pages(memory + mine * PAGE_SIZE, mine, part, child + 1);
        sys_sched_yield();
        wrong += wrong_pages(memory, 0, mine, 0);
        wrong += wrong_pages(memory + mine * PAGE_SIZE, mine, part, child + 1);
        wrong += wrong_pages(memory + (mine + part) * PAGE_SIZE, mine + part, pages - mine - part, 0);
        quit(wrong != 0);
    }
    for (ulong child = 0; child < children; child++)
        wrong += wait_for(ids[child]);
    wrong += wrong_pages(memory, 0, pages, 0);
    return verdict("fork", wrong);
}
