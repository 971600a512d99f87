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

static void add_headers(struct batch *batch, struct gci_call *call)
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

static void add_status(struct batch *batch, const struct gci_call *call)
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
static void send_next(struct gci_call *call)
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
void gci_call_send_final(struct gci_call *call)
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

static void free_write(struct gci_write *write)
{
    grpc_byte_buffer_destroy(write->buffer);
    free(write);
}

/* The next one is started at once; its handler hears of this one when it has its turn. */
void gci_call_on_sent(struct gci_tag *tag, bool ok)
{
    struct gci_call *call = gci_container_of(tag, struct gci_call, send_tag);
    struct gci_write *write;
    bool due = false;

    (void)ok; /* a failed write is a cancelled call, of which RECV_CLOSE tells */
    pthread_mutex_lock(&call->slot->lock);
    write = call->sending;
    call->sending = NULL;
    if (call->queued != NULL) {
        send_next(call);
    } else if (call->state == GCI_CALL_FINISHING) {
        gci_call_send_final(call);
    }
    if (write != NULL && write->on_written != NULL) {
        due = !call->written_due;
        call->written_due = true;
        *call->taken_end = write;
        call->taken_end = &write->next;
        write->next = NULL;
        write = NULL;
    }
    pthread_mutex_unlock(&call->slot->lock);
    if (write != NULL) {
        free_write(write);
    }
    if (due) {
        gci_turn(call, &call->written);
    } else {
        gci_call_event_done(call);
    }
}

static bool is_open(struct gci_call *call)
{
    bool open;

    pthread_mutex_lock(&call->slot->lock);
    open = call->state == GCI_CALL_OPEN;
    pthread_mutex_unlock(&call->slot->lock);
    return open;
}

void gci_call_run_written(struct gci_call *call)
{
    struct gci_write *taken;

    pthread_mutex_lock(&call->slot->lock);
    taken = call->taken;
    call->taken = NULL;
    call->taken_end = &call->taken;
    call->written_due = false;
    pthread_mutex_unlock(&call->slot->lock);
    while (taken != NULL) {
        struct gci_write *write = taken;
        taken = write->next;
        if (is_open(call)) {
            gci_call_callback_begin(call);
            write->on_written(gci_slot_handle(call->slot), write->arg);
            gci_call_callback_end();
        }
        free_write(write);
    }
}

/* Takes the buffer; NULL: the headers alone. */
static bool enqueue(grpc_c_call *handle, const char *what, grpc_byte_buffer *buffer,
                    void (*on_written)(grpc_c_call *call, void *arg), void *arg)
{
    struct gci_write *write = gpr_malloc(sizeof(*write));
    struct gci_call *call = gci_call_enter(handle, what);

    *write = (struct gci_write){.buffer = buffer, .on_written = on_written, .arg = arg};
    if (call == NULL) {
        free_write(write);
        return false;
    }
    write->plain = call->skip_compression;
    *call->queued_end = write;
    call->queued_end = &write->next;
    if (call->sending == NULL) {
        send_next(call);
    }
    gci_call_leave(call);
    return true;
}

bool grpc_c_call_write(grpc_c_call *call, const ProtobufCMessage *message,
                       void (*on_written)(grpc_c_call *call, void *arg), void *arg)
{
    return enqueue(call, __func__, gci_pack(message), on_written, arg);
}

bool grpc_c_call_write_lent(grpc_c_call *call, const ProtobufCMessage *message,
                            const struct grpc_c_lent *lent, size_t n_lent,
                            void (*on_written)(grpc_c_call *call, void *arg), void *arg)
{
    return enqueue(call, __func__, gci_pack_lent(message, lent, n_lent), on_written, arg);
}

bool grpc_c_call_write_encoded(grpc_c_call *call, const struct grpc_c_lent *message,
                               void (*on_written)(grpc_c_call *call, void *arg), void *arg)
{
    return enqueue(call, __func__, gci_lend(message), on_written, arg);
}

/* -- compression ------------------------------------------------------------------------------ */

