/* Wild pointers to every system call.
 *
 *     wild [FIRST [LAST]]     numbers 0 to 460 by default
 *
 * One forked child a number, under an alarm, calls it with several sets of pointers that no program should pass.  Whatever
 * happens to the child is its own affair; the parent goes on and says at the end that it survived.  As root it first
 * becomes nobody, and calls that could reach other processes of the machine are left out outside an emulator. */

#include "lib/sys.h"

#define LAST_NUMBER 460
#define NOBODY 65534

static const long patterns[][6] = {
    { 1, 1, 1, 1, 1, 1 },
    { -1, -1, -1, -1, -1, -1 },
    { 0x10, 0x7ffffffff000, 0x7ffffffff000, 0x7ffffffff000, 0x7ffffffff000, 0x7ffffffff000 },
    { (long)0xffff888000000000, (long)0xffff888000000000, 4096, (long)0xffff888000000000, 8, 8 },
    { (long)0x8000000000000000, (long)0x8000000000000000, (long)0x8000000000000000, 1, 1, 1 },
    { 0x400000, 0x400001, 0x400002, 0x400003, 0x400004, 0x400005 },
};

/* kill, tkill, tgkill and their kin take numbers, not pointers: there is nothing wild to pass, only somebody to hit. */
static int reaches_others(long number)
{
    switch (number) {
    case __NR_kill:
    case __NR_tkill:
    case __NR_tgkill:
    case __NR_rt_sigqueueinfo:
    case __NR_rt_tgsigqueueinfo:
    case __NR_setpriority:
    case __NR_sync:
        return 1;
    }
    return 0;
}

static void call_wildly(long number)
{
    for (unsigned i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        int parent = sys_getpid();

        SYSCALL(__NR_alarm, 1);
        raw_syscall(number, patterns[i]);
        if (sys_getpid() != parent)
            sys_exit_group(0); /* the child of a wild fork */
    }
}

int main(int argc, char **argv)
{
    ulong first = number_argument(argc, argv, 1, 0), last = number_argument(argc, argv, 2, LAST_NUMBER);
    ulong tried = 0;

    SYSCALL(__NR_setsid); /* signals to "our process group" hit nobody else */
    if (!SYSCALL(__NR_getuid)) {
        SYSCALL(__NR_setgroups, 0, 0);
        checked("setresgid", SYSCALL(__NR_setresgid, NOBODY, NOBODY, NOBODY));
        checked("setresuid", SYSCALL(__NR_setresuid, NOBODY, NOBODY, NOBODY));
    }
    for (ulong number = first; number <= last; number++) {
        int status;

        if (reaches_others(number))
            continue;
        int child = checked("fork", fork_flushed());
        if (!child) {
            sys_close(1); /* a wild write must not reach the output */
            sys_close(2);
            call_wildly(number);
            sys_exit_group(0);
        }
        while (sys_wait4(child, &status, 0) == -EINTR)
            ;
        tried++;
    }
    print("survived %lu system calls\n", tried);
    return 0;
}
