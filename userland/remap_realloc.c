/* Growing arrays, as realloc of the C library grows large blocks.
 *
 *     remap_realloc [ELEMENTS]        elements in each of three arrays (default 40000)
 *
 * Models realloc of glibc for a block above the mmap threshold (mremap_chunk): each block is a mapping of its own with
 * its length in a header; to grow or to shrink it is one mremap with MREMAP_MAYMOVE; if that fails, a new block is
 * allocated and the contents are copied.  The arrays grow in turns, by half, so that they are in each other's way and
 * move; each is cut to its size at the end.
 *
 * Expected: safe on every kernel.  Blocks side by side may be one area, which harms nobody: the range of a call lies in
 * one area, because a block is never protected in part. */

#include "lib/remap.h"

#define ARRAYS 3

struct block {
    ulong mapped; /* bytes, with this header */
    ulong unused; /* keeps the contents aligned to 16 bytes */
    ulong contents[];
};

struct array {
    struct block *block;
    ulong used, room; /* elements */
};

static ulong mapped_for(ulong elements)
{
    ulong bytes = sizeof(struct block) + elements * sizeof(ulong);

    return (bytes + PAGE_SIZE - 1) & -PAGE_SIZE;
}

static struct block *allocate(ulong elements)
{
    struct block *block = (struct block *)map_anonymous(mapped_for(elements), READ_WRITE);

    block->mapped = mapped_for(elements);
    return block;
}

static struct block *reallocate(struct block *old, ulong elements)
{
    ulong wanted = mapped_for(elements);

    if (wanted == old->mapped)
        return old;
    long moved = mremap(old, old->mapped, wanted, MREMAP_MAYMOVE, 0); /* the call */
    if (!is_error(moved)) {
        struct block *block = (struct block *)moved;

        block->mapped = wanted;
        return block;
    }
    if (wanted < old->mapped)
        return old; /* too large is no harm */
    struct block *block = allocate(elements);
    memcpy(block->contents, old->contents, old->mapped - sizeof *old);
    checked("munmap", sys_munmap(old, old->mapped));
    return block;
}

static ulong element(ulong array, ulong index)
{
    return (index + 1) * 0x9e3779b97f4a7c15UL ^ array;
}

static void append(struct array *array, ulong value)
{
    if (array->used == array->room) {
        array->room += array->room / 2 + 1;
        array->block = reallocate(array->block, array->room);
    }
    array->block->contents[array->used++] = value;
}

int main(int argc, char **argv)
{
    ulong elements = number_argument(argc, argv, 1, 40000);
    struct array arrays[ARRAYS];

    for (ulong i = 0; i < ARRAYS; i++)
        arrays[i] = (struct array){ allocate(100), 0, 100 };
    for (ulong n = 0; n < elements; n++)
        for (ulong i = 0; i < ARRAYS; i++)
            append(&arrays[i], element(i, n));
    for (ulong i = 0; i < ARRAYS; i++) {
        struct array *array = &arrays[i];
        ulong wrong = 0;

        array->block = reallocate(array->block, array->used);
        for (ulong n = 0; n < array->used; n++)
            wrong += array->block->contents[n] != element(i, n);
        print("array %lu: %lu elements, %lu wrong\n", i, array->used, wrong);
        if (wrong)
            return 1;
    }
    return 0;
}
