/* A code cache whose pages are writable or executable, never both.
 *
 *     remap_jit [FUNCTIONS]       (default 40)
 *
 * Models a just-in-time compiler with W^X: the cache is mapped executable; for each function, a page of its own here, the page is
 * made writable, written and made executable again; a full cache is doubled by one mremap.  The code is independent of
 * its position.  The program takes for granted that the cache is one area whenever it is full.
 *
 * Expected: each page is written for the first time while its neighbours differ in protection (RMAP.md section 11, P2).
 *     breaks 2.6.6-rmap39 (never shares) and 2.6.5-aa (shares when memory is mapped; the cache was mapped at once,
 *            long before the first write)
 *     safe   2.6.6, 2.6.6-anonmm, one-anon-vma; 2.6.7, 6.1, 6.18: the first write takes over the neighbour's anon_vma
 */

#include "lib/remap.h"

#define READ_EXECUTE (PROT_READ | PROT_EXEC)
#define FIRST_PAGES 8

static byte *cache;
static ulong cache_pages;

static ulong result_of(ulong n)
{
    return (n + 1) * 2654435761UL & 0x7fffffff;
}

/* mov eax, result; ret */
static void compile(ulong n)
{
    byte *code = cache + n * PAGE_SIZE;

    protect(code, 1, READ_WRITE);
    code[0] = 0xb8;
    *(uint32_t *)(code + 1) = result_of(n);
    code[5] = 0xc3;
    protect(code, 1, READ_EXECUTE);
}

static ulong call(ulong n)
{
    return ((unsigned (*)(void))(cache + n * PAGE_SIZE))();
}

static void grow(void)
{
    ulong old_len = cache_pages * PAGE_SIZE;
    long moved = mremap(cache, old_len, 2 * old_len, MREMAP_MAYMOVE, 0); /* the call */

    if (is_error(moved))
        refused("the code cache cannot grow", moved);
    cache = (byte *)moved;
    cache_pages *= 2;
}

int main(int argc, char **argv)
{
    ulong functions = number_argument(argc, argv, 1, 40), wrong = 0;

    cache_pages = FIRST_PAGES;
    cache = map_anonymous(cache_pages * PAGE_SIZE, READ_EXECUTE);
    for (ulong n = 0; n < functions; n++) {
        if (n == cache_pages)
            grow();
        compile(n);
        wrong += call(n) != result_of(n);
    }
    for (ulong n = 0; n < functions; n++)
        wrong += call(n) != result_of(n);
    print("%lu functions, %lu wrong\n", functions, wrong);
    return wrong != 0;
}
