/* Eats memory: maps and writes one MiB after another until the kernel refuses, kills, or LIMIT MiB are reached.
 *
 *     eatmem [LIMIT [brk|shared]]
 *
 * Without a limit it ends by ENOMEM or by the out-of-memory killer (status 137). */

#include "lib/sys.h"

#define MIB (1UL << 20)

int main(int argc, char **argv)
{
    ulong limit = number_argument(argc, argv, 1, -1UL);
    int by_brk = argc > 2 && !strcmp(argv[2], "brk");
    int flags = argc > 2 && !strcmp(argv[2], "shared") ? MAP_SHARED : MAP_PRIVATE;
    ulong end = sys_brk(0), eaten;

    for (eaten = 0; eaten < limit; eaten++) {
        byte *chunk;

        if (by_brk) {
            if ((ulong)sys_brk(end + MIB) != end + MIB) {
                print("refused: brk\n");
                break;
            }
            chunk = (byte *)end;
            end += MIB;
        } else {
            long result = sys_mmap(0, MIB, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
            if (is_error(result)) {
                print("refused: %s\n", errno_name(result));
                break;
            }
            chunk = (byte *)result;
        }
        for (ulong at = 0; at < MIB; at += PAGE_SIZE)
            chunk[at] = eaten;
    }
    if (eaten == limit)
        print("ate %lu MiB\n", eaten);
    return 0;
}
