/* stat and its kin: types, modes, sizes, links, times, umask, access, statx. */
#include "probe.h"
#include <dirent.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>

static void show(const char *path)
{
    struct stat s;
    if (lstat(path, &s) < 0) {
        SAY("%s: %s\n", path, strerrorname_np(errno));
        return;
    }
    SAY("%s: mode %o links %ld size %ld blksize %ld mine %d\n", path, s.st_mode, (long)s.st_nlink,
        S_ISDIR(s.st_mode) ? 0L : (long)s.st_size, (long)s.st_blksize, s.st_uid == getuid() && s.st_gid == getgid());
}

static int newer(struct timespec a, struct timespec b)
{
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

int main(void)
{
    struct stat a, b;
    umask(022);

    int fd = open("file", O_RDWR | O_CREAT, 0666);
    write(fd, "0123456789", 10);
    show("file");
    PROBE(mkdir("dir", 0777));
    show("dir");
    PROBE(mkdir("dir/sub", 0700));
    show("dir");
    PROBE(mkfifo("fifo", 0644));
    show("fifo");
    PROBE(symlink("file", "link"));
    show("link");
    PROBE(link("file", "hard"));
    show("file");
    stat("hard", &a);
    fstat(fd, &b);
    SAY("same inode %d\n", a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    PROBE(stat("link", &a));
    SAY("through the link %d\n", a.st_ino == b.st_ino);
    PROBE(unlink("hard"));
    show("file");
    PROBE(symlink("nowhere", "dangling"));
    PROBE(stat("dangling", &a));
    show("dangling");
    PROBE(stat("", &a));
    PROBE(stat("file/", &a));
    PROBE(stat("dir/", &a));
    PROBE(stat("file/x", &a));
    PROBE(stat("dir/./sub/../../file", &a));
    PROBE(fstatat(AT_FDCWD, "", &a, AT_EMPTY_PATH));
    PROBE(fstatat(fd, "", &a, AT_EMPTY_PATH));
    PROBE(fstatat(fd, "x", &a, 0));
    PROBE(fstatat(AT_FDCWD, "link", &a, AT_SYMLINK_NOFOLLOW));
    SAY("a link %d\n", S_ISLNK(a.st_mode));

    /* devices */
    static const char *const devices[] = { "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty" };
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++)
        if (stat(devices[i], &a) == 0)
            SAY("%s: type %o device %u:%u\n", devices[i], a.st_mode & S_IFMT, major(a.st_rdev), minor(a.st_rdev));
    char byte[4] = "abcd";
    fd = open("/dev/full", O_RDWR);
    NAMED("/dev/full write", write(fd, byte, 4));
    NAMED("/dev/full read", read(fd, byte, 4));
    fd = open("/dev/null", O_RDWR);
    NAMED("/dev/null write", write(fd, byte, 4));
    NAMED("/dev/null read", read(fd, byte, 4));

    /* modes */
    PROBE(chmod("file", 04751));
    show("file");
    PROBE(chmod("file", 0));
    show("file");
    PROBE(fchmodat(AT_FDCWD, "link", 0640, 0));
    show("file");
    umask(077);
    close(open("masked", O_CREAT | O_WRONLY, 0777));
    show("masked");
    umask(0);
    close(open("open", O_CREAT | O_WRONLY, 01777));
    show("open");
    SAY("umask was %o\n", umask(022));
    PROBE(access("file", R_OK | W_OK));
    PROBE(access("missing", F_OK));
    PROBE(access("file", 99));
    PROBE(faccessat(AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
    PROBE(chmod("missing", 0644));
    PROBE(chown("file", -1, -1));
    PROBE(truncate("file", 5));
    PROBE(truncate("file", -1));
    PROBE(truncate("dir", 0));
    PROBE(truncate("missing", 0));
    show("file");
    PROBE(truncate("file", 100000));
    show("file");

    /* times */
    struct timespec times[2] = { { 1000, 5 }, { 2000, 7 } };
    PROBE(utimensat(AT_FDCWD, "file", times, 0));
    stat("file", &a);
    SAY("atime %ld.%ld mtime %ld.%ld\n", (long)a.st_atim.tv_sec, a.st_atim.tv_nsec, (long)a.st_mtim.tv_sec, a.st_mtim.tv_nsec);
    times[0].tv_nsec = UTIME_OMIT;
    times[1].tv_nsec = UTIME_NOW;
    PROBE(utimensat(AT_FDCWD, "file", times, 0));
    stat("file", &b);
    SAY("atime kept %d, mtime now %d, ctime moved %d\n", b.st_atim.tv_sec == 1000, b.st_mtim.tv_sec > 1000000, !newer(a.st_ctim, b.st_ctim));
    times[1].tv_nsec = 1000000000;
    PROBE(utimensat(AT_FDCWD, "file", times, 0));
    PROBE(utimensat(AT_FDCWD, "link", (struct timespec[]){ { 1, 0 }, { 2, 0 } }, AT_SYMLINK_NOFOLLOW));
    lstat("link", &a);
    SAY("link mtime %ld\n", (long)a.st_mtim.tv_sec);
    stat("dir", &a);
    usleep(20000);
    close(open("dir/new", O_CREAT | O_WRONLY, 0600));
    stat("dir", &b);
    SAY("directory mtime moved by a new entry %d\n", newer(b.st_mtim, a.st_mtim));
    stat("file", &a);
    usleep(20000);
    fd = open("file", O_WRONLY);
    write(fd, "x", 1);
    stat("file", &b);
    SAY("mtime moved by a write %d\n", newer(b.st_mtim, a.st_mtim));
    a = b;
    usleep(20000);
    chmod("file", 0600);
    stat("file", &b);
    SAY("chmod moves ctime %d not mtime %d\n", newer(b.st_ctim, a.st_ctim), !newer(b.st_mtim, a.st_mtim));

    /* statx, statfs */
    struct statx x;
    PROBE(statx(AT_FDCWD, "file", 0, STATX_BASIC_STATS, &x));
    SAY("statx size %lld mode %o mask %d\n", (long long)x.stx_size, x.stx_mode, (x.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
    PROBE(statx(AT_FDCWD, "file", 0x8000000, STATX_SIZE, &x));
    PROBE(statx(AT_FDCWD, "missing", 0, STATX_SIZE, &x));
    struct statfs f;
    struct statvfs v;
    PROBE(statfs(".", &f));
    SAY("namelen %ld, bsize %d\n", (long)f.f_namelen, f.f_bsize >= 512);
    PROBE(statfs("missing", &f));
    PROBE(statvfs("/proc", &v));
    PROBE(statfs("/proc", &f));
    SAY("proc magic %lx\n", (long)f.f_type);
    PROBE(pathconf(".", _PC_NAME_MAX));

    /* reading links */
    char text[10];
    PROBE(readlink("link", text, 10));
    PROBE(readlink("link", text, 2));
    PROBE(readlink("file", text, 10));
    PROBE(readlink("link", text, 0));
    return 0;
}
