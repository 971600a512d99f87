/* Listening and accepting without core. */
#include "listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>

#include "core.h"
#include "server.h"

#define SOCKETS_MAX   32   /* that one server listens on */
#define BACKLOG       4096 /* cut down by the kernel to net.core.somaxconn */
#define AT_ONCE       64
#define OUT_OF_FDS_MS 100 /* until accepting is tried again */

/* A connection that has said nothing yet, in the list by age. */
struct silent {
    int fd;
    int64_t until_ms;
    struct silent *next, *previous;
};

struct gci_listener {
    int sockets[SOCKETS_MAX];
    size_t n_sockets;
    int epoll;
    int wake; /* an eventfd */
    pthread_t thread;
    bool running;
    bool paused; /* no descriptors were left */
    bool told;   /* and that was logged */
    grpc_c_server *server;
    grpc_server_credentials *credentials;
    struct silent silent; /* the list's head */

    pthread_mutex_t lock;           /* a leaf; guards the two below */
    struct sockaddr_storage *peers; /* by descriptor */
    size_t n_peers;
};

/* -- sockets ---------------------------------------------------------------------------------- */

static int port_of(int fd)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof(name);

    if (getsockname(fd, (struct sockaddr *)&name, &length) != 0) {
        return 0;
    }
    return ntohs(name.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&name)->sin6_port
                                            : ((struct sockaddr_in *)&name)->sin_port);
}

static void set_port(struct sockaddr *address, int port)
{
    if (address->sa_family == AF_INET6) {
        ((struct sockaddr_in6 *)(void *)address)->sin6_port = htons((uint16_t)port);
    } else {
        ((struct sockaddr_in *)(void *)address)->sin_port = htons((uint16_t)port);
    }
}

/* The socket, or an errno as a negative number. */
static int listen_on(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    int off = 0;
    int rc;

    if (fd < 0) {
        return -errno;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->ai_family == AF_INET6) { /* [::] is every address, of both kinds */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    }
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) {
        return fd;
    }
    rc = -errno;
    close(fd);
    return rc;
}

/* A machine may lack one kind of address: then a name has the others. */
static bool is_absent(int error)
{
    return error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

static void close_from(struct gci_listener *listener, size_t first)
{
    while (listener->n_sockets > first) {
        close(listener->sockets[--listener->n_sockets]);
    }
}

static int add_all(struct gci_listener *listener, const struct addrinfo *list, int *port)
{
    size_t first = listener->n_sockets;
    int error = 0;

    for (const struct addrinfo *i = list; i != NULL; i = i->ai_next) {
        int fd;
        if (*port != 0) {
            set_port(i->ai_addr, *port);
        }
        fd = listener->n_sockets < SOCKETS_MAX ? listen_on(i) : -EMFILE;
        if (fd < 0 && !is_absent(-fd)) {
            close_from(listener, first);
            return -fd;
        }
        if (fd < 0) {
            error = -fd;
            continue;
        }
        listener->sockets[listener->n_sockets++] = fd;
        *port = port_of(fd);
    }
    return listener->n_sockets > first ? 0 : error;
}

static struct gci_listener *create(void)
{
    struct gci_listener *listener = calloc(1, sizeof(*listener));

    if (listener == NULL) {
        return NULL;
    }
    listener->epoll = epoll_create1(EPOLL_CLOEXEC);
    listener->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    listener->silent.next = listener->silent.previous = &listener->silent;
    listener->credentials = grpc_insecure_server_credentials_create();
    pthread_mutex_init(&listener->lock, NULL);
    if (listener->epoll < 0 || listener->wake < 0) {
        gci_listener_destroy(listener);
        return NULL;
    }
    return listener;
}

int gci_listener_add(struct gci_listener **listener, const char *host, const char *port_name,
                     int *port)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int bound = 0;
    int error;

    if (*listener == NULL) {
        *listener = create();
    }
    if (*listener == NULL) {
        return ENOMEM;
    }
    error = getaddrinfo(host, port_name, &hints, &list);
    if (error != 0) {
        return error == EAI_SYSTEM ? errno : error;
    }
    error = add_all(*listener, list, &bound);
    freeaddrinfo(list);
    if (error == 0 && port != NULL) {
        *port = bound;
    }
    return error;
}

