/* A call's life on the server's side: its events, and what the handler asks about it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include "call.h"

/* Sanitizers are to see a use after the end, so they get no reuse. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SPARES_MAX 0u
#else
#define SPARES_MAX 256u
#endif

static void on_read(struct gci_tag *tag, bool ok);
static void on_close(struct gci_tag *tag, bool ok);
static void on_notice(struct gci_tag *tag, bool ok);

/* -- objects ---------------------------------------------------------------------------------- */

static void call_init(grpc_c_call *call, struct gci_queue *queue, const struct gci_method *method)
{
    memset(call, 0, sizeof(*call));
    call->magic = GCI_CALL_MAGIC;
    call->queue = queue;
    call->method = method;
    call->queued_end = &call->queued;
    call->compression = queue->server->options.compression;
    pthread_mutex_init(&call->lock, NULL);
    grpc_metadata_array_init(&call->metadata);
    grpc_call_details_init(&call->details);
    gci_tag_init(&call->read_tag, on_read);
    gci_tag_init(&call->send_tag, gci_call_on_sent);
    gci_tag_init(&call->close_tag, on_close);
    gci_tag_init(&call->notice_tag, on_notice);
}

/* The message, NULL or not, goes, and what it took of the budget for inflated ones comes back. */
static void free_message(grpc_c_server *server, ProtobufCMessage *message, size_t inflated)
{
    if (message != NULL) {
        protobuf_c_message_free_unpacked(message, NULL);
    }
    if (inflated > 0) {
        atomic_fetch_sub(&server->inflated, inflated);
    }
}

static void drop_message(grpc_c_call *call)
{
    free_message(call->queue->server, call->message, call->inflated);
    call->message = NULL;
    call->inflated = 0;
}

static void call_fini(grpc_c_call *call)
{
    GCI_CHECK(call->sending == NULL && call->queued == NULL);
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_details_destroy(&call->details);
    grpc_byte_buffer_destroy(call->received);
    grpc_byte_buffer_destroy(call->final_buffer);
    gci_trailer_destroy(call->trailer);
    gci_metadata_fini(&call->headers);
    gpr_free(call->received_metadata.list);
    drop_message(call);
    if (call->core != NULL) {
        grpc_call_unref(call->core);
    }
    gpr_free(call->peer);
    gpr_free(call->identity);
    pthread_mutex_destroy(&call->lock);
    call->magic = 0;
}

grpc_c_call *gci_call_new(struct gci_queue *queue, const struct gci_method *method)
{
    grpc_c_call *call = queue->spare;

    if (call != NULL) {
        queue->spare = call->next_spare;
        queue->n_spare--;
    } else {
        call = malloc(sizeof(*call));
    }
    if (call != NULL) {
        call_init(call, queue, method);
    }
    return call;
}

static void recycle(grpc_c_call *call)
{
    struct gci_queue *queue = call->queue;

    if (queue->n_spare + 1 <= SPARES_MAX) {
        call->next_spare = queue->spare;
        queue->spare = call;
        queue->n_spare++;
    } else {
        free(call);
    }
}

void gci_call_free_spares(struct gci_queue *queue)
{
    while (queue->spare != NULL) {
        grpc_c_call *call = queue->spare;
        queue->spare = call->next_spare;
        free(call);
    }
}

void gci_call_gone(grpc_c_call *call)
{
    grpc_c_server *server = call->queue->server;

    call_fini(call);
    if (call->owes_accept && atomic_load(&server->accepting)) {
        struct gci_queue *queue = call->queue;
        const struct gci_method *method = call->method;
        call_init(call, queue, method);
        (void)gci_accept_post(queue, method, call);
    } else {
        recycle(call);
    }
    gci_server_call_gone(server);
}

void gci_call_event_done(grpc_c_call *call)
{
    void (*destroy)(void *data);
    bool gone;

    pthread_mutex_lock(&call->lock);
    destroy = call->data_destroy;
    gone = call->state == GCI_CALL_CLOSED && call->in_flight == 0;
    pthread_mutex_unlock(&call->lock);
    if (!gone) {
        return;
    }
    if (destroy != NULL) {
        destroy(atomic_load(&call->data));
    }
    atomic_fetch_sub(&call->queue->server->open, 1);
    gci_call_gone(call);
}

/* -- batches ---------------------------------------------------------------------------------- */

void gci_call_batch(grpc_c_call *call, const grpc_op *ops, size_t n, struct gci_tag *tag)
{
    call->in_flight++;
    GCI_CHECK(grpc_call_start_batch(call->core, ops, n, gci_tag_arm(tag), NULL) == GRPC_CALL_OK);
}

grpc_op gci_call_close_op(grpc_c_call *call)
{
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};

    op.data.recv_close_on_server.cancelled = &call->core_cancelled;
    call->close_started = true;
    return op;
}

/* -- arrival ---------------------------------------------------------------------------------- */

/* Inflates within the limit of one message and the budget of all. */
static grpc_byte_buffer *inflate_message(grpc_c_call *call, grpc_byte_buffer *buffer,
                                         struct gci_error *error)
{
    grpc_c_server *server = call->queue->server;

