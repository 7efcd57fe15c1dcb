/* Forks without end: children that wait for ever, until the kernel refuses or LIMIT is reached.
 *
 *     forkbomb [LIMIT]
 *
 * Then kills and counts them.  How many there were depends on the machine; that all could be reaped must not. */

#include "lib/sys.h"

int main(int argc, char **argv)
{
    ulong limit = number_argument(argc, argv, 1, -1UL);
    ulong started = 0, reaped = 0;
    int *children = (int *)map_anonymous(1 << 20, PROT_READ | PROT_WRITE);
    long result = 0;

    if (limit > (1 << 20) / sizeof *children)
        limit = (1 << 20) / sizeof *children;
    while (started < limit) {
        result = fork_flushed();
        if (is_error(result))
            break;
        if (!result)
            for (;;)
                SYSCALL(__NR_pause);
        children[started++] = result;
    }
    for (ulong i = 0; i < started; i++)
        sys_kill(children[i], SIGKILL);
    while (sys_wait4(-1, 0, 0) > 0)
        reaped++;
    if (is_error(result))
        print("refused: %s\n", errno_name(result));
    else
        print("reached the limit\n");
    print("all reaped: %s\n", started == reaped ? "yes" : "no");
    complain("%lu children\n", started);
    return started != reaped;
}