bool grpc_c_call_set_compression(grpc_c_call *handle, enum grpc_c_compression compression)
{
    struct gci_call *call = gci_call_enter(handle, __func__);

    if (call == NULL) {
        return false;
    }
    call->compression = compression;
    gci_call_leave(call);
    return true;
}

bool grpc_c_call_skip_compression(grpc_c_call *handle, bool skip)
{
    struct gci_call *call = gci_call_enter(handle, __func__);

    if (call == NULL) {
        return false;
    }
    call->skip_compression = skip;
    gci_call_leave(call);
    return true;
}

/* -- metadata --------------------------------------------------------------------------------- */

enum grpc_c_metadata_fault grpc_c_call_add_header(grpc_c_call *handle,
                                                  const struct grpc_c_metadata *entry)
{
    struct gci_call *call = gci_call_enter(handle, __func__);
    enum grpc_c_metadata_fault fault = GRPC_C_METADATA_TOO_LATE;

    if (call == NULL) {
        return fault;
    }
    if (!call->headers_sent) {
        fault = gci_metadata_add(&call->headers, entry);
    }
    gci_call_leave(call);
    return fault;
}

enum grpc_c_metadata_fault grpc_c_call_add_trailer(grpc_c_call *handle,
                                                   const struct grpc_c_metadata *entry)
{
    struct gci_call *call = gci_call_enter(handle, __func__);
    enum grpc_c_metadata_fault fault = GRPC_C_METADATA_TOO_LATE;

    if (call != NULL) {
        fault = gci_trailer_add(&call->trailer, entry);
        gci_call_leave(call);
    }
    return fault;
}

bool grpc_c_call_send_headers(grpc_c_call *call)
{
    return enqueue(call, __func__, NULL, NULL, NULL);
}

/* -- the end ---------------------------------------------------------------------------------- */

/* Takes the buffer, which may be NULL. Under the lock, of an open call; leaves it. */
static void finish(struct gci_call *call, grpc_byte_buffer *buffer,
                   const struct grpc_c_status *status)
{
    call->final_buffer = buffer;
    call->final_code = status->code;
    gci_trailer_set_status(&call->trailer, status);
    if (call->sending != NULL || gci_round_postpone(call)) {
        call->state = GCI_CALL_FINISHING;
    } else {
        gci_call_send_final(call);
    }
    gci_call_leave(call);
}

static bool finish_handle(grpc_c_call *handle, const char *what, grpc_byte_buffer *buffer,
                          const struct grpc_c_status *status)
{
    struct gci_call *call = gci_call_enter(handle, what);

    if (call == NULL) {
        grpc_byte_buffer_destroy(buffer);
        return false;
    }
    finish(call, buffer, status);
    return true;
}

bool grpc_c_call_reply(grpc_c_call *call, const ProtobufCMessage *response)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    return finish_handle(call, __func__, gci_pack(response), &ok);
}

bool grpc_c_call_reply_lent(grpc_c_call *call, const ProtobufCMessage *response,
                            const struct grpc_c_lent *lent, size_t n_lent)
{
    struct grpc_c_status ok = {.code = GRPC_C_OK};

    return finish_handle(call, __func__, gci_pack_lent(response, lent, n_lent), &ok);
}

bool grpc_c_call_finish(grpc_c_call *call, const struct grpc_c_status *status)
{
    return finish_handle(call, __func__, NULL, status);
}

#define MESSAGE_MAX 1024

bool grpc_c_call_fail(grpc_c_call *call, enum grpc_c_code code, const char *format, ...)
{
    char message[MESSAGE_MAX];
    struct grpc_c_status status = {.code = code, .message = message};
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return finish_handle(call, __func__, NULL, &status);
}

void gci_call_fail(struct gci_call *call, enum grpc_c_code code, const char *format, ...)
{
    char message[MESSAGE_MAX];
    struct grpc_c_status status = {.code = code, .message = message};
    va_list args;

    va_start(args, format);
    (void)vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    pthread_mutex_lock(&call->slot->lock);
    GCI_CHECK(call->state == GCI_CALL_OPEN); /* `begin` returned false, and did not finish it */
    finish(call, NULL, &status);
}
