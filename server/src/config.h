/*
 * The server's settings: flags, and for each an environment variable of the same name.
 *
 * A flag wins over its variable, a variable over the default. An empty variable counts as unset.
 */
#ifndef PAYLOADSTORED_CONFIG_H
#define PAYLOADSTORED_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include <payloadstore/payloadstore.h>

#include "log.h"

/* Zeroed before psd_config_parse; owns all it points to. */
struct psd_config {
    char **listen; /* "host:port" or "unix:path", at least one, in the order given */
    size_t n_listen;
    char *tls_cert;      /* of the host:port listeners; NULL: they are plaintext */
    char *tls_key;       /* NULL where tls_cert is */
    char *tls_client_ca; /* whose clients are taken; NULL: all */
    char *data_dir;
    uint64_t segment_max_bytes;
    uint32_t payload_max_bytes;
    enum pls_durability durability;           /* where a request leaves it open */
    unsigned threads;                         /* that poll the network */
    uint64_t reserve_bytes;                   /* as in pls_options */
    uint64_t compaction_max_bytes_per_second; /* as in pls_options */
    unsigned drain_seconds;
    enum psd_log_level log_level;
    enum psd_log_format log_format;
};

/* "payloadstored 0.1.0" is --version's answer, this the number. */
extern const char psd_version[];

/*
 * Fills `config` from the command line and the environment. Does not return from --help and
 * --version, which print to standard output and exit with 0, nor from a bad value, an unknown
 * argument or one of TLS's without the others it takes, which get a line on standard error and exit
 * with 2. Files are not looked at. Not thread-safe.
 */
void psd_config_parse(struct psd_config *config, int argc, char **argv);

void psd_config_fini(struct psd_config *config);

#endif
