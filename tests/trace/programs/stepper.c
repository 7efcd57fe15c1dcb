/* stepper PROG: runs PROG one instruction at a time and prints the address of every instruction that it executes, and of
   no instruction that only faulted.  Children of PROG are not followed. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char *environment[] = {NULL};
    pid_t pid = fork();
    if (pid == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execve(argv[1], argv + 1, environment);
        _exit(127);
    }
    int status, signal_to_give = 0;
    if (argc < 2 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
        return 2;
    for (;;) {
        struct user_regs_struct regs;
        if (ptrace(PTRACE_GETREGS, pid, 0, &regs) != 0)
            return 3;
        int begins_handler = signal_to_give != 0;
        ptrace(PTRACE_SINGLESTEP, pid, 0, signal_to_give);
        signal_to_give = 0;
        if (waitpid(pid, &status, 0) != pid)
            return 4;
        int executed = !WIFSTOPPED(status) || WSTOPSIG(status) == SIGTRAP;
        if (executed && !begins_handler)
            printf("%llx\n", (unsigned long long)regs.rip);
        if (!WIFSTOPPED(status))
            return 0;
        if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGCHLD)
            signal_to_give = WSTOPSIG(status);
    }
}
