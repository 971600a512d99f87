/*
 * Streams that nobody waits for: their callbacks run on the channel's thread.
 *
 * What a caller's functions do when the call is over is refused below, by gci_stream_send and
 * _read; the object itself lives until the call and the caller have both let it go.
 */
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>

#include "client.h"
#include "codec.h"

struct grpc_c_async_stream {
    struct gci_handle handle;
    struct gci_stream base;
    struct grpc_c_stream_events events;
    void *user;
    struct gci_send request; /* of a call that sends one message */
    struct gci_send half_close;
    ProtobufCMessage *answer; /* channel's thread; client streams: the one message */
    bool compressed;          /* channel's thread: the last message came so */
};

static grpc_c_async_stream *stream_of(struct gci_stream *base)
{
    return gci_container_of(base, grpc_c_async_stream, base);
}

static bool has_one_answer(const grpc_c_async_stream *stream)
{
    return stream->base.method->shape == GRPC_C_CLIENT_STREAM;
}

/* -- events, on the channel's thread ---------------------------------------------------------- */

static void on_opened(struct gci_stream *base)
{
    grpc_c_async_stream *stream = stream_of(base);
    const struct gci_received *headers;

    if (stream->events.on_headers != NULL) {
        headers = gci_stream_headers(base);
        stream->events.on_headers(stream, headers->list, headers->n, stream->user);
    }
}

static void keep_answer(grpc_c_async_stream *stream, ProtobufCMessage *message)
{
    static const struct gci_error second = {GRPC_C_INTERNAL,
                                            "the server answered with more than one message"};

    if (stream->answer != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
        gci_stream_refuse(&stream->base, &second);
        return;
    }
    stream->answer = message;
}

static void on_received(struct gci_stream *base, grpc_byte_buffer *buffer)
{
    grpc_c_async_stream *stream = stream_of(base);
    ProtobufCMessage *message;

    if (buffer == NULL) {
        return;
    }
    stream->compressed = gci_is_compressed(buffer);
    message = gci_stream_unpack(base, buffer);
    if (message == NULL) {
        return;
    }
    if (has_one_answer(stream)) {
        keep_answer(stream, message);
    } else {
        stream->events.arrived(stream, message, NULL, stream->events.typed, stream->user);
    }
}

static void on_sent(struct gci_stream *base, struct gci_send *send, bool ok)
{
    grpc_c_async_stream *stream = stream_of(base);

    if (send == &stream->half_close || send == &stream->request) {
        return;
    }
    free(send);
    if (stream->events.on_written != NULL) {
        stream->events.on_written(stream, ok, stream->user);
    }
}

/* The one message of a call that ended well, or INTERNAL in its place. */
static void finish_with_answer(grpc_c_async_stream *stream, struct grpc_c_result *result)
{
    if (result->code == GRPC_C_OK && stream->answer == NULL) {
        gci_result_set(result, GRPC_C_INTERNAL, "the server answered OK without a message");
    }
    if (result->code != GRPC_C_OK && stream->answer != NULL) {
        protobuf_c_message_free_unpacked(stream->answer, NULL);
        stream->answer = NULL;
    }
    result->compressed = stream->answer != NULL && stream->compressed;
    stream->events.arrived(stream, stream->answer, result, stream->events.typed, stream->user);
}

static void on_over(struct gci_stream *base)
{
    grpc_c_async_stream *stream = stream_of(base);
    struct grpc_c_result result;

    gci_stream_end(base, &result);
    if (has_one_answer(stream)) {
        finish_with_answer(stream, &result);
    } else {
        stream->events.on_done(stream, &result, stream->user);
    }
    grpc_c_result_fini(&result);
    gci_handle_done(&stream->handle);
}

static const struct gci_stream_face async = {on_opened, on_received, on_sent, on_over};

/* -- its life --------------------------------------------------------------------------------- */

static void cancel(struct gci_handle *handle)
{
    grpc_c_async_cancel(gci_container_of(handle, grpc_c_async_stream, handle));
}

