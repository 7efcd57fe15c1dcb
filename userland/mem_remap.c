/* Memory pressure: pages shared since a fork are moved by mremap, in the child, in the parent and in both, and must be
 * found and unmapped at their new places.
 *
 *     mem_remap [MIB] */

#include "lib/pattern.h"

static byte *move(byte *from, ulong pages)
{
    byte *to = map_anonymous(pages * PAGE_SIZE, PROT_NONE);

    return (byte *)checked("mremap", sys_mremap(from, pages * PAGE_SIZE, pages * PAGE_SIZE,
                                                MREMAP_MAYMOVE | MREMAP_FIXED, to));
}

/* Uses up memory so that everything else is driven out. */
static ulong press(ulong pages, ulong key)
{
    byte *ballast = map_anonymous(pages * PAGE_SIZE, PROT_READ | PROT_WRITE);

    fill_pages(ballast, 0, pages, key);
    ulong wrong = wrong_pages(ballast, 0, pages, key);
    checked("munmap", sys_munmap(ballast, pages * PAGE_SIZE));
    return wrong;
}

int main(int argc, char **argv)
{
    ulong pages = number_argument(argc, argv, 1, 16) * PAGES_PER_MIB, half = pages / 2, wrong = 0;
    byte *low = map_anonymous(pages * PAGE_SIZE, PROT_READ | PROT_WRITE), *high = low + half * PAGE_SIZE;
    int children[2];

    fill_pages(low, 0, pages, 0);
    for (int i = 0; i < 2; i++) {
        children[i] = checked("fork", fork_flushed());
        if (children[i])
            continue;
        if (i)
            low = move(low, half); /* one child moves the first half, the other leaves all in place */
        wrong += press(pages, 10 + i);
        wrong += wrong_pages(low, 0, half, 0) + wrong_pages(high, half, half, 0);
        for (ulong page = 0; page < half; page += 3)
            fill_pages(low + page * PAGE_SIZE, page, 1, 20 + i);
        wrong += press(pages, 30 + i);
        for (ulong page = 0; page < half; page++)
            wrong += wrong_pages(low + page * PAGE_SIZE, page, 1, page % 3 ? 0 : 20 + i);
        quit(wrong != 0);
    }
    high = move(high, half); /* the parent moves the second half */
    wrong += press(pages, 40);
    wrong += wrong_pages(low, 0, half, 0) + wrong_pages(high, half, half, 0);
    for (int i = 0; i < 2; i++)
        wrong += wait_for(children[i]);
    high = move(high, half); /* and again, now that they are its own */
    wrong += press(pages, 50);
    wrong += wrong_pages(low, 0, half, 0) + wrong_pages(high, half, half, 0);
    return verdict("remap", wrong);
}
