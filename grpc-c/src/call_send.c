/* A call's output: writes in order, one in flight at a time, and the end behind them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <grpc/support/alloc.h>

#include "call.h"

#define MAX_OPS 4

/* A list of operations for one batch. */
struct batch {
    grpc_op ops[MAX_OPS];
    size_t n;
};

/*
 * A level, not an algorithm: so core looks at what the client takes, which it shows to nobody else.
 * Its low level is gzip and its high one deflate, or the one of them that the client takes.
 */
static void set_level(grpc_op *op, enum grpc_c_compression compression)
{
    if (compression != GRPC_C_IDENTITY) {
        op->data.send_initial_metadata.maybe_compression_level.is_set = 1;
        op->data.send_initial_metadata.maybe_compression_level.level =
            compression == GRPC_C_GZIP ? GRPC_COMPRESS_LEVEL_LOW : GRPC_COMPRESS_LEVEL_HIGH;
    }
}

static void add_headers(struct batch *batch, grpc_c_call *call)
{
    if (!call->headers_sent) {
        grpc_op *op = &batch->ops[batch->n++];
        *op = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
        op->data.send_initial_metadata.metadata = call->headers.entries;
        op->data.send_initial_metadata.count = call->headers.n;
        set_level(op, call->compression);
        call->headers_sent = true;
    }
}

static void add_message(struct batch *batch, grpc_byte_buffer *buffer, bool plain, bool more)
{
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};

    op.flags |= plain ? GRPC_WRITE_NO_COMPRESS : 0;
    /* With more to come at once, core may fill its frames before it writes to the socket. */
    op.flags |= more ? GRPC_WRITE_BUFFER_HINT : 0;
    op.data.send_message.send_message = buffer;
    batch->ops[batch->n++] = op;
}

static void add_status(struct batch *batch, const grpc_c_call *call)
{
    grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
    struct gci_trailer *trailer = call->trailer;

    op.data.send_status_from_server.status = (grpc_status_code)call->final_code;
    if (trailer != NULL) {
        op.data.send_status_from_server.status_details = &trailer->message;
        op.data.send_status_from_server.trailing_metadata_count = trailer->metadata.n;
        op.data.send_status_from_server.trailing_metadata = trailer->metadata.entries;
    }
    batch->ops[batch->n++] = op;
}

/* Under the lock, with no send in flight. */
static void send_next(grpc_c_call *call)
{
    struct batch batch = {.n = 0};
    struct gci_write *write = call->queued;

    call->queued = write->next;
    if (call->queued == NULL) {
        call->queued_end = &call->queued;
    }
    call->sending = write;
    add_headers(&batch, call);
    if (write->buffer != NULL) {
        add_message(&batch, write->buffer, write->plain, call->queued != NULL);
    }
    gci_call_batch(call, batch.ops, batch.n, &call->send_tag);
}

/* Under the lock, with no send in flight and none queued. */
static void send_final(grpc_c_call *call)
{
    struct batch batch = {.n = 0};

    call->state = GCI_CALL_CLOSED;
    add_headers(&batch, call);
    if (call->final_buffer != NULL) {
        add_message(&batch, call->final_buffer, call->skip_compression, false);
    }
    add_status(&batch, call);
    if (!call->close_started) {
        batch.ops[batch.n++] = gci_call_close_op(call);
    }
    gci_call_batch(call, batch.ops, batch.n, &call->send_tag);
}

void gci_call_on_sent(struct gci_tag *tag, bool ok)
{
    grpc_c_call *call = gci_container_of(tag, grpc_c_call, send_tag);
    struct gci_write *write;
    bool open;

    (void)ok; /* a failed write is a cancelled call, of which RECV_CLOSE tells */
    pthread_mutex_lock(&call->lock);
    call->in_flight--;
    write = call->sending;
    call->sending = NULL;
    open = call->state == GCI_CALL_OPEN;
    if (call->queued != NULL) {
        send_next(call);
    } else if (call->state == GCI_CALL_FINISHING) {
        send_final(call);
    }
    pthread_mutex_unlock(&call->lock);
    if (write != NULL) {
        grpc_byte_buffer_destroy(write->buffer);
        if (open && write->on_written != NULL) {
            write->on_written(call, write->arg);
        }
        free(write);
    }
    gci_call_event_done(call);
}

