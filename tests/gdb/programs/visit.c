/* One process: calls, a global that changes, a signal that is handled, one that kills, a child, exec. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct point {
    int x, y;
};

static volatile int counter;
static volatile long seen;
static char text[16] = "hello";

static int add(int a, int b)
{
    int sum = a + b;
    return sum;
}

static int outer(struct point *p)
{
    return add(p->x, p->y);
}

static void on_usr1(int signal)
{
    (void)signal;
    counter += 100;
}

int main(int argc, char **argv)
{
    struct point p = {argc, 40};
    double half = 0.5;
    signal(SIGUSR1, on_usr1);
    int sum = outer(&p);
    for (int i = 0; i < 3; i++)
        counter += 2;
    seen = counter;
    raise(SIGUSR1);
    pid_t pid = fork();
    if (pid == 0)
        _exit(add(3, 4));
    int status;
    waitpid(pid, &status, 0);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%s %d %d %ld %g child %d\n", text, sum, counter, seen, half, WEXITSTATUS(status));
    if (argc > 1 && !strcmp(argv[1], "clock"))
        printf("%ld.%09ld\n", now.tv_sec, now.tv_nsec);
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[1], "segv"))
        *(volatile int *)0x10 = 1;
    if (argc > 1 && !strcmp(argv[1], "exec"))
        execl("/proc/self/exe", "again", (char *)0);
    if (argc > 1 && !strcmp(argv[1], "pause"))
        pause();
    return 3;
}
