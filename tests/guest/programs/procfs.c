/* /proc: what programs read there, by shape and by relations between the numbers. */
#include "probe.h"
#include <ctype.h>
#include <dirent.h>

static char text[1 << 16];

static long slurp(const char *path)
{
    int fd = open(path, O_RDONLY);
    long n = 0, got;
    if (fd < 0) {
        SAY("%s: %s\n", path, strerrorname_np(errno));
        text[0] = 0;
        return -1;
    }
    while ((got = read(fd, text + n, sizeof text - 1 - n)) > 0)
        n += got;
    text[n] = 0;
    close(fd);
    return n;
}

static void keys(const char *path, const char *const *wanted)
{
    slurp(path);
    printf("%s:", path);
    for (; *wanted; wanted++) {
        const char *at = strstr(text, *wanted);
        printf(" %s%s", *wanted, at && (at == text || at[-1] == '\n') ? "" : "(missing)");
    }
    printf("\n");
    fflush(stdout);
}

static int count(const char *needle)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, needle)); at++)
        n++;
    return n;
}

static void maps(void)
{
    unsigned long start, end, last = 0, offset, inode;
    char perms[8], name[4200];
    unsigned dev_major, dev_minor;
    int sorted = 1, shaped = 1, lines = 0;

    slurp("/proc/self/maps");
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        name[0] = 0;
        int fields = sscanf(line, "%lx-%lx %4s %lx %x:%x %lu %[^\n]", &start, &end, perms, &offset, &dev_major, &dev_minor, &inode, name);
        shaped &= fields >= 7 && start < end && strlen(perms) == 4;
        shaped &= !name[0] || line[72] == ' ' || line[73] == name[0];
        sorted &= start >= last;
        last = end;
        lines++;
    }
    SAY("maps: sorted %d shaped %d, several %d\n", sorted, shaped, lines > 10);
    slurp("/proc/self/maps");
    SAY("stack %d heap %d vdso %d exe %d libc %d\n", count("[stack]"), count("[heap]"), count("[vdso]"), count("/procfs\n") >= 4,
        count("libc.so.6") >= 4);
}

static void stat_fields(void)
{
    slurp("/proc/self/stat");
    char *close_paren = strrchr(text, ')');
    char state;
    int ppid, pgrp, session, tty, tpgid;
    SAY("stat: pid %d comm %d", atoi(text) == getpid(), !strncmp(strchr(text, '('), "(procfs)", 8));
    sscanf(close_paren + 2, "%c %d %d %d %d %d", &state, &ppid, &pgrp, &session, &tty, &tpgid);
    int fields = 2;
    for (char *at = close_paren + 1; *at; at++)
        fields += *at == ' ';
    SAY(" state %c ppid %d pgrp %d session %d fields %d\n", state, ppid == getppid(), pgrp == getpgrp(), session == getsid(0), fields);
}

