/* Every way of going from one instruction to another, without a C library: loops of one block, repeated string
   instructions (of no, one and many rounds, with page faults between the rounds), calls, faults that are served, a fault
   that becomes a signal whose handler repairs it, code that changes itself, a system call that fails, fork. */
typedef unsigned long word;

static long call(long nr, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long ret;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

enum { MMAP = 9, MPROTECT = 10, MUNMAP = 11, SIGACTION = 13, FORK = 57, WAIT4 = 61, EXIT_GROUP = 231 };

static volatile unsigned char *closed;

__attribute__((used, naked)) static void restorer(void)
{
    __asm__("mov $15, %eax\n syscall");
}

static void repair(int signal)
{
    call(MPROTECT, (long)closed, 4096, 3, 0, 0, 0);
    (void)signal;
}

static void repeat(void *to, const void *from, word count)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static word find_zero(const void *from, word count)
{
    __asm__ volatile("repne scasb" : "+D"(from), "+c"(count) : "a"(0) : "memory", "cc");
    return count;
}

__attribute__((noinline)) static word sum(word n)
{
    word total = 0;
    for (word i = 0; i < n; i++)
        __asm__ volatile("add %1, %0" : "+r"(total) : "r"(i));
    return total;
}

__attribute__((noinline)) static word depth(word n)
{
    return n ? depth(n - 1) + sum(n) : 1;
}

/* nop; mov byte [rip + 1], 2; mov eax, 1; nop; ret: the second instruction changes the third */
static const unsigned char changing[] = {0x90, 0xc6, 5, 1, 0, 0, 0, 2, 0xb8, 1, 0, 0, 0, 0x90, 0xc3};

static void change(void)
{
    void *page = (void *)call(MMAP, 0x300000000, 4096, 7, 0x32, -1, 0);
    repeat(page, changing, sizeof changing);
    ((void (*)(void))page)();
    ((void (*)(void))page)();
}

struct action { void (*handler)(int); word flags; void (*restorer)(void); word mask; };

__attribute__((used)) void run(void)
{
    unsigned char *page = (unsigned char *)call(MMAP, 0, 5 * 4096, 3, 0x22, -1, 0);
    page[0] = 1;                                       /* a served fault */
    repeat(page + 4090, page, 2 * 4096);               /* faults in the middle of a repeated instruction */
    repeat(page, page + 8, 0);
    repeat(page, page + 8, 1);
    word left = find_zero(page + 1, 4096);
    struct action action = {repair, 0x04000000, restorer, 0};
    call(SIGACTION, 11, (long)&action, 0, 8, 0, 0);
    closed = page + 3 * 4096;
    call(MPROTECT, (long)closed, 4096, 0, 0, 0, 0);
    closed[5] = 7;                                     /* SIGSEGV; the handler opens the page */
    change();
    call(MUNMAP, 1, 1, 0, 0, 0, 0);
    long child = call(FORK, 0, 0, 0, 0, 0, 0);
    if (child == 0)
        call(EXIT_GROUP, (long)(depth(3) & 1), 0, 0, 0, 0, 0);
    call(WAIT4, child, 0, 0, 0, 0, 0);
    call(EXIT_GROUP, (long)(depth(5) + left) & 63, 0, 0, 0, 0, 0);
}

__attribute__((naked)) void _start(void)
{
    __asm__("xor %ebp, %ebp\n call run\n hlt");
}
