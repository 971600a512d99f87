/*
 * Metadata: named values that travel beside a call's messages, before them in either direction
 * (initial metadata, "headers") and after them from the server (trailing metadata, "trailers").
 *
 * A key that ends in "-bin" has any bytes for its value; every other key's value is printable
 * ASCII. A key may come several times; the order of its values is kept.
 *
 * Not metadata to an application, and refused where it is to be sent: the keys that begin with
 * "grpc-", and those that HTTP/2 or gRPC gives a meaning of its own (GRPC_C_METADATA_RESERVED_KEY).
 * Status details have a place in struct grpc_c_status.
 */
#ifndef GRPC_C_METADATA_H
#define GRPC_C_METADATA_H

#include <stddef.h>

#include "grpc-c/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * One entry. To be sent: borrowed until the function that takes it returns. Received: a copy that
 * belongs to what it was asked of, its value followed by a NUL that `length` does not count.
 */
struct grpc_c_metadata {
    const char *key; /* as it is on the wire: lower case */
    const void *value;
    size_t length; /* bytes of the value; not base64, which the transport sees to */
};

/*
 * What one call may send in one place, headers or trailers: the keys and values, binary ones as
 * base64, and 32 bytes an entry. Peers refuse metadata above 8 KiB, gRPC's own headers counted.
 */
#define GRPC_C_METADATA_MAX 6000u

#define GRPC_C_METADATA_MAP(X)                                                               \
    X(OK, "can be sent")                                                                     \
    X(BAD_KEY, "a key has characters a-z 0-9 - _ . and at least one")                        \
    X(RESERVED_KEY, "the key is reserved by gRPC or HTTP/2")                                 \
    X(BAD_VALUE, "a value is printable ASCII, without spaces at its ends; any other needs a" \
                 " key that ends in -bin")                                                   \
    X(TOO_LARGE, "more than 6,000 bytes of metadata")                                        \
    X(TOO_LATE, "it has been sent already")                                                  \
    X(NO_MEMORY, "out of memory")

enum grpc_c_metadata_fault {
#define GRPC_C_METADATA_FAULT(name, text) GRPC_C_METADATA_##name,
    GRPC_C_METADATA_MAP(GRPC_C_METADATA_FAULT)
#undef GRPC_C_METADATA_FAULT
};

/* For people. Never NULL. */
GRPC_C_API const char *grpc_c_metadata_fault_text(enum grpc_c_metadata_fault fault);

/* Whether one entry could be sent: OK, BAD_KEY, RESERVED_KEY, BAD_VALUE or TOO_LARGE. */
GRPC_C_API enum grpc_c_metadata_fault grpc_c_metadata_check(const struct grpc_c_metadata *entry);

/* The first of `n` entries with the key, NULL where none has it. `list` may be NULL where n is 0.
 */
GRPC_C_API const struct grpc_c_metadata *grpc_c_metadata_find(const struct grpc_c_metadata *list,
                                                              size_t n, const char *key);

#ifdef __cplusplus
}
#endif

#endif
