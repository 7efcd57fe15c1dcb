/* Limits: address space, data, stack, file size, processes, files; over-commitment. */
#include "probe.h"
#include <sys/resource.h>
#include <sys/time.h>

static void limit(int resource, rlim_t soft)
{
    struct rlimit value;
    getrlimit(resource, &value);
    value.rlim_cur = soft;
    setrlimit(resource, &value);
}

static void try_map(const char *what, size_t size, int prot, int flags)
{
    void *p = mmap(NULL, size, prot, flags | MAP_ANONYMOUS, -1, 0);
    SAY("%s: %s\n", what, p == MAP_FAILED ? strerrorname_np(errno) : "ok");
    if (p != MAP_FAILED)
        munmap(p, size);
}

static size_t statm(int field)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long v[7];
    if (!f || fscanf(f, "%lu %lu %lu %lu %lu %lu %lu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6]) != 7)
        exit(1);
    fclose(f);
    return v[field] * PAGE;
}

static int use_stack(int kilobytes)
{
    volatile char frame[1024];
    frame[0] = kilobytes;
    return kilobytes ? use_stack(kilobytes - 1) + frame[0] : 0;
}

static void *frame_address(void) { return __builtin_frame_address(0); }

int main(void)
{
    struct rlimit value;
    size_t mib = 1 << 20;

    getrlimit(RLIMIT_STACK, &value);
    SAY("stack %lu\n", (unsigned long)value.rlim_cur);
    PROBE(getrlimit(99, &value));
    value = (struct rlimit){ 10, 5 };
    PROBE(setrlimit(RLIMIT_CORE, &value));
    PROBE(prlimit(0, RLIMIT_CORE, NULL, &value));
    PROBE(prlimit(1234567, RLIMIT_CORE, NULL, &value));

    IN_CHILD("address space", limit(RLIMIT_AS, statm(0) + 10 * mib); try_map("5 MiB", 5 * mib, PROT_NONE, MAP_PRIVATE);
             try_map("9 MiB", 9 * mib, PROT_READ, MAP_SHARED); try_map("11 MiB", 11 * mib, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
             char *p = mmap(NULL, 9 * mib, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
             NAMED("grow", mremap(p, 9 * mib, 11 * mib, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
             SAY("brk refused %d\n", sbrk(3 * mib) == (void *)-1); NAMED("mapping over itself", mmap(p, 9 * mib, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p));
    IN_CHILD("data", limit(RLIMIT_DATA, statm(5) + 4 * mib); try_map("writable 3 MiB", 3 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE);
             try_map("writable 5 MiB", 5 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE); try_map("read-only 5 MiB", 5 * mib, PROT_READ, MAP_PRIVATE);
             try_map("shared 5 MiB", 5 * mib, PROT_READ | PROT_WRITE, MAP_SHARED);
             char *p = mmap(NULL, 5 * mib, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
             PROBE(mprotect(p, 5 * mib, PROT_READ | PROT_WRITE)); PROBE(mprotect(p, 2 * mib, PROT_READ | PROT_WRITE));
             SAY("brk refused %d\n", sbrk(5 * mib) == (void *)-1));
    IN_CHILD("stack inside the limit", limit(RLIMIT_STACK, 2 * mib); SAY("%d\n", use_stack(1500) != 0));
    IN_CHILD("stack beyond the limit", limit(RLIMIT_STACK, 1 * mib); SAY("%d\n", use_stack(1500) != 0));
    IN_CHILD("stack by default", SAY("%d\n", use_stack(7000) != 0));
    IN_CHILD("stack overflow", SAY("%d\n", use_stack(9000) != 0));
    IN_CHILD("far below the stack", SAY("%d\n", *((volatile char *)frame_address() - 4 * mib)));
    IN_CHILD("below the limit", SAY("%d\n", *((volatile char *)frame_address() - 9 * mib)));
    IN_CHILD("guard gap", char *low = (char *)(((unsigned long)frame_address() - 400 * PAGE) & -PAGE);
             PROBE(mmap(low, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == low);
             SAY("near %d\n", *((volatile char *)frame_address() - 100 * PAGE)); SAY("gap %d\n", *((volatile char *)low + 200 * PAGE)));
    IN_CHILD("grows down with a gap", char *p = mmap(NULL, 600 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); munmap(p, 600 * PAGE);
             char *top = mmap(p + 590 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
             top[-1] = 1; top[-(long)PAGE * 5] = 1; SAY("grew\n"));

    IN_CHILD("file size", limit(RLIMIT_FSIZE, 5000); signal(SIGXFSZ, SIG_IGN); int fd = open("big", O_RDWR | O_CREAT | O_TRUNC, 0600);
             char *buffer = calloc(1, 4096); PROBE(write(fd, buffer, 4096)); PROBE(write(fd, buffer, 4096)); PROBE(write(fd, buffer, 4096));
             PROBE(ftruncate(fd, 6000)); PROBE(ftruncate(fd, 4999)));
    IN_CHILD("file size signal", limit(RLIMIT_FSIZE, 100); int fd = open("big", O_RDWR | O_CREAT | O_TRUNC, 0600);
             char text[200] = ""; write(fd, text, 200); write(fd, text, 200));
    IN_CHILD("descriptors", limit(RLIMIT_NOFILE, 10); int n = 0; while (dup(0) >= 0) n++; SAY("%d %s\n", n, strerrorname_np(errno)));
    IN_CHILD("processor time", limit(RLIMIT_CPU, 1); for (volatile long i = 0;; i++));
    IN_CHILD("locked memory, unprivileged", limit(RLIMIT_MEMLOCK, 4 * PAGE); if (getuid() == 0) PROBE(setuid(65534));
             char *p = mmap(NULL, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
             PROBE(mlock(p, 4 * PAGE)); PROBE(mlock(p, 5 * PAGE)); PROBE(munlock(p, PAGE)); PROBE(mlock(p + 5 * PAGE, PAGE)); PROBE(mlockall(MCL_CURRENT));
             NAMED("MAP_LOCKED", mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) == MAP_FAILED ? -1 : 0);
             NAMED("grow a locked one", mremap(p, PAGE * 4, PAGE * 6, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0));
    IN_CHILD("processes, unprivileged", limit(RLIMIT_NPROC, 0); if (getuid() == 0) PROBE(setuid(65533)); PROBE(fork()));

    /* heuristic over-commitment refuses only what can never be */
    try_map("1 GiB", 1UL << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);
    try_map("64 TiB", 1UL << 46, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    try_map("64 TiB, no reserve", 1UL << 46, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE);
    try_map("64 TiB read-only", 1UL << 46, PROT_READ, MAP_PRIVATE);
    try_map("64 TiB none", 1UL << 46, PROT_NONE, MAP_PRIVATE);
    try_map("64 TiB shared", 1UL << 46, PROT_READ | PROT_WRITE, MAP_SHARED);
    try_map("256 TiB", 1UL << 48, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
    try_map("everything", -PAGE, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
    try_map("nothing", 0, PROT_NONE, MAP_PRIVATE);
    SAY("malloc of 1 TiB %d\n", malloc(1UL << 46) != NULL);
    SAY("brk of 64 TiB refused %d\n", sbrk(1L << 46) == (void *)-1);
    return 0;
}
