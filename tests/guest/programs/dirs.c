/* Names: directories, renaming, links, relative descriptors, listing, errors. */
#include "probe.h"
#include <dirent.h>
#include <limits.h>
#include <linux/fs.h>

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list(const char *path)
{
    char *names[500];
    int n = 0;
    DIR *dir = opendir(path);
    if (!dir) {
        SAY("%s: %s\n", path, strerrorname_np(errno));
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir)) && n < 500;) {
        char text[300];
        snprintf(text, sizeof text, "%s%s", entry->d_name,
                 entry->d_type == DT_DIR ? "/" : entry->d_type == DT_LNK ? "@" : entry->d_type == DT_FIFO ? "|" : "");
        names[n++] = strdup(text);
    }
    closedir(dir);
    qsort(names, n, sizeof *names, compare);
    printf("%s:", path);
    for (int i = 0; i < n; i++)
        printf(" %s", names[i]);
    printf("\n");
    fflush(stdout);
}

static void create(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    write(fd, path, strlen(path));
    close(fd);
}

static void contents(const char *path)
{
    char text[100] = "";
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        SAY("%s: %s\n", path, strerrorname_np(errno));
        return;
    }
    text[read(fd, text, sizeof text - 1)] = 0;
    close(fd);
    SAY("%s holds %s\n", path, text);
}

