/* A ring buffer that is mapped twice, side by side, so that no record is ever cut at the end.
 *
 *     remap_ring [RECORDS]        (default 3000)
 *
 * Models the "magic" ring buffer of audio servers and message queues: shared memory, and mremap with an old length of 0,
 * which maps the same pages again without moving anything.  When the ring is full it is replaced by one of twice the size.
 *
 * Expected: safe on every kernel.  Length 0 skips the test for ranges that span areas, and shared memory may be mapped so
 * on all of them (private memory not: 6.1 and later say EINVAL).  The two halves are never one area, since their offsets do
 * not continue, and nobody asks that they be. */

#include "lib/remap.h"

struct ring {
    byte *base;
    ulong size;         /* bytes; mapped at base and again at base + size */
    ulong read, written; /* bytes since the beginning */
};

static struct ring ring_of(ulong size)
{
    struct ring ring = { .size = size };

    ring.base = map_anonymous(2 * size, PROT_NONE); /* room for both */
    checked("mmap", sys_mmap(ring.base, size, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    long second = mremap(ring.base, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, ring.base + size); /* the call */
    if (is_error(second))
        refused("the ring cannot be mapped twice", second);
    ring.base[0] = 1;
    if (ring.base[size] != 1) {
        print("the halves are not the same memory\n");
        quit(1);
    }
    return ring;
}

static byte *at(struct ring *ring, ulong position)
{
    return ring->base + position % ring->size;
}

static void larger(struct ring *ring)
{
    struct ring next = ring_of(2 * ring->size);

    next.written = ring->written - ring->read;
    memcpy(next.base, at(ring, ring->read), next.written); /* in one piece, wherever it wraps */
    checked("munmap", sys_munmap(ring->base, 2 * ring->size));
    *ring = next;
}

/* Record n: its length, then bytes that follow from n. */
static ulong length_of(ulong n)
{
    return 8 + n * 2654435761UL / 64 % 900;
}

static void put(struct ring *ring, ulong n)
{
    ulong length = length_of(n);

    while (ring->written + length - ring->read > ring->size)
        larger(ring);
    byte *record = at(ring, ring->written);
    *(ulong *)record = n;
    memset(record + 8, (int)n, length - 8);
    ring->written += length;
}

static int get(struct ring *ring, ulong n)
{
    ulong length = length_of(n);
    byte *record = at(ring, ring->read);
    int good = *(ulong *)record == n;

    for (ulong i = 8; i < length; i++)
        good &= record[i] == (byte)n;
    ring->read += length;
    return good;
}

int main(int argc, char **argv)
{
    ulong records = number_argument(argc, argv, 1, 3000), produced = 0, wrong = 0;
    struct ring ring = ring_of(PAGE_SIZE);

    for (ulong consumed = 0; consumed < records; consumed++) {
        for (ulong n = 0; n < 3 && produced < records && produced - consumed < 60; n++)
            put(&ring, produced++); /* the producer is ahead, so the ring must grow to hold 60 records */
        wrong += !get(&ring, consumed);
    }
    print("%lu records through a ring of %lu pages, %lu wrong\n", records, ring.size / PAGE_SIZE, wrong);
    return wrong != 0;
}
