/*
 * Accepts: call objects posted with core, ready to receive a call each.
 *
 * For every method, and for calls of unknown methods, one is posted on the first queue; the first
 * thing an arriving call does is to post its successor, and another one until there are `accepts`.
 * So a method that nobody calls has but one out: core, where it is built with its own checks as
 * Debian's is, looks for each event through all that is out on the queue. Helpers' queues have some
 * while there is more to do than the first can (help.c). Of every method one is out somewhere, or
 * about to be.
 */
#include <stdio.h>
#include <string.h>

#include "call.h"
#include "server.h"

/* How much of an unknown method's path is repeated to the caller. */
#define PATH_SHOWN 200

/* One to take the arrived call's place, and another one until there are `accepts`. */
static bool post_two(const struct gci_call *call)
{
    const struct gci_share *share = gci_share_of(call->queue, call->method);

    if (!gci_accept_post(call->queue, call->method, NULL)) {
        return false;
    }
    if (atomic_load(&share->out) < call->queue->server->options.accepts) {
        (void)gci_accept_post(call->queue, call->method, NULL);
    }
    return true;
}

/* On another queue's thread, which has no spares. */
static bool post_on(struct gci_queue *queue, struct gci_method *method)
{
    struct gci_call *call = gci_call_make(queue, method);

    return call != NULL && gci_accept_post(queue, method, call);
}

static void ask_for_help(const struct gci_call *call)
{
    grpc_c_server *server = call->queue->server;

    for (unsigned i = 1; i < server->options.pollers; i++) {
        struct gci_queue *helper = &server->queues[i];
        if (atomic_load(&gci_share_of(helper, call->method)->out) == 0 &&
            post_on(helper, call->method)) {
            gci_help_wake(helper);
        }
    }
}

static bool is_helped(const struct gci_call *call)
{
    grpc_c_server *server = call->queue->server;

    for (unsigned i = 1; i < server->options.pollers; i++) {
        if (atomic_load(&gci_share_of(&server->queues[i], call->method)->out) > 0) {
            return true;
        }
    }
    return false;
}

/* A helper goes on while the first is busy. Who uses up its last one gives the method back. */
static void post_helpers_successor(struct gci_call *call)
{
    grpc_c_server *server = call->queue->server;

    if (gci_help_wanted(server->queues) && post_two(call)) {
        return;
    }
    if (atomic_load(&gci_share_of(call->queue, call->method)->out) == 0) {
        call->owes_accept = !post_on(server->queues, call->method);
    }
}

static void post_successor(struct gci_call *call)
{
    if (gci_queue_helps(call->queue)) {
        post_helpers_successor(call);
        return;
    }
    if (atomic_load(&call->queue->server->busy)) {
        ask_for_help(call);
    } else if (is_helped(call)) {
        return; /* what helpers have out is to be used up */
    }
    call->owes_accept = !post_two(call);
}

static void answer_unknown(struct gci_call *call)
{
    char path[PATH_SHOWN + 1];
    size_t length = GRPC_SLICE_LENGTH(call->details.method);

    length = length < PATH_SHOWN ? length : PATH_SHOWN;
    for (size_t i = 0; i < length; i++) {
        char c = (char)GRPC_SLICE_START_PTR(call->details.method)[i];
        path[i] = (char)(c >= 0x20 && c < 0x7f ? c : '?');
    }
    path[length] = '\0';
    gci_call_fail(call, GRPC_C_UNIMPLEMENTED, "unknown method %s", path);
}

static void on_accept(struct gci_tag *tag, bool ok)
{
    struct gci_call *call = gci_container_of(tag, struct gci_call, accept_tag);
    grpc_c_server *server = call->queue->server;

    atomic_fetch_sub(&gci_share_of(call->queue, call->method)->out, 1);
    if (!ok) { /* the server shuts down */
        gci_call_gone(call);
        return;
    }
    if (atomic_load(&server->accepting)) {
        post_successor(call);
    }
    atomic_fetch_add(&server->open, 1);
    pthread_mutex_lock(&call->slot->lock);
    call->slot->call = call;
    call->arrived_ms = gci_coarse_ms();
    call->state = GCI_CALL_OPEN;
    pthread_mutex_unlock(&call->slot->lock);
    if (call->method->table == NULL) {
        answer_unknown(call);
        gci_call_event_done(call);
    } else {
        gci_call_arrived(call);
    }
}

static grpc_call_error request(struct gci_call *call)
{
    grpc_server *core = call->queue->server->core;
    grpc_completion_queue *queue = call->queue->poller.queue;
    void *tag = gci_tag_arm(&call->accept_tag);

    if (call->method->table == NULL) {
        return grpc_server_request_call(core, &call->core, &call->details, &call->metadata, queue,
                                        queue, tag);
    }
    return grpc_server_request_registered_call(
        core, call->method->registered, &call->core, &call->deadline, &call->metadata,
        gci_one_request(call->method->table->shape) ? &call->received : NULL, queue, queue, tag);
}

bool gci_accept_post(struct gci_queue *queue, struct gci_method *method, struct gci_call *call)
{
    if (call == NULL) {
        call = gci_call_new(queue, method);
    }
    if (call == NULL) {
        return false;
    }
    gci_tag_init(&call->accept_tag, on_accept);
    call->in_flight++;
    atomic_fetch_add(&queue->held, 1);
    atomic_fetch_add(&gci_share_of(queue, method)->out, 1);
    atomic_fetch_add(&queue->server->live, 1);
    GCI_CHECK(request(call) == GRPC_CALL_OK);
    return true;
}

int gci_accept_post_all(grpc_c_server *server)
{
    for (size_t m = 0; m <= server->n_methods; m++) {
        if (!post_on(server->queues,
                     m < server->n_methods ? &server->methods[m] : &server->unknown)) {
            return -1;
        }
    }
    return 0;
}
