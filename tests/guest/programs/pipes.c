/* Pipes, polling, select, epoll, eventfd, socket pairs. */
#include "probe.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static int poll_one(int fd, int events)
{
    struct pollfd one = { fd, events, 0 };
    int n = poll(&one, 1, 0);
    return n < 0 ? n : one.revents;
}

int main(void)
{
    int fds[2], more[2], available, status;
    char buffer[70000];

    signal(SIGPIPE, SIG_IGN);
    pipe(fds);
    SAY("empty: read end %x, write end %x\n", poll_one(fds[0], POLLIN), poll_one(fds[1], POLLOUT));
    write(fds[1], "abcdef", 6);
    SAY("full: read end %x\n", poll_one(fds[0], POLLIN));
    ioctl(fds[0], FIONREAD, &available);
    SAY("available %d\n", available);
    NAMED("part", read(fds[0], buffer, 4));
    NAMED("rest", read(fds[0], buffer, 100));
    PROBE(fcntl(fds[0], F_SETFL, O_NONBLOCK));
    NAMED("nothing", read(fds[0], buffer, 1));
    PROBE(fcntl(fds[1], F_SETFL, O_NONBLOCK));
    NAMED("zero bytes", write(fds[1], "", 0));
    memset(buffer, 'p', sizeof buffer);
    NAMED("more than fits", write(fds[1], buffer, 70000));
    NAMED("no room", write(fds[1], buffer, 1));
    SAY("write end when full %x\n", poll_one(fds[1], POLLOUT));
    NAMED("drain a page", read(fds[0], buffer, 4096));
    NAMED("a page fits", write(fds[1], buffer, 4096));
    PROBE(fcntl(fds[0], F_GETPIPE_SZ));
    while (read(fds[0], buffer, sizeof buffer) > 0)
        ;
    PROBE(fcntl(fds[0], F_SETPIPE_SZ, 4096));
    NAMED("atomic", write(fds[1], buffer, 4000));
    NAMED("would not fit whole", write(fds[1], buffer, 200));
    PROBE(lseek(fds[0], 0, SEEK_SET));
    NAMED("read of the write end", read(fds[1], buffer, 1));
    NAMED("write to the read end", write(fds[0], buffer, 1));
    close(fds[1]);
    SAY("hung up %x\n", poll_one(fds[0], POLLIN));
    while ((available = read(fds[0], buffer, sizeof buffer)) > 0)
        ;
    SAY("end of file %d\n", available);
    SAY("hung up, empty %x\n", poll_one(fds[0], POLLIN));
    close(fds[0]);
    SAY("closed %x\n", poll_one(fds[0], POLLIN));
    pipe(fds);
    close(fds[0]);
    SAY("no reader %x\n", poll_one(fds[1], POLLOUT));
    NAMED("no reader", write(fds[1], "x", 1));
    close(fds[1]);

    /* writers and readers that wait for each other */
    pipe(fds);
    pid_t child = fork();
    if (child == 0) {
        close(fds[0]);
        for (int i = 0; i < 50; i++)
            write(fds[1], buffer, 7000);
        _exit(0);
    }
    close(fds[1]);
    long total = 0, n;
    while ((n = read(fds[0], buffer, 3000)) > 0)
        total += n;
    waitpid(child, &status, 0);
    SAY("through the pipe %ld\n", total);
    close(fds[0]);

    /* select */
    pipe(fds);
    fd_set readable, writable;
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    FD_SET(fds[0], &readable);
    FD_SET(fds[1], &writable);
    NAMED("select", select(fds[1] + 1, &readable, &writable, NULL, NULL));
    SAY("readable %d writable %d\n", FD_ISSET(fds[0], &readable), FD_ISSET(fds[1], &writable));
    FD_SET(fds[0], &readable);
    struct timeval timeout = { 0, 1000 };
    NAMED("select times out", select(fds[0] + 1, &readable, NULL, NULL, &timeout));
    SAY("cleared %d, left %ld\n", FD_ISSET(fds[0], &readable), (long)timeout.tv_usec);
    FD_ZERO(&readable);
    FD_SET(20, &readable);
    NAMED("select of a closed descriptor", select(21, &readable, NULL, NULL, &timeout));
    PROBE(select(-1, NULL, NULL, NULL, &timeout));
    if ((child = fork()) == 0) {
        usleep(5000);
        write(fds[1], "late", 4);
        _exit(0);
    }
    FD_ZERO(&readable);
    FD_SET(fds[0], &readable);
    NAMED("select waits", select(fds[0] + 1, &readable, NULL, NULL, NULL));
    waitpid(child, &status, 0);
    struct pollfd several[3] = { { fds[0], POLLIN, 0 }, { -1, POLLIN, 7 }, { fds[1], POLLOUT | POLLIN, 0 } };
    NAMED("poll", poll(several, 3, -1));
    SAY("%x %x %x\n", several[0].revents, several[1].revents, several[2].revents);

    /* epoll */
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { EPOLLIN, { .u32 = 11 } }, events[4];
    PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event));
    PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event));
    PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, epoll, &event));
    PROBE(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[1], &event));
    int regular = open("regular", O_RDWR | O_CREAT, 0600);
    PROBE(epoll_ctl(epoll, EPOLL_CTL_ADD, regular, &event));
    NAMED("level", epoll_wait(epoll, events, 4, 0));
    NAMED("level again", epoll_wait(epoll, events, 4, 0));
    SAY("data %d events %x\n", events[0].data.u32, events[0].events);
    event.events = EPOLLIN | EPOLLET;
    PROBE(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event));
    NAMED("edge", epoll_wait(epoll, events, 4, 0));
    NAMED("edge again", epoll_wait(epoll, events, 4, 0));
    write(fds[1], "x", 1);
    NAMED("edge after a write", epoll_wait(epoll, events, 4, 0));
    event.events = EPOLLIN | EPOLLONESHOT;
    PROBE(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &event));
    NAMED("one shot", epoll_wait(epoll, events, 4, 0));
    NAMED("one shot again", epoll_wait(epoll, events, 4, 0));
    PROBE(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[0], NULL));
    PROBE(epoll_ctl(epoll, EPOLL_CTL_DEL, fds[0], NULL));
    NAMED("empty set", epoll_wait(epoll, events, 4, 2));
    PROBE(epoll_wait(epoll, events, 0, 0));

    /* eventfd */
    int counter = eventfd(3, EFD_NONBLOCK);
    uint64_t value = 0;
    NAMED("eventfd read", read(counter, &value, 8));
    SAY("value %lu\n", (unsigned long)value);
    NAMED("eventfd empty", read(counter, &value, 8));
    value = UINT64_MAX - 1;
    NAMED("eventfd write", write(counter, &value, 8));
    value = 1;
    NAMED("eventfd full", write(counter, &value, 8));
    value = UINT64_MAX;
    NAMED("eventfd too much", write(counter, &value, 8));
    SAY("polls %x\n", poll_one(counter, POLLIN | POLLOUT));
    counter = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    read(counter, &value, 8);
    SAY("semaphore %lu", (unsigned long)value);
    read(counter, &value, 8);
    SAY(" %lu", (unsigned long)value);
    NAMED(" then", read(counter, &value, 8));

    /* socket pairs: streams, datagrams, passing a descriptor */
    socketpair(AF_UNIX, SOCK_STREAM, 0, more);
    write(more[0], "stream", 6);
    NAMED("stream part", read(more[1], buffer, 3));
    NAMED("peek", recv(more[1], buffer, 10, MSG_PEEK));
    NAMED("rest", recv(more[1], buffer, 10, 0));
    NAMED("not waiting", recv(more[1], buffer, 10, MSG_DONTWAIT));
    PROBE(shutdown(more[0], SHUT_WR));
    NAMED("shut down", read(more[1], buffer, 10));
    write(more[1], "back", 4);
    NAMED("the other way", read(more[0], buffer, 10));
    struct iovec part = { "fd", 2 };
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { { 0 } };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
    memcpy(CMSG_DATA(header), &regular, sizeof regular);
    write(regular, "passed", 6);
    NAMED("sendmsg", sendmsg(more[1], &message, 0));
    part.iov_base = buffer;
    part.iov_len = 10;
    NAMED("recvmsg", recvmsg(more[0], &message, 0));
    int passed;
    memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof passed);
    NAMED("passed descriptor reads", pread(passed, buffer, 6, 0));
    SAY("another number %d, same offset %ld\n", passed != regular, (long)lseek(passed, 0, SEEK_CUR));
    socketpair(AF_UNIX, SOCK_DGRAM, 0, more);
    write(more[0], "first", 5);
    write(more[0], "second", 6);
    NAMED("datagram", read(more[1], buffer, 3));
    NAMED("next datagram", read(more[1], buffer, 100));
    PROBE(socketpair(AF_INET, SOCK_STREAM, 0, more));

    /* sendfile, splice, tee */
    pipe(fds);
    lseek(regular, 0, SEEK_SET);
    NAMED("sendfile", sendfile(fds[1], regular, NULL, 4));
    NAMED("sent", read(fds[0], buffer, 10));
    off_t offset = 2;
    NAMED("splice in", splice(regular, &offset, fds[1], NULL, 3, 0));
    SAY("offset %ld\n", (long)offset);
    int other[2];
    pipe(other);
    NAMED("tee", tee(fds[0], other[1], 100, 0));
    NAMED("teed", read(other[0], buffer, 10));
    NAMED("still there", read(fds[0], buffer, 10));
    return 0;
}
