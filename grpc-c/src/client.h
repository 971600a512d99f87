/*
 * The client's insides, shared by channel.c, client_call.c and client_stream.c.
 *
 * A channel has one queue and one thread that takes its events. A caller starts its operations
 * itself and waits on a condition variable of its own call until the thread has seen them end; so
 * blocking calls from many threads need no queue each.
 */
#ifndef GRPC_C_SRC_CLIENT_H
#define GRPC_C_SRC_CLIENT_H

#include <stddef.h>

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>

#include "codec.h"
#include "core.h"
#include "grpc-c/client.h"
#include "grpc-c/service.h"
#include "metadata.h"

struct grpc_c_channel {
    grpc_channel *core;
    struct gci_poller poller;
    size_t max_receive; /* bytes of one message, also inflated */
};

/* A new call of the method, on the channel's queue; `options` may be NULL. */
grpc_call *gci_client_call(grpc_c_channel *channel, const struct grpc_c_method *method,
                           const struct grpc_c_call_options *options);

/*
 * The operation that opens it, with what it sends in `metadata`, which holds nothing and lives
 * until the operation is over. Where the options' metadata cannot be sent the call is cancelled
 * with INVALID_ARGUMENT: its batches end at once, and its status says why.
 */
grpc_op gci_client_open_op(grpc_call *core, const struct grpc_c_call_options *options,
                           struct gci_metadata *metadata);

/*
 * Unpacks what a server answered; takes `buffer`. A client trusts its server as to memory, whose
 * messages it asked for and bounds by max_receive_bytes. NULL with the cause in `error`:
 * RESOURCE_EXHAUSTED where it inflates to more, else INTERNAL.
 */
ProtobufCMessage *gci_client_unpack(const grpc_c_channel *channel,
                                    const struct grpc_c_method *method, grpc_byte_buffer *buffer,
                                    struct gci_error *error);

#endif
