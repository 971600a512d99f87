/*
 * Unary calls that are not waited for.
 *
 *   running --event, on the channel's thread--> answered: `done` is called, once
 *
 * Two may hold an object: the call, until `done` has returned, and the caller that asked for a
 * handle, until it releases it. The channel lists those whose `done` has not returned, and waits
 * for them when it is destroyed.
 */
#include <stdlib.h>

#include <grpc/support/alloc.h>

#include "client.h"

struct grpc_c_pending {
    struct gci_unary unary;
    grpc_c_channel *channel;
    const struct grpc_c_method *method;
    grpc_c_answered answered;
    void (*done)(void);
    void *arg;
    grpc_c_pending *next;  /* the channel's lock */
    grpc_c_pending **link; /* the channel's lock: what points to this one */
    atomic_uint holders;
    pthread_mutex_t lock; /* inside the channel's */
    grpc_call *core;      /* lock; NULL once answered */
};

static void release(grpc_c_pending *pending)
{
    if (atomic_fetch_sub(&pending->holders, 1) == 1) {
        pthread_mutex_destroy(&pending->lock);
        free(pending);
    }
}

void grpc_c_pending_release(grpc_c_pending *pending)
{
    if (pending != NULL) {
        release(pending);
    }
}

void grpc_c_pending_cancel(grpc_c_pending *pending)
{
    pthread_mutex_lock(&pending->lock);
    if (pending->core != NULL) {
        (void)grpc_call_cancel(pending->core, NULL);
    }
    pthread_mutex_unlock(&pending->lock);
}

/* -- the channel's list ----------------------------------------------------------------------- */

static void enlist(grpc_c_pending *pending)
{
    grpc_c_channel *channel = pending->channel;

    pthread_mutex_lock(&channel->lock);
    pending->next = channel->pending;
    pending->link = &channel->pending;
    if (pending->next != NULL) {
        pending->next->link = &pending->next;
    }
    channel->pending = pending;
    pthread_mutex_unlock(&channel->lock);
}

static void delist(grpc_c_pending *pending)
{
    grpc_c_channel *channel = pending->channel;

    pthread_mutex_lock(&channel->lock);
    *pending->link = pending->next;
    if (pending->next != NULL) {
        pending->next->link = pending->link;
    }
    pthread_cond_broadcast(&channel->changed);
    pthread_mutex_unlock(&channel->lock);
}

void gci_client_end_pending(grpc_c_channel *channel)
{
    pthread_mutex_lock(&channel->lock);
    for (grpc_c_pending *i = channel->pending; i != NULL; i = i->next) {
        grpc_c_pending_cancel(i);
    }
    while (channel->pending != NULL) {
        pthread_cond_wait(&channel->changed, &channel->lock);
    }
    pthread_mutex_unlock(&channel->lock);
}

/* -- calls ------------------------------------------------------------------------------------ */

static void on_answered(struct gci_tag *tag, bool ok)
{
    grpc_c_pending *pending = gci_container_of(tag, grpc_c_pending, unary.tag);
    struct grpc_c_result result = {0};
    ProtobufCMessage *message =
        gci_unary_end(&pending->unary, pending->channel, pending->method, &result);

    (void)ok; /* the status says it */
    pthread_mutex_lock(&pending->lock);
    grpc_call_unref(pending->core);
    pending->core = NULL;
    pthread_mutex_unlock(&pending->lock);
    pending->answered(message, &result, pending->done, pending->arg);
    grpc_c_result_fini(&result);
    delist(pending);
    release(pending);
}

int grpc_c_unary_async(grpc_c_channel *channel, const struct grpc_c_method *method,
                       const ProtobufCMessage *request, const struct grpc_c_call_options *options,
                       grpc_c_answered answered, void (*done)(void), void *arg,
                       grpc_c_pending **handle)
{
    grpc_c_pending *pending = calloc(1, sizeof(*pending));

    if (pending == NULL) {
        return -1;
    }
    pending->channel = channel;
    pending->method = method;
    pending->answered = answered;
    pending->done = done;
    pending->arg = arg;
    pthread_mutex_init(&pending->lock, NULL);
    atomic_store(&pending->holders, handle == NULL ? 1 : 2);
    if (handle != NULL) {
        *handle = pending;
    }
    gci_unary_init(&pending->unary, request, on_answered);
    pending->core = gci_client_call(channel, method, options);
    enlist(pending); /* from its start on it may be over and gone at any time */
    gci_unary_start(&pending->unary, pending->core, options);
    return 0;
}
