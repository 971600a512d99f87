/*
 * The client's insides, shared by channel.c and client_*.c.
 *
 * A channel has one queue and one thread that takes its events. A caller starts its operations
 * itself and waits on a condition variable of its own call until the thread has seen them end, so
 * blocking calls from many threads need no queue each; or it does not wait, and the thread calls
 * its functions.
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
    size_t max_send;      /* before it is compressed */
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    struct gci_handle *handles; /* calls whose last callback has not returned */
    bool closing;               /* no more of them */
};

/* -- calls that nobody waits for, client_handle.c --------------------------------------------- */

/*
 * What such a call and its caller both hold: the call until its last callback has returned, the
 * caller until he releases it.
 */
struct gci_handle {
    const struct gci_handle_type *type;
    grpc_c_channel *channel;
    struct gci_handle *next;  /* the channel's lock */
    struct gci_handle **link; /* the channel's lock: what points to this one */
    atomic_uint holders;
};

struct gci_handle_type {
    void (*cancel)(struct gci_handle *handle); /* under the channel's lock, also when it is over */
    void (*destroy)(struct gci_handle *handle);
};

/* Lists it with its channel. Returns 0, or -1 where the channel is being destroyed. */
int gci_handle_init(struct gci_handle *handle, const struct gci_handle_type *type,
                    grpc_c_channel *channel, unsigned holders);

/* The last callback has returned: off the list, and one holder less. */
void gci_handle_done(struct gci_handle *handle);

void gci_handle_release(struct gci_handle *handle);

/* Cancels all calls, waits for them, and has no more. Not on the channel's thread. */
void gci_client_end_handles(grpc_c_channel *channel);

/* -- unary calls ------------------------------------------------------------------------------ */

/* A unary call: one batch with everything. Lives until its event has come. */
struct gci_unary {
    struct gci_tag tag;
    struct gci_metadata sent;
    grpc_metadata_array headers;
    grpc_byte_buffer *request;
    grpc_byte_buffer *response;
    struct gci_outcome outcome;
    grpc_call *core;
    bool tell_peer;
};

/* Serialises the request. `done` gets `tag` when the call is over. */
void gci_unary_init(struct gci_unary *unary, const ProtobufCMessage *request,
                    const struct grpc_c_call_options *options,
                    void (*done)(struct gci_tag *tag, bool ok));

/* The last thing done to it before its event. Borrows `core` until gci_unary_end. */
void gci_unary_start(struct gci_unary *unary, const grpc_c_channel *channel, grpc_call *core,
                     const struct grpc_c_call_options *options);

/* After its event: fills `result`, frees what it has, and returns the answer, NULL where not OK. */
ProtobufCMessage *gci_unary_end(struct gci_unary *unary, const grpc_c_channel *channel,
                                const struct grpc_c_method *method, struct grpc_c_result *result);

/* -- streams, client_stream.c ----------------------------------------------------------------- */

/* One thing to send. Lent by the face from gci_stream_send until its `sent`. */
struct gci_send {
    struct gci_send *next;
    grpc_byte_buffer *buffer; /* owned; NULL: the half-close */
    uint32_t flags;
};

struct gci_stream;

/* What follows from a stream's events: on the channel's thread, one at a time, without locks. */
struct gci_stream_face {
    void (*opened)(struct gci_stream *stream); /* once, first: headers there, or not to come */
    void (*received)(struct gci_stream *stream, grpc_byte_buffer *message); /* NULL: the end */
    void (*sent)(struct gci_stream *stream, struct gci_send *send, bool ok);
    void (*over)(struct gci_stream *stream); /* once, last: nothing is in flight */
};

struct gci_stream {
    const struct gci_stream_face *face;
    const grpc_c_channel *channel;
    const struct grpc_c_method *method;
    pthread_mutex_t lock; /* guards each grpc_call_start_batch, and what says so */
    grpc_call *core;      /* lock; NULL once ended */
    struct gci_tag open_tag;
    struct gci_tag send_tag;
    struct gci_tag read_tag;
    struct gci_tag status_tag;
    unsigned in_flight;     /* lock */
    struct gci_send *first; /* lock: in flight; behind it those that wait */
    struct gci_send *last;  /* lock; of no meaning where there is no first */
    unsigned wanted;        /* lock: messages asked for; the first one's read is in flight */
    bool closed;            /* lock: nothing more is sent */
    bool ended;             /* lock: nothing more is read */
    bool over;              /* lock: the status is there */
    bool plain;             /* lock: messages go uncompressed */
    bool tell_peer;
    bool refused; /* lock: by us, for `why` */
    bool opened;  /* channel's thread */
    bool early;   /* channel's thread: a message came before the headers' event */
    struct gci_error why;
    struct gci_metadata metadata;
    grpc_metadata_array headers;
    struct gci_received received_headers; /* copied when first asked for */
    grpc_byte_buffer *received;
    struct gci_outcome outcome;
};

void gci_stream_init(struct gci_stream *stream, grpc_c_channel *channel,
                     const struct grpc_c_method *method, const struct grpc_c_call_options *options,
                     const struct gci_stream_face *face);

/* From here on events come. */
void gci_stream_begin(struct gci_stream *stream, const struct grpc_c_call_options *options);

/* Queues. Returns 0, and `sent` follows; or -1 where nothing can be sent any more. */
int gci_stream_send(struct gci_stream *stream, struct gci_send *send);

/* Asks for one more message. Returns 0, and `received` follows but where a message before it was
 * the last; or -1 where nothing more comes. */
int gci_stream_read(struct gci_stream *stream);

void gci_stream_skip_compression(struct gci_stream *stream, bool skip);

/* At any time between init and the stream's memory's end. */
void gci_stream_cancel(struct gci_stream *stream);

/* Cancels, and puts this in the place of the status. */
void gci_stream_refuse(struct gci_stream *stream, const struct gci_error *why);

/* The message; NULL where it cannot be read, and the call is refused. Takes `buffer`. */
ProtobufCMessage *gci_stream_unpack(struct gci_stream *stream, grpc_byte_buffer *buffer);

/* Not before `opened`, and by one thread at a time. */
const struct gci_received *gci_stream_headers(struct gci_stream *stream);

/* After `over`: fills `result`, which holds nothing, and lets go of all but the lock. */
void gci_stream_end(struct gci_stream *stream, struct grpc_c_result *result);

/* -- all calls, channel.c --------------------------------------------------------------------- */

/* A new call of the method, on the channel's queue; `options` may be NULL. */
grpc_call *gci_client_call(grpc_c_channel *channel, const struct grpc_c_method *method,
                           const struct grpc_c_call_options *options);

/* Packs the request of a call that begins with one, with what the options lend. */
grpc_byte_buffer *gci_client_pack(const ProtobufCMessage *request,
                                  const struct grpc_c_call_options *options);

/* Gives that back where the call does not begin. */
void gci_client_give_back(const struct grpc_c_call_options *options);

/* False where the message is too large: the call is cancelled with RESOURCE_EXHAUSTED. */
bool gci_client_may_send(const grpc_c_channel *channel, grpc_call *core,
                         const grpc_byte_buffer *message);

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
