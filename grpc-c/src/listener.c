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
#define PORT_TRIES    8
#define GREETING      33 /* bytes that an HTTP/2 client begins with: preface, a frame of settings */

#define NOBODY (-1)

/* By its descriptor, which another has later. Silent ones are a list by age. */
struct connection {
    struct sockaddr_storage peer;
    int64_t until_ms;   /* that it may be silent */
    int next, previous; /* in the list; NOBODY: none */
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
    int oldest, youngest; /* of the silent ones; NOBODY: there is none */

    /* The accepting thread alone writes to what is below, and under the lock. */
    pthread_mutex_t lock; /* a leaf */
    struct connection *connections;
    size_t n_connections;
};

/* -- sockets ---------------------------------------------------------------------------------- */

static int port_in(const struct sockaddr *address)
{
    return ntohs(address->sa_family == AF_INET6
                     ? ((const struct sockaddr_in6 *)(const void *)address)->sin6_port
                     : ((const struct sockaddr_in *)(const void *)address)->sin_port);
}

static int port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } name;
    socklen_t length = sizeof(name);

    memset(&name, 0, sizeof(name));
    if (getsockname(fd, &name.any, &length) != 0) {
        return 0;
    }
    return port_in(&name.any);
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

/* Names may have an address twice. */
static bool is_repeated(const struct addrinfo *list, const struct addrinfo *address)
{
    for (; list != address; list = list->ai_next) {
        if (list->ai_addrlen == address->ai_addrlen &&
            memcmp(list->ai_addr, address->ai_addr, list->ai_addrlen) == 0) {
            return true;
        }
    }
    return false;
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
        if (is_repeated(list, i)) {
            continue;
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
        set_port(i->ai_addr, *port);
    }
    return listener->n_sockets > first ? 0 : error;
}

/* NULL, and errno says why. */
static struct gci_listener *create(void)
{
    struct gci_listener *listener = calloc(1, sizeof(*listener));

    if (listener == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    listener->epoll = epoll_create1(EPOLL_CLOEXEC);
    listener->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    listener->oldest = listener->youngest = NOBODY;
    listener->credentials = grpc_insecure_server_credentials_create();
    pthread_mutex_init(&listener->lock, NULL);
    if (listener->epoll < 0 || listener->wake < 0) {
        int cause = errno;
        gci_listener_destroy(listener);
        errno = cause;
        return NULL;
    }
    return listener;
}

/* Where any port will do, one that only some of the addresses have free is another try's. */
static int add_list(struct gci_listener *listener, struct addrinfo *list, int *bound)
{
    bool any = port_in(list->ai_addr) == 0;
    int error = 0;

    for (unsigned i = 0; i < PORT_TRIES; i++) {
        *bound = 0;
        error = add_all(listener, list, bound);
        if (!any || error != EADDRINUSE) {
            break;
        }
        for (struct addrinfo *address = list; address != NULL; address = address->ai_next) {
            set_port(address->ai_addr, 0);
        }
    }
    return error;
}

static int add_host(struct gci_listener *listener, const char *host, const char *port_name,
                    int *port)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int bound = 0;
    int error = getaddrinfo(host, port_name, &hints, &list);

    if (error != 0) {
        return error == EAI_SYSTEM ? errno : error;
    }
    error = add_list(listener, list, &bound);
    freeaddrinfo(list);
    if (error == 0 && port != NULL) {
        *port = bound;
    }
    return error;
}

int gci_listener_add(struct gci_listener **listener, const char *host, const char *port_name,
                     int *port)
{
    int error;

    if (*listener == NULL) {
        *listener = create();
    }
    if (*listener == NULL) {
        return errno;
    }
    if (strcmp(host, "0.0.0.0") != 0 && strcmp(host, "::") != 0) {
        return add_host(*listener, host, port_name, port);
    }
    error = add_host(*listener, "::", port_name, port); /* every address, of both kinds */
    return is_absent(error) ? add_host(*listener, "0.0.0.0", port_name, port) : error;
}

/* -- who is at the other end ------------------------------------------------------------------ */

/* Puts it behind the silent ones. False where memory has run out. */
static bool keep(struct gci_listener *listener, int fd, const struct sockaddr_storage *peer)
{
    size_t at = (size_t)fd;
    bool kept = true;

    pthread_mutex_lock(&listener->lock);
    if (at >= listener->n_connections) {
        size_t n = 2 * at + 64;
        struct connection *more = realloc(listener->connections, n * sizeof(*more));
        kept = more != NULL;
        if (kept) {
            memset(more + listener->n_connections, 0,
                   (n - listener->n_connections) * sizeof(*more));
            listener->connections = more;
            listener->n_connections = n;
        }
    }
    if (kept) {
        listener->connections[at] = (struct connection){
            .peer = *peer,
            .until_ms = gci_coarse_ms() + listener->server->options.handshake_timeout_ms,
            .next = NOBODY,
            .previous = listener->youngest};
        if (listener->youngest != NOBODY) {
            listener->connections[listener->youngest].next = fd;
        } else {
            listener->oldest = fd;
        }
        listener->youngest = fd;
    }
    pthread_mutex_unlock(&listener->lock);
    return kept;
}

