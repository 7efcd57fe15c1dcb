/* Touches memory in a known order.  Each touch stands on a line of its own with a number in a comment, by which the test
   finds the line; what each must cost in faults is worked out by hand in test_pattern.py. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define ARENA ((volatile char *)0x200000000UL)
#define AT(page) (ARENA + (page) * PAGE)

static volatile char sink;
static char content[8 * PAGE];

static void map(unsigned page, unsigned nr_pages, int prot, int flags, int file, long first)
{
    if (mmap((void *)AT(page), nr_pages * PAGE, prot, flags | MAP_FIXED, file, first * (long)PAGE) != AT(page))
        exit(9);
}

static void anonymous(void)
{
    map(0, 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sink = AT(0)[0];            /* 1 */
    AT(0)[1] = 1;               /* 2 */
    AT(1)[0] = 1;               /* 3 */
    AT(1)[4095] = 1;            /* none: the page is there */
    *(volatile int *)(AT(3) - 2) = 1; /* 4 */ /* which lies on two pages */
}

static void forked(void)
{
    if (fork() == 0) {
        sink = AT(1)[0];        /* none: the page is there, read-only */
        AT(1)[0] = 2;           /* 5, in the child */
        _exit(0);
    }
    wait(NULL);
    AT(1)[0] = 3;               /* 6 */
    AT(0)[0] = 3;               /* 7 */
}

static void protected(void)
{
    mprotect((void *)AT(4), PAGE, PROT_READ);
    sink = AT(4)[0];            /* 8 */
    mprotect((void *)AT(4), PAGE, PROT_READ | PROT_WRITE);
    AT(4)[0] = 1;               /* 9 */
    mprotect((void *)AT(4), PAGE, PROT_READ);
    mprotect((void *)AT(4), PAGE, PROT_READ | PROT_WRITE);
    AT(4)[0] = 2;               /* none: nobody shares the page, so mprotect has made it writable */
}

static void thrown_away(void)
{
    madvise((void *)AT(1), PAGE, MADV_DONTNEED);
    sink = AT(1)[0];            /* 11 */
    AT(1)[0] = 1;               /* 12 */
    madvise((void *)AT(1), PAGE, MADV_DONTNEED);
    AT(1)[0] = 1;               /* 13 */
}

static void moved(void)
{
    if (mremap((void *)AT(0), 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, AT(16)) != AT(16))
        exit(9);
    AT(16)[0] = 4;              /* none: the page has come along */
    AT(18)[0] = 4;              /* 14 */
}

static void private_file(int file)
{
    map(32, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    sink = AT(32)[0];           /* 15 */
    sink = AT(33)[0];           /* none: mapped around the one before */
    AT(33)[0] = 1;              /* 16 */
    map(48, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 4);
    AT(48)[7] = 1;              /* 17 */
    sink = AT(48)[0];           /* none */
}

static void shared_file(int file)
{
    map(64, 4, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    sink = AT(66)[0];           /* 18 */
    AT(66)[0] = 1;              /* 19 */
    AT(67)[0] = 1;              /* 20 */
    map(80, 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    AT(80)[0] = 1;              /* 21 */
    sink = AT(81)[0];           /* 22 */
}

static void stack(void)
{
    volatile char *top = __builtin_frame_address(0);
    top[-(long)(300 * 1024)] = 1; /* 23 */
    top[-(long)(310 * 1024)] = 1; /* 24 */
    top[-(long)(304 * 1024)] = 1; /* 25 */
}

int main(int argc, char **argv)
{
    (void)argc;
    int file = open(argv[1], O_RDWR | O_CREAT, 0600);
    if (write(file, content, sizeof content) != sizeof content)
        return 9;
    anonymous();
    forked();
    protected();
    thrown_away();
    moved();
    private_file(file);
    shared_file(file);
    stack();
    map(96, 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    AT(96)[0] = 1;              /* 26 */
    return 0;
}
