/* Programs that go wrong, each in a forked child: how the parent sees them end. */

#include "lib/sys.h"

static void divide_by_zero(void) { __asm__ volatile("xorl %%ecx, %%ecx; movl $1, %%eax; cltd; idivl %%ecx" ::: "eax", "ecx", "edx"); }
static void divide_overflow(void) { __asm__ volatile("movl $-1, %%ecx; movl $0x80000000, %%eax; cltd; idivl %%ecx" ::: "eax", "ecx", "edx"); }
static void undefined_instruction(void) { __asm__ volatile("ud2"); }
static void breakpoint(void) { __asm__ volatile("int3"); }
static void single_step(void) { __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop" ::: "memory", "cc"); }
static void halt(void) { __asm__ volatile("hlt"); }
static void clear_interrupts(void) { __asm__ volatile("cli"); }
static void write_cr3(void) { __asm__ volatile("movq %%rax, %%cr3" ::: "memory"); }
static void read_msr(void) { __asm__ volatile("rdmsr" ::: "eax", "edx"); }
static void interrupt_32(void) { __asm__ volatile("int $0x20"); }
static void jump_to_null(void) { __asm__ volatile("xorl %%eax, %%eax; jmp *%%rax" ::: "rax"); }
static void jump_to_nowhere(void) { __asm__ volatile("movabsq $0x123456789000, %%rax; jmp *%%rax" ::: "rax"); }
static void jump_not_canonical(void) { __asm__ volatile("movabsq $0x1234567890abcdef, %%rax; jmp *%%rax" ::: "rax"); }
static void jump_to_kernel(void) { __asm__ volatile("movq $-4096, %%rax; jmp *%%rax" ::: "rax"); }
static void jump_to_data(void) { static const byte code[] = { 0xc3 }; __asm__ volatile("jmp *%%rax" ::"a"(code)); }
static void wild_stack(void) { __asm__ volatile("movq $16, %%rsp; pushq %%rax" ::: "memory"); }
static void return_to_zero(void) { __asm__ volatile("pushq $0; ret" ::: "memory"); }

static int overflow(int depth)
{
    volatile byte frame[1000];

    frame[0] = depth;
    return overflow(depth + 1) + frame[0];
}

static void stack_overflow(void) { print("%d\n", overflow(0)); }

static void unmap_own_code(void)
{
    extern const char __executable_start[], etext[];
    ulong first = (ulong)__executable_start & -PAGE_SIZE;
    ulong end = ((ulong)etext + PAGE_SIZE - 1) & -PAGE_SIZE;

    sys_munmap((void *)first, end - first);
}

static void unmap_everything(void) { sys_munmap(0, 0x7ffffffff000UL); }
static void abort_by_signal(void) { sys_kill(sys_getpid(), SIGABRT); }
static void kill_by_signal(void) { sys_kill(sys_getpid(), SIGKILL); }
static void exit_normally(void) { quit(42); }
static void exit_wide(void) { quit(0x1234); }

static void ignored_segv(void)
{
    struct sigaction action = { .sa_handler = SIG_IGN };

    SYSCALL(__NR_rt_sigaction, SIGSEGV, &action, 0, sizeof action.sa_mask);
    *(volatile int *)0 = 1;
}

static void blocked_segv(void)
{
    ulong all = ~0UL;

    SYSCALL(__NR_rt_sigprocmask, SIG_BLOCK, &all, 0, sizeof all);
    *(volatile int *)0 = 1;
}

static const struct {
    const char *name;
    void (*run)(void);
} programs[] = {
    { "divide by zero", divide_by_zero },
    { "divide overflow", divide_overflow },
    { "undefined instruction", undefined_instruction },
    { "breakpoint", breakpoint },
    { "single step", single_step },
    { "hlt", halt },
    { "cli", clear_interrupts },
    { "write to cr3", write_cr3 },
    { "rdmsr", read_msr },
    { "int 0x20", interrupt_32 },
    { "jump to null", jump_to_null },
    { "jump to nowhere", jump_to_nowhere },
    { "jump, not canonical", jump_not_canonical },
    { "jump to the kernel", jump_to_kernel },
    { "jump to data", jump_to_data },
    { "wild stack pointer", wild_stack },
    { "return to zero", return_to_zero },
    { "stack overflow", stack_overflow },
    { "unmap own code", unmap_own_code },
    { "unmap everything", unmap_everything },
    { "SIGABRT", abort_by_signal },
    { "SIGKILL", kill_by_signal },
    { "exit 42", exit_normally },
    { "exit 0x1234", exit_wide },
    { "SIGSEGV ignored", ignored_segv },
    { "SIGSEGV blocked", blocked_segv },
};

int main(void)
{
    for (unsigned i = 0; i < sizeof programs / sizeof *programs; i++) {
        int status;
        int child = checked("fork", fork_flushed());

        if (!child) {
            programs[i].run();
            quit(99);
        }
        checked("wait4", sys_wait4(child, &status, 0));
        print("%-22s ", programs[i].name);
        print_wait_status(status);
        print("\n");
    }
    return 0;
}
