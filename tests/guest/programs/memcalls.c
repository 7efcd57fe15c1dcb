/* System calls on memory with many flags, and with most errors, at fixed addresses: for strace's eyes.
   Values that only one kernel returns are not printed by strace either, or come out as addresses. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARENA 0x200000000UL
#define PAGE 4096UL
#define AT(page) (ARENA + (page) * PAGE)

static unsigned char residency[64];

static long call(long nr, long a, long b, long c, long d, long e, long f)
{
    return syscall(nr, a, b, c, d, e, f);
}

#define MAP(page, pages, prot, flags, fd, offset) call(SYS_mmap, AT(page), (pages) * PAGE, prot, flags, fd, offset)
#define PRIVATE (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)

static void mappings(int file)
{
    for (int prot = 0; prot < 8; prot++)
        MAP(prot, 1, prot, PRIVATE, -1, 0);
    MAP(10, 2, PROT_READ | PROT_WRITE, PRIVATE | MAP_NORESERVE, -1, 0);
    MAP(12, 2, PROT_READ | PROT_WRITE, PRIVATE | MAP_GROWSDOWN, -1, 0);
    MAP(16, 2, PROT_READ | PROT_WRITE, PRIVATE | MAP_STACK, -1, 0);
    MAP(18, 2, PROT_READ | PROT_WRITE, PRIVATE | MAP_POPULATE, -1, 0);
    MAP(20, 2, PROT_READ | PROT_WRITE, PRIVATE | MAP_POPULATE | MAP_NONBLOCK, -1, 0);
    MAP(22, 2, PROT_READ | PROT_WRITE, PRIVATE | MAP_LOCKED, -1, 0);
    MAP(24, 2, PROT_READ, PRIVATE | MAP_DENYWRITE | MAP_EXECUTABLE, -1, 0);
    MAP(26, 2, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    MAP(28, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    MAP(28, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    MAP(30, 2, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0);
    MAP(32, 2, PROT_READ, MAP_SHARED | MAP_FIXED, file, PAGE);
    MAP(34, 2, PROT_READ, MAP_SHARED_VALIDATE | MAP_FIXED, file, 0);
    MAP(36, 1, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0x100000);
    /* refused */
    MAP(0, 0, PROT_READ, PRIVATE, -1, 0);
    MAP(0, 1, PROT_READ, MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    MAP(0, 1, PROT_READ, MAP_SHARED | MAP_FIXED, 99, 0);
    MAP(0, 1, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 1);
    MAP(0, 1, PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
    MAP(0, 1, PROT_READ, MAP_SHARED_VALIDATE | MAP_FIXED | 0x8000000, file, 0);
    MAP(0, 1, PROT_READ, MAP_SHARED | MAP_GROWSDOWN | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    MAP(0, 1, PROT_READ, 0, file, 0);
    MAP(0, 1, PROT_READ, MAP_SHARED_VALIDATE | MAP_FIXED | 0x80200000, file, 0);
    MAP(0, 1, PROT_READ, MAP_SHARED_VALIDATE | MAP_FIXED | MAP_SYNC, file, 0);
    MAP(0, 1, PROT_READ, MAP_SHARED_VALIDATE | MAP_FIXED | 0x4000000, file, 0);
    MAP(0, 1, PROT_READ, 7 | MAP_FIXED, file, 0);
    MAP(0, 1, 0x10 | PROT_READ, 5 | MAP_FIXED, -1, 0);
    MAP(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | 21 << 26, -1, 0);
    call(SYS_mmap, ARENA + 1, PAGE, PROT_READ, PRIVATE, -1, 0);
    call(SYS_mmap, ARENA, ~0UL, PROT_READ, PRIVATE, -1, 0);
    call(SYS_mmap, 0x7ffffffff000, 2 * PAGE, PROT_READ, PRIVATE, -1, 0);
    call(SYS_mmap, 0, 1UL << 46, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_32BIT, -1, 0);
}

static void protections(void)
{
    for (int prot = 0; prot < 8; prot++)
        call(SYS_mprotect, AT(0), 8 * PAGE, prot, 0, 0, 0);
    call(SYS_mprotect, AT(0), PAGE, PROT_READ | PROT_WRITE, 0, 0, 0);
    call(SYS_mprotect, AT(12), PAGE, PROT_READ | PROT_GROWSDOWN, 0, 0, 0);
    call(SYS_mprotect, AT(0), PAGE, PROT_READ | PROT_GROWSDOWN, 0, 0, 0);
    call(SYS_mprotect, AT(0), PAGE, PROT_READ | PROT_GROWSUP | PROT_GROWSDOWN, 0, 0, 0);
    call(SYS_mprotect, AT(0), PAGE, 0x40, 0, 0, 0);
    call(SYS_mprotect, AT(0), PAGE, PROT_READ | 0xf0, 0, 0, 0);
    call(SYS_mprotect, AT(0) + 1, PAGE, PROT_READ, 0, 0, 0);
    call(SYS_mprotect, AT(0), 0, PROT_READ, 0, 0, 0);
    call(SYS_mprotect, AT(8), 2 * PAGE, PROT_READ, 0, 0, 0);
    call(SYS_mprotect, AT(32), PAGE, PROT_WRITE, 0, 0, 0);
    call(SYS_mprotect, AT(0), PAGE, 0x1000000, 0, 0, 0);
    call(SYS_pkey_mprotect, AT(0), PAGE, PROT_READ | PROT_WRITE, -1, 0, 0);
}

static void moves(void)
{
    call(SYS_mremap, AT(10), 2 * PAGE, PAGE, 0, 0, 0);
    call(SYS_mremap, AT(16), 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, AT(40), 0);
    call(SYS_mremap, AT(40), 2 * PAGE, 3 * PAGE, 0, 0, 0);
    call(SYS_mremap, AT(18), 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, AT(50), 0);
    call(SYS_mremap, AT(18), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0, 0);
    call(SYS_mremap, AT(26), 0, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, AT(60), 0);
    /* refused */
    call(SYS_mremap, AT(0) + 1, PAGE, PAGE, 0, 0, 0);
    call(SYS_mremap, AT(0), PAGE, 0, 0, 0, 0);
    call(SYS_mremap, AT(0), PAGE, PAGE, 0x10, 0, 0);
    call(SYS_mremap, AT(0), PAGE, PAGE, MREMAP_FIXED, AT(60), 0);
    call(SYS_mremap, AT(0), PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, AT(1), 0);
    call(SYS_mremap, AT(0), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, AT(60) + 5, 0);
    call(SYS_mremap, AT(0), PAGE, PAGE, 0xf0 | MREMAP_MAYMOVE, 0, 0);
    call(SYS_mremap, AT(100), PAGE, PAGE, 0, 0, 0);
    call(SYS_mremap, AT(0), PAGE, 2 * PAGE, 0, 0, 0);
    call(SYS_mremap, AT(0), 0, PAGE, MREMAP_MAYMOVE, 0, 0);
}

static void advice(void)
{
    static const int known[] = {0, 1, 2, 3, 4, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23};
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
        call(SYS_madvise, AT(0), PAGE, known[i], 0, 0, 0);
    call(SYS_madvise, AT(0), PAGE, 77, 0, 0, 0);
    call(SYS_madvise, AT(0), PAGE, -1, 0, 0, 0);
    call(SYS_madvise, AT(0) + 1, PAGE, MADV_DONTNEED, 0, 0, 0);
    call(SYS_madvise, AT(100), PAGE, MADV_DONTNEED, 0, 0, 0);
    call(SYS_madvise, AT(22), PAGE, MADV_DONTNEED, 0, 0, 0);
    call(SYS_madvise, AT(0), ~0UL, MADV_NORMAL, 0, 0, 0);
    call(SYS_madvise, AT(0), 0, MADV_NORMAL, 0, 0, 0);
}

static void locks(void)
{
    call(SYS_mlock, AT(0), PAGE, 0, 0, 0, 0);
    call(SYS_mlock, AT(0) + 100, PAGE, 0, 0, 0, 0);
    call(SYS_mlock, AT(100), PAGE, 0, 0, 0, 0);
    call(SYS_mlock2, AT(0), PAGE, 1, 0, 0, 0);
    call(SYS_mlock2, AT(0), PAGE, 0, 0, 0, 0);
    call(SYS_mlock2, AT(0), PAGE, 6, 0, 0, 0);
    call(SYS_munlock, AT(0), PAGE, 0, 0, 0, 0);
    call(SYS_munlock, AT(100), PAGE, 0, 0, 0, 0);
    call(SYS_mlockall, 0, 0, 0, 0, 0, 0);
    call(SYS_mlockall, MCL_ONFAULT, 0, 0, 0, 0, 0);
    call(SYS_mlockall, MCL_CURRENT | MCL_ONFAULT | 8, 0, 0, 0, 0, 0);
    call(SYS_mlockall, MCL_FUTURE | MCL_ONFAULT, 0, 0, 0, 0, 0);
    call(SYS_munlockall, 0, 0, 0, 0, 0, 0);
}

static void syncs(void)
{
    call(SYS_msync, AT(32), PAGE, MS_SYNC, 0, 0, 0);
    call(SYS_msync, AT(32), PAGE, MS_ASYNC | MS_INVALIDATE, 0, 0, 0);
    call(SYS_msync, AT(32), PAGE, 0, 0, 0, 0);
    call(SYS_msync, AT(32), PAGE, MS_SYNC | MS_ASYNC, 0, 0, 0);
    call(SYS_msync, AT(32), PAGE, 0x40, 0, 0, 0);
    call(SYS_msync, AT(32) + 1, PAGE, MS_SYNC, 0, 0, 0);
    call(SYS_msync, AT(100), PAGE, MS_SYNC, 0, 0, 0);
    call(SYS_msync, AT(32), 0, MS_SYNC, 0, 0, 0);
}

static void residencies(void)
{
    *(volatile char *)AT(28) = 1;
    call(SYS_mincore, AT(28), 2 * PAGE, (long)residency, 0, 0, 0);
    call(SYS_mincore, AT(28), 1, (long)residency, 0, 0, 0);
    call(SYS_mincore, AT(28), 0, (long)residency, 0, 0, 0);
    call(SYS_mincore, AT(28) + 1, PAGE, (long)residency, 0, 0, 0);
    call(SYS_mincore, AT(100), PAGE, (long)residency, 0, 0, 0);
    call(SYS_mincore, AT(28), PAGE, 1, 0, 0, 0);
    call(SYS_mincore, AT(28), ~0UL, (long)residency, 0, 0, 0);
}

static void breaks(void)
{
    long end = call(SYS_brk, 0, 0, 0, 0, 0, 0);
    call(SYS_brk, end + PAGE, 0, 0, 0, 0, 0);
    call(SYS_brk, end + 10, 0, 0, 0, 0, 0);
    call(SYS_brk, 1, 0, 0, 0, 0, 0);
    call(SYS_brk, end, 0, 0, 0, 0, 0);
}

static void rest(void)
{
    call(SYS_remap_file_pages, AT(34), PAGE, 0, 1, 0, 0);
    call(SYS_remap_file_pages, AT(34), PAGE, PROT_READ, 0, MAP_NONBLOCK, 0);
    call(SYS_munmap, AT(30), 2 * PAGE, 0, 0, 0, 0);
    call(SYS_munmap, AT(100), PAGE, 0, 0, 0, 0);
    call(SYS_munmap, AT(0), 0, 0, 0, 0, 0);
    call(SYS_munmap, AT(0) + 7, PAGE, 0, 0, 0, 0);
    call(SYS_munmap, AT(0), ~0UL, 0, 0, 0, 0);
    call(SYS_munmap, ~0xfffUL, PAGE, 0, 0, 0, 0);
    call(SYS_munmap, AT(0), 64 * PAGE, 0, 0, 0, 0);
}

int main(int argc, char **argv)
{
    (void)argc;
    int file = open(argv[0], O_RDONLY);
    mappings(file);
    protections();
    moves();
    advice();
    locks();
    syncs();
    residencies();
    breaks();
    rest();
    return 0;
}
