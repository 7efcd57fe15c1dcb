/* System calls and the small runtime of the freestanding guest programs.
 *
 * Constants and structures come from the kernel's own user-space headers (linux-libc-dev); nothing of libc
 * is used.  Every wrapper returns what the kernel returned: a value, or -errno. */
#ifndef USERLAND_SYS_H
#define USERLAND_SYS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <asm/sigcontext.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <asm/ucontext.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/futex.h>
#include <linux/mman.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/time.h>
#include <linux/wait.h>

#define PAGE_SIZE 4096UL
#define MCL_CURRENT 1
#define MCL_FUTURE 2
#define MCL_ONFAULT 4
#define SI_KERNEL_CODE 0x80

typedef unsigned char byte;
typedef unsigned long ulong;

extern char **environment;

/* mini.c */
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
int starts_with(const char *text, const char *prefix);
int parse_ulong(const char **cursor, ulong *value);
ulong number_argument(int argc, char **argv, int index, ulong otherwise);
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
void flush(void);
void quit(int status) __attribute__((noreturn));
void die(const char *what, long result) __attribute__((noreturn));
long checked(const char *what, long result);
const char *errno_name(long result);
void print_wait_status(int status);

/* guard.c */
struct fault {
    int signal;
    int code;
    ulong address;
};
extern volatile struct fault last_fault;
void guard_install(void);
int guarded_load(const volatile void *address);
int guarded_store(volatile void *address, int value);
int guarded_call(void *code);

/* start.S */
long raw_syscall(long number, const long arguments[6]);
void signal_restorer(void);

static inline long syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define SYSCALL_NTH(_0, _1, _2, _3, _4, _5, _6, name, ...) name
#define SYSCALL(...) \
    SYSCALL_NTH(__VA_ARGS__, SYSCALL_6, SYSCALL_5, SYSCALL_4, SYSCALL_3, SYSCALL_2, SYSCALL_1, SYSCALL_0)(__VA_ARGS__)
#define SYSCALL_0(n) syscall6(n, 0, 0, 0, 0, 0, 0)
#define SYSCALL_1(n, a) syscall6(n, (long)(a), 0, 0, 0, 0, 0)
#define SYSCALL_2(n, a, b) syscall6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define SYSCALL_3(n, a, b, c) syscall6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define SYSCALL_4(n, a, b, c, d) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define SYSCALL_5(n, a, b, c, d, e) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define SYSCALL_6(n, a, b, c, d, e, f) \
    syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static inline int is_error(long result)
{
    return (ulong)result >= -4095UL;
}

static inline long sys_read(int fd, void *to, size_t n) { return SYSCALL(__NR_read, fd, to, n); }
static inline long sys_write(int fd, const void *from, size_t n) { return SYSCALL(__NR_write, fd, from, n); }
static inline long sys_open(const char *path, int flags, int mode) { return SYSCALL(__NR_open, path, flags, mode); }
static inline long sys_close(int fd) { return SYSCALL(__NR_close, fd); }
static inline long sys_unlink(const char *path) { return SYSCALL(__NR_unlink, path); }
static inline long sys_ftruncate(int fd, ulong size) { return SYSCALL(__NR_ftruncate, fd, size); }
static inline long sys_pread(int fd, void *to, size_t n, ulong at) { return SYSCALL(__NR_pread64, fd, to, n, at); }
static inline long sys_pwrite(int fd, const void *from, size_t n, ulong at)
{
    return SYSCALL(__NR_pwrite64, fd, from, n, at);
}
static inline long sys_pipe(int fds[2]) { return SYSCALL(__NR_pipe, fds); }
static inline long sys_memfd_create(const char *name, unsigned flags)
{
    return SYSCALL(__NR_memfd_create, name, flags);
}
static inline long sys_mmap(void *addr, size_t len, int prot, int flags, int fd, ulong offset)
{
    return SYSCALL(__NR_mmap, addr, len, prot, flags, fd, offset);
}
static inline long sys_munmap(void *addr, size_t len) { return SYSCALL(__NR_munmap, addr, len); }
static inline long sys_mprotect(void *addr, size_t len, int prot) { return SYSCALL(__NR_mprotect, addr, len, prot); }
static inline long sys_mremap(void *old, size_t old_len, size_t new_len, int flags, void *new_addr)
{
    return SYSCALL(__NR_mremap, old, old_len, new_len, flags, new_addr);
}
static inline long sys_madvise(void *addr, size_t len, int advice) { return SYSCALL(__NR_madvise, addr, len, advice); }
static inline long sys_brk(ulong end) { return SYSCALL(__NR_brk, end); }
static inline long sys_getpid(void) { return SYSCALL(__NR_getpid); }
static inline long sys_fork(void) { return SYSCALL(__NR_fork); }
static inline long sys_wait4(int pid, int *status, int options) { return SYSCALL(__NR_wait4, pid, status, options, 0); }
static inline long sys_kill(int pid, int signal) { return SYSCALL(__NR_kill, pid, signal); }
static inline long sys_sched_yield(void) { return SYSCALL(__NR_sched_yield); }
static inline void sys_exit_group(int status)
{
    SYSCALL(__NR_exit_group, status);
    __builtin_unreachable();
}

/* fork with our output written out first, so that no line appears twice. */
static inline long fork_flushed(void)
{
    flush();
    return sys_fork();
}

typedef void signal_handler(int signal, siginfo_t *info, void *context);

long catch_signal(int signal, signal_handler *handler, ulong flags);

/* The anonymous private mapping everybody wants. */
static inline byte *map_anonymous(size_t len, int prot)
{
    return (byte *)checked("mmap", sys_mmap(0, len, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

static inline byte *map_shared(size_t len)
{
    return (byte *)checked("mmap", sys_mmap(0, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

#endif
