#include <stdio.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

int main(int argc, char **argv)
{
    int v[] = { 5, 3, 9, 1 };

    (void)argv;
    qsort(v, 4, sizeof *v, compare);
    printf("Hello from %d arguments: %d %d %d %d\n", argc, v[0], v[1], v[2], v[3]);
    return argc + 40;
}
