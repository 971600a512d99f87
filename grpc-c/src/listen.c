/*
 * Listening. Core is lenient with addresses in ways that lose data or time: port 99999 wraps to
 * another, a unix: address takes over a live server's socket, and the cause of a failure is only
 * in the log. So addresses are checked here first.
 */
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <grpc/grpc_security.h>

#include "listener.h"
#include "server.h"

#define HOST_MAX 256

struct cause {
    char *text;
    size_t size;
};

/* `error` may be NULL. */
static struct cause cause_in(char *error, size_t size)
{
    if (error == NULL || size == 0) {
        return (struct cause){NULL, 0};
    }
    error[0] = '\0';
    return (struct cause){error, size};
}

static int refuse(const struct cause *cause, const char *format, ...) GRPC_C_PRINTF(2, 3);

static int refuse(const struct cause *cause, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (cause->size > 0) {
        (void)vsnprintf(cause->text, cause->size, format, args);
    }
    va_end(args);
    return -1;
}

/* -- host:port -------------------------------------------------------------------------------- */

static bool port_valid(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits > 0 && digits <= 5 && text[digits] == '\0' && strtol(text, NULL, 10) <= 65535;
}

/* Copies the host, without brackets; returns where the port begins. */
static const char *split(const char *address, char host[HOST_MAX])
{
    const char *colon = strrchr(address, ':');
    bool brackets = address[0] == '[';

    (void)snprintf(host, HOST_MAX, "%.*s", (int)(colon - address) - (brackets ? 2 : 0),
                   address + (brackets ? 1 : 0));
    return colon + 1;
}

/* Whether somebody listens there. What else may be wrong with the address, core finds out. */
static bool address_taken(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC, 0);
    int on = 1;
    bool taken;

    if (fd < 0) {
        return false;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)); /* as core does */
    taken = bind(fd, address->ai_addr, address->ai_addrlen) != 0 && errno == EADDRINUSE;
    close(fd);
    return taken;
}

/*
 * Core is content where one of a name's addresses can be bound: "localhost" would share its port
 * between two servers, one on 127.0.0.1 and one on ::1. So all of them must be free.
 */
static int check_free(const char *address, const struct cause *cause)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char host[HOST_MAX];
    const char *port = split(address, host);
    int rc = 0;

    if (strcmp(port, "0") == 0 || getaddrinfo(host, port, &hints, &list) != 0) {
        return 0;
    }
    for (const struct addrinfo *i = list; i != NULL && rc == 0; i = i->ai_next) {
        if (address_taken(i)) {
            rc = refuse(cause, "%s: %s", address, strerror(EADDRINUSE));
        }
    }
    freeaddrinfo(list);
    return rc;
}

static int check_host_port(const char *address, const struct cause *cause)
{
    const char *colon = strrchr(address, ':');
    size_t host = colon == NULL ? 0 : (size_t)(colon - address);

    if (colon == NULL || (address[0] == '[' && address[host - 1] != ']')) {
        return refuse(cause, "\"%s\" has no port: write host:port or unix:path", address);
    }
    if (host == 0) {
        return refuse(cause, "\"%s\" has no host: write 0.0.0.0%s for every address", address,
                      address);
    }
    if (address[0] != '[' && memchr(address, ':', host) != NULL) {
        return refuse(cause, "\"%s\": an IPv6 address stands in brackets, as in [::1]:50051",
                      address);
    }
    if (!port_valid(colon + 1)) {
        return refuse(cause, "\"%s\": the port must be a number from 0 to 65535", address);
    }
    return check_free(address, cause);
}

/* -- unix:path -------------------------------------------------------------------------------- */

/* 0: somebody answers or may, else the errno of the attempt. */
static int try_connect(const struct sockaddr_un *name)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = 0;

    if (fd < 0) {
        return errno;
    }
    if (connect(fd, (const struct sockaddr *)name, sizeof(*name)) != 0) {
        rc = errno == EAGAIN ? 0 : errno; /* EAGAIN: alive, with its backlog full */
    }
    close(fd);
    return rc;
}