    buffer = gci_inflate(buffer, server->options.max_receive_bytes, error);
    if (buffer == NULL) {
        return NULL;
    }
    call->inflated = grpc_byte_buffer_length(buffer);
    if (atomic_fetch_add(&server->inflated, call->inflated) + call->inflated >
        server->options.memory_quota_bytes) {
        grpc_byte_buffer_destroy(buffer);
        drop_message(call);
        error->code = GRPC_C_RESOURCE_EXHAUSTED;
        (void)snprintf(error->text, sizeof(error->text),
                       "too many bytes of compressed messages in flight");
        return NULL;
    }
    return buffer;
}

/* Takes what was received as the call's message. */
static bool take_message(grpc_c_call *call, grpc_byte_buffer *buffer, struct gci_error *error)
{
    drop_message(call);
    call->compressed = gci_is_compressed(buffer);
    if (call->compressed) {
        buffer = inflate_message(call, buffer, error);
    }
    if (buffer != NULL) {
        call->message = gci_unpack(call->method->table->request, buffer,
                                   call->queue->server->options.unpack_overhead_bytes, error);
    }
    return call->message != NULL;
}

static bool take_request(grpc_c_call *call)
{
    grpc_byte_buffer *buffer = call->received;
    struct gci_error error;

    call->received = NULL;
    if (buffer == NULL) {
        grpc_c_call_fail(call, GRPC_C_INVALID_ARGUMENT, "the call came without its request");
        return false;
    }
    if (!take_message(call, buffer, &error)) {
        grpc_c_call_fail(call, error.code, "%s", error.text);
        return false;
    }
    return true;
}

/* From here on the peer's giving up is seen. */
static void watch_close(grpc_c_call *call)
{
    pthread_mutex_lock(&call->lock);
    if (!call->close_started) {
        grpc_op op = gci_call_close_op(call);
        gci_call_batch(call, &op, 1, &call->close_tag);
    }
    pthread_mutex_unlock(&call->lock);
}

void gci_call_arrived(grpc_c_call *call)
{
    const struct grpc_c_method *table = call->method->table;

    if (gci_one_request(table->shape) && !take_request(call)) {
        return;
    }
    if (!table->begin(call, call->message, call->method->handlers)) {
        grpc_c_call_fail(call, GRPC_C_UNIMPLEMENTED, "%s is not implemented", table->path);
    }
    watch_close(call);
}

/* -- cancellation ----------------------------------------------------------------------------- */

/* Calls on_cancel, once, unless the call is finished. */
static void deliver_cancel(grpc_c_call *call)
{
    void (*on_cancel)(grpc_c_call * c, void *arg) = NULL;
    void *arg;

    pthread_mutex_lock(&call->lock);
    if (call->state == GCI_CALL_OPEN) {
        on_cancel = call->on_cancel;
    }
    arg = call->on_cancel_arg;
    call->on_cancel = NULL;
    pthread_mutex_unlock(&call->lock);
    if (on_cancel != NULL) {
        on_cancel(call, arg);
    }
}

/* RECV_CLOSE ends a call that still was open: cancelled, timed out, or the connection is gone. */
static void on_close(struct gci_tag *tag, bool ok)
{
    grpc_c_call *call = gci_container_of(tag, grpc_c_call, close_tag);

    (void)ok;
    pthread_mutex_lock(&call->lock);
    call->in_flight--;
    call->close_seen = true;
    if (call->state == GCI_CALL_OPEN) {
        atomic_store(&call->cancelled, true);
    }
    pthread_mutex_unlock(&call->lock);
    deliver_cancel(call);
    gci_call_event_done(call);
}

static void on_notice(struct gci_tag *tag, bool ok)
{
    grpc_c_call *call = gci_container_of(tag, grpc_c_call, notice_tag);

    (void)ok;
    pthread_mutex_lock(&call->lock);
    call->in_flight--;
    pthread_mutex_unlock(&call->lock);
    deliver_cancel(call);
    gci_call_event_done(call);
}

void grpc_c_call_on_cancel(grpc_c_call *call, void (*on_cancel)(grpc_c_call *call, void *arg),
                           void *arg)
{
    GCI_CHECK(call->magic == GCI_CALL_MAGIC);
    pthread_mutex_lock(&call->lock);
    if (call->state == GCI_CALL_OPEN) {
        call->on_cancel = on_cancel;
        call->on_cancel_arg = arg;
        if (call->close_seen) { /* too late to be told by it: an empty batch comes back at once */
            gci_call_batch(call, NULL, 0, &call->notice_tag);
        }
    }
    pthread_mutex_unlock(&call->lock);
}

bool grpc_c_call_cancelled(const grpc_c_call *call)
{
    return atomic_load(&call->cancelled);
}

/* -- the client's stream ---------------------------------------------------------------------- */

