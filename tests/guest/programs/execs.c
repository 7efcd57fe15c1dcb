/* execve: arguments, environment, auxiliary vector, what survives, scripts, errors. */
#include "probe.h"
#include <elf.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static char self[4096];

static void show_auxv(void)
{
    static const struct { const char *name; unsigned long key; } keys[] = {
        { "PHDR", AT_PHDR }, { "BASE", AT_BASE }, { "ENTRY", AT_ENTRY }, { "RANDOM", AT_RANDOM },
        { "SYSINFO_EHDR", AT_SYSINFO_EHDR }, { "EXECFN", AT_EXECFN }, { "PLATFORM", AT_PLATFORM }, { "HWCAP", AT_HWCAP },
        { "PHNUM", AT_PHNUM },
    };
    for (unsigned i = 0; i < sizeof keys / sizeof *keys; i++)
        SAY("AT_%s set %d\n", keys[i].name, getauxval(keys[i].key) != 0);
    SAY("AT_PAGESZ %lu AT_PHENT %lu AT_CLKTCK %lu AT_FLAGS %lu AT_SECURE %lu\n", getauxval(AT_PAGESZ), getauxval(AT_PHENT),
        getauxval(AT_CLKTCK), getauxval(AT_FLAGS), getauxval(AT_SECURE));
    SAY("ids %d %d %d %d\n", getauxval(AT_UID) == getuid(), getauxval(AT_EUID) == geteuid(), getauxval(AT_GID) == getgid(),
        getauxval(AT_EGID) == getegid());
    SAY("platform %s\n", (char *)getauxval(AT_PLATFORM));
    const unsigned char *random = (unsigned char *)getauxval(AT_RANDOM);
    int different = 0;
    for (int i = 1; i < 16; i++)
        different += random[i] != random[0];
    SAY("random looks random %d\n", different > 4);
    SAY("stack aligned %d\n", ((unsigned long)__builtin_frame_address(0) & 15) == 0);
}

static int child_main(int argc, char **argv, char **envp)
{
    if (!strcmp(argv[1], "show")) {
        SAY("argc %d:", argc);
        for (int i = 2; i < argc; i++)
            SAY(" [%s]", argv[i]);
        SAY("\nenv:");
        for (int i = 0; envp[i]; i++)
            SAY(" [%s]", envp[i]);
        SAY("\nNULL after argv %d\n", argv[argc] == NULL);
    } else if (!strcmp(argv[1], "auxv")) {
        show_auxv();
    } else if (!strcmp(argv[1], "count")) {
        unsigned long bytes = 0;
        for (int i = 0; i < argc; i++)
            bytes += strlen(argv[i]) + 1;
        SAY("argc %d, more than 100000 bytes %d\n", argc, bytes > 100000);
    } else if (!strcmp(argv[1], "inherited")) {
        struct sigaction action;
        sigset_t mask, pending;
        sigaction(SIGUSR1, NULL, &action);
        SAY("SIGUSR1 default %d\n", action.sa_handler == SIG_DFL);
        sigaction(SIGUSR2, NULL, &action);
        SAY("SIGUSR2 ignored %d\n", action.sa_handler == SIG_IGN);
        sigprocmask(SIG_SETMASK, NULL, &mask);
        sigpending(&pending);
        SAY("SIGHUP blocked %d pending %d\n", sigismember(&mask, SIGHUP), sigismember(&pending, SIGHUP));
        NAMED("kept descriptor", fcntl(20, F_GETFD));
        NAMED("close-on-exec descriptor", fcntl(21, F_GETFD));
        struct rlimit limit;
        getrlimit(RLIMIT_CORE, &limit);
        SAY("limit %lu\n", (unsigned long)limit.rlim_cur);
        char name[16];
        prctl(PR_GET_NAME, name);
        SAY("name %s\n", name);
        stack_t stack;
        sigaltstack(NULL, &stack);
        SAY("alternate stack disabled %d\n", stack.ss_flags == SS_DISABLE);
        SAY("mapping gone %d\n", mincore((void *)0x10000000, PAGE, (unsigned char[1]){ 0 }) == -1 && errno == ENOMEM);
        char cwd[4096];
        SAY("same directory %d umask %o\n", getcwd(cwd, sizeof cwd) != NULL && !strcmp(strrchr(cwd, '/'), "/sub"), umask(0));
    } else if (!strcmp(argv[1], "pid")) {
        SAY("same pid %d\n", atoi(argv[2]) == getpid());
    }
    return 5;
}

static void make_file(const char *name, const char *text, int mode)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    write(fd, text, strlen(text));
    close(fd);
    chmod(name, mode);
}

