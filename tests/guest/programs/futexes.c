/* futex by hand: values, wakes, requeues, bit sets, time-outs, shared memory, robust lists. */
#include "probe.h"
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static long futex(void *word, int op, int value, void *timeout, void *word2, int value3)
{
    return syscall(SYS_futex, word, op, value, timeout, word2, value3);
}

static atomic_int word, other, woken, waiting;
static long wait_results[8];

struct job {
    void *word;
    int op, value, bits;
    long *result;
};

static void *wait_on(void *arg)
{
    struct job *job = arg;
    waiting++;
    errno = 0;
    long result = futex(job->word, job->op, job->value, NULL, NULL, job->bits);
    *job->result = result < 0 ? -errno : result;
    woken++;
    return NULL;
}

static void settle(int count)
{
    while (waiting < count)
        usleep(500);
    usleep(20000); /* from "about to wait" to waiting */
}

static void settle_woken(int count)
{
    for (int i = 0; i < 1000 && woken < count; i++)
        usleep(500);
}

static pthread_t threads[8];
static struct job jobs[8];

static void start(int n, void *at, int op, const int *bits)
{
    waiting = woken = 0;
    for (int i = 0; i < n; i++) {
        jobs[i] = (struct job){ at, op, 0, bits ? bits[i] : 0, &wait_results[i] };
        pthread_create(&threads[i], NULL, wait_on, &jobs[i]);
    }
    settle(n);
}

static void join(int n)
{
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static pthread_mutex_t robust;

static void *die_with_lock(void *arg)
{
    pthread_mutex_lock(&robust);
    return arg;
}

int main(void)
{
    struct timespec soon = { 0, 2000000 }, bad = { 0, 2000000000 }, now;

    NAMED("other value", futex(&word, FUTEX_WAIT, 1, NULL, NULL, 0));
    NAMED("time-out", futex(&word, FUTEX_WAIT, 0, &soon, NULL, 0));
    NAMED("bad time", futex(&word, FUTEX_WAIT, 0, &bad, NULL, 0));
    NAMED("nobody to wake", futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0));
    NAMED("not aligned", futex((char *)&word + 1, FUTEX_WAIT, 0, NULL, NULL, 0));
    NAMED("no memory there", futex((void *)16, FUTEX_WAIT, 0, NULL, NULL, 0));
    NAMED("wake where nothing is, private", futex((void *)16, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
    NAMED("unknown operation", futex(&word, 99, 0, NULL, NULL, 0));
    NAMED("no bits", futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0));
    NAMED("no bits to wake", futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0));
    clock_gettime(CLOCK_MONOTONIC, &now);
    now.tv_nsec += 2000000;
    if (now.tv_nsec >= 1000000000)
        now.tv_nsec -= 1000000000, now.tv_sec++;
    NAMED("absolute time-out", futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &now, NULL, FUTEX_BITSET_MATCH_ANY));
    NAMED("in the past", futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &now, NULL, FUTEX_BITSET_MATCH_ANY));
    clock_gettime(CLOCK_REALTIME, &now);
    NAMED("by the wall clock", futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &now, NULL, FUTEX_BITSET_MATCH_ANY));

    /* wakes */
    start(5, &word, FUTEX_WAIT_PRIVATE, NULL);
    NAMED("private waiters, shared wake", futex(&word, FUTEX_WAKE, 10, NULL, NULL, 0));
    NAMED("wake 2", futex(&word, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0));
    settle_woken(2);
    SAY("woken %d\n", woken);
    NAMED("wake the rest", futex(&word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0));
    join(5);
    SAY("woken %d, results %ld %ld\n", woken, wait_results[0], wait_results[4]);

    /* bit sets */
    start(3, &word, FUTEX_WAIT_BITSET_PRIVATE, (int[]){ 1, 2, 4 });
    NAMED("wake bit 2", futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 2));
    settle_woken(1);
    NAMED("wake bits 1 and 2", futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 3));
    NAMED("wake any", futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    join(3);

    /* requeue */
    start(4, &word, FUTEX_WAIT_PRIVATE, NULL);
    NAMED("requeue, wrong value", futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &other, 5));
    NAMED("wake 1, requeue 2", futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)2, &other, 0));
    NAMED("left on the first", futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    NAMED("moved to the second", futex(&other, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    join(4);
    start(2, &word, FUTEX_WAIT_PRIVATE, NULL);
    NAMED("plain requeue", futex(&word, FUTEX_REQUEUE_PRIVATE, 0, (void *)10, &other, 0));
    NAMED("wake there", futex(&other, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    join(2);

    /* wake and operate */
    other = 7;
    start(1, &word, FUTEX_WAIT_PRIVATE, NULL);
    NAMED("wake_op", futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &other, FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_GT, 100)));
    SAY("other %d\n", other);
    join(1);

    /* between processes, in shared memory */
    atomic_int *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (child == 0) {
        shared[1] = 1;
        long result = futex(shared, FUTEX_WAIT, 0, NULL, NULL, 0);
        _exit(result == 0 && *shared == 1 ? 10 : 11);
    }
    while (!shared[1])
        usleep(500);
    usleep(20000);
    *shared = 1;
    NAMED("wake the other process", futex(shared, FUTEX_WAKE, 1, NULL, NULL, 0));
    int status;
    waitpid(child, &status, 0);
    show_status("it", status);
    int fd = memfd_create("futex", 0);
    ftruncate(fd, PAGE);
    atomic_int *first = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    atomic_int *second = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    start(1, first + 3, FUTEX_WAIT, NULL);
    NAMED("by another address of the page", futex(second + 3, FUTEX_WAKE, 1, NULL, NULL, 0));
    join(1);

    /* a thread that dies with a lock */
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&robust, &attributes);
    pthread_create(&threads[0], NULL, die_with_lock, NULL);
    pthread_join(threads[0], NULL);
    SAY("robust: %s\n", strerrorname_np(pthread_mutex_lock(&robust)));
    SAY("consistent %d\n", pthread_mutex_consistent(&robust));
    SAY("unlock %d lock %d\n", pthread_mutex_unlock(&robust), pthread_mutex_trylock(&robust));
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutex_t *between = (pthread_mutex_t *)(shared + 16);
    pthread_mutex_init(between, &attributes);
    IN_CHILD("child dies with the lock", pthread_mutex_lock(between));
    SAY("owner died: %s\n", strerrorname_np(pthread_mutex_lock(between)));
    pthread_mutex_unlock(between);
    SAY("not recoverable: %s\n", strerrorname_np(pthread_mutex_lock(between)));

    /* interrupted */
    signal(SIGALRM, (void (*)(int))settle_woken);
    struct sigaction action = { .sa_handler = (void (*)(int))settle_woken };
    woken = 100;
    sigaction(SIGALRM, &action, NULL);
    ualarm(5000, 0);
    NAMED("interrupted", futex(&word, FUTEX_WAIT, 0, NULL, NULL, 0));
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    ualarm(5000, 0);
    NAMED("interrupted, with a time-out", futex(&word, FUTEX_WAIT, 0, &(struct timespec){ 0, 30000000 }, NULL, 0));
    return 0;
}
