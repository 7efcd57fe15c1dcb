/* Identities, prctl, names, scheduling, system information: what programs ask at their start. */
#include "probe.h"
#include <grp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/personality.h>
#include <linux/membarrier.h>
#include <linux/capability.h>

int main(void)
{
    uid_t r, e, s;
    char name[16];
    struct utsname uts;
    struct sysinfo info;
    gid_t groups[64];

    SAY("ids agree %d %d\n", getuid() == geteuid(), getgid() == getegid());
    PROBE(getresuid(&r, &e, &s));
    SAY("all the same %d\n", r == e && e == s);
    WORKS(getgroups(64, groups));
    PROBE(syscall(SYS_getgroups, -1, groups));
    if (getuid() == 0)
        IN_CHILD("drop privileges", PROBE(setgroups(0, NULL)); PROBE(setresgid(100, 100, 100)); PROBE(setresuid(1000, 1000, 1000));
                 SAY("%d %d\n", getuid(), getgid()); PROBE(setuid(0)); PROBE(setresuid(-1, -1, -1)); PROBE(seteuid(1000));
                 PROBE(chown("/", 0, 0)); PROBE(open("/etc/shadow", O_RDONLY)); PROBE(kill(1, 0)); PROBE(setpriority(PRIO_PROCESS, 0, -5));
                 PROBE(sethostname("x", 1)); PROBE(mknod("node", S_IFCHR | 0600, 0)));
    if (getuid() == 0)
        IN_CHILD("set-user dance", PROBE(seteuid(1000)); SAY("%d %d\n", getuid(), geteuid()); PROBE(seteuid(0)); PROBE(setreuid(500, 600));
                 getresuid(&r, &e, &s); SAY("%d %d %d\n", r, e, s); PROBE(setuid(500)); getresuid(&r, &e, &s); SAY("%d %d %d\n", r, e, s));

    PROBE(prctl(PR_SET_NAME, "a-name-longer-than-fifteen"));
    prctl(PR_GET_NAME, name);
    SAY("name %s\n", name);
    char comm[32] = "";
    int fd = open("/proc/self/comm", O_RDONLY);
    comm[read(fd, comm, sizeof comm - 1)] = 0;
    SAY("comm %s", comm);
    PROBE(prctl(PR_GET_DUMPABLE));
    PROBE(prctl(PR_SET_DUMPABLE, 0));
    PROBE(prctl(PR_GET_DUMPABLE));
    PROBE(prctl(PR_SET_DUMPABLE, 7));
    PROBE(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    PROBE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    PROBE(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    int signal = -1;
    PROBE(prctl(PR_SET_PDEATHSIG, SIGHUP));
    PROBE(prctl(PR_GET_PDEATHSIG, &signal));
    SAY("death signal %d\n", signal);
    PROBE(prctl(12345678));
    PROBE(prctl(PR_CAPBSET_READ, 1000));

    PROBE(uname(&uts));
    SAY("%s %s, release has a dot %d\n", uts.sysname, uts.machine, strchr(uts.release, '.') != NULL);
    PROBE(sysinfo(&info));
    SAY("ram %d free less %d unit %u procs %d\n", info.totalram > 0, info.freeram <= info.totalram, info.mem_unit, info.procs > 0);
    PROBE(sysconf(_SC_PAGESIZE));
    SAY("processors %d\n", sysconf(_SC_NPROCESSORS_ONLN) >= 1);
    cpu_set_t set;
    SAY("affinity size %d\n", sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) >= 1);
    PROBE(sched_setaffinity(0, sizeof set, &set));
    CPU_ZERO(&set);
    PROBE(sched_setaffinity(0, sizeof set, &set));
    WORKS(sched_getcpu());
    PROBE(sched_yield());
    PROBE(sched_getscheduler(0));
    PROBE(sched_getscheduler(1234567));
    PROBE(sched_get_priority_max(SCHED_FIFO));
    PROBE(getpriority(PRIO_PROCESS, 0));
    PROBE(nice(3));
    PROBE(getpriority(PRIO_PROCESS, 0));
    PROBE(setpriority(PRIO_PROCESS, 0, 100));
    PROBE(getpriority(PRIO_PROCESS, 0));
    PROBE(getpriority(99, 0));
    PROBE(personality(0xffffffff));
    WORKS(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0));
    PROBE(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    PROBE(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    PROBE(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    PROBE(syscall(SYS_membarrier, 12345, 0, 0));
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    PROBE(syscall(SYS_capget, &header, data));
    header.version = 1;
    PROBE(syscall(SYS_capget, &header, NULL));
    SAY("preferred version %x\n", header.version);
    PROBE(gethostname(name, 1));
    char random[8] = "", more[8] = "";
    PROBE(getentropy(random, 8));
    PROBE(syscall(SYS_getrandom, more, 8, 1));
    SAY("random differs %d\n", memcmp(random, more, 8) != 0);
    PROBE(syscall(SYS_getrandom, more, 8, 0x100));
    PROBE(syscall(SYS_getrandom, (char *)8, 8, 0));
    PROBE(syscall(9999));
    PROBE(syscall(-1));
    return 0;
}
