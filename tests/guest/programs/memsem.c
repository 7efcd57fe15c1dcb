/* Memory: what each call means, one line a probe.  Contents and errors only, no addresses. */
#include "probe.h"
#include <sys/resource.h>

#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

static char *anon(int pages)
{
    char *p = mmap(NULL, pages * PAGE, RW, ANON, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    return p;
}

static char *shared(int pages)
{
    char *p = mmap(NULL, pages * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    return p;
}

/* Where a call put something, relative to an address; the error if it failed. */
static void place(const char *what, void *result, void *base)
{
    if (result == MAP_FAILED)
        SAY("%s: %s\n", what, strerrorname_np(errno));
    else
        SAY("%s: %s\n", what, result == base ? "there" : "elsewhere");
}

/* '1' resident, '0' not, for each page. */
static void resident(const char *what, void *p, int pages)
{
    unsigned char vector[64];
    char text[65] = "";
    if (mincore(p, pages * PAGE, vector) < 0) {
        SAY("%s: %s\n", what, strerrorname_np(errno));
        return;
    }
    for (int i = 0; i < pages; i++)
        text[i] = '0' + (vector[i] & 1);
    SAY("%s: %s\n", what, text);
}

static int areas(void *from, int pages)
{
    FILE *f = fopen("/proc/self/maps", "r");
    unsigned long start, end;
    int n = 0;
    char line[4400];
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start < (unsigned long)from + pages * PAGE && end > (unsigned long)from)
            n++;
    fclose(f);
    return n;
}

static long status_kb(const char *key)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[200];
    long value = -1;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)))
            value = atol(line + strlen(key));
    fclose(f);
    return value;
}

static long smaps_kb(void *address, const char *key)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[4400];
    unsigned long start, end;
    long value = -1;
    int inside = 0;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            inside = (unsigned long)address >= start && (unsigned long)address < end;
        else if (inside && !strncmp(line, key, strlen(key)))
            value = atol(line + strlen(key));
    }
    fclose(f);
    return value;
}

