/* A database file that grows while it is mapped.
 *
 *     remap_db [PAGES [PATH]]     PATH (default ./remap_db.data) is made and removed
 *
 * Models sqlite with PRAGMA mmap_size: the file is mapped shared, grows by ftruncate a few pages at a time, and the mapping
 * follows by mremap with MREMAP_MAYMOVE; if that fails, it is unmapped and mapped anew (unixRemapfile).  Every page links to
 * one before it by page number, never by address.  A second process, forked half-way, follows by its own mremap.
 *
 * Expected: safe on every kernel.  A file's mapping has one area and no anon_vma. */

#include "lib/remap.h"

#define STEP 8 /* pages by which the file grows */

static int file;
static byte *mapping;
static ulong mapped; /* pages */

static void map_again(ulong pages)
{
    long moved = mremap(mapping, mapped * PAGE_SIZE, pages * PAGE_SIZE, MREMAP_MAYMOVE, 0); /* the call */

    if (is_error(moved)) {
        checked("munmap", sys_munmap(mapping, mapped * PAGE_SIZE));
        moved = checked("mmap", sys_mmap(0, pages * PAGE_SIZE, READ_WRITE, MAP_SHARED, file, 0));
    }
    mapping = (byte *)moved;
    mapped = pages;
}

/* The page before: any, found by its number. */
static ulong link_of(ulong page)
{
    return page * 7 / 11;
}

static void write_page(ulong page)
{
    fill_pages(mapping + page * PAGE_SIZE, page, 1, 0);
    *(ulong *)(mapping + page * PAGE_SIZE) = link_of(page);
}

static ulong wrong_links(ulong pages)
{
    ulong wrong = 0;

    for (ulong page = 0; page < pages; page++)
        wrong += *(ulong *)(mapping + page * PAGE_SIZE) != link_of(page);
    return wrong;
}

/* Reads the whole file past the mapping: what was written through memory must be in it. */
static ulong wrong_in_file(ulong pages)
{
    static byte on_disk[PAGE_SIZE], expected[PAGE_SIZE];
    ulong wrong = 0;

    for (ulong page = 0; page < pages; page++) {
        checked("pread64", sys_pread(file, on_disk, PAGE_SIZE, page * PAGE_SIZE));
        fill_pages(expected, page, 1, 0);
        *(ulong *)expected = link_of(page);
        wrong += memcmp(on_disk, expected, PAGE_SIZE) != 0;
    }
    return wrong;
}

/* The reader: is told by a pipe when the file is complete, then maps all of it. */
static void read_along(int told, ulong pages)
{
    byte word;

    checked("read", sys_read(told, &word, 1));
    map_again(pages);
    quit(wrong_links(pages) != 0);
}

int main(int argc, char **argv)
{
    ulong pages = number_argument(argc, argv, 1, 100), wrong;
    const char *path = argc > 2 ? argv[2] : "remap_db.data";
    int told[2], reader = 0;

    pages = (pages + STEP - 1) / STEP * STEP;
    file = checked(path, sys_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
    sys_unlink(path);
    checked("pipe", sys_pipe(told));
    checked("ftruncate", sys_ftruncate(file, STEP * PAGE_SIZE));
    mapping = (byte *)checked("mmap", sys_mmap(0, STEP * PAGE_SIZE, READ_WRITE, MAP_SHARED, file, 0));
    mapped = STEP;
    for (ulong page = 0; page < pages; page++) {
        if (page == mapped) {
            checked("ftruncate", sys_ftruncate(file, (mapped + STEP) * PAGE_SIZE));
            map_again(mapped + STEP);
        }
        write_page(page);
        if (page == pages / 2) {
            reader = checked("fork", fork_flushed());
            if (!reader)
                read_along(told[0], pages);
        }
    }
    checked("write", sys_write(told[1], "", 1));
    wrong = wrong_links(pages) + wrong_in_file(pages);
    print("%lu pages, %lu wrong\n", pages, wrong);
    int reader_wrong = wait_for(reader);
    print("second process: %s\n", reader_wrong ? "wrong" : "ok");
    return wrong || reader_wrong;
}
