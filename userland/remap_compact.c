/* A compacting garbage collector that lifts the heap's pages out of the heap and leaves it mapped.
 *
 *     remap_compact [ROUNDS]      collections (default 4)
 *
 * Models a compactor such as ART's: mremap with MREMAP_DONTUNMAP (Linux 5.7) moves the pages to another address while the
 * heap's range stays mapped and empty, so that no other thread's mmap can take it; the live objects are then copied back,
 * close together.  Where the flag is not known (EINVAL) the pages are moved without it and the range is mapped again.
 *
 * Expected: safe on 6.1 and 6.18.  copes on the others: 2.6 knows MREMAP_MAYMOVE and MREMAP_FIXED only. */

#include "lib/remap.h"

#define HEAP 0x300000000UL
#define ASIDE 0x310000000UL
#define PAGES 32
#define CELL 256UL
#define CELLS (PAGES * PAGE_SIZE / CELL)

static byte *heap = (byte *)HEAP, *aside = (byte *)ASIDE;
static ulong live; /* cells in use, from the start of the heap */

static ulong *cell(byte *space, ulong n)
{
    return (ulong *)(space + n * CELL);
}

static void lift_out(void)
{
    ulong len = PAGES * PAGE_SIZE;
    long moved = mremap(heap, len, len, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, aside); /* the call */

    if (moved == -EINVAL) {
        checked("mremap", mremap(heap, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, aside));
        map_at(heap, PAGES, READ_WRITE);
    } else if (is_error(moved)) {
        refused("the heap cannot be lifted out", moved);
    }
}

int main(int argc, char **argv)
{
    ulong rounds = number_argument(argc, argv, 1, 4), serial = 0;

    map_at(heap, PAGES, READ_WRITE);
    for (ulong round = 1; round <= rounds; round++) {
        ulong wrong = 0, kept = 0, before = live;

        for (; live < CELLS; live++, serial++) {
            cell(heap, live)[0] = serial;
            memset(cell(heap, live) + 1, (int)serial, CELL - 8);
        }
        lift_out();
        for (ulong n = 0; n < CELLS; n++)
            wrong += cell(heap, n)[0] != 0; /* the range is there, and empty */
        for (ulong n = 0; n < CELLS; n++)
            if (*cell(aside, n) % 5 == round % 5 || *cell(aside, n) % 3 == 0)
                memcpy(cell(heap, kept++), cell(aside, n), CELL);
        checked("munmap", sys_munmap(aside, PAGES * PAGE_SIZE));
        for (ulong n = 0; n < kept; n++)
            for (ulong i = 8; i < CELL; i++)
                wrong += ((byte *)cell(heap, n))[i] != (byte)*cell(heap, n);
        live = kept;
        print("round %lu: %lu cells new, %lu live, %lu wrong\n", round, CELLS - before, live, wrong);
        if (wrong)
            return 1;
    }
    return 0;
}
