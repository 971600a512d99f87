/* Blocking streams: what each waits for happens on the channel's thread. */
#include <stdlib.h>

#include <grpc/byte_buffer.h>

#include "client.h"
#include "codec.h"
#include "status.h"

struct grpc_c_stream {
    struct gci_stream base;
    pthread_cond_t changed;     /* with the base's lock, which guards the flags */
    bool opened;                /* the headers are there, or will not come */
    bool sending;               /* a send's event has not come */
    bool send_ok;               /* how the last one ended */
    bool reading;               /* a read's event has not come */
    bool over;                  /* nothing is in flight any more */
    grpc_byte_buffer *received; /* what the read brought, NULL: the end */
    bool compressed;            /* reader: the last message came so */
};

static grpc_c_stream *stream_of(struct gci_stream *base)
{
    return gci_container_of(base, grpc_c_stream, base);
}

/* -- events, on the channel's thread ---------------------------------------------------------- */

static void set(grpc_c_stream *stream, bool *flag, bool value)
{
    pthread_mutex_lock(&stream->base.lock);
    *flag = value;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->base.lock);
}

static void on_opened(struct gci_stream *base)
{
    set(stream_of(base), &stream_of(base)->opened, true);
}

static void on_received(struct gci_stream *base, grpc_byte_buffer *buffer)
{
    grpc_c_stream *stream = stream_of(base);

    stream->received = buffer; /* the reader looks when the flag has changed */
    set(stream, &stream->reading, false);
}

static void on_sent(struct gci_stream *base, struct gci_send *send, bool ok)
{
    grpc_c_stream *stream = stream_of(base);

    (void)send; /* on the writer's stack */
    stream->send_ok = ok;
    set(stream, &stream->sending, false);
}

static void on_over(struct gci_stream *base)
{
    set(stream_of(base), &stream_of(base)->over, true);
}

static const struct gci_stream_face blocking = {on_opened, on_received, on_sent, on_over};

/* -- waiting ---------------------------------------------------------------------------------- */

static void wait_until(grpc_c_stream *stream, const bool *flag, bool value)
{
    pthread_mutex_lock(&stream->base.lock);
    while (*flag != value) {
        pthread_cond_wait(&stream->changed, &stream->base.lock);
    }
    pthread_mutex_unlock(&stream->base.lock);
}

/* Takes the buffer, NULL: the half-close. */
static int send_and_wait(grpc_c_stream *stream, grpc_byte_buffer *buffer)
{
    struct gci_send send = {.buffer = buffer};

    GCI_CHECK(!stream->sending); /* one writer */
    stream->sending = true;
    if (gci_stream_send(&stream->base, &send) != 0) {
        stream->sending = false;
        grpc_byte_buffer_destroy(buffer);
        return -1;
    }
    wait_until(stream, &stream->sending, false);
    return stream->send_ok ? 0 : -1;
}

/* The next message as it came, NULL at the end. */
static grpc_byte_buffer *receive(grpc_c_stream *stream)
{
    GCI_CHECK(!stream->reading); /* one reader */
    stream->reading = true;
    if (gci_stream_read(&stream->base) != 0) {
        stream->reading = false;
        return NULL;
    }
    wait_until(stream, &stream->reading, false);
    return stream->received;
}

/* -- the public face -------------------------------------------------------------------------- */

grpc_c_stream *grpc_c_stream_open(grpc_c_channel *channel, const struct grpc_c_method *method,
                                  const struct grpc_c_call_options *options)
{
    grpc_c_stream *stream = calloc(1, sizeof(*stream));

    GCI_CHECK(options == NULL || options->n_lent == 0); /* a write lends */
    if (stream == NULL) {
        return NULL;
    }
    pthread_cond_init(&stream->changed, NULL);
    gci_stream_init(&stream->base, channel, method, options, &blocking);
    gci_stream_begin(&stream->base, options);
    return stream;
}

int grpc_c_stream_write(grpc_c_stream *stream, const ProtobufCMessage *message)
{
    return send_and_wait(stream, gci_pack(message));
}

int grpc_c_stream_write_lent(grpc_c_stream *stream, const ProtobufCMessage *message,
                             const struct grpc_c_lent *lent, size_t n_lent)
{
    return send_and_wait(stream, gci_pack_lent(message, lent, n_lent));
}

int grpc_c_stream_writes_done(grpc_c_stream *stream)
{
    int rc;

    pthread_mutex_lock(&stream->base.lock);
    rc = stream->base.closed ? -1 : 0;
    pthread_mutex_unlock(&stream->base.lock);
    if (rc == 0 && send_and_wait(stream, NULL) != 0) { /* servers need not wait for it */
        pthread_mutex_lock(&stream->base.lock);
        rc = stream->base.over && stream->base.outcome.code == GRPC_STATUS_OK ? 0 : -1;
        pthread_mutex_unlock(&stream->base.lock);
    }
    return rc;
}

ProtobufCMessage *grpc_c_stream_read(grpc_c_stream *stream)
{
    grpc_byte_buffer *buffer = receive(stream);

    if (buffer == NULL) {
        return NULL;
    }
    stream->compressed = gci_is_compressed(buffer);
    return gci_stream_unpack(&stream->base, buffer);
}

const struct grpc_c_metadata *grpc_c_stream_headers(grpc_c_stream *stream, size_t *n)
{
    const struct gci_received *headers;

    wait_until(stream, &stream->opened, true);
    headers = gci_stream_headers(&stream->base);
    *n = headers->n;
    return headers->list;
}

void grpc_c_stream_skip_compression(grpc_c_stream *stream, bool skip)
{
    gci_stream_skip_compression(&stream->base, skip);
}

bool grpc_c_stream_message_compressed(const grpc_c_stream *stream)
{
    return stream->compressed;
}

void grpc_c_stream_cancel(grpc_c_stream *stream)
{
    gci_stream_cancel(&stream->base);
}

void grpc_c_stream_finish(grpc_c_stream *stream, struct grpc_c_result *result)
{
    struct grpc_c_result unwanted;
    grpc_byte_buffer *buffer;

    (void)send_and_wait(stream, NULL);
    while ((buffer = receive(stream)) != NULL) { /* core gives the status after the messages */
        grpc_byte_buffer_destroy(buffer);
    }
    wait_until(stream, &stream->over, true);
    gci_stream_end(&stream->base, result == NULL ? &unwanted : result);
    if (result == NULL) {
        grpc_c_result_fini(&unwanted);
    }
    pthread_cond_destroy(&stream->changed);
    pthread_mutex_destroy(&stream->base.lock);
    free(stream);
}
