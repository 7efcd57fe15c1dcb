/* A vfork, by way of posix_spawn. */
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

static void after(int status)
{
    printf("child %d\n", WEXITSTATUS(status));
}

int main(void)
{
    char *argv[] = {"sh", "-c", "exit 4", 0};
    char *envp[] = {0};
    pid_t pid;
    int status;
    if (posix_spawn(&pid, "/bin/sh", 0, 0, argv, envp))
        return 1;
    waitpid(pid, &status, 0);
    after(status);
    return 0;
}
