/*
 * The plaintext sockets that this library listens on by itself, instead of core.
 *
 * Core writes each answer to its socket as soon as there is one. Of a socket that we accepted we
 * know the descriptor, and can have the kernel hold back several answers until the last of them
 * (round.c): a segment and a wake-up of the client for all, at a quarter of the cost. Core takes
 * connected sockets from outside (grpc_server_add_channel_from_fd), without TLS.
 *
 *   connection   entered by                      its descriptor is
 *   SILENT       accept                          the listener's
 *   (core's)     33 bytes came, or its end       core's, which closes it
 *   (gone)       neither did in time             closed
 *
 * So many bytes an HTTP/2 client begins with; the time is handshake_timeout_ms. One thread accepts
 * and waits for them. Core knows such a connection's peer only as
 * "fd:N": who that is, is kept here until the number is another's.
 */
#ifndef GRPC_C_SRC_LISTENER_H
#define GRPC_C_SRC_LISTENER_H

#include <stddef.h>

#include "grpc-c/server.h"

struct gci_listener;
struct addrinfo;

/* Errors: an errno, or that of getaddrinfo, which is negative; gai_strerror knows it. */

/*
 * Listens on all addresses of the name, making *listener where it is NULL; 0.0.0.0, like ::, is
 * every address of both kinds. Port "0": any free one, the same for all of them. *port may be NULL.
 * 0 or an error, with nothing added.
 */
int gci_listener_add(struct gci_listener **listener, const char *host, const char *port_name,
                     int *port);

/* Accepts for the server, from now on. Returns 0, or -1 where threads or memory have run out. */
int gci_listener_start(struct gci_listener *listener, grpc_c_server *server);

/* Ends accepting and closes the sockets. The object stays, for questions. NULL or twice: nothing.
 */
void gci_listener_stop(struct gci_listener *listener);

/* Stops it. NULL is no error. */
void gci_listener_destroy(struct gci_listener *listener);

/* The number in "fd:N", core's name of a peer; -1: it is another's, whose socket core accepted. */
int gci_listener_fd(const char *core_name);

/* Writes "ipv4:127.0.0.1:50000" of the connection; false where the listener does not know it. */
bool gci_listener_peer(struct gci_listener *listener, int fd, char *text, size_t size);

#endif
