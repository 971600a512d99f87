/* Calls of payloadstore.v1.PayloadStore as C tests want them: in and out of plain structs, every
 * failure a code. */
#ifndef TESTS_SERVICE_CLIENT_H
#define TESTS_SERVICE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "payloadstore/v1/payload_store.grpc-c.h"

struct ref {
    uint32_t file_id;
    uint64_t offset;
    uint32_t length;
    uint32_t crc32c;
};

/* (file_id, offset), for qsort and bsearch over struct ref, or structs that begin with one. */
int ref_compare(const void *a, const void *b);

enum grpc_c_code client_append(grpc_c_channel *channel, const char *store, const void *payload,
                               size_t length, Payloadstore__V1__Durability durability,
                               struct ref *ref);

/* The caller frees *payload where the code is GRPC_C_OK. */
enum grpc_c_code client_read(grpc_c_channel *channel, const char *store, const struct ref *ref,
                             uint8_t **payload, size_t *length);

enum grpc_c_code client_seal(grpc_c_channel *channel, const char *store, uint32_t *sealed_id);

uint64_t client_disk_usage(grpc_c_channel *channel, const char *store);

/* An open CompactSealed call. */
grpc_c_stream *client_compact_open(grpc_c_channel *channel, const char *store, uint32_t sealed_id);

/* Sends live refs, `stride` apart, in several messages. */
void client_compact_live(grpc_c_stream *stream, const struct ref *refs, size_t n, size_t stride);

void client_compact_commit(grpc_c_stream *stream);

/*
 * Reads the answer to its end: relocations go to `moved(arg, old, new)`, the summary to *summary
 * where the call succeeds. Ends the stream.
 */
struct client_summary {
    uint64_t live, relocated, deleted, reclaimed_bytes;
};
enum grpc_c_code client_compact_finish(grpc_c_stream *stream,
                                       void (*moved)(void *arg, const struct ref *old_ref,
                                                     const struct ref *new_ref),
                                       void *arg, struct client_summary *summary);

#endif
