/* The kinds of page fault, one function each: what `make demo` traces.
 *
 *     pagewalk trace -e faults -- images/faults
 *
 * Run natively it prints the same lines; only the trace shows what the kernel did for them. */

#include "lib/sys.h"

/* A read of anonymous memory that nobody wrote: the zero page, read-only and shared by everybody. */
static int read_untouched(const volatile byte *page)
{
    return page[0];
}

/* A first write: a new page of our own. */
static void write_anonymous(volatile byte *page, int value)
{
    page[0] = value;
}

/* A write to a page that parent and child share since the fork: the writer gets a copy. */
static void write_after_fork(volatile byte *page, int value)
{
    page[1] = value;
}

/* A read through a file mapping: the page cache's own page. */
static int read_file(const volatile byte *mapping)
{
    return mapping[1];
}

/* A write through a private file mapping: a copy of the page cache's page. */
static void write_private_file(volatile byte *mapping, int value)
{
    mapping[1] = value;
}

/* A write through a shared mapping: the page that the child sees too. */
static void write_shared(volatile byte *page, int value)
{
    page[0] = value;
}

/* Every call touches one more page of stack, until the area has to grow downwards. */
static int grow_stack(int pages)
{
    volatile byte frame[PAGE_SIZE];

    frame[0] = pages;
    return pages ? grow_stack(pages - 1) + frame[0] : 0;
}

int main(int argc, char **argv)
{
    byte *anonymous = map_anonymous(4 * PAGE_SIZE, PROT_READ | PROT_WRITE);
    byte *shared = map_shared(PAGE_SIZE);
    int status;

    (void)argc;
    print("zero page      %d\n", read_untouched(anonymous));
    write_anonymous(anonymous, 17);
    write_anonymous(anonymous + PAGE_SIZE, 18);
    print("anonymous      %d %d\n", anonymous[0], anonymous[PAGE_SIZE]);

    int fd = checked(argv[0], sys_open(argv[0], O_RDONLY, 0));
    byte *file = (byte *)checked("mmap", sys_mmap(0, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
    print("file           %c%c%c\n", read_file(file), file[2], file[3]);
    write_private_file(file, 'e');
    print("private file   %c%c%c\n", file[1], file[2], file[3]);
    print("stack          %d\n", grow_stack(40));

    int child = checked("fork", fork_flushed());
    if (!child) {
        write_after_fork(anonymous, 19);
        write_shared(shared, anonymous[0] + anonymous[1]);
        quit(0);
    }
    checked("wait4", sys_wait4(child, &status, 0));
    print("after fork     %d, the child says %d\n", anonymous[1], shared[0]);
    write_after_fork(anonymous, 20);    /* nobody shares it any more: taken over, not copied */
    print("reused         %d\n", anonymous[1]);
    return 0;
}
