/* fork, the child writes memory page by page, exit, wait.   bench_fork [N [KIB]]: N children writing KIB each */

#include "lib/sys.h"

int main(int argc, char **argv)
{
    ulong n = number_argument(argc, argv, 1, 200), size = number_argument(argc, argv, 2, 1024) * 1024;
    byte *memory = map_anonymous(size, PROT_READ | PROT_WRITE);
    ulong bad = 0;

    SYSCALL(__NR_madvise, memory, size, MADV_NOHUGEPAGE);
    for (ulong at = 0; at < size; at += PAGE_SIZE)
        memory[at] = 1;
    for (ulong i = 0; i < n; i++) {
        int status, child = checked("fork", sys_fork());

        if (!child) {
            for (ulong at = 0; at < size; at += PAGE_SIZE)
                memory[at]++;
            sys_exit_group(memory[0]);
        }
        checked("wait4", sys_wait4(child, &status, 0));
        bad += status != 2 << 8;
    }
    for (ulong at = 0; at < size; at += PAGE_SIZE)
        bad += memory[at] != 1;
    print("%lu forks, %lu wrong\n", n, bad);
    return bad != 0;
}