/* It is not silent any more, or has been for too long. */
static void take_out(struct gci_listener *listener, int fd)
{
    struct connection *connection;

    pthread_mutex_lock(&listener->lock);
    connection = &listener->connections[fd];
    if (connection->next != NOBODY) {
        listener->connections[connection->next].previous = connection->previous;
    } else {
        listener->youngest = connection->previous;
    }
    if (connection->previous != NOBODY) {
        listener->connections[connection->previous].next = connection->next;
    } else {
        listener->oldest = connection->next;
    }
    pthread_mutex_unlock(&listener->lock);
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
        peer = (size_t)fd < listener->n_connections ? listener->connections[fd].peer : peer;
        pthread_mutex_unlock(&listener->lock);
    }
    if (peer.ss_family == AF_INET) {
        (void)inet_ntop(AF_INET, &four->sin_addr, address, sizeof(address));
        (void)snprintf(text, size, "ipv4:%s:%d", address, ntohs(four->sin_port));
    } else if (peer.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
        (void)inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], address, sizeof(address));
        (void)snprintf(text, size, "ipv4:%s:%d", address, ntohs(six->sin6_port));
    } else if (peer.ss_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &six->sin6_addr, address, sizeof(address));
        (void)snprintf(text, size, "ipv6:[%s]:%d", address, ntohs(six->sin6_port));
    }
    return peer.ss_family != AF_UNSPEC;
}

/* -- accepting -------------------------------------------------------------------------------- */

/* False where the kernel has no memory for it. */
static bool watch(struct gci_listener *listener, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};

    return epoll_ctl(listener->epoll, EPOLL_CTL_MOD, fd, &event) == 0 ||
           epoll_ctl(listener->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void set_int(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

/* It has said as much as a client begins with: from here on it is core's, be it HTTP/2 or not. */
static void hand_over(struct gci_listener *listener, int fd)
{
    (void)epoll_ctl(listener->epoll, EPOLL_CTL_DEL, fd, NULL);
    take_out(listener, fd);
    set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
    grpc_server_add_channel_from_fd(listener->server->core, fd, listener->credentials);
}

static void drop_oldest(struct gci_listener *listener)
{
    int fd = listener->oldest;

    (void)epoll_ctl(listener->epoll, EPOLL_CTL_DEL, fd, NULL);
    take_out(listener, fd);
    close(fd);
}

static void begin(struct gci_listener *listener, int fd, const struct sockaddr_storage *peer)
{
    if (!keep(listener, fd, peer)) {
        close(fd);
        return;
    }
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)listener->server->options.keepalive_timeout_ms);
    watch(listener, fd, EPOLLIN);
}

/* False where the kernel has no memory for it. */
static bool pause_accepting(struct gci_listener *listener, bool pause)
{
    bool done = true;

    listener->paused = pause;
    for (size_t i = 0; i < listener->n_sockets; i++) {
        done = watch(listener, listener->sockets[i], pause ? 0 : EPOLLIN) && done;
    }
    return done;
}

/* Those that come stay in the kernel's line; it is told once, not each time it is tried again. */
static void refuse_for_now(struct gci_listener *listener, int error)
{
    if (!listener->told) {
        gci_log(GRPC_C_LOG_ERROR, "cannot accept connections: %s", strerror(error));
    }
    listener->told = true;
    (void)pause_accepting(listener, true); /* it was watched before */
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

/* Milliseconds that the oldest silent one still has, from 0; -1: there is none. */
static int patience(const struct gci_listener *listener)
{
    int64_t left;

    if (listener->oldest == NOBODY) {
        return -1;
    }
    left = listener->connections[listener->oldest].until_ms - gci_coarse_ms();
    return left < 0 ? 0 : (int)left + 1;
}

static bool is_socket(const struct gci_listener *listener, int fd)
{
    for (size_t i = 0; i < listener->n_sockets; i++) {
        if (listener->sockets[i] == fd) {
            return true;
        }
    }
    return false;
}

/* False where it is to end. */
static bool take_event(struct gci_listener *listener, int fd)
{
    if (fd == listener->wake) {
        return false;
    }
    if (is_socket(listener, fd)) {
        accept_all(listener, fd);
    } else {
        hand_over(listener, fd);
    }
    return true;
}

static void *accept_main(void *arg)
{
    struct gci_listener *listener = arg;
    struct epoll_event events[AT_ONCE];
    bool going = true;

    while (going) {
        int n = epoll_wait(listener->epoll, events, AT_ONCE,
                           listener->paused ? OUT_OF_FDS_MS : patience(listener));
        if (listener->paused) {
            (void)pause_accepting(listener, false);
        }
        for (int i = 0; i < n && going; i++) {
            going = take_event(listener, events[i].data.fd);
        }
        while (patience(listener) == 0) {
            drop_oldest(listener);
        }
    }
    return NULL;
}

/* -- its life --------------------------------------------------------------------------------- */

int gci_listener_start(struct gci_listener *listener, grpc_c_server *server)
{
    listener->server = server;
    if (!watch(listener, listener->wake, EPOLLIN) || !pause_accepting(listener, false) ||
        gci_thread_start(&listener->thread, accept_main, listener, "grpc-c/accept") != 0) {
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
    while (listener->oldest != NOBODY) {
        drop_oldest(listener);
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
    free(listener->connections);
    free(listener);
}