/* -- who is at the other end ------------------------------------------------------------------ */

/* False where memory has run out. */
static bool keep_peer(struct gci_listener *listener, int fd, const struct sockaddr_storage *peer)
{
    size_t at = (size_t)fd;
    bool kept = true;

    pthread_mutex_lock(&listener->lock);
    if (at >= listener->n_peers) {
        size_t n = 2 * at + 64;
        struct sockaddr_storage *more = realloc(listener->peers, n * sizeof(*more));
        kept = more != NULL;
        if (kept) {
            memset(more + listener->n_peers, 0, (n - listener->n_peers) * sizeof(*more));
            listener->peers = more;
            listener->n_peers = n;
        }
    }
    if (kept) {
        listener->peers[at] = *peer;
    }
    pthread_mutex_unlock(&listener->lock);
    return kept;
}

int gci_listener_fd(const char *core_name)
{
    return strncmp(core_name, "fd:", 3) == 0 ? (int)strtol(core_name + 3, NULL, 10) : -1;
}

bool gci_listener_peer(struct gci_listener *listener, int fd, char *text, size_t size)
{
    struct sockaddr_storage peer = {0};
    const struct sockaddr_in *four = (const struct sockaddr_in *)&peer;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&peer;
    char address[INET6_ADDRSTRLEN] = "";

    if (listener != NULL && fd >= 0) {
        pthread_mutex_lock(&listener->lock);
        peer = (size_t)fd < listener->n_peers ? listener->peers[fd] : peer;
        pthread_mutex_unlock(&listener->lock);
    }
    if (peer.ss_family == AF_INET) {
        (void)inet_ntop(AF_INET, &four->sin_addr, address, sizeof(address));
        (void)snprintf(text, size, "ipv4:%s:%d", address, ntohs(four->sin_port));
    } else if (peer.ss_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &six->sin6_addr, address, sizeof(address));
        (void)snprintf(text, size, "ipv6:[%s]:%d", address, ntohs(six->sin6_port));
    }
    return peer.ss_family != AF_UNSPEC;
}

/* -- accepting -------------------------------------------------------------------------------- */

