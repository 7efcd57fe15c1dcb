/* Every word of a page differs, and differs from the same word of every other page and key: a page that comes back
 * from swap in the wrong place, half, stale or zeroed is seen. */

#include "pattern.h"

#define WORDS (PAGE_SIZE / 8)
#define STEP 0x9e3779b97f4a7c15UL

static ulong first_word(ulong page, ulong key)
{
    ulong x = (page + 1) * STEP ^ (key + 1) * 0xbf58476d1ce4e5b9UL;

    return x ^ x >> 29;
}

void fill_pages(void *memory, ulong first, ulong pages, ulong key)
{
    ulong *words = memory;

    for (ulong page = first; page < first + pages; page++) {
        ulong value = first_word(page, key);

        for (ulong i = 0; i < WORDS; i++, value += STEP)
            *words++ = value;
    }
}

ulong wrong_pages(const void *memory, ulong first, ulong pages, ulong key)
{
    const ulong *words = memory;
    ulong wrong = 0;

    for (ulong page = first; page < first + pages; page++) {
        ulong value = first_word(page, key), difference = 0;

        for (ulong i = 0; i < WORDS; i++, value += STEP)
            difference |= *words++ ^ value;
        if (difference && !wrong++)
            complain("page %lu, key %lu: wrong data\n", page, key);
    }
    return wrong;
}

int wait_for(int child)
{
    int status;

    checked("wait4", sys_wait4(child, &status, 0));
    if (status & 0x7f) {
        complain("a child died of signal %d\n", status & 0x7f);
        quit(1);
    }
    return status >> 8;
}

int verdict(const char *what, ulong wrong)
{
    if (wrong)
        print("%s: %lu pages wrong\n", what, wrong);
    else
        print("%s: ok\n", what);
    return wrong != 0;
}
