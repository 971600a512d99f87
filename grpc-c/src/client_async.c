/* Unary calls that are not waited for: `done` is called once, on the channel's thread. */
#include <stdlib.h>

#include <grpc/support/alloc.h>

#include "client.h"

struct grpc_c_pending {
    struct gci_handle handle;
    struct gci_unary unary;
    const struct grpc_c_method *method;
    grpc_c_answered answered;
    void (*done)(void);
    void *arg;
    pthread_mutex_t lock; /* inside the channel's */
    grpc_call *core;      /* lock; NULL once answered */
};

void grpc_c_pending_cancel(grpc_c_pending *pending)
{
    pthread_mutex_lock(&pending->lock);
    if (pending->core != NULL) {
        (void)grpc_call_cancel(pending->core, NULL);
    }
    pthread_mutex_unlock(&pending->lock);
}

void grpc_c_pending_release(grpc_c_pending *pending)
{
    if (pending != NULL) {
        gci_handle_release(&pending->handle);
    }
}

static void cancel(struct gci_handle *handle)
{
    grpc_c_pending_cancel(gci_container_of(handle, grpc_c_pending, handle));
}

static void destroy(struct gci_handle *handle)
{
    grpc_c_pending *pending = gci_container_of(handle, grpc_c_pending, handle);

    pthread_mutex_destroy(&pending->lock);
    free(pending);
}

static const struct gci_handle_type type = {cancel, destroy};

static void on_answered(struct gci_tag *tag, bool ok)
{
    grpc_c_pending *pending = gci_container_of(tag, grpc_c_pending, unary.tag);
    struct grpc_c_result result = {0};
    ProtobufCMessage *message =
        gci_unary_end(&pending->unary, pending->handle.channel, pending->method, &result);

    (void)ok; /* the status says it */
    pthread_mutex_lock(&pending->lock);
    grpc_call_unref(pending->core);
    pending->core = NULL;
    pthread_mutex_unlock(&pending->lock);
    pending->answered(message, &result, pending->done, pending->arg);
    grpc_c_result_fini(&result);
    gci_handle_done(&pending->handle);
}

int grpc_c_unary_async(grpc_c_channel *channel, const struct grpc_c_method *method,
                       const ProtobufCMessage *request, const struct grpc_c_call_options *options,
                       grpc_c_answered answered, void (*done)(void), void *arg,
                       grpc_c_pending **handle)
{
    grpc_c_pending *pending = calloc(1, sizeof(*pending));

    if (pending == NULL) {
        gci_client_give_back(options);
        return -1;
    }
    pthread_mutex_init(&pending->lock, NULL);
    pending->core = gci_client_call(channel, method, options); /* from its listing on cancelled */
    if (gci_handle_init(&pending->handle, &type, channel, handle == NULL ? 1 : 2) != 0) {
        grpc_call_unref(pending->core);
        destroy(&pending->handle);
        gci_client_give_back(options);
        return -1;
    }
    if (handle != NULL) {
        *handle = pending;
    }
    pending->method = method;
    pending->answered = answered;
    pending->done = done;
    pending->arg = arg;
    gci_unary_init(&pending->unary, request, options, on_answered);
    gci_unary_start(&pending->unary, channel, pending->core, options);
    return 0;
}
