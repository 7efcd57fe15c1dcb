/* Two buffers joined by mremap and then taken for one area.
 *
 *     remap_toomuch [PAGES]       of each buffer (default 6)
 *
 * Models string and rope libraries that concatenate large buffers without copying: two buffers are filled, each where it is; one
 * mremap with MREMAP_FIXED puts the second behind the first; a later mremap grows the result.  The first call works on
 * every kernel.  The second takes for granted that the two have become one area.
 *
 * Expected: the second buffer's pages know their offsets from where they were first written, so the joined areas do not
 * continue each other, and each has an anon_vma of its own (RMAP.md section 11, P8b).
 *     breaks every kernel with an anon_vma: 2.6.6-rmap39, 2.6.5-aa, 2.6.7, one-anon-vma (there the offset alone), 6.1, 6.18
 *     safe   2.6.6-anonmm and 2.6.6: anonymous areas join whatever their offsets
 */

#include "lib/remap.h"

#define FIRST 0x330000000UL
#define SECOND 0x340000000UL

int main(int argc, char **argv)
{
    ulong pages = number_argument(argc, argv, 1, 6), len = pages * PAGE_SIZE, wrong = 0;
    byte *text = map_at((void *)FIRST, pages, READ_WRITE), *second = map_at((void *)SECOND, pages, READ_WRITE);

    fill_pages(text, 0, pages, 1);
    fill_pages(second, 0, pages, 2);
    long joined = mremap(second, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, text + len);
    if (is_error(joined))
        refused("the second buffer cannot be put behind the first", joined);
    wrong += wrong_pages(text, 0, pages, 1) + wrong_pages(text + len, 0, pages, 2);
    print("%lu pages joined, %lu wrong\n", 2 * pages, wrong);
    long grown = mremap(text, 2 * len, 3 * len, MREMAP_MAYMOVE, 0); /* the call */
    if (is_error(grown))
        refused("the joined buffers cannot grow", grown);
    text = (byte *)grown;
    fill_pages(text + 2 * len, 0, pages, 3);
    for (ulong part = 0; part < 3; part++)
        wrong += wrong_pages(text + part * len, 0, pages, part + 1);
    print("grown to %lu pages, %lu wrong\n", 3 * pages, wrong);
    return wrong != 0;
}
