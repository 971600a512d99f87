/* Credentials for core from files, and what core knows of a peer. */
#ifndef GRPC_C_SRC_TLS_H
#define GRPC_C_SRC_TLS_H

#include <stddef.h>

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include "grpc-c/tls.h"

/* The files of one listener. Lives until core's server is destroyed, which asks it by callback. */
struct gci_server_tls;

/* NULL with the cause in `error` where a file cannot be read. */
struct gci_server_tls *gci_server_tls_create(const struct grpc_c_server_tls *tls, char *error,
                                             size_t size);

/* Destroys a list of them, linked by gci_server_tls_push. Takes NULL. */
void gci_server_tls_destroy_all(struct gci_server_tls *list);
void gci_server_tls_push(struct gci_server_tls **list, struct gci_server_tls *tls);

grpc_server_credentials *gci_server_tls_credentials(struct gci_server_tls *tls);

/* NULL, with the cause logged, where a file cannot be read. */
grpc_channel_credentials *gci_channel_tls_credentials(const struct grpc_c_channel_tls *tls);

/* One piece of gpr_malloc's; NULL where the peer has proved nothing. */
struct grpc_c_identity *gci_identity(grpc_call *core);

#endif
