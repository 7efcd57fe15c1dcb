/* Descriptors: dup, fcntl, shared offsets, vectors, locks, limits, /proc/self/fd. */
#include "probe.h"
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <termios.h>

int main(void)
{
    char buffer[100], link[4096];
    struct stat a, b;

    int fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0640);
    SAY("lowest free %d\n", fd);
    write(fd, "0123456789", 10);
    int copy = dup(fd);
    NAMED("offset of the copy", lseek(copy, 0, SEEK_CUR));
    lseek(copy, 3, SEEK_SET);
    NAMED("moves the original", lseek(fd, 0, SEEK_CUR));
    IN_CHILD("child seeks", lseek(fd, 7, SEEK_SET));
    NAMED("moves the parent's", lseek(fd, 0, SEEK_CUR));
    int again = open("file", O_RDONLY);
    NAMED("a new opening has its own", lseek(again, 0, SEEK_CUR));
    PROBE(dup2(fd, fd));
    PROBE(dup2(999, 5));
    PROBE(dup2(fd, 50));
    PROBE(dup2(fd, -1));
    PROBE(dup3(fd, fd, 0));
    PROBE(dup3(fd, 51, O_CLOEXEC));
    PROBE(fcntl(51, F_GETFD));
    PROBE(fcntl(50, F_GETFD));
    PROBE(fcntl(fd, F_DUPFD, 60));
    PROBE(fcntl(fd, F_DUPFD_CLOEXEC, 60));
    PROBE(fcntl(61, F_GETFD));
    PROBE(fcntl(61, F_SETFD, 0));
    PROBE(fcntl(61, F_GETFD));
    PROBE(fcntl(fd, F_DUPFD, -1));
    PROBE(fcntl(fd, 9999, 0));
    SAY("flags %x\n", fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK));
    PROBE(fcntl(fd, F_SETFL, O_APPEND));
    SAY("flags %x, of the copy %x\n", fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND), fcntl(copy, F_GETFL) & (O_ACCMODE | O_APPEND));
    lseek(fd, 0, SEEK_SET);
    write(copy, "END", 3);
    NAMED("appended at", lseek(fd, 0, SEEK_CUR));
    fcntl(fd, F_SETFL, 0);
    PROBE(close(copy));
    PROBE(close(copy));
    NAMED("read of write-only", read(open("w", O_WRONLY | O_CREAT, 0600), buffer, 1));
    NAMED("write of read-only", write(again, "x", 1));
    NAMED("read of a directory", read(open(".", O_RDONLY), buffer, 1));
    NAMED("path descriptor", read(open("file", O_PATH), buffer, 1));

    /* seeking */
    PROBE(lseek(fd, -1, SEEK_SET));
    PROBE(lseek(fd, 100, SEEK_SET));
    NAMED("read behind the end", read(fd, buffer, 10));
    PROBE(lseek(fd, -3, SEEK_END));
    NAMED("last three", read(fd, buffer, 10));
    PROBE(lseek(fd, 0, 99));
    PROBE(lseek(fd, 0, SEEK_DATA));
    PROBE(lseek(fd, 0, SEEK_HOLE));
    PROBE(lseek(fd, 1000, SEEK_DATA));

    /* vectors and positions */
    struct iovec vector[3] = { { "ab", 2 }, { "", 0 }, { "cde", 3 } };
    NAMED("pwritev", pwritev(fd, vector, 3, 1));
    char x[2], y[5];
    struct iovec into[2] = { { x, 2 }, { y, 5 } };
    NAMED("preadv", preadv(fd, into, 2, 0));
    SAY("%.2s %.5s\n", x, y);
    NAMED("offset untouched", lseek(fd, 0, SEEK_CUR));
    PROBE(pread(fd, buffer, 1, -1));

    /* locks belong to the process; flock's to the opening */
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 2, .l_len = 4 };
    PROBE(fcntl(fd, F_SETLK, &lock));
    IN_CHILD("record lock in the child", struct flock probe = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0 };
             PROBE(fcntl(fd, F_SETLK, &probe)); PROBE(fcntl(fd, F_GETLK, &probe));
             SAY("type %d start %ld len %ld parent's %d\n", probe.l_type, (long)probe.l_start, (long)probe.l_len, probe.l_pid == getppid());
             probe.l_start = 6; probe.l_type = F_WRLCK; PROBE(fcntl(fd, F_SETLK, &probe)));
    lock.l_type = F_UNLCK;
    PROBE(fcntl(fd, F_SETLK, &lock));
    PROBE(flock(fd, LOCK_EX));
    NAMED("another opening", flock(again, LOCK_EX | LOCK_NB));
    IN_CHILD("flock in the child, same opening", PROBE(flock(fd, LOCK_EX | LOCK_NB)));
    PROBE(flock(fd, LOCK_UN));
    NAMED("now", flock(again, LOCK_SH | LOCK_NB));

    /* names in /proc */
    snprintf(buffer, sizeof buffer, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(buffer, link, sizeof link - 1);
    link[n > 0 ? n : 0] = 0;
    SAY("link ends with file %d\n", n > 5 && !strcmp(link + n - 5, "/file"));
    int through = open(buffer, O_RDONLY);
    fstat(fd, &a);
    fstat(through, &b);
    SAY("opened through it: same inode %d\n", a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    unlink("file");
    n = readlink(buffer, link, sizeof link - 1);
    link[n > 0 ? n : 0] = 0;
    SAY("deleted %d\n", n > 10 && !strcmp(link + n - 10, " (deleted)"));
    int fds[2];
    pipe(fds);
    snprintf(buffer, sizeof buffer, "/proc/self/fd/%d", fds[0]);
    n = readlink(buffer, link, sizeof link - 1);
    SAY("pipe %d\n", n > 6 && !strncmp(link, "pipe:[", 6));

    /* not terminals */
    PROBE(isatty(fd));
    struct winsize size;
    PROBE(ioctl(fds[0], TIOCGWINSZ, &size));
    PROBE(ioctl(999, TIOCGWINSZ, &size));
    PROBE(tcgetpgrp(fd));

    /* limits */
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 70;
    PROBE(setrlimit(RLIMIT_NOFILE, &limit));
    PROBE(dup2(fd, 70));
    PROBE(fcntl(fd, F_DUPFD, 70));
    int opened = 0;
    while ((n = open("/dev/null", O_RDONLY)) >= 0)
        opened++;
    SAY("then %s, highest below 70 %d\n", strerrorname_np(errno), opened > 20);
    PROBE(close_range(30, 100, 0));
    PROBE(fcntl(50, F_GETFD));
    PROBE(close_range(10, 5, 0));
    PROBE(fcntl(fd, F_GETFD));
    return 0;
}
