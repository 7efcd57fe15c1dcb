/* An arena that is filled from both ends and doubled when they meet.
 *
 *     remap_arena [PAGES]         pages of the first arena (default 16)
 *
 * Models an arena allocator (region, bump allocator) that reserves address space without access, commits it page by page
 * with mprotect, small objects from the bottom and large ones from the top, and grows by one mremap when it is full.  If the
 * kernel refuses, the arena is reserved anew and copied, as such an allocator must do where there is no mremap.  Objects
 * are known by their offsets, so the arena may move.
 *
 * Expected: both ends are written while unfaulted memory lies between them, so no policy that looks at neighbours lets them
 * share an anon_vma (RMAP.md section 11, P5).  The last page that is committed joins one end only, and the full arena is two
 * areas, where an area has an anon_vma of its own.
 *     copes  2.6.6-rmap39, 2.6.5-aa, 2.6.7, 6.1, 6.18: EFAULT, the arena is copied (2.6.5-aa: once; the copy is mapped
 *            beside the first arena and born with its anon_vma)
 *     safe   2.6.6, 2.6.6-anonmm (no such test), one-anon-vma (always the same one)
 */

#include "lib/remap.h"

static byte *arena;
static ulong arena_pages;
static ulong bottom, top; /* pages [0, bottom) and [top, arena_pages) are in use */

/* What is in each page, by its offset: `where` survives the growth of the arena. */
static ulong key_of[1024];

static void commit(ulong page, ulong key)
{
    protect(arena + page * PAGE_SIZE, 1, READ_WRITE);
    fill_pages(arena + page * PAGE_SIZE, page, 1, key);
    key_of[page] = key;
}

static ulong wrong_in_arena(void)
{
    ulong wrong = 0;

    for (ulong page = 0; page < arena_pages; page++)
        if (page < bottom || page >= top)
            wrong += wrong_pages(arena + page * PAGE_SIZE, page, 1, key_of[page]);
    return wrong;
}

/* Everything is in use: twice the pages, the old ones at the bottom. */
static void grow(void)
{
    ulong old_len = arena_pages * PAGE_SIZE;
    long moved = mremap(arena, old_len, 2 * old_len, MREMAP_MAYMOVE, 0); /* the call */

    if (!is_error(moved)) {
        arena = (byte *)moved;
        protect(arena + old_len, arena_pages, PROT_NONE); /* to be committed when it is wanted */
    } else {
        byte *larger = map_anonymous(2 * old_len, PROT_NONE);

        protect(larger, arena_pages, READ_WRITE);
        memcpy(larger, arena, old_len);
        checked("munmap", sys_munmap(arena, old_len));
        arena = larger;
    }
    bottom = arena_pages;
    arena_pages *= 2;
    top = arena_pages;
}

int main(int argc, char **argv)
{
    ulong first = number_argument(argc, argv, 1, 16), key = 0;

    if (first < 2 || first > 256) {
        complain("usage: remap_arena [pages, 2 to 256]\n");
        return 2;
    }
    arena = map_anonymous(first * PAGE_SIZE, PROT_NONE);
    arena_pages = top = first;
    for (;;) {
        while (bottom < top) {
            if (key++ % 3) {
                commit(bottom, key);
                bottom++;
            } else {
                top--;
                commit(top, key);
            }
        }
        ulong wrong = wrong_in_arena();
        print("arena of %lu pages full, %lu wrong\n", arena_pages, wrong);
        if (wrong)
            return 1;
        if (arena_pages == 4 * first)
            return 0;
        grow();
    }
}
