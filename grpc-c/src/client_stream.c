/*
 * Blocking streams.
 *
 * Three operations may be in flight at once: a write (or the half-close), a read, and from open to
 * the end the status. Each has a tag; `in_flight` counts them, and finish frees the stream when it
 * is 0. `lock` guards the rest and each grpc_call_start_batch.
 *
 *   writing side   open --writes_done, or a write that failed--> closed
 *   reading side   open --end of stream, or an unreadable message--> ended
 */
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/support/alloc.h>

#include "client.h"
#include "codec.h"
#include "status.h"

struct grpc_c_stream {
    const grpc_c_channel *channel;
    const struct grpc_c_method *method;
    grpc_call *core;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct gci_tag open_tag;
    struct gci_tag write_tag;
    struct gci_tag read_tag;
    struct gci_tag status_tag;
    unsigned in_flight; /* lock */
    bool writing;       /* lock: a write's event has not come */
    bool write_ok;      /* lock: how the last one ended */
    bool closed;        /* lock: no more writes */
    bool reading;       /* lock */
    bool ended;         /* lock: no more reads */
    bool over;          /* lock: the status is there */
    bool plain;         /* lock: messages go uncompressed */
    bool compressed;    /* reader: the last message came so */
    bool unreadable;    /* lock: a message could not be unpacked */
    struct gci_error why;
    bool opened; /* lock: the headers are there, or will not come */
    struct gci_metadata sent;
    grpc_metadata_array headers;
    struct gci_received received_headers; /* copied when first asked for, by the reader */
    grpc_byte_buffer *received;
    struct gci_outcome outcome;
};

/* -- events, on the channel's thread ---------------------------------------------------------- */

static void event_end(grpc_c_stream *stream)
{
    stream->in_flight--;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
}

static void on_open(struct gci_tag *tag, bool ok)
{
    grpc_c_stream *stream = gci_container_of(tag, grpc_c_stream, open_tag);

    (void)ok;
    pthread_mutex_lock(&stream->lock);
    stream->opened = true;
    event_end(stream);
}

static void on_write(struct gci_tag *tag, bool ok)
{
    grpc_c_stream *stream = gci_container_of(tag, grpc_c_stream, write_tag);

    pthread_mutex_lock(&stream->lock);
    stream->writing = false;
    stream->write_ok = ok;
    event_end(stream);
}

static void on_read(struct gci_tag *tag, bool ok)
{
    grpc_c_stream *stream = gci_container_of(tag, grpc_c_stream, read_tag);

    (void)ok; /* then nothing was received */
    pthread_mutex_lock(&stream->lock);
    stream->reading = false;
    event_end(stream);
}

static void on_status(struct gci_tag *tag, bool ok)
{
    grpc_c_stream *stream = gci_container_of(tag, grpc_c_stream, status_tag);

    (void)ok;
    pthread_mutex_lock(&stream->lock);
    stream->over = true;
    event_end(stream);
}

/* -- operations; all under the lock ----------------------------------------------------------- */

static void start(grpc_c_stream *stream, const grpc_op *ops, size_t n, struct gci_tag *tag)
{
    stream->in_flight++;
    GCI_CHECK(grpc_call_start_batch(stream->core, ops, n, gci_tag_arm(tag), NULL) == GRPC_CALL_OK);
}

static void wait_while(grpc_c_stream *stream, const bool *condition)
{
    while (*condition) {
        pthread_cond_wait(&stream->changed, &stream->lock);
    }
}

/* One send operation, waited for. */
static bool send_and_wait(grpc_c_stream *stream, const grpc_op *op)
{
    GCI_CHECK(!stream->writing); /* one writer */
    stream->writing = true;
    start(stream, op, 1, &stream->write_tag);
    wait_while(stream, &stream->writing);
    stream->closed = stream->closed || !stream->write_ok;
    return stream->write_ok;
}

static bool half_close(grpc_c_stream *stream)
{
    grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
    bool ok = false;

    if (!stream->closed) {
        ok = send_and_wait(stream, &op);
        stream->closed = true;
    }
    return ok;
}

/* The next message as it came, NULL at the end. */
static grpc_byte_buffer *receive(grpc_c_stream *stream)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    grpc_byte_buffer *buffer;

    GCI_CHECK(!stream->reading); /* one reader */
    if (stream->ended) {
        return NULL;
    }
    stream->reading = true;
    op.data.recv_message.recv_message = &stream->received;
    start(stream, &op, 1, &stream->read_tag);
    wait_while(stream, &stream->reading);
    buffer = stream->received;
    stream->received = NULL;
    stream->ended = buffer == NULL;
    return buffer;
}

/* -- the public face -------------------------------------------------------------------------- */

static void begin(grpc_c_stream *stream, const struct grpc_c_call_options *options)
{
    grpc_op open[2] = {gci_client_open_op(stream->core, options, &stream->sent),
                       {.op = GRPC_OP_RECV_INITIAL_METADATA}};
    grpc_op status = gci_outcome_op(&stream->outcome);

    open[1].data.recv_initial_metadata.recv_initial_metadata = &stream->headers;
    pthread_mutex_lock(&stream->lock);
    start(stream, open, 2, &stream->open_tag);
    start(stream, &status, 1, &stream->status_tag);
    pthread_mutex_unlock(&stream->lock);
}

