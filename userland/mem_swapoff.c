/* Memory pressure: fills memory, takes the swap device of /proc/swaps away while pages are on it, checks, gives it back.
 *
 *     mem_swapoff [MIB] */

#include "lib/pattern.h"

/* The device of the first line after the heading; empty when there is none. */
static void find_swap(char *device, ulong room)
{
    static char text[4096];
    int fd = checked("/proc/swaps", sys_open("/proc/swaps", O_RDONLY, 0));
    long n = checked("read", sys_read(fd, text, sizeof text - 1));
    char *at = text;
    ulong length = 0;

    sys_close(fd);
    text[n] = 0;
    while (*at && *at++ != '\n')
        ;
    while (*at && *at != ' ' && *at != '\t' && length + 1 < room)
        device[length++] = *at++;
    device[length] = 0;
}

int main(int argc, char **argv)
{
    ulong pages = number_argument(argc, argv, 1, 8) * PAGES_PER_MIB, wrong = 0;
    byte *memory = map_anonymous(pages * PAGE_SIZE, PROT_READ | PROT_WRITE);
    char device[256];

    find_swap(device, sizeof device);
    if (!device[0]) {
        print("no swap\n");
        return 0;
    }
    fill_pages(memory, 0, pages, 0);
    checked("madvise", sys_madvise(memory, pages * PAGE_SIZE, MADV_PAGEOUT));
    int child = checked("fork", fork_flushed());
    if (!child) {
        wrong += wrong_pages(memory, 0, pages / 2, 0);
        fill_pages(memory, 0, pages / 2, 1);
        sys_sched_yield();
        wrong += wrong_pages(memory, 0, pages / 2, 1);
        quit(wrong != 0);
    }
    print("swapoff: %s\n", errno_name(SYSCALL(__NR_swapoff, device)));
    wrong += wrong_pages(memory, 0, pages, 0);
    wrong += wait_for(child);
    print("swapon: %s\n", errno_name(SYSCALL(__NR_swapon, device, 0)));
    checked("madvise", sys_madvise(memory, pages * PAGE_SIZE, MADV_PAGEOUT));
    wrong += wrong_pages(memory, 0, pages, 0);
    return verdict("swapoff", wrong);
}
