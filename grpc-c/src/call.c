/* A call's life on the server's side: its object, arrival, cancellation and end. */
#include <stdlib.h>
#include <string.h>

#include <grpc/support/alloc.h>

#include "call.h"

/* Sanitizers are to see a use after the end, so they get no reuse. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SPARES_MAX 0u
#else
#define SPARES_MAX 256u
#endif

static void on_close(struct gci_tag *tag, bool ok);
static void on_notice(struct gci_tag *tag, bool ok);
static void run_arrival(struct gci_call *call);
static void run_cancel(struct gci_call *call);
static void run_notice(struct gci_call *call);

/* -- objects ---------------------------------------------------------------------------------- */

static void call_init(struct gci_call *call, struct gci_slot *slot, struct gci_queue *queue,
                      struct gci_method *method)
{
    memset(call, 0, sizeof(*call));
    call->slot = slot;
    call->queue = queue;
    call->method = method;
    call->queued_end = &call->queued;
    call->taken_end = &call->taken;
    call->compression = queue->server->options.compression;
    grpc_metadata_array_init(&call->metadata);
    grpc_call_details_init(&call->details);
    gci_tag_init(&call->read_tag, gci_call_on_read);
    gci_tag_init(&call->send_tag, gci_call_on_sent);
    gci_tag_init(&call->close_tag, on_close);
    gci_tag_init(&call->notice_tag, on_notice);
    call->arrival.run = run_arrival;
    call->read.run = gci_call_run_read;
    call->written.run = gci_call_run_written;
    call->close.run = run_cancel;
    call->notice.run = run_notice;
}

static void call_fini(struct gci_call *call)
{
    GCI_CHECK(call->sending == NULL && call->queued == NULL && call->taken == NULL);
    gci_slot_retire(call->slot);
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_details_destroy(&call->details);
    grpc_byte_buffer_destroy(call->received);
    grpc_byte_buffer_destroy(call->final_buffer);
    gci_trailer_destroy(call->trailer);
    gci_metadata_fini(&call->headers);
    gpr_free(call->received_metadata.list);
    gci_call_drop_message(call);
    if (call->core != NULL) {
        grpc_call_unref(call->core);
    }
    gpr_free(call->peer);
    gpr_free(call->identity);
}

struct gci_call *gci_call_make(struct gci_queue *queue, struct gci_method *method)
{
    struct gci_call *call = malloc(sizeof(*call));
    const char *path = method->table == NULL ? "an unknown method" : method->table->path;
    struct gci_slot *slot;

    if (call == NULL) {
        return NULL;
    }
    slot = gci_slot_take(&method->slots, path);
    if (slot == NULL) {
        free(call);
        return NULL;
    }
    call_init(call, slot, queue, method);
    return call;
}

struct gci_call *gci_call_new(struct gci_queue *queue, struct gci_method *method)
{
    struct gci_share *share = gci_share_of(queue, method);
    struct gci_call *call = share->spares;

    if (call == NULL) {
        return gci_call_make(queue, method);
    }
    share->spares = call->next_spare;
    queue->n_spare--;
    call_init(call, call->slot, queue, method);
    return call;
}

static void free_object(struct gci_call *call)
{
    gci_slot_give(&call->method->slots, call->slot);
    free(call);
}

/* A spare stays with its method, as its slot does. */
static void recycle(struct gci_call *call)
{
    struct gci_queue *queue = call->queue;

    if (queue->server->pool == NULL && queue->n_spare + 1 <= SPARES_MAX) {
        struct gci_share *share = gci_share_of(queue, call->method);
        call->next_spare = share->spares;
        share->spares = call;
        queue->n_spare++;
    } else {
        free_object(call);
    }
}

void gci_call_free_spares(struct gci_queue *queue)
{
    if (queue->shares == NULL) {
        return;
    }
    for (size_t i = 0; i <= queue->server->n_methods; i++) {
        while (queue->shares[i].spares != NULL) {
            struct gci_call *call = queue->shares[i].spares;
            queue->shares[i].spares = call->next_spare;
            free_object(call);
        }
    }
    free(queue->shares);
}

