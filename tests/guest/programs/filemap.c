/* Files and their mappings: read, write, shared and private views, truncation, holes, forks. */
#include "probe.h"

static char *map(int fd, int pages, int prot, int flags)
{
    char *p = mmap(NULL, pages * PAGE, prot, flags, fd, 0);
    if (p == MAP_FAILED) {
        SAY("mmap failed: %s\n", strerrorname_np(errno));
        exit(1);
    }
    return p;
}

static void show(const char *what, const char *p)
{
    SAY("%s: %.6s\n", what, p);
}

int main(void)
{
    int fd = open("data", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char buffer[8 * PAGE];

    PROBE(ftruncate(fd, 4 * PAGE));
    char *shared = map(fd, 4, PROT_READ | PROT_WRITE, MAP_SHARED);
    char *private = map(fd, 4, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    char *readonly = map(fd, 4, PROT_READ, MAP_SHARED);

    pwrite(fd, "hello.", 6, 0);
    show("write seen shared", shared);
    show("write seen private", private);
    memcpy(shared + PAGE, "stored", 6);
    pread(fd, buffer, 6, PAGE);
    show("store seen by read", buffer);
    show("store seen private", private + PAGE);
    show("store seen read-only", readonly + PAGE);
    private[PAGE] = 'X';
    show("private copy", private + PAGE);
    show("file untouched", shared + PAGE);
    memcpy(shared + PAGE, "again!", 6);
    show("copied page no longer follows", private + PAGE);
    pwrite(fd, "UPDATE", 6, 2 * PAGE);
    show("untouched page still follows", private + 2 * PAGE);

    /* across fork */
    IN_CHILD("child writes", memcpy(shared + 2 * PAGE, "child!", 6); private[2 * PAGE] = 'c');
    show("shared after child", shared + 2 * PAGE);
    show("private after child", private + 2 * PAGE);

    /* the last page: zero behind the end, stores there are not in the file */
    PROBE(ftruncate(fd, 3 * PAGE + 100));
    memcpy(shared + 3 * PAGE, "inside", 6);
    memcpy(shared + 3 * PAGE + 200, "beyond", 6);
    NAMED("read beyond the end", pread(fd, buffer, 100, 3 * PAGE + 100));
    PROBE(ftruncate(fd, 4 * PAGE));
    pread(fd, buffer, 6, 3 * PAGE + 200);
    SAY("stored beyond the end, now %d\n", buffer[0]);
    probe_catch_faults();
    PROBE(ftruncate(fd, PAGE + 1));
    SAY("first page %d, last page %d, beyond %d", peek(shared), peek(shared + PAGE), peek(shared + 2 * PAGE));
    SAY(" code %d\n", probe_code);
    SAY("private copies beyond the end %d, store %d\n", peek(private + 2 * PAGE), poke(private + 2 * PAGE, 1));
    SAY("zero behind the end %d\n", peek(shared + PAGE + 1));
    PROBE(ftruncate(fd, 4 * PAGE));
    SAY("grown again %d %d\n", peek(shared + 2 * PAGE), peek(private + 2 * PAGE));
    SAY("read-only store %d", poke(readonly, 1));
    SAY(" code %d\n", probe_code);

    /* what may be mapped how */
    int read_fd = open("data", O_RDONLY), write_fd = open("data", O_WRONLY);
    NAMED("shared writable of read-only", mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, read_fd, 0) == MAP_FAILED ? -1 : 0);
    NAMED("private writable of read-only", mmap(NULL, PAGE, PROT_WRITE, MAP_PRIVATE, read_fd, 0) == MAP_FAILED ? -1 : 0);
    NAMED("anything of write-only", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, write_fd, 0) == MAP_FAILED ? -1 : 0);
    NAMED("closed", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED ? -1 : 0);
    NAMED("odd offset", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 1) == MAP_FAILED ? -1 : 0);
    NAMED("directory", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, open(".", O_RDONLY), 0) == MAP_FAILED ? -1 : 0);
    NAMED("neither shared nor private", mmap(NULL, PAGE, PROT_READ, 0, fd, 0) == MAP_FAILED ? -1 : 0);
    NAMED("offset overflow", mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, (off_t)0x7ffffffffffff000) == MAP_FAILED ? -1 : 0);
    char *late = map(read_fd, 1, PROT_READ, MAP_SHARED);
    PROBE(mprotect(late, PAGE, PROT_READ | PROT_WRITE));
    int devnull = open("/dev/null", O_RDWR), devzero = open("/dev/zero", O_RDWR);
    NAMED("/dev/null", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, devnull, 0) == MAP_FAILED ? -1 : 0);
    char *zero = map(devzero, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    zero[0] = 'z';
    SAY("/dev/zero %d %d\n", zero[0], zero[PAGE]);
    char *shared_zero = map(devzero, 1, PROT_READ | PROT_WRITE, MAP_SHARED);
    IN_CHILD("shared /dev/zero", shared_zero[0] = 's');
    SAY("and the parent sees %c\n", shared_zero[0]);

    /* the mapping outlives the descriptor and the name */
    char *outlives = map(fd, 1, PROT_READ | PROT_WRITE, MAP_SHARED);
    close(fd);
    unlink("data");
    memcpy(outlives, "alive!", 6);
    show("through the other descriptor", (pread(read_fd, buffer, 6, 0), buffer));

    /* a system call that reads from the mapping it writes to */
    fd = open("self", O_RDWR | O_CREAT | O_TRUNC, 0600);
    ftruncate(fd, 2 * PAGE);
    char *own = map(fd, 2, PROT_READ | PROT_WRITE, MAP_SHARED);
    memset(own, 'a', PAGE);
    NAMED("write from its own mapping", pwrite(fd, own, PAGE, PAGE));
    SAY("copied %c\n", own[PAGE + 100]);
    NAMED("read into its own mapping", pread(fd, own + 10, 100, PAGE));
    PROBE(msync(own, 2 * PAGE, MS_SYNC));
    PROBE(msync(own, 2 * PAGE, MS_ASYNC | MS_SYNC));
    PROBE(msync(own + 1, PAGE, MS_SYNC));
    munmap(own + PAGE, PAGE);
    PROBE(msync(own, 2 * PAGE, MS_SYNC));
    NAMED("write from a hole", pwrite(fd, own + PAGE - 8, 16, 0));

    /* appending, sparse files, holes */
    int append = open("append", O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
    write(append, "one", 3);
    lseek(append, 0, SEEK_SET);
    write(append, "two", 3);
    NAMED("append", pread(append, buffer, 10, 0));
    SAY("%.6s\n", buffer);
    int sparse = open("sparse", O_RDWR | O_CREAT | O_TRUNC, 0600);
    pwrite(sparse, "end", 3, 1 << 20);
    struct stat status;
    fstat(sparse, &status);
    SAY("sparse size %ld, blocks few %d\n", (long)status.st_size, status.st_blocks < 64);
    char *hole = map(sparse, 4, PROT_READ, MAP_PRIVATE);
    SAY("hole reads %d\n", peek(hole + PAGE));
    PROBE(fallocate(sparse, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, PAGE));
    NAMED("punched", pread(sparse, buffer, 3, 1 << 20));
    SAY("%d\n", buffer[0]);

    /* memfd: seals */
    int memory = memfd_create("name", MFD_ALLOW_SEALING);
    PROBE(ftruncate(memory, PAGE));
    char *sealed = map(memory, 1, PROT_READ | PROT_WRITE, MAP_SHARED);
    sealed[0] = 'm';
    NAMED("memfd read", read(memory, buffer, 1));
    PROBE(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
    PROBE(ftruncate(memory, 2 * PAGE));
    PROBE(ftruncate(memory, 0));
    PROBE(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE));
    munmap(sealed, PAGE);
    PROBE(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
    NAMED("write to sealed", pwrite(memory, "x", 1, 0));
    PROBE(fcntl(memory, F_GET_SEALS));
    return 0;
}
