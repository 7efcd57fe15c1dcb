/* Two areas that were one to begin with, where anon_vmas are shared; then an mremap over both, and one of many reactions.
 *
 *     reacts REACTION
 *
 * The first page is written while the second may be executed, so only kernels that share an anon_vma at the first write
 * (or know none) let the two join when the second becomes as the first. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define BASE ((char *)0x300000000)
#define TARGET ((char *)0x310000000)

static void map(char *at, int prot)
{
    if (mmap(at, PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
        exit(9);
}

static void two_pages(void)
{
    map(BASE, PROT_READ | PROT_WRITE);
    map(BASE + PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);
    strcpy(BASE, "one");                                         /* the first write of the lower area */
    strcpy(BASE + PAGE, "two");                                  /* the first write of the upper area */
    if (mprotect(BASE + PAGE, PAGE, PROT_READ | PROT_WRITE))
        exit(9);
}

static char *grow(void)
{
    return mremap(BASE, 2 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);     /* the call */
}

static char *copy(void)
{
    char *to = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    memcpy(to, BASE, 2 * PAGE);
    munmap(BASE, 2 * PAGE);
    return to;
}

static char *move_piece_by_piece(void)
{
    mmap(TARGET, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mremap(BASE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, TARGET);
    mremap(BASE + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, TARGET + PAGE);
    return TARGET;
}

static void *in_thread(void *unused)
{
    (void)unused;
    two_pages();
    return grow() == MAP_FAILED ? "refused" : "grown";
}

int main(int argc, char **argv)
{
    const char *reaction = argc > 1 ? argv[1] : "";

    if (!strcmp(reaction, "thread")) {
        pthread_t thread;
        void *result;

        pthread_create(&thread, NULL, in_thread, NULL);
        pthread_join(thread, &result);
        puts(result);
        return 0;
    }
    if (!strcmp(reaction, "fork")) {
        int status = 0;

        if (!fork()) {
            two_pages();
            _exit(grow() == MAP_FAILED ? 4 : 0);
        }
        wait(&status);
        return WEXITSTATUS(status);
    }
    two_pages();
    if (!strcmp(reaction, "fixed")) {
        strcpy(mmap(TARGET, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), "old");
        char *moved = mremap(BASE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, TARGET);
        puts(moved == TARGET ? "moved" : "refused");
        return 0;
    }
    char *at = grow();
    if (!strcmp(reaction, "crash"))
        return at[PAGE] != 't';                                  /* the crash */
    if (!strcmp(reaction, "file")) {
        int fd = open("saved", O_WRONLY | O_CREAT | O_TRUNC, 0600);

        if (at != MAP_FAILED)
            write(fd, at, 3);
        return 0;
    }
    if (at == MAP_FAILED) {
        if (!strcmp(reaction, "copy"))
            at = copy();
        else if (!strcmp(reaction, "pieces"))
            at = move_piece_by_piece();
        else if (!strcmp(reaction, "report")) {
            fprintf(stderr, "reacts: mremap: %s\n", strerror(errno));
            return 3;
        } else if (!strcmp(reaction, "output")) {
            puts("small");
            return 0;
        } else
            at = BASE;
    }
    printf("%s %s\n", at, at + PAGE);
    return 0;
}
