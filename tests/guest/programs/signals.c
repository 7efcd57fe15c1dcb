/* Signals: masks, pending, queues, restart, one-shot handlers, values, waits, stops, default actions. */
#include "probe.h"
#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>

static volatile int seen[65], order[64], nr_order, last_value, last_code;

static void note(int signal)
{
    seen[signal]++;
    if (nr_order < 64)
        order[nr_order++] = signal;
}

static void note_info(int signal, siginfo_t *info, void *context)
{
    (void)context;
    note(signal);
    last_value = info->si_value.sival_int;
    last_code = info->si_code;
}

static void show_order(const char *what)
{
    printf("%s:", what);
    for (int i = 0; i < nr_order; i++)
        printf(" %d", order[i]);
    printf("\n");
    fflush(stdout);
    nr_order = 0;
}

static void handle(int signal, int flags)
{
    struct sigaction action = { .sa_flags = flags };
    if (flags & SA_SIGINFO)
        action.sa_sigaction = note_info;
    else
        action.sa_handler = note;
    sigaction(signal, &action, NULL);
}

static volatile int depth, deepest, raised;

static void recurse(int signal)
{
    depth++;
    if (depth > deepest)
        deepest = depth;
    if (raised++ < 2)
        raise(signal);
    depth--;
}

static void mask_in_handler(int signal)
{
    sigset_t mask;
    (void)signal;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    SAY("in handler: usr1 %d usr2 %d term %d\n", sigismember(&mask, SIGUSR1), sigismember(&mask, SIGUSR2),
        sigismember(&mask, SIGTERM));
}

static void send_later(int signal, int milliseconds)
{
    pid_t parent = getpid();
    if (fork() == 0) {
        usleep(milliseconds * 1000);
        kill(parent, signal);
        _exit(0);
    }
}

static void *wait_in_thread(void *arg)
{
    sigset_t set = *(sigset_t *)arg;
    int signal;
    sigwait(&set, &signal);
    return (void *)(long)signal;
}

