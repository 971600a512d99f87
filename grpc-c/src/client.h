/*
 * The client's insides, shared by channel.c and client_*.c.
 *
 * A channel has one queue and one thread that takes its events. A caller starts its operations
 * itself and waits on a condition variable of its own call until the thread has seen them end; so
 * blocking calls from many threads need no queue each.
 */
#ifndef GRPC_C_SRC_CLIENT_H
#define GRPC_C_SRC_CLIENT_H

#include <pthread.h>
#include <stddef.h>

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>

#include "codec.h"
#include "core.h"
#include "grpc-c/client.h"
#include "grpc-c/service.h"
#include "metadata.h"
#include "status.h"

struct grpc_c_channel {
    grpc_channel *core;
    struct gci_poller poller;
    size_t max_receive;   /* bytes of one message, also inflated */
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    grpc_c_pending *pending; /* calls whose `done` has not returned */
};

/* Cancels those calls and waits for them, client_async.c. Not on the channel's thread. */
void gci_client_end_pending(grpc_c_channel *channel);

/* A unary call: one batch with everything. Lives until its event has come. */
struct gci_unary {
    struct gci_tag tag;
    struct gci_metadata sent;
    grpc_metadata_array headers;
    grpc_byte_buffer *request;
    grpc_byte_buffer *response;
    struct gci_outcome outcome;
};

/* Serialises the request. `done` gets `tag` when the call is over. */
void gci_unary_init(struct gci_unary *unary, const ProtobufCMessage *request,
                    void (*done)(struct gci_tag *tag, bool ok));

/* The last thing done to it before its event. */
void gci_unary_start(struct gci_unary *unary, grpc_call *core,
                     const struct grpc_c_call_options *options);

/* After its event: fills `result`, frees what it has, and returns the answer, NULL where not OK. */
ProtobufCMessage *gci_unary_end(struct gci_unary *unary, const grpc_c_channel *channel,
                                const struct grpc_c_method *method, struct grpc_c_result *result);

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
