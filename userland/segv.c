/* Catches SIGSEGV and SIGBUS with siginfo on an alternate stack; prints si_code and how far the fault is from the
 * page that was touched.  The last fault is a stack overflow: only the alternate stack lets its handler run. */

#include "lib/sys.h"

static byte alternate[16 * PAGE_SIZE];
static byte *base;
static const char *expected;

static void report(int signal, siginfo_t *info, void *context)
{
    struct sigcontext *registers = (void *)&((struct ucontext *)context)->uc_mcontext;
    ulong here = (ulong)__builtin_frame_address(0);
    int on_alternate = here >= (ulong)alternate && here < (ulong)alternate + sizeof alternate;

    print("%-16s signal %d code %d", expected, signal, info->si_code);
    if ((ulong)info->si_addr - (ulong)base < 64 * PAGE_SIZE)
        print(" base+0x%lx", (ulong)info->si_addr - (ulong)base);
    print(" error %lx trap %lu alternate stack %d\n",
          (ulong)registers->err, (ulong)registers->trapno, on_alternate);
    quit(0);
}

static int overflow(int depth)
{
    volatile byte frame[512];

    frame[0] = depth;
    return overflow(depth + 1) + frame[0];
}

static void absent(void) { ((volatile byte *)base)[0x10 + PAGE_SIZE] = 1; }
static void read_only(void) { ((volatile byte *)base)[0x123] = 1; }
static void no_access(void) { print("%d\n", ((volatile byte *)base)[2 * PAGE_SIZE + 7]); }
static void not_executable(void) { ((void (*)(void))base)(); }
static void null(void) { print("%d\n", *(volatile byte *)(8UL & (ulong)base)); }
static void not_canonical(void) { print("%d\n", *(volatile byte *)0x8000000000000000UL); }
static void kernel_half(void) { print("%d\n", *(volatile byte *)0xffffffff81000000UL); }
static void beyond_file(void) { print("%d\n", ((volatile byte *)base)[5 * PAGE_SIZE]); }
static void deep_recursion(void) { print("%d\n", overflow(0)); }

static void attempt(const char *name, void (*access)(void))
{
    int status;
    int child = checked("fork", fork_flushed());

    if (!child) {
        stack_t stack = { .ss_sp = alternate, .ss_size = sizeof alternate };

        expected = name;
        checked("sigaltstack", SYSCALL(__NR_sigaltstack, &stack, 0));
        checked("rt_sigaction", catch_signal(SIGSEGV, report, SA_ONSTACK));
        checked("rt_sigaction", catch_signal(SIGBUS, report, SA_ONSTACK));
        access();
        print("%-16s no fault\n", name);
        quit(1);
    }
    checked("wait4", sys_wait4(child, &status, 0));
    if (status) {
        print("%-16s ", name);
        print_wait_status(status);
        print("\n");
    }
}

int main(void)
{
    /* base: one read-only page, a hole, a PROT_NONE page, a hole, one page of file and one beyond its end */
    base = map_anonymous(64 * PAGE_SIZE, PROT_READ);
    checked("munmap", sys_munmap(base + PAGE_SIZE, PAGE_SIZE));
    checked("mprotect", sys_mprotect(base + 2 * PAGE_SIZE, PAGE_SIZE, PROT_NONE));
    int fd = checked("memfd_create", sys_memfd_create("short", 0));
    checked("ftruncate", sys_ftruncate(fd, 100));
    checked("mmap", sys_mmap(base + 4 * PAGE_SIZE, 2 * PAGE_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0));

    attempt("absent", absent);
    attempt("read-only", read_only);
    attempt("no access", no_access);
    attempt("not executable", not_executable);
    attempt("null pointer", null);
    attempt("not canonical", not_canonical);
    attempt("kernel half", kernel_half);
    attempt("beyond the file", beyond_file);
    attempt("stack overflow", deep_recursion);
    return 0;
}