#define EXEC(...) execve(self, (char *[]){ self, __VA_ARGS__, NULL }, (char *[]){ "A=1", "EMPTY=", "no-equals", NULL })

int main(int argc, char **argv, char **envp)
{
    readlink("/proc/self/exe", self, sizeof self - 1);
    if (argc > 1)
        return child_main(argc, argv, envp);
    if (!argv[0][0]) {
        SAY("argc %d, an empty name\n", argc); /* what Linux makes of an empty argv since 5.18 */
        return 6;
    }

    IN_CHILD("arguments", EXEC("show", "", "two words", "3"));
    IN_CHILD("auxv", EXEC("auxv"));
    IN_CHILD("no arguments at all", execve(self, (char *[]){ NULL }, NULL));
    IN_CHILD("pid", char pid[20]; snprintf(pid, sizeof pid, "%d", getpid()); EXEC("pid", pid));

    char *many[3001];
    many[0] = self;
    many[1] = "count";
    for (int i = 2; i < 3000; i++)
        many[i] = "an argument of some forty characters ....";
    many[3000] = NULL;
    IN_CHILD("many", execve(self, many, NULL));
    char *huge = malloc(200000);
    memset(huge, 'x', 199999);
    huge[199999] = 0;
    IN_CHILD("one argument too long", PROBE(EXEC("count", huge)));

    IN_CHILD("inherited", mkdir("sub", 0700); chdir("sub"); umask(027);
             sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = (void (*)(int))show_auxv }, NULL);
             signal(SIGUSR2, SIG_IGN); sigset_t set; sigemptyset(&set); sigaddset(&set, SIGHUP);
             sigprocmask(SIG_BLOCK, &set, NULL); raise(SIGHUP); dup2(1, 20); dup2(1, 21); fcntl(21, F_SETFD, FD_CLOEXEC);
             setrlimit(RLIMIT_CORE, &(struct rlimit){ 4096, 8192 }); prctl(PR_SET_NAME, "renamed");
             static char stack[65536]; sigaltstack(&(stack_t){ .ss_sp = stack, .ss_size = sizeof stack }, NULL);
             mmap((void *)0x10000000, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
             /* the program is built under one fixed name, so that its comm is the same everywhere */
             EXEC("inherited"));

    /* scripts */
    make_file("plain.sh", "#!/bin/sh\necho script \"$0\" \"$1\"\nexit 9\n", 0755);
    IN_CHILD("script", execl("./plain.sh", "ignored", "one", NULL));
    make_file("args.sh", "#!/bin/echo  an argument   with blanks \nnever read\n", 0755);
    IN_CHILD("script with arguments", execl("./args.sh", "x", "y", NULL));
    make_file("nested.sh", "#!./plain.sh\n", 0755);
    IN_CHILD("script of a script", execl("./nested.sh", "x", "y", NULL));
    make_file("loop.sh", "#!./loop.sh\n", 0755);
    IN_CHILD("script of itself", PROBE(execl("./loop.sh", "x", NULL)));
    make_file("lost.sh", "#!/no/such/interpreter\n", 0755);
    IN_CHILD("lost interpreter", PROBE(execl("./lost.sh", "x", NULL)));
    make_file("empty.sh", "", 0755);
    IN_CHILD("empty file", PROBE(execl("./empty.sh", "x", NULL)));
    make_file("text", "just text\n", 0755);
    IN_CHILD("text", PROBE(execl("./text", "x", NULL)));
    IN_CHILD("execlp runs text with sh", execlp("./text", "text", NULL));
    make_file("noexec", "#!/bin/sh\n", 0644);
    IN_CHILD("not executable", PROBE(execl("./noexec", "x", NULL)));
    IN_CHILD("directory", PROBE(execl("/", "x", NULL)));
    IN_CHILD("missing", PROBE(execl("./missing", "x", NULL)));
    IN_CHILD("through a file", PROBE(execl("./text/x", "x", NULL)));
    make_file("header", "\177ELF\2\1\1", 0755);
    IN_CHILD("a few bytes of ELF", PROBE(execl("./header", "x", NULL)));
    int fd = open("text", O_WRONLY);
    IN_CHILD("being written", PROBE(execl("./text", "x", NULL)));
    close(fd);
    IN_CHILD("fexecve", int exe = open(self, O_RDONLY); fexecve(exe, (char *[]){ self, "show", NULL }, (char *[]){ NULL }));
    IN_CHILD("/proc/self/exe", execl("/proc/self/exe", self, "show", "x", NULL));
    return 0;
}
