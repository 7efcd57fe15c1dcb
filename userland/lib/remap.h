/* What the programs share that use mremap as real software does. */
#ifndef USERLAND_REMAP_H
#define USERLAND_REMAP_H

#include "pattern.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

/* A system call on the caller's own line.  A macro and no function, so that what names the line of a call names the
 * program's, and not one in here. */
#define CALL_HERE(number, a, b, c, d, e, f)                                                                             \
    ({                                                                                                                  \
        long result_, a_ = (long)(a), b_ = (long)(b), c_ = (long)(c), d_ = (long)(d), e_ = (long)(e), f_ = (long)(f);   \
        register long r10_ __asm__("r10") = d_;                                                                         \
        register long r8_ __asm__("r8") = e_;                                                                           \
        register long r9_ __asm__("r9") = f_;                                                                           \
        __asm__ volatile("syscall"                                                                                      \
                         : "=a"(result_)                                                                                \
                         : "a"((long)(number)), "D"(a_), "S"(b_), "d"(c_), "r"(r10_), "r"(r8_), "r"(r9_)                \
                         : "rcx", "r11", "memory");                                                                     \
        result_;                                                                                                        \
    })

#define mremap(old, old_len, new_len, flags, new) CALL_HERE(__NR_mremap, old, old_len, new_len, flags, new, 0)

static inline byte *mapped_memory(long result)
{
    return (byte *)checked("mmap", result);
}

/* Anonymous private memory at this address, in the place of what was there. */
#define map_at(at, pages, prot)                                                                                         \
    mapped_memory(CALL_HERE(__NR_mmap, at, (pages) * PAGE_SIZE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0))

#define protect(at, pages, prot) checked("mprotect", CALL_HERE(__NR_mprotect, at, (pages) * PAGE_SIZE, prot, 0, 0, 0))

/* Ends a program that has no other way when the kernel refuses: what failed, why, status 1. */
static inline void refused(const char *what, long result)
{
    print("%s: %s\n", what, errno_name(result));
    quit(1);
}

#endif