static void watch(struct gci_listener *listener, int fd, void *what, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = what};

    if (epoll_ctl(listener->epoll, EPOLL_CTL_MOD, fd, &event) != 0) {
        (void)epoll_ctl(listener->epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void set_int(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

static void forget(struct silent *silent)
{
    silent->next->previous = silent->previous;
    silent->previous->next = silent->next;
    free(silent);
}

/* It has said something: from here on it is core's, also where it is not HTTP/2. */
static void hand_over(struct gci_listener *listener, struct silent *silent)
{
    int fd = silent->fd;

    (void)epoll_ctl(listener->epoll, EPOLL_CTL_DEL, fd, NULL);
    forget(silent);
    grpc_server_add_channel_from_fd(listener->server->core, fd, listener->credentials);
}

static void begin(struct gci_listener *listener, int fd, const struct sockaddr_storage *peer)
{
    const struct grpc_c_server_options *options = &listener->server->options;
    struct silent *silent = malloc(sizeof(*silent));

    if (silent == NULL || !keep_peer(listener, fd, peer)) {
        free(silent);
        close(fd);
        return;
    }
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)options->keepalive_timeout_ms);
    *silent = (struct silent){.fd = fd,
                              .until_ms = gci_coarse_ms() + options->handshake_timeout_ms,
                              .next = &listener->silent,
                              .previous = listener->silent.previous};
    silent->previous->next = silent;
    listener->silent.previous = silent;
    watch(listener, fd, silent, EPOLLIN);
}

static void pause_accepting(struct gci_listener *listener, bool pause)
{
    listener->paused = pause;
    for (size_t i = 0; i < listener->n_sockets; i++) {
        watch(listener, listener->sockets[i], &listener->sockets[i], pause ? 0 : EPOLLIN);
    }
}

/* Those that come stay in the kernel's line; it is told once, not each time it is tried again. */
static void refuse_for_now(struct gci_listener *listener, int error)
{
    if (!listener->told) {
        gci_log(GRPC_C_LOG_ERROR, "cannot accept connections: %s", strerror(error));
    }
    listener->told = true;
    pause_accepting(listener, true);
}

static void accept_all(struct gci_listener *listener, int socket)
{
    for (int i = 0; i < AT_ONCE; i++) {
        struct sockaddr_storage peer = {0};
        socklen_t length = sizeof(peer);
        int fd = accept4(socket, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            begin(listener, fd, &peer);
            listener->told = false;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            refuse_for_now(listener, errno);
            return;
        } else if (errno == EAGAIN) {
            return;
        } /* else it was this connection's fault */
    }
}

/* Milliseconds until the oldest silent one has had its time; -1: there is none. */
static int patience(const struct gci_listener *listener)
{
    const struct silent *oldest = listener->silent.next;
    int64_t left = oldest->until_ms - gci_coarse_ms();

    if (listener->paused) {
        return OUT_OF_FDS_MS;
    }
    if (oldest == &listener->silent) {
        return -1;
    }
    return left < 0 ? 0 : (int)left + 1;
}

static void drop_overdue(struct gci_listener *listener)
{
    int64_t now = gci_coarse_ms();

    while (listener->silent.next != &listener->silent && listener->silent.next->until_ms <= now) {
        close(listener->silent.next->fd);
        forget(listener->silent.next);
    }
}

static bool is_socket(const struct gci_listener *listener, const void *what)
{
    return (const int *)what >= listener->sockets &&
           (const int *)what < listener->sockets + listener->n_sockets;
}

static void *accept_main(void *arg)
{
    struct gci_listener *listener = arg;
    struct epoll_event events[AT_ONCE];

    for (;;) {
        int n = epoll_wait(listener->epoll, events, AT_ONCE, patience(listener));
        if (listener->paused) {
            pause_accepting(listener, false);
        }
        for (int i = 0; i < n; i++) {
            void *what = events[i].data.ptr;
            if (what == &listener->wake) {
                return NULL;
            }
            if (is_socket(listener, what)) {
                accept_all(listener, *(int *)what);
            } else {
                hand_over(listener, what);
            }
        }
        drop_overdue(listener);
    }
}

/* -- its life --------------------------------------------------------------------------------- */

int gci_listener_start(struct gci_listener *listener, grpc_c_server *server)
{
    listener->server = server;
    watch(listener, listener->wake, &listener->wake, EPOLLIN);
    pause_accepting(listener, false);
    if (gci_thread_start(&listener->thread, accept_main, listener, "grpc-c/accept") != 0) {
        return -1;
    }
    listener->running = true;
    return 0;
}

void gci_listener_stop(struct gci_listener *listener)
{
    uint64_t one = 1;

    if (listener == NULL) {
        return;
    }
    if (listener->running) {
        GCI_CHECK(write(listener->wake, &one, sizeof(one)) == sizeof(one));
        pthread_join(listener->thread, NULL);
        listener->running = false;
    }
    while (listener->silent.next != &listener->silent) {
        close(listener->silent.next->fd);
        forget(listener->silent.next);
    }
    close_from(listener, 0);
}

void gci_listener_destroy(struct gci_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    gci_listener_stop(listener);
    if (listener->epoll >= 0) {
        close(listener->epoll);
    }
    if (listener->wake >= 0) {
        close(listener->wake);
    }
    grpc_server_credentials_release(listener->credentials);
    pthread_mutex_destroy(&listener->lock);
    free(listener->peers);
    free(listener);
}
