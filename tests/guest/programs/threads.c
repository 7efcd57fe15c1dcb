/* Eight pthreads: mutexes, condition variables, barriers, rwlocks, semaphores, once, keys, cancellation, detached threads. */
#include "probe.h"
#include <pthread.h>
#include <semaphore.h>
#include <sched.h>

#define THREADS 8
#define ROUNDS 1000

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static sem_t semaphore;
static long counter, once_count, destroyed, barrier_winners;
static __thread long local = 5;

static void *count(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
        local += (long)arg;
    }
    return (void *)local;
}

/* A queue of one: the producer waits for room, consumers for goods. */
static int slot, slot_full, consumed_sum, produced;

static void *consume(void *arg)
{
    long mine = 0;
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (!slot_full && produced < 200)
            pthread_cond_wait(&condition, &mutex);
        if (!slot_full) {
            pthread_mutex_unlock(&mutex);
            return (void *)mine;
        }
        consumed_sum += slot;
        mine++;
        slot_full = 0;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&mutex);
    }
}

static void produce(void)
{
    for (int i = 1; i <= 200; i++) {
        pthread_mutex_lock(&mutex);
        while (slot_full)
            pthread_cond_wait(&condition, &mutex);
        slot = i;
        slot_full = 1;
        produced = i;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&mutex);
    }
}

static long phase_sum[20];

static void *meet(void *arg)
{
    for (int phase = 0; phase < 20; phase++) {
        __atomic_fetch_add(&phase_sum[phase], (long)arg + 1, __ATOMIC_SEQ_CST);
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
            __atomic_fetch_add(&barrier_winners, 1, __ATOMIC_SEQ_CST);
        if (phase_sum[phase] != THREADS * (THREADS + 1) / 2)
            return (void *)-1;
    }
    return NULL;
}

static long shared_value;

static void *read_or_write(void *arg)
{
    for (int i = 0; i < 100; i++) {
        if ((long)arg % 4 == 0) {
            pthread_rwlock_wrlock(&rwlock);
            shared_value++;
            sched_yield();
            pthread_rwlock_unlock(&rwlock);
        } else {
            pthread_rwlock_rdlock(&rwlock);
            long before = shared_value;
            sched_yield();
            if (before != shared_value)
                __atomic_fetch_add(&counter, 1000000, __ATOMIC_SEQ_CST);
            pthread_rwlock_unlock(&rwlock);
        }
    }
    return NULL;
}

static void set_once(void) { once_count++; }
static void destroy(void *value) { __atomic_fetch_add(&destroyed, (long)value, __ATOMIC_SEQ_CST); }

static void *with_key(void *arg)
{
    pthread_once(&once, set_once);
    pthread_setspecific(key, (void *)((long)arg + 1));
    return NULL;
}

static void cleanup(void *arg) { SAY("cleanup %s\n", (char *)arg); }

static void *sleep_for_ever(void *arg)
{
    (void)arg;
    pthread_cleanup_push(cleanup, "handler");
    sem_post(&semaphore);
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return NULL;
}

static void *spin_until_set(void *arg)
{
    volatile int *flag = arg;
    while (!*flag)
        ;
    *flag = 2;
    return NULL;
}

static void *detached(void *arg)
{
    (void)arg;
    sem_post(&semaphore);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    void *result;

    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, count, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &result);
        SAY("thread %d local %ld\n", i, (long)result);
    }
    SAY("counter %ld, main's local %ld\n", counter, local);

    long consumed = 0;
    for (long i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, consume, NULL);
    produce();
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &result);
        consumed += (long)result;
    }
    SAY("consumed %ld, sum %d\n", consumed, consumed_sum);

    pthread_barrier_init(&barrier, NULL, THREADS);
    long bad = 0;
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, meet, (void *)i);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &result);
        bad += result != NULL;
    }
    SAY("barriers: %ld winners, %ld bad\n", barrier_winners, bad);

    counter = 0;
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, read_or_write, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    SAY("rwlock: %ld writes, %ld torn\n", shared_value, counter / 1000000);

    pthread_key_create(&key, destroy);
    for (long i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, with_key, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    SAY("once %ld, destroyed %ld\n", once_count, destroyed);

    sem_init(&semaphore, 0, 0);
    pthread_create(&threads[0], NULL, sleep_for_ever, NULL);
    sem_wait(&semaphore);
    pthread_cancel(threads[0]);
    pthread_join(threads[0], &result);
    SAY("cancelled %d\n", result == PTHREAD_CANCELED);

    static volatile int flag;
    pthread_create(&threads[0], NULL, spin_until_set, (void *)&flag);
    flag = 1;
    while (flag != 2)
        ;
    pthread_join(threads[0], NULL);
    SAY("spun\n");

    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], &attributes, detached, NULL);
    for (int i = 0; i < THREADS; i++)
        sem_wait(&semaphore);
    SAY("detached threads done\n");

    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 2000000;
    if (until.tv_nsec >= 1000000000)
        until.tv_nsec -= 1000000000, until.tv_sec++;
    pthread_mutex_lock(&mutex);
    SAY("timed wait %s\n", strerrorname_np(pthread_cond_timedwait(&condition, &mutex, &until)));
    pthread_mutex_unlock(&mutex);
    NAMED("sem_timedwait", sem_timedwait(&semaphore, &until));

    pthread_mutexattr_t kind;
    pthread_mutex_t special;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&special, &kind);
    pthread_mutex_lock(&special);
    SAY("relock %s\n", strerrorname_np(pthread_mutex_lock(&special)));
    SAY("unlock %d\n", pthread_mutex_unlock(&special));
    SAY("again %s\n", strerrorname_np(pthread_mutex_unlock(&special)));

    /* exit_group from a thread ends all of them */
    IN_CHILD("exit in a thread", pthread_create(&threads[0], NULL, (void *(*)(void *))exit, (void *)7); pause());
    IN_CHILD("main leaves first", pthread_create(&threads[0], NULL, count, (void *)0); pthread_exit(NULL));
    return 0;
}