/* Takes the buffer; NULL: the headers alone. */
static void enqueue(grpc_c_call *call, grpc_byte_buffer *buffer,
                    void (*on_written)(grpc_c_call *call, void *arg), void *arg)
{
    struct gci_write *write = gpr_malloc(sizeof(*write));

    GCI_CHECK(call->magic == GCI_CALL_MAGIC);
    *write = (struct gci_write){.buffer = buffer, .on_written = on_written, .arg = arg};
    pthread_mutex_lock(&call->lock);
    GCI_CHECK(call->state == GCI_CALL_OPEN);
    write->plain = call->skip_compression;
    *call->queued_end = write;
    call->queued_end = &write->next;
    if (call->sending == NULL) {
        send_next(call);
    }
    pthread_mutex_unlock(&call->lock);
}

void grpc_c_call_write(grpc_c_call *call, const ProtobufCMessage *message,
                       void (*on_written)(grpc_c_call *call, void *arg), void *arg)
{
    enqueue(call, gci_pack(message), on_written, arg);
}

void grpc_c_call_write_lent(grpc_c_call *call, const ProtobufCMessage *message,
                            const struct grpc_c_lent *lent, size_t n_lent,
                            void (*on_written)(grpc_c_call *call, void *arg), void *arg)
{
    enqueue(call, gci_pack_lent(message, lent, n_lent), on_written, arg);
}

/* -- compression ------------------------------------------------------------------------------ */

void grpc_c_call_set_compression(grpc_c_call *call, enum grpc_c_compression compression)
{
    GCI_CHECK(call->magic == GCI_CALL_MAGIC);
    pthread_mutex_lock(&call->lock);
    call->compression = compression;
    pthread_mutex_unlock(&call->lock);
}

void grpc_c_call_skip_compression(grpc_c_call *call, bool skip)
{
    GCI_CHECK(call->magic == GCI_CALL_MAGIC);
    pthread_mutex_lock(&call->lock);
    call->skip_compression = skip;
    pthread_mutex_unlock(&call->lock);
}

/* -- metadata --------------------------------------------------------------------------------- */

enum grpc_c_metadata_fault grpc_c_call_add_header(grpc_c_call *call,
                                                  const struct grpc_c_metadata *entry)
{
    enum grpc_c_metadata_fault fault = GRPC_C_METADATA_TOO_LATE;

    GCI_CHECK(call->magic == GCI_CALL_MAGIC);
    pthread_mutex_lock(&call->lock);
    if (call->state == GCI_CALL_OPEN && !call->headers_sent) {
        fault = gci_metadata_add(&call->headers, entry);
    }
    pthread_mutex_unlock(&call->lock);
    return fault;
}

enum grpc_c_metadata_fault grpc_c_call_add_trailer(grpc_c_call *call,
                                                   const struct grpc_c_metadata *entry)
{
    enum grpc_c_metadata_fault fault = GRPC_C_METADATA_TOO_LATE;

    GCI_CHECK(call->magic == GCI_CALL_MAGIC);
    pthread_mutex_lock(&call->lock);
    if (call->state == GCI_CALL_OPEN) {
        fault = gci_trailer_add(&call->trailer, entry);
    }
    pthread_mutex_unlock(&call->lock);
    return fault;
}

void grpc_c_call_send_headers(grpc_c_call *call)
{
    enqueue(call, NULL, NULL, NULL);
}

/* -- the end ---------------------------------------------------------------------------------- */

/* Takes the buffer, which may be NULL. */
static void finish(grpc_c_call *call, grpc_byte_buffer *buffer, const struct grpc_c_status *status)
{
    GCI_CHECK(call->magic == GCI_CALL_MAGIC);
    pthread_mutex_lock(&call->lock);
    GCI_CHECK(call->state == GCI_CALL_OPEN); /* a call is finished once */
    call->final_buffer = buffer;
    call->final_code = status->code;
    gci_trailer_set_status(&call->trailer, status);
    if (call->sending != NULL) {
        call->state = GCI_CALL_FINISHING;
    } else {
        send_final(call);
    }
    pthread_mutex_unlock(&call->lock);
}

void grpc_c_call_reply(grpc_c_call *call, const ProtobufCMessage *response)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    finish(call, gci_pack(response), &ok);
}

void grpc_c_call_reply_lent(grpc_c_call *call, const ProtobufCMessage *response,
                            const struct grpc_c_lent *lent, size_t n_lent)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    finish(call, gci_pack_lent(response, lent, n_lent), &ok);
}

void grpc_c_call_finish(grpc_c_call *call, const struct grpc_c_status *status)
{
    finish(call, NULL, status);
}

void grpc_c_call_fail(grpc_c_call *call, enum grpc_c_code code, const char *format, ...)
{
    char message[1024];
    struct grpc_c_status status = {.code = code, .message = message};
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    finish(call, NULL, &status);
}
