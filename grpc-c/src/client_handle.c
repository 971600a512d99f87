/*
 * Calls that nobody waits for: a channel knows those whose last callback has not returned, and
 * waits for them when it is destroyed.
 */
#include "client.h"

int gci_handle_init(struct gci_handle *handle, const struct gci_handle_type *type,
                    grpc_c_channel *channel, unsigned holders)
{
    bool closing;

    handle->type = type;
    handle->channel = channel;
    atomic_store(&handle->holders, holders);
    pthread_mutex_lock(&channel->lock);
    closing = channel->closing;
    if (!closing) {
        handle->next = channel->handles;
        handle->link = &channel->handles;
        if (handle->next != NULL) {
            handle->next->link = &handle->next;
        }
        channel->handles = handle;
    }
    pthread_mutex_unlock(&channel->lock);
    return closing ? -1 : 0;
}

void gci_handle_done(struct gci_handle *handle)
{
    grpc_c_channel *channel = handle->channel;

    pthread_mutex_lock(&channel->lock);
    *handle->link = handle->next;
    if (handle->next != NULL) {
        handle->next->link = handle->link;
    }
    pthread_cond_broadcast(&channel->changed);
    pthread_mutex_unlock(&channel->lock);
    gci_handle_release(handle);
}

void gci_handle_release(struct gci_handle *handle)
{
    if (atomic_fetch_sub(&handle->holders, 1) == 1) {
        handle->type->destroy(handle);
    }
}

void gci_client_end_handles(grpc_c_channel *channel)
{
    pthread_mutex_lock(&channel->lock);
    channel->closing = true;
    for (struct gci_handle *i = channel->handles; i != NULL; i = i->next) {
        i->type->cancel(i);
    }
    while (channel->handles != NULL) {
        pthread_cond_wait(&channel->changed, &channel->lock);
    }
    pthread_mutex_unlock(&channel->lock);
}
