/* getppid in a loop: the price of a system call.   bench_getppid [N] */

#include "lib/sys.h"

int main(int argc, char **argv)
{
    ulong n = number_argument(argc, argv, 1, 100000), changed = 0;
    long parent = SYSCALL(__NR_getppid);

    for (ulong i = 0; i < n; i++)
        changed += SYSCALL(__NR_getppid) != parent;
    print("%lu calls, %lu changed\n", n, changed);
    return 0;
}
