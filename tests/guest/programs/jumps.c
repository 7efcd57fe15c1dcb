/* setjmp, longjmp, sigsetjmp, contexts and coroutines. */
#include "probe.h"
#include <ucontext.h>

static jmp_buf buffer;
static ucontext_t main_context, contexts[3];
static int trace[64], nr_trace;

static void leap(int depth)
{
    volatile char frame[500];
    frame[0] = depth;
    if (depth == 50)
        longjmp(buffer, 51);
    if (frame[0] == depth)
        leap(depth + 1);
    frame[1] = frame[0];
}

static void coroutine(int me)
{
    for (int i = 0; i < 4; i++) {
        trace[nr_trace++] = me * 10 + i;
        swapcontext(&contexts[me], me == 2 ? &main_context : &contexts[me + 1]);
    }
}

static void on_signal(int signal)
{
    siglongjmp(probe_jump, signal);
}

int main(void)
{
    volatile int count = 0;
    int value = setjmp(buffer);
    if (value == 0)
        leap(0);
    SAY("setjmp came back with %d\n", value);
    if (setjmp(buffer) < 3)
        longjmp(buffer, ++count);
    SAY("count %d\n", count);
    if (setjmp(buffer) == 0)
        longjmp(buffer, 0);
    else
        SAY("zero became one\n");

    /* out of handlers, with and without the mask */
    struct sigaction action = { .sa_handler = on_signal };
    sigset_t mask;
    sigaction(SIGUSR1, &action, NULL);
    for (int save = 0; save < 2; save++) {
        int signal = sigsetjmp(probe_jump, save);
        if (signal == 0)
            raise(SIGUSR1);
        sigprocmask(SIG_SETMASK, NULL, &mask);
        SAY("from signal %d, saved %d, still blocked %d\n", signal, save, sigismember(&mask, SIGUSR1));
        sigemptyset(&mask);
        sigprocmask(SIG_SETMASK, &mask, NULL);
    }
    probe_catch_faults();
    for (int i = 0; i < 100; i++) {
        int got = peek((void *)(8L + i * 4096L * (i % 2)));
        if (got != -SIGSEGV)
            SAY("fault %d: %d\n", i, got);
    }
    SAY("a hundred faults survived, last at %p code %d\n", probe_address, probe_code);

    for (int i = 0; i < 3; i++) {
        getcontext(&contexts[i]);
        contexts[i].uc_stack.ss_sp = malloc(65536);
        contexts[i].uc_stack.ss_size = 65536;
        contexts[i].uc_link = &main_context;
        makecontext(&contexts[i], (void (*)(void))coroutine, 1, i);
    }
    for (int i = 0; i < 5; i++)
        swapcontext(&main_context, &contexts[0]);
    for (int i = 0; i < nr_trace; i++)
        printf("%d ", trace[i]);
    printf("\n");
    return 0;
}