void gci_call_gone(struct gci_call *call)
{
    struct gci_queue *queue = call->queue;
    grpc_c_server *server = queue->server;

    call_fini(call);
    if (call->owes_accept && atomic_load(&server->accepting)) {
        call_init(call, call->slot, call->queue, call->method);
        (void)gci_accept_post(call->queue, call->method, call);
    } else {
        recycle(call);
    }
    atomic_fetch_sub(&queue->held, 1);
    gci_server_call_gone(server);
}

void gci_call_event_done(struct gci_call *call)
{
    bool gone;

    pthread_mutex_lock(&call->slot->lock);
    call->in_flight--;
    gone = call->state == GCI_CALL_CLOSED && call->in_flight == 0;
    pthread_mutex_unlock(&call->slot->lock);
    if (!gone) {
        return;
    }
    if (call->data_destroy != NULL) {
        call->data_destroy(call->data);
    }
    atomic_fetch_sub(&call->queue->server->open, 1);
    gci_call_gone(call);
}

/* -- the handler's side ----------------------------------------------------------------------- */

/* Whose callback this thread is in. */
static _Thread_local const struct gci_call *in_callback;

void gci_call_callback_begin(const struct gci_call *call)
{
    in_callback = call;
}

void gci_call_callback_end(void)
{
    in_callback = NULL;
}

static struct gci_call *enter(const grpc_c_call *handle, const char *what, bool asking)
{
    struct gci_slot *slot = gci_slot_enter(handle, what);
    struct gci_call *call = slot != NULL ? slot->call : NULL;

    if (call == NULL || call->state == GCI_CALL_OPEN || (asking && call == in_callback)) {
        return call;
    }
    (void)gci_slot_refuse(slot, handle, what);
    return NULL;
}

struct gci_call *gci_call_enter(const grpc_c_call *handle, const char *what)
{
    return enter(handle, what, false);
}

struct gci_call *gci_call_look(const grpc_c_call *handle, const char *what)
{
    return enter(handle, what, true);
}

void gci_call_leave(struct gci_call *call)
{
    pthread_mutex_unlock(&call->slot->lock);
}

/* -- batches ---------------------------------------------------------------------------------- */

void gci_call_batch(struct gci_call *call, const grpc_op *ops, size_t n, struct gci_tag *tag)
{
    call->in_flight++;
    GCI_CHECK(grpc_call_start_batch(call->core, ops, n, gci_tag_arm(tag), NULL) == GRPC_CALL_OK);
}

grpc_op gci_call_close_op(struct gci_call *call)
{
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};

    op.data.recv_close_on_server.cancelled = &call->core_cancelled;
    call->close_started = true;
    return op;
}

/* -- arrival ---------------------------------------------------------------------------------- */

static bool take_request(struct gci_call *call)
{
    grpc_byte_buffer *buffer = call->received;
    struct gci_error error;

    call->received = NULL;
    if (buffer == NULL) {
        gci_call_fail(call, GRPC_C_INVALID_ARGUMENT, "the call came without its request");
        return false;
    }
    if (!gci_call_take(call, buffer, &error)) {
        gci_call_fail(call, error.code, "%s", error.text);
        return false;
    }
    return true;
}

void gci_call_watch_close(struct gci_call *call)
{
    pthread_mutex_lock(&call->slot->lock);
    if (!call->close_started && call->state == GCI_CALL_OPEN) {
        grpc_op op = gci_call_close_op(call);
        gci_call_batch(call, &op, 1, &call->close_tag);
    }
    pthread_mutex_unlock(&call->slot->lock);
}

static bool is_cancelled(struct gci_call *call)
{
    bool cancelled;

    pthread_mutex_lock(&call->slot->lock);
    cancelled = call->cancelled;
    pthread_mutex_unlock(&call->slot->lock);
    return cancelled;
}