void grpc_c_call_read(grpc_c_call *call)
{
    grpc_c_server *server = call->queue->server;
    ProtobufCMessage *last = NULL;
    size_t inflated = 0;

    GCI_CHECK(call->magic == GCI_CALL_MAGIC && call->method != NULL);
    GCI_CHECK(!gci_one_request(call->method->table->shape));
    pthread_mutex_lock(&call->lock);
    if (call->state == GCI_CALL_OPEN && !call->ended) {
        grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
        GCI_CHECK(!call->reading);
        last = call->message;
        call->message = NULL;
        inflated = call->inflated;
        call->inflated = 0;
        call->reading = true;
        op.data.recv_message.recv_message = &call->received;
        gci_call_batch(call, &op, 1, &call->read_tag);
    }
    pthread_mutex_unlock(&call->lock);
    free_message(server, last, inflated);
}

ProtobufCMessage *grpc_c_call_take_message(grpc_c_call *call)
{
    ProtobufCMessage *message;

    GCI_CHECK(call->magic == GCI_CALL_MAGIC);
    pthread_mutex_lock(&call->lock);
    message = call->message;
    call->message = NULL;
    pthread_mutex_unlock(&call->lock);
    return message;
}

/*
 * The runtime ends a stream that its handler owns: the client gets the status at once, the handler
 * sees a cancelled call, which it finishes as ever.
 */
static void break_off(grpc_c_call *call, enum grpc_c_code code, const char *text)
{
    (void)grpc_call_cancel_with_status(call->core, (grpc_status_code)code, text, NULL);
    atomic_store(&call->cancelled, true);
}

static void deliver_message(grpc_c_call *call, grpc_byte_buffer *buffer)
{
    const struct grpc_c_method *table = call->method->table;
    struct gci_error error;

    if (buffer == NULL && grpc_call_failed_before_recv_message(call->core)) {
        atomic_store(&call->cancelled, true);
    }
    if (buffer != NULL && !take_message(call, buffer, &error)) {
        break_off(call, error.code, error.text);
    }
    if (call->message == NULL) {
        pthread_mutex_lock(&call->lock);
        call->ended = true;
        pthread_mutex_unlock(&call->lock);
    }
    if (!table->message(call, call->message, call->method->handlers)) {
        break_off(call, GRPC_C_UNIMPLEMENTED, "the method takes no messages");
    }
}

static void on_read(struct gci_tag *tag, bool ok)
{
    grpc_c_call *call = gci_container_of(tag, grpc_c_call, read_tag);
    grpc_byte_buffer *buffer;
    bool open;

    pthread_mutex_lock(&call->lock);
    call->in_flight--;
    call->reading = false;
    buffer = ok ? call->received : NULL;
    call->received = ok ? NULL : call->received;
    open = call->state == GCI_CALL_OPEN;
    pthread_mutex_unlock(&call->lock);
    if (open) {
        deliver_message(call, buffer);
    } else {
        grpc_byte_buffer_destroy(buffer);
    }
    gci_call_event_done(call);
}

bool grpc_c_call_message_compressed(const grpc_c_call *call)
{
    return call->compressed;
}

/* -- what a handler asks ---------------------------------------------------------------------- */

int64_t grpc_c_call_remaining_ms(const grpc_c_call *call)
{
    gpr_timespec left;

    if (gpr_time_cmp(call->deadline, gpr_inf_future(call->deadline.clock_type)) == 0) {
        return INT64_MAX;
    }
    left = gpr_time_sub(call->deadline, gpr_now(call->deadline.clock_type));
    if (left.tv_sec < 0 || (left.tv_sec == 0 && left.tv_nsec == 0)) {
        return 0;
    }
    return left.tv_sec * 1000 + (left.tv_nsec + 999999) / 1000000;
}

const char *grpc_c_call_peer(grpc_c_call *call)
{
    const char *peer;

    pthread_mutex_lock(&call->lock);
    if (call->peer == NULL) {
        call->peer = grpc_call_get_peer(call->core);
    }
    peer = call->peer;
    pthread_mutex_unlock(&call->lock);
    return peer;
}

const struct grpc_c_identity *grpc_c_call_identity(grpc_c_call *call)
{
    const struct grpc_c_identity *identity;

    pthread_mutex_lock(&call->lock);
    if (call->identity == NULL) {
        call->identity = gci_identity(call->core);
    }
    identity = call->identity;
    pthread_mutex_unlock(&call->lock);
    return identity;
}

const struct grpc_c_metadata *grpc_c_call_metadata(grpc_c_call *call, size_t *n)
{
    pthread_mutex_lock(&call->lock);
    if (!call->metadata_copied) {
        call->received_metadata = gci_metadata_copy(&call->metadata);
        call->metadata_copied = true;
    }
    *n = call->received_metadata.n;
    pthread_mutex_unlock(&call->lock);
    return call->received_metadata.list;
}

void grpc_c_call_set_data(grpc_c_call *call, void *data, void (*destroy)(void *data))
{
    pthread_mutex_lock(&call->lock);
    call->data_destroy = destroy;
    pthread_mutex_unlock(&call->lock);
    atomic_store(&call->data, data);
}

void *grpc_c_call_data(const grpc_c_call *call)
{
    return atomic_load(&call->data);
}
