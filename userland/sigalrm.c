/* A timer interrupts a program that only computes: the handler counts, the loop ends when it has counted enough. */

#include "lib/sys.h"

#define ALARMS 5

static volatile int alarms;

static void on_alarm(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (signal == SIGALRM && info->si_code == SI_KERNEL)
        alarms++;
}

int main(void)
{
    struct {
        struct timeval interval, value;
    } timer = { { 0, 5000 }, { 0, 5000 } }, left;
    volatile double sum = 0; /* floating-point state must survive the interruptions too */
    ulong rounds = 0;

    checked("rt_sigaction", catch_signal(SIGALRM, on_alarm, SA_RESTART));
    checked("setitimer", SYSCALL(__NR_setitimer, 0, &timer, 0));
    while (alarms < ALARMS) {
        sum = sum + 0.5;
        rounds++;
    }
    timer.interval.tv_usec = timer.value.tv_usec = 0;
    checked("setitimer", SYSCALL(__NR_setitimer, 0, &timer, &left));
    print("alarms %d\n", alarms);
    print("interval was %ld us\n", (long)left.interval.tv_usec);
    print("sum %s\n", sum * 2 == (double)rounds ? "right" : "wrong");
    return 0;
}
