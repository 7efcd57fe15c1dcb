/* First touches of anonymous memory: the price of a page fault.
 *
 *     bench_fault [N [ROUNDS [read|write]]]     N pages a round, unmapped between rounds */

#include "lib/sys.h"

int main(int argc, char **argv)
{
    ulong n = number_argument(argc, argv, 1, 4096), rounds = number_argument(argc, argv, 2, 4), sum = 0;
    int reading = argc > 3 && !strcmp(argv[3], "read");

    for (ulong round = 0; round < rounds; round++) {
        byte *memory = map_anonymous(n * PAGE_SIZE, PROT_READ | PROT_WRITE);

        SYSCALL(__NR_madvise, memory, n * PAGE_SIZE, MADV_NOHUGEPAGE);
        for (ulong at = 0; at < n * PAGE_SIZE; at += PAGE_SIZE) {
            if (reading)
                sum += ((volatile byte *)memory)[at];
            else
                memory[at] = 1;
        }
        checked("munmap", sys_munmap(memory, n * PAGE_SIZE));
    }
    print("%lu faults%s\n", n * rounds, sum ? ", wrong data" : "");
    return 0;
}
