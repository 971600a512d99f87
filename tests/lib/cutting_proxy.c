#include "cutting_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LEAST_BITS 4u

struct cutting_proxy {
    pthread_t thread;
    int listener;
    int stop; /* readable: end */
    char address[64];
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_in in;
    } server;
    socklen_t server_size;
    uint64_t chance;
    unsigned most_bits;
    atomic_uint cuts;
};

static void must(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        abort();
    }
}

/* xorshift64* */
static uint64_t next(struct cutting_proxy *p)
{
    p->chance ^= p->chance >> 12;
    p->chance ^= p->chance << 25;
    p->chance ^= p->chance >> 27;
    return p->chance * 0x2545f4914f6cdd1dull;
}

/* Every power of two is as likely. */
static size_t draw_bytes(struct cutting_proxy *p)
{
    unsigned bits = LEAST_BITS + (unsigned)(next(p) % (p->most_bits - LEAST_BITS));
    return ((size_t)1 << bits) + (size_t)(next(p) % ((uint64_t)1 << bits));
}

static bool send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        data += n;
        size -= (size_t)n;
    }
    return true;
}

/* False where that side has ended, or the other one does not take it. */
static bool pass(int from, int to, size_t *left)
{
    char data[16384];
    ssize_t n = recv(from, data, *left < sizeof data ? *left : sizeof data, 0);
    if (n <= 0) {
        return false;
    }
    *left -= (size_t)n;
    return send_all(to, data, (size_t)n);
}

/* True where it is cut; false where one of the three ends it before. */
static bool serve(struct cutting_proxy *p, int client, int server)
{
    size_t left = draw_bytes(p);
    struct pollfd fds[] = {{client, POLLIN, 0}, {server, POLLIN, 0}, {p->stop, POLLIN, 0}};
    while (left > 0) {
        must(poll(fds, 3, -1) > 0, "poll");
        if (fds[2].revents != 0 || (fds[0].revents != 0 && !pass(client, server, &left)) ||
            (left > 0 && fds[1].revents != 0 && !pass(server, client, &left))) {
            return false;
        }
    }
    return true;
}

static void end(struct cutting_proxy *p, int fd)
{
    const struct linger reset = {.l_onoff = 1};
    if (next(p) % 2 == 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    close(fd);
}

static void *run(void *arg)
{
    struct cutting_proxy *p = arg;
    struct pollfd fds[] = {{p->listener, POLLIN, 0}, {p->stop, POLLIN, 0}};
    for (;;) {
        must(poll(fds, 2, -1) > 0, "poll");
        if (fds[1].revents != 0) {
            return NULL;
        }
        int client = accept(p->listener, NULL, NULL);
        if (client < 0) {
            continue;
        }
        int server = socket(p->server.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        must(server >= 0, "socket");
        if (connect(server, &p->server.any, p->server_size) == 0 && serve(p, client, server)) {
            p->cuts++;
        }
        end(p, client);
        end(p, server);
    }
}

static void set_server(struct cutting_proxy *p, const char *target)
{
    const char *colon = strrchr(target, ':');
    if (strncmp(target, "unix:", 5) == 0) {
        p->server.un.sun_family = AF_UNIX;
        snprintf(p->server.un.sun_path, sizeof p->server.un.sun_path, "%s", target + 5);
        p->server_size = sizeof p->server.un;
    } else {
        p->server.in.sin_family = AF_INET;
        p->server.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        p->server.in.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
        p->server_size = sizeof p->server.in;
    }
}

struct cutting_proxy *cutting_proxy_start(const char *target, uint64_t seed, unsigned most_bits)
{
    struct cutting_proxy *p = calloc(1, sizeof *p);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof own;
    must(p != NULL, "calloc");
    set_server(p, target);
    p->chance = seed | 1;
    p->most_bits = most_bits;
    p->stop = eventfd(0, EFD_CLOEXEC);
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(p->stop >= 0 && p->listener >= 0 &&
             bind(p->listener, (struct sockaddr *)&own, sizeof own) == 0 &&
             listen(p->listener, 16) == 0 &&
             getsockname(p->listener, (struct sockaddr *)&own, &size) == 0,
         "listening");
    snprintf(p->address, sizeof p->address, "127.0.0.1:%d", ntohs(own.sin_port));
    must(pthread_create(&p->thread, NULL, run, p) == 0, "pthread_create");
    return p;
}

const char *cutting_proxy_address(const struct cutting_proxy *proxy)
{
    return proxy->address;
}

unsigned cutting_proxy_cuts(const struct cutting_proxy *proxy)
{
    return proxy->cuts;
}

void cutting_proxy_stop(struct cutting_proxy *p)
{
    must(eventfd_write(p->stop, 1) == 0, "eventfd_write");
    pthread_join(p->thread, NULL);
    close(p->listener);
    close(p->stop);
    free(p);
}