int main(void)
{
    char *p, *q;
    probe_catch_faults();

    /* mmap */
    p = anon(4);
    SAY("fresh memory reads %d %d\n", peek(p), peek(p + 3 * PAGE));
    NAMED("length 0", mmap(NULL, 0, RW, ANON, -1, 0) == MAP_FAILED ? -1 : 0);
    NAMED("odd fixed address", mmap(p + 1, PAGE, RW, ANON | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    NAMED("fixed beyond user space", mmap((void *)0x800000000000, PAGE, RW, ANON | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    /* the last page is free or the stack's: not to be replaced */
    NAMED("the last page", mmap((void *)0x7fffffffe000, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED && errno != EEXIST ? -1 : 0);
    NAMED("one page more", mmap((void *)0x7ffffffff000, PAGE, RW, ANON | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    NAMED("no type", mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    NAMED("both types mean validate", mmap(NULL, PAGE, RW, MAP_SHARED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    NAMED("anonymous with a descriptor", mmap(NULL, PAGE, RW, ANON, 999, 0) == MAP_FAILED ? -1 : 0);
    NAMED("anonymous with an odd offset", mmap(NULL, PAGE, RW, ANON, -1, 7) == MAP_FAILED ? -1 : 0);
    NAMED("private unknown flag ignored", mmap(NULL, PAGE, RW, ANON | 0x4000000, -1, 0) == MAP_FAILED ? -1 : 0);
    NAMED("validated unknown flag", mmap(NULL, PAGE, RW, MAP_SHARED_VALIDATE | MAP_ANONYMOUS | 0x4000000, -1, 0) == MAP_FAILED ? -1 : 0);
    p = anon(10);
    munmap(p, 10 * PAGE);
    place("hint to a free place", mmap(p + 5 * PAGE, PAGE, RW, ANON, -1, 0), p + 5 * PAGE);
    place("hint to a taken place", mmap(p + 5 * PAGE, PAGE, RW, ANON, -1, 0), p + 5 * PAGE);
    place("odd hint is rounded", mmap(p + 2 * PAGE + 5, PAGE, RW, ANON, -1, 0), p + 2 * PAGE);
    place("noreplace on a taken place", mmap(p + 5 * PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), p + 5 * PAGE);
    place("noreplace on a free place", mmap(p + 7 * PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0), p + 7 * PAGE);
    munmap(p, 10 * PAGE);
    SAY("32 bit %d\n", mmap(NULL, PAGE, RW, ANON | MAP_32BIT, -1, 0) < (void *)0x80000000UL);
    NAMED("page 0", mmap(NULL, PAGE, RW, ANON | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0);
    munmap(NULL, PAGE);
    p = anon(3);
    memset(p, 'a', 3 * PAGE);
    place("fixed replaces", mmap(p + PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0), p + PAGE);
    SAY("the middle is fresh %d %d %d\n", p[0], p[PAGE], p[2 * PAGE]);
    q = mmap(NULL, 4 * PAGE, RW, ANON | MAP_POPULATE, -1, 0);
    resident("populated", q, 4);
    resident("not populated", anon(4), 4);
    resident("populated read-only", mmap(NULL, 2 * PAGE, PROT_READ, ANON | MAP_POPULATE, -1, 0), 2);
    resident("populated none", mmap(NULL, 2 * PAGE, PROT_NONE, ANON | MAP_POPULATE, -1, 0), 2);

    /* munmap */
    p = anon(6);
    PROBE(munmap(p + 2 * PAGE, PAGE));
    PROBE(munmap(p, 6 * PAGE));
    PROBE(munmap(p, 6 * PAGE));
    PROBE(munmap(p + 1, PAGE));
    PROBE(munmap(p, 0));
    PROBE(munmap(p, -PAGE));
    PROBE(munmap((void *)0x800000000000, PAGE));
    p = anon(2);
    PROBE(munmap(p, 1));
    SAY("a byte unmaps its page %d %d\n", peek(p), peek(p + PAGE));

    /* mprotect */
    p = anon(4);
    memset(p, 'x', 4 * PAGE);
    PROBE(mprotect(p + PAGE, PAGE, PROT_NONE));
    SAY("areas %d\n", areas(p, 4));
    SAY("none: read %d write %d", peek(p + PAGE), poke(p + PAGE, 1));
    SAY(" code %d\n", probe_code);
    PROBE(mprotect(p + PAGE, PAGE, PROT_READ));
    SAY("read-only: read %d write %d\n", peek(p + PAGE), poke(p + PAGE, 1));
    PROBE(mprotect(p + PAGE, PAGE, PROT_WRITE));
    SAY("write-only: read %d write %d\n", peek(p + PAGE), poke(p + PAGE, 1));
    PROBE(mprotect(p + PAGE, PAGE, RW));
    SAY("contents %d, areas %d\n", peek(p + PAGE + 1), areas(p, 4));
    munmap(p + 2 * PAGE, PAGE);
    PROBE(mprotect(p, 4 * PAGE, PROT_READ));
    SAY("up to the hole %d %d\n", poke(p, 1), poke(p + 3 * PAGE, 1));
    PROBE(mprotect(p + 2 * PAGE, PAGE, PROT_READ));
    PROBE(mprotect(p + 1, PAGE, PROT_READ));
    PROBE(mprotect(p, 0, PROT_READ));
    PROBE(mprotect(p + 2 * PAGE, 0, PROT_READ));
    PROBE(mprotect(p, PAGE, 0x100));
    PROBE(mprotect(p, -PAGE, PROT_READ));
    PROBE(mprotect(p, PAGE, PROT_READ | PROT_GROWSDOWN));
    PROBE(mprotect(p, PAGE, PROT_READ | PROT_GROWSDOWN | PROT_GROWSUP));
    unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
    p = anon(1);
    memcpy(p, code, sizeof code);
    if (sigsetjmp(probe_jump, 1))
        SAY("no execution: signal %d code %d at the start %d\n", probe_signal, probe_code, probe_address == p);
    else
        SAY("executed %d\n", ((int (*)(void))p)());
    mprotect(p, PAGE, PROT_READ | PROT_EXEC);
    SAY("executed %d\n", ((int (*)(void))p)());
    mprotect(p, PAGE, RW);
    p[1] = 43;
    mprotect(p, PAGE, PROT_READ | PROT_EXEC);
    SAY("changed and executed %d\n", ((int (*)(void))p)());
    p = mmap(NULL, PAGE, RW | PROT_EXEC, ANON, -1, 0);
    int sum = 0;
    for (int i = 0; i < 100; i++) {
        memcpy(p, code, sizeof code);
        p[1] = i;
        sum += ((int (*)(void))p)();
    }
    SAY("rewritten and executed, sum %d\n", sum);
    munmap(p, PAGE);
    q = mmap(p, PAGE, RW | PROT_EXEC, ANON | MAP_FIXED, -1, 0);
    memcpy(q, code, sizeof code);
    SAY("new page at the same address %d\n", ((int (*)(void))q)());

    /* copy on write */
    p = anon(4);
    strcpy(p, "parent");
    IN_CHILD("child's copy", strcpy(p, "child"); SAY("child reads %s\n", p));
    SAY("parent reads %s\n", p);
    IN_CHILD("parent's writes", SAY("%s %d\n", p, peek(p + PAGE)));
    q = shared(2);
    IN_CHILD("shared", strcpy(q, "both"));
    SAY("parent reads %s\n", q);
    IN_CHILD("unmapped in the child", munmap(p, 4 * PAGE); SAY("%d\n", peek(p)));
    SAY("still here %s\n", p);
    pid_t child = fork();
    if (child == 0) {
        usleep(10000);
        _exit(strcmp(p, "parent") != 0);
    }
    strcpy(p, "changed");
    int status;
    waitpid(child, &status, 0);
    show_status("child kept the old page", status);
    for (int i = 0; i < 3; i++) {
        IN_CHILD("generation", p[0] += 1; IN_CHILD("grandchild", p[0] += 1; SAY("%c\n", p[0])); SAY("%c\n", p[0]));
    }
    SAY("first byte %c\n", p[0]);

    /* mremap */
    p = anon(4);
    for (int i = 0; i < 4; i++)
        p[i * PAGE] = 'a' + i;
    munmap(p + 3 * PAGE, PAGE);
    place("grow in place", mremap(p, 3 * PAGE, 4 * PAGE, 0), p);
    SAY("the new page %d\n", peek(p + 3 * PAGE));
    place("shrink", mremap(p, 4 * PAGE, 2 * PAGE, 0), p);
    SAY("the rest is gone %d\n", peek(p + 2 * PAGE));
    mmap(p + 2 * PAGE, PAGE, PROT_READ, ANON | MAP_FIXED, -1, 0);
    place("cannot grow", mremap(p, 2 * PAGE, 3 * PAGE, 0), p);
    q = mremap(p, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE);
    place("moves to grow", q, p);
    SAY("contents %c%c%d, the old place %d\n", q[0], q[PAGE], q[2 * PAGE], peek(p));
    p = anon(8);
    place("move to a place", mremap(q, 3 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGE), p + PAGE);
    SAY("contents %d %c %c\n", p[0], p[PAGE], p[2 * PAGE]);
    place("overlap", mremap(p, 3 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 2 * PAGE), p);
    place("fixed alone", mremap(p, PAGE, PAGE, MREMAP_FIXED, p + 4 * PAGE), p);
    place("odd target", mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p + 4 * PAGE + 1), p);
    place("odd address", mremap(p + 1, PAGE, PAGE, MREMAP_MAYMOVE), p);
    place("new length 0", mremap(p, PAGE, 0, MREMAP_MAYMOVE), p);
    place("unknown flag", mremap(p, PAGE, PAGE, 64), p);
    munmap(p, 8 * PAGE);
    place("nothing there", mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE), p);
    p = anon(4);
    mprotect(p + PAGE, PAGE, PROT_READ);
    place("grow over two areas", mremap(p, 4 * PAGE, 5 * PAGE, MREMAP_MAYMOVE), p);
    place("old length 0, private", mremap(p, 0, PAGE, MREMAP_MAYMOVE), p);
    q = shared(2);
    strcpy(q, "twice");
    p = mremap(q, 0, 2 * PAGE, MREMAP_MAYMOVE);
    place("old length 0, shared", p, q);
    strcpy(q, "again");
    SAY("the duplicate reads %s\n", p);
    p = anon(2);
    strcpy(p, "left");
    q = mremap(p, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    place("dontunmap", q, p);
    SAY("moved %s, the old place reads %d\n", q, peek(p));
    place("dontunmap, another size", mremap(p, 2 * PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL), p);

    /* madvise */
    p = anon(4);
    memset(p, 'z', 4 * PAGE);
    PROBE(madvise(p, PAGE, MADV_DONTNEED));
    SAY("dropped %d %d\n", p[0], p[PAGE]);
    PROBE(madvise(p + PAGE, 2 * PAGE, MADV_FREE));
    p[PAGE] = 'k';
    SAY("written after free: kept %d, the rest is old or zero %d\n", p[PAGE] == 'k', p[2 * PAGE] == 'z' || p[2 * PAGE] == 0);
    PROBE(madvise(p, 4 * PAGE, MADV_NORMAL));
    PROBE(madvise(p, 4 * PAGE, MADV_SEQUENTIAL));
    PROBE(madvise(p, 4 * PAGE, MADV_WILLNEED));
    PROBE(madvise(p, 4 * PAGE, MADV_COLD));
    PROBE(madvise(p, 4 * PAGE, MADV_PAGEOUT));
    SAY("still %c\n", p[3 * PAGE]);
    PROBE(madvise(p + 1, PAGE, MADV_DONTNEED));
    PROBE(madvise(p, 0, MADV_DONTNEED));
    PROBE(madvise(p, PAGE, 12345));
    PROBE(madvise(p, -PAGE, MADV_DONTNEED));
    munmap(p + PAGE, PAGE);
    PROBE(madvise(p, 4 * PAGE, MADV_DONTNEED));
    SAY("behind the hole too %d\n", p[3 * PAGE]);
    p = anon(3);
    PROBE(madvise(p, 3 * PAGE, MADV_POPULATE_WRITE));
    resident("populate write", p, 3);
    mprotect(p + PAGE, PAGE, PROT_READ);
    PROBE(madvise(p, 3 * PAGE, MADV_POPULATE_WRITE));
    PROBE(madvise(p, 3 * PAGE, MADV_POPULATE_READ));
    munmap(p + 2 * PAGE, PAGE);
    PROBE(madvise(p, 3 * PAGE, MADV_POPULATE_READ));
    q = shared(2);
    strcpy(q, "kept");
    PROBE(madvise(q, 2 * PAGE, MADV_DONTNEED));
    SAY("shared memory keeps %s\n", q);
    PROBE(madvise(q, 2 * PAGE, MADV_FREE));
    PROBE(madvise(q, PAGE, MADV_REMOVE));
    SAY("removed %d\n", q[0]);
    PROBE(madvise(p, PAGE, MADV_REMOVE));
    p = anon(2);
    strcpy(p, "secret");
    PROBE(madvise(p, PAGE, MADV_WIPEONFORK));
    PROBE(madvise(q, PAGE, MADV_WIPEONFORK));
    IN_CHILD("wiped", SAY("%d\n", p[0]));
    PROBE(madvise(p, PAGE, MADV_KEEPONFORK));
    PROBE(madvise(p, PAGE, MADV_DONTFORK));
    IN_CHILD("not inherited", SAY("%d\n", peek(p)));
    PROBE(madvise(p, PAGE, MADV_DOFORK));
    IN_CHILD("inherited", SAY("%s\n", p));

    /* mincore */
    p = anon(4);
    p[PAGE] = 1;
    resident("touched the second", p, 4);
    peek(p + 2 * PAGE);
    resident("read the third", p, 4);
    munmap(p + 3 * PAGE, PAGE);
    resident("with a hole", p, 4);
    NAMED("odd address", mincore(p + 1, PAGE, (unsigned char *)code));

    /* mlock */
    p = anon(4);
    PROBE(mlock(p, 2 * PAGE));
    resident("locked", p, 4);
    SAY("VmLck %ld\n", status_kb("VmLck:"));
    PROBE(madvise(p, PAGE, MADV_DONTNEED));
    PROBE(mlock(p + PAGE + 100, 10));
    PROBE(munlock(p, 4 * PAGE));
    SAY("VmLck %ld\n", status_kb("VmLck:"));
    munmap(p + 3 * PAGE, PAGE);
    PROBE(mlock(p, 4 * PAGE));
    SAY("up to the hole %ld\n", status_kb("VmLck:"));
    PROBE(munlock(p, 3 * PAGE));
    PROBE(mlock2(p, PAGE, 99));
    PROBE(mlock2(p, 3 * PAGE, MLOCK_ONFAULT));
    IN_CHILD("locks are not inherited", SAY("%ld\n", status_kb("VmLck:")));
    PROBE(munlockall());
    PROBE(mlockall(0));
    PROBE(mlockall(MCL_ONFAULT));
    PROBE(mlockall(MCL_FUTURE));
    p = anon(2);
    resident("mapped after MCL_FUTURE", p, 2);
    PROBE(munlockall());
    SAY("VmLck %ld\n", status_kb("VmLck:"));

    /* brk */
    char *heap = sbrk(0);
    PROBE(brk(heap + 3 * PAGE));
    heap[2 * PAGE] = 'h';
    PROBE(brk(heap));
    SAY("released %d\n", peek((char *)(((unsigned long)heap + 2 * PAGE) & -PAGE)));
    PROBE(brk(heap + 3 * PAGE));
    SAY("fresh again %d\n", peek((char *)(((unsigned long)heap + 2 * PAGE) & -PAGE)));
    PROBE(brk(heap));
    PROBE(brk((char *)0x10000));
    SAY("unchanged %d\n", sbrk(0) == heap);

    /* counters */
    p = anon(16);
    memset(p, 1, 8 * PAGE);
    SAY("smaps of half touched: %d %d %ld\n", smaps_kb(p, "Size:") >= 64, smaps_kb(p, "Anonymous:") >= 32, smaps_kb(p, "Swap:"));
    q = shared(4);
    memset(q, 1, 2 * PAGE);
    SAY("shared: size %ld rss %ld pss %ld\n", smaps_kb(q, "Size:"), smaps_kb(q, "Rss:"), smaps_kb(q, "Pss:"));
    IN_CHILD("in two processes", peek(q); peek(q + PAGE); SAY("pss %ld\n", smaps_kb(q, "Pss:")));
    SAY("status: %d %d %d\n", status_kb("VmPeak:") >= status_kb("VmSize:"), status_kb("VmHWM:") >= status_kb("VmRSS:"), status_kb("VmStk:") > 0);

    /* areas that merge and split */
    p = anon(8);
    SAY("one %d\n", areas(p, 8));
    mprotect(p + 2 * PAGE, PAGE, PROT_READ);
    SAY("three %d\n", areas(p, 8));
    mprotect(p + 3 * PAGE, PAGE, PROT_READ);
    SAY("still three %d\n", areas(p, 8));
    mprotect(p + 2 * PAGE, 2 * PAGE, RW);
    SAY("one %d\n", areas(p, 8));
    madvise(p + 4 * PAGE, PAGE, MADV_DONTDUMP);
    SAY("split by advice %d\n", areas(p, 8));
    madvise(p + 4 * PAGE, PAGE, MADV_DODUMP);
    munmap(p + 4 * PAGE, PAGE);
    mmap(p + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0);
    SAY("refilled %d\n", areas(p, 8));
    mmap(p + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED | MAP_NORESERVE, -1, 0);
    SAY("with noreserve %d\n", areas(p, 8));

    /* the process's own memory by other roads */
    p = anon(2);
    strcpy(p, "by proc");
    char buffer[16] = "";
    int fd = open("/proc/self/mem", O_RDWR);
    NAMED("read /proc/self/mem", pread(fd, buffer, 8, (off_t)p));
    SAY("%s\n", buffer);
    NAMED("write /proc/self/mem", pwrite(fd, "BY", 2, (off_t)p));
    SAY("%s\n", p);
    munmap(p, PAGE);
    NAMED("read a hole", pread(fd, buffer, 8, (off_t)p));
    uint64_t entry[2] = { 0 };
    p = anon(2);
    p[0] = 1;
    fd = open("/proc/self/pagemap", O_RDONLY);
    NAMED("pagemap", pread(fd, entry, 16, (off_t)((unsigned long)p / PAGE * 8)));
    SAY("present %d %d, swapped %d\n", (int)(entry[0] >> 63), (int)(entry[1] >> 63), (int)(entry[0] >> 62 & 1));
    return 0;
}
