/* Memory accesses that may fault: SIGSEGV and SIGBUS of guarded_load, guarded_store and guarded_call become a
 * return value of -1 and a record in last_fault.  Any other fault is the program's own and kills it. */

#include "sys.h"

volatile struct fault last_fault;

extern const char guarded_start[], guarded_end[], guarded_fault[], guarded_call_fault[];
extern ulong guarded_call_sp;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    struct sigcontext *registers = (void *)&((struct ucontext *)context)->uc_mcontext;

    last_fault.signal = signal;
    last_fault.code = info->si_code;
    last_fault.address = (ulong)info->si_addr;
    if (registers->rip >= (ulong)guarded_start && registers->rip < (ulong)guarded_end) {
        registers->rip = (ulong)guarded_fault;
        return;
    }
    if (guarded_call_sp) {
        registers->rip = (ulong)guarded_call_fault;
        return;
    }
    complain("unexpected signal %d code %d\n", signal, info->si_code);
    catch_signal(signal, 0, 0); /* the default action; returning runs into the same fault again */
}

void guard_install(void)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE };

    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
        checked("rt_sigaction", catch_signal(signals[i], on_fault, 0));
}