static bool begin(struct gci_call *call)
{
    bool handled;

    gci_call_callback_begin(call);
    handled = call->method->table->begin(gci_slot_handle(call->slot), call->message,
                                         call->method->handlers);
    gci_call_callback_end();
    return handled;
}

static void run_arrival(struct gci_call *call)
{
    const struct grpc_c_method *table = call->method->table;

    if (call->queue->server->pool != NULL && is_cancelled(call)) {
        gci_call_fail(call, GRPC_C_CANCELLED, "the call was over before its turn came");
        return;
    }
    if (gci_one_request(table->shape) && !take_request(call)) {
        return;
    }
    if (!begin(call)) {
        gci_call_fail(call, GRPC_C_UNIMPLEMENTED, "%s is not implemented", table->path);
    }
    if (!gci_round_watch_later(call)) {
        gci_call_watch_close(call);
    }
}

void gci_call_arrived(struct gci_call *call)
{
    if (call->queue->server->pool != NULL) {
        gci_call_watch_close(call);
    }
    if (!gci_turn_first(call, &call->arrival)) {
        gci_call_fail(call, GRPC_C_RESOURCE_EXHAUSTED, "too many calls wait for a worker");
        gci_call_event_done(call);
    }
}

/* -- cancellation ----------------------------------------------------------------------------- */

/* Calls on_cancel, once, unless the call is finished. */
static void run_cancel(struct gci_call *call)
{
    void (*on_cancel)(grpc_c_call * c, void *arg) = NULL;
    void *arg;

    pthread_mutex_lock(&call->slot->lock);
    if (call->state == GCI_CALL_OPEN) {
        on_cancel = call->on_cancel;
    }
    arg = call->on_cancel_arg;
    call->on_cancel = NULL;
    pthread_mutex_unlock(&call->slot->lock);
    if (on_cancel != NULL) {
        gci_call_callback_begin(call);
        on_cancel(gci_slot_handle(call->slot), arg);
        gci_call_callback_end();
    }
}

static void run_notice(struct gci_call *call)
{
    pthread_mutex_lock(&call->slot->lock);
    call->noticing = false;
    pthread_mutex_unlock(&call->slot->lock);
    run_cancel(call);
}

/* RECV_CLOSE ends a call that still was open: cancelled, timed out, or the connection is gone. */
static void on_close(struct gci_tag *tag, bool ok)
{
    struct gci_call *call = gci_container_of(tag, struct gci_call, close_tag);

    (void)ok;
    pthread_mutex_lock(&call->slot->lock);
    call->close_seen = true;
    if (call->state == GCI_CALL_OPEN) {
        call->cancelled = true; /* at once: a handler that blocks a worker may be asking */
    }
    pthread_mutex_unlock(&call->slot->lock);
    gci_turn(call, &call->close);
}

static void on_notice(struct gci_tag *tag, bool ok)
{
    struct gci_call *call = gci_container_of(tag, struct gci_call, notice_tag);

    (void)ok;
    gci_turn(call, &call->notice);
}

bool grpc_c_call_on_cancel(grpc_c_call *handle, void (*on_cancel)(grpc_c_call *call, void *arg),
                           void *arg)
{
    struct gci_call *call = gci_call_enter(handle, __func__);

    if (call == NULL) {
        return false;
    }
    call->on_cancel = on_cancel;
    call->on_cancel_arg = arg;
    if (call->close_seen && !call->noticing) {
        /* too late to be told by it: an empty batch comes back at once */
        call->noticing = true;
        gci_call_batch(call, NULL, 0, &call->notice_tag);
    }
    gci_call_leave(call);
    return true;
}

bool grpc_c_call_cancelled(const grpc_c_call *handle)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    bool cancelled;

    if (call == NULL) {
        return true;
    }
    cancelled = call->cancelled;
    gci_call_leave(call);
    return cancelled;
}
