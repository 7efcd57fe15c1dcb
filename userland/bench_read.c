/* read of /dev/zero, or of a pipe written by itself: data through the kernel.   bench_read [N [SIZE [zero|pipe]]] */

#include "lib/sys.h"

int main(int argc, char **argv)
{
    ulong n = number_argument(argc, argv, 1, 10000), size = number_argument(argc, argv, 2, PAGE_SIZE), total = 0;
    byte *buffer = map_anonymous((size + PAGE_SIZE) & -PAGE_SIZE, PROT_READ | PROT_WRITE);
    int fds[2];

    if (argc > 3 && !strcmp(argv[3], "pipe")) {
        checked("pipe", sys_pipe(fds));
        for (ulong i = 0; i < n; i++) {
            checked("write", sys_write(fds[1], buffer, size));
            total += checked("read", sys_read(fds[0], buffer, size));
        }
    } else {
        fds[0] = checked("/dev/zero", sys_open("/dev/zero", O_RDONLY, 0));
        for (ulong i = 0; i < n; i++)
            total += checked("read", sys_read(fds[0], buffer, size));
    }
    print("%lu bytes\n", total);
    return 0;
}
