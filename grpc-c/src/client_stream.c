/*
 * What blocking and asynchronous streams share: a call's operations and the order of their events.
 *
 * Three operations may be in flight at once: a send (a message or the half-close), a read, and from
 * the beginning to the end the status; and at first the one that opens the call. Each has a tag;
 * `in_flight` counts them. When the status is there nothing more is started, so that the count
 * reaches 0 once.
 *
 *   sending side   open --half-close queued, or a send that failed--> closed
 *   reading side   open --end of stream, or an unreadable message--> ended
 *   call           running --status--> over --nothing in flight--> face->over, the last event
 */
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/support/alloc.h>

#include "client.h"
#include "codec.h"
#include "status.h"

/* -- operations; all under the lock ----------------------------------------------------------- */

static void start(struct gci_stream *stream, const grpc_op *ops, size_t n, struct gci_tag *tag)
{
    stream->in_flight++;
    GCI_CHECK(grpc_call_start_batch(stream->core, ops, n, gci_tag_arm(tag), NULL) == GRPC_CALL_OK);
}

static void start_send(struct gci_stream *stream)
{
    grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

    if (stream->first->buffer != NULL) {
        op.op = GRPC_OP_SEND_MESSAGE;
        op.flags = stream->first->flags;
        op.data.send_message.send_message = stream->first->buffer;
    }
    start(stream, &op, 1, &stream->send_tag);
}

static void start_read(struct gci_stream *stream)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

    op.data.recv_message.recv_message = &stream->received;
    start(stream, &op, 1, &stream->read_tag);
}

/* -- events, on the channel's thread ---------------------------------------------------------- */

static void event_end(struct gci_stream *stream)
{
    bool last;

    pthread_mutex_lock(&stream->lock);
    last = --stream->in_flight == 0;
    pthread_mutex_unlock(&stream->lock);
    if (last) {
        stream->face->over(stream);
    }
}