static void destroy(struct gci_handle *handle)
{
    grpc_c_async_stream *stream = gci_container_of(handle, grpc_c_async_stream, handle);

    pthread_mutex_destroy(&stream->base.lock);
    free(stream);
}

static const struct gci_handle_type type = {cancel, destroy};

static grpc_c_async_stream *create(grpc_c_channel *channel, const struct grpc_c_method *method,
                                   const struct grpc_c_call_options *options)
{
    grpc_c_async_stream *stream = calloc(1, sizeof(*stream));
    struct grpc_c_result unused;

    if (stream == NULL) {
        return NULL;
    }
    gci_stream_init(&stream->base, channel, method, options, &async);
    if (gci_handle_init(&stream->handle, &type, channel, 2) != 0) {
        gci_stream_end(&stream->base, &unused);
        grpc_c_result_fini(&unused);
        destroy(&stream->handle);
        return NULL;
    }
    return stream;
}

/* What the shape says is done without being asked for. Each may be too late, and is not missed. */
static void send_request(grpc_c_async_stream *stream, const ProtobufCMessage *request,
                         const struct grpc_c_call_options *options)
{
    stream->request.buffer = gci_client_pack(request, options);
    if (gci_stream_send(&stream->base, &stream->request) != 0) {
        grpc_byte_buffer_destroy(stream->request.buffer);
    }
    (void)grpc_c_async_writes_done(stream);
}

static void read_answer(grpc_c_async_stream *stream)
{
    (void)gci_stream_read(&stream->base);
    (void)gci_stream_read(&stream->base); /* there is no second: the status comes after it */
}

grpc_c_async_stream *grpc_c_stream_async(grpc_c_channel *channel,
                                         const struct grpc_c_method *method,
                                         const ProtobufCMessage *request,
                                         const struct grpc_c_call_options *options,
                                         const struct grpc_c_stream_events *events, void *user)
{
    grpc_c_async_stream *stream = create(channel, method, options);

    GCI_CHECK(events->typed != NULL);
    GCI_CHECK(request != NULL || options == NULL || options->n_lent == 0);
    if (stream == NULL) {
        gci_client_give_back(options);
        return NULL;
    }
    stream->events = *events;
    stream->user = user;
    gci_stream_begin(&stream->base, options);
    if (request != NULL) {
        send_request(stream, request, options);
    }
    if (has_one_answer(stream)) {
        read_answer(stream);
    }
    return stream;
}

/* -- what its caller does with it ------------------------------------------------------------- */

int grpc_c_async_read(grpc_c_async_stream *stream)
{
    GCI_CHECK(!has_one_answer(stream)); /* on_done gets it */
    return gci_stream_read(&stream->base);
}

/* Takes the buffer. */
static int send_message(grpc_c_async_stream *stream, grpc_byte_buffer *buffer)
{
    struct gci_send *send = calloc(1, sizeof(*send));

    if (send != NULL) {
        send->buffer = buffer;
        if (gci_stream_send(&stream->base, send) == 0) {
            return 0;
        }
    }
    grpc_byte_buffer_destroy(buffer);
    free(send);
    return -1;
}

int grpc_c_async_write(grpc_c_async_stream *stream, const ProtobufCMessage *message)
{
    return send_message(stream, gci_pack(message));
}

int grpc_c_async_write_lent(grpc_c_async_stream *stream, const ProtobufCMessage *message,
                            const struct grpc_c_lent *lent, size_t n_lent)
{
    return send_message(stream, gci_pack_lent(message, lent, n_lent));
}

int grpc_c_async_writes_done(grpc_c_async_stream *stream)
{
    return gci_stream_send(&stream->base, &stream->half_close);
}

void grpc_c_async_skip_compression(grpc_c_async_stream *stream, bool skip)
{
    gci_stream_skip_compression(&stream->base, skip);
}

bool grpc_c_async_message_compressed(const grpc_c_async_stream *stream)
{
    return stream->compressed;
}

void grpc_c_async_cancel(grpc_c_async_stream *stream)
{
    gci_stream_cancel(&stream->base);
}

void grpc_c_async_release(grpc_c_async_stream *stream)
{
    if (stream != NULL) {
        gci_handle_release(&stream->handle);
    }
}