int main(int argc, char **argv)
{
    char path[100], link[4096];
    (void)argc;
    malloc(1000); /* a heap */

    maps();
    stat_fields();
    keys("/proc/self/status", (const char *[]){ "Name:\tprocfs", "Umask:", "State:\tR (running)", "Tgid:", "Pid:", "PPid:", "TracerPid:\t0", "Uid:", "Gid:", "FDSize:",
         "VmPeak:", "VmSize:", "VmLck:", "VmHWM:", "VmRSS:", "RssAnon:", "RssFile:", "RssShmem:", "VmData:", "VmStk:", "VmExe:", "VmLib:", "VmPTE:", "VmSwap:",
         "Threads:\t1", "SigPnd:", "SigBlk:", "SigIgn:", "SigCgt:", "CapEff:", "voluntary_ctxt_switches:", NULL });
    keys("/proc/meminfo", (const char *[]){ "MemTotal:", "MemFree:", "MemAvailable:", "Buffers:", "Cached:", "SwapCached:", "Active:", "Inactive:",
         "Mlocked:", "SwapTotal:", "SwapFree:", "Dirty:", "AnonPages:", "Mapped:", "Shmem:", "PageTables:", "CommitLimit:", "Committed_AS:", NULL });
    keys("/proc/vmstat", (const char *[]){ "nr_free_pages ", "nr_anon_pages ", "pgfault ", "pgmajfault ", "pswpin ", "pswpout ", NULL });
    keys("/proc/stat", (const char *[]){ "cpu ", "cpu0 ", "ctxt ", "btime ", "processes ", "procs_running ", NULL });
    slurp("/proc/cpuinfo");
    SAY("cpuinfo %d %d\n", count("processor\t:") >= 1, count("flags\t\t:") >= 1);
    slurp("/proc/uptime");
    SAY("uptime shaped %d\n", strchr(text, '.') && strchr(text, ' '));
    slurp("/proc/loadavg");
    SAY("loadavg shaped %d\n", count(" ") == 4 && count("/") == 1);
    slurp("/proc/mounts");
    SAY("mounts root %d proc %d\n", count(" / ") >= 1, count(" /proc ") >= 1);
    slurp("/proc/filesystems");
    SAY("filesystems %d\n", count("tmpfs") >= 1);
    slurp("/proc/version");
    SAY("version %d\n", !strncmp(text, "Linux version ", 14));
    SAY("sys: %d", slurp("/proc/sys/vm/overcommit_memory") == 2);
    slurp("/proc/sys/vm/max_map_count");
    SAY(" %d", atoi(text) > 1000);
    slurp("/proc/sys/kernel/pid_max");
    SAY(" %d", atoi(text) > 1000);
    SAY(" %d\n", slurp("/proc/sys/kernel/random/boot_id") == 37);
    slurp("/proc/self/cmdline");
    SAY("cmdline %d\n", !strcmp(text, argv[0]));
    slurp("/proc/self/environ");
    SAY("environ holds PATH %d\n", strncmp(text, "PATH=", 5) == 0 || memmem(text, sizeof text, "\0PATH=", 6) != NULL);
    slurp("/proc/self/auxv");
    SAY("auxv %d pages of %lu\n", ((unsigned long *)text)[0] != 0, PAGE);
    ssize_t n = readlink("/proc/self/exe", link, sizeof link - 1);
    link[n] = 0;
    SAY("exe %d\n", !strcmp(strrchr(link, '/'), "/procfs"));
    n = readlink("/proc/self", link, sizeof link - 1);
    link[n] = 0;
    SAY("self %d\n", atoi(link) == getpid());
    n = readlink("/proc/self/cwd", link, sizeof link - 1);
    link[n] = 0;
    char cwd[4096];
    SAY("cwd %d\n", getcwd(cwd, sizeof cwd) && !strcmp(cwd, link));
    n = readlink("/proc/self/root", link, sizeof link - 1);
    SAY("root %.*s\n", (int)n, link);
    snprintf(path, sizeof path, "/proc/%d/stat", getppid());
    SAY("parent visible %d\n", getppid() == 0 || access(path, R_OK) == 0);
    NAMED("a process that is not", access("/proc/1234567", F_OK));
    NAMED("a name that is not", access("/proc/nothing", F_OK));
    NAMED("create in /proc", open("/proc/x", O_CREAT | O_WRONLY, 0600));
    NAMED("write to maps", open("/proc/self/maps", O_WRONLY));

    int fds = 0, self_seen = 0;
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(dir));)
        if (isdigit((unsigned char)entry->d_name[0])) {
            fds++;
            self_seen |= atoi(entry->d_name) == dirfd(dir);
        }
    closedir(dir);
    SAY("descriptors at least four %d, the directory itself %d\n", fds >= 4, self_seen);
    int pids = 0, me = 0;
    dir = opendir("/proc");
    for (struct dirent *entry; (entry = readdir(dir));)
        if (isdigit((unsigned char)entry->d_name[0])) {
            pids++;
            me |= atoi(entry->d_name) == getpid();
        }
    closedir(dir);
    SAY("processes %d, me %d\n", pids >= 1, me);
    int tasks = 0;
    dir = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(dir));)
        tasks += isdigit((unsigned char)entry->d_name[0]) != 0;
    closedir(dir);
    SAY("threads %d\n", tasks);

    /* a child's files, alive and as a zombie */
    int pipe_fds[2];
    pipe(pipe_fds);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(pipe_fds[1]);
        read(pipe_fds[0], &byte, 1);
        _exit(0);
    }
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    do {
        slurp(path);
    } while (!strstr(text, ") S "));
    SAY("child sleeps\n");
    close(pipe_fds[1]);
    siginfo_t info;
    waitid(P_PID, child, &info, WEXITED | WNOWAIT);
    slurp(path);
    SAY("then a zombie %d\n", strstr(text, ") Z ") != NULL);
    snprintf(path, sizeof path, "/proc/%d/maps", child);
    SAY("without maps %ld\n", slurp(path));
    snprintf(path, sizeof path, "/proc/%d/cmdline", child);
    SAY("without arguments %ld\n", slurp(path));
    wait(NULL);
    NAMED("then nothing", access(path, F_OK));
    return 0;
}
