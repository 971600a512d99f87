/*
 * Bytes that are not copied, sent and received.
 *
 * Sending.
 * A protobuf-c message holds a `bytes` field as pointer and length. Where a message is sent with a
 * list of lent ranges, each `bytes` field whose data pointer and length equal a range's goes to the
 * transport as a reference to that memory; every other field is copied as usual.
 *
 * Lifetime: the memory must stay as it is until `release` has been called. `release(arg)` is called
 * exactly once for each lent range, however the call ends, also when sending fails or no field
 * matches. It runs on any thread, at any later time, possibly before the sending function has
 * returned; it must not block, and must not take a lock that the caller of the sending function
 * holds.
 *
 * Receiving. A server that has called grpc_c_server_slice_field for a method has that `bytes` field
 * of its requests left out of the message, and finds it where it came: in pieces of the transport's
 * own memory, in order, a megabyte in some twenty of them. A message compressed on its way has one;
 * one that came in many pieces of under 512 bytes on average is put together first. Nothing else is
 * copied, and every other check is made as ever before the handler is called.
 */
#ifndef GRPC_C_BYTES_H
#define GRPC_C_BYTES_H

#include <stdbool.h>
#include <stddef.h>

#include <sys/uio.h>

#include "grpc-c/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct grpc_c_lent {
    const void *data;
    size_t length; /* bytes; a range of length 0 is released at once */
    void (*release)(void *arg);
    void *arg;
};

/* One value of a `bytes` field. Not to be written to. */
struct grpc_c_bytes {
    const struct iovec *pieces; /* none is empty */
    size_t n_pieces;
    size_t length; /* of all */
};

/* What grpc_c_call_take_bytes gives: the field's values of one message, as long as one likes. */
typedef struct grpc_c_received grpc_c_received;

/* The i-th value, valid until the release; false where there are not so many. Takes NULL. */
GRPC_C_API bool grpc_c_received_bytes(const grpc_c_received *received, size_t i,
                                      struct grpc_c_bytes *bytes);

/* Bytes that are kept for the values: those of the whole message. Takes NULL. */
GRPC_C_API size_t grpc_c_received_size(const grpc_c_received *received);

/* On any thread, also after the server is gone. Takes NULL. */
GRPC_C_API void grpc_c_received_release(grpc_c_received *received);

#ifdef __cplusplus
}
#endif

#endif
