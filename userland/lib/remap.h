/* What the programs share that use mremap as real software does. */
#ifndef USERLAND_REMAP_H
#define USERLAND_REMAP_H

#include "pattern.h"

#define READ_WRITE (PROT_READ | PROT_WRITE)

/* mremap(2).  A macro and no function, so that the system call stands on the caller's own line: what names the line of
 * a call names the program's, not this one. */
#define mremap(old, old_len, new_len, flags, new)                                                                       \
    ({                                                                                                                  \
        ulong old_ = (ulong)(old), old_len_ = (old_len), new_len_ = (new_len), new_ = (ulong)(new);                     \
        register ulong flags_ __asm__("r10") = (flags);                                                                 \
        register ulong target_ __asm__("r8") = new_;                                                                    \
        long result_;                                                                                                   \
        __asm__ volatile("syscall"                                                                                      \
                         : "=a"(result_)                                                                                \
                         : "a"(__NR_mremap), "D"(old_), "S"(old_len_), "d"(new_len_), "r"(flags_), "r"(target_)         \
                         : "rcx", "r11", "memory");                                                                     \
        result_;                                                                                                        \
    })

/* Anonymous private memory at this address, in the place of what was there. */
static inline byte *map_at(void *at, ulong pages, int prot)
{
    return (byte *)checked("mmap", sys_mmap(at, pages * PAGE_SIZE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

static inline void protect(void *at, ulong pages, int prot)
{
    checked("mprotect", sys_mprotect(at, pages * PAGE_SIZE, prot));
}

/* Ends a program that has no other way when the kernel refuses: what failed, why, status 1. */
static inline void refused(const char *what, long result)
{
    print("%s: %s\n", what, errno_name(result));
    quit(1);
}

#endif
