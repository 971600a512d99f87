/* What a handler asks about its call, and keeps with it. */
#include <grpc/support/alloc.h>
#include <grpc/support/string_util.h>
#include <grpc/support/time.h>

#include "call.h"
#include "listener.h"

#define PEER_MAX 80

static int64_t ms_until(gpr_timespec deadline)
{
    gpr_timespec left;

    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) {
        return INT64_MAX;
    }
    left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    if (left.tv_sec < 0 || (left.tv_sec == 0 && left.tv_nsec == 0)) {
        return 0;
    }
    return left.tv_sec * 1000 + (left.tv_nsec + 999999) / 1000000;
}

int64_t grpc_c_call_remaining_ms(const grpc_c_call *handle)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    gpr_timespec deadline;

    if (call == NULL) {
        return 0;
    }
    deadline = call->deadline;
    gci_call_leave(call);
    return ms_until(deadline);
}

char *gci_call_peer(const struct gci_call *call)
{
    char *name = grpc_call_get_peer(call->core);
    char text[PEER_MAX];

    if (!gci_listener_peer(call->queue->server->listener, gci_listener_fd(name), text,
                           sizeof(text))) {
        return name;
    }
    gpr_free(name);
    return gpr_strdup(text);
}

const char *grpc_c_call_peer(grpc_c_call *handle)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    const char *peer;

    if (call == NULL) {
        return NULL;
    }
    if (call->peer == NULL) {
        call->peer = gci_call_peer(call);
    }
    peer = call->peer;
    gci_call_leave(call);
    return peer;
}

const struct grpc_c_identity *grpc_c_call_identity(grpc_c_call *handle)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    const struct grpc_c_identity *identity;

    if (call == NULL) {
        return NULL;
    }
    if (call->identity == NULL) {
        call->identity = gci_identity(call->core);
    }
    identity = call->identity;
    gci_call_leave(call);
    return identity;
}

const struct grpc_c_metadata *grpc_c_call_metadata(grpc_c_call *handle, size_t *n)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    const struct grpc_c_metadata *list;

    *n = 0;
    if (call == NULL) {
        return NULL;
    }
    if (!call->metadata_copied) {
        call->received_metadata = gci_metadata_copy(&call->metadata);
        call->metadata_copied = true;
    }
    *n = call->received_metadata.n;
    list = call->received_metadata.list;
    gci_call_leave(call);
    return list;
}

bool grpc_c_call_set_data(grpc_c_call *handle, void *data, void (*destroy)(void *data))
{
    struct gci_call *call = gci_call_enter(handle, __func__);

    if (call == NULL) {
        return false;
    }
    call->data_destroy = destroy;
    call->data = data;
    gci_call_leave(call);
    return true;
}

void *grpc_c_call_data(const grpc_c_call *handle)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    void *data = NULL;

    if (call != NULL) {
        data = call->data;
        gci_call_leave(call);
    }
    return data;
}

bool grpc_c_call_message_compressed(const grpc_c_call *handle)
{
    struct gci_call *call = gci_call_look(handle, __func__);
    bool compressed = false;

    if (call != NULL) {
        compressed = call->compressed;
        gci_call_leave(call);
    }
    return compressed;
}