grpc_c_stream *grpc_c_stream_open(grpc_c_channel *channel, const struct grpc_c_method *method,
                                  const struct grpc_c_call_options *options)
{
    grpc_c_stream *stream = calloc(1, sizeof(*stream));

    if (stream == NULL) {
        return NULL;
    }
    stream->channel = channel;
    stream->method = method;
    pthread_mutex_init(&stream->lock, NULL);
    pthread_cond_init(&stream->changed, NULL);
    gci_tag_init(&stream->open_tag, on_open);
    gci_tag_init(&stream->write_tag, on_write);
    gci_tag_init(&stream->read_tag, on_read);
    gci_tag_init(&stream->status_tag, on_status);
    grpc_metadata_array_init(&stream->headers);
    gci_outcome_init(&stream->outcome);
    stream->core = gci_client_call(channel, method, options);
    begin(stream, options);
    return stream;
}

int grpc_c_stream_write(grpc_c_stream *stream, const ProtobufCMessage *message)
{
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
    grpc_byte_buffer *buffer = gci_pack(message);
    bool ok = false;

    op.data.send_message.send_message = buffer;
    pthread_mutex_lock(&stream->lock);
    op.flags = stream->plain ? GRPC_WRITE_NO_COMPRESS : 0;
    if (!stream->closed && !stream->over) {
        ok = send_and_wait(stream, &op);
    }
    pthread_mutex_unlock(&stream->lock);
    grpc_byte_buffer_destroy(buffer);
    return ok ? 0 : -1;
}

int grpc_c_stream_writes_done(grpc_c_stream *stream)
{
    bool ok;

    pthread_mutex_lock(&stream->lock);
    ok = half_close(stream);
    pthread_mutex_unlock(&stream->lock);
    return ok ? 0 : -1;
}

ProtobufCMessage *grpc_c_stream_read(grpc_c_stream *stream)
{
    grpc_byte_buffer *buffer;
    ProtobufCMessage *message;
    struct gci_error error;

    pthread_mutex_lock(&stream->lock);
    buffer = receive(stream);
    pthread_mutex_unlock(&stream->lock);
    if (buffer == NULL) {
        return NULL;
    }
    stream->compressed = gci_is_compressed(buffer);
    message = gci_client_unpack(stream->channel, stream->method, buffer, &error);
    if (message == NULL) { /* the rest cannot be trusted: finish will say why */
        pthread_mutex_lock(&stream->lock);
        stream->unreadable = true;
        stream->why = error;
        stream->ended = true;
        pthread_mutex_unlock(&stream->lock);
        grpc_c_stream_cancel(stream);
    }
    return message;
}

const struct grpc_c_metadata *grpc_c_stream_headers(grpc_c_stream *stream, size_t *n)
{
    pthread_mutex_lock(&stream->lock);
    while (!stream->opened) {
        pthread_cond_wait(&stream->changed, &stream->lock);
    }
    pthread_mutex_unlock(&stream->lock);
    if (stream->received_headers.list == NULL) {
        stream->received_headers = gci_metadata_copy(&stream->headers);
    }
    *n = stream->received_headers.n;
    return stream->received_headers.list;
}

void grpc_c_stream_skip_compression(grpc_c_stream *stream, bool skip)
{
    pthread_mutex_lock(&stream->lock);
    stream->plain = skip;
    pthread_mutex_unlock(&stream->lock);
}

bool grpc_c_stream_message_compressed(const grpc_c_stream *stream)
{
    return stream->compressed;
}

void grpc_c_stream_cancel(grpc_c_stream *stream)
{
    (void)grpc_call_cancel(stream->core, NULL);
}

/* Core gives the status only when the messages before it have been taken. */
static void run_out(grpc_c_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    (void)half_close(stream);
    while (!stream->over && !stream->ended) {
        grpc_byte_buffer_destroy(receive(stream));
    }
    while (stream->in_flight > 0) {
        pthread_cond_wait(&stream->changed, &stream->lock);
    }
    pthread_mutex_unlock(&stream->lock);
}

static struct gci_received take_headers(grpc_c_stream *stream)
{
    struct gci_received headers = stream->received_headers;

    stream->received_headers = (struct gci_received){NULL, 0};
    return headers.list != NULL ? headers : gci_metadata_copy(&stream->headers);
}

void grpc_c_stream_finish(grpc_c_stream *stream, struct grpc_c_result *result)
{
    run_out(stream);
    if (result != NULL) {
        gci_result_from_outcome(result, &stream->outcome, take_headers(stream));
        if (stream->unreadable) {
            gci_result_set(result, stream->why.code, stream->why.text);
        }
    }
    gpr_free(stream->received_headers.list);
    grpc_metadata_array_destroy(&stream->headers);
    gci_metadata_fini(&stream->sent);
    gci_outcome_fini(&stream->outcome);
    grpc_call_unref(stream->core);
    pthread_cond_destroy(&stream->changed);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}
