/* Two tasks spin without a system call between them, each waiting for the other: only pre-emption gets them on. */

#include "lib/sys.h"

#define ROUNDS 20

struct shared {
    volatile ulong turn;
    volatile ulong spins[2];
};

static void play(struct shared *shared, ulong me)
{
    for (ulong round = 0; round < ROUNDS; round++) {
        while (shared->turn % 2 != me)
            shared->spins[me]++;
        shared->turn++;
    }
}

int main(void)
{
    struct shared *shared = (struct shared *)map_shared(PAGE_SIZE);
    int children[2], status;

    for (ulong me = 0; me < 2; me++) {
        children[me] = checked("fork", fork_flushed());
        if (!children[me]) {
            play(shared, me);
            quit(10 + me);
        }
    }
    for (int i = 0; i < 2; i++) {
        checked("wait4", sys_wait4(children[i], &status, 0));
        print("task %d: ", i);
        print_wait_status(status);
        print("\n");
    }
    print("turns %lu\n", shared->turn);
    return 0;
}
