/* Bad pointers to system calls: EFAULT from the call, never a signal, and nothing half done.
 *
 * Every buffer lies with its end against an unmapped page, so that the good part and the bad part are both met. */

#include "lib/sys.h"

static byte *page;          /* readable and writable; the next page is a hole */
static byte *read_only;     /* one page; the next is a hole too */

static byte *tail(ulong n)
{
    return page + PAGE_SIZE - n;
}

static void show(const char *what, long result)
{
    if (is_error(result))
        print("%-34s %s\n", what, errno_name(result));
    else
        print("%-34s %ld\n", what, result);
}

/* A pipe with `n` bytes in it. */
static int pipe_with(ulong n)
{
    int fds[2];

    checked("pipe", sys_pipe(fds));
    for (ulong i = 0; i < n; i++)
        checked("write", sys_write(fds[1], "x", 1));
    sys_close(fds[1]);
    return fds[0];
}

int main(void)
{
    static char directory[256];
    struct {
        const void *base;
        ulong length;
    } vector[2];
    int fds[2];

    page = map_anonymous(3 * PAGE_SIZE, PROT_READ | PROT_WRITE);
    read_only = page + 2 * PAGE_SIZE;
    checked("munmap", sys_munmap(page + PAGE_SIZE, PAGE_SIZE));
    checked("mprotect", sys_mprotect(read_only, PAGE_SIZE, PROT_READ));
    byte *hole = page + PAGE_SIZE;

    int null = checked("/dev/null", sys_open("/dev/null", O_RDWR, 0));
    int zero = checked("/dev/zero", sys_open("/dev/zero", O_RDONLY, 0));
    checked("pipe", sys_pipe(fds));

    show("write hole to pipe", sys_write(fds[1], hole, 1));
    show("write across the end to pipe", sys_write(fds[1], tail(8), 16));
    show("write null pointer to pipe", sys_write(fds[1], 0, 16));
    show("write kernel address to pipe", sys_write(fds[1], (void *)0xffff888000000000UL, 16));
    show("write hole to /dev/null", sys_write(null, hole, 16));
    show("write 0 bytes from hole", sys_write(fds[1], hole, 0));
    show("read pipe into hole", sys_read(pipe_with(4), hole, 4));
    show("read pipe into read-only", sys_read(pipe_with(4), read_only, 4));
    show("read pipe across the end", sys_read(pipe_with(4), tail(2), 4));
    show("read /dev/zero across the end", sys_read(zero, tail(10), 100));
    show("read /dev/zero into hole", sys_read(zero, hole, 100));

    show("open hole", sys_open((char *)hole, O_RDONLY, 0));
    memset(tail(4), 'a', 4);
    show("open unterminated name", sys_open((char *)tail(4), O_RDONLY, 0));
    memset(page, 'a', PAGE_SIZE);
    show("open name of 4096 bytes", sys_open((char *)page, O_RDONLY, 0));
    show("stat into hole", SYSCALL(__NR_stat, "/", hole));
    show("stat into read-only", SYSCALL(__NR_stat, "/", read_only));
    show("stat of hole", SYSCALL(__NR_stat, hole, page));
    long next = checked("dup", SYSCALL(__NR_dup, 0));
    checked("close", sys_close(next));
    show("pipe into hole", SYSCALL(__NR_pipe, hole));
    show("pipe into read-only", SYSCALL(__NR_pipe, read_only));
    show("descriptors they left open", SYSCALL(__NR_dup, 0) - next);
    show("getcwd into hole", SYSCALL(__NR_getcwd, hole, 100));
    show("getcwd, no room", SYSCALL(__NR_getcwd, directory, 1));
    show("uname into hole", SYSCALL(__NR_uname, hole));
    show("nanosleep of hole", SYSCALL(__NR_nanosleep, hole, 0));
    show("clock_gettime into hole", SYSCALL(__NR_clock_gettime, 1, hole));
    show("gettimeofday into null", SYSCALL(__NR_gettimeofday, 0, 0));
    show("wait4 without children", SYSCALL(__NR_wait4, -1, hole, 0, 0));
    show("rt_sigaction of hole", SYSCALL(__NR_rt_sigaction, SIGUSR1, hole, 0, 8));
    show("rt_sigaction into hole", SYSCALL(__NR_rt_sigaction, SIGUSR1, 0, hole, 8));
    show("rt_sigaction, wrong size", SYSCALL(__NR_rt_sigaction, SIGUSR1, 0, 0, 4));
    show("rt_sigprocmask of hole", SYSCALL(__NR_rt_sigprocmask, SIG_BLOCK, hole, 0, 8));
    show("sigaltstack of hole", SYSCALL(__NR_sigaltstack, hole, 0));
    show("getrlimit into hole", SYSCALL(__NR_getrlimit, RLIMIT_AS, hole));
    show("mincore into hole", SYSCALL(__NR_mincore, page, PAGE_SIZE, hole));
    show("mincore of hole", SYSCALL(__NR_mincore, hole, PAGE_SIZE, page));
    show("futex wait on hole", SYSCALL(__NR_futex, hole, FUTEX_WAIT, 0, 0, 0, 0));
    show("futex wait on odd address", SYSCALL(__NR_futex, page + 1, FUTEX_WAIT, 0, 0, 0, 0));
    show("getrandom into hole", SYSCALL(__NR_getrandom, hole, 8, 0));
    show("poll of hole", SYSCALL(__NR_poll, hole, 1, 0));
    show("select of hole", SYSCALL(__NR_select, 8, hole, 0, 0, 0));
    show("getdents64 into hole", SYSCALL(__NR_getdents64, sys_open("/", O_RDONLY | O_DIRECTORY, 0), hole, 4096));
    show("readlink into hole", SYSCALL(__NR_readlink, "/proc/self/exe", hole, 100));
    show("execve of hole", SYSCALL(__NR_execve, hole, 0, 0));
    show("execve, argv in hole", SYSCALL(__NR_execve, "/proc/self/exe", hole, 0));

    vector[0].base = tail(4);
    vector[0].length = 4;
    vector[1].base = hole;
    vector[1].length = 4;
    show("writev, second part bad", SYSCALL(__NR_writev, fds[1], vector, 2));
    vector[1].base = page;
    vector[1].length = -1UL;
    show("writev, negative length", SYSCALL(__NR_writev, fds[1], vector, 2));
    show("writev, vector in hole", SYSCALL(__NR_writev, fds[1], hole, 2));
    show("writev, 1025 parts", SYSCALL(__NR_writev, fds[1], page, 1025));
    show("readv, no parts", SYSCALL(__NR_readv, zero, vector, 0));
    return 0;
}
