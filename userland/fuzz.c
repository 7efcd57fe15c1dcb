/* Random system calls with arguments that are half right: what finds an emulator's own errors (tests/guest/test_fuzz.py).
 *
 *     fuzz --in-an-emulator SEED [CHILDREN [CALLS]]
 *
 * Never run it natively: as root it unmounts, reboots and kills what it can.  Each child makes CALLS calls (default 60) whose
 * arguments come from a pool of descriptors, buffers, strings, sizes, flags and wild values; an alarm ends one that
 * sleeps.  The children's fates are theirs; the parent prints that it survived. */

#include "lib/sys.h"

#define POOL_BYTES (64 * PAGE_SIZE)
#define LAST_OLD_NUMBER 334 /* the numbers between belong to other architectures */
#define FIRST_NEW_NUMBER 424
#define LAST_NUMBER 470

static ulong state;
static byte *pool;

static ulong next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dUL;
}

static ulong below(ulong n)
{
    return next() / 7 % n;
}

static const char *const strings[] = {
    "/", ".", "..", "", "/tmp", "/tmp/fuzz-a", "/tmp/fuzz-b", "/tmp/fuzz-dir", "fuzz-dir/x", "/proc/self/maps", "/proc/self/fd/1",
    "/proc/self", "/proc", "/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx", "/etc/passwd", "/bin/true", "/proc/self/exe",
    "/tmp/link", "user.name", "/proc/self/status", "tmpfs", "/proc/sys/vm/max_map_count", "/dev/shm/x", "/nonexistent/x",
};

/* Some bytes that look like structures: small numbers, pointers into the pool, descriptors. */
static byte *buffer(void)
{
    byte *at = pool + below(POOL_BYTES / 8 - 64) * 8;
    ulong *words = (ulong *)at;
    ulong n = below(16);

    for (ulong i = 0; i < n; i++)
        switch (below(6)) {
        case 0:
            words[i] = (ulong)(pool + below(POOL_BYTES - 4096));
            break;
        case 1:
            words[i] = next();
            break;
        case 2:
            words[i] = below(8) << 32 | below(8);
            break;
        case 3:
            words[i] = 0;
            break;
        case 4:
            words[i] = (ulong)strings[below(sizeof strings / sizeof *strings)];
            break;
        default:
            words[i] = below(300);
        }
    return at;
}

static long call_number(void)
{
    ulong n = below(LAST_OLD_NUMBER + 1 + LAST_NUMBER - FIRST_NEW_NUMBER + 1);

    return n <= LAST_OLD_NUMBER ? n : n - LAST_OLD_NUMBER - 1 + FIRST_NEW_NUMBER;
}

/* The first is a descriptor or a string more often than not, the others anything. */
static long argument(int which)
{
    if (!which && below(2))
        return below(2) ? (long)below(14) : (long)strings[below(sizeof strings / sizeof *strings)];
    switch (below(16)) {
    case 0:
        return next();
    case 1:
        return -(long)below(5);
    case 2:
    case 3:
        return below(10);
    case 4:
        return 1L << below(64);
    case 5:
        return (1L << below(32)) | (1L << below(32)) | (1L << below(32));
    case 6:
        return below(8192);
    case 7:
    case 8:
    case 9:
        return (long)strings[below(sizeof strings / sizeof *strings)];
    case 10:
        return (long)(pool + POOL_BYTES - below(64)); /* at the end: the next page is a hole */
    case 11:
        return (long)(pool + below(64) * PAGE_SIZE);
    case 12:
        return 0;
    default:
        return (long)buffer();
    }
}

/* What would end the child, only make it sleep, or reach the parent, which is to tell that it survived. */
static int pointless(long number)
{
    switch (number) {
    case __NR_exit:
    case __NR_exit_group:
    case __NR_pause:
    case __NR_rt_sigreturn:
    case __NR_rt_sigsuspend:
    case __NR_alarm:
    case __NR_reboot:
    case __NR_kill:
    case __NR_tkill:
    case __NR_tgkill:
    case __NR_rt_sigqueueinfo:
    case __NR_rt_tgsigqueueinfo:
    case __NR_pidfd_send_signal:
    case __NR_prlimit64:
    case __NR_process_vm_writev:
        return 1;
    }
    return 0;
}

static void call_at_random(ulong calls)
{
    int me = sys_getpid();

    sys_open("/tmp/fuzz-a", O_RDWR | O_CREAT, 0600);
    sys_pipe((int *)pool);
    SYSCALL(__NR_socketpair, 1, 1, 0, pool);
    SYSCALL(__NR_epoll_create1, 0);
    SYSCALL(__NR_eventfd2, 0, 0);
    sys_open("/tmp", O_RDONLY | O_DIRECTORY, 0);
    for (ulong i = 0; i < calls; i++) {
        long number = call_number(), arguments[6];

        if (pointless(number))
            continue;
        for (int k = 0; k < 6; k++)
            arguments[k] = argument(k);
        SYSCALL(__NR_alarm, 1);
        raw_syscall(number, arguments);
        if (sys_getpid() != me)
            sys_exit_group(0);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "--in-an-emulator")) {
        complain("usage: fuzz --in-an-emulator SEED [CHILDREN [CALLS]]     (never natively)\n");
        return 2;
    }
    ulong seed = number_argument(argc, argv, 2, 1), children = number_argument(argc, argv, 3, 20);
    ulong calls = number_argument(argc, argv, 4, 60);

    for (ulong n = 0; n < children; n++) {
        int child = checked("fork", fork_flushed());

        if (!child) {
            state = (seed * 1000003 + n + 1) * 0x9e3779b97f4a7c15UL;
            pool = map_anonymous(POOL_BYTES + PAGE_SIZE, PROT_READ | PROT_WRITE);
            sys_munmap(pool + POOL_BYTES, PAGE_SIZE);
            sys_close(1);
            sys_close(2);
            SYSCALL(__NR_setsid);
            call_at_random(calls);
            sys_exit_group(0);
        }
        while (sys_wait4(child, 0, 0) == -EINTR)
            ;
    }
    print("survived %lu children\n", children);
    return 0;
}