static int clear_path(const struct sockaddr_un *name, const struct cause *cause)
{
    const char *path = name->sun_path;
    struct stat st;
    int rc;

    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? 0 : refuse(cause, "%s: %s", path, strerror(errno));
    }
    if (!S_ISSOCK(st.st_mode)) {
        return refuse(cause, "%s exists and is not a socket", path);
    }
    rc = try_connect(name);
    if (rc == 0) {
        return refuse(cause, "%s: a live server listens there", path);
    }
    if (rc != ECONNREFUSED && rc != ENOENT) {
        return refuse(cause, "%s: cannot tell whether it is in use: %s", path, strerror(rc));
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        return refuse(cause, "%s: cannot remove a dead server's socket: %s", path, strerror(errno));
    }
    return 0;
}

static int check_unix(const char *path, const struct cause *cause)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};

    if (strncmp(path, "//", 2) == 0) { /* unix:///absolute/path */
        path += 2;
    }
    if (path[0] == '\0') {
        return refuse(cause, "\"unix:\" needs a path");
    }
    if (strlen(path) >= sizeof(name.sun_path)) {
        return refuse(cause, "%s: a socket path has at most %zu bytes", path,
                      sizeof(name.sun_path) - 1);
    }
    memcpy(name.sun_path, path, strlen(path) + 1);
    return clear_path(&name, cause);
}

/* -- core ------------------------------------------------------------------------------------- */

/*
 * The words of the innermost error in core's log line: "Address already in use". Where that is not
 * the system's, `otherwise`, if not NULL, says better than core what is wrong.
 */
static int refuse_by_log(const struct cause *cause, const char *address, char *line,
                         const char *otherwise)
{
    static const char key[] = "os_error:\"";
    char *start = strstr(line, key);

    if (start == NULL && otherwise != NULL) {
        return refuse(cause, "%s", otherwise);
    }
    if (start == NULL) {
        return refuse(cause, "%s: %s", address, line[0] == '\0' ? "cannot listen there" : line);
    }
    start += sizeof(key) - 1;
    start[strcspn(start, "\"")] = '\0';
    return refuse(cause, "%s: %s", address, start);
}

static int check_address(grpc_c_server *server, const char *address, const struct cause *cause)
{
    GCI_CHECK(server->state == GCI_SETUP);
    return strncmp(address, "unix:", 5) == 0 ? check_unix(address + 5, cause)
                                             : check_host_port(address, cause);
}

/* Takes the credentials. */
static int bind_to(grpc_c_server *server, const char *address, grpc_server_credentials *credentials,
                   const char *otherwise, int *port, const struct cause *cause)
{
    char line[2048] = "";
    int bound;

    gci_log_capture(line, sizeof(line));
    bound = grpc_server_add_http2_port(server->core, address, credentials);
    gci_log_capture(NULL, 0);
    grpc_server_credentials_release(credentials);
    if (bound == 0) {
        return refuse_by_log(cause, address, line, otherwise);
    }
    if (port != NULL) {
        *port = bound;
    }
    return 0;
}

/* Without core, see listener.h. */
static int listen_plaintext(grpc_c_server *server, const char *address, int *port,
                            const struct cause *cause)
{
    char host[HOST_MAX];
    const char *port_name = split(address, host);
    int error = gci_listener_add(&server->listener, host, port_name, port);

    if (error == 0) {
        return 0;
    }
    return refuse(cause, "%s: %s", address, error < 0 ? gai_strerror(error) : strerror(error));
}

int grpc_c_server_listen(grpc_c_server *server, const char *address, int *port, char *error,
                         size_t size)
{
    struct cause cause = cause_in(error, size);

    if (check_address(server, address, &cause) != 0) {
        return -1;
    }
    if (strncmp(address, "unix:", 5) == 0) {
        return bind_to(server, address, grpc_insecure_server_credentials_create(), NULL, port,
                       &cause);
    }
    return listen_plaintext(server, address, port, &cause);
}

int grpc_c_server_listen_tls(grpc_c_server *server, const char *address,
                             const struct grpc_c_server_tls *tls, int *port, char *error,
                             size_t size)
{
    struct cause cause = cause_in(error, size);
    struct gci_server_tls *files;
    char text[512];

    if (check_address(server, address, &cause) != 0) {
        return -1;
    }
    files = gci_server_tls_create(tls, text, sizeof(text));
    if (files == NULL) {
        return refuse(&cause, "%s", text);
    }
    gci_server_tls_push(&server->tls, files);
    (void)snprintf(text, sizeof(text), "%s, %s: not a certificate and its key",
                   tls->certificate_file, tls->key_file);
    return bind_to(server, address, gci_server_tls_credentials(files), text, port, &cause);
}
