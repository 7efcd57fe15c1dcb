/* wait4, waitid, process groups, sessions, orphans, reaping. */
#include "probe.h"
#include <sys/prctl.h>
#include <sys/resource.h>
#include <spawn.h>

static pid_t child_that_exits(int code)
{
    pid_t child = fork();
    if (child == 0)
        _exit(code);
    return child;
}

static pid_t child_that_waits(void)
{
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    return child;
}

static volatile int chld;
static void on_chld(int signal) { (void)signal; chld++; }

int main(void)
{
    int status;
    siginfo_t info;
    struct rusage usage;

    PROBE(wait(&status));
    PROBE(waitpid(1234567, &status, 0));
    PROBE(waitpid(getpid(), &status, 0));
    PROBE(waitpid(-1, &status, 0x10000000));
    PROBE(waitid(P_ALL, 0, &info, 0));
    PROBE(waitid(99, 0, &info, WEXITED));

    pid_t child = child_that_waits();
    NAMED("still running", waitpid(child, &status, WNOHANG));
    memset(&info, 1, sizeof info);
    NAMED("waitid still running", waitid(P_PID, child, &info, WEXITED | WNOHANG));
    SAY("si_pid %d\n", info.si_pid);
    kill(child, SIGTERM);
    NAMED("waitid leaves it", waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    SAY("code %d status %d mine %d signo %d\n", info.si_code, info.si_status, info.si_pid == child, info.si_signo == SIGCHLD);
    NAMED("a zombie gets signals", kill(child, 0));
    SAY("reaped %d\n", waitpid(child, &status, 0) == child);
    show_status("terminated", status);
    NAMED("gone", kill(child, 0));
    NAMED("reaped twice", waitpid(child, &status, 0));

    child = child_that_exits(300);
    waitid(P_PID, child, &info, WEXITED);
    SAY("code %d status %d\n", info.si_code, info.si_status);
    child = child_that_exits(300);
    NAMED("wait4", wait4(child, &status, 0, &usage) == child ? 0 : -1);
    show_status("exit 300", status);
    SAY("usage filled %d\n", usage.ru_maxrss > 0);

    /* stop and continue by waitid */
    child = child_that_waits();
    kill(child, SIGSTOP);
    waitid(P_PID, child, &info, WSTOPPED);
    SAY("stopped: code %d status %d\n", info.si_code, info.si_status);
    NAMED("reported once", waitid(P_PID, child, &info, WSTOPPED | WNOHANG));
    kill(child, SIGCONT);
    waitid(P_PID, child, &info, WCONTINUED);
    SAY("continued: code %d status %d\n", info.si_code, info.si_status);
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    show_status("killed while stopped", status);

    /* in any order, any of them */
    int sum = 0;
    for (int i = 1; i <= 10; i++)
        child_that_exits(i);
    while (wait(&status) > 0)
        sum += WEXITSTATUS(status);
    SAY("ten children, sum %d, then %s\n", sum, strerrorname_np(errno));

    /* process groups */
    pid_t leader = child_that_waits(), member = child_that_waits(), other = child_that_waits();
    PROBE(setpgid(leader, 0));
    NAMED("join", setpgid(member, leader));
    SAY("groups %d %d %d\n", getpgid(leader) == leader, getpgid(member) == leader, getpgid(other) == getpgrp());
    NAMED("group that is not", setpgid(other, 1234567));
    NAMED("negative", setpgid(other, -1));
    NAMED("not a child", setpgid(getppid() ? getppid() : 1, 0) == -1 ? 1 : 0);
    kill(-leader, SIGUSR1);
    SAY("any of the group %d\n", ({ pid_t p = waitpid(-leader, &status, 0); p == leader || p == member; }));
    show_status("killed by group", status);
    waitpid(-leader, &status, 0);
    show_status("and the other", status);
    NAMED("empty group", waitpid(-leader, &status, 0));
    NAMED("signal to an empty group", kill(-leader, 0));
    NAMED("the one outside lives", waitpid(other, &status, WNOHANG));
    kill(other, SIGKILL);
    NAMED("by waitid P_PGID 0", waitid(P_PGID, getpgrp(), &info, WEXITED));
    SAY("code %d status %d\n", info.si_code, info.si_status);

    /* sessions */
    IN_CHILD("session", NAMED("setsid", setsid() == getpid()); SAY("leader of group %d, session %d\n", getpgrp() == getpid(), getsid(0) == getpid());
             NAMED("setsid again", setsid()); NAMED("leader leaves its group", setpgid(0, 0)); PROBE(open("/dev/tty", O_RDWR)));
    NAMED("session of nobody", getsid(1234567));
    int fds[2];
    char byte;
    pipe(fds);
    child = fork();
    if (child == 0) {
        setsid();
        write(fds[1], "x", 1);
        pause();
    }
    read(fds[0], &byte, 1);
    NAMED("move into another session", setpgid(child, getpgrp()));
    kill(child, SIGKILL);
    wait(NULL);

    /* orphans: adopted by the nearest subreaper */
    PROBE(prctl(PR_SET_CHILD_SUBREAPER, 1));
    child = fork();
    if (child == 0) {
        if (fork() == 0) {
            pid_t parent = getppid();
            write(fds[1], "x", 1);
            while (getppid() == parent)
                usleep(1000);
            _exit(77);
        }
        read(fds[0], &byte, 1);
        _exit(1);
    }
    waitpid(child, &status, 0);
    show_status("parent", status);
    SAY("adopted another %d\n", wait(&status) != child);
    show_status("orphan", status);

    /* nobody waits: SIG_IGN and SA_NOCLDWAIT reap by themselves */
    signal(SIGCHLD, SIG_IGN);
    child_that_exits(1);
    NAMED("ignored SIGCHLD", wait(&status));
    struct sigaction action = { .sa_handler = on_chld, .sa_flags = SA_NOCLDWAIT | SA_RESTART };
    sigaction(SIGCHLD, &action, NULL);
    child_that_exits(1);
    while (wait(&status) > 0)
        ;
    SAY("NOCLDWAIT %s, signals %d\n", strerrorname_np(errno), chld);
    action.sa_flags = SA_NOCLDSTOP | SA_RESTART;
    sigaction(SIGCHLD, &action, NULL);
    chld = 0;
    child = child_that_waits();
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    SAY("NOCLDSTOP: %d signals for a stop\n", chld);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    SAY("%d for a death\n", chld);
    signal(SIGCHLD, SIG_DFL);

    /* vfork, posix_spawn, system, popen */
    volatile int shared = 1;
    child = vfork();
    if (child == 0) {
        shared = 2;
        _exit(12);
    }
    SAY("vfork shares memory: %d\n", shared);
    waitpid(child, &status, 0);
    show_status("vfork", status);
    NAMED("posix_spawn", posix_spawn(&child, "/bin/sh", NULL, NULL, (char *[]){ "sh", "-c", "exit 21", NULL }, (char *[]){ NULL }));
    waitpid(child, &status, 0);
    show_status("spawned", status);
    SAY("posix_spawn of nothing: %s\n", strerrorname_np(posix_spawn(&child, "/no/such", NULL, NULL, (char *[]){ "x", NULL }, (char *[]){ NULL })));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "spawned.txt", O_WRONLY | O_CREAT, 0600);
    NAMED("with file actions", posix_spawn(&child, "/bin/echo", &actions, NULL, (char *[]){ "echo", "to a file", NULL }, (char *[]){ NULL }));
    waitpid(child, &status, 0);
    SAY("system %d\n", WEXITSTATUS(system("cat spawned.txt; exit 4")));
    FILE *pipe_stream = popen("echo one; echo two", "r");
    char line[20];
    while (fgets(line, sizeof line, pipe_stream))
        SAY("popen %s", line);
    SAY("pclose %d\n", pclose(pipe_stream));
    PROBE(prctl(PR_SET_PDEATHSIG, 99));
    IN_CHILD("death signal of the parent", pid_t middle = fork(); if (middle == 0) {
        pid_t inner = fork();
        if (inner == 0) {
            prctl(PR_SET_PDEATHSIG, SIGUSR2);
            write(fds[1], "x", 1);
            pause();
            _exit(0);
        }
        read(fds[0], &byte, 1);
        _exit(0);
    } waitpid(middle, NULL, 0));
    wait(&status);
    show_status("the grandchild", status);
    return 0;
}
