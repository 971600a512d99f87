/*
 * TLS: who proves what to whom, and where the proofs lie. All files are PEM.
 *
 * A struct and its strings are borrowed until the function that takes them returns.
 */
#ifndef GRPC_C_TLS_H
#define GRPC_C_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "grpc-c/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A server's side. The files are looked at again at each new connection, and read anew where one
 * was changed: replace them, by renaming, and no restart is needed. Connections that stand go on
 * with what they began with. While the files cannot be read, or key and certificate do not fit
 * together, as between the renaming of the one and of the other, the last good ones stay in use.
 */
struct grpc_c_server_tls {
    const char *certificate_file; /* the server's, and those between it and its authority's */
    const char *key_file;         /* the private key to it */
    const char *client_ca_file;   /* whose clients are taken: mutual TLS; NULL: clients need none */
    bool client_optional;         /* with client_ca_file: clients without a certificate, too */
    /*
     * NULL, or told of what became of changed files: `cause` is NULL where they are in use now,
     * else says which is not what it should be, once for each cause. On a polling thread, within a
     * handshake: must not block, nor call the server. Where it is NULL this is logged.
     */
    void (*reloaded)(void *arg, const char *cause);
    void *arg; /* of `reloaded`; until grpc_c_server_destroy */
};

/* A client's side. Read once, when the channel is made. */
struct grpc_c_channel_tls {
    const char *ca_file;          /* authorities that servers are checked by; NULL: the system's */
    const char *certificate_file; /* for servers that ask for one, with its key; NULL: none */
    const char *key_file;
    const char *server_name; /* the certificate is for this name; NULL: for the target's host */
};

/*
 * Whether a channel can be made with those files: that they can be read, hold certificates and a
 * key without a passphrase, which fit together. Returns 0, or -1 with the file and the cause in
 * `error` (bytes `size`, always terminated).
 */
GRPC_C_API int grpc_c_channel_tls_check(const struct grpc_c_channel_tls *tls, char *error,
                                        size_t size);

/* Whom a peer's certificate names, after it was checked: against client_ca_file, or ca_file. */
struct grpc_c_identity {
    const char *subject;     /* "CN=broker-1,O=tests" */
    const char *common_name; /* of the subject; NULL: it has none */
    const char **names;      /* subject alternative names: DNS, URI, e-mail, IP, as text */
    size_t n_names;
};

#ifdef __cplusplus
}
#endif

#endif
