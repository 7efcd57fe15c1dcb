/* Floating-point and vector registers across signals, system calls and switches between tasks and threads. */
#include "probe.h"
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <sys/time.h>
#include <ucontext.h>

typedef unsigned char vector __attribute__((vector_size(16)));

static volatile int ticks;

/* Ruins everything a handler may use. */
static void on_tick(int signal)
{
    (void)signal;
    volatile double x = 1.0 / 3;
    long double y = x;
    y = sqrtl(y) * 7;
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm1, %%xmm1; pcmpeqd %%xmm7, %%xmm7; pcmpeqd %%xmm15, %%xmm15;"
                     "fninit; fldpi; fldpi" ::: "xmm0", "xmm1", "xmm7", "xmm15");
    fesetround(FE_UPWARD);
    ticks++;
}

/* The mean of a slowly converging series, with x87 and SSE both at work all the time. */
static double work(int seed, int steps)
{
    double sum = 0;
    long double fine = 0;
    vector v;
    for (unsigned i = 0; i < sizeof v; i++)
        v[i] = seed + i;
    for (int i = 1; i <= steps; i++) {
        sum += (i * seed % 1000) * 0.001 / i; /* no libm: its results depend on the processor's FMA */
        fine += (long double)1 / (i + seed);
        v = v * 3 + 1;
    }
    unsigned check = 0;
    for (unsigned i = 0; i < sizeof v; i++)
        check = check * 31 + v[i];
    return sum + (double)fine + check % 1000;
}

static void *in_thread(void *arg)
{
    double *slot = arg;
    int seed = *slot;
    fesetround(seed % 2 ? FE_DOWNWARD : FE_TONEAREST);
    *slot = work(seed, 20000) + fegetround();
    return NULL;
}

static void change_context(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    ucontext_t *uc = context;
    struct _libc_fpstate *fp = uc->uc_mcontext.fpregs;
    SAY("fpregs present %d, aligned %d\n", fp != NULL, ((unsigned long)fp & 15) == 0);
    SAY("mxcsr %x cwd %x\n", fp->mxcsr & 0xffc0, fp->cwd);
    SAY("xmm3 in frame %08x\n", fp->_xmm[3].element[0]);
    fp->_xmm[3].element[0] = 0xdeadbeef;
    uc->uc_mcontext.gregs[REG_RBX] += 1;
}

int main(void)
{
    /* a timer all through a computation */
    double alone = work(3, 100000);
    sigaction(SIGALRM, &(struct sigaction){ .sa_handler = on_tick, .sa_flags = SA_RESTART }, NULL);
    setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 1000 }, { 0, 1000 } }, NULL);
    int same = 1;
    while (ticks < 20)
        same &= work(3, 2000) == work(3, 2000);
    double interrupted = work(3, 100000);
    setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 0 }, { 0, 0 } }, NULL);
    SAY("interrupted work: same %d %d, rounding kept %d\n", same, alone == interrupted, fegetround() == FE_TONEAREST);
    SAY("value %.17g\n", alone);

    /* children and threads computing at once */
    double expected = work(5, 30000);
    for (int i = 0; i < 3; i++)
        if (fork() == 0)
            _exit(work(5, 30000) == expected);
    for (int i = 0; i < 3; i++) {
        int status;
        wait(&status);
        show_status("child", status);
    }
    double slots[4] = { 1, 2, 3, 4 };
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, in_thread, &slots[i]);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        SAY("thread %d: %.15g\n", i, slots[i]);
    }

    /* the frame on the stack is what sigreturn loads */
    sigaction(SIGUSR1, &(struct sigaction){ .sa_sigaction = change_context, .sa_flags = SA_SIGINFO }, NULL);
    unsigned before = 0x12345678, after;
    unsigned long rbx = 41;
    __asm__ volatile("movd %[before], %%xmm3\n\t"
                     "movl $39, %%eax\n\t"
                     "syscall\n\t"
                     "movl %%eax, %%edi\n\t"
                     "movl $10, %%esi\n\t"
                     "movl $62, %%eax\n\t"
                     "syscall\n\t"
                     "movd %%xmm3, %[after]"
                     : [after] "=r"(after), "+b"(rbx)
                     : [before] "r"(before)
                     : "rax", "rcx", "r11", "rdi", "rsi", "xmm3", "memory");
    SAY("xmm3 %08x rbx %lu\n", after, rbx);

    volatile double one = 1;
    for (int mode = 0; mode < 4; mode++) {
        static const int modes[] = { FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO };
        fesetround(modes[mode]);
        volatile double a = one / 3, b = -one / 3;
        volatile long double c = (long double)one / 3;
        SAY("rounding %d: %a %a %La\n", mode, a, b, c);
    }
    return 0;
}
