/* Memory pressure: a file mapped privately and half written, the same file mapped shared and written by a child.
 *
 *     mem_file [MIB [PATH]]       PATH (default ./mem_file.data) is made and removed */

#include "lib/pattern.h"

int main(int argc, char **argv)
{
    ulong pages = number_argument(argc, argv, 1, 16) * PAGES_PER_MIB, wrong = 0;
    const char *path = argc > 2 ? argv[2] : "mem_file.data";
    byte *buffer = map_anonymous(PAGE_SIZE, PROT_READ | PROT_WRITE);
    int fd = checked(path, sys_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));

    sys_unlink(path);
    for (ulong page = 0; page < pages; page++) {
        fill_pages(buffer, page, 1, 0);
        checked("write", sys_write(fd, buffer, PAGE_SIZE));
    }
    byte *private = (byte *)checked("mmap", sys_mmap(0, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    byte *shared = (byte *)checked("mmap", sys_mmap(0, pages * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));

    for (ulong page = 0; page < pages; page += 2)
        fill_pages(private + page * PAGE_SIZE, page, 1, 1);
    for (ulong page = 0; page < pages; page++)
        wrong += wrong_pages(private + page * PAGE_SIZE, page, 1, page % 2 ? 0 : 1);
    wrong += wrong_pages(shared, 0, pages, 0); /* the private writes are not in the file */

    int child = checked("fork", fork_flushed());
    if (!child) {
        for (ulong page = 0; page < pages; page += 4)
            fill_pages(shared + page * PAGE_SIZE, page, 1, 2);
        quit(0);
    }
    wrong += wait_for(child);
    for (ulong page = 0; page < pages; page++) {
        ulong in_file = page % 4 ? 0 : 2;

        wrong += wrong_pages(shared + page * PAGE_SIZE, page, 1, in_file);
        checked("pread64", sys_pread(fd, buffer, PAGE_SIZE, page * PAGE_SIZE));
        wrong += wrong_pages(buffer, page, 1, in_file);
        wrong += wrong_pages(private + page * PAGE_SIZE, page, 1, page % 2 ? 0 : 1);
    }
    checked("msync", SYSCALL(__NR_msync, shared, pages * PAGE_SIZE, MS_SYNC));
    checked("ftruncate", sys_ftruncate(fd, PAGE_SIZE));
    wrong += wrong_pages(private, 0, 1, 1);
    checked("ftruncate", sys_ftruncate(fd, pages * PAGE_SIZE));
    for (ulong page = 1; page < pages; page++) /* truncation took the private copies too; what grows back is zero */
        wrong += private[page * PAGE_SIZE] != 0;
    return verdict("file", wrong);
}
