/* Clocks and timers: nothing printed depends on how long anything took, only on the order and the rules. */
#include "probe.h"
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <time.h>
#include <poll.h>

static volatile int alarms, last_value, last_code;

static void on_alarm(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    alarms++;
    last_code = info->si_code;
    last_value = info->si_value.sival_int;
}

static long long nanoseconds(int clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void burn(void)
{
    for (volatile int i = 0; i < 2000; i++)
        ;
}

int main(void)
{
    static const struct { const char *name; int clock; } clocks[] = {
        { "realtime", CLOCK_REALTIME }, { "monotonic", CLOCK_MONOTONIC }, { "process cpu", CLOCK_PROCESS_CPUTIME_ID },
        { "thread cpu", CLOCK_THREAD_CPUTIME_ID }, { "raw", CLOCK_MONOTONIC_RAW }, { "boot", CLOCK_BOOTTIME },
        { "tai", CLOCK_TAI }, { "coarse", CLOCK_MONOTONIC_COARSE }, { "realtime coarse", CLOCK_REALTIME_COARSE },
    };
    struct timespec resolution;

    for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        long long before = nanoseconds(clocks[i].clock);
        burn();
        int result = clock_getres(clocks[i].clock, &resolution);
        SAY("%s: not negative %d, not backwards %d, resolution %d %d\n", clocks[i].name, before >= 0,
            nanoseconds(clocks[i].clock) >= before, result, resolution.tv_sec == 0 && resolution.tv_nsec > 0);
    }
    PROBE(clock_gettime(100, &resolution));
    PROBE(clock_getres(-100, &resolution));

    /* the same time by every road */
    struct timeval tv;
    gettimeofday(&tv, NULL);
    long long real = nanoseconds(CLOCK_REALTIME);
    SAY("gettimeofday agrees %d, time agrees %d, after 2020 %d\n", llabs(real / 1000 - (tv.tv_sec * 1000000LL + tv.tv_usec)) < 1000000,
        labs(time(NULL) - tv.tv_sec) <= 1, tv.tv_sec > 1577836800);

    /* sleeping takes at least as long as asked */
    long long start = nanoseconds(CLOCK_MONOTONIC);
    PROBE(nanosleep(&(struct timespec){ 0, 3000000 }, NULL));
    SAY("slept %d\n", nanoseconds(CLOCK_MONOTONIC) - start >= 3000000);
    start = nanoseconds(CLOCK_MONOTONIC);
    struct timespec until = { (start + 4000000) / 1000000000, (start + 4000000) % 1000000000 };
    PROBE(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
    SAY("slept until %d\n", nanoseconds(CLOCK_MONOTONIC) >= start + 4000000);
    PROBE(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
    PROBE(nanosleep(&(struct timespec){ 0, 1000000000 }, NULL));
    PROBE(nanosleep(&(struct timespec){ -1, 0 }, NULL));
    start = nanoseconds(CLOCK_MONOTONIC);
    PROBE(poll(NULL, 0, 5));
    SAY("poll slept %d\n", nanoseconds(CLOCK_MONOTONIC) - start >= 4000000);
    start = nanoseconds(CLOCK_MONOTONIC);
    PROBE(select(0, NULL, NULL, NULL, &(struct timeval){ 0, 5000 }));
    SAY("select slept %d\n", nanoseconds(CLOCK_MONOTONIC) - start >= 4000000);

    /* alarm and itimers */
    sigaction(SIGALRM, &(struct sigaction){ .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO }, NULL);
    sigaction(SIGVTALRM, &(struct sigaction){ .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO }, NULL);
    sigaction(SIGPROF, &(struct sigaction){ .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO }, NULL);
    PROBE(alarm(100));
    NAMED("alarm is still", alarm(0));
    PROBE(alarm(0));
    struct itimerval value = { { 0, 2000 }, { 0, 2000 } }, old;
    PROBE(setitimer(ITIMER_REAL, &value, NULL));
    while (alarms < 3)
        pause();
    value = (struct itimerval){ { 0, 0 }, { 0, 0 } };
    PROBE(setitimer(ITIMER_REAL, &value, &old));
    SAY("3 alarms by pause, code kernel %d, interval %ld\n", last_code == SI_KERNEL, (long)old.it_interval.tv_usec);
    alarms = 0;
    value = (struct itimerval){ { 0, 0 }, { 0, 3000 } };
    PROBE(setitimer(ITIMER_VIRTUAL, &value, NULL));
    while (!alarms)
        burn();
    SAY("virtual timer\n");
    alarms = 0;
    PROBE(setitimer(ITIMER_PROF, &value, NULL));
    while (!alarms)
        burn();
    SAY("profile timer\n");
    PROBE(getitimer(ITIMER_PROF, &old));
    SAY("one shot: %ld %ld\n", (long)old.it_value.tv_sec, (long)old.it_value.tv_usec);
    PROBE(setitimer(3, &value, NULL));
    value.it_value.tv_usec = 1000000;
    PROBE(setitimer(ITIMER_REAL, &value, NULL));

    /* POSIX timers */
    timer_t timer;
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM, .sigev_value.sival_int = 42 };
    struct itimerspec spec = { { 0, 1000000 }, { 0, 1000000 } }, rest;
    PROBE(timer_create(CLOCK_MONOTONIC, &event, &timer));
    alarms = 0;
    PROBE(timer_settime(timer, 0, &spec, NULL));
    while (alarms < 2)
        pause();
    SAY("timer code %d value %d\n", last_code == SI_TIMER, last_value);
    PROBE(timer_gettime(timer, &rest));
    SAY("interval %ld\n", rest.it_interval.tv_nsec);
    sigset_t set, before;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_BLOCK, &set, &before);
    usleep(10000); /* expirations while blocked become one signal and an overrun count */
    alarms = 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    SAY("overrun %d\n", timer_getoverrun(timer) >= 2);
    PROBE(timer_delete(timer));
    PROBE(timer_delete(timer));
    event.sigev_notify = SIGEV_NONE;
    PROBE(timer_create(CLOCK_REALTIME, &event, &timer));
    spec = (struct itimerspec){ { 0, 0 }, { 100, 0 } };
    PROBE(timer_settime(timer, 0, &spec, NULL));
    timer_gettime(timer, &rest);
    SAY("runs %d\n", rest.it_value.tv_sec >= 98);
    PROBE(timer_create(12345, NULL, &timer));

    /* timerfd */
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    uint64_t expirations;
    NAMED("timerfd not armed", read(fd, &expirations, sizeof expirations));
    spec = (struct itimerspec){ { 0, 1000000 }, { 0, 1000000 } };
    PROBE(timerfd_settime(fd, 0, &spec, NULL));
    NAMED("poll timerfd", poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 1000));
    usleep(5000);
    NAMED("read timerfd", read(fd, &expirations, sizeof expirations));
    SAY("several %d\n", expirations >= 3);
    NAMED("short read", read(fd, &expirations, 4));

    /* processor time */
    struct rusage usage;
    struct tms tms;
    while (getrusage(RUSAGE_SELF, &usage) == 0 && usage.ru_utime.tv_usec + usage.ru_stime.tv_usec + usage.ru_utime.tv_sec == 0)
        burn();
    SAY("rusage grows, maxrss %d\n", usage.ru_maxrss > 100);
    SAY("times %d clock %d\n", times(&tms) != (clock_t)-1, clock() > 0);
    PROBE(getrusage(5, &usage));
    PROBE(sysconf(_SC_CLK_TCK));
    return 0;
}
