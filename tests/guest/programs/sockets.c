/* Sockets inside the machine: Unix streams and datagrams, abstract names, loopback TCP and UDP. */
#include "probe.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un unix_name(const char *path)
{
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    strcpy(name.sun_path, path);
    return name;
}

int main(void)
{
    char buffer[200];
    int status;
    struct sockaddr_un name = unix_name("socket"), peer;
    socklen_t length = sizeof peer;

    signal(SIGPIPE, SIG_IGN);
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    NAMED("connect to nothing", connect(server, (struct sockaddr *)&name, sizeof name));
    PROBE(bind(server, (struct sockaddr *)&name, sizeof name));
    NAMED("name taken", bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&name, sizeof name));
    NAMED("nobody listens", connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&name, sizeof name));
    PROBE(listen(server, 5));
    struct stat s;
    stat("socket", &s);
    SAY("a socket file %d\n", S_ISSOCK(s.st_mode));
    pid_t child = fork();
    if (child == 0) {
        int client = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(client, (struct sockaddr *)&name, sizeof name) < 0)
            _exit(1);
        write(client, "request", 7);
        int n = read(client, buffer, sizeof buffer);
        _exit(n == 5 && !memcmp(buffer, "reply", 5) ? 10 : 11);
    }
    int connection = accept(server, (struct sockaddr *)&peer, &length);
    SAY("accepted %d\n", connection >= 0);
    NAMED("request", read(connection, buffer, sizeof buffer));
    struct ucred credentials;
    length = sizeof credentials;
    PROBE(getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &credentials, &length));
    SAY("peer is the child %d\n", credentials.pid == child);
    write(connection, "reply", 5);
    waitpid(child, &status, 0);
    show_status("client", status);
    NAMED("end of the stream", read(connection, buffer, sizeof buffer));
    NAMED("write to the dead", write(connection, "x", 1));
    close(connection);
    fcntl(server, F_SETFL, O_NONBLOCK);
    NAMED("accept, nobody", accept(server, NULL, NULL));
    struct pollfd poll_server = { server, POLLIN, 0 };
    NAMED("poll the server", poll(&poll_server, 1, 0));

    /* abstract names and datagrams */
    struct sockaddr_un abstract = { .sun_family = AF_UNIX, .sun_path = "\0pagewalk-test" };
    int receiver = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0);
    PROBE(bind(receiver, (struct sockaddr *)&abstract, sizeof(sa_family_t) + 14));
    NAMED("sendto", sendto(sender, "datagram", 8, 0, (struct sockaddr *)&abstract, sizeof(sa_family_t) + 14));
    NAMED("recvfrom", recvfrom(receiver, buffer, sizeof buffer, 0, NULL, NULL));
    NAMED("not connected", send(sender, "x", 1, 0));

    /* loopback */
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, from;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    PROBE(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)));
    PROBE(bind(listener, (struct sockaddr *)&address, sizeof address));
    length = sizeof address;
    PROBE(getsockname(listener, (struct sockaddr *)&address, &length));
    SAY("port chosen %d\n", ntohs(address.sin_port) > 1023);
    PROBE(listen(listener, 1));
    child = fork();
    if (child == 0) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(client, (struct sockaddr *)&address, sizeof address) < 0)
            _exit(1);
        char block[1000];
        memset(block, 'n', sizeof block);
        for (int i = 0; i < 300; i++)
            if (write(client, block, sizeof block) != sizeof block)
                _exit(2);
        shutdown(client, SHUT_WR);
        int n = read(client, buffer, sizeof buffer);
        _exit(n == 4 ? 12 : 13);
    }
    length = sizeof from;
    connection = accept(listener, (struct sockaddr *)&from, &length);
    SAY("from loopback %d\n", from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    long total = 0, n;
    while ((n = read(connection, buffer, sizeof buffer)) > 0)
        total += n;
    SAY("received %ld\n", total);
    PROBE(setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)));
    write(connection, "done", 4);
    waitpid(child, &status, 0);
    show_status("client", status);
    close(listener);
    NAMED("refused", connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address));
    int udp = socket(AF_INET, SOCK_DGRAM, 0), udp_sender = socket(AF_INET, SOCK_DGRAM, 0);
    address.sin_port = 0;
    PROBE(bind(udp, (struct sockaddr *)&address, sizeof address));
    length = sizeof address;
    getsockname(udp, (struct sockaddr *)&address, &length);
    NAMED("UDP sendto", sendto(udp_sender, "hello", 5, 0, (struct sockaddr *)&address, sizeof address));
    NAMED("UDP recv", recv(udp, buffer, sizeof buffer, 0));

    /* errors */
    PROBE(socket(9999, SOCK_STREAM, 0));
    PROBE(socket(AF_UNIX, 77, 0));
    PROBE(socket(AF_INET, SOCK_STREAM, 12345));
    PROBE(listen(1234, 1));
    PROBE(bind(0, (struct sockaddr *)&name, sizeof name));
    return 0;
}