int main(void)
{
    char cwd[PATH_MAX], name[400];
    struct stat a, b;

    PROBE(mkdir("d", 0755));
    PROBE(mkdir("d", 0755));
    PROBE(mkdir("d/e", 0755));
    PROBE(mkdir("x/y", 0755));
    PROBE(mkdir("d/", 0755));
    PROBE(mkdir("slash/", 0755));
    PROBE(rmdir("d"));
    create("d/f");
    create("g");
    PROBE(rmdir("g"));
    PROBE(unlink("d"));
    PROBE(rmdir("."));
    PROBE(rmdir("d/e/.."));
    PROBE(rmdir("missing"));
    PROBE(unlink("missing"));
    PROBE(unlink("g/"));
    list(".");
    list("d");

    /* rename */
    PROBE(rename("g", "d/h"));
    PROBE(rename("d/f", "d/h"));
    contents("d/h");
    PROBE(rename("d", "d/e/inside"));
    PROBE(rename("d/h", "d/e"));
    PROBE(rename("d/e", "d/h"));
    PROBE(mkdir("empty", 0755));
    PROBE(rename("d/e", "empty"));
    list(".");
    PROBE(mkdir("full", 0755));
    create("full/1");
    PROBE(rename("empty", "full"));
    PROBE(rename("missing", "other"));
    PROBE(rename("d/h", "d/h"));
    link("d/h", "d/i");
    PROBE(rename("d/h", "d/i"));
    list("d");
    create("one");
    create("two");
    PROBE(renameat2(AT_FDCWD, "one", AT_FDCWD, "two", RENAME_NOREPLACE));
    PROBE(renameat2(AT_FDCWD, "one", AT_FDCWD, "two", RENAME_EXCHANGE));
    contents("one");
    PROBE(renameat2(AT_FDCWD, "one", AT_FDCWD, "three", RENAME_EXCHANGE));
    PROBE(renameat2(AT_FDCWD, "one", AT_FDCWD, "full", RENAME_EXCHANGE));
    list("one");
    PROBE(renameat2(AT_FDCWD, "one", AT_FDCWD, "full", RENAME_EXCHANGE | RENAME_NOREPLACE));

    /* links */
    PROBE(link("two", "hard"));
    PROBE(link("two", "hard"));
    PROBE(link("d", "hard2"));
    PROBE(symlink("loop2", "loop1"));
    PROBE(symlink("loop1", "loop2"));
    PROBE(open("loop1", O_RDONLY));
    PROBE(open("loop1", O_RDONLY | O_NOFOLLOW));
    PROBE(symlink("two", "to-two"));
    PROBE(link("to-two", "hard-to-link"));
    lstat("hard-to-link", &a);
    SAY("a link to the link %d\n", S_ISLNK(a.st_mode));
    PROBE(linkat(AT_FDCWD, "to-two", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    lstat("followed", &a);
    SAY("followed: a file %d links %ld\n", S_ISREG(a.st_mode), (long)a.st_nlink);
    contents("to-two");
    PROBE(symlink("", "empty-link"));
    PROBE(symlink("d/../two", "crooked"));
    contents("crooked");
    PROBE(symlink("new-file", "creates"));
    create("creates");
    contents("new-file");
    PROBE(open("creates", O_CREAT | O_EXCL | O_WRONLY, 0600));
    PROBE(symlink("nowhere/x", "lost"));
    PROBE(open("lost", O_CREAT | O_WRONLY, 0600));
    int fd = open("two", O_RDONLY), n = 0;
    for (n = 0; n < 39; n++) {
        char target[20], link_name[20];
        snprintf(target, sizeof target, n ? "chain%d" : "two", n - 1);
        snprintf(link_name, sizeof link_name, "chain%d", n);
        symlink(target, link_name);
    }
    close(fd);
    NAMED("39 links", access("chain38", F_OK));
    symlink("chain38", "chain39");
    NAMED("40 links", access("chain39", F_OK));
    symlink("chain39", "chain40");
    NAMED("41 links", access("chain40", F_OK));
    for (n = 0; n <= 40; n++) {
        snprintf(name, sizeof name, "chain%d", n);
        unlink(name);
    }

    /* names and paths at their limits */
    memset(name, 'n', 255);
    name[255] = 0;
    NAMED("name of 255", open(name, O_CREAT | O_WRONLY, 0600) >= 0 ? 0 : -1);
    NAMED("remove it", unlink(name));
    name[255] = 'n';
    name[256] = 0;
    NAMED("name of 256", open(name, O_CREAT | O_WRONLY, 0600));
    char *longpath = malloc(5000);
    for (int i = 0; i < 4094; i += 2)
        memcpy(longpath + i, "./", 2);
    strcpy(longpath + 4092, "two");
    NAMED("path of 4095", access(longpath, F_OK));
    memcpy(longpath + 4092, "./two", 6);
    NAMED("path of 4097", access(longpath, F_OK));

    /* opening */
    PROBE(open("d", O_WRONLY));
    PROBE(open("two", O_RDONLY | O_DIRECTORY));
    PROBE(open("missing", O_RDONLY));
    PROBE(open("two/x", O_RDONLY));
    PROBE(open("two", O_CREAT | O_EXCL, 0600));
    PROBE(open("d", O_CREAT, 0600));
    PROBE(open("new/", O_CREAT | O_WRONLY, 0600));
    WORKS(open(".", O_TMPFILE | O_RDWR, 0600));
    PROBE(creat("two", 0600));

    /* relative to descriptors, and a working directory that moves and vanishes */
    int dir = open("d", O_RDONLY | O_DIRECTORY);
    PROBE(mkdirat(dir, "made", 0755));
    PROBE(faccessat(dir, "made", F_OK, 0));
    PROBE(unlinkat(dir, "made", 0));
    PROBE(unlinkat(dir, "made", AT_REMOVEDIR));
    PROBE(renameat(dir, "i", AT_FDCWD, "from-d"));
    PROBE(symlinkat("../two", dir, "up"));
    PROBE(faccessat(dir, "up", F_OK, 0));
    PROBE(rename("d", "moved"));
    PROBE(faccessat(dir, "up", F_OK, 0));
    mkdir("shop", 0755);
    PROBE(chdir("shop"));
    mkdir("deeper", 0755);
    PROBE(fchdir(dir));
    getcwd(cwd, sizeof cwd);
    SAY("cwd ends with /moved %d\n", !strcmp(strrchr(cwd, '/'), "/moved"));
    PROBE(chdir("../shop/deeper"));
    PROBE(rmdir("../deeper"));
    WORKS(getcwd(cwd, sizeof cwd) ? 0 : -1);
    PROBE(open("x", O_CREAT | O_WRONLY, 0600));
    PROBE(stat(".", &a));
    SAY("links of the removed directory %ld\n", (long)a.st_nlink);
    PROBE(chdir(".."));
    PROBE(chdir("../two"));
    PROBE(chdir("/"));
    stat("/", &a);
    stat("/..", &b);
    SAY("root is its own parent %d\n", a.st_ino == b.st_ino);
    PROBE(fchdir(dir));
    PROBE(chdir(".."));

    /* a file without a name lives on */
    fd = open("two", O_RDWR);
    write(fd, "kept", 4);
    unlink("two");
    unlink("hard");
    unlink("followed");
    fstat(fd, &a);
    SAY("links %ld\n", (long)a.st_nlink);
    char text[10] = "";
    pread(fd, text, 4, 0);
    SAY("still %s\n", text);
    contents("to-two");

    /* a large directory */
    mkdir("many", 0755);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "many/entry-number-%03d", i);
        close(open(name, O_CREAT | O_WRONLY, 0600));
    }
    DIR *many = opendir("many");
    int count = 0, wrong_type = 0;
    for (struct dirent *entry; (entry = readdir(many)); count++)
        wrong_type += entry->d_name[0] != '.' && entry->d_type != DT_REG;
    rewinddir(many);
    int again = 0;
    while (readdir(many))
        again++;
    SAY("entries %d, again %d, wrong type %d\n", count, again, wrong_type);
    rewinddir(many);
    readdir(many);
    long position = telldir(many);
    struct dirent *first = readdir(many);
    strcpy(name, first->d_name);
    readdir(many);
    seekdir(many, position);
    SAY("seekdir comes back %d\n", !strcmp(readdir(many)->d_name, name));
    closedir(many);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "many/entry-number-%03d", i);
        unlink(name);
    }
    PROBE(rmdir("many"));
    char raw[20];
    NAMED("getdents with no room", syscall(SYS_getdents64, open(".", O_RDONLY), raw, sizeof raw));
    NAMED("getdents of a file", syscall(SYS_getdents64, fd, cwd, sizeof cwd));
    list(".");
    return 0;
}
