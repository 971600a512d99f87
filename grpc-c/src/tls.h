/* Credentials for core from files, and what core knows of a peer. */
#ifndef GRPC_C_SRC_TLS_H
#define GRPC_C_SRC_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include "grpc-c/tls.h"

/* The files of one listener. Lives until core's server is destroyed, which asks it by callback. */
struct gci_server_tls;

/* NULL with the cause in `error` where the files are not what they should be. */
struct gci_server_tls *gci_server_tls_create(const struct grpc_c_server_tls *tls, char *error,
                                             size_t size);

/* Destroys a list of them, linked by gci_server_tls_push. Takes NULL. */
void gci_server_tls_destroy_all(struct gci_server_tls *list);
void gci_server_tls_push(struct gci_server_tls **list, struct gci_server_tls *tls);

grpc_server_credentials *gci_server_tls_credentials(struct gci_server_tls *tls);

/* NULL, with the cause logged, where the files are not what they should be. */
grpc_channel_credentials *gci_channel_tls_credentials(const struct grpc_c_channel_tls *tls);

/* The texts of two files, and their paths for messages. */
struct gci_tls_pair {
    const char *certificate_file;
    const char *certificate;
    const char *key_file;
    const char *key;
};

/* False, with the file and the cause in `error`, where the key is none, or another certificate's.
 */
bool gci_tls_check_pair(const struct gci_tls_pair *pair, char *error, size_t size);

/* False, likewise, where there is no certificate in it. */
bool gci_tls_check_authorities(const char *path, const char *text, char *error, size_t size);

/* One piece of gpr_malloc's; NULL where the peer has proved nothing. */
struct grpc_c_identity *gci_identity(grpc_call *core);

#endif
