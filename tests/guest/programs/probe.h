/* What the test programs share: one line per probe, errors by name. */
#ifndef PROBE_H
#define PROBE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL

/* PROBE(call) prints the call and its value, or the name of the error. */
#define PROBE(call) probe_show(#call, (errno = 0, (long)(call)))
/* NAMED("what", call): the same under another name. */
#define NAMED(name, call) probe_show(name, (errno = 0, (long)(call)))
/* Success or the error only: for values that differ from run to run. */
#define WORKS(call) probe_works(#call, (errno = 0, (long)(call)))
#define SAY(...) (printf(__VA_ARGS__), fflush(stdout))

__attribute__((unused)) static long probe_show(const char *what, long value)
{
    if (value == -1 && errno)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %ld\n", what, value);
    fflush(stdout);
    return value;
}

__attribute__((unused)) static long probe_works(const char *what, long value)
{
    if (value == -1 && errno)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: ok\n", what);
    fflush(stdout);
    return value;
}

__attribute__((unused)) static void show_status(const char *what, int status)
{
    if (WIFEXITED(status))
        printf("%s: exit %d\n", what, WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        printf("%s: signal %d\n", what, WTERMSIG(status));
    else if (WIFSTOPPED(status))
        printf("%s: stopped %d\n", what, WSTOPSIG(status));
    else if (WIFCONTINUED(status))
        printf("%s: continued\n", what);
    else
        printf("%s: status %x\n", what, status);
    fflush(stdout);
}

/* Runs the block in a child and shows how it ended. */
#define IN_CHILD(what, ...) \
    do { \
        int in_child_status = 0; \
        fflush(stdout); \
        pid_t in_child_pid = fork(); \
        if (in_child_pid == 0) { \
            __VA_ARGS__; \
            fflush(stdout); \
            _exit(0); \
        } \
        while (waitpid(in_child_pid, &in_child_status, 0) < 0 && errno == EINTR) \
            ; \
        show_status(what, in_child_status); \
    } while (0)

static sigjmp_buf probe_jump;
static volatile int probe_signal, probe_code;
static void *volatile probe_address;

__attribute__((unused)) static void probe_on_fault(int signal, siginfo_t *info, void *context)
{
    (void)context;
    probe_signal = signal;
    probe_code = info->si_code;
    probe_address = info->si_addr;
    siglongjmp(probe_jump, 1);
}

__attribute__((unused)) static void probe_catch_faults(void)
{
    struct sigaction action = { .sa_sigaction = probe_on_fault, .sa_flags = SA_SIGINFO };
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
}

/* One byte read or written: its value, or -signal. */
__attribute__((unused)) static int peek(const volatile void *address)
{
    if (sigsetjmp(probe_jump, 1))
        return -probe_signal;
    return *(const volatile unsigned char *)address;
}

__attribute__((unused)) static int poke(volatile void *address, int value)
{
    if (sigsetjmp(probe_jump, 1))
        return -probe_signal;
    *(volatile unsigned char *)address = value;
    return 0;
}

#endif