static void deliver(struct gci_stream *stream)
{
    grpc_byte_buffer *buffer = stream->received;

    stream->received = NULL;
    pthread_mutex_lock(&stream->lock);
    stream->wanted--;
    stream->ended = stream->ended || buffer == NULL;
    if (stream->wanted > 0 && !stream->ended && !stream->over) {
        start_read(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    stream->face->received(stream, buffer);
    event_end(stream);
}

static void on_open(struct gci_tag *tag, bool ok)
{
    struct gci_stream *stream = gci_container_of(tag, struct gci_stream, open_tag);

    (void)ok;
    stream->opened = true;
    stream->face->opened(stream);
    if (stream->early) {
        deliver(stream);
    }
    event_end(stream);
}

/* The headers' event may come behind the first message's: the face sees them in their order. */
static void on_read(struct gci_tag *tag, bool ok)
{
    struct gci_stream *stream = gci_container_of(tag, struct gci_stream, read_tag);

    (void)ok; /* then nothing was received */
    if (stream->opened) {
        deliver(stream);
    } else {
        stream->early = true;
    }
}

static void on_sent(struct gci_tag *tag, bool ok)
{
    struct gci_stream *stream = gci_container_of(tag, struct gci_stream, send_tag);
    struct gci_send *send;

    pthread_mutex_lock(&stream->lock);
    send = stream->first;
    stream->first = send->next;
    stream->closed = stream->closed || !ok;
    if (stream->first != NULL) { /* those behind one that failed fail as well */
        start_send(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    grpc_byte_buffer_destroy(send->buffer);
    stream->face->sent(stream, send, ok);
    event_end(stream);
}

static void on_status(struct gci_tag *tag, bool ok)
{
    struct gci_stream *stream = gci_container_of(tag, struct gci_stream, status_tag);

    (void)ok;
    pthread_mutex_lock(&stream->lock);
    stream->over = true;
    pthread_mutex_unlock(&stream->lock);
    event_end(stream);
}

/* -- for the faces ---------------------------------------------------------------------------- */

void gci_stream_init(struct gci_stream *stream, grpc_c_channel *channel,
                     const struct grpc_c_method *method, const struct grpc_c_call_options *options,
                     const struct gci_stream_face *face)
{
    memset(stream, 0, sizeof(*stream));
    stream->face = face;
    stream->channel = channel;
    stream->method = method;
    pthread_mutex_init(&stream->lock, NULL);
    gci_tag_init(&stream->open_tag, on_open);
    gci_tag_init(&stream->send_tag, on_sent);
    gci_tag_init(&stream->read_tag, on_read);
    gci_tag_init(&stream->status_tag, on_status);
    grpc_metadata_array_init(&stream->headers);
    gci_outcome_init(&stream->outcome);
    stream->tell_peer = options != NULL && options->tell_peer;
    stream->core = gci_client_call(channel, method, options);
}

void gci_stream_begin(struct gci_stream *stream, const struct grpc_c_call_options *options)
{
    grpc_op open[2] = {gci_client_open_op(stream->core, options, &stream->metadata),
                       {.op = GRPC_OP_RECV_INITIAL_METADATA}};
    grpc_op status = gci_outcome_op(&stream->outcome);

    open[1].data.recv_initial_metadata.recv_initial_metadata = &stream->headers;
    pthread_mutex_lock(&stream->lock);
    start(stream, open, 2, &stream->open_tag);
    start(stream, &status, 1, &stream->status_tag);
    pthread_mutex_unlock(&stream->lock);
}

/* Under the lock. */
static bool may_send(struct gci_stream *stream, const grpc_byte_buffer *message)
{
    stream->closed = !gci_client_may_send(stream->channel, stream->core, message);
    return !stream->closed;
}

int gci_stream_send(struct gci_stream *stream, struct gci_send *send)
{
    bool open;

    pthread_mutex_lock(&stream->lock);
    open = !stream->closed && !stream->over &&
           (send->buffer == NULL || may_send(stream, send->buffer));
    if (open) {
        send->next = NULL;
        send->flags = stream->plain ? GRPC_WRITE_NO_COMPRESS : 0;
        if (stream->first == NULL) {
            stream->first = send;
            start_send(stream);
        } else {
            stream->last->next = send;
        }
        stream->last = send;
    }
    stream->closed = stream->closed || send->buffer == NULL;
    pthread_mutex_unlock(&stream->lock);
    return open ? 0 : -1;
}

int gci_stream_read(struct gci_stream *stream)
{
    bool open;

    pthread_mutex_lock(&stream->lock);
    open = !stream->ended && !stream->over;
    if (open && stream->wanted++ == 0) {
        start_read(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    return open ? 0 : -1;
}

void gci_stream_skip_compression(struct gci_stream *stream, bool skip)
{
    pthread_mutex_lock(&stream->lock);
    stream->plain = skip;
    pthread_mutex_unlock(&stream->lock);
}

void gci_stream_cancel(struct gci_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    if (stream->core != NULL) {
        (void)grpc_call_cancel(stream->core, NULL);
    }
    pthread_mutex_unlock(&stream->lock);
}

void gci_stream_refuse(struct gci_stream *stream, const struct gci_error *why)
{
    pthread_mutex_lock(&stream->lock);
    stream->refused = true;
    stream->why = *why;
    stream->ended = true;
    pthread_mutex_unlock(&stream->lock);
    gci_stream_cancel(stream);
}

ProtobufCMessage *gci_stream_unpack(struct gci_stream *stream, grpc_byte_buffer *buffer)
{
    struct gci_error error;
    ProtobufCMessage *message = gci_client_unpack(stream->channel, stream->method, buffer, &error);

    if (message == NULL) { /* the rest cannot be trusted */
        gci_stream_refuse(stream, &error);
    }
    return message;
}

const struct gci_received *gci_stream_headers(struct gci_stream *stream)
{
    if (stream->received_headers.list == NULL) {
        stream->received_headers = gci_metadata_copy(&stream->headers);
    }
    return &stream->received_headers;
}

void gci_stream_end(struct gci_stream *stream, struct grpc_c_result *result)
{
    grpc_call *core = stream->core;

    gci_result_from_outcome(result, &stream->outcome, *gci_stream_headers(stream));
    stream->received_headers = (struct gci_received){NULL, 0};
    if (stream->tell_peer) {
        gci_result_set_peer(result, core);
    }
    if (stream->refused) {
        gci_result_set(result, stream->why.code, stream->why.text);
    }
    grpc_metadata_array_destroy(&stream->headers);
    gci_metadata_fini(&stream->metadata);
    gci_outcome_fini(&stream->outcome);
    pthread_mutex_lock(&stream->lock);
    stream->core = NULL;
    pthread_mutex_unlock(&stream->lock);
    grpc_call_unref(core);
}
