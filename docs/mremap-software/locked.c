/* One page of a large block is locked for a while, as a password would be; then the block grows.
 *
 *     gcc -g -O1 -o locked locked.c && ./locked
 *
 * mlock makes an area of the page.  munlock joins it to its neighbours again only where mlock and munlock join areas;
 * elsewhere the block that realloc is to grow is three areas, and mremap refuses. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096ul

int main(void)
{
    size_t length = 300000, wrong = 0;
    char *block = malloc(length), *page;

    if (!block)
        return 2;
    memset(block, 'x', length);
    page = (char *)(((size_t)block + length / 2) & -PAGE);
    if (mlock(page, PAGE))
        perror("mlock");
    memset(page, 's', PAGE);
    memset(page, 'x', PAGE);
    if (munlock(page, PAGE))
        perror("munlock");

    char *grown = realloc(block, 2 * length); /* grows */
    if (!grown) {
        perror("realloc");
        return 1;
    }
    memset(grown + length, 'x', length);
    for (size_t i = 0; i < 2 * length; i++)
        wrong += grown[i] != 'x';
    printf("%zu bytes, %zu wrong\n", 2 * length, wrong);
    return wrong != 0;
}
