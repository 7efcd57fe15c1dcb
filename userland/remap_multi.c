/* A loaded module, several areas with a hole between, moved to another address by one call.
 *
 *     remap_multi [pieces]        pieces: when one call is refused, move area by area
 *
 * Models loaders and checkpoint tools (CRIU's restorer moves its mappings into place) that relocate an image: code, constants,
 * a hole, data.  Code reaches its data by distance, so the distances must be kept.  Linux 6.17 moves such a range by one
 * mremap with MREMAP_FIXED and equal lengths; earlier kernels move one area at a time.
 *
 * Expected: safe on 6.18.  On the seven others breaks (EFAULT: the range spans areas), and with "pieces" copes. */

#include "lib/remap.h"

#define FROM 0x350000000UL
#define TO 0x360000000UL

struct segment {
    ulong page, pages;
    int prot;
};

static const struct segment segments[] = {
    { 0, 2, PROT_READ | PROT_EXEC },
    { 2, 3, PROT_READ },
    { 8, 4, PROT_READ | PROT_WRITE }, /* pages 5 to 7 are a hole */
};
#define SEGMENTS (sizeof segments / sizeof *segments)
#define IMAGE_PAGES 12
#define COUNTER_PAGE 8

/* inc qword [counter]; mov rax, [counter]; ret: reaches its data by distance. */
static void write_code(byte *image)
{
    static const byte code[] = { 0x48, 0xff, 0x05, 0, 0, 0, 0, 0x48, 0x8b, 0x05, 0, 0, 0, 0, 0xc3 };

    memcpy(image, code, sizeof code);
    *(int *)(image + 3) = COUNTER_PAGE * PAGE_SIZE - 7;
    *(int *)(image + 10) = COUNTER_PAGE * PAGE_SIZE - 14;
}

static void load(byte *image)
{
    for (ulong i = 0; i < SEGMENTS; i++) {
        const struct segment *segment = &segments[i];
        byte *at = map_at(image + segment->page * PAGE_SIZE, segment->pages, READ_WRITE);

        fill_pages(at, segment->page, segment->pages, 1);
        if (!i)
            write_code(at);
        if (segment->page == COUNTER_PAGE)
            *(ulong *)at = 0;
        protect(at, segment->pages, segment->prot);
    }
}

static void move_pieces(void)
{
    for (ulong i = 0; i < SEGMENTS; i++) {
        ulong offset = segments[i].page * PAGE_SIZE, len = segments[i].pages * PAGE_SIZE;

        checked("mremap", mremap(FROM + offset, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, TO + offset));
    }
}

/* All pages but the two that hold code and counter must be as they were loaded, and the hole must be one. */
static ulong wrong_in(byte *image)
{
    ulong wrong = wrong_pages(image + PAGE_SIZE, 1, 4, 1);

    wrong += wrong_pages(image + (COUNTER_PAGE + 1) * PAGE_SIZE, COUNTER_PAGE + 1, 3, 1);
    for (ulong page = 5; page < COUNTER_PAGE; page++)
        wrong += guarded_load(image + page * PAGE_SIZE) >= 0;
    return wrong;
}

int main(int argc, char **argv)
{
    int in_pieces = argc == 2 && !strcmp(argv[1], "pieces");
    ulong len = IMAGE_PAGES * PAGE_SIZE;

    if (argc > 2 || (argc == 2 && !in_pieces)) {
        complain("usage: remap_multi [pieces]\n");
        return 2;
    }
    guard_install();
    load((byte *)FROM);
    print("loaded: call %lu\n", ((ulong (*)(void))FROM)());
    long moved = mremap(FROM, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, TO); /* the call */
    if (moved == -EFAULT && in_pieces)
        move_pieces();
    else if (is_error(moved))
        refused("the module cannot move", moved);
    ulong calls = ((ulong (*)(void))TO)(), wrong = wrong_in((byte *)TO);
    print("moved: call %lu, %lu wrong\n", calls, wrong);
    return calls != 2 || wrong;
}