int main(void)
{
    sigset_t set, old, pending;
    siginfo_t info;
    int fds[2], status;
    char byte;

    /* blocked signals wait; standard ones once, real-time ones each with its value, lowest number first */
    handle(SIGUSR1, SA_SIGINFO);
    handle(SIGUSR2, SA_SIGINFO);
    handle(SIGRTMIN, SA_SIGINFO);
    handle(SIGRTMIN + 1, SA_SIGINFO);
    sigfillset(&set);
    sigprocmask(SIG_BLOCK, &set, &old);
    for (int i = 0; i < 3; i++) {
        kill(getpid(), SIGUSR2);
        kill(getpid(), SIGUSR1);
        sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ .sival_int = 100 + i });
        sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = 200 + i });
    }
    sigpending(&pending);
    SAY("pending: %d %d %d %d\n", sigismember(&pending, SIGUSR1), sigismember(&pending, SIGUSR2),
        sigismember(&pending, SIGRTMIN), sigismember(&pending, SIGTERM));
    sigprocmask(SIG_SETMASK, &old, NULL);
    /* handlers nest on return to user mode: the last set up runs first */
    show_order("delivered");
    SAY("last value %d code %d\n", last_value, last_code);

    /* SIGKILL and SIGSTOP cannot be blocked or caught */
    NAMED("catch SIGKILL", sigaction(SIGKILL, &(struct sigaction){ .sa_handler = note }, NULL));
    NAMED("catch SIGSTOP", sigaction(SIGSTOP, &(struct sigaction){ .sa_handler = note }, NULL));
    NAMED("catch 65", sigaction(65, &(struct sigaction){ .sa_handler = note }, NULL));
    NAMED("kill with 65", kill(getpid(), 65));
    NAMED("kill nobody", kill(0x3fffffff, 0));
    NAMED("kill oneself with 0", kill(getpid(), 0));
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    sigprocmask(SIG_SETMASK, NULL, &set);
    SAY("blocked: kill %d stop %d term %d\n", sigismember(&set, SIGKILL), sigismember(&set, SIGSTOP),
        sigismember(&set, SIGTERM));
    sigprocmask(SIG_SETMASK, &old, NULL);

    /* the mask during a handler: its own signal, sa_mask, and what was blocked before */
    struct sigaction action = { .sa_handler = mask_in_handler };
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGTERM);
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    action.sa_flags = SA_NODEFER;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);

    action = (struct sigaction){ .sa_handler = recurse, .sa_flags = SA_NODEFER };
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    SAY("nodefer depth %d\n", deepest);
    deepest = raised = 0;
    action.sa_flags = 0;
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    SAY("deferred depth %d\n", deepest);

    handle(SIGUSR1, SA_RESETHAND);
    raise(SIGUSR1);
    sigaction(SIGUSR1, NULL, &action);
    SAY("reset to default %d\n", action.sa_handler == SIG_DFL);

    /* interrupted system calls */
    pipe(fds);
    handle(SIGALRM, 0);
    send_later(SIGALRM, 20);
    NAMED("read interrupted", read(fds[0], &byte, 1));
    wait(NULL);
    handle(SIGALRM, SA_RESTART);
    if (fork() == 0) {
        pid_t parent = getppid();
        usleep(10000);
        kill(parent, SIGALRM);
        usleep(10000);
        write(fds[1], "x", 1);
        _exit(0);
    }
    NAMED("read restarted", read(fds[0], &byte, 1));
    wait(NULL);
    send_later(SIGALRM, 10);
    NAMED("pause", pause());
    wait(NULL);
    send_later(SIGALRM, 10);
    NAMED("poll is never restarted", poll(&(struct pollfd){ fds[0], POLLIN, 0 }, 1, 2000));
    wait(NULL);
    struct timespec left, length = { 5, 0 };
    send_later(SIGALRM, 10);
    NAMED("nanosleep interrupted", nanosleep(&length, &left));
    SAY("left %d\n", left.tv_sec == 4 && left.tv_nsec > 0);
    wait(NULL);

    /* sigsuspend: the mask is swapped for the wait alone */
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigprocmask(SIG_BLOCK, &set, &old);
    seen[SIGALRM] = 0;
    raise(SIGALRM);
    SAY("before %d\n", seen[SIGALRM]);
    sigemptyset(&set);
    NAMED("sigsuspend", sigsuspend(&set));
    SAY("after %d\n", seen[SIGALRM]);

    /* waiting for signals without handlers */
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    sigaddset(&set, SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct timespec soon = { 0, 1000000 };
    NAMED("sigtimedwait, nothing", sigtimedwait(&set, &info, &soon));
    sigqueue(getpid(), SIGRTMIN + 2, (union sigval){ .sival_int = 77 });
    NAMED("sigwaitinfo", sigwaitinfo(&set, &info) - SIGRTMIN);
    SAY("value %d code %d self %d\n", info.si_value.sival_int, info.si_code, info.si_pid == getpid());
    int signal_fd = signalfd(-1, &set, SFD_NONBLOCK);
    struct signalfd_siginfo from_fd;
    NAMED("signalfd empty", read(signal_fd, &from_fd, sizeof from_fd));
    raise(SIGALRM);
    NAMED("signalfd", read(signal_fd, &from_fd, sizeof from_fd));
    SAY("signal %d\n", (int)from_fd.ssi_signo);
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, wait_in_thread, &set);
    kill(getpid(), SIGALRM); /* blocked in main, waited for in the thread */
    pthread_join(thread, &result);
    SAY("sigwait in a thread %ld\n", (long)result);
    sigprocmask(SIG_SETMASK, &old, NULL);

    /* SIGPIPE, SIGCHLD */
    close(fds[0]);
    handle(SIGPIPE, 0);
    seen[SIGPIPE] = 0;
    NAMED("write without readers", write(fds[1], "x", 1));
    SAY("SIGPIPE %d\n", seen[SIGPIPE]);
    handle(SIGCHLD, SA_SIGINFO);
    seen[SIGCHLD] = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(3);
    while (!seen[SIGCHLD])
        usleep(1000);
    SAY("SIGCHLD code %d (CLD_EXITED %d)\n", last_code, CLD_EXITED);
    waitpid(child, &status, 0);
    show_status("child", status);

    /* stop and continue */
    signal(SIGCHLD, SIG_DFL);
    child = fork();
    if (child == 0) {
        setpgid(0, 0); /* not an orphaned group, whoever started us: SIGTSTP works */
        for (;;)
            pause();
    }
    setpgid(child, child);
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    show_status("stopped child", status);
    kill(child, SIGCONT);
    waitpid(child, &status, WCONTINUED);
    show_status("continued child", status);
    kill(child, SIGTSTP);
    waitpid(child, &status, WUNTRACED);
    show_status("SIGTSTP", status);
    kill(child, SIGTERM); /* stays pending while it is stopped */
    NAMED("not dead yet", waitpid(child, &status, WNOHANG));
    kill(child, SIGCONT);
    waitpid(child, &status, 0);
    show_status("SIGTERM after SIGCONT", status);

    /* default actions of everything */
    for (int signal = 1; signal < 32; signal++) {
        if (signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU)
            continue;
        char name[20];
        snprintf(name, sizeof name, "default of %d", signal);
        IN_CHILD(name, for (int i = 1; i < 32; i++) sigaction(i, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
                 kill(getpid(), signal); usleep(1000));
    }
    IN_CHILD("default of SIGRTMAX", kill(getpid(), SIGRTMAX); usleep(1000));
    IN_CHILD("ignored TERM", signal(SIGTERM, SIG_IGN); kill(getpid(), SIGTERM));
    IN_CHILD("abort", signal(SIGABRT, SIG_IGN); abort());
    return 0;
}
