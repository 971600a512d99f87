/*
 * Sending bytes without copying them.
 *
 * A protobuf-c message holds a `bytes` field as pointer and length. Where a message is sent with a
 * list of lent ranges, each `bytes` field whose data pointer and length equal a range's goes to the
 * transport as a reference to that memory; every other field is copied as usual.
 *
 * Lifetime: the memory must stay as it is until `release` has been called. `release(arg)` is called
 * exactly once for each lent range, however the call ends, also when sending fails or no field
 * matches. It runs on any thread, at any later time, possibly before the sending function has
 * returned; it must not block, and must not take a lock that the caller of the sending function
 * holds.
 */
#ifndef GRPC_C_BYTES_H
#define GRPC_C_BYTES_H

#include <stddef.h>

struct grpc_c_lent {
    const void *data;
    size_t length; /* bytes; a range of length 0 is released at once */
    void (*release)(void *arg);
    void *arg;
};

#endif
