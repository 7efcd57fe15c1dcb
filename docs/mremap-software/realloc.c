/* Large blocks of the C library, grown and shrunk by realloc.
 *
 *     gcc -g -O1 -o realloc realloc.c && ./realloc
 *
 * One block grows from 200 KB to 4.7 MB in steps of a third and shrinks again; a second one stays where it is, so that
 * the first has a neighbour.  Every element is checked after every step. */

#include <stdio.h>
#include <stdlib.h>

static size_t wrong_elements(const size_t *array, size_t n)
{
    size_t wrong = 0;

    for (size_t i = 0; i < n; i++)
        wrong += array[i] != i * 2654435761u;
    return wrong;
}

int main(void)
{
    size_t n = 25000, filled = 0, steps = 0, wrong = 0;
    size_t *array = malloc(n * sizeof *array), *neighbour = malloc(300000);

    if (!array || !neighbour)
        return 2;
    for (; n < 750000; n += n / 3, steps++) {
        size_t *grown = realloc(array, n * sizeof *array); /* grows */

        if (!grown) {
            perror("realloc");
            return 1;
        }
        array = grown;
        for (; filled < n; filled++)
            array[filled] = filled * 2654435761u;
        wrong += wrong_elements(array, n);
    }
    for (n = filled; n > 25000; n /= 2, steps++) {
        size_t *shrunk = realloc(array, n * sizeof *array); /* shrinks */

        if (!shrunk) {
            perror("realloc");
            return 1;
        }
        array = shrunk;
        wrong += wrong_elements(array, n);
    }
    printf("%zu elements at most, %zu steps, %zu wrong\n", filled, steps, wrong);
    free(array);
    free(neighbour);
    return wrong != 0;
}
