/* clone and clone3 with their flags: what is shared, what is refused. */
#include "probe.h"
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>

static char stack[65536] __attribute__((aligned(16)));
static volatile int value;
static volatile int tid_word = -1;

static int set_value(void *arg)
{
    value = (long)arg;
    return 9;
}

static int close_three(void *arg)
{
    close((long)arg);
    return 0;
}

static int change_directory(void *arg)
{
    umask(012);
    return chdir(arg) != 0;
}

static int change_handler(void *arg)
{
    signal(SIGUSR1, SIG_IGN);
    return arg != NULL;
}

static int show_parent(void *arg)
{
    return getppid() == *(pid_t *)arg ? 1 : 2;
}

static int run(const char *what, int (*function)(void *), int flags, void *arg)
{
    int status = -1;
    pid_t child = clone(function, stack + sizeof stack, flags, arg);
    if (child < 0) {
        SAY("%s: %s\n", what, strerrorname_np(errno));
        return -1;
    }
    if (waitpid(child, &status, __WALL) < 0)
        SAY("%s: wait %s\n", what, strerrorname_np(errno));
    else
        show_status(what, status);
    return status;
}

int main(void)
{
    run("copy of memory", set_value, SIGCHLD, (void *)1);
    SAY("value %d\n", value);
    run("shared memory", set_value, SIGCHLD | CLONE_VM, (void *)2);
    SAY("value %d\n", value);
    int fd = dup(1);
    run("copy of the descriptors", close_three, SIGCHLD, (void *)(long)fd);
    NAMED("still open", fcntl(fd, F_GETFD));
    run("shared descriptors", close_three, SIGCHLD | CLONE_FILES, (void *)(long)fd);
    NAMED("closed", fcntl(fd, F_GETFD));
    mkdir("below", 0755);
    umask(022);
    run("own directory", change_directory, SIGCHLD, "below");
    SAY("here %d umask %o\n", access("below", F_OK), umask(022));
    run("shared directory", change_directory, SIGCHLD | CLONE_FS, "below");
    SAY("here %d umask %o\n", access("below", F_OK), umask(022));
    chdir("..");
    signal(SIGUSR1, SIG_DFL);
    run("own handlers", change_handler, SIGCHLD | CLONE_VM, NULL);
    SAY("default %d\n", signal(SIGUSR1, SIG_DFL) == SIG_DFL);
    run("shared handlers", change_handler, SIGCHLD | CLONE_VM | CLONE_SIGHAND, NULL);
    SAY("default %d\n", signal(SIGUSR1, SIG_DFL) == SIG_DFL);
    run("SIGHAND without VM", set_value, SIGCHLD | CLONE_SIGHAND, NULL);
    run("THREAD without SIGHAND", set_value, CLONE_VM | CLONE_THREAD, NULL);
    run("FS with NEWNS", set_value, SIGCHLD | CLONE_FS | CLONE_NEWNS, NULL);
    SAY("clone with a NULL stack and VM: %s\n", clone(set_value, NULL, CLONE_VM | SIGCHLD, NULL) < 0 ? strerrorname_np(errno) : "ok");

    /* parents and thread identifiers */
    pid_t me = getpid(), parent = getppid();
    run("child of mine", show_parent, SIGCHLD, &me);
    IN_CHILD("sibling", pid_t mine = getppid(); pid_t sibling = clone(show_parent, stack + sizeof stack, SIGCHLD | CLONE_PARENT, &mine);
             NAMED("not my child", waitpid(sibling, NULL, 0)));
    int status;
    SAY("reaped the sibling %d\n", wait(&status) > 0);
    show_status("it", status);
    SAY("parent unchanged %d\n", parent == getppid());
    pid_t parent_tid = 0;
    volatile pid_t child_tid = 0;
    pid_t child = clone(set_value, stack + sizeof stack, SIGCHLD | CLONE_VM | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, (void *)3,
                        &parent_tid, NULL, &child_tid);
    waitpid(child, &status, 0);
    SAY("parent tid %d child tid %d\n", parent_tid == child, child_tid == child);
    tid_word = 12345;
    child = clone(set_value, stack + sizeof stack, SIGCHLD | CLONE_VM | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID, (void *)4, NULL, NULL, &tid_word);
    while (tid_word) {
        int seen = tid_word;
        if (seen)
            syscall(SYS_futex, &tid_word, FUTEX_WAIT, seen, NULL, NULL, 0);
    }
    SAY("cleared and woken, value %d\n", value);
    waitpid(child, &status, 0);

    /* no signal at the end, another one, none to wait for without __WALL */
    child = clone(set_value, stack + sizeof stack, 0, NULL);
    NAMED("plain wait", waitpid(child, &status, 0));
    NAMED("__WCLONE", waitpid(child, &status, __WCLONE) == child ? 0 : -1);
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    child = clone(set_value, stack + sizeof stack, SIGUSR2, NULL);
    SAY("exit signal %d from it %d\n", sigwaitinfo(&set, &info) == SIGUSR2, info.si_pid == child);
    waitpid(child, &status, __WALL);

    /* VFORK keeps the parent waiting */
    value = 0;
    child = clone(set_value, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)5);
    SAY("after vfork %d\n", value);
    waitpid(child, &status, 0);

    /* clone3 */
    struct clone_args args = { .exit_signal = SIGCHLD };
    child = syscall(SYS_clone3, &args, sizeof args);
    if (child == 0)
        _exit(6);
    waitpid(child, &status, 0);
    show_status("clone3", status);
    args.exit_signal = 65;
    NAMED("bad signal", syscall(SYS_clone3, &args, sizeof args));
    args.exit_signal = SIGCHLD;
    NAMED("too small", syscall(SYS_clone3, &args, 8));
    args.flags = CLONE_SIGHAND;
    NAMED("bad flags", syscall(SYS_clone3, &args, sizeof args));
    args.flags = 0;
    args.stack = (unsigned long)stack;
    NAMED("stack without size", syscall(SYS_clone3, &args, sizeof args));
    char padded[128] = { 0 };
    *(struct clone_args *)padded = (struct clone_args){ .exit_signal = SIGCHLD };
    padded[120] = 1;
    NAMED("unknown tail not zero", syscall(SYS_clone3, padded, sizeof padded));
    int pidfd = -1;
    args = (struct clone_args){ .exit_signal = SIGCHLD, .flags = CLONE_PIDFD, .pidfd = (unsigned long)&pidfd };
    child = syscall(SYS_clone3, &args, sizeof args);
    if (child == 0)
        _exit(8);
    NAMED("wait by pidfd", waitid(P_PIDFD, pidfd, &info, WEXITED));
    SAY("status %d\n", info.si_status);
    IN_CHILD("gettid in main", SAY("%d\n", gettid() == getpid()));
    return 0;
}
