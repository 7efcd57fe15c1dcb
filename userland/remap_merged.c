/* A log of sealed segments that relies on the merging of areas.
 *
 *     remap_merged [SEGMENTS]     (default 8)
 *
 * Models append-only storage (event logs, string tables): a segment is mapped behind the last one, filled and made read-only.
 * When something is in the way behind the log, one mremap moves all of it to where there is room for one segment more.  The
 * program takes for granted that its segments are one area by then.
 *
 * Expected: the segments are mapped and written one after the other, each beside a neighbour that differs in protection only
 * (RMAP.md section 11, P1).
 *     breaks 2.6.6-rmap39: each segment keeps the anon_vma of its own first write, and none joins
 *     safe   everywhere else: 2.6.6 and 2.6.6-anonmm have no such test, 2.6.5-aa shares when the segment is mapped, 2.6.7 and
 *            later at its first write, one-anon-vma always
 */

#include "lib/remap.h"

#define LOG 0x320000000UL
#define SEGMENT_PAGES 4
#define SEGMENT_BYTES (SEGMENT_PAGES * PAGE_SIZE)

static byte *log = (byte *)LOG;

static void append_segment(ulong n)
{
    byte *segment = map_at(log + n * SEGMENT_BYTES, SEGMENT_PAGES, READ_WRITE);

    fill_pages(segment, 0, SEGMENT_PAGES, n);
    protect(segment, SEGMENT_PAGES, PROT_READ);
}

int main(int argc, char **argv)
{
    ulong segments = number_argument(argc, argv, 1, 8), wrong = 0;

    map_at(log + segments * SEGMENT_BYTES, 1, PROT_NONE); /* somebody else's, in the way */
    for (ulong n = 0; n < segments; n++)
        append_segment(n);
    long moved = mremap(log, segments * SEGMENT_BYTES, (segments + 1) * SEGMENT_BYTES, MREMAP_MAYMOVE, 0); /* the call */
    if (is_error(moved))
        refused("the log cannot move", moved);
    log = (byte *)moved;
    append_segment(segments);
    for (ulong n = 0; n <= segments; n++)
        wrong += wrong_pages(log + n * SEGMENT_BYTES, 0, SEGMENT_PAGES, n);
    print("%lu segments, %lu pages wrong\n", segments + 1, wrong);
    return wrong != 0;
}
